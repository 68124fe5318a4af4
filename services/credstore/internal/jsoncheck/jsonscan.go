package jsoncheck

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// SyntaxError says where a text stops being JSON. It does not say what is there:
// that may be a part of a secret.
type SyntaxError struct{ Offset int }

func (e *SyntaxError) Error() string {
	return "is not valid JSON at byte " + strconv.Itoa(e.Offset)
}

// scanner reads JSON (RFC 8259) strictly: UTF-8 only, no half of a surrogate
// pair, nothing behind the value. It is written here because encoding/json
// repairs what it should refuse and repeats input in its errors.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) fail() error { return &SyntaxError{s.pos} }

// next skips white space and returns the byte that the next token begins with,
// 0 at the end.
func (s *scanner) next() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// punct reads one structural character.
func (s *scanner) punct(c byte) error {
	if s.next() != c {
		return s.fail()
	}
	s.pos++
	return nil
}

// end accepts nothing but white space.
func (s *scanner) end() error {
	s.next()
	if s.pos != len(s.data) {
		return s.fail()
	}
	return nil
}

// literal reads true, false or null.
func (s *scanner) literal() error {
	s.next()
	for _, word := range [...]string{"true", "false", "null"} {
		if end := s.pos + len(word); end <= len(s.data) && string(s.data[s.pos:end]) == word {
			s.pos = end
			return nil
		}
	}
	return s.fail()
}

// number reads a number and returns it as it is written.
func (s *scanner) number() (string, error) {
	s.next()
	start := s.pos
	s.accept('-')
	if !s.accept('0') && s.digits() == 0 {
		return "", s.fail()
	}
	if s.accept('.') && s.digits() == 0 {
		return "", s.fail()
	}
	if s.accept('e') || s.accept('E') {
		if !s.accept('+') {
			s.accept('-')
		}
		if s.digits() == 0 {
			return "", s.fail()
		}
	}
	return string(s.data[start:s.pos]), nil
}

func (s *scanner) accept(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) digits() (n int) {
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
		n++
	}
	return n
}

// str reads a string and returns what it means.
func (s *scanner) str() (string, error) {
	if err := s.punct('"'); err != nil {
		return "", err
	}
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			value := string(s.data[start:s.pos])
			s.pos++
			return value, nil
		case c == '\\':
			return s.escaped(append([]byte(nil), s.data[start:s.pos]...))
		case c < ' ':
			return "", s.fail()
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, size := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && size == 1 {
				return "", s.fail()
			}
			s.pos += size
		}
	}
	return "", s.fail()
}

// escaped reads the rest of a string that has an escape.
func (s *scanner) escaped(b []byte) (string, error) {
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			return string(b), nil
		case c < ' ':
			return "", s.fail()
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		default:
			r, size := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && size == 1 {
				return "", s.fail()
			}
			b = append(b, s.data[s.pos:s.pos+size]...)
			s.pos += size
		}
	}
	return "", s.fail()
}

// escape reads one escape; a surrogate pair is one.
func (s *scanner) escape() (rune, error) {
	s.pos++ // the backslash
	if s.pos >= len(s.data) {
		return 0, s.fail()
	}
	c := s.data[s.pos]
	s.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := s.hex4()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if !s.accept('\\') || !s.accept('u') {
			return 0, s.fail()
		}
		low, err := s.hex4()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, s.fail()
		}
		return r, nil
	}
	s.pos--
	return 0, s.fail()
}

func (s *scanner) hex4() (rune, error) {
	if s.pos+4 > len(s.data) {
		return 0, s.fail()
	}
	var r rune
	for range 4 {
		c := s.data[s.pos]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.fail()
		}
		r = r<<4 | rune(c)
		s.pos++
	}
	return r, nil
}

// object reads an object; member is called with each name when the scanner
// stands before the value, and must read it.
func (s *scanner) object(member func(name string) error) error {
	if err := s.punct('{'); err != nil {
		return err
	}
	if s.next() == '}' {
		s.pos++
		return nil
	}
	for {
		if s.next() != '"' {
			return s.fail()
		}
		name, err := s.str()
		if err != nil {
			return err
		}
		if err := s.punct(':'); err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
		if s.next() == '}' {
			s.pos++
			return nil
		}
		if err := s.punct(','); err != nil {
			return err
		}
	}
}

// array reads an array; element is called when the scanner stands before each
// value, and must read it.
func (s *scanner) array(element func(index int) error) error {
	if err := s.punct('['); err != nil {
		return err
	}
	if s.next() == ']' {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := element(i); err != nil {
			return err
		}
		if s.next() == ']' {
			s.pos++
			return nil
		}
		if err := s.punct(','); err != nil {
			return err
		}
	}
}

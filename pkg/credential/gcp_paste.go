package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// gcpWraps is how many layers a paste may have around the JSON.
const gcpWraps = 6

// gcpUnwrap removes what is around a pasted JSON document, as long as there is
// one inside: white space, byte order marks, quotes, base64, the name of a
// variable, a shell prompt, the fence of a code block, one level of escapes, the
// answer of the IAM API. Otherwise it returns the text as it is, trimmed.
func gcpUnwrap(text string) string {
	text = trimPasted(text)
	inner := text
	for range gcpWraps {
		if gcpValid(inner) && gcpKeyData(inner) == "" {
			return strings.ReplaceAll(inner, "\r\n", "\n")
		}
		next := trimPasted(gcpPeel(inner))
		if next == inner {
			break
		}
		inner = next
	}
	if strings.HasPrefix(inner, "{") {
		return inner // broken, and where can be said best of what is inside
	}
	return text
}

func gcpValid(text string) bool { return strings.HasPrefix(text, "{") && json.Valid([]byte(text)) }

// A document begins with a brace, a quote, or the base64 of a brace, once or
// twice; that is also what follows the name of a variable.
var (
	gcpBegins   = regexp.MustCompile(`^(?:[{'"]|ey|ew|ZXl|ZXd)`)
	gcpVariable = regexp.MustCompile(`^(?:export +)?[A-Za-z_][A-Za-z0-9_]{0,63}=(?:[{'"]|ey|ew|ZXl|ZXd)`)
	gcpPrompt   = regexp.MustCompile(`^\S{0,64}[$#%>] +[^\n]{1,200}\n`)
	gcpFence    = regexp.MustCompile("(?s)^```[a-z]{0,8}\r?\n(.*)```$")
	// gcpFileName finds the name of a file in place of its contents.
	gcpFileName = regexp.MustCompile(`^@?[\w~./\\: -]{1,255}\.json$`)
)

// gcpPeel removes one layer.
func gcpPeel(text string) string {
	if data := gcpKeyData(text); data != "" {
		return data
	}
	if strings.HasPrefix(text, "{") {
		return gcpRepair(text)
	}
	if m := gcpFence.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	if at := gcpPrompt.FindStringIndex(text); at != nil {
		return text[at[1]:]
	}
	if gcpVariable.MatchString(text) {
		return text[strings.IndexByte(text, '=')+1:]
	}
	if quoted, ok := gcpQuoted(text, '\''); ok {
		return quoted
	}
	if quoted, ok := gcpQuoted(text, '"'); ok {
		if escaped, ok := gcpUnescape(quoted); ok {
			return escaped
		}
		return quoted
	}
	if decoded, ok := gcpBase64(text); ok && gcpBegins.MatchString(trimPasted(decoded)) {
		return decoded
	}
	return text
}

// gcpKeyData returns the key inside an answer of the method
// projects.serviceAccounts.keys.create of the IAM API, "" when the text is none.
func gcpKeyData(text string) string {
	if !strings.Contains(text, `"privateKeyData"`) {
		return ""
	}
	var answer struct {
		Type string `json:"type"`
		Data []byte `json:"privateKeyData"`
	}
	if json.Unmarshal([]byte(text), &answer) != nil || answer.Type != "" || !utf8.Valid(answer.Data) {
		return ""
	}
	return string(answer.Data)
}

// gcpRepair mends an object that would be JSON but for line breaks inside of its
// strings, or for a backslash before each of its quotes; otherwise it returns the
// text as it is.
func gcpRepair(text string) string {
	if mended := gcpEscapeBreaks(text); gcpValid(mended) {
		return mended
	}
	escaped, ok := gcpUnescape(text)
	if !ok {
		return text
	}
	if mended := gcpEscapeBreaks(escaped); gcpValid(mended) {
		return mended
	}
	return text
}

// gcpEscapeBreaks escapes the line breaks and tabs inside of JSON's strings.
func gcpEscapeBreaks(text string) string {
	var b strings.Builder
	b.Grow(len(text) + 64)
	inString, escaped := false, false
	for i := range len(text) {
		c := text[i]
		switch {
		case inString && !escaped && c == '\n':
			b.WriteString(`\n`)
			continue
		case inString && !escaped && c == '\t':
			b.WriteString(`\t`)
			continue
		case inString && !escaped && c == '\r':
			continue
		case c == '"' && !escaped:
			inString = !inString
		}
		escaped = inString && c == '\\' && !escaped
		b.WriteByte(c)
	}
	return b.String()
}

// gcpUnescape reads the inside of a JSON string that holds an object.
func gcpUnescape(text string) (string, bool) {
	if !strings.Contains(text, `\"`) {
		return "", false
	}
	var inner string
	breaks := strings.NewReplacer("\r\n", `\n`, "\n", `\n`, "\t", `\t`)
	if json.Unmarshal([]byte(`"`+breaks.Replace(text)+`"`), &inner) != nil {
		return "", false
	}
	inner = trimPasted(inner)
	return inner, strings.HasPrefix(inner, "{")
}

// gcpQuoted returns what stands between two quotes of a kind.
func gcpQuoted(text string, quote byte) (string, bool) {
	if len(text) < 2 || text[0] != quote || text[len(text)-1] != quote {
		return "", false
	}
	return text[1 : len(text)-1], true
}

// gcpBase64 decodes base64 of either alphabet, with line breaks or spaces in it
// and with or without padding.
func gcpBase64(text string) (string, bool) {
	packed := strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return -1
		case c == '-':
			return '+'
		case c == '_':
			return '/'
		}
		return c
	}, text)
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(packed, "="))
	if err != nil || len(decoded) == 0 {
		return "", false
	}
	return string(decoded), utf8.Valid(decoded)
}

// gcpIsPKCS12 says whether a text is the base64 of a PKCS#12 file: a sequence
// that begins with the number 3.
func gcpIsPKCS12(text string) bool {
	const begin = 12 // characters, for the first nine bytes
	if len(text) < begin {
		return false
	}
	head, err := base64.StdEncoding.DecodeString(text[:begin])
	return err == nil && len(head) == 9 && bytes.HasPrefix(head, []byte{0x30, 0x82}) && bytes.Equal(head[4:7], []byte{2, 1, 3})
}

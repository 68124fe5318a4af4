package audit

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// appendLine appends the entry as one line of JSON. Members keep their order
// and those that are empty are left out, except for allowed. It is written by
// hand because every access waits for it.
func appendLine(b []byte, e *core.AuditEntry) []byte {
	b = append(b, `{"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = appendMember(b, "principal", e.Principal)
	b = appendMember(b, "remote", e.Remote)
	b = appendMember(b, "callId", e.RequestID)
	b = appendMember(b, "permission", string(e.Permission))
	b = appendMember(b, "resource", e.Resource)
	b = append(b, `,"allowed":`...)
	b = strconv.AppendBool(b, e.Allowed)
	b = appendList(b, "payloads", e.Payloads)
	b = appendMember(b, "minted", e.Minted)
	b = appendList(b, "subscriptions", e.Subscriptions)
	if e.Revision != 0 {
		// A string, as in the JSON of the REST side.
		b = append(b, `,"revision":"`...)
		b = strconv.AppendUint(b, uint64(e.Revision), 10)
		b = append(b, '"')
	}
	b = appendMember(b, "reason", e.Reason)
	return append(b, '}', '\n')
}

func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(appendName(b, name), value)
}

func appendList(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(appendName(b, name), '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}

// appendName appends a member's name, one that needs no escapes.
func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendString appends s as a JSON string. Nothing in it can end the line, or
// drive a terminal that shows it: control characters, those of Unicode's C1
// block and the two separators that JavaScript takes for line ends are escaped,
// and what is no UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			default:
				b = appendEscape(b, rune(c))
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			b = append(b, s[start:i]...)
			b = appendEscape(b, r)
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendEscape appends a character of the basic plane as \uXXXX.
func appendEscape(b []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
}

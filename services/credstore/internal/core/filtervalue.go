package core

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/nearest"
	"github.com/credstore/credstore/pkg/resourcename"
)

// checkValue refuses what the field can never be, which otherwise would match
// nothing without a word.
func (t *term) checkValue(at int) error {
	switch t.field {
	case "age", "expires":
		var ok bool
		if t.span, ok = parseSpan(t.value); !ok {
			return invalidField("filter", "expected a length of time at character %d: a number of at most %d days and d, h, m or s behind it, as 90d", at, maxSpan/day)
		}
	case "kind":
		var kinds []string
		for _, k := range credential.Kinds() {
			kinds = append(kinds, string(k))
		}
		return t.oneOf(kinds, at)
	case "name":
		return t.fullName(at)
	case "ageState":
		return t.oneOf(ageStates, at)
	case "verification":
		var states []string
		for s := range VerificationUnsupported + 1 {
			states = append(states, s.String())
		}
		return t.oneOf(states, at)
	}
	return nil
}

// oneOf refuses what is not among the values that there are.
func (t *term) oneOf(known []string, at int) error {
	if slices.Contains(known, t.value) {
		return nil
	}
	meant := ""
	if near := nearest.Word(t.value, known); near != "" {
		meant = "; did you mean " + near + "?"
	}
	return invalidField("filter", "unknown value at character %d: %s is one of %s%s", at, t.field, strings.Join(known, ", "), meant)
}

// fullName refuses what is no credential's name. An id alone is not taken for the
// name that it ends: match compares names, and a filter says what it compares.
func (t *term) fullName(at int) error {
	if _, err := resourcename.ParseCredential(t.value); err == nil {
		return nil
	}
	return invalidField("filter", "expected a full name at character %d, as projects/PROJECT/credentials/CREDENTIAL", at)
}

const (
	day = 24 * time.Hour
	// maxSpan is far from where a time.Duration ends.
	maxSpan = 36_500 * day
)

// parseSpan reads a whole number with its unit: 90d, 12h, 30m or 45s.
func parseSpan(text string) (time.Duration, bool) {
	if len(text) < 2 {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{'d': day, 'h': time.Hour, 'm': time.Minute, 's': time.Second}[text[len(text)-1]]
	digits := text[:len(text)-1]
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || err != nil || digits[0] == '+' || n > uint64(maxSpan/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// filterValue takes a bare word or a quoted string off the front.
func filterValue(s string) (value, rest string, ok bool) {
	if s == "" {
		return "", "", false
	}
	if s[0] != '"' {
		value, rest, _ = strings.Cut(s, " ")
		return value, strings.TrimLeft(rest, " "), !strings.ContainsAny(value, `"=!`)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
			if i == len(s) {
				return "", "", false
			}
			b.WriteByte(s[i])
		case '"':
			rest = s[i+1:]
			if rest != "" && rest[0] != ' ' {
				return "", "", false
			}
			return b.String(), strings.TrimLeft(rest, " "), true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

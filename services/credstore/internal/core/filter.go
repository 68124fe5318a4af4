package core

import (
	"strings"

	"github.com/credstore/credstore/pkg/resourcename"
)

// filter is a conjunction of terms over a credential's metadata, a subset of
// AIP-160: kind, name, labels.KEY; = and !=; joined by AND. Empty matches all.
type filter []term

type term struct {
	field string // "kind", "name" or "labels"
	label string
	not   bool
	value string
}

// parseFilter reads a filter; its error names the field "filter" and the place.
func parseFilter(text string) (filter, error) {
	if len(text) > MaxFilter {
		return nil, invalidField("filter", "has %d characters; at most %d", len(text), MaxFilter)
	}
	var f filter
	rest := strings.TrimSpace(text)
	for rest != "" {
		if len(f) > 0 {
			word, tail, _ := strings.Cut(rest, " ")
			if !strings.EqualFold(word, "AND") {
				return nil, invalidField("filter", "expected AND at character %d", len(text)-len(rest)+1)
			}
			rest = strings.TrimLeft(tail, " ")
		}
		at := len(text) - len(rest) + 1
		i := strings.IndexAny(rest, "=!")
		if i < 0 {
			return nil, invalidField("filter", "expected FIELD = VALUE at character %d", at)
		}
		t := term{field: strings.TrimSpace(rest[:i])}
		rest = rest[i:]
		if strings.HasPrefix(rest, "!=") {
			t.not, rest = true, rest[2:]
		} else if strings.HasPrefix(rest, "=") {
			rest = rest[1:]
		} else {
			return nil, invalidField("filter", "expected = or != at character %d", len(text)-len(rest)+1)
		}
		if label, ok := strings.CutPrefix(t.field, "labels."); ok {
			t.field, t.label = "labels", label
		}
		switch {
		case t.field == "labels" && validLabelKey(t.label):
		case t.field == "kind", t.field == "name":
		default:
			return nil, invalidField("filter", "unknown field at character %d: use kind, name or labels.KEY", at)
		}
		var ok bool
		if t.value, rest, ok = filterValue(strings.TrimLeft(rest, " ")); !ok {
			return nil, invalidField("filter", "expected a value behind the operator of the term at character %d; quote one that holds spaces", at)
		}
		f = append(f, t)
	}
	return f, nil
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

func (f filter) match(c *Credential) bool {
	for _, t := range f {
		var is bool
		switch t.field {
		case "kind":
			is = string(c.Kind) == t.value
		case "name":
			is = c.Name.String() == t.value
		case "labels":
			v, ok := c.Labels[t.label]
			is = ok && v == t.value
		}
		if is == t.not {
			return false
		}
	}
	return true
}

// nameSet is the names of a watch; nil means all.
type nameSet map[resourcename.Credential]struct{}

func (n nameSet) has(c resourcename.Credential) bool {
	if n == nil {
		return true
	}
	_, ok := n[c]
	return ok
}

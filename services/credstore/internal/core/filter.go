package core

import (
	"slices"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
)

// filter is a conjunction of terms over a credential's metadata, a subset of
// AIP-160, joined by AND: kind, name, labels.KEY, ageState and verification with
// = and !=; age and expires with >, >=, < and <=. Empty matches all.
type filter []term

// term is one comparison.
type term struct {
	field string // "labels" for a label
	label string
	op    string
	value string
	span  time.Duration // the value of age and expires
	at    int           // the place in the text, from 1
}

// ops lists the operators, those that begin with another one first.
var ops = []string{"!=", ">=", "<=", "=", ">", "<"}

// parseFilter reads a filter; its error names the field "filter" and the place.
func parseFilter(text string) (filter, error) {
	if len(text) > MaxFilter {
		return nil, invalidField("filter", "has %d characters; at most %d", len(text), MaxFilter)
	}
	var f filter
	rest := strings.TrimSpace(text)
	end := strings.Index(text, rest) + len(rest) + 1
	place := func() int { return end - len(rest) }
	for rest != "" {
		if len(f) > 0 {
			word, tail, _ := strings.Cut(rest, " ")
			if !strings.EqualFold(word, "AND") {
				return nil, invalidField("filter", "expected AND at character %d", place())
			}
			rest = strings.TrimLeft(tail, " ")
		}
		t := term{at: place()}
		i := strings.IndexAny(rest, "=!<>")
		if i < 0 {
			return nil, invalidField("filter", "expected FIELD = VALUE at character %d", t.at)
		}
		t.field = strings.TrimSpace(rest[:i])
		rest = rest[i:]
		o := slices.IndexFunc(ops, func(op string) bool { return strings.HasPrefix(rest, op) })
		if o < 0 {
			return nil, invalidField("filter", "expected = or != at character %d", place())
		}
		opAt := place()
		t.op = ops[o]
		rest = strings.TrimLeft(rest[len(t.op):], " ")
		if label, ok := strings.CutPrefix(t.field, "labels."); ok {
			t.field, t.label = "labels", label
		}
		if err := t.checkField(opAt); err != nil {
			return nil, err
		}
		valueAt := place()
		if strings.HasPrefix(rest, "'") {
			return nil, invalidField("filter", "single quotes at character %d: use double quotes, or none where the value holds no spaces", valueAt)
		}
		var ok bool
		if t.value, rest, ok = filterValue(rest); !ok {
			return nil, invalidField("filter", "expected a value behind the operator of the term at character %d; quote one that holds spaces", t.at)
		}
		if err := t.checkValue(valueAt); err != nil {
			return nil, err
		}
		f = append(f, t)
	}
	return f, nil
}

// checkField refuses an unknown field and an operator that the field has not.
func (t *term) checkField(opAt int) error {
	switch {
	case t.field == "labels" && validLabelKey(t.label):
	case slices.Contains([]string{"kind", "name", "ageState", "verification"}, t.field):
	case t.spans():
		if t.op == "=" || t.op == "!=" {
			return invalidField("filter", "expected >, >=, < or <= at character %d: %s is compared with a length of time", opAt, t.field)
		}
		return nil
	default:
		return invalidField("filter", "unknown field at character %d: use kind, name, labels.KEY, age, ageState, expires or verification", t.at)
	}
	if t.op != "=" && t.op != "!=" {
		return invalidField("filter", "expected = or != at character %d: %s has no order", opAt, t.field)
	}
	return nil
}

// spans says whether the field is compared with a length of time.
func (t *term) spans() bool { return t.field == "age" || t.field == "expires" }

// timed says whether time alone changes what the term is true of.
func (t *term) timed() bool { return t.spans() || t.field == "ageState" }

// refuseTimed is for a watch: nothing tells it when time alone changes what
// matches.
func (f filter) refuseTimed() error {
	for _, t := range f {
		if t.timed() {
			return invalidField("filter", "has %s at character %d, which changes with time alone and cannot be watched: list with it, or watch without it and look at the credentials' times", t.field, t.at)
		}
	}
	return nil
}

// match says whether a credential fits. The moment is only looked at by terms
// that time changes.
func (f filter) match(c *Credential, m moment) bool {
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
		case "ageState":
			is = c.ageState(m).String() == t.value
		case "verification":
			is = c.verificationState().String() == t.value
		case "age":
			// What has no age is neither older nor younger.
			if c.Ageless || !compares(m.now.Sub(c.RotateTime), t.op, t.span) {
				return false
			}
			continue
		case "expires":
			// What has ended expires in less than any time, and what does not say
			// when it ends, never.
			if c.ExpireTime.IsZero() || !compares(c.ExpireTime.Sub(m.now), t.op, t.span) {
				return false
			}
			continue
		}
		if is == (t.op == "!=") {
			return false
		}
	}
	return true
}

func compares(d time.Duration, op string, with time.Duration) bool {
	switch op {
	case ">":
		return d > with
	case ">=":
		return d >= with
	case "<":
		return d < with
	}
	return d <= with
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

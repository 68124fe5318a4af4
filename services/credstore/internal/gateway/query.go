package gateway

import (
	"net/url"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxParameters is more than any method takes; a watch may name thousands of
// credentials.
const maxParameters = 16_384

// checkQuery holds that every parameter is one of the route's, given once unless
// it is a list, and of its type. The second result is false for a query that
// cannot be read at all.
func (r *route) checkQuery(raw string) ([]violation, bool) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, false
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var found []violation
	seen := make(map[protoreflect.FieldNumber]bool)
	for _, name := range names {
		if len(found) >= maxViolations {
			break
		}
		f, ok := r.query[name]
		switch {
		case !ok:
			found = append(found, violation{showName(name), r.unknownParameter(name)})
			continue
		case seen[f.Number()], !f.IsList() && len(values[name]) > 1:
			found = append(found, violation{f.JSONName(), "is given more than once"})
			continue
		case len(values[name]) > maxParameters:
			found = append(found, violation{f.JSONName(), "is given too often"})
			continue
		}
		seen[f.Number()] = true
		for i, v := range values[name] {
			if want := parameterWant(f, v); want != "" {
				path := f.JSONName()
				if f.IsList() {
					path += "[" + strconv.Itoa(i) + "]"
				}
				found = append(found, violation{path, "must be " + want})
				break
			}
		}
	}
	return found, true
}

func (r *route) unknownParameter(name string) string {
	if r.body != nil && fieldByName(r.body, name) != nil {
		return "is unknown as a parameter: it belongs into the body"
	}
	var names []string
	for n, f := range r.query {
		if n == f.JSONName() {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return "is unknown as a parameter" + suggest(name, names)
}

// parameterWant says what a parameter must be, or "" when it is.
func parameterWant(f protoreflect.FieldDescriptor, v string) string {
	if !utf8.ValidString(v) {
		return "UTF-8"
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return ""
	case protoreflect.BoolKind:
		if v != "true" && v != "false" {
			return "true or false"
		}
	case protoreflect.EnumKind:
		if f.Enum().Values().ByName(protoreflect.Name(v)) == nil {
			return enumWant(f.Enum())
		}
	case protoreflect.MessageKind:
		wk := wellKnown(f.Message())
		if f.Message().FullName() == "google.protobuf.FieldMask" {
			return "" // the server's: it accepts both spellings and names the field
		}
		if !wk.accepts([]byte(strconv.Quote(v))) {
			return wk.want
		}
	default:
		if !isInteger(v, f.Kind()) {
			return integerWant(f.Kind())
		}
	}
	return ""
}

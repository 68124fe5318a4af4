package gateway

import (
	"net/url"
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// maxParameters is more than any method takes; a watch may name thousands of
// credentials.
const maxParameters = 16_384

// checkQuery holds that every parameter is one of the route's, given once unless
// it is a list, and of its type. The second result is false for a query that
// cannot be read at all.
func (r *route) checkQuery(raw string) ([]jsoncheck.Violation, bool) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, false
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var found []jsoncheck.Violation
	seen := make(map[protoreflect.FieldNumber]bool)
	for _, name := range names {
		if len(found) >= jsoncheck.MaxViolations {
			break
		}
		f, ok := r.query[name]
		switch {
		case !ok:
			found = append(found, jsoncheck.Violation{Field: jsoncheck.ShowName(name), Description: r.unknownParameter(name)})
			continue
		case seen[f.Number()], !f.IsList() && len(values[name]) > 1:
			found = append(found, jsoncheck.Violation{Field: f.JSONName(), Description: "is given more than once"})
			continue
		case len(values[name]) > maxParameters:
			found = append(found, jsoncheck.Violation{Field: f.JSONName(), Description: "is given too often"})
			continue
		}
		seen[f.Number()] = true
		for i, v := range values[name] {
			if want := jsoncheck.Text(f, v); want != "" {
				path := f.JSONName()
				if f.IsList() {
					path += "[" + strconv.Itoa(i) + "]"
				}
				found = append(found, jsoncheck.Violation{Field: path, Description: "must be " + want})
				break
			}
		}
	}
	return found, true
}

func (r *route) unknownParameter(name string) string {
	if r.body != nil && jsoncheck.FieldByName(r.body, name) != nil {
		return "is unknown as a parameter: it belongs into the body"
	}
	var names []string
	for n, f := range r.query {
		if n == f.JSONName() {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return "is unknown as a parameter" + jsoncheck.Suggest(name, names)
}

package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// route is one HTTP rule of the contract.
type route struct {
	method   string // GET, POST, …
	segments []segment
	verb     string // behind the last colon, "" for none
	// rpc is the full gRPC name, as "/credstore.v1.TokenService/GetToken".
	rpc    string
	stream bool
	// body is the message that the body is, nil when there is none.
	body protoreflect.MessageDescriptor
	// bound is where the body repeats what the path says: JSON path in the body
	// → variable of the path.
	bound map[string]string
	// query holds the parameters of the query by both of their spellings.
	query map[string]protoreflect.FieldDescriptor
	// bodyField is the request's field that is the body, by its JSON name; "" when
	// the body is the whole request, or there is none.
	bodyField string
}

// segment is one element of a path: a literal, or a part of a variable.
type segment struct {
	literal  string // "" for any
	variable string // "" for none
}

// routeTable reads the rules of all methods of the services. It fails for what
// the strict checks here would not cover, so that a new rule cannot slip by.
func routeTable(services []protoreflect.ServiceDescriptor) ([]*route, error) {
	var table []*route
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
			if !ok || rule == nil {
				continue
			}
			for _, rule := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
				r, err := newRoute(m, rule)
				if err != nil {
					return nil, fmt.Errorf("HTTP rule of %s: %w", m.FullName(), err)
				}
				table = append(table, r)
			}
		}
	}
	if len(table) == 0 {
		return nil, errors.New("the contract has no HTTP rules")
	}
	return table, nil
}

func newRoute(m protoreflect.MethodDescriptor, rule *annotations.HttpRule) (*route, error) {
	r := &route{
		rpc:    fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()),
		stream: m.IsStreamingServer(),
		bound:  make(map[string]string),
		query:  make(map[string]protoreflect.FieldDescriptor),
	}
	var template string
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		r.method, template = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		r.method, template = http.MethodPost, p.Post
	case *annotations.HttpRule_Patch:
		r.method, template = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Put:
		r.method, template = http.MethodPut, p.Put
	case *annotations.HttpRule_Delete:
		r.method, template = http.MethodDelete, p.Delete
	default:
		return nil, errors.New("unknown kind of pattern")
	}
	if rule.GetResponseBody() != "" || m.IsStreamingClient() {
		return nil, errors.New("response_body and client streams are not covered")
	}
	if err := r.parseTemplate(template); err != nil {
		return nil, err
	}
	if err := r.bindBody(m.Input(), rule.GetBody()); err != nil {
		return nil, err
	}
	return r, r.bindQuery(m.Input())
}

// parseTemplate reads a path of literals and {variable=collection/*} with at
// most one verb at its end.
func (r *route) parseTemplate(template string) error {
	rest, ok := strings.CutPrefix(template, "/")
	if !ok {
		return fmt.Errorf("path %q does not begin with a slash", template)
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexAny(rest, "/}") {
		rest, r.verb = rest[:i], rest[i+1:]
	}
	variable := ""
	for element := range strings.SplitSeq(rest, "/") {
		if begin, ok := strings.CutPrefix(element, "{"); ok {
			name, first, ok := strings.Cut(begin, "=")
			if !ok || variable != "" {
				return fmt.Errorf("variable in path %q is not of the form {name=…}", template)
			}
			variable, element = name, first
		}
		inside := variable
		if end, ok := strings.CutSuffix(element, "}"); ok {
			element, variable = end, ""
		}
		if element == "" || element != "*" && strings.ContainsAny(element, "*{}:") {
			return fmt.Errorf("element %q in path %q is not covered", element, template)
		}
		if element == "*" {
			element = ""
		}
		r.segments = append(r.segments, segment{literal: element, variable: inside})
	}
	return nil
}

// variables returns the names of the path's variables.
func (r *route) variables() []string {
	var names []string
	for _, s := range r.segments {
		if s.variable != "" && !slices.Contains(names, s.variable) {
			names = append(names, s.variable)
		}
	}
	return names
}

// bindBody finds the message of the body and which of its fields the path
// decides.
func (r *route) bindBody(request protoreflect.MessageDescriptor, body string) error {
	prefix := ""
	switch body {
	case "":
		return nil
	case "*":
		r.body = request
	default:
		f := request.Fields().ByName(protoreflect.Name(body))
		if f == nil || f.Message() == nil || f.IsList() || f.IsMap() {
			return fmt.Errorf("body %q is not a message", body)
		}
		r.body, r.bodyField, prefix = f.Message(), f.JSONName(), body+"."
	}
	for _, v := range r.variables() {
		rest, ok := strings.CutPrefix(v, prefix)
		if !ok {
			continue
		}
		f := r.body.Fields().ByName(protoreflect.Name(rest))
		if f == nil || f.Kind() != protoreflect.StringKind {
			return fmt.Errorf("variable %q is not a string field at the top of the body", v)
		}
		r.bound[f.JSONName()] = v
	}
	return nil
}

// bindQuery lists the fields of the request that are neither in the path nor in
// the body.
func (r *route) bindQuery(request protoreflect.MessageDescriptor) error {
	if r.body == request {
		return nil
	}
	variables := r.variables()
	for i := range request.Fields().Len() {
		f := request.Fields().Get(i)
		if f.JSONName() == r.bodyField || slices.Contains(variables, string(f.Name())) {
			continue
		}
		switch {
		case f.IsMap(), f.Kind() == protoreflect.BytesKind:
			return fmt.Errorf("field %s cannot be a parameter of a query", f.Name())
		case f.Message() != nil && (f.IsList() || !jsoncheck.IsText(f.Message())):
			return fmt.Errorf("field %s cannot be a parameter of a query", f.Name())
		}
		r.query[f.JSONName()] = f
		r.query[string(f.Name())] = f
	}
	return nil
}

// match compares a path, split at its slashes and without its verb.
func (r *route) match(elements []string, verb string) bool {
	if len(elements) != len(r.segments) || verb != r.verb {
		return false
	}
	for i, s := range r.segments {
		if elements[i] == "" || s.literal != "" && s.literal != elements[i] {
			return false
		}
	}
	return true
}

// value returns what a variable is in a path that matches.
func (r *route) value(variable string, elements []string) string {
	var parts []string
	for i, s := range r.segments {
		if s.variable == variable {
			parts = append(parts, elements[i])
		}
	}
	return strings.Join(parts, "/")
}

// boundValues returns what the body may repeat: JSON path → value.
func (r *route) boundValues(elements []string) map[string]string {
	values := make(map[string]string, len(r.bound))
	for path, variable := range r.bound {
		values[path] = r.value(variable, elements)
	}
	return values
}

// splitPath splits a path into elements and the verb behind the last colon of
// the last one. No id holds a colon.
func splitPath(path string) (elements []string, verb string) {
	elements = strings.Split(strings.TrimPrefix(path, "/"), "/")
	last := &elements[len(elements)-1]
	*last, verb, _ = strings.Cut(*last, ":")
	return elements, verb
}

// find returns the rule for a request. When only the method is wrong it returns
// nil and the methods that there are, sorted; with a path that the contract does
// not have, nil and none.
func find(table []*route, method string, elements []string, verb string) (*route, []string) {
	var allowed []string
	for _, r := range table {
		if !r.match(elements, verb) {
			continue
		}
		if r.method == method {
			return r, nil
		}
		allowed = append(allowed, r.method)
	}
	slices.Sort(allowed)
	return nil, slices.Compact(allowed)
}

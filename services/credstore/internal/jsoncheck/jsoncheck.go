package jsoncheck

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/credstore/credstore/pkg/nearest"
)

const (
	// maxDepth is more than the contract's deepest message needs.
	maxDepth = 32
	// MaxViolations bounds how much an answer says about a hopeless body.
	MaxViolations = 20
)

// Violation says what is wrong with one field, named by its JSON path. Its text
// never holds a value.
type Violation struct{ Field, Description string }

// ErrTooDeep is what Check fails with for a body that would cost too much.
var ErrTooDeep = errors.New("is nested more deeply than any message of the contract")

// Check holds that body is one JSON object that fits the message and returns
// what does not. bound holds the fields, by JSON path, that the URL decides
// already, with their values: the body may repeat them and not contradict. The
// error is for a body that is no JSON at all.
//
// What it accepts, protojson accepts too and means the same; it accepts less:
// enums by name only, integers without fraction or exponent, no field twice in
// whatever spelling.
func Check(body []byte, message protoreflect.MessageDescriptor, bound map[string]string) ([]Violation, error) {
	c := checker{scan: scanner{data: body}, bound: bound}
	if c.scan.next() != '{' {
		if err := c.skip(0); err != nil {
			return nil, err
		}
		if err := c.scan.end(); err != nil {
			return nil, err
		}
		return []Violation{{Field: "", Description: "must be a JSON object"}}, nil
	}
	if err := c.message(message, "", 0); err != nil {
		return nil, err
	}
	return c.violations, c.scan.end()
}

type checker struct {
	scan       scanner
	bound      map[string]string
	violations []Violation
}

func (c *checker) add(field, format string, args ...any) {
	if len(c.violations) < MaxViolations {
		c.violations = append(c.violations, Violation{Field: field, Description: fmt.Sprintf(format, args...)})
	}
}

// message reads an object as a message.
func (c *checker) message(m protoreflect.MessageDescriptor, path string, depth int) error {
	if depth > maxDepth {
		return ErrTooDeep
	}
	seen := make(map[protoreflect.FieldNumber]bool)
	chosen := make(map[protoreflect.Name]string) // oneof → the member that is set
	return c.scan.object(func(name string) error {
		f := FieldByName(m, name)
		if f == nil {
			c.add(join(path, ShowName(name)), "is unknown%s", didYouMean(name, m))
			return c.skip(depth + 1)
		}
		here := join(path, f.JSONName())
		if seen[f.Number()] {
			c.add(here, "is given twice")
			return c.skip(depth + 1)
		}
		seen[f.Number()] = true
		if c.scan.next() == 'n' { // null is the same as absent
			err := c.scan.literal()
			return err
		}
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if other, ok := chosen[o.Name()]; ok {
				c.add(here, "cannot be given together with %s", other)
			}
			chosen[o.Name()] = f.JSONName()
		}
		return c.field(f, here, depth+1)
	})
}

// field reads a value as that of a field.
func (c *checker) field(f protoreflect.FieldDescriptor, path string, depth int) error {
	switch {
	case f.IsMap():
		return c.mapping(f, path, depth)
	case f.IsList():
		if c.scan.next() != '[' {
			return c.wrong(path, "an array", depth)
		}
		return c.scan.array(func(i int) error {
			return c.value(f, fmt.Sprintf("%s[%d]", path, i), depth+1)
		})
	}
	return c.value(f, path, depth)
}

func (c *checker) mapping(f protoreflect.FieldDescriptor, path string, depth int) error {
	if c.scan.next() != '{' {
		return c.wrong(path, "an object", depth)
	}
	seen := make(map[string]bool)
	return c.scan.object(func(key string) error {
		here := path
		if !secret(f) {
			here = fmt.Sprintf("%s[%q]", path, ShowName(key))
		}
		if seen[key] {
			c.add(here, "has a key twice")
			return c.skip(depth + 1)
		}
		seen[key] = true
		return c.value(f.MapValue(), here, depth+1)
	})
}

// value reads one value, an element of a list or map or the field itself.
func (c *checker) value(f protoreflect.FieldDescriptor, path string, depth int) error {
	if depth > maxDepth {
		return ErrTooDeep
	}
	first := c.scan.next()
	switch f.Kind() {
	case protoreflect.MessageKind:
		if wk := wellKnown(f.Message()); wk != nil {
			return c.wellKnown(wk, path, depth)
		}
		if first != '{' {
			return c.wrong(path, "an object", depth)
		}
		return c.message(f.Message(), path, depth)
	case protoreflect.StringKind:
		if first != '"' {
			return c.wrong(path, "a string", depth)
		}
		s, err := c.scan.str()
		if err != nil {
			return err
		}
		if want, ok := c.bound[path]; ok && s != "" && s != want {
			c.add(path, "differs from the URL: leave it out or make it the same")
		}
		return nil
	case protoreflect.BytesKind:
		if first != '"' {
			return c.wrong(path, "a string in base64", depth)
		}
		s, err := c.scan.str()
		if err == nil && !isBase64(s) {
			c.add(path, "must be base64 (RFC 4648, section 4 or 5)")
		}
		return err
	case protoreflect.BoolKind:
		if first != 't' && first != 'f' {
			return c.wrong(path, "true or false", depth)
		}
		err := c.scan.literal()
		return err
	case protoreflect.EnumKind:
		if first != '"' {
			return c.wrong(path, enumWant(f.Enum()), depth)
		}
		s, err := c.scan.str()
		if err == nil && f.Enum().Values().ByName(protoreflect.Name(s)) == nil {
			c.add(path, "must be %s", enumWant(f.Enum()))
		}
		return err
	default:
		return c.integer(f.Kind(), path, depth)
	}
}

func (c *checker) integer(kind protoreflect.Kind, path string, depth int) error {
	var text string
	var err error
	switch first := c.scan.next(); {
	case first == '"':
		text, err = c.scan.str()
	case first == '-', first >= '0' && first <= '9':
		text, err = c.scan.number()
	default:
		return c.wrong(path, integerWant(kind), depth)
	}
	if err == nil && !isInteger(text, kind) {
		c.add(path, "must be %s", integerWant(kind))
	}
	return err
}

// wellKnown reads a message that JSON writes as a string.
func (c *checker) wellKnown(wk *knownMessage, path string, depth int) error {
	if c.scan.next() != '"' {
		return c.wrong(path, wk.want, depth)
	}
	start := c.scan.pos
	if _, err := c.scan.str(); err != nil {
		return err
	}
	if !wk.accepts(c.scan.data[start:c.scan.pos]) {
		c.add(path, "must be %s", wk.want)
	}
	return nil
}

// wrong reports a value of the wrong type and skips it.
func (c *checker) wrong(path, want string, depth int) error {
	c.add(path, "must be %s", want)
	return c.skip(depth)
}

// skip reads any value.
func (c *checker) skip(depth int) error {
	if depth > maxDepth {
		return ErrTooDeep
	}
	switch first := c.scan.next(); {
	case first == '{':
		return c.scan.object(func(string) error { return c.skip(depth + 1) })
	case first == '[':
		return c.scan.array(func(int) error { return c.skip(depth + 1) })
	case first == '"':
		_, err := c.scan.str()
		return err
	case first == '-', first >= '0' && first <= '9':
		_, err := c.scan.number()
		return err
	}
	err := c.scan.literal()
	return err
}

// FieldByName finds a field by its JSON name or by its name in the proto, as
// protojson does.
func FieldByName(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := m.Fields().ByJSONName(name); f != nil {
		return f
	}
	return m.Fields().ByTextName(name)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var plainName = regexp.MustCompile(`^[-._/a-zA-Z0-9]{1,64}$`)

// ShowName returns a member's name as an answer may repeat it. One that is no
// name is not repeated: it may be something else in the wrong place.
func ShowName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return "?"
}

// secret says whether the contract marks a field as secret; then not even the
// keys of a map are repeated.
func secret(f protoreflect.FieldDescriptor) bool {
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && o.GetDebugRedact()
}

// knownMessage is a message of the well-known types that JSON writes as a
// string.
type knownMessage struct {
	want string
	make func() proto.Message
}

// accepts asks protojson, whose answer is not repeated.
func (k *knownMessage) accepts(quoted []byte) bool {
	return protojson.Unmarshal(quoted, k.make()) == nil
}

func wellKnown(m protoreflect.MessageDescriptor) *knownMessage {
	switch m.FullName() {
	case "google.protobuf.Timestamp":
		return &knownMessage{`a time as "2026-01-31T12:00:00Z"`, func() proto.Message { return &timestamppb.Timestamp{} }}
	case "google.protobuf.Duration":
		return &knownMessage{`a duration in seconds as "30s"`, func() proto.Message { return &durationpb.Duration{} }}
	case "google.protobuf.FieldMask":
		return &knownMessage{`a list of fields as "description,labels"`, func() proto.Message { return &fieldmaskpb.FieldMask{} }}
	}
	return nil
}

// IsText says whether JSON writes a message as a string.
func IsText(m protoreflect.MessageDescriptor) bool { return wellKnown(m) != nil }

// Text says what the text of a field must be that is given outside of JSON, as
// in a query or a flag, or "" when it is. The field is an element where it is a
// list's, and no message other than those of IsText.
func Text(f protoreflect.FieldDescriptor, v string) string {
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

// isBase64 accepts what protojson does: both alphabets, with and without
// padding.
func isBase64(s string) bool {
	e := base64.StdEncoding
	if strings.ContainsAny(s, "-_") {
		e = base64.URLEncoding
	}
	if len(s)%4 != 0 {
		e = e.WithPadding(base64.NoPadding)
	}
	_, err := e.DecodeString(s)
	return err == nil
}

var integerForm = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)

// isInteger says whether text is an integer of the kind, written as one.
func isInteger(text string, kind protoreflect.Kind) bool {
	if !integerForm.MatchString(text) {
		// The largest of 64 bits without sign has 20 digits.
		if kind != protoreflect.Uint64Kind || len(text) != 20 || text[0] != '1' {
			return false
		}
	}
	var err error
	switch kind {
	case protoreflect.Int32Kind:
		_, err = strconv.ParseInt(text, 10, 32)
	case protoreflect.Uint32Kind:
		_, err = strconv.ParseUint(text, 10, 32)
	case protoreflect.Int64Kind:
		_, err = strconv.ParseInt(text, 10, 64)
	case protoreflect.Uint64Kind:
		_, err = strconv.ParseUint(text, 10, 64)
	default:
		return false // the contract has no other; a test holds that
	}
	return err == nil
}

func integerWant(kind protoreflect.Kind) string {
	switch kind {
	case protoreflect.Int32Kind:
		return "an integer of 32 bits"
	case protoreflect.Uint32Kind:
		return "an integer from 0 to 4294967295"
	case protoreflect.Uint64Kind:
		return "an integer of 64 bits, not negative"
	}
	return "an integer of 64 bits"
}

// enumWant lists the values that mean something.
func enumWant(e protoreflect.EnumDescriptor) string {
	var names []string
	for i := range e.Values().Len() {
		if v := e.Values().Get(i); v.Number() != 0 {
			names = append(names, string(v.Name()))
		}
	}
	return "one of " + strings.Join(names, ", ")
}

// didYouMean ends a sentence about an unknown name.
func didYouMean(name string, m protoreflect.MessageDescriptor) string {
	names := make([]string, m.Fields().Len())
	for i := range names {
		names[i] = m.Fields().Get(i).JSONName()
	}
	return Suggest(name, names)
}

// Suggest ends a sentence about an unknown name with the one of names that is
// closest, or with all of them when they are few and none is close.
func Suggest(name string, names []string) string {
	best := nearest.Word(name, names)
	switch {
	case best != "":
		return fmt.Sprintf(": did you mean %s?", best)
	case len(names) == 0:
		return ": nothing is expected here"
	case len(names) <= 24:
		return ": expected " + strings.Join(names, ", ")
	}
	return ""
}

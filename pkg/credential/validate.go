package credential

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Violation is one thing that is wrong with a payload. It repeats no value.
type Violation struct {
	// Field is the bad field by its JSON path, as "payload.basic.username".
	Field string
	// Description says what the field must be and what is wrong with it.
	Description string
}

// ValidationError says what is wrong with a payload, in one violation or more:
// every bad field is among them.
type ValidationError struct {
	Violations []Violation
}

// Error returns all violations in one line.
func (e *ValidationError) Error() string {
	parts := make([]string, 0, len(e.Violations))
	for _, v := range e.Violations {
		parts = append(parts, v.Field+": "+v.Description)
	}
	return "invalid payload: " + strings.Join(parts, "; ")
}

// maxPasted is how much beyond the limit a payload may be before it is
// normalised: room for white space around what was pasted.
const maxPasted = 4 << 10

var tooLarge = "must be at most " + thousands(MaxPayloadSize) + " bytes in all, encoded; it is larger"

// report collects the violations of one payload.
type report struct {
	// root is the path that the fields given to add are below.
	root       string
	violations []Violation
}

// add reports a field by its JSON path inside the kind's message; "" is that
// message itself.
func (r *report) add(field, description string) {
	path := r.root
	if field != "" {
		path += "." + field
	}
	r.addAt(path, description)
}

func (r *report) addAt(path, description string) {
	r.violations = append(r.violations, Violation{Field: path, Description: description})
}

// err returns the violations as an error, nil when there are none.
func (r *report) err() error {
	if len(r.violations) == 0 {
		return nil
	}
	return &ValidationError{Violations: r.violations}
}

// test looks for one problem in a value and says it as the end of a sentence
// that begins with "it": "is empty". It returns "" when there is none, and never
// a part of the value.
type test func(value string) string

// check reports the first problem that the tests find. want ends a sentence that
// begins with "must be".
func (r *report) check(field, value, want string, tests ...test) {
	for _, find := range tests {
		if problem := find(value); problem != "" {
			r.add(field, "must be "+want+"; it "+problem)
			return
		}
	}
}

// isEmpty finds an empty value.
func isEmpty(value string) string {
	if value == "" {
		return "is empty"
	}
	return ""
}

// longerThan finds more than limit bytes.
func longerThan(limit int) test {
	return func(value string) string {
		if len(value) > limit {
			return "is longer"
		}
		return ""
	}
}

// moreCharactersThan finds more than limit characters.
func moreCharactersThan(limit int) test {
	return func(value string) string {
		if utf8.RuneCountInString(value) > limit {
			return "is longer"
		}
		return ""
	}
}

// holds finds any of the characters; what names them, with an article.
func holds(characters, what string) test {
	return func(value string) string {
		if strings.ContainsAny(value, characters) {
			return "holds " + what
		}
		return ""
	}
}

// holdsControl finds control characters, line breaks and tabs among them.
func holdsControl(value string) string {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return "holds a control character"
	}
	return ""
}

// holdsInvisible finds everything but visible ASCII characters.
func holdsInvisible(value string) string {
	if value != trimPasted(value) {
		return "begins or ends with white space"
	}
	for i := range len(value) {
		if value[i] == ' ' {
			return "holds a space"
		}
		if value[i] < '!' || value[i] == 0x7f {
			return "holds a control character or a line break"
		}
		if value[i] > '~' {
			return "holds a character outside ASCII"
		}
	}
	return ""
}

// trimPasted removes what a paste leaves around a value: white space, line
// breaks and byte order marks.
func trimPasted(value string) string {
	return strings.TrimFunc(value, func(c rune) bool {
		return unicode.IsSpace(c) || c == '\ufeff'
	})
}

// exactlyOne is what to do where no field of a oneof is set.
func exactlyOne(o protoreflect.OneofDescriptor) string {
	var names []string
	for f := range sequence(o.Fields()) {
		names = append(names, f.JSONName())
	}
	return "set exactly one of " + strings.Join(names, ", ")
}

// wellFormed reports strings that are no UTF-8, which protobuf could not encode,
// and fields unknown here: storing the rest of such a payload would make a
// credential that its author did not write.
func (r *report) wellFormed(m proto.Message) error {
	reported := map[string]bool{}
	add := func(path, description string) {
		if !reported[path] {
			reported[path] = true
			r.addAt(path, description)
		}
	}
	root, _, _ := strings.Cut(r.root, ".")
	err := protorange.Options{Stable: true}.Range(m.ProtoReflect(), func(v protopath.Values) error {
		path, key := jsonPath(root, v.Path)
		switch value := v.Index(-1).Value.Interface().(type) {
		case protoreflect.Message:
			if len(value.GetUnknown()) > 0 {
				add(path, "holds a field that this version of credstore does not know; remove it, or upgrade credstore")
			}
		case string:
			if !utf8.ValidString(value) {
				add(path, "must be valid UTF-8; it is not")
			}
		}
		if !utf8.ValidString(key) {
			add(path, "must have keys of valid UTF-8; one is not")
		}
		return nil
	}, nil)
	if err != nil {
		return fmt.Errorf("walk through the payload: %w", err)
	}
	return r.err()
}

// jsonPath returns the path of a field below a root. It ends at a map, whose
// keys may be secret; the last of them is returned apart.
func jsonPath(root string, p protopath.Path) (path, key string) {
	path = root
	for _, step := range p {
		switch step.Kind() {
		case protopath.FieldAccessStep:
			path += "." + step.FieldDescriptor().JSONName()
		case protopath.ListIndexStep:
			path += "[" + strconv.Itoa(step.ListIndex()) + "]"
		case protopath.MapIndexStep:
			return path, step.MapIndex().String()
		}
	}
	return path, ""
}

// thousands writes n with a comma between groups of three digits.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

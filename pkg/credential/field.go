package credential

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// anyKey stands for the key of a map in lists of fields.
const anyKey = "KEY"

// FieldError says that a kind, or a payload of it, has no such field.
type FieldError struct {
	// Kind is the payload's kind, or that of a request for a token; "" for the zero
	// value of either.
	Kind Kind
	// Token says that a token was asked for the field.
	Token bool
	// Entry says that the payload could have the field, an entry of a map, and does
	// not.
	Entry bool
	// Field is what was asked for, cut off after 200 bytes. It comes from an
	// injection, and is public.
	Field string
	// Fields are the fields that there are, sorted. "data.KEY" stands for the
	// entries of a map, whose keys are not public.
	Fields []string
}

func newFieldError(kind Kind, field string, fields []string) *FieldError {
	const maxField = 200
	field = strings.Clone(field[:min(len(field), maxField)])
	return &FieldError{Kind: kind, Field: field, Fields: slices.Compact(slices.Sorted(slices.Values(fields)))}
}

// Error names the field and those that there are.
func (e *FieldError) Error() string {
	if len(e.Fields) == 0 {
		return fmt.Sprintf("no field %s: kind %s has none", strconv.Quote(e.Field), strconv.Quote(string(e.Kind)))
	}
	if e.Entry {
		return fmt.Sprintf("this version of the credential, of kind %s, has no entry %s: the keys that it has are not listed here; the whole payload as JSON, without a field, has them",
			e.Kind, strconv.Quote(e.Field))
	}
	what, whole := "credential", "payload"
	if e.Token {
		what, whole = "token", "token"
	}
	return fmt.Sprintf("a %s of kind %s has no field %s: name one of %s, or none for the whole %s as JSON",
		what, e.Kind, strconv.Quote(e.Field), strings.Join(e.Fields, ", "), whole)
}

// Field returns the contents of one field by its JSON path inside the kind's
// message: "password", "appRole.roleId", "data.KEY" for an entry of a map. ""
// means the whole message, as JSON in one line with sorted keys and without the
// fields that are empty. Fields are strings and bytes, the latter as they are; a
// string that is empty does not exist. Its error is a *[FieldError]; the caller
// owns the bytes.
func (p Payload) Field(field string) ([]byte, error) {
	d, m, ok := p.inner()
	if !ok {
		return nil, newFieldError(p.kind, field, nil)
	}
	if field == "" {
		return canonicalJSON(m.Interface())
	}
	if content, found := find(m, field); found {
		return content, nil
	}
	e := newFieldError(d.kind, field, present(m, ""))
	e.Entry = inMap(d.message, field) && d.possible(d.message, field)
	return nil, e
}

// ValidateField says whether payloads of a kind can have the field, in the
// spelling of [Payload.Field]. Its error is a *[FieldError].
func ValidateField(k Kind, field string) error {
	d, known := lookup(k)
	if !known {
		return newFieldError(k, field, nil)
	}
	if field == "" || d.possible(d.message, field) {
		return nil
	}
	return newFieldError(k, field, leaves(d.message, ""))
}

// leafMap says whether the entries of a map are fields.
func leafMap(f protoreflect.FieldDescriptor) bool {
	return f.IsMap() && f.MapKey().Kind() == protoreflect.StringKind && leaf(f.MapValue())
}

// inMap says whether path leads into a map of a message.
func inMap(message protoreflect.MessageDescriptor, path string) bool {
	name, rest, _ := strings.Cut(path, ".")
	switch f := message.Fields().ByJSONName(name); {
	case f == nil || f.IsList():
		return false
	case f.IsMap():
		return true
	default:
		return f.Message() != nil && inMap(f.Message(), rest)
	}
}

// leaf says whether values of the descriptor are the contents of a field.
func leaf(f protoreflect.FieldDescriptor) bool {
	return f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind
}

// find returns the contents of the field at path in m.
func find(m protoreflect.Message, path string) ([]byte, bool) {
	name, rest, nested := strings.Cut(path, ".")
	f := m.Descriptor().Fields().ByJSONName(name)
	if f == nil || f.IsList() || !m.Has(f) {
		return nil, false
	}
	value := m.Get(f)
	switch {
	case leafMap(f):
		entry := value.Map().Get(protoreflect.ValueOfString(rest).MapKey())
		return contents(entry), nested && entry.IsValid()
	case f.Message() != nil && !f.IsMap():
		return find(value.Message(), rest)
	case leaf(f) && !nested:
		return contents(value), true
	}
	return nil, false
}

// contents returns a copy of what a leaf holds.
func contents(value protoreflect.Value) []byte {
	switch v := value.Interface().(type) {
	case string:
		return []byte(v)
	case []byte:
		return append([]byte{}, v...)
	}
	return nil
}

// present lists the fields of m that are set.
func present(m protoreflect.Message, prefix string) []string {
	var fields []string
	for f := range sequence(m.Descriptor().Fields()) {
		if !m.Has(f) {
			continue
		}
		if f.Message() != nil && !f.IsMap() && !f.IsList() {
			fields = append(fields, present(m.Get(f).Message(), prefix+f.JSONName()+".")...)
			continue
		}
		fields = append(fields, own(f, prefix)...)
	}
	return fields
}

// leaves lists the fields that messages of a type can have. Kinds are no
// recursive messages.
func leaves(d protoreflect.MessageDescriptor, prefix string) []string {
	var fields []string
	for f := range sequence(d.Fields()) {
		if f.Message() != nil && !f.IsMap() && !f.IsList() {
			fields = append(fields, leaves(f.Message(), prefix+f.JSONName()+".")...)
			continue
		}
		fields = append(fields, own(f, prefix)...)
	}
	return fields
}

// own returns how a field that is no message is listed.
func own(f protoreflect.FieldDescriptor, prefix string) []string {
	switch {
	case f.IsList():
		return nil
	case leafMap(f):
		return []string{prefix + f.JSONName() + "." + anyKey}
	case !f.IsMap() && leaf(f):
		return []string{prefix + f.JSONName()}
	}
	return nil
}

// possible says whether messages of a type can have a field at path.
func (d definition) possible(message protoreflect.MessageDescriptor, path string) bool {
	name, rest, nested := strings.Cut(path, ".")
	f := message.Fields().ByJSONName(name)
	switch {
	case f == nil || f.IsList():
		return false
	case f.IsMap():
		return nested && leafMap(f) && d.mapKey(rest)
	case f.Message() != nil:
		return d.possible(f.Message(), rest)
	default:
		return leaf(f) && !nested
	}
}

// canonicalJSON returns the message as JSON in one line with sorted keys.
// protojson alone varies its white space on purpose.
func canonicalJSON(m proto.Message) ([]byte, error) {
	encoded, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode payload as JSON: %w", err)
	}
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	// Large numbers stay as they are written.
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("sort payload's JSON: %w", err)
	}
	return sortedJSON(tree)
}

// sortedJSON returns a tree as JSON in one line with sorted keys.
func sortedJSON(tree any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	// Nobody embeds it in HTML, and people compare it with what they wrote.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(tree); err != nil {
		return nil, fmt.Errorf("sort payload's JSON: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

package credential

import (
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// Kind is what a credential is: the name of the payload's field in JSON
// spelling. The zero value is no kind.
type Kind string

// table lists the kinds in the order of the payload's fields. It is the only
// place that knows all of them.
var table = []definition{
	basic.define("basic"),
	apiToken.define("apiToken"),
	opaque.define("opaque"),
	vault.define("vault"),
}

// Kinds returns all kinds, in the order of the payload's fields.
func Kinds() []Kind {
	all := make([]Kind, 0, len(table))
	for _, d := range table {
		all = append(all, d.kind)
	}
	return all
}

// behaviour is what the file of one kind says about its message M. Functions
// that a kind has no use for are nil. They get a valid, normalised message,
// except for check, which makes it so.
type behaviour[M proto.Message] struct {
	// check normalises the message in place and reports what is wrong with it.
	check func(M, *report)
	// facts returns what is public in the message.
	facts func(M) map[string]string
	// references returns the full names of the resources that it names.
	references func(M) []string
	// expireTime returns when the credential stops working, the zero time when
	// the message does not say.
	expireTime func(M) time.Time
	// mapKey says whether a key is possible in the maps of the message.
	mapKey func(string) bool
}

// definition is a behaviour with its kind and without its type parameter.
type definition struct {
	kind       Kind
	message    protoreflect.MessageDescriptor
	check      func(proto.Message, *report)
	facts      func(proto.Message) map[string]string
	references func(proto.Message) []string
	expireTime func(proto.Message) time.Time
	mapKey     func(string) bool
}

// as returns m as the message of a kind. It always is: a test compares the
// message of every entry of the table with that of the payload's field.
func as[M proto.Message](m proto.Message) M {
	typed, _ := m.(M)
	return typed
}

// define makes the table's entry.
func (b behaviour[M]) define(kind Kind) definition {
	var message M
	d := definition{
		kind:       kind,
		message:    message.ProtoReflect().Descriptor(),
		check:      func(m proto.Message, r *report) { b.check(as[M](m), r) },
		facts:      func(proto.Message) map[string]string { return nil },
		references: func(proto.Message) []string { return nil },
		expireTime: func(proto.Message) time.Time { return time.Time{} },
		mapKey:     func(key string) bool { return key != "" },
	}
	if b.facts != nil {
		d.facts = func(m proto.Message) map[string]string { return b.facts(as[M](m)) }
	}
	if b.references != nil {
		d.references = func(m proto.Message) []string { return b.references(as[M](m)) }
	}
	if b.expireTime != nil {
		d.expireTime = func(m proto.Message) time.Time { return b.expireTime(as[M](m)) }
	}
	if b.mapKey != nil {
		d.mapKey = b.mapKey
	}
	return d
}

// lookup finds the definition of a kind.
func lookup(kind Kind) (definition, bool) {
	for _, d := range table {
		if d.kind == kind {
			return d, true
		}
	}
	return definition{}, false
}

// oneof returns the payload's choice between kinds.
func oneof() protoreflect.OneofDescriptor {
	var m *credentialv1.Payload
	return m.ProtoReflect().Descriptor().Oneofs().ByName("kind")
}

// sequence yields the fields of a message or of a oneof, in their order.
func sequence(fields protoreflect.FieldDescriptors) iter.Seq[protoreflect.FieldDescriptor] {
	return func(yield func(protoreflect.FieldDescriptor) bool) {
		for i := range fields.Len() {
			if !yield(fields.Get(i)) {
				return
			}
		}
	}
}

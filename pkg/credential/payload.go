package credential

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// MaxPayloadSize is the greatest size of a payload in bytes, encoded.
const MaxPayloadSize = 256 << 10

// ErrUnknownKind says that an encoded payload is of a kind that this program
// does not know: a newer one wrote it.
var ErrUnknownKind = errors.New("payload is of a kind that this version does not know: a newer version wrote it")

// Payload is the secret part of a credential, whole. It is immutable, safe for
// concurrent use, and printed by fmt, slog and encoding/json as its kind alone.
// The zero value is no payload.
type Payload struct {
	kind Kind
	// open returns the message, which nobody may change. It is a function
	// because nothing that prints by reflection, as fmt does for unexported
	// fields, can look into one.
	open func() *credentialv1.Payload
}

// NewPayload copies the message, normalises it (white space around an API
// token, as left by a paste, is removed; defaults are filled in) and checks it.
// Its error is a *[ValidationError], which lists every bad field and repeats no
// value.
func NewPayload(m *credentialv1.Payload) (Payload, error) {
	r := &report{}
	set := whichKind(m)
	d, known := definition{}, false
	if set != nil {
		d, known = lookup(Kind(set.JSONName()))
	}
	// Before the copy: what is far too large costs nothing.
	if size := proto.Size(m); size > MaxPayloadSize+maxPasted {
		r.addAt("payload", tooLarge)
		return Payload{}, r.err()
	}
	if !known {
		r.addAt("payload", exactlyOne(oneof()))
		return Payload{}, r.err()
	}
	m = proto.CloneOf(m)
	inner := m.ProtoReflect().Mutable(set).Message()
	r.root = "payload." + set.JSONName()
	if err := r.wellFormed(m); err != nil {
		return Payload{}, err
	}
	d.check(inner.Interface(), r)
	if proto.Size(m) > MaxPayloadSize {
		r.addAt("payload", tooLarge)
	}
	if err := r.err(); err != nil {
		return Payload{}, err
	}
	return wrap(d.kind, m), nil
}

// Unmarshal reads what Marshal wrote. It does not validate again, so that a
// payload stored under older rules can be read: only what is no encoding of a
// payload, or of a kind unknown here ([ErrUnknownKind]), is an error.
func Unmarshal(encoded []byte) (Payload, error) {
	m := &credentialv1.Payload{}
	if err := proto.Unmarshal(encoded, m); err != nil {
		return Payload{}, fmt.Errorf("decode payload: %w", err)
	}
	set := whichKind(m)
	if set == nil && len(encoded) == 0 {
		return Payload{}, nil
	}
	if set == nil {
		return Payload{}, ErrUnknownKind
	}
	d, known := lookup(Kind(set.JSONName()))
	if !known {
		return Payload{}, ErrUnknownKind
	}
	return wrap(d.kind, m), nil
}

func wrap(kind Kind, m *credentialv1.Payload) Payload {
	return Payload{kind: kind, open: func() *credentialv1.Payload { return m }}
}

// Marshal returns the payload in protobuf's binary form, the same for the same
// payload as long as the program is. The zero value has an empty encoding.
func (p Payload) Marshal() ([]byte, error) {
	if p.IsZero() {
		return nil, nil
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.open())
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	return encoded, nil
}

// Message returns a copy of the message, secrets and all; nil for the zero
// value. What it returns prints itself only where its generated code redacts:
// keep it as short as possible, and out of errors and logs.
func (p Payload) Message() *credentialv1.Payload {
	if p.IsZero() {
		return nil
	}
	return proto.CloneOf(p.open())
}

// IsZero says whether p is the zero value, no payload.
func (p Payload) IsZero() bool { return p.open == nil }

// Kind returns the payload's kind, "" for the zero value.
func (p Payload) Kind() Kind { return p.kind }

// Equal says whether both hold the same message. It takes time that depends on
// the contents: compare nothing with it that a caller guesses.
func (p Payload) Equal(other Payload) bool {
	if p.IsZero() || other.IsZero() {
		return p.IsZero() == other.IsZero()
	}
	return proto.Equal(p.open(), other.open())
}

// Facts returns what is public in the payload, by names in JSON spelling; empty
// when nothing is. The caller owns the map.
func (p Payload) Facts() map[string]string {
	facts := map[string]string{}
	if d, m, ok := p.inner(); ok {
		maps.Copy(facts, d.facts(m.Interface()))
	}
	return facts
}

// References returns the full names of the resources that the payload names,
// sorted, each once; empty when it names none.
func (p Payload) References() []string {
	d, m, ok := p.inner()
	if !ok {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(d.references(m.Interface()))))
}

// ExpireTime returns when the credential stops working, if the payload says so.
func (p Payload) ExpireTime() (time.Time, bool) {
	d, m, ok := p.inner()
	if !ok {
		return time.Time{}, false
	}
	t := d.expireTime(m.Interface())
	return t, !t.IsZero()
}

// CheckSource says whether the payload can refer to a credential of a kind, as
// an assumed role to its source; it is asked for each of the References. Its
// error is a *[ValidationError].
func (p Payload) CheckSource(source Kind) error {
	d, m, ok := p.inner()
	if !ok {
		return nil
	}
	r := &report{root: "payload." + string(p.kind)}
	d.checkSource(m.Interface(), source, r)
	return r.err()
}

// Ambient says whether the credential acts as the server itself, by an identity
// that the machine, container or pod has. Such a credential works only where the
// server's configuration says so.
func (p Payload) Ambient() bool {
	d, m, ok := p.inner()
	return ok && d.ambient(m.Interface())
}

// ForwardsTokens says whether credentials of the kind send tokens of the
// credential that they refer to, to an address that they name themselves: who
// makes one has such tokens.
func (k Kind) ForwardsTokens() bool {
	d, known := lookup(k)
	return known && d.forwards
}

// LongLived says whether the payload holds a secret that should be changed from
// time to time.
func (p Payload) LongLived() bool {
	d, m, ok := p.inner()
	return ok && d.longLived(m.Interface())
}

// inner returns the kind's definition and message.
func (p Payload) inner() (definition, protoreflect.Message, bool) {
	if p.IsZero() {
		return definition{}, nil, false
	}
	d, known := lookup(p.kind)
	if !known {
		return definition{}, nil, false
	}
	m := p.open()
	return d, m.ProtoReflect().Get(whichKind(m)).Message(), true
}

// whichKind returns the field that is set, nil when none is.
func whichKind(m *credentialv1.Payload) protoreflect.FieldDescriptor {
	return m.ProtoReflect().WhichOneof(oneof())
}

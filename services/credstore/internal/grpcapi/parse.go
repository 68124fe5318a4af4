package grpcapi

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// maxParseViolations bounds an answer to hopeless input.
const maxParseViolations = 20

// parser collects what is wrong with a request while it is turned into the
// domain's types. Its zero value is ready.
type parser struct {
	violations []core.FieldViolation
	// prefix comes before every field, as "operations[3].create.".
	prefix string
}

func (p *parser) add(field, description string) {
	if len(p.violations) < maxParseViolations {
		p.violations = append(p.violations, core.FieldViolation{Field: p.prefix + field, Description: description})
	}
}

// err returns all violations as one error, nil when there are none.
func (p *parser) err() error {
	if len(p.violations) == 0 {
		return nil
	}
	return &core.InvalidError{Violations: p.violations}
}

// name parses a resource name. It is a function and no method for its type
// parameter.
func name[N any](p *parser, field, value string, parse func(string) (N, error)) N {
	n, err := parse(value)
	if err != nil {
		p.add(field, nameWant(value, err))
	}
	return n
}

// nameWant says what a name must be, without repeating what it is.
func nameWant(value string, err error) string {
	want := "must be a resource name"
	if e := (*resourcename.Error)(nil); errors.As(err, &e) {
		want = "must be the name of " + e.Want + ", " + e.Form
	}
	if value == "" {
		return "is required: it " + want
	}
	return want
}

// names parses a list of resource names.
func names[N any](p *parser, field string, values []string, parse func(string) (N, error)) []N {
	if len(values) == 0 {
		return nil
	}
	out := make([]N, len(values))
	for i, v := range values {
		out[i] = name(p, field+"["+strconv.Itoa(i)+"]", v, parse)
	}
	return out
}

// ownName checks the name inside a resource that is created: it may be left out.
func (p *parser) ownName(field, value, want, decidedBy string) {
	if value != "" && value != want {
		p.add(field, "differs from "+decidedBy+": leave it out")
	}
}

// payload checks a payload that is to be stored; nil is the zero Payload.
func (p *parser) payload(field string, m *credentialv1.Payload) credential.Payload {
	if m == nil {
		return credential.Payload{}
	}
	payload, err := credential.NewPayload(m)
	var bad *credential.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &bad):
		for _, v := range bad.Violations {
			p.add(field+v.Field, v.Description)
		}
	default:
		p.add(field+"payload", "is not a valid payload")
	}
	return payload
}

// mask parses an update mask.
func (p *parser) mask(mask *fieldmaskpb.FieldMask, resource proto.Message, updatable ...protoreflect.Name) fieldSet {
	fields, wrong := maskFields(mask, resource, updatable...)
	if wrong != "" {
		p.add("updateMask", wrong)
	}
	return fields
}

// duration returns 0 for one that is absent, which means the default.
func (p *parser) duration(field string, d *durationpb.Duration) time.Duration {
	switch {
	case d == nil:
		return 0
	case !d.IsValid():
		p.add(field, "must be a valid duration")
	case d.AsDuration() == 0:
		p.add(field, "must not be 0: leave it out for the default")
	}
	return d.AsDuration()
}

// time returns the zero time for one that is absent.
func (p *parser) time(field string, t *timestamppb.Timestamp) time.Time {
	switch {
	case t == nil:
		return time.Time{}
	case !t.IsValid():
		p.add(field, "must be a valid time between the years 1 and 9999")
		return time.Time{}
	}
	return t.AsTime()
}

// page returns the part of a list that is asked for; the domain checks it.
func page(r interface {
	GetPageSize() int32
	GetPageToken() string
},
) core.Page {
	return core.Page{Size: int(r.GetPageSize()), Token: r.GetPageToken()}
}

// mutation returns what every change carries. It is called when all else is
// parsed: its error is that of the parser, if there is one.
func (p *parser) mutation(r interface {
	proto.Message
	GetRequestId() string
}, validateOnly bool,
) (core.Mutation, error) {
	m := core.Mutation{RequestID: r.GetRequestId(), ValidateOnly: validateOnly}
	if err := p.err(); err != nil || m.RequestID == "" {
		return m, err
	}
	digest, err := requestDigest(r)
	m.Digest = digest
	return m, err
}

// requestDigest identifies a request by everything in it but its request_id.
// The request is as it was when the function returns.
func requestDigest(r proto.Message) ([sha256.Size]byte, error) {
	m := r.ProtoReflect()
	id := m.Descriptor().Fields().ByName("request_id")
	was := m.Get(id)
	m.Clear(id)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	m.Set(id, was)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("digest of the request: %w", err)
	}
	defer clear(b) // it may hold a payload
	return sha256.Sum256(b), nil
}

// pointer returns a pointer to v when the field is in the set, else nil: that is
// how updates of the domain say what to change.
func pointer[V any](fields fieldSet, field protoreflect.Name, v V) *V {
	if !fields[field] {
		return nil
	}
	return &v
}

package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// tokenKinds says which field of a Token each request is answered with, both by
// their names in JSON spelling.
var tokenKinds = map[string]string{
	"awsSession":              "aws",
	"awsAssumeRole":           "aws",
	"azureAccessToken":        "bearer",
	"gcpAccessToken":          "bearer",
	"gcpIdToken":              "bearer",
	"ibmIamToken":             "bearer",
	"githubInstallationToken": "bearer",
	"registryLogin":           "registry",
	"kubernetesLogin":         "kubernetes",
}

// expireTimeField names the end of a token among its fields.
const expireTimeField = "expireTime"

// TokenRequest is a valid request for a token, fit for credentials of one kind.
// It is immutable and holds no secret. The zero value is no request.
type TokenRequest struct {
	kind string
	open func() *credentialv1.TokenRequest
}

// NewTokenRequest checks what is asked of a credential of a kind. A request in
// which nothing is set becomes what the kind mints by itself. Its error is a
// *[ValidationError] with fields below "token".
func NewTokenRequest(k Kind, m *credentialv1.TokenRequest) (TokenRequest, error) {
	r := &report{root: "token"}
	d, known := lookup(k)
	if !known || len(d.mints) == 0 {
		r.add("", fmt.Sprintf("no tokens can be minted from a credential of kind %s: read its payload instead", k))
		return TokenRequest{}, r.err()
	}
	m = proto.CloneOf(m)
	if m == nil {
		m = &credentialv1.TokenRequest{}
	}
	if err := r.wellFormed(m); err != nil {
		return TokenRequest{}, err
	}
	kinds := m.ProtoReflect().Descriptor().Oneofs().ByName("kind")
	set := m.ProtoReflect().WhichOneof(kinds)
	if set == nil {
		set = kinds.Fields().ByJSONName(d.mints[0])
		m.ProtoReflect().Set(set, m.ProtoReflect().NewField(set))
	}
	name := set.JSONName()
	r.root = "token." + name
	if !slices.Contains(d.mints, name) {
		r.add("", fmt.Sprintf("cannot be minted from a credential of kind %s: ask for one of %s", k, strings.Join(d.mints, ", ")))
		return TokenRequest{}, r.err()
	}
	d.checkRequest(m, r)
	if err := r.err(); err != nil {
		return TokenRequest{}, err
	}
	return TokenRequest{kind: name, open: func() *credentialv1.TokenRequest { return m }}, nil
}

// IsZero says whether r is the zero value.
func (r TokenRequest) IsZero() bool { return r.open == nil }

// Kind returns which request it is, by its name in JSON spelling.
func (r TokenRequest) Kind() string { return r.kind }

// String returns the request with what it is for, as "awsAssumeRole
// roleArn=arn:aws:iam::123456789012:role/deploy", for records: names, not
// policies, and at most 500 characters of them.
func (r TokenRequest) String() string {
	if r.IsZero() {
		return ""
	}
	const most = 500
	var out strings.Builder
	out.WriteString(r.kind)
	m := r.open().ProtoReflect()
	inner := m.Get(m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))).Message()
	for f := range sequence(inner.Descriptor().Fields()) {
		value := ""
		switch {
		case !inner.Has(f) || f.Kind() != protoreflect.StringKind || f.IsMap() || f.JSONName() == "policy":
			continue
		case f.IsList():
			list := inner.Get(f).List()
			for i := range list.Len() {
				value += "," + list.Get(i).String()
			}
			value = strings.TrimPrefix(value, ",")
		default:
			value = inner.Get(f).String()
		}
		if out.Len()+len(value) > most {
			out.WriteString(" …")
			break
		}
		out.WriteString(" " + f.JSONName() + "=" + value)
	}
	return out.String()
}

// Message returns a copy of the message; nil for the zero value.
func (r TokenRequest) Message() *credentialv1.TokenRequest {
	if r.IsZero() {
		return nil
	}
	return proto.CloneOf(r.open())
}

// Key returns the same bytes for the same request, and others for another, as
// long as the program is the same.
func (r TokenRequest) Key() (string, error) {
	if r.IsZero() {
		return "", nil
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.open())
	if err != nil {
		return "", fmt.Errorf("encode token request: %w", err)
	}
	return string(encoded), nil
}

// ValidateField says whether the tokens that answer the request can have the
// field, in the spelling of [Token.Field]. Its error is a *[FieldError].
func (r TokenRequest) ValidateField(field string) error {
	var t *credentialv1.Token
	f := t.ProtoReflect().Descriptor().Fields().ByJSONName(tokenKinds[r.kind])
	if f == nil {
		return newTokenFieldError(r.kind, field, nil)
	}
	fields := append(leaves(f.Message(), ""), expireTimeField)
	if field == "" || slices.Contains(fields, field) {
		return nil
	}
	return newTokenFieldError(r.kind, field, fields)
}

func newTokenFieldError(kind, field string, fields []string) *FieldError {
	e := newFieldError(Kind(kind), field, fields)
	e.Token = true
	return e
}

// errToken says that a vendor's code made no token.
var errToken = errors.New("token has no kind")

// Token is a short-lived token, minted from a credential. It is immutable, safe
// for concurrent use, and printed by fmt, slog and encoding/json as its kind
// alone. The zero value is no token.
type Token struct {
	kind string
	open func() *credentialv1.Token
}

// NewToken copies the message. One without a kind is an error.
func NewToken(m *credentialv1.Token) (Token, error) {
	set := tokenField(m)
	if set == nil {
		return Token{}, errToken
	}
	m = proto.CloneOf(m)
	return Token{kind: set.JSONName(), open: func() *credentialv1.Token { return m }}, nil
}

func tokenField(m *credentialv1.Token) protoreflect.FieldDescriptor {
	return m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().ByName("kind"))
}

// IsZero says whether t is the zero value.
func (t Token) IsZero() bool { return t.open == nil }

// Kind returns what the token is, by its field in JSON spelling: "aws",
// "bearer", "registry", "kubernetes"; "" for the zero value.
func (t Token) Kind() string { return t.kind }

// Message returns a copy of the message, secrets and all; nil for the zero
// value. Keep it as short as possible, and out of errors and logs.
func (t Token) Message() *credentialv1.Token {
	if t.IsZero() {
		return nil
	}
	return proto.CloneOf(t.open())
}

// ExpireTime returns when the token stops working, if it does by itself.
func (t Token) ExpireTime() (time.Time, bool) {
	if t.IsZero() || t.open().ExpireTime == nil {
		return time.Time{}, false
	}
	return t.open().GetExpireTime().AsTime(), true
}

// Field returns the contents of one field of the token, as "sessionToken", or
// of "expireTime" (RFC 3339, UTC). "" means the whole token as JSON in one line
// with sorted keys. Its error is a *[FieldError]; the caller owns the bytes.
func (t Token) Field(field string) ([]byte, error) {
	if t.IsZero() {
		return nil, newTokenFieldError(t.kind, field, nil)
	}
	m := t.open()
	at, expires := t.ExpireTime()
	inner := m.ProtoReflect().Get(tokenField(m)).Message()
	switch {
	case field == "":
		return tokenJSON(inner, m.GetExpireTime())
	case field == expireTimeField && expires:
		return []byte(at.UTC().Format(time.RFC3339)), nil
	}
	if content, found := find(inner, field); found {
		return content, nil
	}
	fields := present(inner, "")
	if expires {
		fields = append(fields, expireTimeField)
	}
	return nil, newTokenFieldError(t.kind, field, fields)
}

// tokenJSON returns the fields of a token and its end as one object.
func tokenJSON(inner protoreflect.Message, end *timestamppb.Timestamp) ([]byte, error) {
	encoded, err := canonicalJSON(inner.Interface())
	if err != nil || end == nil {
		return encoded, err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(encoded, &fields); err != nil {
		return nil, fmt.Errorf("add the token's end to its JSON: %w", err)
	}
	fields[expireTimeField] = end.AsTime().UTC().Format(time.RFC3339)
	return sortedJSON(fields)
}

// String returns the kind and "(redacted)", as "aws(redacted)"; "none" for the
// zero value.
func (t Token) String() string {
	if t.IsZero() {
		return "none"
	}
	return t.kind + "(redacted)"
}

// GoString returns what String does.
func (t Token) GoString() string { return t.String() }

// Format writes what String returns, whatever the verb and its flags.
func (t Token) Format(s fmt.State, _ rune) {
	// A formatter has no way to report an error; fmt ignores it as well.
	_, _ = io.WriteString(s, t.String())
}

// LogValue returns what String does.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON returns what String does, as a JSON string.
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

package app

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// callTime bounds one call.
const callTime = 20 * time.Second

// refusal is an answer, as a client's program sees it.
type refusal struct {
	code   codes.Code
	reason string
	// fields are those of the violations, in order, with a space between.
	fields string
}

func (r refusal) String() string { return fmt.Sprintf("%s %s [%s]", r.code, r.reason, r.fields) }

func refusalOf(st *status.Status) refusal {
	r := refusal{code: st.Code()}
	var fields []string
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == "credstore" {
				r.reason = d.GetReason()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	r.fields = strings.Join(fields, " ")
	return r
}

// spellings are a secret as it could show: as it is, in base64, in both cases.
func spellings(secret string) []string {
	return []string{secret, strings.ToLower(secret), base64.StdEncoding.EncodeToString([]byte(secret))[:len(secret)/3*4]}
}

// leaks says whether a text holds a secret of the requests or of the store.
func leaks(text string) bool {
	return slices.ContainsFunc(append(spellings(canary), spellings(stored)...), func(s string) bool { return strings.Contains(text, s) })
}

// method is the RPC that takes a request; each has a type of its own.
func methodOf(request any) (protoreflect.MethodDescriptor, error) {
	m, ok := request.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", request)
	}
	for _, f := range []protoreflect.FileDescriptor{
		credstorev1.File_credstore_v1_project_proto, credstorev1.File_credstore_v1_token_proto, credstorev1.File_credstore_v1_credential_proto,
		credstorev1.File_credstore_v1_secret_store_proto, credstorev1.File_credstore_v1_injection_proto,
	} {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				if methods.Get(j).Input() == m.ProtoReflect().Descriptor() {
					return methods.Get(j), nil
				}
			}
		}
	}
	return nil, fmt.Errorf("no method takes %T", request)
}

// nobody calls without a token.
const nobody = "nobody"

// as presents somebody's token.
func (w *world) as(ctx context.Context, who string) context.Context {
	if who == nobody {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.tokens[who])
}

// must is for calls that cannot fail.
func must(answer proto.Message, err error) func(*testing.T) proto.Message {
	return func(t *testing.T) proto.Message {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

// unary calls over gRPC.
func (w *world) unary(t *testing.T, who string, request any) (proto.Message, error) {
	t.Helper()
	return w.invoke(w.as(t.Context(), who), request)
}

// invoke calls the method that takes the request, and reads until a stream says
// synced.
func (w *world) invoke(ctx context.Context, request any) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	method, err := methodOf(request)
	if err != nil {
		return nil, err
	}
	full := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return nil, err
	}
	answer := kind.New().Interface()
	if !method.IsStreamingServer() {
		return answer, w.conn.Invoke(ctx, full, request, answer)
	}
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, full)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !method.IsStreamingClient() {
		if err := stream.CloseSend(); err != nil {
			return nil, err
		}
	}
	for {
		if err := stream.RecvMsg(answer); err != nil {
			return nil, err
		}
		if m, ok := answer.(*credstorev1.WatchResponse); !ok || m.GetSynced() != nil {
			return answer, nil
		}
	}
}

// overGRPC calls and returns the refusal with everything that came back.
func (w *world) overGRPC(ctx context.Context, request any) (refusal, string) {
	answer, err := w.invoke(ctx, request)
	if err == nil {
		return refusal{}, prototext.Format(answer)
	}
	st := status.Convert(err)
	return refusalOf(st), err.Error() + prototext.Format(st.Proto())
}

// restCall is a request as it goes over HTTP.
type restCall struct {
	method, target string
	body           string
	header         http.Header
	// unannounced sends the body in chunks.
	unannounced bool
}

// overREST calls and returns the refusal, the HTTP status, and everything that
// came back.
func (w *world) overREST(t *testing.T, who string, c restCall) (refusal, int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
		if c.unannounced {
			body = io.MultiReader(body)
		}
	}
	r, err := http.NewRequestWithContext(ctx, c.method, w.server.URL()+c.target, body)
	if err != nil {
		t.Fatal(err)
	}
	if who != nobody {
		r.Header.Set("Authorization", "Bearer "+w.tokens[who])
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, values := range c.header {
		r.Header.Del(name)
		for _, v := range values {
			r.Header.Add(name, v)
		}
	}
	answer, err := w.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	stream := strings.Contains(c.target, "credentials:watch") && answer.StatusCode == http.StatusOK
	text, err := readAnswer(answer.Body, stream)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(answer.Header) + text
	if answer.StatusCode < http.StatusBadRequest {
		return refusal{}, answer.StatusCode, all
	}
	st := &statusJSON{}
	if err := json.Unmarshal([]byte(text), st); err != nil {
		if c.method != http.MethodHead {
			t.Errorf("the answer %d is no status: %q", answer.StatusCode, text)
		}
		return refusal{}, answer.StatusCode, all
	}
	return st.refusal(), answer.StatusCode, all
}

// readAnswer reads an answer to its end, and a stream until it is synced.
func readAnswer(r io.Reader, stream bool) (string, error) {
	if !stream {
		b, err := io.ReadAll(io.LimitReader(r, 1<<20))
		return string(b), err
	}
	var all strings.Builder
	lines := json.NewDecoder(r)
	for {
		var line json.RawMessage
		if err := lines.Decode(&line); err != nil {
			return all.String(), err
		}
		all.Write(line)
		if strings.Contains(string(line), `"synced"`) || strings.Contains(string(line), `"error"`) {
			return all.String(), nil
		}
	}
}

// statusJSON is a google.rpc.Status as a client without protobuf reads it.
type statusJSON struct {
	Code    codes.Code
	Message string
	Details []struct {
		Reason, Domain  string
		FieldViolations []struct{ Field, Description string }
	}
}

func (s *statusJSON) refusal() refusal {
	r := refusal{code: s.Code}
	var fields []string
	for _, d := range s.Details {
		if d.Domain == "credstore" {
			r.reason = d.Reason
		}
		for _, v := range d.FieldViolations {
			fields = append(fields, v.Field)
		}
	}
	r.fields = strings.Join(fields, " ")
	return r
}

// transcode writes a request as its HTTP rule says. bodyField is the request's
// field that is the body, by its JSON name: REST names fields relative to it.
func transcode(request proto.Message) (c restCall, bodyField string, err error) {
	method, err := methodOf(request)
	if err != nil {
		return c, "", err
	}
	rule, ok := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return c, "", fmt.Errorf("%s has no HTTP rule", method.Name())
	}
	m := request.ProtoReflect()
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		var variable string
		var fits bool
		if c, variable, fits = fillPath(m, r); !fits && len(rule.GetAdditionalBindings()) > 0 && r == rule {
			continue
		}
		bodyField, err = c.fillRest(m, r.GetBody(), variable)
		return c, bodyField, err
	}
	return c, "", errors.New("no rule fits")
}

// fillPath puts the path's variable into the template; fits says whether its
// value has the form that the template wants.
func fillPath(m protoreflect.Message, r *annotations.HttpRule) (c restCall, variable string, fits bool) {
	var template string
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		c.method, template = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		c.method, template = http.MethodPost, p.Post
	case *annotations.HttpRule_Patch:
		c.method, template = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		c.method, template = http.MethodDelete, p.Delete
	}
	before, rest, found := strings.Cut(template, "{")
	if !found {
		c.target = template
		return c, "", true
	}
	inside, after, _ := strings.Cut(rest, "}")
	variable, form, _ := strings.Cut(inside, "=")
	value := m
	names := strings.Split(variable, ".")
	for _, name := range names[:len(names)-1] {
		value = value.Get(value.Descriptor().Fields().ByName(protoreflect.Name(name))).Message()
	}
	text := value.Get(value.Descriptor().Fields().ByName(protoreflect.Name(names[len(names)-1]))).String()
	c.target = before + (&url.URL{Path: text}).EscapedPath() + after
	have, want := strings.Split(text, "/"), strings.Split(form, "/")
	fits = len(have) == len(want)
	for i := range min(len(have), len(want)) {
		fits = fits && (want[i] == "*" || want[i] == have[i])
	}
	return c, variable, fits
}

// fillRest puts everything that is not in the path into the body or the query.
func (c *restCall) fillRest(m protoreflect.Message, body, variable string) (bodyField string, err error) {
	query := url.Values{}
	if body == "*" {
		whole := proto.Clone(m.Interface()).ProtoReflect()
		whole.Clear(whole.Descriptor().Fields().ByName(protoreflect.Name(variable)))
		b, err := protojson.Marshal(whole.Interface())
		c.body = string(b)
		return "", err
	}
	if body != "" {
		bodyField = m.Descriptor().Fields().ByName(protoreflect.Name(body)).JSONName()
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case string(f.Name()) == variable:
		case string(f.Name()) == body:
			part := proto.Clone(v.Message().Interface()).ProtoReflect()
			if _, inside, ok := strings.Cut(variable, "."); ok {
				part.Clear(part.Descriptor().Fields().ByName(protoreflect.Name(inside)))
			}
			var b []byte
			if b, err = protojson.Marshal(part.Interface()); err != nil {
				return false
			}
			c.body = string(b)
		case f.IsList():
			for i := range v.List().Len() {
				query.Add(f.JSONName(), v.List().Get(i).String())
			}
		default:
			var text string
			if text, err = parameter(f, v); err != nil {
				return false
			}
			query.Set(f.JSONName(), text)
		}
		return true
	})
	if len(query) > 0 {
		c.target += "?" + query.Encode()
	}
	return bodyField, err
}

func parameter(f protoreflect.FieldDescriptor, v protoreflect.Value) (string, error) {
	switch {
	case f.Message() != nil && f.Message().FullName() == "google.protobuf.FieldMask":
		mask, ok := v.Message().Interface().(*fieldmaskpb.FieldMask)
		if !ok {
			return "", errors.New("no mask")
		}
		return strings.Join(mask.GetPaths(), ","), nil
	case f.Message() != nil:
		b, err := protojson.Marshal(v.Message().Interface())
		return strings.Trim(string(b), `"`), err
	case f.Enum() != nil:
		if name := f.Enum().Values().ByNumber(v.Enum()); name != nil {
			return string(name.Name()), nil
		}
		return fmt.Sprint(v.Enum()), nil
	}
	return v.String(), nil
}

// relative is a list of fields as REST names them.
func relative(fields, bodyField string) string {
	if bodyField == "" {
		return fields
	}
	list := strings.Fields(fields)
	for i, f := range list {
		list[i] = strings.TrimPrefix(f, bodyField+".")
	}
	return strings.Join(list, " ")
}

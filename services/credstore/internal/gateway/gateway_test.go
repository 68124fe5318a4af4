package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// recorder is the connection to the server: it keeps what was called.
type recorder struct {
	method  string
	request proto.Message
	md      metadata.MD
	calls   int
	answer  func(reply proto.Message) error
}

func (c *recorder) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	c.calls++
	c.method = method
	c.request, _ = args.(proto.Message)
	c.md, _ = metadata.FromOutgoingContext(ctx)
	if c.answer != nil {
		m, _ := reply.(proto.Message)
		return c.answer(m)
	}
	return nil
}

var errStream = errors.New("stream opened")

func (c *recorder) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	c.calls++
	c.method = method
	c.md, _ = metadata.FromOutgoingContext(ctx)
	return nil, status.Error(codes.Unavailable, errStream.Error())
}

func newHandler(t *testing.T, conn grpc.ClientConnInterface) http.Handler {
	t.Helper()
	h, err := New(t.Context(), Config{
		Conn:    conn,
		OpenAPI: []byte(`{"swagger":"2.0"}`),
		Authenticate: func(_ context.Context, _ string, authorization []string) error {
			if !slices.Equal(authorization, []string{"Bearer credstore_x"}) {
				return status.Error(codes.Unauthenticated, "who are you?")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer credstore_x")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// answer is an error as clients see it.
type answer struct {
	Code    int
	Message string
	Details []struct {
		Type            string `json:"@type"`
		Reason, Domain  string
		FieldViolations []struct{ Field, Description string }
	}
}

func (a answer) reason() string {
	for _, d := range a.Details {
		if d.Type == "type.googleapis.com/google.rpc.ErrorInfo" && d.Domain == "credstore" {
			return d.Reason
		}
	}
	return ""
}

func (a answer) fields() string {
	var fields []string
	for _, d := range a.Details {
		for _, v := range d.FieldViolations {
			fields = append(fields, v.Field)
		}
	}
	return strings.Join(fields, " ")
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestEveryRouteReachesItsMethod holds that the table here and the generated
// code agree, and that what the path says arrives.
func TestEveryRouteReachesItsMethod(t *testing.T) {
	conn := &recorder{}
	h := newHandler(t, conn)
	table, err := routeTable(services())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range table {
		var elements []string
		for i, s := range r.segments {
			if s.literal == "" {
				s.literal = fmt.Sprintf("id%d", i)
			}
			elements = append(elements, s.literal)
		}
		target := "/" + strings.Join(elements, "/")
		if r.verb != "" {
			target += ":" + r.verb
		}
		body := ""
		if r.body != nil {
			body = "{}"
		}
		conn.method = ""
		w := serve(h, request(r.method, target, body))
		if conn.method != r.rpc {
			t.Errorf("%s %s reached %q, want %s: %d %s", r.method, target, conn.method, r.rpc, w.Code, w.Body)
			continue
		}
		for _, variable := range r.variables() {
			if r.stream {
				continue // the recorder does not see messages of streams
			}
			if got, want := stringAt(conn.request, variable), r.value(variable, elements); got != want {
				t.Errorf("%s: %s is %q, want %q", target, variable, got, want)
			}
		}
	}
	if len(table) < 35 {
		t.Errorf("only %d rules", len(table))
	}
}

// stringAt reads a field by its dotted path.
func stringAt(m proto.Message, path string) string {
	v := m.ProtoReflect()
	names := strings.Split(path, ".")
	for i, name := range names {
		f := v.Descriptor().Fields().ByName(protoreflect.Name(name))
		if i == len(names)-1 {
			return v.Get(f).String()
		}
		v = v.Get(f).Message()
	}
	return ""
}

func TestRequestArrivesWhole(t *testing.T) {
	conn := &recorder{}
	h := newHandler(t, conn)
	for _, test := range []struct {
		method, target, body string
		want                 proto.Message
	}{
		{
			"POST", "/v1/projects/p/credentials?credentialId=c&validateOnly=true&requestId=r", `{"description":"d"}`,
			&credstorev1.CreateCredentialRequest{
				Parent: "projects/p", CredentialId: "c", ValidateOnly: true, RequestId: "r",
				Credential: &credstorev1.Credential{Description: "d"},
			},
		},
		{
			// No mask is made up from the body.
			"PATCH", "/v1/projects/p/credentials/c", `{"description":"d","etag":"e"}`,
			&credstorev1.UpdateCredentialRequest{
				Credential: &credstorev1.Credential{Name: "projects/p/credentials/c", Description: "d", Etag: "e"},
			},
		},
		{
			"DELETE", "/v1/projects/p/credentials/c?etag=e&force=true", "",
			&credstorev1.DeleteCredentialRequest{Name: "projects/p/credentials/c", Etag: "e", Force: true},
		},
		{
			"GET", "/v1/projects/p/injections:set?injections=a&injections=b", "",
			&credstorev1.GetSetRequest{Parent: "projects/p", Injections: []string{"a", "b"}},
		},
		{
			"GET", "/v1/projects/p/credentials?page_size=7&filter=kind+%3D+basic", "",
			&credstorev1.ListCredentialsRequest{Parent: "projects/p", PageSize: 7, Filter: "kind = basic"},
		},
		{
			"POST", "/v1/projects/p/credentials/c/versions/2:activate", `{"name":"projects/p/credentials/c/versions/2","etag":"e"}`,
			&credstorev1.ActivateCredentialVersionRequest{Name: "projects/p/credentials/c/versions/2", Etag: "e"},
		},
		{
			"POST", "/v1/projects/p/credentials/c/versions/2:activate", "",
			&credstorev1.ActivateCredentialVersionRequest{Name: "projects/p/credentials/c/versions/2"},
		},
	} {
		w := serve(h, request(test.method, test.target, test.body))
		if w.Code != http.StatusOK || !proto.Equal(test.want, conn.request) {
			t.Errorf("%s %s: %d %s\ngot  %v\nwant %v", test.method, test.target, w.Code, w.Body, conn.request, test.want)
		}
	}
	for query, want := range map[string][]string{
		"updateMask=payload": {"payload"}, "update_mask=payload,labels": {"payload", "labels"}, "updateMask=pollInterval": {"pollInterval"},
	} {
		serve(h, request("PATCH", "/v1/projects/p/credentials/c?"+query, "{}"))
		u, ok := conn.request.(*credstorev1.UpdateCredentialRequest)
		if !ok || !slices.Equal(u.GetUpdateMask().GetPaths(), want) {
			t.Errorf("%s: got %v", query, conn.request)
		}
	}
}

func TestRefusals(t *testing.T) {
	const credentials, one = "/v1/projects/p/credentials", "/v1/projects/p/credentials/c"
	with := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, test := range map[string]struct {
		method, target, body string
		change               func(*http.Request)
		http                 int
		code                 codes.Code
		reason, fields       string
	}{
		"no token":          {"GET", one, "", func(r *http.Request) { r.Header.Del("Authorization") }, 401, codes.Unauthenticated, "UNSPECIFIED", ""},
		"two tokens":        {"GET", one, "", func(r *http.Request) { r.Header.Add("Authorization", "Bearer credstore_x") }, 401, codes.Unauthenticated, "UNSPECIFIED", ""},
		"no token, no path": {"GET", "/nowhere", "", func(r *http.Request) { r.Header.Del("Authorization") }, 401, codes.Unauthenticated, "UNSPECIFIED", ""},

		"unknown path":       {"GET", "/v1/nowhere", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"root":               {"GET", "/", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"wrong verb":         {"GET", one + ":nosuchverb", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"empty verb":         {"GET", one + ":", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"two verbs":          {"GET", one + ":access:access", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"verb in the middle": {"GET", "/v1/projects/p:x/credentials/c", "", nil, 200, 0, "", ""}, // the server refuses the name
		"trailing slash":     {"GET", one + "/", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"double slash":       {"GET", "/v1/projects//credentials/c", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"wrong case":         {"GET", "/v1/Projects/p/credentials/c", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"version of nothing": {"GET", one + "/versions/1", "", nil, 404, codes.NotFound, "PATH_UNKNOWN", ""},
		"encoded slash":      {"GET", "/v1/projects/p%2Fq/credentials/c", "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},
		"encoded colon":      {"GET", one + "%3Aaccess", "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},
		"encoded dots":       {"GET", "/v1/projects/p/credentials/%2e%2e", "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},
		"encoded letter":     {"GET", "/v1/projects/p/credentials/%63", "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},
		"backslash":          {"GET", `/v1/projects/p/credentials/c%5cd`, "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},

		"wrong method":    {"PUT", one, "{}", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED", ""},
		"post to one":     {"POST", one, "{}", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED", ""},
		"get for a post":  {"GET", credentials + ":batchWrite", "", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED", ""},
		"head":            {"HEAD", one, "", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED", ""},
		"trace":           {"TRACE", one, "", nil, 405, codes.Unimplemented, "METHOD_NOT_ALLOWED", ""},
		"method override": {"POST", one, "{}", with("X-HTTP-Method-Override", "GET"), 405, codes.Unimplemented, "METHOD_NOT_ALLOWED", ""},

		"unknown parameter":         {"GET", credentials + "?pageSzie=1", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "pageSzie"},
		"parameter of the body":     {"POST", credentials + "?description=x", "{}", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "description"},
		"nested parameter":          {"POST", credentials + "?credential.description=x", "{}", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "credential.description"},
		"parameter of the path":     {"GET", one + "?name=projects/q/credentials/c", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "name"},
		"parameter twice":           {"GET", credentials + "?pageSize=1&pageSize=2", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "pageSize"},
		"parameter in both forms":   {"GET", credentials + "?pageSize=1&page_size=2", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "pageSize"},
		"parameter no integer":      {"GET", credentials + "?pageSize=hunter2", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "pageSize"},
		"parameter too large":       {"GET", credentials + "?pageSize=2147483648", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "pageSize"},
		"parameter no boolean":      {"DELETE", one + "?force=yes", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "force"},
		"parameter no enum":         {"GET", credentials + ":watch?view=hunter2", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "view"},
		"parameter no duration":     {"GET", credentials + ":watch?heartbeatInterval=5m", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "heartbeatInterval"},
		"parameter not UTF-8":       {"GET", credentials + "?filter=%ff", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "filter"},
		"parameter of a body of *":  {"POST", credentials + ":batchWrite?requestId=r", "{}", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "requestId"},
		"parameter that is no name": {"GET", credentials + "?hunter+2=1", "", nil, 400, codes.InvalidArgument, "INVALID_FIELD", "?"},
		"semicolon":                 {"GET", credentials + "?pageSize=1;filter=x", "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},
		"broken encoding":           {"GET", credentials + "?filter=%zz", "", nil, 400, codes.InvalidArgument, "MALFORMED_URL", ""},

		"body of a get":    {"GET", one, "{}", nil, 400, codes.InvalidArgument, "BODY_UNEXPECTED", ""},
		"body of a delete": {"DELETE", one, `{"force":true}`, nil, 400, codes.InvalidArgument, "BODY_UNEXPECTED", ""},
		"form":             {"POST", credentials, "a=b", with("Content-Type", "application/x-www-form-urlencoded"), 415, codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", ""},
		"multipart":        {"POST", credentials, "--x", with("Content-Type", "multipart/form-data; boundary=x"), 415, codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", ""},
		"no type":          {"POST", credentials, "{}", func(r *http.Request) { r.Header.Del("Content-Type") }, 415, codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", ""},
		"two types":        {"POST", credentials, "{}", func(r *http.Request) { r.Header.Add("Content-Type", "text/plain") }, 415, codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", ""},
		"another charset":  {"POST", credentials, "{}", with("Content-Type", "application/json; charset=latin1"), 415, codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", ""},
		"compressed":       {"POST", credentials, "{}", with("Content-Encoding", "gzip"), 415, codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", ""},
		"too large":        {"POST", credentials, strings.Repeat(" ", MaxBody+1), nil, 413, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", ""},
		"too large, chunked": {
			"POST", credentials, strings.Repeat(" ", MaxBody+1),
			func(r *http.Request) { r.ContentLength = -1 }, 413, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "",
		},

		"no JSON":             {"POST", credentials, `{"payload":hunter2}`, nil, 400, codes.InvalidArgument, "MALFORMED_BODY", ""},
		"white space":         {"POST", credentials, "  ", nil, 400, codes.InvalidArgument, "MALFORMED_BODY", ""},
		"deep":                {"POST", credentials, strings.Repeat(`{"a":`, 1000), nil, 400, codes.InvalidArgument, "MALFORMED_BODY", ""},
		"misspelt field":      {"POST", credentials, `{"payload":{"basic":{"pasword":"hunter2"}}}`, nil, 400, codes.InvalidArgument, "INVALID_FIELD", "payload.basic.pasword"},
		"two kinds":           {"POST", credentials, `{"payload":{"basic":{},"apiToken":{}}}`, nil, 400, codes.InvalidArgument, "INVALID_FIELD", "payload.apiToken"},
		"the wrapper":         {"POST", credentials, `{"credential":{}}`, nil, 400, codes.InvalidArgument, "INVALID_FIELD", "credential"},
		"another name":        {"PATCH", one, `{"name":"projects/p/credentials/d"}`, nil, 400, codes.InvalidArgument, "INVALID_FIELD", "name"},
		"another version":     {"POST", one + "/versions/2:activate", `{"name":"projects/p/credentials/c/versions/3"}`, nil, 400, codes.InvalidArgument, "INVALID_FIELD", "name"},
		"another parent":      {"POST", credentials + ":batchWrite", `{"parent":"projects/q"}`, nil, 400, codes.InvalidArgument, "INVALID_FIELD", "parent"},
		"grpc-timeout":        {"GET", one, "", with("Grpc-Timeout", "hunter2"), 200, 0, "", ""},
		"binary header":       {"GET", one, "", with("Grpc-Metadata-X-Bin", "%%%"), 200, 0, "", ""},
		"charset":             {"POST", credentials, "{}", with("Content-Type", "application/json; charset=UTF-8"), 200, 0, "", ""},
		"post with no body":   {"POST", credentials, "", nil, 200, 0, "", ""},
		"options is answered": {"OPTIONS", one, "", nil, 204, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn := &recorder{}
			r := request(test.method, test.target, test.body)
			if test.change != nil {
				test.change(r)
			}
			w := serve(newHandler(t, conn), r)
			if w.Code != test.http {
				t.Fatalf("HTTP %d, want %d: %s", w.Code, test.http, w.Body)
			}
			if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers are %v", w.Header())
			}
			if test.http < 300 {
				return
			}
			if conn.calls != 0 {
				t.Errorf("the server was called: %s", conn.method)
			}
			var a answer
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			if w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("Content-Type is %s", w.Header().Get("Content-Type"))
			}
			if codes.Code(a.Code) != test.code || a.reason() != test.reason || a.fields() != test.fields || a.Message == "" {
				t.Errorf("got code %v, reason %s, fields %q: %s", codes.Code(a.Code), a.reason(), a.fields(), w.Body)
			}
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Errorf("the answer repeats the value: %s", w.Body)
			}
			if test.http == 405 && !slices.Contains(w.Header().Values("Allow"), "OPTIONS") {
				t.Errorf("Allow is %q", w.Header().Values("Allow"))
			}
			if test.http == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Error("WWW-Authenticate is missing")
			}
		})
	}
}

// unread is a body that must not be touched.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}
func (unread) Close() error { return nil }

func TestBodyIsNotReadBeforeItIsWanted(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"without a token":    func(r *http.Request) { r.Header.Del("Authorization") },
		"announced as large": func(r *http.Request) { r.ContentLength = MaxBody + 1 },
		"of a wrong type":    func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"to a wrong path":    func(r *http.Request) { r.URL.Path = "/v1/nowhere" },
		"by a wrong method":  func(r *http.Request) { r.Method = http.MethodPut },
		"with a bad query":   func(r *http.Request) { r.URL.RawQuery = "x=1" },
	} {
		t.Run(name, func(t *testing.T) {
			r := request("POST", "/v1/projects/p/credentials", "{}")
			r.Body, r.ContentLength = unread{t}, 1000
			change(r)
			w := serve(newHandler(t, &recorder{}), r)
			if w.Code < 400 || w.Header().Get("Connection") != "close" {
				t.Errorf("HTTP %d, Connection %q", w.Code, w.Header().Get("Connection"))
			}
		})
	}
}

func TestConnectionSurvivesABadBody(t *testing.T) {
	w := serve(newHandler(t, &recorder{}), request("POST", "/v1/projects/p/credentials", `{"x":1}`))
	if w.Code != 400 || w.Header().Get("Connection") != "" {
		t.Errorf("HTTP %d, Connection %q", w.Code, w.Header().Get("Connection"))
	}
}

// TestHeadersCannotForge holds that of a caller's headers only two go on, and
// that its address is the one that we saw.
func TestHeadersCannotForge(t *testing.T) {
	conn := &recorder{}
	h := newHandler(t, conn)
	r := request("GET", "/v1/projects/p/credentials/c", "")
	r.RemoteAddr = "192.0.2.1:4711"
	for _, name := range []string{
		"Grpc-Metadata-Credstore-Remote", "Grpc-Metadata-Authorization", "Grpc-Metadata-X-Principal", "Grpc-Timeout",
		"Grpcgateway-Authorization", "Credstore-Remote", "X-Forwarded-For", "X-Forwarded-Host", "Cookie", "X-Principal", "User-Agent",
		"Grpc-Metadata-Principal-Bin", "Accept-Language", "From", "Te",
	} {
		r.Header.Set(name, "forged")
	}
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if w := serve(h, r); w.Code != http.StatusOK {
		t.Fatalf("HTTP %d: %s", w.Code, w.Body)
	}
	want := metadata.MD{
		"authorization":    {"Bearer credstore_x"},
		"credstore-remote": {"192.0.2.1:4711"},
		"traceparent":      {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	if diff := cmp.Diff(want, conn.md); diff != "" {
		t.Errorf("metadata (-want +got)\n%s", diff)
	}
	if remote, ok := Remote(conn.md); !ok || remote != "192.0.2.1:4711" {
		t.Errorf("Remote = %q, %v", remote, ok)
	}
	if remote, ok := Remote(metadata.Pairs("credstore-remote", "a", "credstore-remote", "b")); ok {
		t.Errorf("two addresses are %q", remote)
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	st, err := status.New(codes.Unavailable, "later").WithDetails(
		&errdetails.ErrorInfo{Reason: "STORAGE_UNAVAILABLE", Domain: "credstore"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500e6)},
	)
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, &recorder{answer: func(proto.Message) error { return st.Err() }})
	w := serve(h, request("GET", "/v1/projects/p", ""))
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || w.Header().Get("Retry-After") != "2" || a.Code != 14 || a.reason() != "STORAGE_UNAVAILABLE" || a.Message != "later" {
		t.Errorf("HTTP %d, headers %v: %s", w.Code, w.Header(), w.Body)
	}
}

// TestFieldsAreNamedAsInTheBody holds that a caller finds the fields that the
// server complains about in the JSON that it sent.
func TestFieldsAreNamedAsInTheBody(t *testing.T) {
	violation := func(fields ...string) error {
		bad := &errdetails.BadRequest{}
		for _, f := range fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f, Description: "d"})
		}
		st, err := status.New(codes.InvalidArgument, "m").WithDetails(&errdetails.ErrorInfo{Reason: "R", Domain: "credstore"}, bad)
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, test := range []struct {
		method, target, body string
		err                  error
		want                 string
	}{
		{"POST", "/v1/projects/p/credentials", "{}", violation("credential.payload.basic.password", "credentialId", "credentials"), "payload.basic.password credentialId credentials"},
		{"PATCH", "/v1/projects/p/secretStores/s", "{}", violation("secretStore.vault.address", "updateMask"), "vault.address updateMask"},
		{"POST", "/v1/projects/p/credentials:batchWrite", "{}", violation("operations[0].create.credential.payload"), "operations[0].create.credential.payload"},
		{"GET", "/v1/projects/p/credentials", "", violation("filter"), "filter"},
	} {
		w := serve(newHandler(t, &recorder{answer: func(proto.Message) error { return test.err }}), request(test.method, test.target, test.body))
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		if w.Code != 400 || a.fields() != test.want || a.reason() != "R" {
			t.Errorf("%s: HTTP %d, fields %q: %s", test.target, w.Code, a.fields(), w.Body)
		}
	}
}

func TestAnswerForm(t *testing.T) {
	h := newHandler(t, &recorder{answer: func(m proto.Message) error {
		proto.Merge(m, &credstorev1.InjectionStatus{
			Name:      "projects/p/injections/i",
			Workloads: []*credstorev1.InjectionStatus_WorkloadStatus{{Workload: "w", SentRevision: 1 << 60}},
			Items:     []*credstorev1.InjectionStatus_ItemStatus{{State: credstorev1.SetItem_STALE}},
		})
		return nil
	}})
	w := serve(h, request("GET", "/v1/projects/p/injections/i:status", ""))
	var got bytes.Buffer
	if err := json.Compact(&got, w.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	const want = `{"name":"projects/p/injections/i","items":[{"state":"STALE"}],"workloads":[{"workload":"w","sentRevision":"1152921504606846976"}]}`
	if got.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s: %s\nwant %s", w.Header().Get("Content-Type"), got.String(), want)
	}
}

func TestPublicPaths(t *testing.T) {
	ready := false
	h, err := New(t.Context(), Config{
		Conn: &recorder{}, OpenAPI: []byte(`{"swagger":"2.0"}`), Ready: func() bool { return ready },
		Authenticate: func(context.Context, string, []string) error { return status.Error(codes.Unauthenticated, "no") },
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func(method, path string) (int, string) {
		w := serve(h, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for _, test := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/healthz", 200, "ok\n"},
		{"GET", "/readyz", 503, "not ready\n"},
		{"GET", "/openapi.json", 200, `{"swagger":"2.0"}`},
	} {
		if code, body := get(test.method, test.path); code != test.code || body != test.body {
			t.Errorf("%s %s: %d %q", test.method, test.path, code, body)
		}
	}
	ready = true
	if code, _ := get("GET", "/readyz"); code != 200 {
		t.Errorf("ready: %d", code)
	}
	if code, _ := get("POST", "/healthz"); code != 405 {
		t.Errorf("POST /healthz: %d", code)
	}
	if code, _ := get("GET", "/healthz/"); code != 401 {
		t.Errorf("/healthz/: %d", code)
	}
}

func TestPanicIsContained(t *testing.T) {
	var log bytes.Buffer
	h, err := New(t.Context(), Config{
		Conn:         &recorder{answer: func(proto.Message) error { panic("hunter2") }},
		Authenticate: func(context.Context, string, []string) error { return nil },
		Logger:       slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := serve(h, request("GET", "/v1/projects/p", ""))
	if w.Code != 500 || strings.Contains(w.Body.String()+log.String(), "hunter2") || !strings.Contains(log.String(), "type=string") {
		t.Errorf("HTTP %d %s\nlog: %s", w.Code, w.Body, log.String())
	}
}

// watcher is a server of which only Watch works.
type watcher struct {
	credstorev1.UnimplementedCredentialServiceServer

	request chan *credstorev1.WatchRequest
	events  chan *credstorev1.WatchResponse
	end     error
}

func (s *watcher) Watch(r *credstorev1.WatchRequest, stream grpc.ServerStreamingServer[credstorev1.WatchResponse]) error {
	s.request <- r
	for e := range s.events {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return s.end
}

func startWatch(t *testing.T, s *watcher) string {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	credstorev1.RegisterCredentialServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///in-process", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	web := httptest.NewServer(newHandler(t, conn))
	t.Cleanup(web.Close)
	return web.URL
}

func watch(t *testing.T, url string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/projects/p/credentials:watch?view=PAYLOAD&names=a&names=b&heartbeatInterval=5s", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer credstore_x")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestStreamComesLineByLine(t *testing.T) {
	ended, err := status.New(codes.Unauthenticated, "its token was deleted").WithDetails(&errdetails.ErrorInfo{Reason: "UNAUTHENTICATED", Domain: "credstore"})
	if err != nil {
		t.Fatal(err)
	}
	s := &watcher{request: make(chan *credstorev1.WatchRequest, 1), events: make(chan *credstorev1.WatchResponse, 1), end: ended.Err()}
	s.events <- &credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Reset_{Reset_: &credstorev1.WatchResponse_Reset{}}, Revision: 7}
	resp := watch(t, startWatch(t, s)) //nolint:bodyclose // watch closes it when the test ends
	want := &credstorev1.WatchRequest{Parent: "projects/p", View: credstorev1.WatchRequest_PAYLOAD, Names: []string{"a", "b"}, HeartbeatInterval: durationpb.New(5e9)}
	if got := <-s.request; !proto.Equal(got, want) {
		t.Errorf("request is %v, want %v", got, want)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no line: %v", lines.Err())
		}
		var b bytes.Buffer
		if err := json.Compact(&b, lines.Bytes()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	// Each line comes while the stream goes on: the next event is sent after the
	// last line was read.
	if got := next(); got != `{"result":{"reset":{},"revision":"7"}}` {
		t.Errorf("got %s", got)
	}
	s.events <- &credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Synced_{Synced: &credstorev1.WatchResponse_Synced{}}, Revision: 7, ResumeToken: "t"}
	if got := next(); got != `{"result":{"synced":{},"revision":"7","resumeToken":"t"}}` {
		t.Errorf("got %s", got)
	}
	close(s.events)
	const last = `{"error":{"code":16,"message":"its token was deleted","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"UNAUTHENTICATED","domain":"credstore"}]}}`
	if got := next(); got != last {
		t.Errorf("got %s, want %s", got, last)
	}
	if lines.Scan() {
		t.Errorf("a line behind the error: %s", lines.Text())
	}
}

// pipes is a listener in memory whose connections honour deadlines as those of
// the network do, which bufconn's do not.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// TestStreamOutlivesTimeouts holds that those of the HTTP server, which bound
// calls, do not cut a stream.
func TestStreamOutlivesTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &watcher{request: make(chan *credstorev1.WatchRequest, 1), events: make(chan *credstorev1.WatchResponse, 1)}
		backend := bufconn.Listen(1 << 16)
		server := grpc.NewServer()
		credstorev1.RegisterCredentialServiceServer(server, s)
		go func() { _ = server.Serve(backend) }()
		defer server.Stop()
		conn, err := grpc.NewClient("passthrough:///in-process", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return backend.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		front := newPipes()
		web := &http.Server{Handler: newHandler(t, conn), ReadTimeout: 30 * time.Second, WriteTimeout: 90 * time.Second}
		go func() { _ = web.Serve(front) }()
		defer web.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return front.dial(ctx) }}}
		defer client.CloseIdleConnections()

		event := &credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Heartbeat_{Heartbeat: &credstorev1.WatchResponse_Heartbeat{}}}
		s.events <- event
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://credstore/v1/projects/p/credentials:watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer credstore_x")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for i := range 3 {
			if !lines.Scan() {
				t.Fatalf("the stream was cut before message %d: %v", i, lines.Err())
			}
			time.Sleep(10 * time.Minute)
			s.events <- event
		}
		close(s.events)
	})
}

func TestStreamThatFailsAtOnce(t *testing.T) {
	s := &watcher{request: make(chan *credstorev1.WatchRequest, 1), events: make(chan *credstorev1.WatchResponse), end: status.Error(codes.InvalidArgument, "bad token")}
	close(s.events)
	resp := watch(t, startWatch(t, s)) //nolint:bodyclose // watch closes it when the test ends
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 400 || a.Code != 3 || a.Message != "bad token" || a.reason() != "UNSPECIFIED" {
		t.Errorf("HTTP %d %+v", resp.StatusCode, a)
	}
}

func TestRouteTableRefuses(t *testing.T) {
	for _, template := range []string{
		"v1/x", "/v1/{name}", "/v1/{name=**}", "/v1/{name=a/{b=c}}", "/v1//x", "/v1/{name=a*}",
	} {
		r := &route{}
		if err := r.parseTemplate(template); err == nil {
			t.Errorf("%s was accepted as %v", template, r.segments)
		}
	}
}

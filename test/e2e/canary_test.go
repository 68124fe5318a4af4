package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// TestCanary sends distinctive payloads down every path there is, good and bad,
// and then looks for them everywhere but in the files that they are for.
func TestCanary(t *testing.T) {
	base := t.TempDir()
	s := newServer(t, base)
	s.args = []string{"--allow-target", "127.0.0.0/8"}
	s.start()
	s.ready()
	p := &paths{t: t, s: s, c: s.client(), h: newHaystack()}

	p.write()
	p.refused()
	p.raw()
	p.rest()
	p.read()
	p.watch()
	p.commandLine()
	injectors := p.inject()
	tokens := p.tokens()
	p.observe(injectors)

	// What secrets of tokens may be found in are the files that they were
	// written to.
	for _, secret := range tokens {
		p.h.needles = append(p.h.needles, needlesFor(secret)...)
	}
	skip := []string{s.adminToken()}
	for _, i := range injectors {
		skip = append(skip, i.root, i.token)
	}

	// The database as it is while it is used, as a crash leaves it, and as a
	// graceful stop does.
	files := 0
	look := func(when string) {
		n, found := p.h.searchTree(t, base, skip...)
		files += n
		for _, f := range found {
			t.Errorf("%s: %s", when, f)
		}
	}
	look("while it runs")
	s.process.kill()
	look("after a crash")
	s.start()
	s.ready()
	for _, i := range injectors {
		i.process.stop(t)
	}
	s.process.stop(t)
	look("after the end")
	for _, f := range p.h.search([]byte(p.h.texts.String())) {
		t.Errorf("answers and outputs: %s", f)
	}

	// The search finds what is there: in the files of the injectors, where it
	// belongs, and in copies of what was searched.
	for _, i := range injectors {
		if n, found := p.h.searchTree(t, i.root); n < 5 || len(found) == 0 {
			t.Errorf("the %d files of an injector hold no canary: they did not go this way", n)
		}
	}
	for name, min := range map[string]int{filepath.Join(s.data, "store.db"): 30_000, filepath.Join(s.data, "audit.jsonl"): 2000, s.log: 10_000} {
		b, err := os.ReadFile(name)
		if err != nil || len(b) < min {
			t.Errorf("%s has %d bytes: too little to say anything: %v", name, len(b), err)
		}
		for _, planted := range []string{
			canary("planted"), base64.StdEncoding.EncodeToString([]byte("x" + canary("planted"))), fmt.Sprintf("%x", canary("planted")), tokens[0],
		} {
			if p.h.search(append(b[:len(b)/2:len(b)/2], planted...)) == nil {
				t.Errorf("the search does not find %q in a copy of %s", planted, name)
			}
		}
	}
	t.Logf("%d calls and commands; searched %d files, %d MB, for %d forms", p.calls, files, p.h.bytes>>20, len(p.h.needles))
}

// paths sends canaries through the programs and collects what these say.
type paths struct {
	t     *testing.T
	s     *server
	c     *client.Client
	h     *haystack
	calls int
}

// ok keeps an answer that must hold no payload.
func (p *paths) ok(what string, m proto.Message, err error) {
	p.t.Helper()
	p.calls++
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	p.h.add(what, prototext.Format(m))
}

// fails keeps an error, with all of its details.
func (p *paths) fails(what string, err, want error) {
	p.t.Helper()
	p.calls++
	if err == nil || want != nil && !errors.Is(err, want) {
		p.t.Errorf("%s: got %v, want %v", what, err, want)
		return
	}
	p.h.add(what, err)
	p.h.add(what, fmt.Sprintf("%+v", err))
	if st, ok := status.FromError(err); ok {
		p.h.add(what, prototext.Format(st.Proto()))
		b, err := proto.Marshal(st.Proto())
		if err != nil {
			p.t.Fatal(err)
		}
		p.h.add(what, string(b))
	}
}

func (p *paths) create(id string, payload *credentialv1.Payload) *credstorev1.CreateCredentialRequest {
	return &credstorev1.CreateCredentialRequest{Parent: project, CredentialId: id, Credential: &credstorev1.Credential{Payload: payload}}
}

func (p *paths) update(id string, payload *credentialv1.Payload) *credstorev1.UpdateCredentialRequest {
	return &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: credentialName(id), Payload: payload}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
	}
}

func vaultToken(token string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{Method: &credentialv1.Vault_Token{Token: token}}}}
}

func vaultAppRole(secretID string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
		Method: &credentialv1.Vault_AppRole_{AppRole: &credentialv1.Vault_AppRole{RoleId: "role", SecretId: secretID}},
	}}}
}

// kinds are a payload of every kind; the names are the ids of credentials.
func kinds(where string) map[string]*credentialv1.Payload {
	return map[string]*credentialv1.Payload{
		"a-basic":  basic("bot", canary(where+"-basic")),
		"a-token":  apiToken(canary(where + "-token")),
		"a-opaque": opaque("key", canary(where+"-opaque")),
		"a-vault":  vaultToken(canary(where + "-vault")),
		"a-role":   vaultAppRole(canary(where + "-role")),
		"a-registry": {Kind: &credentialv1.Payload_DockerRegistry{DockerRegistry: &credentialv1.DockerRegistry{
			Server: "127.0.0.1:5000", Username: "bot", Password: canary(where + "-registry"),
		}}},
		"a-cluster": {Kind: &credentialv1.Payload_Kubeconfig{Kubeconfig: &credentialv1.Kubeconfig{Document: `{"current-context": "c",` +
			`"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],` +
			`"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"}}],` +
			`"users": [{"name": "u", "user": {"token": ` + strconv.Quote(canary(where+"-cluster")) + `}}]}`}}},
		"a-mail": {Kind: &credentialv1.Payload_Smtp{Smtp: &credentialv1.Smtp{Host: "127.0.0.1", Username: "bot", Password: canary(where + "-mail")}}},
		"a-hook": {Kind: &credentialv1.Payload_Webhook{Webhook: &credentialv1.Webhook{Url: "https://127.0.0.1/" + url.PathEscape(canary(where+"-hook"))}}},
		"a-gitlab": {Kind: &credentialv1.Payload_GitlabToken{GitlabToken: &credentialv1.GitlabToken{
			Url: "https://127.0.0.1", Token: canary(where + "-gitlab"),
		}}},
	}
}

// write takes every way to write that works.
func (p *paths) write() {
	t, ctx := p.t, p.t.Context()
	t.Helper()
	for id, payload := range kinds("create") {
		m, err := p.c.Credentials.CreateCredential(ctx, p.create(id, payload))
		p.ok("create "+id, m, err)
	}
	for id, payload := range kinds("update") {
		m, err := p.c.Credentials.UpdateCredential(ctx, p.update(id, payload))
		p.ok("update "+id, m, err)
	}
	for id, payload := range kinds("validate") {
		r := p.create(id+"-none", payload)
		r.ValidateOnly = true
		m, err := p.c.Credentials.CreateCredential(ctx, r)
		p.ok("validate "+id, m, err)
	}
	// What vendors are asked: here addresses that are refused, and answers that
	// need none.
	for id := range kinds("verify") {
		m, err := p.c.Credentials.VerifyCredential(ctx, &credstorev1.VerifyCredentialRequest{Name: credentialName(id)})
		p.ok("verify "+id, m, err)
	}
	for id, payload := range kinds("unverified") {
		r := p.create(id+"-none", payload)
		r.Verify = true
		_, err := p.c.Credentials.CreateCredential(ctx, r)
		p.fails("create unverified "+id, err, client.ErrPrecondition)
	}
	for _, id := range []string{"a-registry", "a-cluster"} {
		m, err := p.c.Credentials.MintToken(ctx, &credstorev1.MintTokenRequest{Name: credentialName(id)})
		if err != nil || m.GetToken().GetKind() == nil {
			t.Fatalf("mint %s: %v", id, err)
		}
		p.ok("a token printed", &credstorev1.MintTokenResponse{Version: fmt.Sprint(m, m.GetToken())}, nil)
	}
	for _, id := range []string{"a-basic", "a-mail", "none"} {
		_, err := p.c.Credentials.MintToken(ctx, &credstorev1.MintTokenRequest{Name: credentialName(id)})
		p.fails("mint "+id, err, nil)
	}
	// The same request twice, and then another one by its id.
	r := p.create("a-replay", basic("bot", canary("replay")))
	r.RequestId = "request-1"
	for range 2 {
		m, err := p.c.Credentials.CreateCredential(ctx, r)
		p.ok("replay", m, err)
	}
	r.Credential.Payload = basic("bot", canary("replay-other"))
	_, err := p.c.Credentials.CreateCredential(ctx, r)
	p.fails("request id of another request", err, client.ErrInvalid)

	m, err := p.c.Credentials.BatchWriteCredentials(ctx, batchOf(p.create("b-one", basic("bot", canary("batch"))), p.create("b-two", apiToken(canary("batch"))), p.update("a-token", apiToken(canary("batch")))))
	p.ok("batch", m, err)
	for _, verb := range []string{"disable", "enable", "activate", "disable-2", "destroy"} {
		var err error
		var m proto.Message
		switch one, two := credentialName("a-basic/versions/1"), credentialName("a-basic/versions/2"); verb {
		case "disable":
			m, err = p.c.Credentials.DisableCredentialVersion(ctx, &credstorev1.DisableCredentialVersionRequest{Name: one})
		case "enable":
			m, err = p.c.Credentials.EnableCredentialVersion(ctx, &credstorev1.EnableCredentialVersionRequest{Name: one})
		case "activate":
			m, err = p.c.Credentials.ActivateCredentialVersion(ctx, &credstorev1.ActivateCredentialVersionRequest{Name: one})
		case "disable-2":
			m, err = p.c.Credentials.DisableCredentialVersion(ctx, &credstorev1.DisableCredentialVersionRequest{Name: two})
		case "destroy":
			m, err = p.c.Credentials.DestroyCredentialVersion(ctx, &credstorev1.DestroyCredentialVersionRequest{Name: two})
		}
		p.ok(verb, m, err)
	}
}

func batchOf(requests ...proto.Message) *credstorev1.BatchWriteCredentialsRequest {
	out := &credstorev1.BatchWriteCredentialsRequest{Parent: project}
	for _, r := range requests {
		op := &credstorev1.BatchWriteCredentialsRequest_Operation{}
		switch r := r.(type) {
		case *credstorev1.CreateCredentialRequest:
			op.Operation = &credstorev1.BatchWriteCredentialsRequest_Operation_Create{
				Create: &credstorev1.BatchWriteCredentialsRequest_Create{CredentialId: r.GetCredentialId(), Credential: r.GetCredential()},
			}
		case *credstorev1.UpdateCredentialRequest:
			op.Operation = &credstorev1.BatchWriteCredentialsRequest_Operation_Update{
				Update: &credstorev1.BatchWriteCredentialsRequest_Update{Credential: r.GetCredential(), UpdateMask: r.GetUpdateMask()},
			}
		}
		out.Operations = append(out.Operations, op)
	}
	return out
}

// refused sends payloads in calls that fail.
func (p *paths) refused() {
	ctx := p.t.Context()
	large := strings.Repeat("0123456789abcdef", 300<<10/16)
	creates := map[string]struct {
		payload *credentialv1.Payload
		change  func(*credstorev1.CreateCredentialRequest)
		want    error
	}{
		"exists":        {basic("bot", canary("exists")), func(r *credstorev1.CreateCredentialRequest) { r.CredentialId = "a-basic" }, client.ErrAlreadyExists},
		"no project":    {basic("bot", canary("no-project")), func(r *credstorev1.CreateCredentialRequest) { r.Parent = "projects/none" }, client.ErrNotFound},
		"bad id":        {basic("bot", canary("bad-id")), func(r *credstorev1.CreateCredentialRequest) { r.CredentialId = "Bad_Id" }, client.ErrInvalid},
		"bad user":      {basic("bo:t", canary("bad-user")), nil, client.ErrInvalid},
		"no user":       {basic("", canary("no-user")), nil, client.ErrInvalid},
		"NUL":           {basic("bot", canary("nul")+"\x00"), nil, client.ErrInvalid},
		"spaces":        {apiToken("a " + canary("spaces")), nil, client.ErrInvalid},
		"bad key":       {opaque("no such/key", canary("bad-key")), nil, client.ErrInvalid},
		"too large":     {opaque("key", canary("large")+large), nil, client.ErrInvalid},
		"long password": {basic("bot", canary("long")+large[:70_000]), nil, client.ErrInvalid},
		"vault spaces":  {vaultToken("a " + canary("vault")), nil, client.ErrInvalid},
		"bad mount": {vaultAppRole(canary("mount")), func(r *credstorev1.CreateCredentialRequest) {
			r.Credential.GetPayload().GetVault().GetAppRole().Mount = "../x"
		}, client.ErrInvalid},
	}
	for what, tt := range creates {
		r := p.create("never", tt.payload)
		if tt.change != nil {
			tt.change(r)
		}
		_, err := p.c.Credentials.CreateCredential(ctx, r)
		p.fails("create: "+what, err, tt.want)
		if r.GetParent() == project && !strings.Contains(what, "large") {
			_, err = p.c.Credentials.BatchWriteCredentials(ctx, batchOf(p.create("never-two", basic("bot", canary("in-bad-batch"))), r))
			p.fails("batch: "+what, err, tt.want)
		}
	}
	_, err := p.c.Credentials.CreateCredential(ctx, p.create("never", opaque("key", canary("huge")+strings.Repeat(large, 8))))
	p.fails("create: 2.4 MB", err, nil)
	_, err = p.c.Credentials.CreateCredential(ctx, p.create("never", opaque("key", canary("vast")+strings.Repeat(large, 16))))
	p.fails("create: 4.8 MB", err, nil)

	_, err = p.c.Credentials.UpdateCredential(ctx, p.update("a-basic", apiToken(canary("other-kind"))))
	p.fails("another kind", err, client.ErrInvalid)
	_, err = p.c.Credentials.UpdateCredential(ctx, p.update("none", basic("bot", canary("missing"))))
	p.fails("update of nothing", err, client.ErrNotFound)
	r := p.update("a-basic", basic("bot", canary("etag")))
	r.Credential.Etag = "1-00000000"
	_, err = p.c.Credentials.UpdateCredential(ctx, r)
	p.fails("wrong etag", err, client.ErrEtagMismatch)
	r = p.update("a-basic", basic("bot", canary("mask")))
	r.UpdateMask.Paths = []string{"payload.basic.password"}
	_, err = p.c.Credentials.UpdateCredential(ctx, r)
	p.fails("part of a payload", err, client.ErrInvalid)

	// A secret where none belongs.
	r = p.update("a-basic", basic("bot", canary("etag")))
	r.Credential.Etag = canary("as-etag")
	_, err = p.c.Credentials.UpdateCredential(ctx, r)
	p.fails("secret as etag", err, nil)
	_, err = p.c.Credentials.DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: credentialName("a-basic"), Etag: canary("as-etag")})
	p.fails("secret as etag of a delete", err, nil)
	_, err = p.c.Credentials.ListCredentials(ctx, &credstorev1.ListCredentialsRequest{Parent: project, PageToken: canary("as-page-token")})
	p.fails("secret as page token", err, client.ErrInvalid)
	stream, err := p.c.Credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: project, ResumeToken: canary("as-resume-token")})
	if err == nil {
		_, err = stream.Recv()
	}
	p.fails("secret as resume token", err, client.ErrInvalid)

	// By those who may not.
	for role, file := range map[string]string{"reader": p.token(credstorev1.Token_READER), "operator": p.token(credstorev1.Token_OPERATOR)} {
		o := p.s.options()
		o.TokenFile = file
		c := dial(p.t, o)
		_, err = c.Credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: credentialName("a-basic")})
		p.fails(role+": access", err, client.ErrPermissionDenied)
		if role == "reader" {
			_, err = c.Credentials.CreateCredential(ctx, p.create("never", basic("bot", canary("reader"))))
			p.fails(role+": create", err, client.ErrPermissionDenied)
		}
	}
	for what, token := range map[string]string{"no token of ours": canary("bearer"), "unknown token": "credstore_" + canary("bearer")} {
		o := p.s.options()
		o.TokenFile, o.Token = "", func(context.Context) (string, error) { return token, nil }
		_, err = dial(p.t, o).Credentials.CreateCredential(ctx, p.create("never", basic("bot", canary("stranger"))))
		p.fails(what, err, client.ErrUnauthenticated)
	}
}

// token issues a token with a role and returns its file.
func (p *paths) token(role credstorev1.Token_Role) string {
	p.t.Helper()
	id := strings.ToLower(role.String())
	answer, err := p.c.Tokens.CreateToken(p.t.Context(), &credstorev1.CreateTokenRequest{Parent: project, TokenId: id, Token: &credstorev1.Token{Role: role}})
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(answer.GetSecret()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

// bytesCodec sends messages as they are given.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not bytes", v)
	}
	return b, nil
}

func (bytesCodec) Unmarshal([]byte, any) error { return nil }

// raw sends messages over gRPC that are no messages.
func (p *paths) raw() {
	good, err := proto.Marshal(p.create("never", basic("bot", canary("malformed"))))
	if err != nil {
		p.t.Fatal(err)
	}
	const create = "/credstore.v1.CredentialService/CreateCredential"
	for what, call := range map[string]struct {
		method string
		body   []byte
	}{
		"truncated":      {create, good[:len(good)-4]},
		"not UTF-8":      {create, bytes.Replace(good, []byte(rear[:2]), []byte{0xff, 0xfe}, 1)},
		"text":           {create, []byte(canary("text"))},
		"unknown fields": {create, append(bytes.Clone(good), append([]byte{0xfa, 0x3e, byte(len(head))}, head...)...)},
		"no method":      {"/credstore.v1.CredentialService/" + "NoSuchMethod", good},
		"wrong method":   {"/credstore.v1.CredentialService/AccessCredential", good},
	} {
		var out any
		err := p.c.Conn().Invoke(p.t.Context(), call.method, call.body, &out, grpc.ForceCodec(bytesCodec{}))
		p.calls++
		p.h.add("raw: "+what, fmt.Sprintf("%+v", err))
		if err == nil && what != "unknown fields" {
			p.t.Errorf("raw: %s is accepted", what)
		}
	}
}

func (p *paths) httpClient() *http.Client {
	pem, err := os.ReadFile(p.s.ca())
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func (p *paths) request(method, path, contentType, body string) *http.Request {
	r, err := http.NewRequestWithContext(p.t.Context(), method, "https://"+p.s.rest+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := os.ReadFile(p.s.adminToken())
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

// rest sends payloads over REST, in good and in bad requests.
func (p *paths) rest() {
	const (
		credentials = "/v1/projects/default/credentials"
		asJSON      = "application/json"
	)
	hc := p.httpClient()
	payload := func(where string) string {
		return string(mustJSON(p.t, map[string]any{"payload": map[string]any{"basic": map[string]any{"username": "bot", "password": canary(where)}}}))
	}
	quoted := func(where string) string { return string(mustJSON(p.t, canary(where))) }
	for _, c := range []struct {
		method, path, contentType, body string
		status                          int // 0 for any error
	}{
		{"POST", credentials + "?credentialId=r-one", asJSON, payload("rest"), 200},
		{"PATCH", credentials + "/r-one?updateMask=payload", asJSON, payload("rest"), 200},
		{"PATCH", credentials + "/r-one", asJSON, payload("rest-no-mask"), 200},
		{"POST", credentials + ":batchWrite", asJSON, `{"operations": [{"create": {"credentialId": "r-two", "credential": ` + payload("rest-batch") + `}}]}`, 200},
		{"GET", credentials, "", "", 200},
		{"GET", credentials + "/r-one", "", "", 200},
		{"GET", credentials + "/r-one/versions", "", "", 200},

		{"POST", credentials + "?credentialId=r-one", asJSON, payload("rest-exists"), 409},
		{"POST", credentials + "?credentialId=r-bad", asJSON, payload("rest-syntax") + "}", 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, payload("rest-syntax")[:40] + head, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, strings.Replace(payload("rest-quote"), `"password":"`, `"password":`, 1), 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, payload("rest-twice") + payload("rest-twice"), 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "pasword": ` + quoted("misspelt") + `}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "password": {"value": ` + quoted("object") + `}}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "password": [` + quoted("array") + `]}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": ` + quoted("string") + `}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": ` + quoted("string") + `}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, quoted("string"), 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, canary("bare"), 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"nosuchkind": {"password": ` + quoted("kind") + `}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"password": ` + quoted("top") + `}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{` + quoted("as-key") + `: 1}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"labels": ` + quoted("labels") + `}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"createTime": ` + quoted("time") + `}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"activeVersion": ` + quoted("number") + `}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"opaque": {"data": {"key": ` + quoted("not-base64") + `}}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "password": ` + quoted("both") + `}, "apiToken": {"token": ` + quoted("both") + `}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "password": ` + quoted("dup") + `, "password": ` + quoted("dup") + `}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, strings.Repeat(`{"payload":`, 5000) + quoted("deep") + strings.Repeat("}", 5000), 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "password": "` + head + "\xff\xfe" + rear + `"}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"basic": {"username": "bot", "password": "` + head + `\ud800` + rear + `"}}}`, 400},
		{"POST", credentials + "?credentialId=r-bad", asJSON, `{"payload": {"apiToken": {"token": ` + string(mustJSON(p.t, canary("large")+strings.Repeat("x", 3<<20))) + `}}}`, 0},
		{"POST", credentials + "?credentialId=r-bad", "application/x-www-form-urlencoded", "payload.basic.password=" + escapeURL(canary("form")), 0},
		{"POST", credentials + "?credentialId=r-bad", "text/plain", canary("plain"), 0},
		{"POST", credentials + "?credentialId=r-bad&payload.basic.password=" + escapeURL(canary("query")), asJSON, payload("rest-query"), 400},
		{"POST", credentials + "?credentialId=r-bad&password=" + escapeURL(canary("query")), asJSON, payload("rest-query"), 400},
		{"POST", "/v1/projects/none/credentials?credentialId=r-bad", asJSON, payload("rest-project"), 404},
		{"POST", credentials + ":nosuchverb", asJSON, payload("rest-verb"), 0},
		{"POST", credentials + ":batchWrite", asJSON, `{"operations": [{"create": {"credentialId": "r-three", "credential": ` + payload("rest-batch") + `}}, {"update": {"credential": ` + payload("rest-batch") + `}}]}`, 400},
		{"PUT", credentials + "/r-one", asJSON, payload("rest-put"), 0},
		{"PATCH", credentials + "/r-one?updateMask=payload.basic.password", asJSON, payload("rest-mask"), 400},
		{"PATCH", credentials + "/r-one?updateMask=payload", asJSON, `{"payload": {"apiToken": {"token": ` + quoted("rest-kind") + `}}}`, 400},
		{"PATCH", credentials + "/r-one?updateMask=payload", asJSON, `{"etag": "1-0", ` + payload("rest-etag")[1:], 409},
		{"GET", credentials + "?pageToken=" + escapeURL(canary("page")), "", "", 400},
		{"GET", credentials + "?pageSize=" + escapeURL(canary("size")), "", "", 400},
		{"GET", credentials + ":watch?resumeToken=" + escapeURL(canary("resume")), "", "", 400},
		{"GET", credentials + ":watch?view=" + escapeURL(canary("view")), "", "", 400},
		{"DELETE", credentials + "/r-one?etag=" + escapeURL(canary("etag")), "", "", 0},
		{"DELETE", credentials + "/r-one", asJSON, payload("rest-delete-body"), 0},
	} {
		p.send(hc, p.request(c.method, c.path, c.contentType, c.body), c.status)
	}
	for _, authorization := range []string{"Bearer " + canary("bearer"), "Bearer credstore_" + canary("bearer"), "Basic " + base64.StdEncoding.EncodeToString([]byte("bot:"+canary("basic")))} {
		r := p.request("POST", credentials+"?credentialId=r-bad", asJSON, payload("rest-stranger")+"}")
		r.Header.Set("Authorization", authorization)
		p.send(hc, r, 401)
	}
	r := p.request("GET", credentials+"/r-one", "", "")
	r.Header.Set("Grpc-Metadata-Authorization", "Bearer "+canary("forged"))
	r.Header.Set("Grpc-Timeout", canary("timeout"))
	p.send(hc, r, 0)
}

// send makes a request and keeps the answer. status 0 is for any.
func (p *paths) send(hc *http.Client, r *http.Request, want int) {
	p.t.Helper()
	p.calls++
	answer, err := hc.Do(r)
	if err != nil {
		// The client's own error repeats the address, which is not the server's.
		var sent *url.Error
		if !errors.As(err, &sent) || want != 0 {
			p.t.Errorf("%s %.80s: %v", r.Method, r.URL.Path, err)
		}
		return
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if want != 0 && answer.StatusCode != want {
		p.t.Errorf("%s %.90s: %s, want %d: %.300s", r.Method, r.URL.RequestURI(), answer.Status, want, body)
	}
	p.h.add(r.Method+" "+r.URL.Path, fmt.Sprintf("%s %v %s", answer.Status, answer.Header, body))
}

// read takes the ways that payloads leave by, and sees that they do.
func (p *paths) read() {
	ctx := p.t.Context()
	for _, name := range []string{"a-basic", "a-token", "a-opaque", "b-one", "a-replay", "r-one", "a-token/versions/1"} {
		m, err := p.c.Credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: credentialName(name)})
		p.calls++
		if err != nil || !strings.HasPrefix(secretOf(m.GetPayload()), head) {
			p.t.Fatalf("access %s: %v, %d bytes", name, err, len(secretOf(m.GetPayload())))
		}
	}
	for name, want := range map[string]error{
		"a-basic/versions/2": client.ErrVersionNotEnabled, "a-basic/versions/99": client.ErrNotFound, "none": client.ErrNotFound,
	} {
		_, err := p.c.Credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: credentialName(name)})
		p.fails("access "+name, err, want)
	}
	answer, err := p.httpClient().Do(p.request("GET", "/v1/projects/default/credentials/r-one:access", "", ""))
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || !bytes.Contains(body, []byte(head)) {
		p.t.Errorf("access by REST answers %.200q, %v", body, err)
	}
	list, err := p.c.Credentials.ListCredentials(ctx, &credstorev1.ListCredentialsRequest{Parent: project, PageSize: 1000})
	p.ok("list", list, err)
	for _, m := range list.GetCredentials() {
		versions, err := p.c.Credentials.ListCredentialVersions(ctx, &credstorev1.ListCredentialVersionsRequest{Parent: m.GetName()})
		p.ok("versions", versions, err)
		usages, err := p.c.Credentials.ListUsages(ctx, &credstorev1.ListUsagesRequest{Parent: m.GetName()})
		p.ok("usages", usages, err)
	}
}

// watch opens payload streams of every kind, and metadata streams, which must
// hold nothing.
func (p *paths) watch() {
	t := p.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	kept, err := p.c.WatchCredentials(client.WatchOptions{Parent: project, Payload: true, Consumer: "canary"})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if err := kept.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range kept.All() {
		p.h.add("client's credential", fmt.Sprintf("%v %+v %#v %s", c, c, c, c))
	}
	for _, view := range []credstorev1.WatchRequest_View{credstorev1.WatchRequest_METADATA, credstorev1.WatchRequest_PAYLOAD} {
		stream, err := p.c.Credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: project, View: view})
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.c.Credentials.UpdateCredential(ctx, p.update("b-one", basic("bot", canary("watched"))))
		p.ok("update while watched", m, err)
		for secrets := 0; ; {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range m.GetCommit().GetChanges() {
				if c.GetPayload() != nil {
					secrets++
				}
			}
			if view == credstorev1.WatchRequest_METADATA {
				p.h.add("metadata stream", prototext.Format(m))
			}
			if m.GetSynced() != nil && (secrets > 0) != (view == credstorev1.WatchRequest_PAYLOAD) {
				t.Errorf("a stream in view %s has %d payloads", view, secrets)
			}
			if m.GetSynced() != nil {
				break
			}
		}
	}
	for _, view := range []string{"METADATA", "PAYLOAD"} {
		r := p.request("GET", "/v1/projects/default/credentials:watch?view="+view, "", "").WithContext(ctx)
		answer, err := p.httpClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 16<<20)
		had := false
		for lines.Scan() && !strings.Contains(lines.Text(), `"synced"`) {
			had = had || strings.Contains(lines.Text(), head)
			if view == "METADATA" {
				p.h.add("REST metadata stream", lines.Text())
			}
		}
		if err := errors.Join(lines.Err(), answer.Body.Close()); err != nil || had != (view == "PAYLOAD") {
			t.Errorf("a REST stream in view %s holds a payload: %t, %v", view, had, err)
		}
	}
	cancel()
}

// commandLine uses the command line as people do, and as they do not mean to.
func (p *paths) commandLine() {
	t := p.t
	t.Helper()
	env := append(p.s.env(), "CREDSTORE_ADDR="+p.s.grpc, "CREDSTORE_CA="+p.s.ca(), "CREDSTORE_TOKEN_FILE="+p.s.adminToken())
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(canary("file")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asJSON := func(where string) string {
		b, err := protojson.Marshal(basic("bot", canary(where)))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct {
		args   string
		stdin  string
		ok     bool
		stdout bool // may hold the secret, and must
	}{
		{args: "credential create cli-one --kind basic --set username=bot --secret password=-", stdin: canary("stdin") + "\n", ok: true},
		{args: "credential create cli-two --kind apiToken --secret token=@" + file + " -o json", ok: true},
		{args: "credential create cli-three --payload - -o yaml", stdin: asJSON("stdin-payload"), ok: true},
		{args: "credential update cli-one --kind basic --set username=bot --secret password=-", stdin: canary("stdin"), ok: true},
		{args: "credential get cli-one -o json", ok: true},
		{args: "credential list -o yaml", ok: true},
		{args: "credential versions cli-one -o json", ok: true},
		{args: "usage list cli-one -o json", ok: true},
		{args: "credential access cli-one", ok: true, stdout: true},
		{args: "credential access cli-one --field password", ok: true, stdout: true},
		{args: "credential access cli-one --version 1 -o json", ok: true, stdout: true},
		{args: "credential access cli-one --field nosuchfield"},
		{args: "credential create cli-one --kind basic --set username=bot --secret password=-", stdin: canary("cli-exists")},
		{args: "credential create cli-bad --kind basic --set username=bo:t --secret password=-", stdin: canary("cli-bad")},
		{args: "credential create cli-bad --kind basic --secret username=- --secret nosuchfield=-", stdin: canary("cli-field")},
		{args: "credential create cli-bad --kind apiToken --secret token=-", stdin: "two words " + canary("cli-words")},
		{args: "credential create cli-bad --payload -", stdin: asJSON("cli-syntax") + "}"},
		{args: "credential create cli-bad --payload -", stdin: canary("cli-no-json")},
		{args: "credential create cli-bad --payload -", stdin: strings.Replace(asJSON("cli-field"), "password", "pasword", 1)},
		{args: "credential create cli-bad --payload -", stdin: asJSON("cli-large") + strings.Repeat(" ", 2<<20)},
		{args: "credential create cli-bad --payload " + file},
		{args: "credential create cli-bad --kind basic --set username=bot --set password=" + canary("argument")},
		{args: "credential create cli-bad --kind basic --set username=bot --secret password=" + canary("argument")},
		{args: "injection create cli-bad --file -", stdin: `{"items": ` + string(mustJSON(t, canary("cli-injection"))) + `}`},
		{args: "injection create cli-bad --file -", stdin: "selector: {app: x}\nitems: [{password: " + string(mustJSON(t, canary("cli-injection"))) + "}]"},
		{args: "injection create cli-bad --file -", stdin: "\t" + canary("cli-yaml") + ": ["},
		{args: "store create cli-bad --file -", stdin: `{"vault": {"token": ` + string(mustJSON(t, canary("cli-store"))) + `}}`},
	} {
		stdout, stderr, err := command(t, env, c.stdin, p.s.bin.credstore, strings.Fields(c.args)...)
		p.calls++
		if (err == nil) != c.ok {
			t.Errorf("credstore %.100s: %v\n%s", c.args, err, stderr)
		}
		p.h.add("credstore "+c.args[:min(30, len(c.args))], stderr)
		if !c.stdout {
			p.h.add("credstore "+c.args[:min(30, len(c.args))], stdout)
		} else if !strings.Contains(stdout, head) {
			t.Errorf("credstore %s does not print the payload: %q", c.args, stdout)
		}
	}
	strange := append(p.s.env(), "CREDSTORE_ADDR="+p.s.grpc, "CREDSTORE_CA="+p.s.ca(), "CREDSTORE_TOKEN="+canary("cli-token"))
	_, stderr, err := command(t, strange, "", p.s.bin.credstore, "credential", "list")
	p.h.add("credstore with a wrong token", stderr)
	if err == nil {
		t.Error("a wrong token may list")
	}
}

// inject has injectors deliver canaries: from credentials, from an external
// store, and from stores that fail. It returns them running.
func (p *paths) inject() []*injector {
	t, ctx := p.t, p.t.Context()
	t.Helper()
	login := canary("vault-login")
	vault := newFakeVault(t, login)
	vault.secrets["app/db"] = canary("vault-value")
	vault.broken["app/truncated"] = `{"data": {"data": {"password": ` + string(mustJSON(t, canary("vault-truncated")))
	vault.broken["app/strange"] = `{"data": {"data": ` + string(mustJSON(t, canary("vault-strange"))) + `}, "errors": [` + string(mustJSON(t, canary("vault-strange"))) + `]}`
	away := freeAddresses(t, loopback(), 1)[0]
	m, err := p.c.Credentials.CreateCredential(ctx, p.create("v-good", vaultToken(login)))
	p.ok("create the vault's login", m, err)
	for id, store := range map[string]struct{ credential, address string }{
		"good": {"v-good", vault.url}, "wrong-login": {"a-vault", vault.url}, "away": {"a-vault", "https://" + away}, "away-role": {"a-role", "https://" + away},
	} {
		m, err := p.c.Stores.CreateSecretStore(ctx, &credstorev1.CreateSecretStoreRequest{Parent: project, SecretStoreId: id, SecretStore: &credstorev1.SecretStore{
			Credential: credentialName(store.credential), PollInterval: durationpb.New(time.Second),
			Provider: &credstorev1.SecretStore_Vault{Vault: &credstorev1.VaultProvider{Address: store.address}},
		}})
		p.ok("create store "+id, m, err)
		tested, err := p.c.Stores.TestSecretStore(ctx, &credstorev1.TestSecretStoreRequest{Name: project + "/secretStores/" + id})
		p.ok("test store "+id, tested, err)
		if tested.GetOk() != (id == "good") {
			t.Errorf("store %s: %v", id, tested)
		}
	}
	// What works, and what cannot.
	works, fails := &credstorev1.Injection{Selector: map[string]string{"app": "works"}}, &credstorev1.Injection{Selector: map[string]string{"app": "fails"}}
	for path, source := range map[string]*credstorev1.CredentialSource{
		"basic/password": {Name: credentialName("a-basic"), Field: "password"},
		"basic/whole":    {Name: credentialName("a-basic")},
		"token":          {Name: credentialName("a-token"), Field: "token"},
		"opaque":         {Name: credentialName("a-opaque"), Field: "data.key"},
		"rest":           {Name: credentialName("r-one"), Field: "password"},
	} {
		item := &credstorev1.Item{
			Source: &credstorev1.Item_Credential{Credential: source},
			Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: path}}, Group: "all",
		}
		works.Items = append(works.Items, item)
		loner := proto.CloneOf(item)
		loner.Group = ""
		fails.Items = append(fails.Items, loner)
	}
	works.Items = append(works.Items, secretItem("vault", "good", "app/db"))
	// The first set of an injector waits for all items, so these come later.
	later := []*credstorev1.Item{
		secretItem("truncated", "good", "app/truncated"), secretItem("strange", "good", "app/strange"),
		secretItem("missing", "good", "app/missing"), secretItem("wrong-login", "wrong-login", "app/db"), secretItem("away", "away", "app/db"), secretItem("away-role", "away-role", "app/db"),
	}
	var out []*injector
	for id, injection := range map[string]*credstorev1.Injection{"works": works, "fails": fails} {
		m, err := p.c.Injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{Parent: project, InjectionId: id, Injection: injection})
		p.ok("create injection "+id, m, err)
		i := newInjector(p.s, id, injection.GetSelector())
		i.start()
		out = append(out, i)
		eventually(t, "the set of "+id, func() error {
			_, err := os.Stat(filepath.Join(i.root, "basic", "password"))
			return err
		})
		if id == "works" {
			p.awaitFile(i, "vault", vault.secrets["app/db"])
			continue
		}
		m, err = p.c.Injections.UpdateInjection(ctx, &credstorev1.UpdateInjectionRequest{
			Injection:  &credstorev1.Injection{Name: project + "/injections/" + id, Items: append(injection.GetItems(), later...)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"items"}},
		})
		p.ok("add items that fail", m, err)
	}
	// A change arrives in spite of the items that fail.
	changed := canary("changed")
	u, err := p.c.Credentials.UpdateCredential(ctx, p.update("a-token", apiToken(changed)))
	p.ok("change", u, err)
	for _, i := range out {
		p.awaitFile(i, "token", changed)
	}
	for _, id := range []string{"works", "fails"} {
		var m *credstorev1.InjectionStatus
		eventually(t, "status of "+id, func() (err error) {
			m, err = p.c.Injections.GetInjectionStatus(ctx, &credstorev1.GetInjectionStatusRequest{Name: project + "/injections/" + id})
			if err == nil && (len(m.GetWorkloads()) == 0 || m.GetWorkloads()[0].GetAppliedRevision() == 0) {
				err = errors.New("nothing was reported")
			}
			for _, i := range m.GetItems() {
				if err == nil && i.GetState() != credstorev1.SetItem_OK && i.GetMessage() == "" {
					err = fmt.Errorf("%s is %s without a message", i.GetPath(), i.GetState())
				}
			}
			return err
		})
		p.ok("status "+id, m, nil)
	}
	refreshed, err := p.c.Stores.RefreshSecretStore(ctx, &credstorev1.RefreshSecretStoreRequest{Name: project + "/secretStores/good"})
	p.ok("refresh", refreshed, err)
	_, err = p.c.Credentials.DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: credentialName("a-basic")})
	p.fails("delete what is in use", err, client.ErrInUse)

	// One that ends by itself, well; one that misses items; one that nobody knows.
	for _, once := range []struct {
		of    *injector
		token string
		ok    bool
	}{{of: out[0]}, {of: out[1]}, {of: out[0], token: canary("injector-token")}} {
		i := *once.of
		i.root += "-once"
		env := i.env()
		args := i.args("once")
		if once.token != "" {
			env = append(env, "CREDSTORE_TOKEN="+once.token)
			args = append(args, "--token-file", "")
		}
		_, stderr, _ := command(t, env, "", p.s.bin.injector, append(args, "--timeout", "2s")...)
		p.calls++
		p.h.add("injector once", stderr)
		if err := os.RemoveAll(i.root); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// awaitFile waits until a file of the injector has a content.
func (p *paths) awaitFile(i *injector, path, content string) {
	p.t.Helper()
	eventually(p.t, path, func() error {
		b, err := os.ReadFile(filepath.Join(i.root, path))
		if err == nil && string(b) != content {
			err = fmt.Errorf("holds %q", b)
		}
		return err
	})
}

func secretItem(path, store, secret string) *credstorev1.Item {
	return &credstorev1.Item{
		Source: &credstorev1.Item_Secret{Secret: &credstorev1.SecretSource{Store: project + "/secretStores/" + store, Path: secret, Key: "password"}},
		Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: path}},
	}
}

// tokens issues, replays and revokes tokens, and returns the secrets of all
// that exist.
func (p *paths) tokens() []string {
	t, ctx := p.t, p.t.Context()
	t.Helper()
	admin, err := os.ReadFile(p.s.adminToken())
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{strings.TrimPrefix(strings.TrimSpace(string(admin)), "credstore_")}
	r := &credstorev1.CreateTokenRequest{Parent: project, TokenId: "replayed", RequestId: "token-1", Token: &credstorev1.Token{Role: credstorev1.Token_READER}}
	for range 2 {
		answer, err := p.c.Tokens.CreateToken(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.TrimPrefix(answer.GetSecret(), "credstore_"))
		p.ok("token", answer.GetToken(), nil)
	}
	_, err = p.c.Tokens.CreateToken(ctx, &credstorev1.CreateTokenRequest{Parent: project, TokenId: "replayed", Token: r.GetToken()})
	p.fails("token exists", err, client.ErrAlreadyExists)
	// The first secret of the two does not work any more, and says nothing.
	for i, secret := range secrets[1:] {
		o := p.s.options()
		o.TokenFile, o.Token = "", func(context.Context) (string, error) { return "credstore_" + secret, nil }
		m, err := dial(t, o).Credentials.ListCredentials(ctx, &credstorev1.ListCredentialsRequest{Parent: project})
		if i == 0 {
			p.fails("replaced secret", err, client.ErrUnauthenticated)
		} else {
			p.ok("list by token", m, err)
		}
	}
	list, err := p.c.Tokens.ListTokens(ctx, &credstorev1.ListTokensRequest{Parent: project, PageSize: 1000})
	p.ok("tokens", list, err)
	_, err = p.c.Tokens.DeleteToken(ctx, &credstorev1.DeleteTokenRequest{Name: project + "/tokens/replayed"})
	p.ok("revoke", nil, err)
	for _, s := range secrets {
		if len(s) < 20 {
			t.Fatalf("a token's secret has %d characters", len(s))
		}
	}
	return secrets
}

// observe keeps what the processes show of themselves.
func (p *paths) observe(injectors []*injector) {
	t := p.t
	t.Helper()
	pages := map[string]string{"server metrics": "http://" + p.s.metrics + "/metrics"}
	processes := []*process{p.s.process}
	for _, i := range injectors {
		for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
			pages["injector"+path+" "+i.root] = "http://" + i.web + path
		}
		processes = append(processes, i.process)
	}
	for what, address := range pages {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil || len(b) == 0 {
			t.Errorf("%s: %d bytes, %v", what, len(b), err)
		}
		p.h.add(what, string(b))
	}
	p.send(p.httpClient(), p.request("GET", "/readyz", "", ""), 200)
	p.send(p.httpClient(), p.request("GET", "/openapi.json", "", ""), 200)
	for _, pr := range processes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pr.cmd.Process.Pid))
		if errors.Is(err, os.ErrNotExist) {
			t.Log("no /proc: command lines were not looked at")
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p.h.add("command line", string(b))
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func escapeURL(s string) string { return url.QueryEscape(s) }

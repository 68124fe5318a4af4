package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// canary is the secret in every bad request. Its length makes its base64 the
// same wherever a value begins with it.
const canary = "canary7HiddenValue"

// stored is the secret of what the store holds.
const stored = "storedSecret9Quiet"

// world is a server with something in it, and everybody who calls it.
type world struct {
	server *Server
	conn   *grpc.ClientConn
	http   *http.Client
	log    *lockedBuffer
	// tokens are the secrets of those who call: "admin", "operator", ….
	tokens map[string]string
	// etag is the current one of projects/default/credentials/bot.
	etag string
	// The tokens of lists, a watch and nothing else.
	pageOfCredentials, pageOfTokens, pageOfOther, pageOfVersions, pageOfFilter string
	resume                                                                     string
}

// lockedBuffer is where the server's log goes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld opens a server as the command does and fills it through the contract.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{log: &lockedBuffer{}, tokens: make(map[string]string)}
	var err error
	w.server, err = OpenServer(t.Context(), ServerConfig{
		Dir: Dir(t.TempDir()), Create: true, GRPCListen: "127.0.0.1:0", RESTListen: "127.0.0.1:0",
		Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ran := make(chan error, 1)
	go func() { ran <- w.server.Run(ctx) }()
	_, roots := w.server.Certificate()
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "localhost"}
	w.conn, err = grpc.NewClient(w.server.GRPCAddr(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config.Clone(), ExpectContinueTimeout: 10 * time.Second, DisableCompression: true}
	w.http = &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := w.conn.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
		stop()
		if err := <-ran; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	w.fill(t)
	return w
}

func (w *world) fill(t *testing.T) {
	t.Helper()
	// The first administrator's token is made as `credstore init` does.
	_, secret, err := w.server.Store().CreateToken(core.AsSystem(t.Context()), adminToken())
	if err != nil {
		t.Fatal(err)
	}
	w.tokens["admin"] = secret
	for _, p := range []string{"other", "empty"} {
		must(w.unary(t, "admin", &credstorev1.CreateProjectRequest{ProjectId: p}))(t)
	}
	create := func(parent, id string, p *credentialv1.Payload, labels map[string]string) {
		must(w.unary(t, "admin", &credstorev1.CreateCredentialRequest{
			Parent: parent, CredentialId: id, Credential: &credstorev1.Credential{Payload: p, Labels: labels},
		}))(t)
	}
	platform := map[string]string{"team": "platform"}
	create("projects/default", "bot", basic("bot", stored), platform)
	create("projects/default", "api", apiToken(stored), platform)
	create("projects/default", "vault-login", vaultToken(stored), nil)
	create("projects/default", "declared", basic("declared", stored), nil)
	create("projects/default", "spare", basic("spare", stored), nil)
	create("projects/other", "foreign", basic("foreign", stored), nil)
	create("projects/other", "foreign2", basic("foreign", stored), nil)
	// bot: 1 destroyed, 2 disabled, 3 enabled, 4 active.
	const bot = "projects/default/credentials/bot"
	for range 3 {
		must(w.unary(t, "admin", &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot, Payload: basic("bot", stored)},
		}))(t)
	}
	must(w.unary(t, "admin", &credstorev1.DestroyCredentialVersionRequest{Name: bot + "/versions/1"}))(t)
	must(w.unary(t, "admin", &credstorev1.DisableCredentialVersionRequest{Name: bot + "/versions/2"}))(t)
	must(w.unary(t, "admin", &credstorev1.DeclareUsageRequest{
		Parent: "projects/default/credentials/declared", UsageId: "billing", Usage: &credstorev1.Usage{User: "billing"},
	}))(t)
	must(w.unary(t, "admin", &credstorev1.CreateSecretStoreRequest{
		Parent: "projects/default", SecretStoreId: "team-vault", SecretStore: secretStore("https://vault.example.com"),
	}))(t)
	must(w.unary(t, "admin", &credstorev1.CreateInjectionRequest{
		Parent: "projects/default", InjectionId: "web", Injection: &credstorev1.Injection{
			Selector: map[string]string{"app": "web"}, Items: []*credstorev1.Item{fileItem("web/password")},
		},
	}))(t)
	must(w.unary(t, "admin", &credstorev1.CreateCredentialRequest{
		Parent: "projects/default", CredentialId: "asked", RequestId: "used-before",
		Credential: &credstorev1.Credential{Payload: basic("asked", stored)},
	}))(t)
	w.issueTokens(t)
	w.collectCursors(t)
}

func (w *world) issueTokens(t *testing.T) {
	t.Helper()
	for name, r := range map[string]core.CreateTokenRequest{
		"project-admin": {Role: core.Admin},
		"operator":      {Role: core.Operator},
		"reader":        {Role: core.Reader},
		"workload": {
			Role: core.Workload, Attributes: map[string]string{"app": "web"},
			Credentials: []resourcename.Credential{{Project: "default", ID: "bot"}},
		},
		"nameless": {Role: core.Workload},
		"revoked":  {Role: core.Reader},
		"expired":  {Role: core.Reader},
	} {
		r.Name = resourcename.Token{Project: core.DefaultProject, ID: name}
		for life := 200 * time.Millisecond; ; life *= 2 {
			if name == "expired" {
				r.ExpireTime = time.Now().Add(life)
			}
			_, secret, err := w.server.Store().CreateToken(core.AsSystem(t.Context()), r)
			if _, late := errors.AsType[*core.InvalidError](err); late && name == "expired" && life < time.Minute {
				continue // its end had passed before it was looked at
			}
			if err != nil {
				t.Fatal(err)
			}
			w.tokens[name] = secret
			break
		}
		if !r.ExpireTime.IsZero() {
			<-time.After(time.Until(r.ExpireTime))
		}
	}
	must(w.unary(t, "admin", &credstorev1.DeleteTokenRequest{Name: "projects/default/tokens/revoked"}))(t)
	w.tokens["unknown"] = w.tokens["revoked"][:len(w.tokens["revoked"])-4] + "AAAA"
}

func (w *world) collectCursors(t *testing.T) {
	t.Helper()
	page := func(r interface{ GetPageSize() int32 }) string {
		return must(w.unary(t, "admin", r))(t).(interface{ GetNextPageToken() string }).GetNextPageToken()
	}
	w.pageOfCredentials = page(&credstorev1.ListCredentialsRequest{Parent: "projects/default", PageSize: 1})
	w.pageOfFilter = page(&credstorev1.ListCredentialsRequest{Parent: "projects/default", PageSize: 1, Filter: "labels.team = platform"})
	w.pageOfOther = page(&credstorev1.ListCredentialsRequest{Parent: "projects/other", PageSize: 1})
	w.pageOfTokens = page(&credstorev1.ListTokensRequest{Parent: "projects/default", PageSize: 1})
	w.pageOfVersions = page(&credstorev1.ListCredentialVersionsRequest{Parent: "projects/default/credentials/bot", PageSize: 1})
	got, ok := must(w.unary(t, "admin", &credstorev1.GetCredentialRequest{Name: "projects/default/credentials/bot"}))(t).(*credstorev1.Credential)
	if !ok {
		t.Fatal("GetCredential answers something else")
	}
	w.etag = got.GetEtag()

	ctx, cancel := context.WithCancel(w.as(t.Context(), "admin"))
	defer cancel()
	stream, err := credstorev1.NewCredentialServiceClient(w.conn).Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default"})
	if err != nil {
		t.Fatal(err)
	}
	for w.resume == "" {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		w.resume = m.GetResumeToken()
	}
	for name, token := range map[string]string{
		"credentials": w.pageOfCredentials, "filter": w.pageOfFilter, "other": w.pageOfOther,
		"tokens": w.pageOfTokens, "versions": w.pageOfVersions, "etag": w.etag,
	} {
		if token == "" {
			t.Fatalf("there is no token: %s", name)
		}
	}
}

// revision is that of the last commit, from the storage itself.
func (w *world) revision(t *testing.T) core.Revision {
	t.Helper()
	info, err := w.server.state.storage.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.Revision
}

// quiet fails when a secret of a bad request reached the log, the audit log, or
// the database, sealed or not.
func (w *world) quiet(t *testing.T) {
	t.Helper()
	texts := map[string]string{"log": w.log.String()}
	entries, err := os.ReadDir(string(w.server.cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(w.server.cfg.Dir.join(e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		texts[e.Name()] = string(b)
	}
	if len(texts["log"]) == 0 || len(texts["audit.jsonl"]) == 0 {
		t.Error("there is no log to look at")
	}
	for name, text := range texts {
		for _, secret := range append(spellings(canary), spellings(stored)...) {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds a secret", name)
			}
		}
	}
}

// The parts of requests.

func apiToken(token string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: token}}}
}

func opaque(data map[string][]byte) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Opaque{Opaque: &credentialv1.Opaque{Data: data}}}
}

func vaultToken(token string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{Method: &credentialv1.Vault_Token{Token: token}}}}
}

func appRole(role, secret, mount string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{Method: &credentialv1.Vault_AppRole_{
		AppRole: &credentialv1.Vault_AppRole{RoleId: role, SecretId: secret, Mount: mount},
	}}}}
}

func secretStore(address string) *credstorev1.SecretStore {
	return &credstorev1.SecretStore{
		Credential:   "projects/default/credentials/vault-login",
		Provider:     &credstorev1.SecretStore_Vault{Vault: &credstorev1.VaultProvider{Address: address}},
		PollInterval: durationpb.New(time.Hour),
	}
}

// fileItem delivers bot's password to a path.
func fileItem(path string) *credstorev1.Item {
	return &credstorev1.Item{
		Source: &credstorev1.Item_Credential{Credential: &credstorev1.CredentialSource{Name: "projects/default/credentials/bot", Field: "password"}},
		Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: path}},
	}
}

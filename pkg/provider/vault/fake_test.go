package vault

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// fake is a Vault as far as the package needs one, written from the reference of
// its HTTP interface and compared with the real one by the conformance tests. It
// checks namespace, method, headers and tokens, and fails the test on a request
// that a client has no reason to make.
type fake struct {
	t         *testing.T
	server    *httptest.Server
	namespace string
	mount     string

	mu       sync.Mutex
	secrets  map[string][]fakeVersion
	roles    map[string]string // role id to secret id
	tokens   map[string]*fakeToken
	next     int
	requests []string
	// ttl and renewed are what a login and a renewal grant.
	ttl, renewed time.Duration
	renewable    bool
	// methods are further logins, by what follows "auth/" in their path.
	methods map[string]method
	// override answers instead, when it returns true.
	override func(w http.ResponseWriter, r *http.Request) bool
}

// method checks a login's body. It returns what Vault then knows of the token,
// or what it complains about.
type method func(r *http.Request, body map[string]any) (display string, meta map[string]any, complaint string)

type fakeVersion struct {
	values             map[string]any
	deleted, destroyed bool
}

type fakeToken struct {
	ttl       time.Duration
	renewable bool
	role      string
	noLookup  bool // its policies do not include lookup-self
	denied    string
	display   string
	meta      map[string]any
}

const (
	roleID    = "role-id-4b1f"
	secretID  = "secret-id-canary-91c7"
	userToken = "user-token-canary-5e02"
)

func newFake(t *testing.T) *fake {
	f := &fake{
		t: t, mount: "secret", secrets: map[string][]fakeVersion{}, methods: map[string]method{},
		roles:  map[string]string{roleID: secretID},
		tokens: map[string]*fakeToken{userToken: {}},
		ttl:    time.Hour, renewed: time.Hour, renewable: true,
	}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) put(path string, values map[string]any) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[path] = append(f.secrets[path], fakeVersion{values: maps.Clone(values)})
	return uint32(len(f.secrets[path]))
}

func (f *fake) change(path string, n uint32, change func(*fakeVersion)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.secrets[path][n-1])
}

// endLogins ends the tokens that logins were given.
func (f *fake) endLogins() {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.tokens, func(_ string, tok *fakeToken) bool { return tok.role != "" })
}

// seen returns how often a request was made, "METHOD PATH".
func (f *fake) seen(request string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if r == request {
			n++
		}
	}
	return n
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, texts ...string) {
	answer(w, status, map[string]any{"errors": slices.Concat([]string{}, texts)})
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	if f.override != nil && f.override(w, r) {
		return
	}
	if got := r.Header.Get("X-Vault-Request"); got != "true" {
		f.t.Errorf("%s %s: X-Vault-Request is %q", r.Method, r.URL.Path, got)
	}
	if got := r.Header.Get("X-Vault-Namespace"); got != f.namespace {
		f.t.Errorf("%s %s: namespace is %q, want %q", r.Method, r.URL.Path, got, f.namespace)
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok {
		f.t.Errorf("path %q", r.URL.Path)
	}
	if m := f.methods[strings.TrimPrefix(path, "auth/")]; m != nil {
		f.serveMethod(w, r, m)
		return
	}
	if mount, ok := strings.CutSuffix(path, "/login"); ok && strings.HasPrefix(mount, "auth/") {
		f.serveLogin(w, r, strings.TrimPrefix(mount, "auth/"))
		return
	}
	token := r.Header.Get("X-Vault-Token")
	known := f.tokens[token]
	if known == nil {
		refuse(w, 403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
		return
	}
	name, isData := strings.CutPrefix(path, f.mount+"/data/")
	switch {
	case isData && r.Method == http.MethodGet:
		if known.denied == name {
			refuse(w, 403, "1 error occurred:\n\t* permission denied\n\n")
			return
		}
		f.serveData(w, r, name)
	case path == "auth/token/lookup-self" && r.Method == http.MethodGet:
		if known.noLookup {
			refuse(w, 403, "1 error occurred:\n\t* permission denied\n\n")
			return
		}
		display, meta := "token-ci", map[string]any(nil)
		switch {
		case known.display != "":
			display, meta = known.display, known.meta
		case known.role != "":
			display, meta = "approle", map[string]any{"role_name": known.role}
		}
		answer(w, 200, map[string]any{"data": map[string]any{
			"id": token, "display_name": display, "entity_id": "entity-1", "meta": meta,
			"ttl": int(known.ttl.Seconds()), "renewable": known.renewable,
			"policies": []string{"default", "app"}, "identity_policies": []string{"app", "team"},
		}})
	case path == "sys/internal/ui/mounts" && r.Method == http.MethodGet:
		// Needs no policy, only a token that is valid.
		answer(w, 200, map[string]any{"data": map[string]any{"auth": map[string]any{}, "secret": map[string]any{}}})
	case path == "auth/token/renew-self" && r.Method == http.MethodPut:
		if !known.renewable {
			refuse(w, 400, "lease is not renewable")
			return
		}
		answer(w, 200, map[string]any{"auth": map[string]any{
			"client_token": token, "lease_duration": int(f.renewed.Seconds()), "renewable": true,
		}})
	case path == "auth/token/revoke-self" && r.Method == http.MethodPut:
		delete(f.tokens, token)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet && strings.Contains(path, "/data/"):
		refuse(w, 404, fmt.Sprintf("no handler for route %q. route entry not found.", path))
	default:
		f.t.Errorf("unexpected request %s %s", r.Method, r.URL.Path)
		refuse(w, 405, "unsupported operation")
	}
}

// serveMethod serves a login of f.methods.
func (f *fake) serveMethod(w http.ResponseWriter, r *http.Request, check method) {
	if token := r.Header.Get("X-Vault-Token"); token != "" {
		f.t.Errorf("login with a token")
	}
	if r.Method != http.MethodPut {
		f.t.Errorf("login by %s", r.Method)
	}
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Errorf("login: %v", err)
	}
	display, meta, complaint := check(r, body)
	if complaint != "" {
		refuse(w, 400, complaint)
		return
	}
	f.next++
	token := "hvs.login-token-canary-" + strconv.Itoa(f.next)
	f.tokens[token] = &fakeToken{ttl: f.ttl, renewable: f.renewable, role: "of a method", display: display, meta: meta}
	answer(w, 200, map[string]any{"auth": map[string]any{
		"client_token": token, "lease_duration": int(f.ttl.Seconds()), "renewable": f.renewable, "metadata": meta,
	}})
}

func (f *fake) serveLogin(w http.ResponseWriter, r *http.Request, mount string) {
	if token := r.Header.Get("X-Vault-Token"); token != "" {
		f.t.Errorf("login with a token")
	}
	if r.Method != http.MethodPut {
		f.t.Errorf("login by %s", r.Method)
	}
	if mount != "approle" && mount != "team/approle" {
		refuse(w, 403, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	var body map[string]string
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Errorf("login: %v", err)
	}
	want, known := f.roles[body["role_id"]]
	if got, sent := body["secret_id"]; !known || got != want || sent != (want != "") {
		refuse(w, 400, "invalid role or secret ID")
		return
	}
	f.next++
	token := "hvs.login-token-canary-" + strconv.Itoa(f.next)
	f.tokens[token] = &fakeToken{ttl: f.ttl, renewable: f.renewable, role: "web"}
	answer(w, 200, map[string]any{"auth": map[string]any{
		"client_token": token, "lease_duration": int(f.ttl.Seconds()), "renewable": f.renewable,
		"metadata": map[string]any{"role_name": "web"},
	}})
}

func (f *fake) serveData(w http.ResponseWriter, r *http.Request, name string) {
	versions := f.secrets[name]
	n := len(versions)
	if q := r.URL.Query().Get("version"); q != "" {
		n, _ = strconv.Atoi(q)
	}
	if n == 0 || n > len(versions) {
		refuse(w, 404)
		return
	}
	v := versions[n-1]
	meta := map[string]any{"version": n, "created_time": "2026-01-02T03:04:05Z", "deletion_time": "", "destroyed": v.destroyed}
	body := map[string]any{"data": map[string]any{"data": v.values, "metadata": meta}}
	if v.deleted {
		meta["deletion_time"] = "2026-01-02T03:05:05Z"
	}
	if v.deleted || v.destroyed {
		body["data"] = map[string]any{"data": nil, "metadata": meta}
		answer(w, 404, body)
		return
	}
	answer(w, 200, body)
}

func tokenLogin(t *testing.T, token string) credential.Login {
	t.Helper()
	return login(t, &credentialv1.Vault{Method: &credentialv1.Vault_Token{Token: token}})
}

func appRoleLogin(t *testing.T, role, secret, mount string) credential.Login {
	t.Helper()
	return login(t, &credentialv1.Vault{Method: &credentialv1.Vault_AppRole_{
		AppRole: &credentialv1.Vault_AppRole{RoleId: role, SecretId: secret, Mount: mount},
	}})
}

func login(t *testing.T, v *credentialv1.Vault) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: v}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/p/credentials/vault", ID: "uid/1", Payload: p}
}

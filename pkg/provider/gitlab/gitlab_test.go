package gitlab

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

const (
	goodToken   = "glpat-good-token-canary"
	readToken   = "glpat-repository-token-canary"
	endedToken  = "glpat-ended-token-canary"
	goodDeploy  = "gldt-good-token-canary"
	otherDeploy = "gldt-repository-token-canary"
	deployUser  = "gitlab+deploy-token-1"
)

// fake is a GitLab server below /gitlab, written from its reference and the
// source of its JwtController.
type fake struct {
	*httptest.Server
	t     *testing.T
	calls atomic.Int32
	// old makes it one before 15.5, noRegistry one without a container registry.
	old, noRegistry bool
	fail            func(w http.ResponseWriter, r *http.Request) bool
	key             ed25519.PrivateKey
}

func newFake(t *testing.T) *fake {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /gitlab/api/v4/personal_access_tokens/self", f.self)
	mux.HandleFunc("GET /gitlab/api/v4/user", f.user)
	mux.HandleFunc("GET /gitlab/jwt/auth", f.jwt)
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		if f.fail == nil || !f.fail(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func writeJSON(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// scopes authenticates a request to the API; nil when it has answered.
func (f *fake) scopes(w http.ResponseWriter, r *http.Request) []string {
	if r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" {
		f.t.Errorf("the API was asked with a query or another login")
	}
	switch r.Header.Get("PRIVATE-TOKEN") {
	case goodToken:
		return []string{"api", "read_user"}
	case readToken:
		return []string{"read_repository"}
	case endedToken:
		writeJSON(w, http.StatusUnauthorized, map[string]any{
			"error": "invalid_token", "error_description": "Token is expired. You can either do re-authorization or token refresh. " + endedToken,
		})
	default:
		writeJSON(w, http.StatusUnauthorized, map[string]any{"message": "401 Unauthorized"})
	}
	return nil
}

func (f *fake) self(w http.ResponseWriter, r *http.Request) {
	if f.old {
		writeJSON(w, http.StatusNotFound, map[string]any{"error": "404 Not Found"})
		return
	}
	if scopes := f.scopes(w, r); scopes != nil {
		writeJSON(w, http.StatusOK, map[string]any{
			"id": 4, "name": "Test Token", "revoked": false, "created_at": "2020-07-23T14:31:47.729Z", "scopes": scopes,
			"user_id": 24, "last_used_at": nil, "active": true, "expires_at": "2030-01-01",
		})
	}
}

func (f *fake) user(w http.ResponseWriter, r *http.Request) {
	scopes := f.scopes(w, r)
	switch {
	case scopes == nil:
	case slices.Contains(scopes, "read_user"):
		writeJSON(w, http.StatusOK, map[string]any{"id": 24, "username": "john_smith"})
	default:
		writeJSON(w, http.StatusForbidden, map[string]any{"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token.", "scope": "api read_user"})
	}
}

func (f *fake) jwt(w http.ResponseWriter, r *http.Request) {
	name, token, ok := r.BasicAuth()
	if r.URL.Query().Get("service") != "container_registry" || r.Header.Get("PRIVATE-TOKEN") != "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	denied := map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": "access forbidden"}}}
	known := name == deployUser && (token == goodDeploy || token == otherDeploy)
	switch {
	case ok && !known:
		writeJSON(w, http.StatusUnauthorized, map[string]any{"errors": []map[string]string{{"code": "UNAUTHORIZED", "message": "HTTP Basic: Access denied " + token}}})
	case f.noRegistry:
		writeJSON(w, http.StatusNotFound, map[string]any{"errors": []map[string]string{{"code": "UNAVAILABLE", "message": "registry not enabled"}}})
	case !ok || token != goodDeploy:
		writeJSON(w, http.StatusForbidden, denied)
	default:
		signed, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"aud": "container_registry", "sub": name, "exp": time.Now().Add(time.Minute).Unix()}).SignedString(f.key)
		if err != nil {
			f.t.Error(err)
		}
		writeJSON(w, http.StatusOK, map[string]any{"token": signed})
	}
}

func (f *fake) client() *Gitlab {
	return New(Config{Egress: loopback, CAPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}))})
}

func (f *fake) login(t *testing.T, token, username string) credential.Login {
	t.Helper()
	return loginOf(t, &credentialv1.GitlabToken{Token: token, Username: username, Url: f.URL + "/gitlab"})
}

func loginOf(t *testing.T, m *credentialv1.GitlabToken) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_GitlabToken{GitlabToken: m}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/gitlab", ID: "1", Payload: p}
}

func TestVendor(t *testing.T) {
	for _, test := range []struct{ name, good, wrong, username, identity string }{
		{"AccessToken", goodToken, "glpat-wr0ng-canary", "", "john_smith"},
		{"AccessTokenWithoutTheApi", readToken, endedToken, "", "user 24"},
		{"DeployToken", goodDeploy, "gldt-wr0ng-canary", deployUser, deployUser},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: f.client(), Good: f.login(t, test.good, test.username), Identity: test.identity, Wrong: f.login(t, test.wrong, test.username),
				Calls: func() int { return int(f.calls.Load()) },
				Stop: func(*testing.T) func() {
					f.fail = func(w http.ResponseWriter, _ *http.Request) bool {
						w.WriteHeader(http.StatusBadGateway)
						return true
					}
					return func() { f.fail = nil }
				},
				Secrets: []string{goodToken, readToken, endedToken, goodDeploy, "glpat-wr0ng-canary", "gldt-wr0ng-canary"},
			})
		})
	}
}

func TestIdentity(t *testing.T) {
	f := newFake(t)
	for _, test := range []struct {
		name, token, username string
		old                   bool
		want                  credential.Identity
		calls                 int32
	}{
		{"access token", goodToken, "", false, credential.Identity{Name: "john_smith", Facts: map[string]string{
			"tokenName": "Test Token", "scopes": "api, read_user", "expiresAt": "2030-01-01",
		}}, 2},
		{"for repositories only", readToken, "", false, credential.Identity{Name: "user 24", Facts: map[string]string{
			"tokenName": "Test Token", "scopes": "read_repository", "expiresAt": "2030-01-01",
		}}, 1},
		{"old server", goodToken, "", true, credential.Identity{Name: "john_smith"}, 2},
		{"deploy token", goodDeploy, deployUser, false, credential.Identity{Name: deployUser}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.old = test.old
			before := f.calls.Load()
			got, err := f.client().Verify(t.Context(), f.login(t, test.token, test.username))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if n := f.calls.Load() - before; n != test.calls {
				t.Errorf("%d requests, want %d", n, test.calls)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	answer := func(status int, body string) func(*fake) {
		return func(f *fake) {
			f.fail = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Retry-After", "9")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
				return true
			}
		}
	}
	old := func(f *fake) { f.old = true }
	for _, test := range []struct {
		name, token, username string
		set                   func(*fake)
		kind                  error
		text                  string
	}{
		{"wrong", "glpat-x", "", nil, provider.ErrRefused, "verify: refused: 401 401 Unauthorized"},
		{"ended", endedToken, "", nil, provider.ErrRefused, "verify: refused: 401 invalid_token: Token is expired. You can either do re-authorization or token refresh. (redacted)"},
		{"revoked", goodToken, "", answer(http.StatusOK, `{"id":4,"user_id":24,"revoked":true,"active":false}`), provider.ErrRefused, "verify: refused: 200 GitLab knows the token, and says that it is revoked or has expired"},
		{"blocked", goodToken, "", answer(http.StatusForbidden, `{"message":"403 Forbidden - Your account has been blocked."}`), provider.ErrRefused, "verify: refused: 403 403 Forbidden - Your account has been blocked."},
		{"old server, wrong", "glpat-x", "", old, provider.ErrRefused, "verify: refused: 401 401 Unauthorized"},
		{"old server, no scope", readToken, "", old, provider.ErrUnsupported, "verify: not supported: 403 the server is older than GitLab 15.5, and the token has none of the scopes that it could be asked with: api, read_api, read_user"},
		{"another server", goodToken, "", answer(http.StatusOK, "<html>"), provider.ErrUnavailable, "verify: store unavailable: 200 what answers there is not GitLab"},
		{"another server, JSON", goodToken, "", answer(http.StatusOK, "{}"), provider.ErrUnavailable, "verify: store unavailable: 200 what answers there is not GitLab"},
		{"nothing there", goodToken, "", answer(http.StatusNotFound, ""), provider.ErrUnavailable, "verify: store unavailable: 404 what answers there is not GitLab"},
		{"redirect", goodToken, "", answer(http.StatusFound, ""), provider.ErrUnavailable, "verify: store unavailable: 302 the server redirects elsewhere, which is not followed: is its address another, or does it ask for another login first?"},
		{"too many", goodToken, "", answer(http.StatusTooManyRequests, `{"message":{"error":"Too many requests"}}`), provider.ErrUnavailable, "verify: store unavailable: 429 too many requests"},
		{"deploy token, wrong", "gldt-wr0ng", deployUser, nil, provider.ErrRefused, "verify: refused: 401 HTTP Basic: Access denied (redacted)"},
		{"deploy token, wrong user", goodDeploy, "gitlab+deploy-token-2", nil, provider.ErrRefused, "verify: refused: 401 HTTP Basic: Access denied (redacted)"},
		{"deploy token for repositories only", otherDeploy, deployUser, nil, provider.ErrUnsupported, "verify: not supported: 403 only the container registry could prove a deploy token, and this one has neither read_registry nor write_registry there"},
		{"deploy token without a registry", goodDeploy, deployUser, func(f *fake) { f.noRegistry = true }, provider.ErrUnsupported, "verify: not supported: 404 only the container registry could prove a deploy token, and the server has none"},
		{"deploy token, another server", goodDeploy, deployUser, answer(http.StatusOK, "{}"), provider.ErrUnavailable, "verify: store unavailable: 200 what answers there is not GitLab"},
		{"trigger token", "glptt-x", "", nil, provider.ErrUnsupported, "verify: not supported: GitLab has no call that proves a token of type pipelineTriggerToken without using it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			if test.set != nil {
				test.set(f)
			}
			_, err := f.client().Verify(t.Context(), f.login(t, test.token, test.username))
			if !errors.Is(err, test.kind) || err.Error() != test.text {
				t.Errorf("error is %v; want %q", err, test.text)
			}
			if e, ok := errors.AsType[*provider.Error](err); !ok || e.Status == http.StatusTooManyRequests && e.RetryAfter != 9*time.Second {
				t.Errorf("error is %#v", err)
			}
		})
	}
}

// The token is proved by the first answer, whatever comes of the user's name.
func TestNameIsExtra(t *testing.T) {
	f := newFake(t)
	f.fail = func(w http.ResponseWriter, _ *http.Request) bool {
		if f.calls.Load() == 1 {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
	got, err := f.client().Verify(t.Context(), f.login(t, goodToken, ""))
	if err != nil || got.Name != "user 24" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	f := newFake(t)
	_, err := New(Config{}).Verify(t.Context(), f.login(t, goodToken, ""))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("error is %v", err)
	}
	if f.calls.Load() != 0 {
		t.Error("it was connected to")
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.fail = func(_ http.ResponseWriter, r *http.Request) bool {
		cancel()
		<-r.Context().Done()
		return true
	}
	if _, err := f.client().Verify(ctx, f.login(t, goodToken, "")); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestOtherKind(t *testing.T) {
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "a", Password: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{}).Verify(t.Context(), credential.Login{Payload: p}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
}

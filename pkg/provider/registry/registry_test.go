package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestVendor(t *testing.T) {
	r := New(Config{Egress: loopback})
	for _, test := range []struct {
		name, auth string
		good       func(*fake) credential.Login
		wrong      func(*fake) credential.Login
		identity   string
	}{
		{
			"Bearer", "bearer",
			func(f *fake) credential.Login { return f.byPassword(t, user, password) },
			func(f *fake) credential.Login { return f.byPassword(t, user, "wr0ng-canary") }, user,
		},
		{
			"Basic", "basic",
			func(f *fake) credential.Login { return f.byPassword(t, user, password) },
			func(f *fake) credential.Login { return f.byPassword(t, "nobody", password) }, user,
		},
		{
			"IdentityToken", "bearer",
			func(f *fake) credential.Login { return f.byToken(t, refresh) },
			func(f *fake) credential.Login { return f.byToken(t, "wr0ng-canary") }, "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			f.auth = test.auth
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: r, Minter: r, Good: test.good(f), Wrong: test.wrong(f), Identity: test.identity,
				Requests: []*credentialv1.TokenRequest{nil, {Kind: &credentialv1.TokenRequest_RegistryLogin_{
					RegistryLogin: &credentialv1.TokenRequest_RegistryLogin{Server: "https://" + f.host() + "/v2/"},
				}}},
				Calls: func() int { return int(f.calls.Load()) },
				Stop: func(*testing.T) func() {
					f.fail = func(w http.ResponseWriter, _ *http.Request) bool {
						w.WriteHeader(http.StatusServiceUnavailable)
						return true
					}
					return func() { f.fail = nil }
				},
				Secrets: []string{password, refresh, "wr0ng-canary"},
			})
		})
	}
}

func TestVerifyAnswers(t *testing.T) {
	answer := func(path string, status int, body string) func(*fake) {
		return func(f *fake) {
			f.fail = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != path {
					return false
				}
				w.Header().Set("Retry-After", "7")
				w.Header().Set("Location", "https://elsewhere.example.com/")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
				return true
			}
		}
	}
	for _, test := range []struct {
		name  string
		set   func(*fake)
		token bool // log in by identity token
		kind  error
		text  string
	}{
		{"anonymous", func(f *fake) { f.auth = "none" }, false, provider.ErrUnsupported, "verify: not supported: 200 the registry lets anybody in without a login: that it accepts this one would prove nothing"},
		{"accepts any password", func(f *fake) { f.auth, f.any = "basic", true }, false, provider.ErrUnsupported, "verify: not supported: the registry accepts a login that was made up at random too: that it accepts this one proves nothing"},
		{"gives tokens to anybody", func(f *fake) { f.any = true }, false, provider.ErrUnsupported, "verify: not supported: the registry accepts a login that was made up at random too: that it accepts this one proves nothing"},
		{"takes any refresh token", func(f *fake) { f.any = true }, true, provider.ErrUnsupported, "verify: not supported: the registry accepts a login that was made up at random too: that it accepts this one proves nothing"},
		{"identity token without a token server", func(f *fake) { f.auth = "basic" }, true, provider.ErrUnsupported, "verify: not supported: the registry asks for a password and has no token server, where an identity token could be used"},
		{"identity token without OAuth 2", func(f *fake) { f.noRefresh = true }, true, provider.ErrUnsupported, "token: not supported: 404 the token server takes no refresh tokens: store a user name and a password"},
		{"another authentication", func(f *fake) { f.auth = "negotiate" }, false, provider.ErrUnsupported, "verify: not supported: the registry offers neither Bearer nor Basic authentication"},
		{"no registry", answer("/v2/", http.StatusNotFound, "<html>"), false, provider.ErrUnavailable, "verify: store unavailable: 404 no registry of the distribution API answers here"},
		{"redirect", answer("/v2/", http.StatusMovedPermanently, ""), false, provider.ErrUnavailable, "verify: store unavailable: 301 it redirects elsewhere, which is not followed; no registry of the distribution API answers here"},
		{"rate limit", answer("/v2/", http.StatusTooManyRequests, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`), false, provider.ErrUnavailable, "verify: store unavailable: 429 toomanyrequests: slow down"},
		{"token server is down", answer("/token", http.StatusBadGateway, "<html>"), false, provider.ErrUnavailable, "token: store unavailable: 502 bad gateway"},
		{"token server says why", answer("/token", http.StatusForbidden, `{"error":"access_denied","error_description":"account `+password+` is locked"}`), false, provider.ErrRefused, "token: refused: 403 access_denied: account (redacted) is locked"},
		{"token server is none", answer("/token", http.StatusOK, "<html>"), false, provider.ErrUnavailable, "token: store unavailable: 200 it is no JSON"},
		{"token server gives no token", answer("/token", http.StatusOK, `{"token":"a\nb"}`), false, provider.ErrUnavailable, "token: store unavailable: 200 it holds no token"},
		{"token that the registry does not know", func(f *fake) { f.badKey = true }, false, provider.ErrRefused, "verify: refused: 401 unauthorized: authentication required"},
		{"token that has ended", func(f *fake) { f.lifetime = -time.Minute }, false, provider.ErrRefused, "verify: refused: 401 unauthorized: authentication required"},
		{"no realm", func(f *fake) { f.realm = " " }, false, provider.ErrRefused, "token: refused: the registry names a token server by what is no proper URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			test.set(f)
			login := f.byPassword(t, user, password)
			if test.token {
				login = f.byToken(t, refresh)
			}
			_, err := New(Config{Egress: loopback}).Verify(t.Context(), login)
			if !errors.Is(err, test.kind) || err.Error() != test.text {
				t.Errorf("error is %v; want %q", err, test.text)
			}
			if e, ok := errors.AsType[*provider.Error](err); !ok || e.Status == http.StatusTooManyRequests && e.RetryAfter != 7*time.Second {
				t.Errorf("error is %#v", err)
			}
		})
	}
}

// The realm is where the password would go, and the registry names it.
func TestPasswordGoesToNoForeignTokenServer(t *testing.T) {
	var got []string
	foreign := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization")+r.URL.RawQuery)
	}))
	defer foreign.Close()
	f := newFake(t)
	f.realm = foreign.URL + "/token"
	_, err := New(Config{Egress: loopback}).Verify(t.Context(), f.byPassword(t, user, password))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "not known to belong to it") {
		t.Errorf("error is %v", err)
	}
	if got != nil {
		t.Errorf("the foreign token server was asked: %q", got)
	}
}

func TestConfiguredTokenServer(t *testing.T) {
	tokens := newFake(t)
	f := newFake(t)
	f.key, f.realm = tokens.key, tokens.URL+"/token"
	// Both have the certificate of package httptest.
	login := f.byPassword(t, user, password)
	if _, err := New(Config{Egress: loopback}).Verify(t.Context(), login); !errors.Is(err, provider.ErrRefused) {
		t.Errorf("without configuration: %v", err)
	}
	before := tokens.calls.Load()
	if _, err := New(Config{Egress: loopback, TokenHosts: map[string][]string{f.host(): {tokens.host()}}}).Verify(t.Context(), login); err != nil {
		t.Errorf("with configuration: %v", err)
	}
	if tokens.calls.Load() == before {
		t.Error("the token server was not asked")
	}
}

func TestDockerHub(t *testing.T) {
	f := newFake(t)
	r := New(Config{Egress: loopback, Hub: f.URL})
	login := loginOf(t, &credentialv1.DockerRegistry{Server: "https://index.docker.io/v1/", Username: user, Password: password, CaPem: f.caPEM()})
	got, err := r.Verify(t.Context(), login)
	if err != nil || got.Name != user {
		t.Errorf("Verify: %v, %v", got, err)
	}
	// It counts failed logins, and is known to refuse them: no third party is
	// made up. Two requests to the registry, one to its token server.
	if n := f.calls.Load(); n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	f := newFake(t)
	_, err := New(Config{}).Verify(t.Context(), f.byPassword(t, user, password))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("error is %v", err)
	}
	if f.calls.Load() != 0 {
		t.Error("it was connected to")
	}
}

func TestUnknownAuthority(t *testing.T) {
	f := newFake(t)
	f.Config.ErrorLog = nil
	login := loginOf(t, &credentialv1.DockerRegistry{Server: f.host(), Username: user, Password: password})
	_, err := New(Config{Egress: loopback}).Verify(t.Context(), login)
	if !errors.Is(err, provider.ErrUnavailable) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("error is %v", err)
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
	if _, err := New(Config{Egress: loopback}).Verify(ctx, f.byPassword(t, user, password)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestOtherKind(t *testing.T) {
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "a", Password: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{})
	if _, err := r.Verify(t.Context(), credential.Login{Payload: p}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("Verify: %v", err)
	}
	if _, err := r.Mint(t.Context(), credential.Login{Payload: p}, credential.TokenRequest{}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("Mint: %v", err)
	}
}

func TestMint(t *testing.T) {
	r := New(Config{})
	for _, test := range []struct {
		name   string
		stored *credentialv1.DockerRegistry
		want   *credentialv1.Token_RegistryAuth
	}{
		{
			"password", &credentialv1.DockerRegistry{Server: "registry.example.com:5000", Username: "bot", Password: "a<b>&c"},
			&credentialv1.Token_RegistryAuth{
				Server: "registry.example.com:5000", Username: "bot", Password: "a<b>&c",
				DockerConfig: `{"auths":{"registry.example.com:5000":{"auth":"Ym90OmE8Yj4mYw=="}}}`,
			},
		},
		{
			"Docker Hub", &credentialv1.DockerRegistry{Server: "docker.io", Username: "bot", Password: "x"},
			&credentialv1.Token_RegistryAuth{
				Server: "docker.io", Username: "bot", Password: "x",
				DockerConfig: `{"auths":{"https://index.docker.io/v1/":{"auth":"Ym90Ong="}}}`,
			},
		},
		{
			"identity token", &credentialv1.DockerRegistry{Server: "team.azurecr.io", Username: "00000000-0000-0000-0000-000000000000", IdentityToken: "r.t"},
			&credentialv1.Token_RegistryAuth{
				Server: "team.azurecr.io", Username: "<token>", Password: "r.t",
				DockerConfig: `{"auths":{"team.azurecr.io":{"auth":"MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==","identitytoken":"r.t"}}}`,
			},
		},
		{
			"identity token alone", &credentialv1.DockerRegistry{Server: "team.azurecr.io", IdentityToken: "r.t"},
			&credentialv1.Token_RegistryAuth{
				Server: "team.azurecr.io", Username: "<token>", Password: "r.t",
				DockerConfig: `{"auths":{"team.azurecr.io":{"identitytoken":"r.t"}}}`,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			login := loginOf(t, test.stored)
			request, err := credential.NewTokenRequest("dockerRegistry", nil)
			if err != nil {
				t.Fatal(err)
			}
			token, err := r.Mint(t.Context(), login, request)
			if err != nil {
				t.Fatal(err)
			}
			got := token.Message().GetRegistry()
			for _, f := range []struct{ name, got, want string }{
				{"server", got.GetServer(), test.want.GetServer()},
				{"username", got.GetUsername(), test.want.GetUsername()},
				{"password", got.GetPassword(), test.want.GetPassword()},
				{"dockerConfig", got.GetDockerConfig(), test.want.GetDockerConfig()},
			} {
				if f.got != f.want {
					t.Errorf("%s is %s, want %s", f.name, f.got, f.want)
				}
			}
			if _, expires := token.ExpireTime(); expires {
				t.Error("it ends, though nobody said when")
			}
			testConfigIsReadAgain(t, login, got.GetDockerConfig())
		})
	}
}

// What is handed out is what was pasted, as far as docker is concerned.
func testConfigIsReadAgain(t *testing.T, login credential.Login, config string) {
	t.Helper()
	again := loginOf(t, &credentialv1.DockerRegistry{Document: config})
	if diff := cmp.Diff(login.Payload.Message().GetDockerRegistry().String(), again.Payload.Message().GetDockerRegistry().String()); diff != "" {
		t.Errorf("(-stored +read again)\n%s", diff)
	}
	if !again.Payload.Equal(login.Payload) {
		t.Error("the docker configuration is another login")
	}
	if !json.Valid([]byte(config)) {
		t.Error("it is no JSON")
	}
}

func TestMintForAnotherServer(t *testing.T) {
	request, err := credential.NewTokenRequest("dockerRegistry", &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_RegistryLogin_{
		RegistryLogin: &credentialv1.TokenRequest_RegistryLogin{Server: "ghcr.io"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	login := loginOf(t, &credentialv1.DockerRegistry{Server: "registry.example.com", Username: "bot", Password: "x"})
	token, err := New(Config{}).Mint(t.Context(), login, request)
	if !errors.Is(err, provider.ErrUnsupported) || !token.IsZero() ||
		err.Error() != "mint: not supported: the stored login is for registry.example.com, not for the server that was asked for" {
		t.Errorf("%v, %v", token, err)
	}
}

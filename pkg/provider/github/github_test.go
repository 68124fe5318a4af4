package github_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/github"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const clientID = "Iv23liAbCdEf0123Gh45"

// appKey and otherKey are made once: that takes long.
var (
	appKey   = sync.OnceValue(newKey)
	otherKey = sync.OnceValue(newKey)
)

func newKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

func pemOf(key *rsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// install adds an App, with the installations.
func install(f *fake, installations map[int64]*fakeInstallation) *fakeApp {
	a := &fakeApp{
		id: 123456, slug: "acme-deployer", keys: []*rsa.PublicKey{&appKey().PublicKey},
		permissions: map[string]string{"contents": "read", "metadata": "read", "deployments": "write"}, installations: installations,
	}
	f.apps["123456"], f.apps[clientID] = a, a
	return a
}

func one() map[int64]*fakeInstallation {
	return map[int64]*fakeInstallation{765: {account: "acme", repositories: []string{"web", "api"}}}
}

func config(f *fake) github.Config {
	return github.Config{
		CAPEM: f.caPEM(), APIURL: f.url(),
		Egress: provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
	}
}

func open(t *testing.T, cfg github.Config) *github.Client {
	t.Helper()
	c, err := github.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func login(t *testing.T, m *credentialv1.GithubApp) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_GithubApp{GithubApp: m}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/github", ID: "1", Payload: p}
}

func app(t *testing.T, key *rsa.PrivateKey, installation string) credential.Login {
	t.Helper()
	return login(t, &credentialv1.GithubApp{AppId: "123456", InstallationId: installation, PrivateKeyPem: pemOf(key)})
}

func mint(t *testing.T, c *github.Client, l credential.Login, m *credentialv1.TokenRequest_GithubInstallationToken) (credential.Token, error) {
	t.Helper()
	r, err := credential.NewTokenRequest("githubApp", &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_GithubInstallationToken_{GithubInstallationToken: m}})
	if err != nil {
		t.Fatal(err)
	}
	return c.Mint(t.Context(), l, r)
}

func TestSuite(t *testing.T) {
	f := newFake(t)
	install(f, one())
	c := open(t, config(f))
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: c, Minter: c, Good: app(t, appKey(), "765"), Identity: "acme-deployer", Wrong: app(t, otherKey(), "765"),
		Calls: f.count, Stop: func(*testing.T) func() { return f.stop() }, Secrets: []string{pemOf(appKey()), pemOf(otherKey())},
	})
}

func TestVerify(t *testing.T) {
	f := newFake(t)
	install(f, one())
	c := open(t, config(f))
	for name, tt := range map[string]struct {
		id, installation string
		calls            []string
		want             credential.Identity
	}{
		"by id": {"123456", "", []string{"GET /app"}, credential.Identity{Name: "acme-deployer", Facts: map[string]string{
			"appId": "123456", "owner": "acme", "permissions": "contents=read, deployments=write, metadata=read", "installations": "1",
		}}},
		"by client id with an installation": {clientID, "765", []string{"GET /app", "GET /app/installations/765"}, credential.Identity{Name: "acme-deployer", Facts: map[string]string{
			"appId": "123456", "owner": "acme", "permissions": "contents=read, deployments=write, metadata=read", "installations": "1", "installation": "acme",
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			f.seen = nil
			got, err := c.Verify(t.Context(), login(t, &credentialv1.GithubApp{AppId: tt.id, InstallationId: tt.installation, PrivateKeyPem: pemOf(appKey())}))
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
			if diff := cmp.Diff(tt.calls, f.seen); diff != "" {
				t.Errorf("calls (-want +got)\n%s", diff)
			}
		})
	}
}

func TestMint(t *testing.T) {
	f := newFake(t)
	installations := one()
	installations[900] = &fakeInstallation{account: "other", repositories: []string{"site"}}
	install(f, installations)
	c := open(t, config(f))
	for name, tt := range map[string]struct {
		payload string
		request *credentialv1.TokenRequest_GithubInstallationToken
		want    minted
	}{
		"the payload's installation": {"765", &credentialv1.TokenRequest_GithubInstallationToken{}, minted{Installation: 765}},
		"the request's installation": {"765", &credentialv1.TokenRequest_GithubInstallationToken{InstallationId: "900"}, minted{Installation: 900}},
		"some repositories and permissions": {
			"765",
			&credentialv1.TokenRequest_GithubInstallationToken{Repositories: []string{"web"}, Permissions: map[string]string{"contents": "read"}},
			minted{Installation: 765, Repositories: []string{"web"}, Permissions: map[string]string{"contents": "read"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := mint(t, c, app(t, appKey(), tt.payload), tt.request)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, f.tokens[token.Message().GetBearer().GetToken()]); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if end, ok := token.ExpireTime(); !ok || time.Until(end) > time.Hour || time.Until(end) < 59*time.Minute {
				t.Errorf("it ends at %v", end)
			}
		})
	}
}

func TestInstallationThatNobodyNames(t *testing.T) {
	many := func(n int64) map[int64]*fakeInstallation {
		all := map[int64]*fakeInstallation{}
		for i := range n {
			all[i+1] = &fakeInstallation{account: "acme-" + strconv.FormatInt(i+1, 10)}
		}
		return all
	}
	for name, tt := range map[string]struct {
		installations map[int64]*fakeInstallation
		want          string
	}{
		"none":     {nil, "installed nowhere"},
		"one":      {one(), ""},
		"two":      {many(2), "the App has 2 installations: say which with installationId, as 1 of acme-1, 2 of acme-2"},
		"hundreds": {many(250), "the App has 100 or more installations"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			install(f, tt.installations)
			token, err := mint(t, open(t, config(f)), app(t, appKey(), ""), nil)
			if tt.want == "" {
				if err != nil || f.tokens[token.Message().GetBearer().GetToken()].Installation != 765 {
					t.Errorf("%v, %v", f.tokens, err)
				}
				return
			}
			if !errors.Is(err, provider.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

func answering(status int, body string, header ...string) func(*fake, *fakeApp) {
	return func(f *fake, _ *fakeApp) {
		f.answer = func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			// Who hung up does not read it.
			_, _ = w.Write([]byte(body))
		}
	}
}

func TestReasons(t *testing.T) {
	// The reset is at a time, and the pause until then by a clock that stands still.
	now := time.Now().Truncate(time.Second)
	stopped := func(c *github.Config) { c.Now = func() time.Time { return now } }
	soon := strconv.FormatInt(now.Add(10*time.Minute).Unix(), 10)
	for _, tt := range []struct {
		name         string
		prepare      func(*fake, *fakeApp)
		cfg          func(*github.Config)
		installation string
		kind         error
		text         string
		after        time.Duration
	}{
		{"a key that was deleted", func(_ *fake, a *fakeApp) { a.keys = []*rsa.PublicKey{&otherKey().PublicKey} }, nil, "", provider.ErrRefused, "401 A JSON web token could not be decoded (the private key is not this App's", 0},
		{"an App without keys", func(_ *fake, a *fakeApp) { a.keys = nil }, nil, "", provider.ErrRefused, "no private key any more", 0},
		{"an App that is gone", func(f *fake, _ *fakeApp) { delete(f.apps, "123456") }, nil, "", provider.ErrRefused, "404 Integration not found (there is no App with this id)", 0},
		{"another App's installation", nil, nil, "999", provider.ErrRefused, "the App has no such installation", 0},
		{"a suspended installation", func(_ *fake, a *fakeApp) { a.installations[765].suspended = true }, nil, "765", provider.ErrRefused, "suspended since 2026-11-01T12:00:00Z", 0},
		{"a clock that is fast", nil, func(c *github.Config) { c.Now = func() time.Time { return time.Now().Add(5 * time.Minute) } }, "", provider.ErrUnavailable, "this server's clock is wrong", 0},
		{"a clock that is slow", nil, func(c *github.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } }, "", provider.ErrUnavailable, "this server's clock is wrong", 0},
		{"too many requests", answering(403, `{"message":"API rate limit exceeded"}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", soon), stopped, "", provider.ErrUnavailable, "API rate limit exceeded", 10 * time.Minute},
		{"the secondary limit", answering(403, `{"message":"You have exceeded a secondary rate limit"}`, "Retry-After", "60"), nil, "", provider.ErrUnavailable, "secondary rate limit", time.Minute},
		{"429", answering(429, `{"message":"Too many"}`), nil, "", provider.ErrUnavailable, "429 Too many", 0},
		{"an address list", answering(403, `{"message":"the organization has an IP allow list enabled"}`), nil, "", provider.ErrRefused, "IP allow list", 0},
		{"trouble at GitHub", answering(502, `<html>`), nil, "", provider.ErrUnavailable, "502", 0},
		{"somebody else's error", answering(403, `<html>proxy</html>`), nil, "", provider.ErrUnavailable, "not GitHub's", 0},
		{"somebody else's answer", answering(200, `{}`), nil, "", provider.ErrUnavailable, "not GitHub's", 0},
		{"an endless answer", answering(200, strings.Repeat("x", 2<<20)), nil, "", provider.ErrUnavailable, "more than 1048576 bytes", 0},
		{"redirect", answering(301, ``, "Location", "https://example.com/"), nil, "", provider.ErrUnavailable, "redirect, which is not followed", 0},
		{"an address that is closed", nil, func(c *github.Config) { c.Egress = provider.Egress{} }, "", provider.ErrRefused, "does not connect to 127.0.0.1", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			a := install(f, one())
			if tt.prepare != nil {
				tt.prepare(f, a)
			}
			cfg := config(f)
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			_, err := open(t, cfg).Verify(t.Context(), app(t, appKey(), tt.installation))
			var e *provider.Error
			if !errors.As(err, &e) || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error is %v, want %v with %q", err, tt.kind, tt.text)
			}
			if e.RetryAfter != tt.after {
				t.Errorf("to be asked again after %s, want %s", e.RetryAfter, tt.after)
			}
		})
	}
}

func TestMintReasons(t *testing.T) {
	for name, tt := range map[string]struct {
		suspended bool
		request   *credentialv1.TokenRequest_GithubInstallationToken
		want      string
	}{
		"suspended":               {true, nil, "403 This installation has been suspended (its owner"},
		"another installation":    {false, &credentialv1.TokenRequest_GithubInstallationToken{InstallationId: "999"}, "the App has no such installation"},
		"a foreign repository":    {false, &credentialv1.TokenRequest_GithubInstallationToken{Repositories: []string{"secret"}}, "422 There is at least one repository"},
		"a permission not given":  {false, &credentialv1.TokenRequest_GithubInstallationToken{Permissions: map[string]string{"administration": "write"}}, "422 The permissions requested are not granted"},
		"a permission to do more": {false, &credentialv1.TokenRequest_GithubInstallationToken{Permissions: map[string]string{"contents": "write"}}, "422 The permissions requested are not granted"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			install(f, one()).installations[765].suspended = tt.suspended
			_, err := mint(t, open(t, config(f)), app(t, appKey(), "765"), tt.request)
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

func TestServerOfThePayload(t *testing.T) {
	f := newFake(t)
	install(f, one())
	cfg := config(f)
	cfg.APIURL = ""
	l := login(t, &credentialv1.GithubApp{AppId: "123456", PrivateKeyPem: pemOf(appKey()), ApiUrl: f.url() + "/"})
	if got, err := open(t, cfg).Verify(t.Context(), l); err != nil || got.Name != "acme-deployer" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWordsOfGitHubRepeatNoSecret(t *testing.T) {
	f := newFake(t)
	install(f, one())
	f.answer = func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusUnauthorized, "bad token "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}
	_, err := open(t, config(f)).Verify(t.Context(), app(t, appKey(), ""))
	if err == nil || !strings.Contains(err.Error(), "bad token (redacted)") || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("error is %v", err)
	}
}

// No connection is kept, and so no goroutine, when a call is over.
func TestNothingOutlivesACall(t *testing.T) {
	f := newFake(t)
	install(f, one())
	c := open(t, config(f))
	before := goleak.IgnoreCurrent()
	if _, err := c.Verify(t.Context(), app(t, appKey(), "")); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

func TestNewRefusesConfigurations(t *testing.T) {
	for name, cfg := range map[string]github.Config{
		"an address without TLS":              {APIURL: "http://api.github.com"},
		"an address with a user":              {APIURL: "https://u:p@api.github.com"},
		"certificates to trust that are none": {CAPEM: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := github.New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

// The fake is no proof if it takes what GitHub refuses.
func TestFakeRefuses(t *testing.T) {
	f := newFake(t)
	install(f, one())
	sign := func(key *rsa.PrivateKey, change func(jwt.MapClaims)) string {
		claims := jwt.MapClaims{"iss": "123456", "iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(8 * time.Minute).Unix()}
		change(claims)
		signed, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	same := func(jwt.MapClaims) {}
	claim := func(name string, value any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = value } }
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": "123456"}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		token string
		want  int
	}{
		"a good one":               {sign(appKey(), same), http.StatusOK},
		"another key":              {sign(otherKey(), same), http.StatusUnauthorized},
		"changed afterwards":       {sign(appKey(), same) + "AAAA", http.StatusUnauthorized},
		"unsigned":                 {unsigned, http.StatusUnauthorized},
		"none":                     {"x", http.StatusUnauthorized},
		"an unknown App":           {sign(appKey(), claim("iss", "1")), http.StatusNotFound},
		"from the future":          {sign(appKey(), claim("iat", time.Now().Add(time.Minute).Unix())), http.StatusUnauthorized},
		"ended":                    {sign(appKey(), claim("exp", time.Now().Add(-time.Second).Unix())), http.StatusUnauthorized},
		"living eleven minutes":    {sign(appKey(), claim("exp", time.Now().Add(11*time.Minute).Unix())), http.StatusUnauthorized},
		"without an end":           {sign(appKey(), claim("exp", nil)), http.StatusUnauthorized},
		"without a time of making": {sign(appKey(), claim("iat", nil)), http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url()+"/app", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+tt.token)
			r.Header.Set("User-Agent", "test")
			resp, err := f.server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if resp.StatusCode != tt.want {
				t.Errorf("status is %d, want %d", resp.StatusCode, tt.want)
			}
		})
	}
	f.server.Client().CloseIdleConnections()
}

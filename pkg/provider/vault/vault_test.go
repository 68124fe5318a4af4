package vault

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

// loopback lets the tests reach their servers.
var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}

func (f *fake) config() Config {
	return Config{Address: f.server.URL, Namespace: f.namespace, Mount: f.mount, Egress: loopback, Random: func() float64 { return 0 }}
}

func (f *fake) open(t *testing.T, p credential.Login) *Session {
	t.Helper()
	s, err := Open(t.Context(), f.config(), p)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func read(s *Session, path string) (string, error) {
	secret, err := s.Fetch(context.Background(), provider.Ref{Path: path})
	return string(secret.Values["k"]), err
}

func TestSuite(t *testing.T) {
	t.Run("AppRole", func(t *testing.T) {
		f := newFake(t)
		f.namespace = "team/a"
		runSuite(t, f, func(t *testing.T) credential.Login { return appRoleLogin(t, roleID, secretID, "") },
			func(t *testing.T) credential.Login { return appRoleLogin(t, roleID, "wrong-secret-id", "") }, f.endLogins)
	})
	t.Run("Token", func(t *testing.T) {
		f := newFake(t)
		runSuite(t, f, func(t *testing.T) credential.Login { return tokenLogin(t, userToken) },
			func(t *testing.T) credential.Login { return tokenLogin(t, "hvs.wrong-token-canary") }, nil)
	})
}

func runSuite(t *testing.T, f *fake, good, wrong func(*testing.T) credential.Login, end func()) {
	runSuiteWith(t, f, f.config(), good(t), wrong(t), end, nil)
}

func runSuiteWith(t *testing.T, f *fake, cfg Config, good, wrong credential.Login, end func(), secrets []string) {
	opened := func(l credential.Login) func(context.Context) (provider.Session, error) {
		return func(ctx context.Context) (provider.Session, error) {
			s, err := Open(ctx, cfg, l)
			if err != nil {
				return nil, err
			}
			return s, nil
		}
	}
	h := providertest.Harness{
		Open:        opened(good),
		OpenRefused: opened(wrong),
		Put: func(_ *testing.T, path string, values map[string]string) uint32 {
			all := map[string]any{}
			for k, v := range values {
				all[k] = v
			}
			return f.put(path, all)
		},
		Delete: func(_ *testing.T, path string, n uint32) {
			f.change(path, n, func(v *fakeVersion) { v.deleted = true })
		},
		Undelete: func(_ *testing.T, path string, n uint32) {
			f.change(path, n, func(v *fakeVersion) { v.deleted = false })
		},
		Destroy: func(_ *testing.T, path string, n uint32) {
			f.change(path, n, func(v *fakeVersion) { *v = fakeVersion{destroyed: true} })
		},
		Stop: func(*testing.T) func() {
			f.set(func(f *fake) {
				f.override = func(w http.ResponseWriter, _ *http.Request) bool {
					refuse(w, 503, "Vault is sealed")
					return true
				}
			})
			return func() { f.set(func(f *fake) { f.override = nil }) }
		},
		Secrets: append(secrets, secretID, userToken, "wrong-secret-id", "hvs.wrong-token-canary", "login-token-canary"),
	}
	if end != nil {
		h.EndLogins = func(*testing.T) { end() }
	}
	providertest.Run(t, h)
}

func TestValuesThatAreNoStrings(t *testing.T) {
	f := newFake(t)
	f.put("odd", map[string]any{
		"number": 12345678901234567, "true": true, "null": nil,
		"object": map[string]any{"b": "<&>", "a": []any{1.5, "x"}},
	})
	s := f.open(t, tokenLogin(t, userToken))
	secret, err := s.Fetch(t.Context(), provider.Ref{Path: "odd"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for k, v := range secret.Values {
		got[k] = string(v)
	}
	want := map[string]string{"number": "12345678901234567", "true": "true", "null": "null", "object": `{"a":[1.5,"x"],"b":"<&>"}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

// The answers of Vault, each with what is made of it.
func TestAnswers(t *testing.T) {
	html := "<html>secret page " + strings.Repeat("x", 100_000) + "</html>"
	for _, test := range []struct {
		name   string
		status int
		header string // Retry-After
		body   string
		kind   error
		text   string
		after  time.Duration
	}{
		{"sealed", 503, "", `{"errors":["Vault is sealed"]}`, provider.ErrUnavailable, "read: store unavailable: 503 Vault is sealed", 0},
		{"overloaded", 429, "7", `{"errors":["request path \"x\": rate limit quota exceeded"]}`, provider.ErrUnavailable, `read: store unavailable: 429 request path "x": rate limit quota exceeded`, 7 * time.Second},
		{"waits too long", 429, "99999999", `{"errors":[]}`, provider.ErrUnavailable, "read: store unavailable: 429", 0},
		{"internal", 500, "", `{"errors":["1 error occurred:\n\t* internal error\n\n"]}`, provider.ErrUnavailable, "read: store unavailable: 500 internal error", 0},
		{"behind", 412, "", `{"errors":["required index state not present"]}`, provider.ErrUnavailable, "read: store unavailable: 412 required index state not present", 0},
		{"proxy", 502, "", html, provider.ErrUnavailable, "read: store unavailable: 502 the answer is not Vault's", 0},
		{"redirect", 307, "", "", provider.ErrUnavailable, "read: store unavailable: 307 the answer is a redirect, which is not followed: name the active node, or a load balancer", 0},
		{"bad request", 400, "", `{"errors":["bad version"]}`, provider.ErrRefused, "read: refused: 400 bad version", 0},
		{"no such mount", 404, "", `{"errors":["no handler for route \"nope/data/x\". route entry not found."]}`, provider.ErrMissing, `read: no such secret: 404 no handler for route "nope/data/x". route entry not found.`, 0},
		{"nothing", 404, "", `{"errors":[]}`, provider.ErrMissing, "read: no such secret: 404 there is nothing at this path", 0},
		{"nothing of a web server", 404, "", "404 page not found", provider.ErrMissing, "read: no such secret: 404 the answer is not Vault's", 0},
		{"no JSON", 200, "", html, provider.ErrUnavailable, "read: store unavailable: 200 the answer is not Vault's", 0},
		{"other JSON", 200, "", `{"data":{"k":"v"}}`, provider.ErrRefused, "read: refused: the engine at this mount is no key-value engine of version 2", 0},
		{"empty", 200, "", `{}`, provider.ErrRefused, "read: refused: the engine at this mount is no key-value engine of version 2", 0},
		{"no version", 200, "", `{"data":{"data":{},"metadata":{}}}`, provider.ErrUnavailable, "read: store unavailable: 200 the answer is not Vault's", 0},
		{"deleted, in an ordinary answer", 200, "", `{"data":{"data":null,"metadata":{"version":4,"deletion_time":"2026-01-01T00:00:00Z"}}}`, provider.ErrDeleted, "read: version deleted: version 4 was deleted at 2026-01-01T00:00:00Z", 0},
		{"destroyed, in an ordinary answer", 200, "", `{"data":{"data":null,"metadata":{"version":4,"destroyed":true}}}`, provider.ErrDestroyed, "read: version destroyed: version 4 was destroyed", 0},
		{"too large", 200, "", `{"data":{"data":{"k":"` + strings.Repeat("x", maxAnswer) + `"}}}`, provider.ErrRefused, "read: refused: the answer has more than 4194304 bytes", 0},
		{"echoes the token", 500, "", `{"errors":["bad ` + userToken + ` and hvs.CAESIJother_token-x and s.abcdefghijklmn"]}`, provider.ErrUnavailable, "read: store unavailable: 500 bad (redacted) and (redacted) and (redacted)", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			s := f.open(t, tokenLogin(t, userToken))
			f.set(func(f *fake) {
				f.override = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, "/v1/secret/") {
						return false
					}
					if test.header != "" {
						w.Header().Set("Retry-After", test.header)
					}
					if test.status == 307 {
						w.Header().Set("Location", "http://127.0.0.1:1/v1/secret/data/x")
					}
					w.WriteHeader(test.status)
					_, _ = fmt.Fprint(w, test.body)
					return true
				}
			})
			_, err := s.Fetch(t.Context(), provider.Ref{Path: "x"})
			var e *provider.Error
			if !errors.As(err, &e) || !errors.Is(err, test.kind) || err.Error() != test.text {
				t.Fatalf("error is %v; want %q", err, test.text)
			}
			if e.RetryAfter != test.after {
				t.Errorf("RetryAfter is %s, want %s", e.RetryAfter, test.after)
			}
		})
	}
}

// A redirect takes the token to nobody.
func TestRedirectIsNotFollowed(t *testing.T) {
	var reached atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer other.Close()
	f := newFake(t)
	s := f.open(t, tokenLogin(t, userToken))
	for _, status := range []int{301, 302, 303, 307, 308} {
		f.set(func(f *fake) {
			f.override = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, other.URL+r.URL.Path, status)
				return true
			}
		})
		if _, err := read(s, "x"); !errors.Is(err, provider.ErrUnavailable) {
			t.Errorf("%d: error is %v", status, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the other host got %d requests", n)
	}
}

// Nothing in the environment changes where a login goes, as whom, or what is
// trusted.
func TestEnvironmentIsIgnored(t *testing.T) {
	var reached atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer other.Close()
	for name, value := range map[string]string{
		"VAULT_ADDR": other.URL, "VAULT_AGENT_ADDR": other.URL, "VAULT_TOKEN": "hvs.environment", "VAULT_NAMESPACE": "environment",
		"VAULT_HEADERS": `{"X-Other": "environment"}`, "VAULT_PROXY_ADDR": other.URL, "VAULT_HTTP_PROXY": other.URL,
		"HTTP_PROXY": other.URL, "VAULT_WRAP_TTL": "60s", "VAULT_SKIP_VERIFY": "true", "VAULT_MAX_RETRIES": "9", "VAULT_RATE_LIMIT": "0.001:1",
	} {
		t.Setenv(name, value)
	}
	f := newFake(t)
	f.override = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Other") != "" || r.Header.Get("X-Vault-Wrap-Ttl") != "" {
			f.t.Errorf("headers of the environment were sent: %v", r.Header)
		}
		return false
	}
	f.put("x", map[string]any{"k": "v"})
	s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
	if v, err := read(s, "x"); err != nil || v != "v" {
		t.Errorf("read: %q, %v", v, err)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the environment's address got %d requests", n)
	}

	secure := httptest.NewTLSServer(f)
	defer secure.Close()
	cfg := f.config()
	cfg.Address = secure.URL
	_, err := Open(t.Context(), cfg, tokenLogin(t, userToken))
	if want := "login: store unavailable: the certificate is signed by an unknown authority"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("with VAULT_SKIP_VERIFY: error is %v, want %q", err, want)
	}

	t.Setenv("VAULT_MAX_RETRIES", "secret-in-a-wrong-variable")
	_, err = Open(t.Context(), f.config(), tokenLogin(t, userToken))
	if err == nil || !strings.Contains(err.Error(), "VAULT_") || strings.Contains(err.Error(), "secret-in") {
		t.Errorf("malformed variable: error is %v", err)
	}
}

func TestTLS(t *testing.T) {
	f := newFake(t)
	f.put("x", map[string]any{"k": "v"})
	secure := httptest.NewTLSServer(f)
	defer secure.Close()
	cfg := f.config()
	cfg.Address, cfg.CAPEM = secure.URL, certificatePEM(secure)
	s, err := Open(t.Context(), cfg, tokenLogin(t, userToken))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.Background()) }()
	if v, err := read(s, "x"); err != nil || v != "v" {
		t.Errorf("read: %q, %v", v, err)
	}
	cfg.CAPEM = "no certificate"
	if _, err := Open(t.Context(), cfg, tokenLogin(t, userToken)); !errors.Is(err, provider.ErrRefused) {
		t.Errorf("bad caPem: error is %v", err)
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	f := newFake(t)
	good := tokenLogin(t, userToken)
	basic, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "u", Password: "p"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		edit  func(*Config)
		login credential.Login
		want  string
	}{
		{"no address", func(c *Config) { c.Address = "" }, good, "address"},
		{"unix socket", func(c *Config) { c.Address = "unix:///run/vault.sock" }, good, "address"},
		{"user in the address", func(c *Config) { c.Address = "https://u:secret@vault" }, good, "address"},
		{"path in the address", func(c *Config) { c.Address = "https://vault/x" }, good, "address"},
		{"loopback", func(c *Config) { c.Egress = provider.Egress{} }, good, "loopback"},
		{"metadata service", func(c *Config) { c.Address = "http://169.254.169.254" }, good, "link-local"},
		{"other kind", func(*Config) {}, credential.Login{Payload: basic}, `kind "basic"`},
		{"no payload", func(*Config) {}, credential.Login{}, "kind"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := f.config()
			test.edit(&cfg)
			_, err := Open(t.Context(), cfg, test.login)
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "u:secret") {
				t.Errorf("error is %v; want a refusal that says %q", err, test.want)
			}
		})
	}
	if len(f.requests) != 0 {
		t.Errorf("requests: %v", f.requests)
	}
}

func TestAppRoleOfOtherMountWithoutSecretID(t *testing.T) {
	f := newFake(t)
	f.roles["open-role"] = ""
	f.put("x", map[string]any{"k": "v"})
	s := f.open(t, appRoleLogin(t, "open-role", "", "team/approle"))
	if v, err := read(s, "x"); err != nil || v != "v" {
		t.Errorf("read: %q, %v", v, err)
	}
	if n := f.seen("PUT /v1/auth/team/approle/login"); n != 1 {
		t.Errorf("%d logins at the mount", n)
	}
	if got, err := s.Identify(t.Context()); err != nil || got != "approle role web (entity entity-1)" {
		t.Errorf("Identify: %q, %v", got, err)
	}
	_, err := Open(t.Context(), f.config(), appRoleLogin(t, roleID, secretID, "nowhere"))
	if !errors.Is(err, provider.ErrRefused) {
		t.Errorf("mount that is not there: error is %v", err)
	}
}

// A path that the policies exclude is no reason to log in again and again.
func TestForbiddenPathDoesNotLogInAgain(t *testing.T) {
	for _, noLookup := range []bool{false, true} {
		t.Run(fmt.Sprintf("noLookup=%t", noLookup), func(t *testing.T) {
			f := newFake(t)
			s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
			f.set(func(f *fake) {
				for _, tok := range f.tokens {
					tok.denied, tok.noLookup = "closed", noLookup
				}
			})
			for range 5 {
				_, err := read(s, "closed")
				if want := "read: refused: 403 permission denied"; err == nil || err.Error() != want {
					t.Fatalf("error is %v, want %q", err, want)
				}
			}
			if n := f.seen("PUT /v1/auth/approle/login"); n != 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

// Those who find a token dead at the same time log in once.
func TestTokenEndsForAll(t *testing.T) {
	f := newFake(t)
	f.put("x", map[string]any{"k": "v"})
	s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
	f.endLogins()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if v, err := read(s, "x"); err != nil || v != "v" {
				t.Errorf("read: %q, %v", v, err)
			}
		})
	}
	wg.Wait()
	if n := f.seen("PUT /v1/auth/approle/login"); n != 2 {
		t.Errorf("%d logins; want the first and one more", n)
	}
}

func TestLoginLost(t *testing.T) {
	lost := func(t *testing.T, err error, text string) {
		t.Helper()
		var e *provider.Error
		if !errors.As(err, &e) || !e.LoginLost || err.Error() != text {
			t.Errorf("error is %v; want a lost login: %q", err, text)
		}
	}
	f := newFake(t)
	f.put("x", map[string]any{"k": "v"})
	byToken, byRole := f.open(t, tokenLogin(t, userToken)), f.open(t, appRoleLogin(t, roleID, secretID, ""))
	f.set(func(f *fake) { clear(f.tokens); clear(f.roles) })
	_, err := read(byToken, "x")
	lost(t, err, "login: refused: 403 permission denied; invalid token")
	_, err = read(byRole, "x")
	lost(t, err, "login: refused: 400 invalid role or secret ID")
}

func TestExpiredLeaseIsReplacedBeforeUse(t *testing.T) {
	f := newFake(t)
	f.put("x", map[string]any{"k": "v"})
	s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
	s.lease.expire = time.Now().Add(-time.Second)
	if v, err := read(s, "x"); err != nil || v != "v" {
		t.Errorf("read: %q, %v", v, err)
	}
	if logins, reads := f.seen("PUT /v1/auth/approle/login"), f.seen("GET /v1/secret/data/x"); logins != 2 || reads != 1 {
		t.Errorf("%d logins and %d reads; want 2 and 1: no read with a token that is known to be over", logins, reads)
	}
}

func TestRenewal(t *testing.T) {
	// due says when the renewal is, as a part of the time that was granted.
	due := func(s *Session, ttl time.Duration) float64 {
		return float64(s.RenewTime().Sub(s.lease.since)) / float64(ttl)
	}
	near := func(t *testing.T, got, want float64) {
		t.Helper()
		if got < want-0.001 || got > want+0.001 {
			t.Errorf("renewal is due after %.3f of the time, want %.3f", got, want)
		}
	}
	const login, renew = "PUT /v1/auth/approle/login", "PUT /v1/auth/token/renew-self"

	t.Run("prolongs", func(t *testing.T) {
		f := newFake(t)
		s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
		near(t, due(s, time.Hour), 2.0/3)
		s.cfg.Random = func() float64 { return 0.999 }
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		near(t, due(s, time.Hour), 2.0/3-1.0/15)
		if f.seen(login) != 1 || f.seen(renew) != 1 {
			t.Errorf("requests: %v", f.requests)
		}
	})
	t.Run("logs in when the longest life comes near", func(t *testing.T) {
		f := newFake(t)
		f.renewed = 10 * time.Minute
		s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		near(t, due(s, 10*time.Minute), 2.0/3)
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.seen(login) != 2 || f.seen(renew) != 1 {
			t.Errorf("requests: %v", f.requests)
		}
	})
	t.Run("logs in when not renewable", func(t *testing.T) {
		f := newFake(t)
		f.renewable = false
		s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
		near(t, due(s, time.Hour), 2.0/3)
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.seen(login) != 2 || f.seen(renew) != 0 {
			t.Errorf("requests: %v", f.requests)
		}
	})
	t.Run("tries again while the token lasts", func(t *testing.T) {
		f := newFake(t)
		f.put("x", map[string]any{"k": "v"})
		s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
		f.set(func(f *fake) {
			f.override = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					refuse(w, 503, "Vault is sealed")
				}
				return r.Method == http.MethodPut
			}
		})
		// After a third of what is left when it fails.
		third := func(now time.Time) time.Time { return now.Add(s.lease.expire.Sub(now) / 3) }
		before := time.Now()
		if err := s.Renew(t.Context()); !errors.Is(err, provider.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		if at, from, to := s.RenewTime(), third(before), third(time.Now()); at.Before(from) || at.After(to) {
			t.Errorf("renewal is due at %s, want it between %s and %s", at, from, to)
		}
		if v, err := read(s, "x"); err != nil || v != "v" {
			t.Errorf("read: %q, %v", v, err)
		}
	})
	t.Run("token of a person", func(t *testing.T) {
		f := newFake(t)
		f.tokens[userToken] = &fakeToken{ttl: time.Hour, renewable: true}
		s := f.open(t, tokenLogin(t, userToken))
		near(t, due(s, time.Hour), 2.0/3)
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.seen(renew) != 1 {
			t.Errorf("requests: %v", f.requests)
		}
		if err := s.Close(t.Context()); err != nil || f.seen("PUT /v1/auth/token/revoke-self") != 0 {
			t.Errorf("Close revoked a token that was not given to the session (%v)", err)
		}
	})
	t.Run("nothing to renew", func(t *testing.T) {
		f := newFake(t)
		f.tokens[userToken] = &fakeToken{noLookup: true}
		f.put("x", map[string]any{"k": "v"})
		s := f.open(t, tokenLogin(t, userToken))
		if at := s.RenewTime(); !at.IsZero() {
			t.Errorf("renewal is due at %s", at)
		}
		if v, err := read(s, "x"); err != nil || v != "v" {
			t.Errorf("read: %q, %v", v, err)
		}
	})
}

func TestCloseRevokesItsOwnToken(t *testing.T) {
	f := newFake(t)
	s := f.open(t, appRoleLogin(t, roleID, secretID, ""))
	if len(f.tokens) != 2 {
		t.Fatalf("%d tokens", len(f.tokens))
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(f.tokens) != 1 {
		t.Errorf("%d tokens after Close", len(f.tokens))
	}
}

// certificatePEM returns what a test server's clients have to trust.
func certificatePEM(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestMain(m *testing.M) {
	// What a developer has set for the vault command must not decide.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "VAULT_") {
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

package conjur_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/conjur"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	goodKey  = "api-key-canary-3x4mpl3"
	wrongKey = "api-key-canary-wr0ng"
	signed   = "signature-canary-77"
)

// fake is an appliance as far as a key can be verified with it, written from the
// vendor's reference: the login stands escaped in the path, the key is the whole
// body, and a token is accepted only as this fake made it.
type fake struct {
	server   *httptest.Server
	path     string // before everything
	calls    atomic.Int64
	override atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newFake(t *testing.T, path string) *fake {
	t.Helper()
	f := &fake{path: path}
	f.server = httptest.NewTLSServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.calls.Add(1)
	if o := f.override.Load(); o != nil && (*o)(w, r) {
		return
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), f.path)
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPost && path == "/authn/prod/host%2Fteam%2Fapp/authenticate":
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != goodKey || r.Header.Get("Accept-Encoding") != "base64" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, f.token())
	case r.Method == http.MethodPost && strings.HasPrefix(path, "/authn/"):
		w.WriteHeader(http.StatusUnauthorized)
	case r.Method == http.MethodGet && path == "/whoami":
		if r.Header.Get("Authorization") != `Token token="`+f.token()+`"` {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"client_ip": "192.0.2.1", "account": "prod", "username": "host/team/app"})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *fake) token() string {
	return base64.StdEncoding.EncodeToString([]byte(`{"protected":"e30","payload":"e30","signature":"` + signed + `"}`))
}

func (f *fake) login(t *testing.T, edit func(*credentialv1.Conjur)) credential.Login {
	t.Helper()
	m := &credentialv1.Conjur{
		Url: f.server.URL + f.path, Account: "prod", Login: "host/team/app", ApiKey: goodKey,
		CaPem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})),
	}
	edit(m)
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Conjur{Conjur: m}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/p/credentials/conjur", ID: m.GetApiKey(), Payload: p}
}

func as(*credentialv1.Conjur) {}

func vendor() *conjur.Vendor {
	return conjur.New(conjur.Config{Egress: provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
}

func TestVendor(t *testing.T) {
	for _, path := range []string{"", "/api"} {
		f := newFake(t, path)
		providertest.RunVendor(t, providertest.VendorHarness{
			Verifier: vendor(), Good: f.login(t, as), Identity: "host/team/app",
			Wrong: f.login(t, func(m *credentialv1.Conjur) { m.ApiKey = wrongKey }),
			Calls: func() int { return int(f.calls.Load()) },
			Stop: func(*testing.T) func() {
				down := func(w http.ResponseWriter, _ *http.Request) bool {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
				f.override.Store(&down)
				return func() { f.override.Store(nil) }
			},
			Secrets: []string{goodKey, wrongKey, f.token()},
		})
	}
}

func TestIdentity(t *testing.T) {
	f := newFake(t, "")
	want := credential.Identity{Name: "host/team/app", Facts: map[string]string{"account": "prod"}}
	got, err := vendor().Verify(t.Context(), f.login(t, as))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	// An appliance that cannot be asked has accepted the key all the same.
	old := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/whoami" {
			_, _ = io.WriteString(w, `{"data":"host/team/app","signature":"`+signed+`"}`)
			return true
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	f.override.Store(&old)
	got, err = vendor().Verify(t.Context(), f.login(t, as))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

func TestRefusals(t *testing.T) {
	const wrong = "login: refused: 401 the account, the login or the API key is wrong, or the login may not come from this address"
	f := newFake(t, "/api")
	for _, test := range []struct {
		name string
		edit func(*credentialv1.Conjur)
		want string
	}{
		{"key", func(m *credentialv1.Conjur) { m.ApiKey = wrongKey }, wrong},
		{"account", func(m *credentialv1.Conjur) { m.Account = "other" }, wrong},
		{"login", func(m *credentialv1.Conjur) { m.Login = "host/other" }, wrong},
		{"authority", func(m *credentialv1.Conjur) { m.CaPem = "" }, "login: store unavailable: the certificate is signed by an unknown authority: give the server's certificate authority"},
		{"URL", func(m *credentialv1.Conjur) { m.Url = strings.TrimSuffix(m.GetUrl(), "/api") }, "login: refused: 404 the answer gives no reason; is the URL that of Conjur?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := vendor().Verify(t.Context(), f.login(t, test.edit))
			if err == nil || err.Error() != test.want {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	f := newFake(t, "")
	for _, test := range []struct {
		name, path, body string
		status           int
		kind             error
		want             string
	}{
		{"no token", "/authn/", "<html>", 200, provider.ErrUnavailable, "login: store unavailable: 200 the answer is not Conjur's"},
		{"no identity", "/whoami", "{}", 200, provider.ErrUnavailable, "identify: store unavailable: 200 the answer is not Conjur's"},
		{"redirect", "/authn/", "", 302, provider.ErrUnavailable, "login: store unavailable: 302 the answer is a redirect, which is not followed: give the URL that it leads to"},
		{"echo", "/authn/", `{"error":{"code":"x","message":"bad key ` + goodKey + `"}}`, 422, provider.ErrRefused, "login: refused: 422 bad key (redacted)"},
		{"token not accepted", "/whoami", "", 401, provider.ErrRefused, "identify: refused: 401 the account, the login or the API key is wrong, or the login may not come from this address"},
		{"overloaded", "/authn/", "", 429, provider.ErrUnavailable, "login: store unavailable: 429"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, test.path) {
					return false
				}
				w.Header().Set("Location", "https://127.0.0.1:1/")
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
				return true
			}
			f.override.Store(&answer)
			_, err := vendor().Verify(t.Context(), f.login(t, as))
			if !errors.Is(err, test.kind) || err.Error() != test.want {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

func TestEgress(t *testing.T) {
	f := newFake(t, "")
	_, err := conjur.New(conjur.Config{}).Verify(t.Context(), f.login(t, as))
	if !errors.Is(err, provider.ErrRefused) || f.calls.Load() != 0 {
		t.Errorf("loopback: error is %v after %d calls", err, f.calls.Load())
	}
	if _, err := vendor().Verify(t.Context(), credential.Login{}); !errors.Is(err, provider.ErrRefused) {
		t.Errorf("no payload: error is %v", err)
	}
}

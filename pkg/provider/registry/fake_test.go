package registry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	user     = "bot"
	password = "p4ssw0rd-canary"
	refresh  = "refresh-token-canary"
	service  = "registry.example.com"
)

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// fake is a registry of the distribution API with its token server, written from
// the token and OAuth 2 specifications. It refuses requests that are not what
// these say, and tokens that it did not sign.
type fake struct {
	*httptest.Server
	key   []byte
	calls atomic.Int32
	// auth is "bearer", "basic", "none", or another way to authenticate.
	auth string
	// any makes it accept every login; anonymous lets its token server give
	// tokens to everybody who shows no password.
	any bool
	// realm is told in place of the token server's address.
	realm string
	// fail answers in its place; nil does not.
	fail func(w http.ResponseWriter, r *http.Request) bool
	// noRefresh makes the token server one without OAuth 2.
	noRefresh bool
	lifetime  time.Duration
	badKey    bool
	t         *testing.T
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{auth: "bearer", key: []byte(rand.Text()), lifetime: time.Minute, t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", f.v2)
	mux.HandleFunc("/token", f.token)
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		if f.fail == nil || !f.fail(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) host() string { return strings.TrimPrefix(f.URL, "https://") }

func (f *fake) caPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}))
}

func (f *fake) v2(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	name, secret, isBasic := r.BasicAuth()
	bearer, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case f.auth == "none":
		return
	case f.auth == "basic" && isBasic && (f.any || name == user && secret == password):
		return
	case f.auth == "bearer" && isBearer && f.verify(bearer) == nil:
		return
	}
	realm := f.URL + "/token"
	if f.realm != "" {
		realm = f.realm
	}
	switch f.auth {
	case "bearer":
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="%s",error="invalid_token"`, realm, service))
	case "basic":
		w.Header().Set("WWW-Authenticate", `Basic realm="Registry, Realm"`)
	default:
		w.Header().Set("WWW-Authenticate", "Negotiate")
	}
	writeJSON(w, http.StatusUnauthorized, map[string]any{"errors": []map[string]string{{"code": "UNAUTHORIZED", "message": "authentication required"}}})
}

func (f *fake) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	if r.Form.Get("service") != service || r.Form.Get("client_id") == "" || len(r.Form["service"]) != 1 {
		f.t.Errorf("token request has service %q, client_id %q", r.Form["service"], r.Form["client_id"])
	}
	subject, shown := "", r.PostForm.Get("refresh_token")
	switch r.Method {
	case http.MethodGet:
		name, secret, ok := r.BasicAuth()
		shown = secret
		if !ok || r.Form.Get("account") != name || r.Form.Has("refresh_token") || r.Form.Has("password") {
			f.t.Errorf("token request has basic authentication: %t, account %q, secrets in its URL", ok, r.Form["account"])
		}
		if f.any || name == user && secret == password {
			subject = name
		}
	case http.MethodPost:
		if f.noRefresh {
			http.NotFound(w, r)
			return
		}
		_, _, isBasic := r.BasicAuth()
		if isBasic || r.URL.RawQuery != "" || r.PostForm.Get("grant_type") != "refresh_token" {
			f.t.Errorf("token request has basic authentication: %t, query %q, grant type %q", isBasic, r.URL.RawQuery, r.PostForm["grant_type"])
		}
		if f.any || r.PostForm.Get("refresh_token") == refresh {
			subject = user
		}
	}
	if subject == "" {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"details": "incorrect username or password " + shown}) // some repeat it
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"access_token": f.sign(subject), "expires_in": int(f.lifetime.Seconds())})
}

// sign makes a token: who, for which service and until when, and a code over it.
func (f *fake) sign(subject string) string {
	key := f.key
	if f.badKey {
		key = []byte("another key")
	}
	claims := subject + "|" + service + "|" + strconv.FormatInt(time.Now().Add(f.lifetime).Unix(), 10)
	code := hmac.New(sha256.New, key)
	code.Write([]byte(claims))
	return base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + base64.RawURLEncoding.EncodeToString(code.Sum(nil))
}

func (f *fake) verify(token string) error {
	payload, signature, _ := strings.Cut(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return err
	}
	got, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return err
	}
	code := hmac.New(sha256.New, f.key)
	code.Write(claims)
	parts := strings.Split(string(claims), "|")
	if !hmac.Equal(code.Sum(nil), got) || len(parts) != 3 || parts[1] != service {
		return fmt.Errorf("not signed by the token server, or not for %s", service)
	}
	if end, err := strconv.ParseInt(parts[2], 10, 64); err != nil || time.Now().Unix() >= end {
		return fmt.Errorf("the token has ended")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func loginOf(t *testing.T, m *credentialv1.DockerRegistry) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_DockerRegistry{DockerRegistry: m}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/registry-bot", ID: "1", Payload: p}
}

func (f *fake) byPassword(t *testing.T, username, password string) credential.Login {
	t.Helper()
	return loginOf(t, &credentialv1.DockerRegistry{Server: f.host(), Username: username, Password: password, CaPem: f.caPEM()})
}

func (f *fake) byToken(t *testing.T, token string) credential.Login {
	t.Helper()
	return loginOf(t, &credentialv1.DockerRegistry{Server: f.host(), IdentityToken: token, CaPem: f.caPEM()})
}

func TestFakeRefusesForeignTokens(t *testing.T) {
	f := newFake(t)
	good := f.sign(user)
	if err := f.verify(good); err != nil {
		t.Fatal(err)
	}
	payload, signature, _ := strings.Cut(good, ".")
	f.badKey = true
	other := f.sign(user)
	f.badKey, f.lifetime = false, -time.Minute
	ended := f.sign(user)
	forged := base64.RawURLEncoding.EncodeToString([]byte("admin|"+service+"|9999999999")) + "." + signature
	for name, token := range map[string]string{
		"another key": other, "ended": ended, "changed": forged, "no signature": payload, "cut off": good[:len(good)-2], "empty": "",
	} {
		if f.verify(token) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

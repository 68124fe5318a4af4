// Package azuretest owns a stand-in for Microsoft Entra ID, the metadata service
// of Azure's machines and the token exchange of Azure Container Registry. It is
// for tests, and no part of what is shipped.
//
// It is written from Microsoft's reference and checks what it receives: grants,
// scopes, secrets and their end, the signature, audience, times and thumbprint of
// assertions, issuer and subject of federated ones, and the headers and
// parameters of the metadata service. What is wrong it refuses with the codes
// that Entra ID has for it. Its tokens are signed JWTs, and it takes only those;
// they are signed by ES256, since keys for it are made faster than Microsoft's
// RS256 ones.
package azuretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/credstore/credstore/pkg/provider"
)

// App is an application or an identity in a tenant.
type App struct {
	// Tenant, Client and Object are GUIDs.
	Tenant, Client, Object string
	// Secrets are its client secrets with their ends; the zero time is none.
	Secrets map[string]time.Time
	// Certificates are those registered with it.
	Certificates []*x509.Certificate
	// Federated are the issuers of others that it trusts.
	Federated []Federated
	// Resource is the resource id of a managed identity.
	Resource string
	// Claims are put into its tokens in place of the right ones.
	Claims map[string]any
}

// Federated is a federated credential: tokens of an issuer about one subject.
type Federated struct {
	Issuer, Subject, Audience string
	Key                       crypto.PublicKey
}

// Server is the stand-in. Its methods may be called at any time.
type Server struct {
	// URL is its authority and its registry, Metadata its metadata service.
	URL, Metadata string
	// CAPEM is the certificate that its TLS shows.
	CAPEM string

	key *ecdsa.PrivateKey

	mu       sync.Mutex // guards what follows
	apps     []*App
	machine  []*App // system-assigned first
	service  string // the secret of App Service, "" for a virtual machine
	calls    int
	down     bool
	replies  []reply
	assigned map[string]bool // the ids of assertions that were used
}

type reply struct {
	status int
	header http.Header
	body   string
}

// Resources are what tokens can be asked for.
var resources = []string{
	"https://management.azure.com", "https://management.usgovcloudapi.net", "https://management.chinacloudapi.cn",
	"https://vault.azure.net", "https://containerregistry.azure.net", "https://containerregistry.azure.us",
	"https://containerregistry.azure.cn", "6dae42f8-4368-4678-94ff-3960e28e3630",
}

// New starts a server, which stops when the test ends.
func New(t testing.TB, apps ...*App) *Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{key: key, apps: apps, assigned: map[string]bool{}}
	authority := http.NewServeMux()
	authority.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.discovery)
	authority.HandleFunc("POST /{tenant}/oauth2/v2.0/token", s.token)
	authority.HandleFunc("POST /oauth2/exchange", s.exchange)
	tls := httptest.NewTLSServer(s.count(authority))
	t.Cleanup(tls.Close)
	s.URL = tls.URL
	s.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}))

	machine := http.NewServeMux()
	machine.HandleFunc("GET /metadata/identity/oauth2/token", s.identity)
	machine.HandleFunc("GET /msi/token", s.identity)
	plain := httptest.NewServer(s.count(machine))
	t.Cleanup(plain.Close)
	s.Metadata = plain.URL
	return s
}

// Egress lets a vendor connect to the server.
func (s *Server) Egress() provider.Egress {
	return provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// Add adds an application.
func (s *Server) Add(a *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps = append(s.apps, a)
}

// SetSecrets replaces the secrets of an application.
func (s *Server) SetSecrets(client string, secrets map[string]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.apps {
		if a.Client == client {
			a.Secrets = secrets
		}
	}
}

// SetMachine says which identities the machine has; nil when none is
// system-assigned. With a secret the machine is a host of App Service, whose
// IDENTITY_ENDPOINT is Metadata + "/msi/token".
func (s *Server) SetMachine(secret string, systemAssigned *App, userAssigned ...*App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.service, s.machine = secret, append([]*App{systemAssigned}, userAssigned...)
}

// Calls counts the requests so far.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Stop makes the server close each connection without an answer, until the
// function that it returns is called.
func (s *Server) Stop() func() {
	set := func(down bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.down = down
	}
	set(true)
	return func() { set(false) }
}

// Reply makes the server answer the next request with this, whatever it is.
func (s *Server) Reply(status int, header http.Header, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies = append(s.replies, reply{status, header, body})
}

// count counts requests, and answers those that are not to be served.
func (s *Server) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.calls++
		down := s.down
		var canned *reply
		if len(s.replies) > 0 {
			canned = &s.replies[0]
			s.replies = s.replies[1:]
		}
		s.mu.Unlock()
		switch {
		case down:
			drop(w)
		case canned != nil:
			maps.Copy(w.Header(), canned.header)
			w.WriteHeader(canned.status)
			_, _ = w.Write([]byte(canned.body)) // a client that went away is not the test's concern
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// drop closes the connection under an answer.
func drop(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var conn net.Conn
	conn, _, err := hijacker.Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// Token makes an access token of an application for an audience, signed with the
// server's key and changed by edit, which may be nil.
func (s *Server) Token(a *App, audience string, edit func(jwt.MapClaims)) string {
	now := time.Now()
	claims := jwt.MapClaims{
		"aud": audience, "iss": "https://sts.windows.net/" + a.Tenant + "/", "iat": now.Unix(), "nbf": now.Unix(),
		"exp": now.Add(time.Hour).Unix(), "appid": a.Client, "tid": a.Tenant, "oid": a.Object, "sub": a.Object,
		"idtyp": "app", "ver": "1.0", "uti": uuid.NewString(),
	}
	if a.Resource != "" {
		claims["xms_mirid"] = a.Resource
	}
	maps.Copy(claims, a.Claims)
	if edit != nil {
		edit(claims)
	}
	return s.sign(claims)
}

// sign cannot fail with a key that was just made.
func (s *Server) sign(claims jwt.Claims) string {
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(s.key)
	if err != nil {
		return ""
	}
	return signed
}

// CheckToken says what is wrong with an access token of the server for an
// audience; nil when nothing is.
func (s *Server) CheckToken(token, audience string) error {
	_, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return &s.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(audience), jwt.WithExpirationRequired())
	return err
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // as above
}

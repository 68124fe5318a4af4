package registrytest

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	tokenService = "registry of a test"
	tokenIssuer  = "token server of a test"
)

// TokenServer gives tokens to those who show a password (GET) or the refresh
// token (POST). The registry checks their signature by the certificate beside it.
type TokenServer struct {
	// Refresh is the refresh token that stands for the user RefreshUser.
	Refresh     string
	RefreshUser string

	server *httptest.Server
	users  map[string]string
	signer tls.Certificate
	bundle string
	// forge makes it sign with a key that the registry does not know.
	forge  atomic.Bool
	forger tls.Certificate
	calls  atomic.Int32
	// anybody makes it give tokens to everybody.
	anybody bool
}

func newTokenServer(t testing.TB, ca *authority, users map[string]string) *TokenServer {
	t.Helper()
	s := &TokenServer{
		Refresh: rand.Text(), RefreshUser: "refresher", users: users,
		signer: ca.leaf(t), forger: newAuthority(t).leaf(t),
	}
	s.bundle = encode("CERTIFICATE", s.signer.Certificate[0])
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf(t)}, MinVersion: tls.VersionTLS12}
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

func (s *TokenServer) url() string  { return s.server.URL + "/token" }
func (s *TokenServer) host() string { return strings.TrimPrefix(s.server.URL, "https://") }

// Calls returns how many requests the token server got.
func (s *TokenServer) Calls() int { return int(s.calls.Load()) }

// Forge makes the token server sign with a key that the registry does not know.
func (s *TokenServer) Forge() { s.forge.Store(true) }

func (s *TokenServer) serve(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	user := s.subject(r)
	if user == "" || r.FormValue("service") != tokenService {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": "UNAUTHORIZED", "message": "wrong user name or password"}}})
		return
	}
	token, err := s.sign(user)
	if err != nil {
		http.Error(w, "cannot sign", http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 60})
}

// subject returns who shows the right secret, "" for nobody.
func (s *TokenServer) subject(r *http.Request) string {
	if r.Method == http.MethodPost {
		if r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == s.Refresh {
			return s.RefreshUser
		}
		return ""
	}
	name, password, _ := r.BasicAuth()
	if s.anybody {
		return name
	}
	want, known := s.users[name]
	if !known || subtle.ConstantTimeCompare([]byte(want), []byte(password)) != 1 {
		return ""
	}
	return name
}

// sign makes a token as the registry's specification has it
// (https://distribution.github.io/distribution/spec/auth/jwt/).
func (s *TokenServer) sign(user string) (string, error) {
	with := s.signer
	if s.forge.Load() {
		with = s.forger
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": tokenIssuer, "sub": user, "aud": tokenService, "jti": rand.Text(),
		"exp": now.Add(time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "access": []any{},
	})
	token.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(with.Certificate[0])}
	return token.SignedString(with.PrivateKey)
}

// Package ibmtest owns a stand-in for IBM Cloud's Identity and Access Management.
// It is for tests, and no part of what is shipped.
//
// It is written from IBM's reference and checks what it receives: method, type of
// contents, the kind of answer asked for, the grant and the key. Its tokens are
// signed JWTs.
package ibmtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"mime"
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

// Owner is whose a key is.
type Owner struct {
	// Account is the account's id, and IAM the id of the user or service in it.
	Account, IAM string
	// Email is a user's; services have none.
	Email string
	// Name and Subject are for people; a user's subject is the e-mail address.
	Name, Subject string
}

// Server is the stand-in. Its methods may be called at any time.
type Server struct {
	// URL is its endpoint, and CAPEM the certificate that its TLS shows.
	URL, CAPEM string

	key *ecdsa.PrivateKey

	mu      sync.Mutex // guards what follows
	owners  map[string]Owner
	calls   int
	down    bool
	replies []reply
}

type reply struct {
	status int
	header http.Header
	body   string
}

// New starts a server that knows some keys, and stops when the test ends.
func New(t testing.TB, owners map[string]Owner) *Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{key: key, owners: owners}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /identity/token", s.token)
	server := httptest.NewTLSServer(s.count(mux))
	t.Cleanup(server.Close)
	s.URL = server.URL
	s.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return s
}

// Egress lets a vendor connect to the server.
func (s *Server) Egress() provider.Egress {
	return provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
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
			if hijacker, ok := w.(http.Hijacker); ok {
				if conn, _, err := hijacker.Hijack(); err == nil {
					_ = conn.Close() // the client sees it closed either way
				}
			}
		case canned != nil:
			maps.Copy(w.Header(), canned.header)
			w.WriteHeader(canned.status)
			_, _ = w.Write([]byte(canned.body)) // a client that went away is not the test's concern
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// token exchanges a key.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil || kind != "application/x-www-form-urlencoded" || r.ParseForm() != nil:
		refuse(w, http.StatusUnsupportedMediaType, "BXNIM0120E", "Content type is not supported.")
		return
	case r.Header.Get("Accept") != "application/json":
		refuse(w, http.StatusNotAcceptable, "BXNIM0121E", "The kind of answer is not supported.")
		return
	case len(r.URL.RawQuery) > 0:
		refuse(w, http.StatusBadRequest, "BXNIM0122E", "Parameters belong into the body.")
		return
	case r.PostForm.Get("grant_type") != "urn:ibm:params:oauth:grant-type:apikey":
		refuse(w, http.StatusBadRequest, "BXNIM0137E", "Provided grant_type is not supported.")
		return
	}
	s.mu.Lock()
	owner, known := s.owners[r.PostForm.Get("apikey")]
	s.mu.Unlock()
	if !known {
		refuse(w, http.StatusBadRequest, "BXNIM0415E", "Provided API key could not be found.")
		return
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iam_id": owner.IAM, "id": owner.IAM, "realmid": "IBMid", "jti": uuid.NewString(), "sub": owner.Subject,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "iss": "https://iam.cloud.ibm.com/identity",
		"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "scope": "ibm openid", "client_id": "default", "acr": 1,
		"amr": []string{"pwd"},
	}
	for name, value := range map[string]string{"email": owner.Email, "name": owner.Name} {
		if value != "" {
			claims[name] = value
		}
	}
	if owner.Account != "" {
		claims["account"] = map[string]any{"valid": true, "bss": owner.Account, "frozen": true}
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(s.key)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "BXNIM0001E", "Internal error.")
		return
	}
	write(w, http.StatusOK, map[string]any{
		"access_token": signed, "refresh_token": "not_supported", "token_type": "Bearer",
		"expires_in": 3600, "expiration": now.Add(time.Hour).Unix(), "scope": "ibm openid",
	})
}

// CheckToken says what is wrong with an access token of the server; nil when
// nothing is.
func (s *Server) CheckToken(token string) error {
	_, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return &s.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithExpirationRequired(), jwt.WithIssuer("https://iam.cloud.ibm.com/identity"))
	return err
}

// refuse answers as IAM does; the request's id differs in every answer.
func refuse(w http.ResponseWriter, status int, code, message string) {
	write(w, status, map[string]any{
		"context":   map[string]string{"requestId": uuid.NewString(), "requestType": "incoming.Identity_Token"},
		"errorCode": code, "errorMessage": message,
	})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that went away is not the test's concern
}

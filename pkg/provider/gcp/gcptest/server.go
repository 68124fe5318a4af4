package gcptest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is the fake. It is safe for concurrent use.
type Server struct {
	t      testing.TB
	server *httptest.Server
	signer *rsa.PrivateKey // of ID tokens

	mu       sync.Mutex // guards what follows
	now      func() time.Time
	accounts map[string]*account
	tokens   map[string]Holder
	allowed  map[[2]string]bool
	pools    map[string]*Pool
	apiKeys  map[string]string
	calls    int
	down     bool
	answer   http.HandlerFunc
}

// account is a service account.
type account struct {
	keys     map[string]*rsa.PublicKey // by id
	disabled bool
}

// Holder is whose an access token is.
type Holder struct {
	// Name is an e-mail address, or a principal of a workload identity pool.
	Name   string
	Scopes []string
	End    time.Time
}

// Account is a service account with one of its keys.
type Account struct {
	Email, KeyID string
	// Document is the JSON key file, as Google makes it for download.
	Document string
	// PrivateKey is the key alone, as it stands in the document.
	PrivateKey string
}

// New starts a fake that ends with the test. The keys of accounts and pools are
// taken from a set of twelve in turn, since making one takes long: a test that
// uses more has some of them twice.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		t: t, now: time.Now, signer: keys(t)[0],
		accounts: map[string]*account{}, tokens: map[string]Holder{}, allowed: map[[2]string]bool{},
		pools: map[string]*Pool{}, apiKeys: map[string]string{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /v1/token", s.exchange)
	mux.HandleFunc("POST /v1/projects/-/serviceAccounts/{call}", s.iam)
	mux.HandleFunc("GET /v1beta/models", s.models)
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		down, answer := s.down, s.answer
		s.calls++
		s.mu.Unlock()
		switch {
		case down:
			s.hangUp(w)
		case answer != nil:
			answer(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.server.Close)
	return s
}

// TokenURL is where assertions are exchanged.
func (s *Server) TokenURL() string { return s.server.URL + "/token" }

// STSURL is the token endpoint of the Security Token Service.
func (s *Server) STSURL() string { return s.server.URL + "/v1/token" }

// IAMCredentialsURL is the root of the IAM Credentials API.
func (s *Server) IAMCredentialsURL() string { return s.server.URL }

// APIKeyURL is a listing that takes API keys.
func (s *Server) APIKeyURL() string { return s.server.URL + "/v1beta/models?pageSize=1" }

// CAPEM is the certificate to trust.
func (s *Server) CAPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}))
}

// SetNow sets the clock that times are checked against.
func (s *Server) SetNow(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// Calls counts the requests so far.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Stop makes the fake break every connection until start is called.
func (s *Server) Stop() (start func()) {
	set := func(down bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.down = down
	}
	set(true)
	return func() { set(false) }
}

// Answer makes h answer every request, until it is called with nil.
func (s *Server) Answer(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

// AddAccount adds a service account, or one more key to it.
func (s *Server) AddAccount(email string) Account {
	s.t.Helper()
	key := nextKey(s.t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	a := Account{
		Email: email, KeyID: hex.EncodeToString(random(20)),
		PrivateKey: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}
	_, domain, _ := strings.Cut(email, "@")
	document, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": strings.TrimSuffix(domain, ".iam.gserviceaccount.com"), "private_key_id": a.KeyID,
		"private_key": a.PrivateKey, "client_email": email, "client_id": "104857600000000000001",
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": tokenAudience, "universe_domain": "googleapis.com",
	}, "", "  ")
	if err != nil {
		s.t.Fatal(err)
	}
	a.Document = string(document)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accounts[email] == nil {
		s.accounts[email] = &account{keys: map[string]*rsa.PublicKey{}}
	}
	s.accounts[email].keys[a.KeyID] = &key.PublicKey
	return a
}

// DeleteKey deletes a key of an account.
func (s *Server) DeleteKey(a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.accounts[a.Email].keys, a.KeyID)
}

// Disable disables an account.
func (s *Server) Disable(email string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[email].disabled = true
}

// Allow grants caller the role of a token creator on an account.
func (s *Server) Allow(caller, email string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed[[2]string{caller, email}] = true
}

// AddAPIKey adds an API key. reason is that of google.rpc.ErrorInfo that it is
// answered with, as "API_KEY_SERVICE_BLOCKED"; "" for a key that works.
func (s *Server) AddAPIKey(key, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apiKeys[key] = reason
}

// Holder returns whose an access token is that the fake made; the zero value of
// any other.
func (s *Server) Holder(token string) Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[token]
}

// IDTokenKey is the public half of the key that ID tokens are signed with.
func (s *Server) IDTokenKey() *rsa.PublicKey { return &s.signer.PublicKey }

// issue makes an access token. The lock is held.
func (s *Server) issue(name string, scopes []string, life time.Duration) (string, time.Time) {
	token := "ya29.c." + hex.EncodeToString(random(24))
	end := s.now().Add(life).Truncate(time.Second)
	s.tokens[token] = Holder{Name: name, Scopes: scopes, End: end}
	return token, end
}

func random(n int) []byte {
	b := make([]byte, n)
	// It never fails.
	_, _ = rand.Read(b)
	return b
}

// hangUp breaks the connection.
func (s *Server) hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		s.t.Error(err)
	}
}

// reply writes an answer in JSON.
func reply(w http.ResponseWriter, status int, message any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	// Who hung up does not read it.
	_ = json.NewEncoder(w).Encode(message)
}

// oauthError writes an error of OAuth.
func oauthError(w http.ResponseWriter, status int, code, description string) {
	reply(w, status, map[string]string{"error": code, "error_description": description})
}

// apiError writes an error of Google's APIs; info are the fields of an ErrorInfo.
func apiError(w http.ResponseWriter, status int, code, message string, info map[string]any) {
	body := map[string]any{"code": status, "message": message, "status": code}
	if info != nil {
		info["@type"] = "type.googleapis.com/google.rpc.ErrorInfo"
		body["details"] = []any{map[string]any{"@type": "type.googleapis.com/google.rpc.Help", "links": []any{}}, info}
	}
	reply(w, status, map[string]any{"error": body})
}

package github_test

import (
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// fake is GitHub's API for Apps. It checks an App's token as GitHub does, with
// the public half of the App's keys, and that installations are the App's.
type fake struct {
	server *httptest.Server

	mu     sync.Mutex // guards what follows
	apps   map[string]*fakeApp
	tokens map[string]minted
	calls  int
	down   bool
	answer http.HandlerFunc
	seen   []string
}

// fakeApp is an App; it is found by its id and by its client id.
type fakeApp struct {
	id            int64
	slug          string
	keys          []*rsa.PublicKey
	permissions   map[string]string
	installations map[int64]*fakeInstallation
}

type fakeInstallation struct {
	account      string
	suspended    bool
	repositories []string
}

// minted is what a token of an installation may do.
type minted struct {
	Installation int64
	Repositories []string
	Permissions  map[string]string
}

func newFake(t *testing.T) *fake {
	f := &fake{apps: map[string]*fakeApp{}, tokens: map[string]minted{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v3/app", f.asApp(f.getApp))
	mux.HandleFunc("GET /api/v3/app/installations", f.asApp(f.listInstallations))
	mux.HandleFunc("GET /api/v3/app/installations/{id}", f.asApp(f.getInstallation))
	mux.HandleFunc("POST /api/v3/app/installations/{id}/access_tokens", f.asApp(f.createToken))
	f.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls++
		f.seen = append(f.seen, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), "/api/v3"))
		switch {
		case f.down:
			panic(http.ErrAbortHandler) // net/http's way to break a connection
		case f.answer != nil:
			f.answer(w, r)
		case r.Header.Get("User-Agent") == "" || strings.HasPrefix(r.Header.Get("User-Agent"), "Go-http-client"):
			http.Error(w, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header", http.StatusForbidden)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) url() string { return f.server.URL + "/api/v3" }

func (f *fake) caPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}))
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fake) stop() (start func()) {
	set := func(down bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.down = down
	}
	set(true)
	return func() { set(false) }
}

func say(w http.ResponseWriter, status int, message any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	// Who hung up does not read it.
	_ = json.NewEncoder(w).Encode(message)
}

func refuse(w http.ResponseWriter, status int, message string) {
	say(w, status, map[string]string{"message": message, "documentation_url": "https://docs.github.com/rest", "status": strconv.Itoa(status)})
}

// asApp lets a request through that has a good token of an App.
func (f *fake) asApp(next func(http.ResponseWriter, *http.Request, *fakeApp)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		signed, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
		var claims jwt.RegisteredClaims
		if _, _, err := parser.ParseUnverified(signed, &claims); err != nil {
			refuse(w, http.StatusUnauthorized, "A JSON web token could not be decoded")
			return
		}
		a := f.apps[claims.Issuer]
		if a == nil {
			refuse(w, http.StatusNotFound, "Integration not found")
			return
		}
		if len(a.keys) == 0 {
			refuse(w, http.StatusUnauthorized, "Integration must generate a public key")
			return
		}
		signer := slices.IndexFunc(a.keys, func(key *rsa.PublicKey) bool {
			_, err := parser.Parse(signed, func(*jwt.Token) (any, error) { return key, nil })
			return err == nil
		})
		now := time.Now()
		switch {
		case signer < 0:
			refuse(w, http.StatusUnauthorized, "A JSON web token could not be decoded")
		case claims.IssuedAt == nil || claims.IssuedAt.After(now):
			refuse(w, http.StatusUnauthorized, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
		case claims.ExpiresAt == nil || claims.ExpiresAt.Before(now):
			refuse(w, http.StatusUnauthorized, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
		case claims.ExpiresAt.After(now.Add(10 * time.Minute)):
			refuse(w, http.StatusUnauthorized, "'Expiration time' claim ('exp') is too far in the future")
		default:
			next(w, r, a)
		}
	}
}

func (f *fake) getApp(w http.ResponseWriter, _ *http.Request, a *fakeApp) {
	say(w, http.StatusOK, map[string]any{
		"id": a.id, "slug": a.slug, "name": "Acme Deployer", "owner": map[string]any{"login": "acme", "id": 1, "type": "Organization"},
		"permissions": a.permissions, "events": []string{"push"}, "installations_count": len(a.installations),
	})
}

func describe(id int64, i *fakeInstallation) map[string]any {
	m := map[string]any{"id": id, "account": map[string]any{"login": i.account, "type": "Organization"}, "suspended_at": nil}
	if i.suspended {
		m["suspended_at"] = "2026-11-01T12:00:00Z"
	}
	return m
}

func (f *fake) listInstallations(w http.ResponseWriter, r *http.Request, a *fakeApp) {
	size, err := strconv.Atoi(r.URL.Query().Get("per_page"))
	if err != nil || size > 100 {
		size = 30
	}
	all := []map[string]any{}
	for id := range int64(1000) {
		if i := a.installations[id]; i != nil && len(all) < size {
			all = append(all, describe(id, i))
		}
	}
	say(w, http.StatusOK, all)
}

// find returns the installation of the path if it is the App's.
func find(w http.ResponseWriter, r *http.Request, a *fakeApp) (int64, *fakeInstallation) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if i := a.installations[id]; err == nil && i != nil {
		return id, i
	}
	refuse(w, http.StatusNotFound, "Not Found")
	return 0, nil
}

func (f *fake) getInstallation(w http.ResponseWriter, r *http.Request, a *fakeApp) {
	if id, i := find(w, r, a); i != nil {
		say(w, http.StatusOK, describe(id, i))
	}
}

func (f *fake) createToken(w http.ResponseWriter, r *http.Request, a *fakeApp) {
	id, i := find(w, r, a)
	if i == nil {
		return
	}
	if i.suspended {
		refuse(w, http.StatusForbidden, "This installation has been suspended")
		return
	}
	m := minted{Installation: id}
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		refuse(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	}
	m.Installation = id
	for _, name := range m.Repositories {
		if !slices.Contains(i.repositories, name) {
			refuse(w, http.StatusUnprocessableEntity, "There is at least one repository that does not exist or is not accessible to the parent installation.")
			return
		}
	}
	for name, level := range m.Permissions {
		if has := a.permissions[name]; has == "" || has == "read" && level != "read" {
			refuse(w, http.StatusUnprocessableEntity, "The permissions requested are not granted to this installation.")
			return
		}
	}
	token := fmt.Sprintf("ghs_%s", hex.EncodeToString([]byte(fmt.Sprintf("installation-%08d", len(f.tokens)))))
	f.tokens[token] = m
	say(w, http.StatusCreated, map[string]any{
		"token": token, "expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		"permissions": a.permissions, "repository_selection": "selected",
	})
}

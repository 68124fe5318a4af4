package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fakeVault is as much of a Vault as a store needs to log in with a token and
// to read secrets, and to fail in ways in which its answers hold secrets.
type fakeVault struct {
	url   string
	token string

	mu      sync.Mutex
	secrets map[string]string // path → value of the key "password"
	broken  map[string]string // path → what is answered in place of JSON
	reads   int
}

func newFakeVault(t *testing.T, token string) *fakeVault {
	f := &fakeVault{token: token, secrets: map[string]string{}, broken: map[string]string{}}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

func (f *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(status int, body any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/secret/data/")
	value, known := f.secrets[path]
	switch {
	case r.Header.Get("X-Vault-Token") != f.token:
		answer(http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
	case strings.HasPrefix(r.URL.Path, "/v1/auth/token/"):
		answer(http.StatusOK, map[string]any{"data": map[string]any{"display_name": "token-e2e", "ttl": 0, "renewable": false}})
	case f.broken[path] != "":
		w.WriteHeader(http.StatusOK)
		_, _ = fmt.Fprint(w, f.broken[path])
	case known:
		f.reads++
		answer(http.StatusOK, map[string]any{"data": map[string]any{
			"data":     map[string]any{"password": value},
			"metadata": map[string]any{"version": 1, "created_time": "2026-01-02T03:04:05Z", "deletion_time": "", "destroyed": false},
		}})
	default:
		answer(http.StatusNotFound, map[string]any{"errors": []string{}})
	}
}

package accesslog_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/credstore/credstore/test/vaultserver/accesslog"
)

func TestCountsAndLines(t *testing.T) {
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Vault's own handlers rewrite the request; the log must not follow.
		r.Method, r.URL.Path = "CHANGED", "/changed"
		if r.Header.Get("X-Vault-Token") == "" {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	var log bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	handler := accesslog.New(next, &log, func() time.Time { return now })
	ask := func(method, target, token string) *httptest.ResponseRecorder {
		t.Helper()
		request := httptest.NewRequest(method, target, strings.NewReader("s3cret-body"))
		if token != "" {
			request.Header.Set("X-Vault-Token", token)
		}
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		return response
	}

	ask("GET", "/v1/secret/data/app?version=2", "s3cret-token")
	ask("GET", "/v1/secret/data/app", "")
	ask("POST", "/v1/auth/approle/login", "s3cret-token")

	const counts = `{"GET /v1/secret/data/app":2,"POST /v1/auth/approle/login":1}` + "\n"
	if got := ask("GET", "/test/requests", "").Body.String(); got != counts {
		t.Errorf("counts are %s, want %s", got, counts)
	}
	if got := ask("DELETE", "/test/requests", "").Body.String(); got != counts {
		t.Errorf("counts before the reset are %s, want %s", got, counts)
	}
	if got := ask("GET", "/test/requests", "").Body.String(); got != "{}\n" {
		t.Errorf("counts after the reset are %s, want none", got)
	}
	if got := ask("POST", "/test/requests", "").Code; got != http.StatusMethodNotAllowed {
		t.Errorf("POST answers %d, want %d", got, http.StatusMethodNotAllowed)
	}

	const lines = `{"time":"2026-01-02T03:04:05Z","method":"GET","path":"/v1/secret/data/app","query":"version=2","status":200}
{"time":"2026-01-02T03:04:05Z","method":"GET","path":"/v1/secret/data/app","status":403}
{"time":"2026-01-02T03:04:05Z","method":"POST","path":"/v1/auth/approle/login","status":200}
`
	if got := log.String(); got != lines {
		t.Errorf("log is\n%swant\n%s", got, lines)
	}
}

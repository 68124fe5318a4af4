//go:build conformance

package app_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/credstore/credstore/pkg/provider/vault/vaulttest"
)

// The login's token ends: one that can be replaced is, and nobody notices; one
// that cannot leaves the last good set, says so, and is used as soon as it is
// replaced in credstore.
func TestConformanceVaultLoginEnds(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)

	t.Run("AppRole", func(t *testing.T) {
		roleID, secretID := v.AppRole(t, "short", map[string]any{"token_policies": "app", "token_ttl": "2s", "token_max_ttl": "3s"})
		s.addLogin(t, "role", appRolePayload(roleID, secretID))
		s.addStore(t, "role", "role", at(v), time.Second)
		v.Put(t, "app/role", map[string]string{"k": "0"})
		i := s.addWorkload(t, "role", secretItem("f", "role", "app/role", "k"))
		i.complete(t)
		ok := s.itemIs(t, "role", "f", itemOK, "")
		begin := logins(t, v)
		for n := range 8 {
			if n == 5 {
				v.EndLogins(t) // revoked, not expired
			}
			content := fmt.Sprint(n + 1)
			v.Put(t, "app/role", map[string]string{"k": content})
			i.file(t, soon, "f", content)
			if problem := ok(); problem != "" {
				t.Error(problem)
			}
		}
		if n := logins(t, v) - begin; n < 2 {
			t.Errorf("%d logins while several tokens ended", n)
		} else {
			t.Logf("%d logins in 8 changes", n)
		}
	})

	t.Run("StaticToken", func(t *testing.T) {
		s.addLogin(t, "static", vaultTokenPayload(v.Token(t, map[string]any{"policies": []string{"app"}, "ttl": "10s", "renewable": false})))
		s.addStore(t, "static", "static", at(v), time.Second)
		v.Put(t, "app/static", map[string]string{"k": "first"})
		i := s.addWorkload(t, "static", secretItem("f", "static", "app/static", "k"))
		i.complete(t)
		set := i.published(t)
		s.item(t, soon, "static", "f", itemStale, "login: refused: 403")
		s.item(t, soon, "static", "f", itemStale, "invalid token")
		v.Put(t, "app/static", map[string]string{"k": "second"})
		if got := i.published(t); got != set {
			t.Error("the set was written again when the token had ended")
		}
		i.has(t, map[string]string{"f": "first"})
		// A refused login is left alone for half a minute at least, so what comes
		// now is not a poll's.
		s.changeLogin(t, "static", vaultTokenPayload(v.Token(t, map[string]any{"policies": []string{"app"}, "ttl": "1h"})))
		took := i.file(t, soon, "f", "second")
		s.item(t, soon, "static", "f", itemOK, "")
		t.Logf("the new token's first value was in the file after %s", took.Round(time.Millisecond))
	})

	t.Run("SecretID", func(t *testing.T) {
		roleID, secretID := v.AppRole(t, "rotated", map[string]any{"token_policies": "app", "token_ttl": "1h"})
		s.addLogin(t, "rotated", appRolePayload(roleID, secretID))
		s.addStore(t, "rotated", "rotated", at(v), time.Hour)
		v.Put(t, "app/rotated", map[string]string{"k": "first"})
		i := s.addWorkload(t, "rotated", secretItem("f", "rotated", "app/rotated", "k"))
		i.complete(t)
		s.changeLogin(t, "rotated", appRolePayload(roleID, "wrong"))
		s.item(t, soon, "rotated", "f", itemStale, "login: refused: 400 invalid role or secret ID")
		i.has(t, map[string]string{"f": "first"})
		v.Put(t, "app/rotated", map[string]string{"k": "second"})
		s.changeLogin(t, "rotated", appRolePayload(roleID, secretID))
		// The interval is an hour: nothing but the new version makes this happen.
		i.file(t, soon, "f", "second")
		s.item(t, soon, "rotated", "f", itemOK, "")
	})
}

// logins counts the AppRole logins that Vault has seen.
func logins(t *testing.T, v *vaulttest.Server) int {
	t.Helper()
	_, counts := v.Call(t, "", http.MethodGet, "/test/requests", nil)
	n, _ := counts["PUT /v1/auth/approle/login"].(float64)
	return int(n)
}

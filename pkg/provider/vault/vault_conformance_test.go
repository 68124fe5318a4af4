//go:build conformance

package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
	"github.com/credstore/credstore/pkg/provider/vault/vaulttest"
)

func realConfig(v *vaulttest.Server) Config {
	return Config{Address: v.Address, Egress: loopback}
}

func openReal(t *testing.T, v *vaulttest.Server, p credential.Login) *Session {
	t.Helper()
	s, err := Open(t.Context(), realConfig(v), p)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// The suite that the fake passes, against the real one: what the fake answers is
// what Vault does.
func TestConformanceSuite(t *testing.T) {
	v := vaulttest.New(t)
	v.Policy(t, "suite", "suite/")
	role, secret := v.AppRole(t, "suite", map[string]any{"token_policies": "suite", "token_ttl": "1h"})
	token := v.Token(t, map[string]any{"policies": []string{"suite"}, "ttl": "1h", "display_name": "suite"})
	opened := func(p credential.Login) func(context.Context) (provider.Session, error) {
		return func(ctx context.Context) (provider.Session, error) {
			s, err := Open(ctx, realConfig(v), p)
			if err != nil {
				return nil, err
			}
			return s, nil
		}
	}
	for _, test := range []struct {
		name        string
		good, wrong credential.Login
		end         func(*testing.T)
	}{
		{
			"AppRole", appRoleLogin(t, role, secret, ""), appRoleLogin(t, role, "wrong-secret-id", ""),
			func(t *testing.T) {
				before := len(v.Accessors(t))
				v.EndLogins(t)
				if after := len(v.Accessors(t)); after >= before {
					t.Fatalf("%d tokens before their end, %d after it", before, after)
				}
			},
		},
		{"Token", tokenLogin(t, token), tokenLogin(t, "hvs.wrong-token-canary"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			providertest.Run(t, providertest.Harness{
				Open:        opened(test.good),
				OpenRefused: opened(test.wrong),
				Put:         func(t *testing.T, path string, values map[string]string) uint32 { return v.Put(t, path, values) },
				Delete:      func(t *testing.T, path string, n uint32) { v.Delete(t, path, n) },
				Undelete:    func(t *testing.T, path string, n uint32) { v.Undelete(t, path, n) },
				Destroy:     func(t *testing.T, path string, n uint32) { v.Destroy(t, path, n) },
				EndLogins:   test.end,
				Stop: func(t *testing.T) func() {
					v.Stop(t)
					return func() { v.Start(t) }
				},
				Secrets: []string{secret, token, "wrong-secret-id", "hvs.wrong-token-canary"},
			})
		})
	}
}

// The words that Vault finds for each answer, as operators will read them.
func TestConformanceAnswers(t *testing.T) {
	v := vaulttest.New(t)
	v.Policy(t, "app", "app/")
	role, secret := v.AppRole(t, "app", map[string]any{"token_policies": "app"})
	one := v.Put(t, "app/db", map[string]string{"k": "1"})
	two := v.Put(t, "app/db", map[string]string{"k": "2"})
	v.Delete(t, "app/db", two)
	v.Destroy(t, "app/db", one)
	byRole := openReal(t, v, appRoleLogin(t, role, secret, ""))
	root := openReal(t, v, tokenLogin(t, v.RootToken))
	elsewhere := func(mount string) *Session {
		cfg := realConfig(v)
		cfg.Mount = mount
		s, err := Open(t.Context(), cfg, tokenLogin(t, v.RootToken))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(context.Background()) })
		return s
	}
	for _, test := range []struct {
		name    string
		session *Session
		ref     provider.Ref
		kind    error
		text    string // a prefix
	}{
		{"missing", byRole, provider.Ref{Path: "app/none"}, provider.ErrMissing, "read: no such secret: 404 there is nothing at this path"},
		{"missing version", byRole, provider.Ref{Path: "app/db", Version: 9}, provider.ErrMissing, "read: no such secret: 404 there is no version 9 at this path"},
		{"deleted", byRole, provider.Ref{Path: "app/db"}, provider.ErrDeleted, "read: version deleted: 404 version 2 was deleted at 20"},
		{"destroyed", byRole, provider.Ref{Path: "app/db", Version: one}, provider.ErrDestroyed, "read: version destroyed: 404 version 1 was destroyed"},
		{"forbidden", byRole, provider.Ref{Path: "other/db"}, provider.ErrRefused, "read: refused: 403 permission denied"},
		{"no such mount", elsewhere("nowhere"), provider.Ref{Path: "app/db"}, provider.ErrMissing, "read: no such secret: 404 no handler for route"},
		{"other engine", elsewhere("sys"), provider.Ref{Path: "app/db"}, provider.ErrMissing, "read: no such secret: 404 "},
		{"root reads too", root, provider.Ref{Path: "app/none"}, provider.ErrMissing, "read: no such secret: 404 there is nothing at this path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.session.Fetch(t.Context(), test.ref)
			if !errors.Is(err, test.kind) || !strings.HasPrefix(err.Error(), test.text) {
				t.Errorf("error is %v; want %q", err, test.text)
			}
		})
	}
	for _, test := range []struct {
		name  string
		login credential.Login
		text  string
	}{
		{"wrong secret id", appRoleLogin(t, role, "wrong", ""), "login: refused: 400 invalid role or secret ID"},
		{"wrong role", appRoleLogin(t, "wrong", secret, ""), "login: refused: 400 invalid role or secret ID"},
		{"wrong mount", appRoleLogin(t, role, secret, "nowhere"), "login: refused: 403 permission denied"},
		{"wrong token", tokenLogin(t, "hvs.wrong"), "login: refused: 403 permission denied; invalid token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Open(t.Context(), realConfig(v), test.login)
			if err == nil {
				_ = s.Close(t.Context())
			}
			if !errors.Is(err, provider.ErrRefused) || err.Error() != test.text {
				t.Errorf("error is %v; want %q", err, test.text)
			}
		})
	}
}

func TestConformanceSealed(t *testing.T) {
	v := vaulttest.New(t)
	v.Put(t, "x", map[string]string{"k": "1"})
	s := openReal(t, v, tokenLogin(t, v.RootToken))
	v.Seal(t)
	_, err := read(s, "x")
	if want := "read: store unavailable: 503 Vault is sealed"; err == nil || err.Error() != want || !errors.Is(err, provider.ErrUnavailable) {
		t.Errorf("error is %v, want %q", err, want)
	}
	v.Unseal(t)
	if got, err := read(s, "x"); err != nil || got != "1" {
		t.Errorf("after unsealing: %q, %v", got, err)
	}
}

// A token that expires is replaced by a login, and one that is renewed lives on.
func TestConformanceExpiryAndRenewal(t *testing.T) {
	v := vaulttest.New(t)
	v.Policy(t, "app", "app/")
	v.Put(t, "app/x", map[string]string{"k": "1"})

	t.Run("expired", func(t *testing.T) {
		role, secret := v.AppRole(t, "short", map[string]any{"token_policies": "app", "token_ttl": "1h"})
		s := openReal(t, v, appRoleLogin(t, role, secret, ""))
		first := s.lease.client.Token()
		// The session is not told: the read finds it out.
		s.lease.expire = time.Time{}
		expire(t, v, first)
		if got, err := read(s, "app/x"); err != nil || got != "1" {
			t.Errorf("after the token's end: %q, %v", got, err)
		}
		if s.lease.client.Token() == first {
			t.Error("the token is the same")
		}
	})
	t.Run("renewed", func(t *testing.T) {
		role, secret := v.AppRole(t, "long", map[string]any{"token_policies": "app", "token_ttl": "1h"})
		s := openReal(t, v, appRoleLogin(t, role, secret, ""))
		first := s.lease
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.lease == first || s.lease.client.Token() != first.client.Token() || !s.lease.expire.After(first.expire) || !s.lease.renewable {
			t.Errorf("expires %s, then %s", first.expire, s.lease.expire)
		}
	})
	t.Run("no longer renewable", func(t *testing.T) {
		role, secret := v.AppRole(t, "capped", map[string]any{"token_policies": "app", "token_ttl": "1h", "token_max_ttl": "1h"})
		s := openReal(t, v, appRoleLogin(t, role, secret, ""))
		first := s.lease.client.Token()
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Whatever is left after the renewal, the session goes on.
		s.lease.renewable = false
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.lease.client.Token() == first {
			t.Error("no new login")
		}
	})
	t.Run("batch tokens", func(t *testing.T) {
		role, secret := v.AppRole(t, "batch", map[string]any{"token_policies": "app", "token_ttl": "1h", "token_type": "batch"})
		s := openReal(t, v, appRoleLogin(t, role, secret, ""))
		if got, err := read(s, "app/x"); err != nil || got != "1" {
			t.Errorf("read: %q, %v", got, err)
		}
		if s.lease.renewable {
			t.Error("Vault says that a batch token is renewable")
		}
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("token of a person", func(t *testing.T) {
		token := v.Token(t, map[string]any{"policies": []string{"app"}, "ttl": "1h", "display_name": "ci"})
		s := openReal(t, v, tokenLogin(t, token))
		if who, err := s.Identify(t.Context()); err != nil || who != "token-ci" {
			t.Errorf("Identify: %q, %v", who, err)
		}
		expire(t, v, token)
		_, err := read(s, "app/x")
		var e *provider.Error
		if !errors.As(err, &e) || !e.LoginLost || err.Error() != "login: refused: 403 permission denied; invalid token" {
			t.Errorf("error is %v", err)
		}
	})
}

// expire leaves a token one second to live, and returns when Vault no longer knows
// it. A token that had as little from the beginning might end before it was used.
func expire(t *testing.T, v *vaulttest.Server, token string) {
	t.Helper()
	v.Write(t, "auth/token/renew", map[string]any{"token": token, "increment": "1s"})
	const patience = 2 * time.Minute
	for began := time.Now(); time.Since(began) < patience; {
		if status, _ := v.Call(t, token, http.MethodGet, "/v1/auth/token/lookup-self", nil); status == http.StatusForbidden {
			return
		}
		time.Sleep(20 * time.Millisecond) // a real server's clock
	}
	t.Fatalf("the token did not expire within %s", patience)
}

func TestConformanceCloseLeavesNoToken(t *testing.T) {
	v := vaulttest.New(t)
	role, secret := v.AppRole(t, "app", map[string]any{"token_ttl": "1h"})
	before := v.Accessors(t)
	s, err := Open(t.Context(), realConfig(v), appRoleLogin(t, role, secret, ""))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(v.Accessors(t)); n != len(before)+1 {
		t.Fatalf("%d tokens after the login, %d before", n, len(before))
	}
	if who, err := s.Identify(t.Context()); err != nil || !strings.HasPrefix(who, "approle role app (entity ") {
		t.Errorf("Identify: %q, %v", who, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(len(before), len(v.Accessors(t))); diff != "" {
		t.Errorf("tokens after Close (-want +got):\n%s", diff)
	}
}

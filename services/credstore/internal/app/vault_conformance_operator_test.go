//go:build conformance

package app_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/provider/vault/vaulttest"
)

// TestSecretStore says whose login it is or what is wrong, over TLS as well;
// RefreshSecretStore reads what is in use, now.
func TestConformanceVaultTestAndRefresh(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Hour)
	roleID, _ := v.AppRole(t, "other", map[string]any{"token_policies": "app"})
	s.addLogin(t, "wrong", appRolePayload(roleID, "wrong"))
	front := tlsFront(t, v)
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	foreign, err := os.ReadFile(s.cfg.Dir.CA())
	if err != nil {
		t.Fatal(err)
	}
	s.addStore(t, "wrong-login", "wrong", at(v), time.Hour)
	s.addStore(t, "over-tls", "vault-login", &credstorev1.VaultProvider{Address: front.URL, CaPem: trusted}, time.Hour)
	s.addStore(t, "untrusted", "vault-login", &credstorev1.VaultProvider{Address: front.URL, CaPem: string(foreign)}, time.Hour)
	s.addStore(t, "nobody-there", "vault-login", &credstorev1.VaultProvider{Address: "http://127.0.0.1:1"}, time.Hour)
	s.addStore(t, "not-allowed", "vault-login", &credstorev1.VaultProvider{Address: "http://[::1]:8200"}, time.Hour)

	for _, c := range []struct {
		store, identity, message string
	}{
		{store: "vault", identity: "approle role credstore (entity "},
		{store: "over-tls", identity: "approle role credstore (entity "},
		{store: "wrong-login", message: "login: refused: 400 invalid role or secret ID"},
		{store: "untrusted", message: "the certificate is signed by an unknown authority"},
		{store: "nobody-there", message: "connection refused"},
		{store: "not-allowed", message: "this server does not connect to ::1: it is a loopback address"},
	} {
		t.Run("Test/"+c.store, func(t *testing.T) {
			got, err := s.api.Stores.TestSecretStore(t.Context(), &credstorev1.TestSecretStoreRequest{Name: storeOf(c.store)})
			if err != nil {
				t.Fatal(err)
			}
			if got.GetOk() != (c.message == "") || !strings.HasPrefix(got.GetIdentity(), c.identity) || !strings.Contains(got.GetMessage(), c.message) ||
				(got.GetMessage() == "") != (c.message == "") || (got.GetIdentity() == "") != (c.identity == "") || got.GetLatency().AsDuration() <= 0 {
				t.Errorf("the answer is %v; want identity %q, message %q", got, c.identity, c.message)
			}
		})
	}

	refresh := func(t *testing.T, store string, polled, changed, failed uint32) {
		t.Helper()
		got, err := s.api.Stores.RefreshSecretStore(t.Context(), &credstorev1.RefreshSecretStoreRequest{Name: storeOf(store)})
		want := &credstorev1.RefreshSecretStoreResponse{Polled: polled, Changed: changed, Failed: failed}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("the answer is %v, %v; want %v", got, err, want)
		}
	}
	t.Run("Refresh", func(t *testing.T) {
		refresh(t, "vault", 0, 0, 0) // nothing is in use
		for _, path := range []string{"app/a", "app/b", "app/c"} {
			v.Put(t, path, map[string]string{"k": "first"})
		}
		i := s.addWorkload(t, "refresh",
			secretItem("a", "vault", "app/a", "k"), secretItem("b", "vault", "app/b", "k"), secretItem("c", "vault", "app/c", "k"))
		i.complete(t)
		refresh(t, "vault", 3, 0, 0)
		v.Put(t, "app/a", map[string]string{"k": "second"})
		v.Delete(t, "app/b", 1)
		refresh(t, "vault", 3, 2, 1)
		i.file(t, soon, "a", "second")
		s.item(t, soon, "refresh", "b", itemFailed, "version 1 was deleted")
		s.item(t, soon, "refresh", "c", itemOK, "")
		refresh(t, "over-tls", 0, 0, 0)
	})
	t.Run("OverTLS", func(t *testing.T) {
		v.Put(t, "app/tls", map[string]string{"k": "first"})
		i := s.addWorkload(t, "tls", secretItem("f", "over-tls", "app/tls", "k"))
		i.complete(t)
		v.Put(t, "app/tls", map[string]string{"k": "second"})
		refresh(t, "over-tls", 1, 1, 0)
		i.file(t, soon, "f", "second")
	})
}

// tlsFront serves Vault over TLS, as a load balancer does.
func tlsFront(t *testing.T, v *vaulttest.Server) *httptest.Server {
	t.Helper()
	u, err := url.Parse(v.Address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	front := httptest.NewUnstartedServer(proxy)
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // it is refused on purpose
	front.StartTLS()
	t.Cleanup(front.Close)
	return front
}

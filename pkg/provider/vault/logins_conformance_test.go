//go:build conformance

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/vault/vaulttest"
)

// real is a method of login that is set up in a real Vault.
type real struct {
	name, mount string
	good, wrong credential.Login
	cfg         func(*Config)
	identity    string // a prefix
	refusal     string // a part
}

// serveReviews is a cluster's API as the Kubernetes method asks it: it accepts one
// token, of the service account apps/web.
func serveReviews(t *testing.T, token string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review map[string]any
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || r.Method != http.MethodPost ||
			r.Header.Get("Authorization") != "Bearer reviewer" || json.NewDecoder(r.Body).Decode(&review) != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		spec, _ := review["spec"].(map[string]any)
		if spec["token"] == token {
			review["status"] = map[string]any{"authenticated": true, "audiences": spec["audiences"], "user": map[string]any{"username": "system:serviceaccount:apps:web", "uid": "uid-1"}}
		} else {
			review["status"] = map[string]any{"error": "invalid bearer token"}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(s.Close)
	return s
}

// setUp prepares every method that needs no cloud, and AWS and Kubernetes with
// what Vault asks there played by the test.
func setUp(t *testing.T, v *vaulttest.Server) []real {
	t.Helper()
	v.Policy(t, "app", "app/")
	key, other := newECKey(t), newECKey(t)
	claims := map[string]any{
		"iss": "https://issuer.example.com", "sub": "system:serviceaccount:apps:web", "aud": []string{jwtAudience},
		"iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "apps", "serviceaccount": map[string]any{"name": "web", "uid": "uid-1"}},
	}
	token, forged := signJWT(t, key, claims), signJWT(t, other, claims)
	role := func(settings map[string]any) map[string]any {
		settings["token_policies"], settings["token_ttl"] = "app", "1h"
		return settings
	}

	v.Write(t, "auth/userpass/users/alice", role(map[string]any{"password": password}))

	v.Write(t, "auth/jwt/config", map[string]any{"jwt_validation_pubkeys": []string{publicPEM(t, key)}, "bound_issuer": "https://issuer.example.com"})
	v.Write(t, "auth/jwt/role/web", role(map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{jwtAudience}}))

	v.Write(t, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": serveReviews(t, token).URL, "token_reviewer_jwt": "reviewer", "disable_local_ca_jwt": true,
	})
	v.Write(t, "auth/kubernetes/role/web", role(map[string]any{"bound_service_account_names": "web", "bound_service_account_namespaces": "apps"}))
	dir := t.TempDir()
	file := func(name, token string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("good", token), file("bad", forged)

	stsServer := httptest.NewServer(serveSTS(t))
	t.Cleanup(stsServer.Close)
	v.Write(t, "auth/aws/config/client", map[string]any{
		"sts_endpoint": stsServer.URL, "sts_region": "us-east-1", "iam_server_id_header_value": serverID,
		"access_key": "unused", "secret_key": "unused",
	})
	v.Write(t, "auth/aws/role/web", role(map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::123456789012:user/deployer", "resolve_aws_unique_ids": false,
	}))

	certificate, bundle := newCertificate(t, "web")
	_, stranger := newCertificate(t, "stranger")
	v.Write(t, "auth/cert/certs/web", role(map[string]any{"certificate": certificate}))

	by := func(m *credentialv1.Vault, source *credential.Login) credential.Login {
		m.Address, m.CaPem = v.Address, v.CAPEM
		l := login(t, m)
		l.Source = source
		return l
	}
	userpass := func(password string) credential.Login {
		return by(&credentialv1.Vault{Method: &credentialv1.Vault_Userpass_{Userpass: &credentialv1.Vault_Userpass{Username: "alice", Password: password}}}, nil)
	}
	jwt := func(token string) credential.Login {
		return by(&credentialv1.Vault{Method: &credentialv1.Vault_Jwt_{Jwt: &credentialv1.Vault_Jwt{Role: "web", Jwt: token}}}, nil)
	}
	kubernetes := func(role string) credential.Login {
		return by(&credentialv1.Vault{Method: &credentialv1.Vault_Kubernetes_{Kubernetes: &credentialv1.Vault_Kubernetes{Role: role}}}, nil)
	}
	aws := func(secret string) credential.Login {
		return by(&credentialv1.Vault{Method: &credentialv1.Vault_Aws_{
			Aws: &credentialv1.Vault_Aws{Role: "web", Source: sourceName, ServerId: serverID},
		}}, awsSource(t, secret))
	}
	cert := func(pem string) credential.Login {
		return by(&credentialv1.Vault{Method: &credentialv1.Vault_Certificate_{Certificate: &credentialv1.Vault_Certificate{Pem: pem}}}, nil)
	}
	tokenFile := good
	all := []real{
		{"userpass", "userpass", userpass(password), userpass("wrong-password-canary"), nil, "userpass-alice (entity ", "400 invalid username or password"},
		{"jwt", "jwt", jwt(token), jwt(forged), nil, "jwt-system:serviceaccount:apps:web role web (entity ", "400 error validating token"},
		{"kubernetes", "kubernetes", kubernetes("web"), kubernetes("other"), func(c *Config) { c.TokenFile = tokenFile }, "kubernetes-apps-web role web (entity ", `400 invalid role name "other"`},
		{"kubernetes with a forged token", "kubernetes", credential.Login{}, kubernetes("web"), func(c *Config) { c.TokenFile = bad }, "", "403 permission denied"},
		{"aws", "aws", aws(awsSecret), aws(strings.Replace(awsSecret, "8Jx2", "9Jx2", 1)), func(c *Config) { c.SignAWS = signAWS }, "aws-", "SignatureDoesNotMatch"},
	}
	if v.CAPEM != "" {
		all = append(all, real{"certificate", "cert", cert(bundle), cert(stranger), nil, "cert-web role web (entity ", "400 failed to match all constraints for this login certificate"})
	}
	return all
}

func (r real) config(v *vaulttest.Server) Config {
	cfg := realConfig(v)
	cfg.CAPEM = v.CAPEM
	if r.cfg != nil {
		r.cfg(&cfg)
	}
	return cfg
}

// Each method against the real one: who it is, what a wrong login is told, that
// the login is given back, renewed, and made anew once it has ended.
func TestConformanceLogins(t *testing.T) {
	v := vaulttest.NewTLS(t)
	v.Put(t, "app/x", map[string]string{"k": "1"})
	for _, r := range setUp(t, v) {
		t.Run(r.name, func(t *testing.T) {
			cfg := r.config(v)
			_, err := New(cfg).Verify(t.Context(), r.wrong)
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), r.refusal) {
				t.Errorf("a wrong login: error is %v, want %q", err, r.refusal)
			}
			if r.good.Payload.IsZero() {
				return
			}
			before := len(v.Accessors(t))
			who, err := New(cfg).Verify(t.Context(), r.good)
			if err != nil || !strings.HasPrefix(who.Name, r.identity) || !strings.Contains(who.Facts["policies"], "app") {
				t.Fatalf("Verify: %+v, %v; want %q", who, err, r.identity)
			}
			if after := len(v.Accessors(t)); after != before {
				t.Errorf("%d tokens after Verify, %d before", after, before)
			}
			s, err := Open(t.Context(), cfg, r.good)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close(context.Background()) }()
			first := s.lease.client.Token()
			if err := s.Renew(t.Context()); err != nil || s.lease.client.Token() != first {
				t.Errorf("Renew: %v", err)
			}
			v.EndLoginsOf(t, r.mount)
			if got, err := read(s, "app/x"); err != nil || got != "1" || s.lease.client.Token() == first {
				t.Errorf("after the token's end: %q, %v", got, err)
			}
		})
	}
}

// What the fake says of a token that may not look itself up is what Vault does.
func TestConformanceIdentityWithoutLookup(t *testing.T) {
	v := vaulttest.New(t)
	v.Policy(t, "app", "app/")
	token := v.Token(t, map[string]any{"policies": []string{"app"}, "no_default_policy": true, "ttl": "1h"})
	s := openReal(t, v, tokenLogin(t, token))
	if who, err := s.Identify(t.Context()); err != nil || who != unnamed {
		t.Errorf("Identify: %q, %v; want %q", who, err, unnamed)
	}
	role, secret := v.AppRole(t, "bare", map[string]any{"token_policies": "app", "token_no_default_policy": true})
	s = openReal(t, v, appRoleLogin(t, role, secret, ""))
	if who, err := s.Identify(t.Context()); err != nil || !strings.HasPrefix(who, "approle role bare (entity ") {
		t.Errorf("Identify: %q, %v", who, err)
	}
	status, _ := v.Call(t, "hvs.no-such-token", http.MethodGet, "/v1/sys/internal/ui/mounts", nil)
	if status != http.StatusForbidden {
		t.Errorf("a token that is not valid is answered with %d where any token may ask", status)
	}
}

package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

const (
	password    = "password-canary-44d0"
	azureToken  = "azure-token-canary-c0de"
	azureScope  = "https://management.azure.com//.default"
	azureGood   = "azure-secret-canary-good~Zx8Q"
	azureWrong  = "azure-secret-canary-wrong~Zx8Q"
	serverID    = "vault.example.com"
	sourceName  = "projects/p/credentials/source"
	jwtAudience = "vault"
)

// way is a method of login with its counterpart in a Vault: set up in f, with a
// good login and a wrong one.
type way struct {
	name        string
	good, wrong credential.Login
	identity    string
	cfg         func(*Config)
	secrets     []string
	path        string
}

// minter is Azure's package as far as a login to Vault needs it.
type minter struct{ t *testing.T }

func (m minter) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	if got := request.Message().GetAzureAccessToken().GetScope(); got != azureScope {
		m.t.Errorf("scope is %q, want %q", got, azureScope)
	}
	switch login.Payload.Message().GetAzureServicePrincipal().GetClientSecret() {
	case azureGood:
		return credential.NewToken(&credentialv1.Token{
			Kind:       &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: azureToken, Type: "Bearer"}},
			ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
		})
	case azureWrong:
		return credential.Token{}, &provider.Error{Kind: provider.ErrRefused, Op: "mint", Status: 401, Text: "AADSTS7000215: Invalid client secret provided."}
	}
	return credential.Token{}, ctx.Err()
}

func azureSource(t *testing.T, secret string) *credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{
		AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
			TenantId: "4bb36cf5-2ff5-4a3c-9c5c-6c2c0b0a1d10", ClientId: "9a8b7c6d-1e2f-4a3b-8c4d-5e6f70819203", ClientSecret: secret,
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Login{Name: "projects/p/credentials/azure", ID: "azure/" + secret, Payload: p}
}

// ways sets all methods up.
func ways(t *testing.T, f *fake) []way {
	t.Helper()
	key, other := newECKey(t), newECKey(t)
	claims := map[string]any{"sub": "ci", "aud": jwtAudience, "exp": time.Now().Add(time.Hour).Unix()}
	token, forged := signJWT(t, key, claims), signJWT(t, other, claims)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.methods["userpass/login/alice"] = func(_ *http.Request, body map[string]any) (string, map[string]any, string) {
		if body["password"] != password {
			return "", nil, "invalid username or password"
		}
		return "userpass-alice", map[string]any{"username": "alice"}, ""
	}
	f.methods["jwt/login"] = byJWT("jwt", &key.PublicKey)
	f.methods["kubernetes/login"] = byJWT("kubernetes", &key.PublicKey)
	f.methods["azure/login"] = func(_ *http.Request, body map[string]any) (string, map[string]any, string) {
		if body["jwt"] != azureToken || body["role"] != "web" {
			return "", nil, "oidc: malformed jwt"
		}
		return "azure-oid", map[string]any{"role": "web"}, ""
	}
	f.methods["aws/login"] = func(_ *http.Request, body map[string]any) (string, map[string]any, string) {
		headers, request, err := decodeAWS(body)
		switch {
		case err != nil:
			return "", nil, err.Error()
		case headers.Get(serverIDKey) != serverID:
			return "", nil, "error validating X-Vault-AWS-IAM-Server-ID header"
		case body["role"] != "web":
			return "", nil, "entry for role not found"
		}
		if err := sts(f.t, headers, request); err != nil {
			return "", nil, "error making upstream request: received error code 403 from STS: " + err.Error()
		}
		return "aws-AIDA:deployer", map[string]any{"role": "web"}, ""
	}
	withSource := func(m *credentialv1.Vault, source *credential.Login) credential.Login {
		l := login(t, m)
		l.Source = source
		return l
	}
	userpass := func(password string) credential.Login {
		return login(t, &credentialv1.Vault{Method: &credentialv1.Vault_Userpass_{Userpass: &credentialv1.Vault_Userpass{Username: "alice", Password: password}}})
	}
	jwt := func(token string) credential.Login {
		return login(t, &credentialv1.Vault{Method: &credentialv1.Vault_Jwt_{Jwt: &credentialv1.Vault_Jwt{Role: "web", Jwt: token}}})
	}
	kubernetes := func(role string) credential.Login {
		return login(t, &credentialv1.Vault{Address: f.server.URL, Method: &credentialv1.Vault_Kubernetes_{Kubernetes: &credentialv1.Vault_Kubernetes{Role: role}}})
	}
	aws := &credentialv1.Vault{Address: f.server.URL, Method: &credentialv1.Vault_Aws_{Aws: &credentialv1.Vault_Aws{Role: "web", Source: sourceName, ServerId: serverID}}}
	azure := &credentialv1.Vault{Address: f.server.URL, Method: &credentialv1.Vault_Azure_{Azure: &credentialv1.Vault_Azure{Role: "web", Source: sourceName, Resource: "https://management.azure.com/"}}}
	wrongSecret := strings.Replace(awsSecret, "8Jx2", "9Jx2", 1)
	return []way{
		{"userpass", userpass(password), userpass("wrong-password-canary"), "userpass-alice", nil, []string{password, "wrong-password-canary"}, "userpass/login/alice"},
		{"jwt", jwt(token), jwt(forged), "jwt-ci role web", nil, []string{token, forged}, "jwt/login"},
		{"kubernetes", kubernetes("web"), kubernetes("other"), "kubernetes-ci role web", func(c *Config) { c.TokenFile = file }, []string{token}, "kubernetes/login"},
		{"aws", withSource(aws, awsSource(t, awsSecret)), withSource(aws, awsSource(t, wrongSecret)), "aws-AIDA:deployer role web", func(c *Config) { c.SignAWS = signAWS }, []string{awsSecret, wrongSecret}, "aws/login"},
		{"azure", withSource(azure, azureSource(t, azureGood)), withSource(azure, azureSource(t, azureWrong)), "azure-oid role web", func(c *Config) { c.Minter = minter{t} }, []string{azureToken, azureGood, azureWrong}, "azure/login"},
	}
}

// byJWT is a login by a token that is signed with a key.
func byJWT(name string, key *ecdsa.PublicKey) method {
	return func(_ *http.Request, body map[string]any) (string, map[string]any, string) {
		token, _ := body["jwt"].(string)
		claims := claimsOf(token, key, jwtAudience)
		switch {
		case claims == nil:
			return "", nil, "error validating token: no known key successfully validated the token signature"
		case body["role"] != "web":
			return "", nil, fmt.Sprintf("role %q could not be found", body["role"])
		}
		return fmt.Sprintf("%s-%s", name, claims["sub"]), map[string]any{"role": "web"}, ""
	}
}

func (w way) config(f *fake) Config {
	cfg := f.config()
	if w.cfg != nil {
		w.cfg(&cfg)
	}
	return cfg
}

// Every method passes the suite of a store's session: reading, ending, logging in
// anew, leaking nothing.
func TestSuiteOfEveryMethod(t *testing.T) {
	for i := range ways(t, newFake(t)) {
		f := newFake(t)
		w := ways(t, f)[i]
		t.Run(w.name, func(t *testing.T) {
			runSuiteWith(t, f, w.config(f), w.good, w.wrong, f.endLogins, w.secrets)
		})
	}
}

func TestRenewalAndLoginAnewOfEveryMethod(t *testing.T) {
	f := newFake(t)
	f.put("x", map[string]any{"k": "v"})
	for _, w := range ways(t, f) {
		t.Run(w.name, func(t *testing.T) {
			f.set(func(f *fake) { f.renewable = true; f.requests = nil })
			s, err := Open(t.Context(), w.config(f), w.good)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close(context.Background()) }()
			logIn := "PUT /v1/auth/" + w.path
			if s.RenewTime().IsZero() {
				t.Error("no renewal is due")
			}
			if err := s.Renew(t.Context()); err != nil || f.seen("PUT /v1/auth/token/renew-self") != 1 || f.seen(logIn) != 1 {
				t.Errorf("renewal: %v after %v", err, f.requests)
			}
			s.lease.renewable = false // as when the token's longest life comes near
			if err := s.Renew(t.Context()); err != nil || f.seen(logIn) != 2 {
				t.Errorf("login in place of a renewal: %v after %v", err, f.requests)
			}
			f.endLogins()
			if v, err := read(s, "x"); err != nil || v != "v" || f.seen(logIn) != 3 {
				t.Errorf("after the token's end: %q, %v after %v", v, err, f.requests)
			}
			if err := s.Close(t.Context()); err != nil || f.seen("PUT /v1/auth/token/revoke-self") != 1 {
				t.Errorf("Close: %v after %v", err, f.requests)
			}
		})
	}
}

// What a method needs of the server, and is not there, is told before anything is
// sent.
func TestMethodsThatCannotLogIn(t *testing.T) {
	f := newFake(t)
	all := map[string]way{}
	for _, w := range ways(t, f) {
		all[w.name] = w
	}
	alone := func(l credential.Login) credential.Login {
		l.Source = nil
		return l
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, bundle := newCertificate(t, "web")
	certificate := login(t, &credentialv1.Vault{Method: &credentialv1.Vault_Certificate_{Certificate: &credentialv1.Vault_Certificate{Pem: bundle}}})
	elsewhere := login(t, &credentialv1.Vault{Method: &credentialv1.Vault_Token{Token: userToken}, Address: "https://vault.example.com"})
	for _, test := range []struct {
		name  string
		login credential.Login
		cfg   func(*Config)
		want  string
	}{
		{"no token file", all["kubernetes"].good, func(c *Config) { c.TokenFile = "/nowhere/token" }, "login: refused: this server has no service account token at /nowhere/token: it runs outside of Kubernetes, or without one"},
		{"empty token file", all["kubernetes"].good, func(c *Config) { c.TokenFile = empty }, "login: refused: the service account token at " + empty + " cannot be read, is empty or too long"},
		{"AWS without source", alone(all["aws"].good), func(c *Config) { c.SignAWS = signAWS }, "login: refused: the credential that the login refers to as its source is missing"},
		{"no signer", all["aws"].good, func(*Config) {}, "login: refused: this server does not sign requests for AWS"},
		{"Azure without source", alone(all["azure"].good), func(c *Config) { c.Minter = minter{t} }, "login: refused: the credential that the login refers to as its source is missing"},
		{"no minter", all["azure"].good, func(*Config) {}, "login: refused: this server does not mint tokens of Azure"},
		{"source that is refused", all["azure"].wrong, func(c *Config) { c.Minter = minter{t} }, "login: refused: with its source: mint: refused: 401 AADSTS7000215: Invalid client secret provided."},
		{"source that is unavailable", all["aws"].good, func(c *Config) {
			c.SignAWS = func(context.Context, credential.Login, string) (string, string, string, http.Header, error) {
				return "", "", "", nil, &provider.Error{Kind: provider.ErrUnavailable, Op: "mint", Text: "no metadata service"}
			}
		}, "login: store unavailable: with its source: mint: store unavailable: no metadata service"},
		{"certificate in clear", certificate, func(*Config) {}, "login: refused: logins by certificate are a part of TLS: the address must begin with https://"},
		{"another address", elsewhere, func(*Config) {}, "login: refused: the login is for https://vault.example.com alone: change the store's address, or the credential's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := f.config()
			test.cfg(&cfg)
			_, err := Open(t.Context(), cfg, test.login)
			if err == nil || err.Error() != test.want {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
	if len(f.requests) != 0 {
		t.Errorf("requests: %v", f.requests)
	}
}

func TestSameServer(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"https://vault.example.com", "https://Vault.Example.com:443/", true},
		{"https://vault.example.com:8200", "HTTPS://vault.example.com.:8200", true},
		{"http://127.0.0.1", "http://127.0.0.1:80", true},
		{"https://[::1]:8200", "https://[::1]:8200", true},
		{"https://vault.example.com", "http://vault.example.com:443", false},
		{"https://vault.example.com", "https://vault.example.com:8200", false},
		{"https://vault.example.com", "https://vault.example.com.evil.example", false},
		{"https://vault.example.com", "https://vault.example.com@evil.example", false},
		{"https://vault.example.com", "://", false},
	} {
		if got := sameServer(test.a, test.b); got != test.want {
			t.Errorf("sameServer(%q, %q) = %t", test.a, test.b, got)
		}
	}
}

// The certificate goes along with the handshake, and the login names its role.
func TestCertificateLogin(t *testing.T) {
	f := newFake(t)
	certificate, bundle := newCertificate(t, "web")
	f.methods["cert/login"] = func(r *http.Request, body map[string]any) (string, map[string]any, string) {
		switch {
		case len(r.TLS.PeerCertificates) == 0:
			return "", nil, "client certificate must be supplied"
		case r.TLS.PeerCertificates[0].Subject.CommonName != "web" || body["name"] != "web":
			return "", nil, "failed to match all constraints for this login certificate"
		}
		return "cert-web", map[string]any{"cert_name": "web", "common_name": "web"}, ""
	}
	secure := httptest.NewUnstartedServer(f)
	secure.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	secure.StartTLS()
	defer secure.Close()
	cfg := f.config()
	cfg.Address, cfg.CAPEM = secure.URL, certificatePEM(secure)
	by := func(pem, role string) credential.Login {
		return login(t, &credentialv1.Vault{Method: &credentialv1.Vault_Certificate_{Certificate: &credentialv1.Vault_Certificate{Pem: pem, Role: role}}})
	}
	s, err := Open(t.Context(), cfg, by(bundle, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if who, err := s.Identify(t.Context()); err != nil || who != "cert-web role web (entity entity-1)" {
		t.Errorf("Identify: %q, %v", who, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_, other := newCertificate(t, "other")
	_, err = Open(t.Context(), cfg, by(other, ""))
	if want := "login: refused: 400 failed to match all constraints for this login certificate"; err == nil || err.Error() != want {
		t.Errorf("another certificate: error is %v, want %q", err, want)
	}
	if strings.Contains(fmt.Sprint(err), certificate[40:80]) {
		t.Error("the error holds the certificate")
	}
	_, err = Open(t.Context(), cfg, tokenLogin(t, "hvs.wrong"))
	if !errors.Is(err, provider.ErrRefused) {
		t.Errorf("another method: error is %v", err)
	}
}

// verifiable is a login with the address of the fake.
func (w way) verifiable(t *testing.T, f *fake, l credential.Login) credential.Login {
	t.Helper()
	m := l.Payload.Message().GetVault()
	m.Address = f.server.URL
	out := login(t, m)
	out.Source = l.Source
	return out
}

func TestVerifyEveryMethod(t *testing.T) {
	f := newFake(t)
	all := append(ways(t, f), way{
		name: "token", good: tokenLogin(t, userToken), wrong: tokenLogin(t, "hvs.wrong-token-canary"), identity: "token-ci",
		secrets: []string{userToken, "hvs.wrong-token-canary"},
	}, way{
		name: "appRole", good: appRoleLogin(t, roleID, secretID, ""), wrong: appRoleLogin(t, roleID, "wrong-secret-id", ""),
		identity: "approle role web", secrets: []string{secretID, "wrong-secret-id"},
	})
	for _, w := range all {
		t.Run(w.name, func(t *testing.T) {
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: New(w.config(f)), Good: w.verifiable(t, f, w.good), Wrong: w.verifiable(t, f, w.wrong),
				Identity: w.identity + " (entity entity-1)",
				Calls: func() int {
					f.mu.Lock()
					defer f.mu.Unlock()
					return len(f.requests)
				},
				Stop: func(*testing.T) func() {
					f.set(func(f *fake) {
						f.override = func(w http.ResponseWriter, _ *http.Request) bool {
							refuse(w, 503, "Vault is sealed")
							return true
						}
					})
					return func() { f.set(func(f *fake) { f.override = nil }) }
				},
				Secrets: append(w.secrets, "login-token-canary"),
			})
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.tokens) != 1 {
				t.Errorf("%d tokens are left", len(f.tokens)-1)
			}
		})
	}
}

func TestVerifyWithoutAddress(t *testing.T) {
	f := newFake(t)
	v := New(f.config()) // whose address is not taken
	_, err := v.Verify(t.Context(), tokenLogin(t, userToken))
	if want := "verify: not supported: the login does not say which server it is for: add its address, or test a secret store that uses it"; !errors.Is(err, provider.ErrUnsupported) || err.Error() != want {
		t.Errorf("error is %v, want %q", err, want)
	}
	if _, err := v.Verify(t.Context(), credential.Login{}); !errors.Is(err, provider.ErrRefused) {
		t.Errorf("no payload: error is %v", err)
	}
	if len(f.requests) != 0 {
		t.Errorf("requests: %v", f.requests)
	}
}

// A token that works is not refused because its policies do not let it look
// itself up.
func TestIdentityWithoutLookup(t *testing.T) {
	for _, test := range []struct {
		name  string
		login credential.Login
		want  string
	}{
		{"token", tokenLogin(t, userToken), "a token that may not look itself up"},
		{"AppRole", appRoleLogin(t, roleID, secretID, ""), "approle role web"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			s := f.open(t, test.login)
			f.set(func(f *fake) {
				for _, tok := range f.tokens {
					tok.noLookup = true
				}
			})
			if who, err := s.Identify(t.Context()); err != nil || who != test.want {
				t.Errorf("Identify: %q, %v; want %q", who, err, test.want)
			}
			// Where the other question is forbidden as well, the token is not valid.
			f.set(func(f *fake) {
				f.override = func(w http.ResponseWriter, _ *http.Request) bool {
					refuse(w, 403, "1 error occurred:\n\t* permission denied\n\n")
					return true
				}
			})
			if who, err := s.Identify(t.Context()); !errors.Is(err, provider.ErrRefused) || who != "" {
				t.Errorf("Identify with a token that is not valid: %q, %v", who, err)
			}
		})
	}
}

// What Vault says may repeat what it was sent, which is no reason to.
func TestComplaintsDoNotLeak(t *testing.T) {
	f := newFake(t)
	all := ways(t, f)
	for path, check := range f.methods {
		f.methods[path] = func(r *http.Request, body map[string]any) (string, map[string]any, string) {
			if _, _, complaint := check(r, body); complaint != "" {
				return "", nil, complaint
			}
			said := fmt.Sprintf("cannot use %v", body)
			if headers, _, err := decodeAWS(body); err == nil {
				said += headers.Get("Authorization")
			}
			return "", nil, said
		}
	}
	for _, w := range all {
		_, err := Open(t.Context(), w.config(f), w.good)
		if err == nil || !strings.Contains(err.Error(), "cannot use") {
			t.Errorf("%s: error is %v", w.name, err)
		}
		for i, secret := range append(w.secrets, "Signature=") {
			if strings.Contains(fmt.Sprintf("%v %#v", err, err), secret) {
				t.Errorf("%s: the error holds secret %d", w.name, i)
			}
		}
	}
}

// The service account's token is read anew for each login: the kubelet replaces
// it every hour.
func TestServiceAccountTokenIsReadAnew(t *testing.T) {
	f := newFake(t)
	var got []string
	f.methods["kubernetes/login"] = func(_ *http.Request, body map[string]any) (string, map[string]any, string) {
		token, _ := body["jwt"].(string)
		got = append(got, token)
		return "kubernetes-x", nil, ""
	}
	file := filepath.Join(t.TempDir(), "token")
	cfg := f.config()
	cfg.TokenFile = file
	f.renewable = false
	var s *Session
	for i, token := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if i == 0 {
			s, err = Open(t.Context(), cfg, login(t, &credentialv1.Vault{
				Address: f.server.URL, Method: &credentialv1.Vault_Kubernetes_{Kubernetes: &credentialv1.Vault_Kubernetes{Role: "web"}},
			}))
		} else {
			err = s.Renew(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if strings.Join(got, " ") != "first second" {
		t.Errorf("tokens sent: %v", got)
	}
}

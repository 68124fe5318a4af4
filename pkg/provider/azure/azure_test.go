package azure_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/azure"
	"github.com/credstore/credstore/pkg/provider/azure/azuretest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tenant = "d189c61b-6c27-41d3-9749-ca5c9cc4a622"
	client = "bc968c1e-67a3-4ba5-8d05-f807abb54a57"
	object = "ae01981e-e1bf-49ec-ad81-80af157a944e"
	secret = "Q~x8Q~right-secret-value-0123456789"
	wrong  = "Q~x8Q~wrong-secret-value-0123456789"
	who    = "app " + client + " in tenant " + tenant

	identityID = "/subscriptions/" + object + "/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/credstore"
)

func newApp() *azuretest.App {
	return &azuretest.App{Tenant: tenant, Client: client, Object: object, Secrets: map[string]time.Time{secret: {}}}
}

// newVendor returns a vendor that talks to the stand-in, changed by edit.
func newVendor(t *testing.T, s *azuretest.Server, edit func(*azure.Config)) *azure.Vendor {
	t.Helper()
	cfg := azure.Config{
		Egress: s.Egress(), Authority: s.URL, Registry: s.URL, CAPEM: s.CAPEM, Metadata: s.Metadata,
		Getenv: func(string) string { return "" },
	}
	if edit != nil {
		edit(&cfg)
	}
	v, err := azure.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func login(t *testing.T, m *credentialv1.Payload) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/azure", ID: "1", Payload: p}
}

func principal(t *testing.T, m *credentialv1.AzureServicePrincipal) credential.Login {
	t.Helper()
	m.TenantId, m.ClientId = tenant, client
	return login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{AzureServicePrincipal: m}})
}

func withSecret(t *testing.T, value string) credential.Login {
	t.Helper()
	return principal(t, &credentialv1.AzureServicePrincipal{ClientSecret: value})
}

func managed(t *testing.T, m *credentialv1.AzureManagedIdentity) credential.Login {
	t.Helper()
	return login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureManagedIdentity{AzureManagedIdentity: m}})
}

func workload(t *testing.T) credential.Login {
	t.Helper()
	return login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureWorkloadIdentity{
		AzureWorkloadIdentity: &credentialv1.AzureWorkloadIdentity{TenantId: tenant, ClientId: client},
	}})
}

// certificate makes a key with its certificate, and both as a PEM text.
func certificate(t *testing.T, end time.Time) (*x509.Certificate, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "credstore"},
		NotBefore: end.Add(-48 * time.Hour), NotAfter: end,
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(encoded)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return parsed, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encoded})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// federation makes the tokens of a cluster.
type federation struct {
	file string
	key  *rsa.PrivateKey
}

func newFederation(t *testing.T) (*federation, azuretest.Federated) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f := &federation{file: filepath.Join(t.TempDir(), "token"), key: key}
	f.write(t, nil)
	return f, azuretest.Federated{
		Issuer: "https://cluster.example.com", Subject: "system:serviceaccount:credstore:server",
		Audience: "api://AzureADTokenExchange", Key: &key.PublicKey,
	}
}

func (f *federation) write(t *testing.T, changes jwt.MapClaims) {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://cluster.example.com", "sub": "system:serviceaccount:credstore:server",
		"aud": "api://AzureADTokenExchange", "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, changes)
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(f.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func vault() *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AzureAccessToken_{
		AzureAccessToken: &credentialv1.TokenRequest_AzureAccessToken{Scope: "https://vault.azure.net/.default"},
	}}
}

func registry(server string) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_RegistryLogin_{
		RegistryLogin: &credentialv1.TokenRequest_RegistryLogin{Server: server},
	}}
}

func cluster() *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_KubernetesLogin_{
		KubernetesLogin: &credentialv1.TokenRequest_KubernetesLogin{},
	}}
}

func everything() []*credentialv1.TokenRequest {
	return []*credentialv1.TokenRequest{vault(), registry("name.azurecr.io"), cluster()}
}

func TestSuite(t *testing.T) {
	registered, pemText := certificate(t, time.Now().Add(24*time.Hour))
	_, foreign := certificate(t, time.Now().Add(24*time.Hour))
	federated, trust := newFederation(t)
	app := newApp()
	app.Certificates = []*x509.Certificate{registered}
	app.Federated = []azuretest.Federated{trust}
	s := azuretest.New(t, app)
	s.SetMachine("", &azuretest.App{Tenant: tenant, Client: client, Object: object, Resource: identityID})
	v := newVendor(t, s, func(c *azure.Config) { c.FederatedTokenFile = federated.file })
	stop := func(*testing.T) func() { return s.Stop() }
	assertion, err := os.ReadFile(federated.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]providertest.VendorHarness{
		"secret": {
			Good: withSecret(t, secret), Wrong: withSecret(t, wrong), Identity: who,
			Requests: append(everything(), nil), Secrets: []string{secret, wrong},
		},
		"certificate": {
			Good:     principal(t, &credentialv1.AzureServicePrincipal{CertificatePem: pemText}),
			Wrong:    principal(t, &credentialv1.AzureServicePrincipal{CertificatePem: foreign}),
			Identity: who, Requests: everything(), Secrets: []string{pemText, foreign},
		},
		"managed identity": {
			Good: managed(t, &credentialv1.AzureManagedIdentity{}), Identity: identityID, Requests: everything(),
			Wrong: managed(t, &credentialv1.AzureManagedIdentity{ClientId: tenant}),
		},
		"workload identity": {
			Good: workload(t), Identity: who, Requests: everything(), Secrets: []string{strings.TrimSpace(string(assertion))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h.Verifier, h.Minter, h.Calls, h.Stop = v, v, s.Calls, stop
			providertest.RunVendor(t, h)
		})
	}
}

// mint mints, and expects a token.
func mint(t *testing.T, v *azure.Vendor, l credential.Login, m *credentialv1.TokenRequest) *credentialv1.Token {
	t.Helper()
	request, err := credential.NewTokenRequest(l.Payload.Kind(), m)
	if err != nil {
		t.Fatal(err)
	}
	token, err := v.Mint(t.Context(), l, request)
	if err != nil {
		t.Fatal(err)
	}
	return token.Message()
}

func mintError(t *testing.T, v *azure.Vendor, l credential.Login, m *credentialv1.TokenRequest) error {
	t.Helper()
	request, err := credential.NewTokenRequest(l.Payload.Kind(), m)
	if err != nil {
		t.Fatal(err)
	}
	token, err := v.Mint(t.Context(), l, request)
	if err == nil {
		t.Fatalf("got %v, want an error", token)
	}
	return err
}

func TestVerifySaysWhose(t *testing.T) {
	s := azuretest.New(t, newApp())
	got, err := newVendor(t, s, nil).Verify(t.Context(), withSecret(t, secret))
	if err != nil {
		t.Fatal(err)
	}
	want := credential.Identity{Name: who, Facts: map[string]string{"tenantId": tenant, "clientId": client, "objectId": object}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A token of somebody else is no proof, whoever signed it.
func TestVerifyComparesTheToken(t *testing.T) {
	const other = "11111111-2222-3333-4444-555555555555"
	for name, claims := range map[string]map[string]any{
		"another tenant":      {"tid": other},
		"another application": {"appid": other},
		"another issuer":      {"iss": "https://sts.windows.net/" + other + "/"},
		"no application":      {"appid": nil},
		"no issuer":           {"iss": nil},
	} {
		t.Run(name, func(t *testing.T) {
			app := newApp()
			app.Claims = claims
			_, err := newVendor(t, azuretest.New(t, app), nil).Verify(t.Context(), withSecret(t, secret))
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), client) {
				t.Errorf("error is %v, want one that wraps ErrRefused and names the application", err)
			}
		})
	}
	t.Run("token of version 2", func(t *testing.T) {
		app := newApp()
		app.Claims = map[string]any{"appid": nil, "azp": client, "iss": "https://login.microsoftonline.com/" + tenant + "/v2.0", "ver": "2.0"}
		if _, err := newVendor(t, azuretest.New(t, app), nil).Verify(t.Context(), withSecret(t, secret)); err != nil {
			t.Error(err)
		}
	})
}

func TestAccessToken(t *testing.T) {
	s := azuretest.New(t, newApp())
	v := newVendor(t, s, nil)
	for audience, request := range map[string]*credentialv1.TokenRequest{
		"https://management.azure.com":         nil,
		"https://vault.azure.net":              vault(),
		"6dae42f8-4368-4678-94ff-3960e28e3630": cluster(),
	} {
		token := mint(t, v, withSecret(t, secret), request)
		text := token.GetBearer().GetToken() + token.GetKubernetes().GetToken()
		if err := s.CheckToken(text, audience); err != nil {
			t.Errorf("%s: %v", audience, err)
		}
		if left := time.Until(token.GetExpireTime().AsTime()); left < 50*time.Minute || left > time.Hour {
			t.Errorf("%s: the token ends in %s", audience, left)
		}
	}
	if got := mint(t, v, withSecret(t, secret), nil).GetBearer().GetType(); got != "Bearer" {
		t.Errorf("type is %q", got)
	}
}

// The cloud decides what a token is for when nobody says it.
func TestAccessTokenOfAnotherCloud(t *testing.T) {
	s := azuretest.New(t, newApp())
	l := principal(t, &credentialv1.AzureServicePrincipal{ClientSecret: secret, Authority: "https://login.microsoftonline.us"})
	token := mint(t, newVendor(t, s, nil), l, nil)
	if err := s.CheckToken(token.GetBearer().GetToken(), "https://management.usgovcloudapi.net"); err != nil {
		t.Error(err)
	}
}

// Each token is asked for: a second one is not the first.
func TestMintCachesNothing(t *testing.T) {
	s := azuretest.New(t, newApp())
	s.SetMachine("", newApp())
	v := newVendor(t, s, nil)
	for name, l := range map[string]credential.Login{
		"service principal": withSecret(t, secret), "managed identity": managed(t, &credentialv1.AzureManagedIdentity{}),
	} {
		first, second := mint(t, v, l, vault()), mint(t, v, l, vault())
		if first.GetBearer().GetToken() == second.GetBearer().GetToken() {
			t.Errorf("%s: the same token twice", name)
		}
	}
}

func TestRegistryLogin(t *testing.T) {
	s := azuretest.New(t, newApp())
	v := newVendor(t, s, nil)
	token := mint(t, v, withSecret(t, secret), registry("name.azurecr.io"))
	auth := token.GetRegistry()
	if auth.GetServer() != "name.azurecr.io" || auth.GetUsername() != "00000000-0000-0000-0000-000000000000" {
		t.Errorf("server %q, user %q", auth.GetServer(), auth.GetUsername())
	}
	if err := s.CheckToken(auth.GetPassword(), "name.azurecr.io"); err != nil {
		t.Error(err)
	}
	if left := time.Until(token.GetExpireTime().AsTime()); left < 2*time.Hour || left > 3*time.Hour {
		t.Errorf("the login ends in %s", left)
	}
	var config struct {
		Auths map[string]struct{ Auth []byte }
	}
	if err := json.Unmarshal([]byte(auth.GetDockerConfig()), &config); err != nil {
		t.Fatal(err)
	}
	if got := string(config.Auths["name.azurecr.io"].Auth); got != auth.GetUsername()+":"+auth.GetPassword() {
		t.Error("the docker config holds another login")
	}
	for _, server := range []string{"name.azurecr.us", "name.azurecr.cn"} {
		calls := s.Calls()
		err := mintError(t, v, withSecret(t, secret), registry(server))
		if !errors.Is(err, provider.ErrUnsupported) || s.Calls() != calls {
			t.Errorf("%s: error is %v after %d calls, want ErrUnsupported after none", server, err, s.Calls()-calls)
		}
	}
	s.SetMachine("", newApp())
	if mint(t, v, managed(t, &credentialv1.AzureManagedIdentity{}), registry("name.azurecr.us")).GetRegistry() == nil {
		t.Error("no login for a managed identity, whose cloud is that of the registry")
	}
}

func TestKubernetesLogin(t *testing.T) {
	s := azuretest.New(t, newApp())
	token := mint(t, newVendor(t, s, nil), withSecret(t, secret), cluster())
	var exec struct {
		APIVersion, Kind string
		Spec             struct{ Interactive bool }
		Status           struct {
			ExpirationTimestamp time.Time
			Token               string
		}
	}
	if err := json.Unmarshal([]byte(token.GetKubernetes().GetExecCredential()), &exec); err != nil {
		t.Fatal(err)
	}
	if exec.APIVersion != "client.authentication.k8s.io/v1" || exec.Kind != "ExecCredential" ||
		exec.Status.Token != token.GetKubernetes().GetToken() || !exec.Status.ExpirationTimestamp.Equal(token.GetExpireTime().AsTime().Truncate(time.Second)) {
		t.Errorf("not what a client takes: version %q, kind %q, end %s", exec.APIVersion, exec.Kind, exec.Status.ExpirationTimestamp)
	}
}

// The reasons that people meet are told apart, in words that say what to do.
func TestReasons(t *testing.T) {
	_, expired := certificate(t, time.Now().Add(-time.Hour))
	_, foreign := certificate(t, time.Now().Add(time.Hour))
	federated, trust := newFederation(t)
	for _, test := range []struct {
		name  string
		edit  func(*azuretest.App)
		token jwt.MapClaims // changes of the federated token
		login func(*testing.T) credential.Login
		want  string
	}{
		{name: "wrong secret", login: func(t *testing.T) credential.Login { return withSecret(t, wrong) }, want: "or its id was given in place of its value: AADSTS7000215: Invalid client secret provided."},
		{name: "expired secret", edit: func(a *azuretest.App) { a.Secrets[secret] = time.Now().Add(-time.Hour) }, want: "the client secret has expired: AADSTS7000222"},
		{name: "unknown application", edit: func(a *azuretest.App) { a.Client = object }, want: "the application is unknown in this tenant: AADSTS700016"},
		{name: "unknown tenant", edit: func(a *azuretest.App) { a.Tenant = object }, want: "the tenant is unknown in this cloud: AADSTS90002"},
		{name: "foreign certificate", login: func(t *testing.T) credential.Login {
			return principal(t, &credentialv1.AzureServicePrincipal{CertificatePem: foreign})
		}, want: "the certificate is not registered with the application, or has expired: AADSTS700027"},
		{name: "expired certificate", login: func(t *testing.T) credential.Login {
			return principal(t, &credentialv1.AzureServicePrincipal{CertificatePem: expired})
		}, want: "the certificate expired at 2"},
		{name: "cluster that is not trusted", token: jwt.MapClaims{"iss": "https://other.example.com"}, login: workload, want: "matches the issuer of this server's token: AADSTS700211"},
		{name: "pod that is not trusted", token: jwt.MapClaims{"sub": "system:serviceaccount:other:pod"}, login: workload, want: "matches the subject of this server's token: AADSTS700213"},
		{name: "token of the pod that has ended", token: jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}, login: workload, want: "compare the clocks: AADSTS700024"},
		{name: "identity that the machine does not have", login: func(t *testing.T) credential.Login {
			return managed(t, &credentialv1.AzureManagedIdentity{ObjectId: tenant})
		}, want: "400 Identity not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := newApp()
			app.Federated = []azuretest.Federated{trust}
			if test.edit != nil {
				test.edit(app)
			}
			s := azuretest.New(t, app)
			federated.write(t, test.token)
			v := newVendor(t, s, func(c *azure.Config) { c.FederatedTokenFile = federated.file })
			l := withSecret(t, secret)
			if test.login != nil {
				l = test.login(t)
			}
			_, err := v.Verify(t.Context(), l)
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q in it", err, test.want)
			}
			for _, volatile := range []string{"Trace ID", "Correlation", "Timestamp"} {
				if err != nil && strings.Contains(err.Error(), volatile) {
					t.Errorf("the error differs each time: %v", err)
				}
			}
		})
	}
}

// Answers that are none of the documented ones are told apart as far as reactions
// to them differ, and their bodies are not repeated.
func TestOddAnswers(t *testing.T) {
	const leak = "do-not-repeat-this"
	for _, test := range []struct {
		name   string
		status int
		header http.Header
		body   string
		kind   error
		want   string
	}{
		{"overloaded", http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, `{"error":"temporarily_unavailable"}`, provider.ErrUnavailable, "temporarily_unavailable"},
		{"broken", http.StatusBadGateway, nil, "<html>" + leak, provider.ErrUnavailable, "502"},
		{"transient", http.StatusBadRequest, nil, `{"error":"x","error_codes":[90033],"error_description":"AADSTS90033: A transient error has occurred."}`, provider.ErrUnavailable, "AADSTS90033"},
		{"redirect", http.StatusFound, http.Header{"Location": {"https://example.com"}}, "", provider.ErrRefused, "redirect"},
		{"no JSON", http.StatusOK, nil, leak, provider.ErrUnavailable, "documentation"},
		{"too large", http.StatusOK, nil, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, provider.ErrUnavailable, "more than 1048576 bytes"},
		{"another host", http.StatusOK, nil, `{"token_endpoint":"https://example.com/token","authorization_endpoint":"https://example.com/a","issuer":"https://login.microsoftonline.com/x/v2.0"}`, provider.ErrRefused, "another host"},
		{"secret repeated", http.StatusUnauthorized, nil, `{"error":"invalid_client","error_description":"AADSTS1: ` + secret + ` is wrong"}`, provider.ErrRefused, "(redacted) is wrong"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := azuretest.New(t, newApp())
			s.Reply(test.status, test.header, test.body)
			_, err := newVendor(t, s, nil).Verify(t.Context(), withSecret(t, secret))
			var typed *provider.Error
			if !errors.As(err, &typed) || !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v, want %v with %q in it", err, test.kind, test.want)
			}
			if strings.Contains(err.Error(), leak) || strings.Contains(err.Error(), secret) {
				t.Errorf("the error repeats the answer: %v", err)
			}
			if test.header.Get("Retry-After") != "" && typed.RetryAfter != 7*time.Second {
				t.Errorf("RetryAfter is %s", typed.RetryAfter)
			}
			if calls := s.Calls(); calls > 1 {
				t.Errorf("%d requests, want no second one", calls)
			}
		})
	}
}

// A token that is no token of the machine's service is refused, too.
func TestOddAnswersOfTheMachine(t *testing.T) {
	for body, kind := range map[string]error{
		"<html>":                                provider.ErrUnavailable,
		`{"access_token":"a"}`:                  provider.ErrUnavailable,
		`{"access_token":"","expires_on":"99"}`: provider.ErrUnavailable,
		// Not a JWT: nobody's.
		`{"access_token":"a.b","expires_on":"99999999999"}`: provider.ErrUnavailable,
	} {
		s := azuretest.New(t)
		s.Reply(http.StatusOK, nil, body)
		if _, err := newVendor(t, s, nil).Verify(t.Context(), managed(t, &credentialv1.AzureManagedIdentity{})); !errors.Is(err, kind) {
			t.Errorf("%s: error is %v, want %v", body, err, kind)
		}
	}
	s := azuretest.New(t)
	s.Reply(http.StatusNotFound, nil, "")
	if _, err := newVendor(t, s, nil).Verify(t.Context(), managed(t, &credentialv1.AzureManagedIdentity{})); !errors.Is(err, provider.ErrUnavailable) {
		t.Errorf("while the service is updated: error is %v, want ErrUnavailable", err)
	}
}

func TestManagedIdentities(t *testing.T) {
	other := &azuretest.App{Tenant: tenant, Client: object, Object: client, Resource: identityID}
	for name, test := range map[string]struct {
		m    *credentialv1.AzureManagedIdentity
		want string
	}{
		"system-assigned": {&credentialv1.AzureManagedIdentity{}, who},
		"by client id":    {&credentialv1.AzureManagedIdentity{ClientId: object}, identityID},
		"by object id":    {&credentialv1.AzureManagedIdentity{ObjectId: client}, identityID},
		"by resource id":  {&credentialv1.AzureManagedIdentity{ResourceId: identityID}, identityID},
	} {
		for _, service := range []string{"", "service-secret"} {
			s := azuretest.New(t)
			s.SetMachine(service, newApp(), other)
			v := newVendor(t, s, func(c *azure.Config) {
				c.Getenv = func(variable string) string {
					return map[string]string{"IDENTITY_ENDPOINT": s.Metadata + "/msi/token", "IDENTITY_HEADER": service}[variable]
				}
				if service == "" {
					c.Getenv = func(string) string { return "" }
				}
			})
			got, err := v.Verify(t.Context(), managed(t, test.m))
			if err != nil || got.Name != test.want {
				t.Errorf("%s, service %q: %q, %v; want %q", name, service, got.Name, err, test.want)
			}
		}
	}
}

func TestMissingSurroundings(t *testing.T) {
	s := azuretest.New(t, newApp())
	missing := filepath.Join(t.TempDir(), "missing")
	for name, test := range map[string]struct {
		edit  func(*azure.Config)
		login credential.Login
		want  error
	}{
		"no federated token":          {nil, workload(t), provider.ErrUnsupported},
		"no file of federated tokens": {func(c *azure.Config) { c.FederatedTokenFile = missing }, workload(t), provider.ErrUnavailable},
		"Azure Arc": {func(c *azure.Config) {
			c.Getenv = func(name string) string {
				return map[string]string{"IDENTITY_ENDPOINT": "http://127.0.0.1:40342/x"}[name]
			}
		}, managed(t, &credentialv1.AzureManagedIdentity{}), provider.ErrUnsupported},
		"address that is not allowed": {func(c *azure.Config) { c.Egress = provider.Egress{} }, withSecret(t, secret), provider.ErrRefused},
	} {
		calls := s.Calls()
		_, err := newVendor(t, s, test.edit).Verify(t.Context(), test.login)
		if !errors.Is(err, test.want) || s.Calls() != calls {
			t.Errorf("%s: error is %v after %d calls, want %v after none", name, err, s.Calls()-calls, test.want)
		}
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("no token"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := newVendor(t, s, func(c *azure.Config) {
		c.Getenv = func(name string) string { return map[string]string{"AZURE_FEDERATED_TOKEN_FILE": file}[name] }
	})
	if _, err := v.Verify(t.Context(), workload(t)); !errors.Is(err, provider.ErrUnavailable) {
		t.Errorf("a file without a token: error is %v, want ErrUnavailable", err)
	}
}

// The environment of the server changes nothing for what is no ambient kind.
func TestEnvironmentOfApplications(t *testing.T) {
	s := azuretest.New(t, newApp())
	for name, value := range map[string]string{
		"HTTPS_PROXY": "http://127.0.0.1:1", "AZURE_AUTHORITY_HOST": "https://example.com",
		"AZURE_ADDITIONALLY_ALLOWED_TENANTS": "*", "AZURE_CLIENT_SECRET": "x", "AZURE_TENANT_ID": "x",
	} {
		t.Setenv(name, value)
	}
	v := newVendor(t, s, nil)
	if _, err := v.Verify(t.Context(), withSecret(t, secret)); err != nil {
		t.Error(err)
	}
	t.Setenv("AZURE_REGIONAL_AUTHORITY_NAME", "westeurope")
	_, err := v.Verify(t.Context(), withSecret(t, secret))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "AZURE_REGIONAL_AUTHORITY_NAME") {
		t.Errorf("error is %v, want one that says which variable leads elsewhere", err)
	}
}

func TestMintOfAnotherKind(t *testing.T) {
	s := azuretest.New(t, newApp())
	v := newVendor(t, s, nil)
	basic := login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "u", Password: "p"}}})
	if _, err := v.Verify(t.Context(), basic); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("error is %v, want ErrUnsupported", err)
	}
	if _, err := v.Mint(t.Context(), withSecret(t, secret), credential.TokenRequest{}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("error is %v, want ErrUnsupported", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Mint(ctx, withSecret(t, secret), credential.TokenRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want the context's", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]azure.Config{
		"http authority":      {Authority: "http://127.0.0.1"},
		"authority with path": {Authority: "https://127.0.0.1/x"},
		"http registry":       {Registry: "http://127.0.0.1"},
		"https metadata":      {Metadata: "https://169.254.169.254"},
		"named metadata":      {Metadata: "http://metadata.example.com"},
		"no certificate":      {CAPEM: "x"},
	} {
		if v, err := azure.New(cfg); err == nil {
			t.Errorf("%s: %v", name, v)
		}
	}
}

package azuretest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/credstore/credstore/pkg/provider/azure/azuretest"
)

const (
	tenant = "d189c61b-6c27-41d3-9749-ca5c9cc4a622"
	client = "bc968c1e-67a3-4ba5-8d05-f807abb54a57"
	object = "ae01981e-e1bf-49ec-ad81-80af157a944e"
	issuer = "https://cluster.example.com"
)

// keys are one registered certificate, the key of a federated issuer, and one
// that nobody knows.
type keys struct {
	own, cluster, stranger *rsa.PrivateKey
	certificate            *x509.Certificate
}

func newKeys(t *testing.T) keys {
	t.Helper()
	var k keys
	for _, into := range []**rsa.PrivateKey{&k.own, &k.cluster, &k.stranger} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		*into = key
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, &k.own.PublicKey, k.own)
	if err != nil {
		t.Fatal(err)
	}
	if k.certificate, err = x509.ParseCertificate(encoded); err != nil {
		t.Fatal(err)
	}
	return k
}

func newServer(t *testing.T, k keys) *azuretest.Server {
	t.Helper()
	return azuretest.New(t, &azuretest.App{
		Tenant: tenant, Client: client, Object: object,
		Secrets:      map[string]time.Time{"right": {}, "old": time.Now().Add(-time.Hour)},
		Certificates: []*x509.Certificate{k.certificate},
		Federated:    []azuretest.Federated{{Issuer: issuer, Subject: "system:serviceaccount:a:b", Audience: "api://AzureADTokenExchange", Key: &k.cluster.PublicKey}},
	})
}

// post sends a form and returns the answer's status and its fields.
func post(t *testing.T, s *azuretest.Server, path string, form url.Values) (int, map[string]any) {
	t.Helper()
	httpClient, err := s.Egress().Client(s.CAPEM)
	if err != nil {
		t.Fatal(err)
	}
	defer httpClient.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := httpClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatalf("%d %s: %v", resp.StatusCode, body, err)
	}
	return resp.StatusCode, fields
}

// assertion signs claims with the header that names the certificate.
func assertion(t *testing.T, method jwt.SigningMethod, key any, certificate *x509.Certificate, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	if certificate != nil {
		sum := sha256.Sum256(certificate.Raw)
		token.Header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// with returns the claims with others in their place; nil removes one.
func with(claims, others jwt.MapClaims) jwt.MapClaims {
	out := maps.Clone(claims)
	for name, value := range others {
		out[name] = value
		if value == nil {
			delete(out, name)
		}
	}
	return out
}

func TestEntraChecksWhatItReceives(t *testing.T) {
	k := newKeys(t)
	s := newServer(t, k)
	now := time.Now()
	own := jwt.MapClaims{
		"iss": client, "sub": client, "aud": s.URL + "/" + tenant + "/oauth2/v2.0/token",
		"exp": now.Add(10 * time.Minute).Unix(), "nbf": now.Unix(), "jti": "1",
	}
	federated := jwt.MapClaims{
		"iss": issuer, "sub": "system:serviceaccount:a:b", "aud": "api://AzureADTokenExchange", "exp": now.Add(time.Hour).Unix(),
	}
	const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	secret := func(changes url.Values) url.Values {
		form := url.Values{
			"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {"right"},
			"scope": {"https://vault.azure.net/.default"},
		}
		maps.Copy(form, changes)
		return form
	}
	asserted := func(a string) url.Values {
		return secret(url.Values{"client_secret": nil, "client_assertion_type": {jwtBearer}, "client_assertion": {a}})
	}
	ownSigned := func(changes jwt.MapClaims) url.Values {
		return asserted(assertion(t, jwt.SigningMethodPS256, k.own, k.certificate, with(own, changes)))
	}
	federatedSigned := func(changes jwt.MapClaims) url.Values {
		return asserted(assertion(t, jwt.SigningMethodRS256, k.cluster, nil, with(federated, changes)))
	}
	for _, test := range []struct {
		name   string
		tenant string
		form   url.Values
		code   float64 // 0 when a token is given
	}{
		{name: "secret", form: secret(nil)},
		{name: "wrong secret", form: secret(url.Values{"client_secret": {"wrong"}}), code: 7000215},
		{name: "expired secret", form: secret(url.Values{"client_secret": {"old"}}), code: 7000222},
		{name: "no secret", form: secret(url.Values{"client_secret": nil}), code: 7000216},
		{name: "wrong grant", form: secret(url.Values{"grant_type": {"password"}}), code: 70003},
		{name: "wrong client", form: secret(url.Values{"client_id": {object}}), code: 700016},
		{name: "wrong tenant", tenant: object, form: secret(nil), code: 90002},
		{name: "scope that is none", form: secret(url.Values{"scope": {"https://vault.azure.net/read"}}), code: 1002012},
		{name: "two scopes", form: secret(url.Values{"scope": {"https://vault.azure.net/.default https://management.azure.com/.default"}}), code: 1002012},
		{name: "unknown resource", form: secret(url.Values{"scope": {"https://example.com/.default"}}), code: 500011},
		{name: "assertion", form: ownSigned(nil)},
		{name: "the same assertion again", form: ownSigned(nil), code: 50027},
		{name: "assertion by RS256", form: asserted(assertion(t, jwt.SigningMethodRS256, k.own, k.certificate, with(own, jwt.MapClaims{"jti": "2"})))},
		{name: "assertion with a wrong signature", form: asserted(assertion(t, jwt.SigningMethodPS256, k.stranger, k.certificate, with(own, jwt.MapClaims{"jti": "3"}))), code: 700027},
		{name: "assertion by a shared secret", form: asserted(assertion(t, jwt.SigningMethodHS256, []byte("x"), k.certificate, with(own, jwt.MapClaims{"jti": "3"}))), code: 700027},
		{name: "assertion that names no certificate", form: asserted(assertion(t, jwt.SigningMethodPS256, k.own, nil, with(own, jwt.MapClaims{"jti": "3"}))), code: 700027},
		{name: "assertion for somebody else", form: ownSigned(jwt.MapClaims{"jti": "4", "aud": "https://example.com"}), code: 700023},
		{name: "assertion about somebody else", form: ownSigned(jwt.MapClaims{"jti": "5", "sub": object}), code: 700021},
		{name: "assertion that has ended", form: ownSigned(jwt.MapClaims{"jti": "6", "exp": now.Add(-6 * time.Minute).Unix()}), code: 700024},
		{name: "assertion that has just ended", form: ownSigned(jwt.MapClaims{"jti": "6", "exp": now.Add(-4 * time.Minute).Unix()})},
		{name: "assertion without an end", form: ownSigned(jwt.MapClaims{"jti": "7", "exp": nil}), code: 700024},
		{name: "assertion of the future", form: ownSigned(jwt.MapClaims{"jti": "7", "nbf": now.Add(6 * time.Minute).Unix()}), code: 700024},
		{name: "assertion without an id", form: ownSigned(jwt.MapClaims{"jti": nil}), code: 50027},
		{name: "assertion that is no JWT", form: asserted("a.b.c"), code: 50027},
		{name: "assertion of another type", form: func() url.Values { f := ownSigned(nil); f.Set("client_assertion_type", "x"); return f }(), code: 900144},
		{name: "federated", form: federatedSigned(nil)},
		{name: "federated with a wrong signature", form: asserted(assertion(t, jwt.SigningMethodRS256, k.stranger, nil, federated)), code: 700027},
		{name: "federated of another issuer", form: federatedSigned(jwt.MapClaims{"iss": "https://other.example.com"}), code: 700211},
		{name: "federated for another audience", form: federatedSigned(jwt.MapClaims{"aud": "x"}), code: 700212},
		{name: "federated about another subject", form: federatedSigned(jwt.MapClaims{"sub": "x"}), code: 700213},
		{name: "federated that has ended", form: federatedSigned(jwt.MapClaims{"exp": now.Add(-time.Hour).Unix()}), code: 700024},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := "/" + tenant
			if test.tenant != "" {
				path = "/" + test.tenant
			}
			status, fields := post(t, s, path+"/oauth2/v2.0/token", test.form)
			if test.code != 0 {
				codes, _ := fields["error_codes"].([]any)
				if status < 400 || len(codes) != 1 || codes[0] != test.code || fields["access_token"] != nil {
					t.Errorf("got %d %v, want code %v", status, fields, test.code)
				}
				return
			}
			token, _ := fields["access_token"].(string)
			if status != http.StatusOK || s.CheckToken(token, "https://vault.azure.net") != nil {
				t.Errorf("got %d %v, want a token", status, fields)
			}
		})
	}
}

func TestRegistryChecksWhatItReceives(t *testing.T) {
	k := newKeys(t)
	s := newServer(t, k)
	app := &azuretest.App{Tenant: tenant, Client: client, Object: object}
	const audience = "https://containerregistry.azure.net"
	good := s.Token(app, audience, nil)
	other := azuretest.New(t).Token(app, audience, nil)
	form := func(changes url.Values) url.Values {
		out := url.Values{"grant_type": {"access_token"}, "service": {"name.azurecr.io"}, "tenant": {tenant}, "access_token": {good}}
		maps.Copy(out, changes)
		return out
	}
	for _, test := range []struct {
		name   string
		form   url.Values
		status int
	}{
		{"good", form(nil), http.StatusOK},
		{"wrong grant", form(url.Values{"grant_type": {"password"}}), http.StatusBadRequest},
		{"wrong signature", form(url.Values{"access_token": {other}}), http.StatusUnauthorized},
		{"token for another audience", form(url.Values{"access_token": {s.Token(app, "https://vault.azure.net", nil)}}), http.StatusUnauthorized},
		{"token that has ended", form(url.Values{"access_token": {s.Token(app, audience, func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() })}}), http.StatusUnauthorized},
		{"another tenant", form(url.Values{"tenant": {object}}), http.StatusUnauthorized},
		{"another cloud", form(url.Values{"service": {"name.azurecr.us"}}), http.StatusUnauthorized},
		{"no registry", form(url.Values{"service": {"example.com"}}), http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, fields := post(t, s, "/oauth2/exchange", test.form)
			if status != test.status || (status == http.StatusOK) != (fields["refresh_token"] != nil) {
				t.Errorf("got %d %v, want %d", status, fields, test.status)
			}
		})
	}
}

func TestMachineChecksWhatItReceives(t *testing.T) {
	s := newServer(t, newKeys(t))
	app := &azuretest.App{Tenant: tenant, Client: client, Object: object, Resource: "/subscriptions/x"}
	query := func(changes url.Values) string {
		out := url.Values{"api-version": {"2018-02-01"}, "resource": {"https://vault.azure.net"}}
		maps.Copy(out, changes)
		return out.Encode()
	}
	const path = "/metadata/identity/oauth2/token?"
	metadata := http.Header{"Metadata": {"true"}}
	for _, test := range []struct {
		name   string
		secret string
		path   string
		header http.Header
		status int
	}{
		{"system-assigned", "", path + query(nil), metadata, http.StatusOK},
		{"user-assigned", "", path + query(url.Values{"client_id": {client}}), metadata, http.StatusOK},
		{"no header", "", path + query(nil), nil, http.StatusBadRequest},
		{"no version", "", path + query(url.Values{"api-version": nil}), metadata, http.StatusBadRequest},
		{"no resource", "", path + query(url.Values{"resource": nil}), metadata, http.StatusBadRequest},
		{"scope in place of a resource", "", path + query(url.Values{"resource": {"https://vault.azure.net/.default"}}), metadata, http.StatusBadRequest},
		{"unknown identity", "", path + query(url.Values{"client_id": {object}}), metadata, http.StatusBadRequest},
		{"App Service on a virtual machine", "", "/msi/token?" + query(nil), metadata, http.StatusNotFound},
		{"App Service", "s", "/msi/token?" + query(url.Values{"api-version": {"2019-08-01"}}), http.Header{"X-Identity-Header": {"s"}}, http.StatusOK},
		{"App Service without its header", "s", "/msi/token?" + query(url.Values{"api-version": {"2019-08-01"}}), metadata, http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.SetMachine(test.secret, app)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Metadata+test.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(request.Header, test.header)
			resp, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != test.status {
				t.Errorf("status is %d, want %d", resp.StatusCode, test.status)
			}
		})
	}
}

package gcp_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/gcp"
	"github.com/credstore/credstore/pkg/provider/gcp/gcptest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

const (
	pool    = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/acme-pool/providers/acme"
	subject = "system:serviceaccount:acme:credstore"
	jwtType = "urn:ietf:params:oauth:token-type:jwt"
	awsType = "urn:ietf:params:aws:token-type:aws4_request"
)

// federated makes a login with a source; impersonate may be empty.
func federated(t *testing.T, kind, impersonate string, source map[string]any) credential.Login {
	t.Helper()
	document := map[string]any{
		"type": "external_account", "audience": pool, "subject_token_type": kind,
		"token_url": gcp.STSURL, "credential_source": source,
	}
	if impersonate != "" {
		document["service_account_impersonation_url"] = gcp.IAMCredentialsURL + "/v1/projects/-/serviceAccounts/" + impersonate + ":generateAccessToken"
		document["service_account_impersonation"] = map[string]int{"token_lifetime_seconds": 1800}
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	return login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_GcpExternalAccount{GcpExternalAccount: &credentialv1.GcpExternalAccount{Document: string(text)}}})
}

// file writes a file and returns its name.
func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExternalAccountSuite(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(pool)
	s.AddAccount(target)
	s.Allow(p.Principal(subject), target)
	token, wrong := p.Token(subject), gcptest.New(t).AddPool(pool).Token(subject)
	c := open(t, config(s))
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: c, Minter: c, Identity: target, Requests: namedRequests(), Calls: s.Calls,
		Good:    federated(t, jwtType, target, map[string]any{"file": file(t, token+"\n")}),
		Wrong:   federated(t, jwtType, target, map[string]any{"file": file(t, wrong)}),
		Stop:    func(*testing.T) func() { return s.Stop() },
		Secrets: []string{token, wrong},
	})
}

func TestExternalAccountWithoutImpersonation(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(pool)
	s.AddAccount(target)
	s.Allow(p.Principal(subject), target)
	c := open(t, config(s))
	l := federated(t, jwtType, "", map[string]any{"file": file(t, p.Token(subject))})
	if got, err := c.Verify(t.Context(), l); err != nil || got.Name != pool {
		t.Errorf("Verify: %+v, %v", got, err)
	}
	token, err := mint(t, c, l, accessToken(&credentialv1.TokenRequest_GcpAccessToken{Scopes: []string{readOnly}}))
	if got := s.Holder(minted(t, token, err, "token")); got.Name != p.Principal(subject) || got.Scopes[0] != readOnly {
		t.Errorf("the token is of %+v", got)
	}
	if _, err := mint(t, c, l, idToken(&credentialv1.TokenRequest_GcpIdToken{Audience: "x"})); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("an ID token of a federated identity: %v", err)
	}
	if _, err := mint(t, c, l, idToken(&credentialv1.TokenRequest_GcpIdToken{Audience: "x", Impersonate: target})); err != nil {
		t.Errorf("an ID token of an account that it acts as: %v", err)
	}
}

func TestDocumentSaysTheLifetime(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(pool)
	s.AddAccount(target)
	s.Allow(p.Principal(subject), target)
	l := federated(t, jwtType, target, map[string]any{"file": file(t, p.Token(subject))})
	token, err := mint(t, open(t, config(s)), l, accessToken(&credentialv1.TokenRequest_GcpAccessToken{Scopes: []string{readOnly}}))
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := token.ExpireTime(); time.Until(end) > 30*time.Minute || time.Until(end) < 29*time.Minute {
		t.Errorf("it ends in %s, want the 1,800 seconds of the document", time.Until(end))
	}
}

// metadataAddress is a loopback address beside that of the other fakes.
const metadataAddress = "127.0.0.2:0"

// serveAt starts a server at an address, without TLS.
func serveAt(t *testing.T, address string, h http.Handler) *httptest.Server {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server
}

func TestSources(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(pool)
	token := p.Token(subject)
	issuer := serveAt(t, metadataAddress, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metadata/identity/oauth2/token" || r.URL.Query().Get("resource") != "api://acme" || r.Header.Get("Metadata") != "True" {
			http.Error(w, `{"error":"invalid_request","error_description":"Required metadata header not specified"}`, http.StatusBadRequest)
			return
		}
		// Who hung up does not read it.
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": token})
	}))
	cfg := config(s)
	cfg.MetadataURL = issuer.URL
	// As in the world, the metadata service is where Egress lets nobody go.
	cfg.Egress = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	c := open(t, cfg)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file(t, token), link); err != nil {
		t.Fatal(err)
	}
	azure := "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=api%3A%2F%2Facme"
	jsonFormat := map[string]string{"type": "json", "subject_token_field_name": "access_token"}
	for _, tt := range []struct {
		name   string
		source map[string]any
		kind   error
		text   string
	}{
		{"a file", map[string]any{"file": file(t, token)}, nil, ""},
		{"a link to a file, as a cluster makes it", map[string]any{"file": link}, nil, ""},
		{"JSON in a file", map[string]any{"file": file(t, `{"access_token":"`+token+`"}`), "format": jsonFormat}, nil, ""},
		{"the metadata service of Azure", map[string]any{"url": azure, "headers": map[string]string{"Metadata": "True"}, "format": jsonFormat}, nil, ""},
		{"the metadata service without its header", map[string]any{"url": azure, "format": jsonFormat}, provider.ErrRefused, "Required metadata header not specified"},
		{"a URL that is closed", map[string]any{"url": strings.Replace(issuer.URL, "http://", "https://", 1)}, provider.ErrRefused, "does not connect to"},
		{"no file", map[string]any{"file": "/nonexistent/token"}, provider.ErrRefused, "does not exist on this server"},
		{"a folder", map[string]any{"file": t.TempDir()}, provider.ErrRefused, "no ordinary file"},
		{"a pipe that nobody writes to", map[string]any{"file": pipe}, provider.ErrRefused, "no ordinary file"},
		{"a large file", map[string]any{"file": file(t, strings.Repeat("x", 65<<10))}, provider.ErrRefused, "no ordinary file"},
		{"another file of the server", map[string]any{"file": file(t, "root:x:0:0:root:/root:/bin/sh\n")}, provider.ErrRefused, "not a token of the type"},
		{"JSON that holds another field", map[string]any{"file": file(t, `{"token":"x"}`), "format": jsonFormat}, provider.ErrRefused, "subject_token_field_name"},
		{"JSON that is none", map[string]any{"file": file(t, token), "format": jsonFormat}, provider.ErrRefused, "subject_token_field_name"},
		{"JSON with another file's secret", map[string]any{"file": file(t, `{"access_token":"hunter2"}`), "format": jsonFormat}, provider.ErrRefused, "not a token of the type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.Calls()
			_, err := c.Verify(t.Context(), federated(t, jwtType, "", tt.source))
			if !errors.Is(err, tt.kind) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error is %v, want %v with %q", err, tt.kind, tt.text)
			}
			if err != nil && s.Calls() != before {
				t.Error("Google was asked all the same")
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "/nonexistent")) {
				t.Errorf("the error repeats what nobody should see: %v", err)
			}
		})
	}
}

func TestSourceOfAnHTTPSURL(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(pool)
	s.Answer(nil)
	var sent string
	issuer := gcptest.New(t)
	issuer.Answer(func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Authorization")
		// Who hung up does not read it.
		_, _ = w.Write([]byte(p.Token(subject)))
	})
	cfg := config(s)
	cfg.CAPEM += issuer.CAPEM()
	l := federated(t, jwtType, "", map[string]any{"url": issuer.IAMCredentialsURL() + "/oidc", "headers": map[string]string{"Authorization": "Bearer t0ken"}})
	if _, err := open(t, cfg).Verify(t.Context(), l); err != nil || sent != "Bearer t0ken" {
		t.Errorf("Verify: %v; the source got %q", err, sent)
	}
	cfg.Egress = provider.Egress{}
	if _, err := open(t, cfg).Verify(t.Context(), l); !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "does not connect to") {
		t.Errorf("a closed address: %v", err)
	}
}

// instance is the metadata service of an EC2 instance, version 2 only.
func instance(t *testing.T, role, secret string) *httptest.Server {
	t.Helper()
	const session = "AQAEAN-session"
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		// Who hung up does not read it.
		_, _ = w.Write([]byte(session))
	})
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-aws-ec2-metadata-token") != session {
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
			// Who hung up does not read it.
			_, _ = w.Write([]byte(text))
		}
	}
	mux.HandleFunc("GET /latest/meta-data/placement/region", answer("eu-west-1"))
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/{$}", answer(role))
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/credstore-role", answer(
		`{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"`+secret+`","Token":"IQoJ-session","Expiration":"2036-01-01T00:00:00Z"}`))
	return serveAt(t, metadataAddress, mux)
}

const awsSecret = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00"

func awsSource() map[string]any {
	return map[string]any{"environment_id": "aws1", "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials"}
}

func TestAWSInstanceSuite(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(pool)
	p.AllowAWS("ASIAIOSFODNN7EXAMPLE", awsSecret, "IQoJ-session")
	s.AddAccount(target)
	s.Allow(p.Principal("ASIAIOSFODNN7EXAMPLE"), target)
	cfg := config(s)
	cfg.MetadataURL = instance(t, "credstore-role", awsSecret).URL
	c := open(t, cfg)
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: c, Minter: c, Identity: target, Requests: namedRequests(), Calls: s.Calls,
		Good: federated(t, awsType, target, awsSource()),
		Stop: func(*testing.T) func() { return s.Stop() }, Secrets: []string{awsSecret, "IQoJ-session", "AQAEAN-session"},
	})
}

func TestAWS(t *testing.T) {
	environment := map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": awsSecret}
	for _, tt := range []struct {
		name        string
		environment map[string]string
		role        string
		secret      string
		clock       time.Duration
		kind        error
		text        string
	}{
		{"the environment", environment, "", "", 0, nil, ""},
		{"the instance", nil, "credstore-role", awsSecret, 0, nil, ""},
		{"a region of the environment", map[string]string{"AWS_DEFAULT_REGION": "us-gov-west-1"}, "credstore-role", awsSecret, 0, nil, ""},
		{"a wrong secret", nil, "credstore-role", "another" + awsSecret, 0, provider.ErrRefused, "signature we calculated does not match"},
		{"a fast clock", environment, "", "", time.Hour, provider.ErrRefused, "Signature expired"},
		{"a slow clock", environment, "", "", -time.Hour, provider.ErrRefused, "Signature expired"},
		{"no role", nil, "", "", 0, provider.ErrRefused, "names no role"},
		{"a role that leads elsewhere", nil, "../../user-data", "", 0, provider.ErrRefused, "names no role"},
		{"a region that leads elsewhere", map[string]string{"AWS_REGION": "x.example.com/", "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x"}, "", "", 0, provider.ErrRefused, "the region of AWS is none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := gcptest.New(t)
			p := s.AddPool(pool)
			p.AllowAWS("AKIAIOSFODNN7EXAMPLE", awsSecret, "")
			p.AllowAWS("ASIAIOSFODNN7EXAMPLE", awsSecret, "IQoJ-session")
			cfg := config(s)
			cfg.Getenv = func(name string) string { return tt.environment[name] }
			cfg.MetadataURL = instance(t, tt.role, tt.secret).URL
			if tt.clock != 0 {
				cfg.Now = func() time.Time { return time.Now().Add(tt.clock) }
			}
			_, err := open(t, cfg).Verify(t.Context(), federated(t, awsType, "", awsSource()))
			if !errors.Is(err, tt.kind) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error is %v, want %v with %q", err, tt.kind, tt.text)
			}
			if err != nil && strings.Contains(err.Error(), awsSecret) {
				t.Error("the error holds the secret")
			}
		})
	}
}

func TestSAML(t *testing.T) {
	s := gcptest.New(t)
	s.AddPool(pool)
	c := open(t, config(s))
	const saml = "urn:ietf:params:oauth:token-type:saml2"
	assertion := base64.StdEncoding.EncodeToString([]byte(`<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/>`))
	if _, err := c.Verify(t.Context(), federated(t, saml, "", map[string]any{"file": file(t, assertion)})); err == nil || s.Calls() != 1 {
		t.Errorf("an assertion does not get to Google: %v", err) // which this fake refuses
	}
	if _, err := c.Verify(t.Context(), federated(t, saml, "", map[string]any{"file": file(t, "c2VjcmV0")})); err == nil || s.Calls() != 1 {
		t.Errorf("what is no assertion gets to Google: %v", err)
	}
}

package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

// printed is the environment variable that makes this program print a file and
// end, as a credential plugin does.
const printed = "CREDSTORE_TEST_PRINT"

func TestMain(m *testing.M) {
	if path := os.Getenv(printed); path != "" {
		content, err := os.ReadFile(path)
		if err == nil {
			_, err = os.Stdout.Write(content)
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

const sourceName = "projects/default/credentials/cloud"

// loginOf makes a login of a document.
func loginOf(t *testing.T, document, source string) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Kubeconfig{
		Kubeconfig: &credentialv1.Kubeconfig{Document: document, TokenSource: source},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/cluster", ID: "v1", Payload: p}
}

func tokenLogin(t *testing.T, c *cluster, token string) credential.Login {
	t.Helper()
	return loginOf(t, c.document(t, nil, map[string]any{"token": token}, nil), "")
}

func certificateLogin(t *testing.T, c *cluster, by *authority, from, to time.Time) (credential.Login, string) {
	t.Helper()
	certificate, key := by.issue(t, pkix.Name{CommonName: "deployer", Organization: []string{"platform"}}, x509.ExtKeyUsageClientAuth, from, to)
	return loginOf(t, c.document(t, nil, map[string]any{
		"client-certificate-data": encode(certificate), "client-key-data": encode(key),
	}, nil), ""), key
}

func TestVendorToken(t *testing.T) {
	c := newCluster(t)
	good, wrong := c.token(c.signer, nil), c.token(newKey(t), nil)
	v := New(Config{Egress: loopback})
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: v, Minter: v,
		Good: tokenLogin(t, c, good), Identity: "system:serviceaccount:kube-system:deployer",
		Wrong:   tokenLogin(t, c, wrong),
		Calls:   func() int { return int(c.calls.Load()) },
		Stop:    c.stop,
		Secrets: []string{good, wrong},
	})
}

func TestVendorClientCertificate(t *testing.T) {
	c := newCluster(t)
	now := time.Now()
	good, key := certificateLogin(t, c, c.clients, now.Add(-time.Hour), now.Add(time.Hour))
	wrong, wrongKey := certificateLogin(t, c, newAuthority(t, "stranger"), now.Add(-time.Hour), now.Add(time.Hour))
	v := New(Config{Egress: loopback})
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: v, Minter: v, Good: good, Identity: "deployer", Wrong: wrong,
		Calls: func() int { return int(c.calls.Load()) }, Stop: c.stop, Secrets: []string{key, wrongKey},
	})
}

// cloud mints tokens for the fake cluster in place of a vendor's package.
type cloud struct {
	mint  func(credential.Login, *credentialv1.TokenRequest_KubernetesLogin) (credential.Token, error)
	calls int
}

func (m *cloud) Mint(_ context.Context, login credential.Login, r credential.TokenRequest) (credential.Token, error) {
	m.calls++
	return m.mint(login, r.Message().GetKubernetesLogin())
}

func minted(t *testing.T, token string, end time.Time) credential.Token {
	t.Helper()
	out, err := credential.NewToken(&credentialv1.Token{
		Kind:       &credentialv1.Token_Kubernetes{Kubernetes: &credentialv1.Token_KubernetesCredential{Token: token}},
		ExpireTime: timestamppb.New(end),
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const eksRole = "arn:aws:iam::123456789012:role/deployer"

func eksLogin(t *testing.T, c *cluster) credential.Login {
	t.Helper()
	return loginOf(t, c.document(t, nil, map[string]any{"exec": map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "aws",
		"args": []string{"--region", "eu-west-1", "eks", "get-token", "--cluster-name", "production", "--role", eksRole},
	}}, nil), sourceName)
}

func sourceOf(t *testing.T, m *credentialv1.Payload) *credential.Login {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Login{Name: sourceName, ID: "v7", Payload: p}
}

func awsSource(t *testing.T) *credential.Login {
	t.Helper()
	return sourceOf(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{
		AccessKeyId: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	}}})
}

func TestTokenSource(t *testing.T) {
	c := newCluster(t)
	end := time.Now().Add(14 * time.Minute).Truncate(time.Second)
	token := c.token(c.signer, nil)
	var asked []*credentialv1.TokenRequest_KubernetesLogin
	aws := &cloud{mint: func(login credential.Login, r *credentialv1.TokenRequest_KubernetesLogin) (credential.Token, error) {
		if login.Name != sourceName {
			t.Errorf("the source is %s", login)
		}
		asked = append(asked, r)
		return minted(t, token, end), nil
	}}
	v := New(Config{Egress: loopback, Minter: func(kind credential.Kind) provider.Minter {
		if kind != "awsAccessKey" {
			return nil
		}
		return aws
	}})
	login := eksLogin(t, c)
	login.Source = awsSource(t)
	identity, err := v.Verify(t.Context(), login)
	if err != nil || identity.Name != "system:serviceaccount:kube-system:deployer" {
		t.Fatalf("Verify: %+v, %v", identity, err)
	}
	got, err := v.Mint(t.Context(), login, request(t))
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := got.ExpireTime(); !ok || !at.Equal(end) || got.Message().GetKubernetes().GetToken() != token {
		t.Errorf("the token ends at %s, want %s; or it is another", at, end)
	}
	want := &credentialv1.TokenRequest_KubernetesLogin{Cluster: "production", Region: "eu-west-1", RoleArn: eksRole}
	if diff := cmp.Diff([]*credentialv1.TokenRequest_KubernetesLogin{want, want}, asked, protocmp.Transform()); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

func request(t *testing.T) credential.TokenRequest {
	t.Helper()
	r, err := credential.NewTokenRequest("kubeconfig", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTokenSourceFails(t *testing.T) {
	c := newCluster(t)
	refused := &provider.Error{Kind: provider.ErrRefused, Op: "AssumeRole", Status: 403, Text: "not authorized to perform: sts:AssumeRole"}
	basic, err := credential.NewToken(&credentialv1.Token{Kind: &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: "t"}}})
	if err != nil {
		t.Fatal(err)
	}
	aks := loginOf(t, c.document(t, nil, map[string]any{"exec": map[string]any{
		"command": "kubelogin", "args": []string{"get-token", "-t", "72f988bf-86f1-41af-91ab-2d7cd011db47"},
	}}, nil), sourceName)
	entra := sourceOf(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
		TenantId: "b0a5e6a2-1f2b-4a7e-9c41-2b8f6d1c7a11", ClientId: "80faf920-1908-4b52-b5ef-a8e7bedfc67a", ClientSecret: "s3cret~value",
	}}})
	for _, test := range []struct {
		name   string
		login  credential.Login
		source *credential.Login
		minter provider.Minter
		kind   error
		want   string
	}{
		{"no source", eksLogin(t, c), nil, &cloud{}, provider.ErrUnsupported, "verify: not supported: the token source is missing"},
		{"no minter", eksLogin(t, c), awsSource(t), nil, provider.ErrUnsupported, "verify: not supported: this server mints no tokens from credentials of kind awsAccessKey"},
		{"a refusal", eksLogin(t, c), awsSource(t), &cloud{mint: func(credential.Login, *credentialv1.TokenRequest_KubernetesLogin) (credential.Token, error) {
			return credential.Token{}, refused
		}}, provider.ErrRefused, "AssumeRole: refused: 403 not authorized to perform: sts:AssumeRole"},
		{"another token", eksLogin(t, c), awsSource(t), &cloud{mint: func(credential.Login, *credentialv1.TokenRequest_KubernetesLogin) (credential.Token, error) {
			return basic, nil
		}}, provider.ErrUnsupported, "verify: not supported: the token source made no token for a cluster"},
		{"a token that the cluster refuses", eksLogin(t, c), awsSource(t), &cloud{mint: func(credential.Login, *credentialv1.TokenRequest_KubernetesLogin) (credential.Token, error) {
			return minted(t, "k8s-aws-v1.c3Rz", time.Now().Add(time.Minute)), nil
		}}, provider.ErrRefused, "verify: refused: 401 the cluster does not accept the token that was minted from the token source: Unauthorized"},
		{"another directory", aks, entra, &cloud{}, provider.ErrRefused, "verify: refused: the cluster expects tokens of another directory (tenant-id) than the token source belongs to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := New(Config{Egress: loopback, Minter: func(credential.Kind) provider.Minter { return test.minter }})
			test.login.Source = test.source
			_, err := v.Verify(t.Context(), test.login)
			wantError(t, err, test.kind, test.want)
		})
	}
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || err.Error() != text {
		t.Errorf("error is %v\nwant     %s", err, text)
	}
	if _, ok := errors.AsType[*provider.Error](err); !ok {
		t.Errorf("error is a %T", err)
	}
}

// names of the ten checks, in the order of the documentation.
func names(namespace string) []string {
	return []string{
		"create clusterroles.rbac.authorization.k8s.io", "delete clusterroles.rbac.authorization.k8s.io",
		"create clusterrolebindings.rbac.authorization.k8s.io", "delete clusterrolebindings.rbac.authorization.k8s.io",
		"create daemonsets.apps" + namespace, "delete daemonsets.apps" + namespace,
		"create secrets" + namespace, "delete secrets" + namespace,
		"create serviceaccounts" + namespace, "delete serviceaccounts" + namespace,
	}
}

func TestChecks(t *testing.T) {
	c := newCluster(t)
	v := New(Config{Egress: loopback})
	token := c.token(c.signer, nil)
	c.allow = func(user string, a attributes) bool {
		return user == "system:serviceaccount:kube-system:deployer" &&
			!(a.Verb == "delete" && a.Resource == "clusterrolebindings") && !(a.Verb == "create" && a.Resource == "secrets")
	}
	for _, test := range []struct {
		name, namespace, suffix string
	}{
		{"in all namespaces", "", ""},
		{"in the context's namespace", "web", " in namespace web"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.asked = nil
			fields := map[string]any{}
			if test.namespace != "" {
				fields["namespace"] = test.namespace
			}
			got, err := v.Verify(t.Context(), loginOf(t, c.document(t, nil, map[string]any{"token": token}, fields), ""))
			if err != nil {
				t.Fatal(err)
			}
			var want []credential.Check
			for i, name := range names(test.suffix) {
				check := credential.Check{Name: name, Passed: i != 3 && i != 6}
				if !check.Passed {
					resource := map[int]string{3: "clusterrolebindings", 6: "secrets"}[i]
					check.Message = "the cluster's authorization does not allow it: no rule for " + resource
				}
				want = append(want, check)
			}
			if diff := cmp.Diff(want, got.Checks); diff != "" {
				t.Errorf("checks (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"groups": "system:serviceaccounts, system:authenticated", "uid": "5f0c"}, got.Facts); diff != "" {
				t.Errorf("facts (-want +got)\n%s", diff)
			}
			for _, a := range c.asked {
				clusterwide := a.Group == "rbac.authorization.k8s.io"
				if clusterwide && a.Namespace != "" || !clusterwide && a.Namespace != test.namespace {
					t.Errorf("asked for %+v", a)
				}
			}
			if len(c.asked) != 10 {
				t.Errorf("%d access reviews", len(c.asked))
			}
		})
	}
}

func TestVerifyErrors(t *testing.T) {
	c := newCluster(t)
	now := time.Now()
	token := c.token(c.signer, nil)
	expired, _ := certificateLogin(t, c, c.clients, now.Add(-2*time.Hour), now.Add(-time.Hour))
	ends := now.Add(-time.Hour).UTC().Format(time.RFC3339)
	document := func(clusterFields map[string]any) credential.Login {
		return loginOf(t, c.document(t, clusterFields, map[string]any{"token": token}, nil), "")
	}
	respond := func(code int, header, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for _, test := range []struct {
		name      string
		login     credential.Login
		intercept func(http.ResponseWriter, *http.Request) bool
		kind      error
		want      string
	}{
		{
			"an ended token", tokenLogin(t, c, c.token(c.signer, jwt.MapClaims{"exp": now.Add(-time.Hour).Unix()})), nil,
			provider.ErrRefused, "verify: refused: the token ended on " + ends,
		},
		{"an ended client certificate", expired, nil, provider.ErrRefused, "verify: refused: the client certificate ended on " + ends},
		{
			"an invalid token", tokenLogin(t, c, "s3cret-t0ken"), nil,
			provider.ErrRefused, "verify: refused: 401 the cluster does not accept the token: Unauthorized",
		},
		{
			"an unknown authority", document(map[string]any{"certificate-authority-data": encode(newAuthority(t, "cluster").pem)}), nil,
			provider.ErrUnavailable, "verify: store unavailable: the server's certificate is signed by an unknown authority: it is not among the cluster's certificate-authority-data",
		},
		{
			"the system's authorities", document(map[string]any{"certificate-authority-data": nil}), nil,
			provider.ErrUnavailable, "verify: store unavailable: the server's certificate is signed by an unknown authority: it is not among the cluster's certificate-authority-data",
		},
		{
			"another server's certificate", document(map[string]any{"tls-server-name": "other.example.com"}), nil,
			provider.ErrUnavailable, "verify: store unavailable: the certificate is not valid for other.example.com",
		},
		{
			"a private address", document(map[string]any{"server": "https://10.0.0.1:6443"}), nil,
			provider.ErrRefused, "verify: refused: this server does not connect to 10.0.0.1: it is a private address; the server's configuration can allow it",
		},
		{"an answer for nobody", document(nil), func(w http.ResponseWriter, _ *http.Request) bool {
			answer(w, map[string]any{"status": map[string]any{"userInfo": map[string]any{"username": anonymous}}})
			return true
		}, provider.ErrRefused, "verify: refused: the cluster does not know the token: it takes the request for that of nobody (system:anonymous)"},
		{"a user who may not ask", document(nil), func(w http.ResponseWriter, _ *http.Request) bool {
			status(w, 403, `selfsubjectreviews.authentication.k8s.io is forbidden: User "x" cannot create resource`)
			return true
		}, provider.ErrRefused, `verify: refused: 403 selfsubjectreviews.authentication.k8s.io is forbidden: User "x" cannot create resource`},
		{"a login that is not looked at", document(nil), func(w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Authorization")
			return false
		}, provider.ErrRefused, `verify: refused: 403 the cluster does not know the token: selfsubjectreviews.authentication.k8s.io is forbidden: User "system:anonymous" cannot create resource`},
		{"a token that comes back", document(nil), func(w http.ResponseWriter, r *http.Request) bool {
			status(w, 401, "bad token "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			return true
		}, provider.ErrRefused, "verify: refused: 401 the cluster does not accept the token: bad token (redacted)"},
		{
			"a redirect", document(nil), respond(302, "Location: https://169.254.169.254/", ""),
			provider.ErrUnavailable, "verify: store unavailable: 302 the server answers with a redirect, which is not followed: give the address of the API server itself",
		},
		{
			"a web page", document(nil), respond(200, "Content-Type: text/html", "<html>sign in</html>"),
			provider.ErrUnavailable, "verify: store unavailable: 200 the server answers, but not as the API of Kubernetes does",
		},
		{
			"a page that is missing", document(nil), respond(404, "", "<html>"),
			provider.ErrUnavailable, "verify: store unavailable: 404 the server does not answer as the API of Kubernetes does: Not Found",
		},
		{
			"a gateway's error", document(nil), respond(502, "Retry-After: 7", "<html>"),
			provider.ErrUnavailable, "verify: store unavailable: 502 Bad Gateway",
		},
		{
			"an endless answer", document(nil), respond(201, "", `{"status":{"userInfo":{"username":"`+strings.Repeat("x", provider.MaxAnswer)+`"}}}`),
			provider.ErrUnavailable, "verify: store unavailable: the answer has more than 1048576 bytes",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.setIntercept(test.intercept)
			_, err := New(Config{Egress: loopback}).Verify(t.Context(), test.login)
			wantError(t, err, test.kind, test.want)
			if strings.Contains(fmt.Sprint(err), token) {
				t.Error("the error holds the token")
			}
		})
	}
}

// A load balancer that asks for a certificate refuses before there is a request.
func TestVerifyRefusedInHandshake(t *testing.T) {
	c := newCluster(t)
	start := c.stop(t)
	// In TLS 1.3 the client may meet the closed connection before the alert.
	c.config.MaxVersion, c.config.ClientAuth = tls.VersionTLS12, tls.RequireAndVerifyClientCert
	c.config.ClientCAs = x509.NewCertPool()
	c.config.ClientCAs.AddCert(c.clients.certificate)
	start()
	login, _ := certificateLogin(t, c, newAuthority(t, "stranger"), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	_, err := New(Config{Egress: loopback}).Verify(t.Context(), login)
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "the server refuses the connection, or the client certificate: tls: ") {
		t.Errorf("error is %v", err)
	}
}

func TestVerifyRetryAfter(t *testing.T) {
	c := newCluster(t)
	c.setIntercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "7")
		status(w, 429, "too many requests")
		return true
	})
	_, err := New(Config{Egress: loopback}).Verify(t.Context(), tokenLogin(t, c, c.token(c.signer, nil)))
	e, ok := errors.AsType[*provider.Error](err)
	if !ok || !errors.Is(err, provider.ErrUnavailable) || e.RetryAfter != 7*time.Second {
		t.Errorf("error is %#v", err)
	}
}

// Before version 1.28 a cluster cannot say who it is; the checks prove the login.
func TestVerifyOldCluster(t *testing.T) {
	c := newCluster(t)
	c.setIntercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != reviewPath {
			return false
		}
		if _, ok := c.authenticate(r); !ok {
			status(w, 401, "Unauthorized")
			return true
		}
		status(w, 404, "the server could not find the requested resource")
		return true
	})
	v := New(Config{Egress: loopback})
	got, err := v.Verify(t.Context(), tokenLogin(t, c, c.token(c.signer, nil)))
	if err != nil || got.Name != "system:serviceaccount:kube-system:deployer" || len(got.Checks) != 10 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := v.Verify(t.Context(), tokenLogin(t, c, "wrong")); !errors.Is(err, provider.ErrRefused) {
		t.Errorf("a wrong token: %v", err)
	}
}

// No connection is left behind.
func TestVerifyClosesConnections(t *testing.T) {
	c := newCluster(t)
	opened, none := 0, make(chan struct{})
	c.mu.Lock()
	c.state = func(state http.ConnState) {
		switch state {
		case http.StateNew:
			opened++
		case http.StateClosed:
			if opened--; opened == 0 {
				close(none)
			}
		case http.StateActive, http.StateIdle, http.StateHijacked:
		}
	}
	c.mu.Unlock()
	if _, err := New(Config{Egress: loopback}).Verify(t.Context(), tokenLogin(t, c, c.token(c.signer, nil))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-none:
	case <-time.After(20 * time.Second):
		t.Error("a connection is still open")
	}
}

// Who may not even ask has none of the permissions.
func TestChecksForbidden(t *testing.T) {
	c := newCluster(t)
	c.setIntercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == accessPath {
			status(w, 403, "selfsubjectaccessreviews.authorization.k8s.io is forbidden")
		}
		return r.URL.Path == accessPath
	})
	got, err := New(Config{Egress: loopback}).Verify(t.Context(), tokenLogin(t, c, c.token(c.signer, nil)))
	if err != nil || len(got.Checks) != 10 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, check := range got.Checks {
		if check.Passed || check.Message != "selfsubjectaccessreviews.authorization.k8s.io is forbidden" {
			t.Errorf("%+v", check)
		}
	}
}

// A token and a client certificate are both shown, as kubectl does.
func TestVerifyShowsBoth(t *testing.T) {
	c := newCluster(t)
	now := time.Now()
	certificate, key := c.clients.issue(t, pkix.Name{CommonName: "deployer"}, x509.ExtKeyUsageClientAuth, now.Add(-time.Hour), now.Add(time.Hour))
	headers := make(chan string, 20)
	c.setIntercept(func(_ http.ResponseWriter, r *http.Request) bool {
		headers <- r.Header.Get("Authorization")
		return false
	})
	login := loginOf(t, c.document(t, map[string]any{"tls-server-name": "kubernetes.default.svc", "server": c.url() + "/"}, map[string]any{
		"client-certificate-data": encode(certificate), "client-key-data": encode(key), "token": "t0ken",
	}, nil), "")
	got, err := New(Config{Egress: loopback}).Verify(t.Context(), login)
	if err != nil || got.Name != "deployer" || got.Facts["groups"] != "system:authenticated" {
		t.Errorf("%+v, %v", got, err)
	}
	if h := <-headers; h != "Bearer t0ken" {
		t.Errorf("Authorization is %q", h)
	}
}

func TestMint(t *testing.T) {
	c := newCluster(t)
	now := time.Now().Truncate(time.Second)
	signed := c.token(c.signer, jwt.MapClaims{"exp": now.Add(time.Hour).Unix()})
	certificate, key := c.clients.issue(t, pkix.Name{CommonName: "deployer"}, x509.ExtKeyUsageClientAuth, now.Add(-time.Hour), now.Add(2*time.Hour))
	end := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	for _, test := range []struct {
		name string
		user map[string]any
		want *credentialv1.Token_KubernetesCredential
		end  time.Time
		exec map[string]any
	}{
		{
			"a token without end",
			map[string]any{"token": "t0ken"},
			&credentialv1.Token_KubernetesCredential{Token: "t0ken"},
			time.Time{},
			map[string]any{"token": "t0ken"},
		},
		{
			"a token",
			map[string]any{"token": signed},
			&credentialv1.Token_KubernetesCredential{Token: signed}, now.Add(time.Hour),
			map[string]any{"token": signed, "expirationTimestamp": end(time.Hour)},
		},
		{
			"a client certificate",
			map[string]any{"client-certificate-data": encode(certificate), "client-key-data": encode(key)},
			&credentialv1.Token_KubernetesCredential{ClientCertificatePem: certificate, ClientKeyPem: key}, now.Add(2 * time.Hour),
			map[string]any{"clientCertificateData": certificate, "clientKeyData": key, "expirationTimestamp": end(2 * time.Hour)},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := New(Config{}).Mint(t.Context(), loginOf(t, c.document(t, nil, test.user, nil), ""), request(t))
			if err != nil {
				t.Fatal(err)
			}
			if at, ok := got.ExpireTime(); ok == test.end.IsZero() || !at.Equal(test.end) {
				t.Errorf("ExpireTime() = %s, %t; want %s", at, ok, test.end)
			}
			m := got.Message().GetKubernetes()
			var exec map[string]any
			if err := json.Unmarshal([]byte(m.GetExecCredential()), &exec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]any{
				"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": map[string]any{"interactive": false}, "status": test.exec,
			}, exec); diff != "" {
				t.Errorf("ExecCredential (-want +got)\n%s", diff)
			}
			m.ExecCredential = ""
			if diff := cmp.Diff(test.want, m, protocmp.Transform()); diff != "" {
				t.Errorf("token (-want +got)\n%s", diff)
			}
		})
	}
	if c.calls.Load() != 0 {
		t.Error("the cluster was asked")
	}
}

// A token is handed out until it ends, and no longer.
func TestMintEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, address: "cluster.example.com", serving: newAuthority(t, "cluster"), signer: newKey(t)}
		login := tokenLogin(t, c, c.token(c.signer, jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}))
		end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		v := New(Config{})
		time.Sleep(time.Until(end) - time.Nanosecond)
		if _, err := v.Mint(t.Context(), login, request(t)); err != nil {
			t.Errorf("a moment before: %v", err)
		}
		time.Sleep(time.Nanosecond)
		_, err := v.Mint(t.Context(), login, request(t))
		wantError(t, err, provider.ErrRefused, "mint: refused: the token ended on "+end.Format(time.RFC3339))
	})
}

func TestUnsupported(t *testing.T) {
	v := New(Config{})
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: "t0ken"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), credential.Login{Payload: p})
	wantError(t, err, provider.ErrUnsupported, "verify: not supported: the credential is no kubeconfig")
	_, err = v.Mint(t.Context(), credential.Login{Payload: p}, request(t))
	wantError(t, err, provider.ErrUnsupported, "mint: not supported: the credential is no kubeconfig")
	_, err = v.Mint(t.Context(), credential.Login{Payload: p}, credential.TokenRequest{})
	wantError(t, err, provider.ErrUnsupported, "mint: not supported: only kubernetesLogin is minted from a kubeconfig")
	stored, err := credential.Unmarshal([]byte{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), credential.Login{Payload: stored})
	wantError(t, err, provider.ErrUnsupported, "verify: not supported: the credential is no kubeconfig")
}

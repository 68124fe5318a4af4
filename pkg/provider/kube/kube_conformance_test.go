//go:build conformance

package kube

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/kube/kubetest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

// deployer is what the documentation tells to grant.
var deployer = []kubetest.Rule{
	{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"clusterroles", "clusterrolebindings"}, Verbs: []string{"create", "delete"}},
	{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, Verbs: []string{"create", "delete"}},
	{APIGroups: []string{""}, Resources: []string{"secrets", "serviceaccounts"}, Verbs: []string{"create", "delete"}},
}

// failed lists the names of the checks that did not pass.
func failed(identity credential.Identity) []string {
	var out []string
	for _, check := range identity.Checks {
		if !check.Passed {
			out = append(out, check.Name)
		}
	}
	return out
}

// All against one server, which takes a while to start.
func TestConformance(t *testing.T) {
	s := kubetest.New(t)
	t.Run("Suite", func(t *testing.T) { testSuite(t, s) })
	t.Run("Checks", func(t *testing.T) { testChecks(t, s) })
	t.Run("Refused", func(t *testing.T) { testRefused(t, s) })
	t.Run("ExecPlugin", func(t *testing.T) { testExecPlugin(t, s) })
}

// The suite that the fake passes, against the real one: what the fake answers is
// what a cluster does.
func testSuite(t *testing.T, s *kubetest.Server) {
	now := time.Now()
	s.Grant(t, "suite", s.ServiceAccount(t, "default", "suite"), "", deployer...)
	token := s.Token(t, "default", "suite", time.Hour)
	forged := token[:strings.LastIndexByte(token, '.')] + ".c2lnbmF0dXJl"
	certificate, key := s.Certificate(t, "suite", []string{"platform"}, now.Add(-time.Hour), now.Add(time.Hour))
	foreign, foreignKey := newAuthority(t, "stranger").issue(t, pkix.Name{CommonName: "suite"}, x509.ExtKeyUsageClientAuth, now.Add(-time.Hour), now.Add(time.Hour))
	login := func(user map[string]any) credential.Login { return loginOf(t, s.Kubeconfig(t, user, ""), "") }
	for _, test := range []struct {
		name, identity string
		good, wrong    map[string]any
		secrets        []string
	}{
		{"a token", "system:serviceaccount:default:suite", map[string]any{"token": token}, map[string]any{"token": forged}, []string{token, forged}},
		{
			"a client certificate", "suite",
			map[string]any{"client-certificate-data": encode(certificate), "client-key-data": encode(key)},
			map[string]any{"client-certificate-data": encode(foreign), "client-key-data": encode(foreignKey)},
			[]string{key, foreignKey},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := New(Config{Egress: loopback})
			var calls atomic.Int64
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: verifier(func(ctx context.Context, l credential.Login) (credential.Identity, error) {
					identity, err := v.Verify(ctx, l)
					if ctx.Err() == nil {
						calls.Add(1) // the server itself does not tell
					}
					return identity, err
				}),
				Good: login(test.good), Identity: test.identity, Wrong: login(test.wrong),
				Calls: func() int { return int(calls.Load()) }, Secrets: test.secrets,
			})
		})
	}
}

// verifier is one in a function.
type verifier func(context.Context, credential.Login) (credential.Identity, error)

func (f verifier) Verify(ctx context.Context, l credential.Login) (credential.Identity, error) {
	return f(ctx, l)
}

func testChecks(t *testing.T, s *kubetest.Server) {
	v := New(Config{Egress: loopback})
	lacking := []kubetest.Rule{
		{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"clusterroles"}, Verbs: []string{"create", "delete"}},
		{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"clusterrolebindings"}, Verbs: []string{"create"}},
		{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, Verbs: []string{"create", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"delete"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"create", "delete"}},
	}
	s.Create(t, "/api/v1/namespaces", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "agents"}})
	for _, name := range []string{"all", "lacking", "nothing", "local"} {
		s.ServiceAccount(t, "default", name)
	}
	user := func(name string) string { return "system:serviceaccount:default:" + name }
	s.Grant(t, "all", user("all"), "", deployer...)
	s.Grant(t, "lacking", user("lacking"), "", lacking...)
	s.Grant(t, "local-cluster", user("local"), "", deployer[0])
	s.Grant(t, "local", user("local"), "agents", deployer[1], deployer[2])
	for _, test := range []struct {
		name, user, namespace string
		failed                []string
	}{
		{"all ten", "all", "", nil},
		{"all ten, in a namespace", "all", "agents", nil},
		{"two missing", "lacking", "", []string{"delete clusterrolebindings.rbac.authorization.k8s.io", "create secrets"}},
		{"none", "nothing", "", names("")},
		{"in one namespace only", "local", "agents", nil},
		{"in another namespace", "local", "", names("")[4:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			login := loginOf(t, s.Kubeconfig(t, map[string]any{"token": s.Token(t, "default", test.user, time.Hour)}, test.namespace), "")
			got, err := v.Verify(t.Context(), login)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != user(test.user) || !strings.Contains(got.Facts["groups"], "system:serviceaccounts:default") {
				t.Errorf("identity is %q with %v", got.Name, got.Facts)
			}
			var asked []string
			for _, check := range got.Checks {
				asked = append(asked, check.Name)
				if check.Passed == (check.Message != "") {
					t.Errorf("%+v", check)
				}
			}
			suffix := ""
			if test.namespace != "" {
				suffix = " in namespace " + test.namespace
			}
			if diff := cmp.Diff(names(suffix), asked); diff != "" {
				t.Errorf("checks (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(test.failed, failed(got)); diff != "" {
				t.Errorf("failed checks (-want +got)\n%s", diff)
			}
		})
	}
}

func testRefused(t *testing.T, s *kubetest.Server) {
	now := time.Now()
	s.ServiceAccount(t, "default", "me")
	claims := func(end time.Time) jwt.MapClaims {
		return jwt.MapClaims{
			"iss": s.TokenIssuer, "aud": []string{s.TokenIssuer}, "sub": "system:serviceaccount:default:me",
			"iat": now.Add(-2 * time.Hour).Unix(), "nbf": now.Add(-2 * time.Hour).Unix(), "exp": end.Unix(),
			"kubernetes.io": map[string]any{"namespace": "default", "serviceaccount": map[string]any{"name": "me", "uid": "0"}},
		}
	}
	_, stranger := s.Certificate(t, "x", nil, now, now)
	ended := kubetest.Sign(t, s.TokenKeyPEM, claims(now.Add(-time.Hour)))
	certificate, key := s.Certificate(t, "me", nil, now.Add(-2*time.Hour), now.Add(-time.Hour))
	for _, test := range []struct {
		name, document, want string
		kind                 error
	}{
		{
			"an invalid token", s.Kubeconfig(t, map[string]any{"token": "s3cret-t0ken"}, ""),
			"verify: refused: 401 the cluster does not accept the token: Unauthorized", provider.ErrRefused,
		},
		{
			"a token of another key", s.Kubeconfig(t, map[string]any{"token": kubetest.Sign(t, stranger, claims(now.Add(time.Hour)))}, ""),
			"verify: refused: 401 the cluster does not accept the token: Unauthorized", provider.ErrRefused,
		},
		{
			"an ended token", s.Kubeconfig(t, map[string]any{"token": ended}, ""),
			"verify: refused: the token ended on " + now.Add(-time.Hour).UTC().Format(time.RFC3339), provider.ErrRefused,
		},
		{
			"an ended certificate", s.Kubeconfig(t, map[string]any{"client-certificate-data": encode(certificate), "client-key-data": encode(key)}, ""),
			"verify: refused: the client certificate ended on " + now.Add(-time.Hour).UTC().Format(time.RFC3339), provider.ErrRefused,
		},
		{
			"another cluster's authority", strings.ReplaceAll(s.Kubeconfig(t, map[string]any{"token": ended[:20]}, ""), encode(s.CAPEM), encode(s.ClientCAPEM)),
			"verify: store unavailable: the server's certificate is signed by an unknown authority: it is not among the cluster's certificate-authority-data", provider.ErrUnavailable,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(Config{Egress: loopback}).Verify(t.Context(), loginOf(t, test.document, ""))
			wantError(t, err, test.kind, test.want)
		})
	}
	t.Run("what has ended, when it is shown to the cluster", func(t *testing.T) {
		for name, m := range map[string]material{
			"token":              {token: ended},
			"client certificate": {certificatePEM: certificate, keyPEM: key},
		} {
			l, _, err := New(Config{}).open(t.Context(), opVerify, loginOf(t, s.Kubeconfig(t, map[string]any{"token": "x"}, ""), ""))
			if err != nil {
				t.Fatal(err)
			}
			c, err := New(Config{Egress: loopback}).connect(l, m)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.whoAmI(t.Context(), "")
			c.close()
			if e, ok := errors.AsType[*provider.Error](err); !ok || !errors.Is(err, provider.ErrRefused) || e.Status != 401 {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// What Mint returns works as the output of a credential plugin of client-go.
func testExecPlugin(t *testing.T, s *kubetest.Server) {
	now := time.Now()
	s.Grant(t, "reader", s.ServiceAccount(t, "default", "reader"), "", kubetest.Rule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list"}})
	s.Grant(t, "reader-certificate", "reader", "", kubetest.Rule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list"}})
	certificate, key := s.Certificate(t, "reader", []string{"platform"}, now.Add(-time.Hour), now.Add(time.Hour))
	token := s.Token(t, "default", "reader", time.Hour)
	aws := &cloud{mint: func(credential.Login, *credentialv1.TokenRequest_KubernetesLogin) (credential.Token, error) {
		return minted(t, token, now.Add(14*time.Minute)), nil
	}}
	v := New(Config{Egress: loopback, Minter: func(credential.Kind) provider.Minter { return aws }})
	eks := loginOf(t, s.Kubeconfig(t, map[string]any{"exec": map[string]any{
		"command": "aws", "args": []string{"--region", "eu-west-1", "eks", "get-token", "--cluster-name", "production"},
	}}, ""), sourceName)
	eks.Source = awsSource(t)
	for _, test := range []struct {
		name, user string
		login      credential.Login
	}{
		{"a token", "system:serviceaccount:default:reader", loginOf(t, s.Kubeconfig(t, map[string]any{"token": token}, ""), "")},
		{"a client certificate", "reader", loginOf(t, s.Kubeconfig(t, map[string]any{"client-certificate-data": encode(certificate), "client-key-data": encode(key)}, ""), "")},
		{"a token of the token source", "system:serviceaccount:default:reader", eks},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := v.Mint(t.Context(), test.login, request(t))
			if err != nil {
				t.Fatal(err)
			}
			seen, err := kubetest.Client(t, plugin(t, s, got.Message().GetKubernetes().GetExecCredential()))
			if err != nil {
				t.Fatal(err)
			}
			if seen.User != test.user || !slices.Contains(seen.Namespaces, "kube-system") || seen.Version == "" {
				t.Errorf("the client saw %+v", seen)
			}
		})
	}
	t.Run("a wrong token", func(t *testing.T) {
		wrong, err := json.Marshal(map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": map[string]any{"token": "wrong"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if seen, err := kubetest.Client(t, plugin(t, s, string(wrong))); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
			t.Errorf("the client saw %+v, %v", seen, err)
		}
	})
}

// plugin returns a kubeconfig whose user is logged in by a program that prints
// the text: this test's own, see TestMain.
func plugin(t *testing.T, s *kubetest.Server, text string) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "credential.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.Kubeconfig(t, map[string]any{"exec": map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": program,
		"env": []any{map[string]any{"name": printed, "value": path}},
	}}, "")
}

// Package kubetest owns a real Kubernetes API server for conformance tests: it
// starts the server whose program the environment names, plays its
// administrator, and runs a client that is built on Kubernetes' own library. It
// is for tests, and no part of what is shipped.
package kubetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/credstore/credstore/pkg/credential/kubeconfig"
)

// Program is the environment variable that names the server's program, which
// has the client too.
const Program = "CREDSTORE_KUBE_APISERVER"

// Server is an API server with authorization by roles and without controllers.
// Its methods fail the test when the server does not do as told.
type Server struct {
	// URL is where it is, and CAPEM what its certificate is signed with.
	URL   string `json:"url"`
	CAPEM string `json:"caPem"`
	// AdminKubeconfig is that of a user who may do everything.
	AdminKubeconfig string `json:"adminKubeconfig"`
	// ClientCAPEM and ClientCAKeyPEM sign client certificates.
	ClientCAPEM    string `json:"clientCaPem"`
	ClientCAKeyPEM string `json:"clientCaKeyPem"`
	// TokenIssuer and TokenKeyPEM sign service accounts' tokens.
	TokenIssuer string `json:"tokenIssuer"`
	TokenKeyPEM string `json:"tokenKeyPem"`

	admin *http.Client
}

func program(t testing.TB) string {
	t.Helper()
	path := os.Getenv(Program)
	if path == "" {
		t.Fatalf("%s is not set: run make conformance", Program)
	}
	return path
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	c := exec.Command(program(t)) //nolint:gosec // who runs the tests names the program
	var stderr bytes.Buffer
	c.Stderr = &stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // the server ends with it
		if err := c.Wait(); err != nil {
			t.Errorf("the API server ended with %v", err)
		}
	})
	s := &Server{}
	if err := json.NewDecoder(stdout).Decode(s); err != nil {
		_ = c.Process.Kill()
		t.Fatalf("the API server did not start: %v, %v\n%s", err, c.Wait(), stderr.String())
	}
	s.admin = s.adminClient(t)
	return s
}

func (s *Server) adminClient(t testing.TB) *http.Client {
	t.Helper()
	login, problems := kubeconfig.Parse(s.AdminKubeconfig, "")
	if login == nil {
		t.Fatalf("the administrator's kubeconfig: %v", problems)
	}
	pair, err := tls.X509KeyPair([]byte(login.CertificatePEM), []byte(login.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	// Connections of its own: none is left when the test ends.
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
}

// Create posts an object as the administrator and returns the answer.
func (s *Server) Create(t testing.TB, path string, object map[string]any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.admin.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(content, &out); err != nil || response.StatusCode != http.StatusCreated {
		t.Fatalf("POST %s: %d %v, %v", path, response.StatusCode, out["message"], err)
	}
	return out
}

// Rule is what a role allows.
type Rule struct {
	APIGroups []string `json:"apiGroups"`
	Resources []string `json:"resources"`
	Verbs     []string `json:"verbs"`
}

const rbac = "rbac.authorization.k8s.io"

// Grant gives a user what the rules allow: in the whole cluster, or in one
// namespace. name is that of the role and of its binding.
func (s *Server) Grant(t testing.TB, name, user, namespace string, rules ...Rule) {
	t.Helper()
	kind, path := "ClusterRole", "/apis/"+rbac+"/v1/clusterrole"
	if namespace != "" {
		kind, path = "Role", "/apis/"+rbac+"/v1/namespaces/"+namespace+"/role"
	}
	metadata := map[string]any{"name": name}
	s.Create(t, path+"s", map[string]any{"apiVersion": rbac + "/v1", "kind": kind, "metadata": metadata, "rules": rules})
	s.Create(t, path+"bindings", map[string]any{
		"apiVersion": rbac + "/v1", "kind": kind + "Binding", "metadata": metadata,
		"roleRef":  map[string]any{"apiGroup": rbac, "kind": kind, "name": name},
		"subjects": []any{map[string]any{"apiGroup": rbac, "kind": "User", "name": user}},
	})
}

// ServiceAccount creates one and returns the name of its user.
func (s *Server) ServiceAccount(t testing.TB, namespace, name string) string {
	t.Helper()
	s.Create(t, "/api/v1/namespaces/"+namespace+"/serviceaccounts", map[string]any{
		"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": name},
	})
	return "system:serviceaccount:" + namespace + ":" + name
}

// Token asks the server for a token of a service account, by its TokenRequest
// API. Ten minutes are the least that it gives.
func (s *Server) Token(t testing.TB, namespace, name string, lifetime time.Duration) string {
	t.Helper()
	answer := s.Create(t, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token", map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"expirationSeconds": int(lifetime.Seconds())},
	})
	status, _ := answer["status"].(map[string]any)
	token, _ := status["token"].(string)
	if token == "" {
		t.Fatal("the server gave no token")
	}
	return token
}

// Sign signs claims with a key in PEM form, as that of the server's tokens.
func Sign(t testing.TB, keyPEM string, claims jwt.MapClaims) string {
	t.Helper()
	key, err := jwt.ParseECPrivateKeyFromPEM([]byte(keyPEM))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Certificate issues a client certificate, and returns it with its key.
func (s *Server) Certificate(t testing.TB, user string, groups []string, from, to time.Time) (certificatePEM, keyPEM string) {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(s.ClientCAPEM), []byte(s.ClientCAKeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: user, Organization: groups},
		NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der), block("EC PRIVATE KEY", encoded)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// Kubeconfig writes a document for the server with the fields of a user and the
// context's namespace, if there is one.
func (s *Server) Kubeconfig(t testing.TB, user map[string]any, namespace string) string {
	t.Helper()
	context := map[string]any{"cluster": "test", "user": "me"}
	if namespace != "" {
		context["namespace"] = namespace
	}
	encoded, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{
			"server": s.URL, "certificate-authority-data": base64.StdEncoding.EncodeToString([]byte(s.CAPEM)),
		}}},
		"contexts": []any{map[string]any{"name": "test", "context": context}},
		"users":    []any{map[string]any{"name": "me", "user": user}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

// Seen is what a client saw of the cluster.
type Seen struct {
	User       string
	Groups     []string
	Version    string
	Namespaces []string
}

// Client calls the cluster with Kubernetes' own client library, credential
// plugins included: it asks who it is, for the version, and lists the
// namespaces. Its error holds what the client printed. env is added to the
// environment that the client and its plugin see.
func Client(t testing.TB, document string, env ...string) (Seen, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program(t), "client", path) //nolint:gosec // who runs the tests names the program
	c.Env = append(os.Environ(), append([]string{"HOME=" + dir}, env...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	content, err := c.Output()
	if err != nil {
		return Seen{}, fmt.Errorf("%w: %s", err, stderr.String())
	}
	var seen Seen
	if err := json.Unmarshal(content, &seen); err != nil {
		return Seen{}, fmt.Errorf("the client's answer: %w", err)
	}
	return seen, nil
}

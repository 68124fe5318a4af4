package kube

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/credstore/credstore/test/heldport"
)

// audience is who the fake cluster's tokens are for, and who issues them.
const audience = "https://kubernetes.default.svc"

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	a := &authority{certificate: template, key: newKey(t)}
	a.certificate, a.pem = a.sign(t, template, a.key.Public())
	return a
}

func (a *authority) sign(t *testing.T, template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// issue returns a certificate and its key as PEM.
func (a *authority) issue(t *testing.T, subject pkix.Name, usage x509.ExtKeyUsage, from, to time.Time, names ...string) (string, string) {
	t.Helper()
	key := newKey(t)
	_, certificate := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: subject, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key.Public())
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// cluster is a fake API server. It answers the two reviews as the reference
// says, knows users by signed tokens and by client certificates, and takes
// others for nobody.
type cluster struct {
	t       *testing.T
	server  *httptest.Server
	address string
	config  *tls.Config
	// serving signs the server's certificate, clients those of users, and signer
	// the tokens.
	serving, clients *authority
	signer           *ecdsa.PrivateKey
	calls            atomic.Int64

	mu sync.Mutex
	// allow says what a user may do.
	allow func(user string, a attributes) bool
	// intercept answers in place of the server where it returns true.
	intercept func(http.ResponseWriter, *http.Request) bool
	// asked are the access reviews.
	asked []attributes
	// state is called when a connection changes, unless nil.
	state func(http.ConnState)
}

func (c *cluster) connState(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != nil {
		c.state(state)
	}
}

type attributes struct {
	Namespace string `json:"namespace"`
	Verb      string `json:"verb"`
	Group     string `json:"group"`
	Resource  string `json:"resource"`
}

type user struct {
	Username string   `json:"username"`
	UID      string   `json:"uid,omitempty"`
	Groups   []string `json:"groups,omitempty"`
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		t: t, serving: newAuthority(t, "cluster"), clients: newAuthority(t, "clients"), signer: newKey(t),
		allow: func(string, attributes) bool { return true },
	}
	certificate, key := c.serving.issue(t, pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth,
		time.Now().Add(-time.Hour), time.Now().Add(time.Hour), "kubernetes.default.svc")
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	c.config = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	c.address = heldport.Reserve(t)
	c.start()
	t.Cleanup(func() { c.server.Close() })
	return c
}

func (c *cluster) start() {
	c.t.Helper()
	listener, err := net.Listen("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	_ = c.server.Listener.Close()
	c.server.Listener, c.server.TLS, c.server.EnableHTTP2 = listener, c.config.Clone(), true
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what some tests are for
	c.server.Config.ConnState = c.connState
	c.server.StartTLS()
}

// stop makes the cluster unreachable until start is called.
func (c *cluster) stop(*testing.T) (start func()) {
	c.server.Close()
	return c.start
}

func (c *cluster) url() string { return "https://" + c.address }

// token signs a service account's token, with claims over the good ones.
func (c *cluster) token(key *ecdsa.PrivateKey, over jwt.MapClaims) string {
	c.t.Helper()
	claims := jwt.MapClaims{
		"iss": audience, "aud": []string{audience}, "sub": "system:serviceaccount:kube-system:deployer",
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, over)
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return signed
}

// authenticate returns who sends the request: false is refused.
func (c *cluster) authenticate(r *http.Request) (user, bool) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		roots := x509.NewCertPool()
		roots.AddCert(c.clients.certificate)
		leaf := r.TLS.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			return user{}, false
		}
		return user{Username: leaf.Subject.CommonName, Groups: append(leaf.Subject.Organization, "system:authenticated")}, true
	}
	header, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		return user{Username: anonymous, Groups: []string{"system:unauthenticated"}}, true
	}
	token, err := jwt.Parse(header, func(*jwt.Token) (any, error) { return c.signer.Public(), nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(audience), jwt.WithIssuer(audience), jwt.WithExpirationRequired())
	if err != nil {
		return user{}, false
	}
	subject, err := token.Claims.GetSubject()
	if err != nil {
		return user{}, false
	}
	return user{Username: subject, UID: "5f0c", Groups: []string{"system:serviceaccounts", "system:authenticated"}}, true
}

func (c *cluster) serve(w http.ResponseWriter, r *http.Request) {
	c.calls.Add(1)
	c.mu.Lock()
	intercept := c.intercept
	c.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	who, ok := c.authenticate(r)
	if !ok {
		status(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	if who.Username == anonymous {
		status(w, http.StatusForbidden, `selfsubjectreviews.authentication.k8s.io is forbidden: User "system:anonymous" cannot create resource`)
		return
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.RawQuery != "" {
		status(w, http.StatusMethodNotAllowed, "the server does not allow this method on the requested resource")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		status(w, http.StatusBadRequest, "unreadable")
		return
	}
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			ResourceAttributes *attributes `json:"resourceAttributes"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(body, &review); err != nil {
		status(w, http.StatusBadRequest, "the object provided is unrecognized")
		return
	}
	switch {
	case r.URL.Path == reviewPath && review.APIVersion == "authentication.k8s.io/v1" && review.Kind == "SelfSubjectReview":
		answer(w, map[string]any{
			"apiVersion": review.APIVersion, "kind": review.Kind, "status": map[string]any{"userInfo": who},
		})
	case r.URL.Path == accessPath && review.APIVersion == "authorization.k8s.io/v1" && review.Kind == "SelfSubjectAccessReview" && review.Spec.ResourceAttributes != nil:
		c.mu.Lock()
		c.asked = append(c.asked, *review.Spec.ResourceAttributes)
		allowed := c.allow(who.Username, *review.Spec.ResourceAttributes)
		c.mu.Unlock()
		out := map[string]any{"allowed": allowed}
		if !allowed {
			out["reason"] = "no rule for " + review.Spec.ResourceAttributes.Resource
		}
		answer(w, map[string]any{"apiVersion": review.APIVersion, "kind": review.Kind, "spec": review.Spec, "status": out})
	default:
		status(w, http.StatusNotFound, "the server could not find the requested resource")
	}
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone does not matter
}

func status(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code,
	})
}

// setIntercept answers in place of the server from now on.
func (c *cluster) setIntercept(f func(http.ResponseWriter, *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intercept = f
}

// document writes a kubeconfig with the cluster's fields and the user's.
func (c *cluster) document(t *testing.T, clusterFields, userFields, contextFields map[string]any) string {
	t.Helper()
	fields := map[string]any{"server": c.url(), "certificate-authority-data": encode(c.serving.pem)}
	for name, value := range clusterFields {
		fields[name] = value
		if value == nil {
			delete(fields, name)
		}
	}
	context := map[string]any{"cluster": "test", "user": "me"}
	maps.Copy(context, contextFields)
	encoded, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": fields}},
		"contexts": []any{map[string]any{"name": "test", "context": context}},
		"users":    []any{map[string]any{"name": "me", "user": userFields}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// post asks the fake without the code under test, and returns the status.
func (c *cluster) post(ctx context.Context, t *testing.T, token, certificate, key string) int {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.serving.pem))
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if certificate != "" {
		pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url()+reviewPath,
		strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// The fake refuses what a cluster refuses.
func TestFakeRefuses(t *testing.T) {
	c := newCluster(t)
	now := time.Now()
	stranger := newAuthority(t, "clients")
	good, goodKey := c.clients.issue(t, pkix.Name{CommonName: "me"}, x509.ExtKeyUsageClientAuth, now.Add(-time.Hour), now.Add(time.Hour))
	forged, forgedKey := stranger.issue(t, pkix.Name{CommonName: "me"}, x509.ExtKeyUsageClientAuth, now.Add(-time.Hour), now.Add(time.Hour))
	ended, endedKey := c.clients.issue(t, pkix.Name{CommonName: "me"}, x509.ExtKeyUsageClientAuth, now.Add(-2*time.Hour), now.Add(-time.Hour))
	server, serverKey := c.clients.issue(t, pkix.Name{CommonName: "me"}, x509.ExtKeyUsageServerAuth, now.Add(-time.Hour), now.Add(time.Hour))
	for _, test := range []struct {
		name                    string
		token, certificate, key string
		want                    int
	}{
		{"a good token", c.token(c.signer, nil), "", "", 201},
		{"a wrong signature", c.token(newKey(t), nil), "", "", 401},
		{"an ended token", c.token(c.signer, jwt.MapClaims{"exp": now.Add(-time.Minute).Unix()}), "", "", 401},
		{"a token for another audience", c.token(c.signer, jwt.MapClaims{"aud": "vault"}), "", "", 401},
		{"a token of another issuer", c.token(c.signer, jwt.MapClaims{"iss": "https://idp.example.com"}), "", "", 401},
		{"a token that is not valid yet", c.token(c.signer, jwt.MapClaims{"nbf": now.Add(time.Hour).Unix()}), "", "", 401},
		{"nobody", "", "", "", 403},
		{"a good certificate", "", good, goodKey, 201},
		{"a certificate of another authority", "", forged, forgedKey, 401},
		{"an ended certificate", "", ended, endedKey, 401},
		{"a server's certificate", "", server, serverKey, 401},
	} {
		if got := c.post(t.Context(), t, test.token, test.certificate, test.key); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

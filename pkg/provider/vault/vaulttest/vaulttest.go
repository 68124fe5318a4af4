// Package vaulttest owns a real Vault for conformance tests: it starts the server
// whose program the environment names, and plays its operator. It is for tests,
// and no part of what is shipped.
package vaulttest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/credstore/credstore/test/heldport"
)

// Program is the environment variable that names the server's program.
const Program = "CREDSTORE_VAULT_SERVER"

// Server is a Vault with a key-value engine of version 2 at secret/ and the logins
// that test/vaultserver names. Its methods fail the test when the server does not
// do as told.
type Server struct {
	// Address and RootToken stay the same across Stop and Start.
	Address   string
	RootToken string
	// CAPEM is the certificate to trust, empty without TLS.
	CAPEM string

	listen  string // the same across Stop and Start
	tls     bool
	data    string
	command *exec.Cmd
	stdin   io.Closer
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	return start(t, &Server{})
}

// NewTLS starts a server that speaks TLS, and that logins by certificate need.
func NewTLS(t testing.TB) *Server {
	t.Helper()
	return start(t, &Server{tls: true})
}

func start(t testing.TB, s *Server) *Server {
	t.Helper()
	s.data, s.listen = t.TempDir(), heldport.Reserve(t)
	s.Start(t)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Start starts the server again, with its data, at the same address.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	program := os.Getenv(Program)
	if program == "" {
		t.Fatalf("%s is not set: run make conformance", Program)
	}
	c := exec.Command(program, "-listen", s.listen, "-data", s.data, "-until-eof", fmt.Sprintf("-tls=%t", s.tls)) //nolint:gosec // who runs the tests names the program
	c.Stderr = os.Stderr
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
	var ready struct{ Address, RootToken, CAPEM string }
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		_ = c.Process.Kill()
		t.Fatalf("the Vault server did not start: %v, %v", err, c.Wait())
	}
	s.Address, s.RootToken, s.CAPEM, s.command, s.stdin = ready.Address, ready.RootToken, ready.CAPEM, c, stdin
}

// Stop ends the server; its data stays. A second call does nothing.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.command == nil {
		return
	}
	if err := s.stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := s.command.Wait(); err != nil {
		t.Errorf("the Vault server ended with %v", err)
	}
	s.command = nil
}

// Call makes a request with a token and returns the status and the body, decoded.
func (s *Server) Call(t testing.TB, token, method, path string, body any) (int, map[string]any) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.Address+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	// Connections of its own: none is left when the test ends.
	transport := &http.Transport{DisableKeepAlives: true}
	if s.tls {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(s.CAPEM))
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatalf("%s %s: %d, %v", method, path, resp.StatusCode, err)
		}
	}
	return resp.StatusCode, out
}

// must is Call as root, and fails the test unless the status is 2xx.
func (s *Server) must(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	status, out := s.Call(t, s.RootToken, method, path, body)
	if status < 200 || status > 299 {
		t.Fatalf("%s %s: %d %v", method, path, status, out["errors"])
	}
	return out
}

// Write sets up a part of the server as root: "auth/userpass/users/alice".
func (s *Server) Write(t testing.TB, path string, body map[string]any) {
	t.Helper()
	s.must(t, http.MethodPost, "/v1/"+path, body)
}

func field[T any](t testing.TB, m map[string]any, path ...string) T {
	t.Helper()
	var v any = m
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	out, ok := v.(T)
	if !ok {
		t.Fatalf("no %s in an answer of Vault", strings.Join(path, "."))
	}
	return out
}

// Put writes a new version of a secret in the engine at secret/ and returns its
// number.
func (s *Server) Put(t testing.TB, path string, values map[string]string) uint32 {
	t.Helper()
	out := s.must(t, http.MethodPost, "/v1/secret/data/"+path, map[string]any{"data": values})
	return uint32(field[float64](t, out, "data", "version"))
}

// Delete, Undelete and Destroy act on one version.
func (s *Server) Delete(t testing.TB, path string, version uint32) {
	t.Helper()
	s.versions(t, "delete", path, version)
}

// Undelete takes a Delete back.
func (s *Server) Undelete(t testing.TB, path string, version uint32) {
	t.Helper()
	s.versions(t, "undelete", path, version)
}

// Destroy removes the content for good.
func (s *Server) Destroy(t testing.TB, path string, version uint32) {
	t.Helper()
	s.versions(t, "destroy", path, version)
}

func (s *Server) versions(t testing.TB, verb, path string, version uint32) {
	t.Helper()
	s.must(t, http.MethodPut, "/v1/secret/"+verb+"/"+path, map[string]any{"versions": []uint32{version}})
}

// Policy lets who has it read below a prefix of the engine at secret/.
func (s *Server) Policy(t testing.TB, name, prefix string) {
	t.Helper()
	rule := fmt.Sprintf("path %q { capabilities = [\"read\"] }", "secret/data/"+prefix+"*")
	s.must(t, http.MethodPut, "/v1/sys/policies/acl/"+name, map[string]any{"policy": rule})
}

// AppRole makes a role with the settings and returns the login.
func (s *Server) AppRole(t testing.TB, name string, settings map[string]any) (roleID, secretID string) {
	t.Helper()
	base := "/v1/auth/approle/role/" + name
	s.must(t, http.MethodPost, base, settings)
	roleID = field[string](t, s.must(t, http.MethodGet, base+"/role-id", nil), "data", "role_id")
	secretID = field[string](t, s.must(t, http.MethodPost, base+"/secret-id", map[string]any{}), "data", "secret_id")
	return roleID, secretID
}

// Token makes a token with the settings.
func (s *Server) Token(t testing.TB, settings map[string]any) string {
	t.Helper()
	return field[string](t, s.must(t, http.MethodPost, "/v1/auth/token/create", settings), "auth", "client_token")
}

// Accessors lists the tokens that the server knows, by their accessors.
func (s *Server) Accessors(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, a := range field[[]any](t, s.must(t, "LIST", "/v1/auth/token/accessors", nil), "data", "keys") {
		text, _ := a.(string)
		all = append(all, text)
	}
	return all
}

// EndLogins revokes all tokens that AppRole logins were given.
func (s *Server) EndLogins(t testing.TB) {
	t.Helper()
	s.EndLoginsOf(t, "approle")
}

// EndLoginsOf revokes all tokens that the logins of a method were given.
func (s *Server) EndLoginsOf(t testing.TB, mount string) {
	t.Helper()
	s.must(t, http.MethodPut, "/v1/sys/leases/revoke-prefix/auth/"+mount+"/login", map[string]any{})
}

// Seal makes the server refuse everything until Unseal.
func (s *Server) Seal(t testing.TB) {
	t.Helper()
	s.must(t, http.MethodPut, "/v1/sys/seal", nil)
}

// Unseal ends Seal, and returns when the engine answers again.
func (s *Server) Unseal(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data, "init.json"))
	if err != nil {
		t.Fatal(err)
	}
	var keys struct{ UnsealKey []string }
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys.UnsealKey {
		s.must(t, http.MethodPut, "/v1/sys/unseal", map[string]any{"key": k})
	}
	const patience = 2 * time.Minute
	for began := time.Now(); time.Since(began) < patience; {
		if status, _ := s.Call(t, s.RootToken, http.MethodGet, "/v1/secret/config", nil); status == http.StatusOK {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("the engine did not answer within %s after the unsealing", patience)
}

// Reads returns how often each secret of the engine at secret/ was read since
// the last call, by path.
func (s *Server) Reads(t testing.TB) map[string]int {
	t.Helper()
	_, out := s.Call(t, "", http.MethodDelete, "/test/requests", nil)
	reads := map[string]int{}
	for request, n := range out {
		if path, ok := strings.CutPrefix(request, "GET /v1/secret/data/"); ok {
			path, _ = url.PathUnescape(path)
			count, _ := n.(float64)
			reads[path] = int(count)
		}
	}
	return reads
}

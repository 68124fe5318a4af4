package registrytest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Program is the environment variable that names the registry's program, as
// tools/counterparts.sh unpacks it.
const Program = "CREDSTORE_DOCKER_REGISTRY"

// Auth is how a registry authenticates.
type Auth int

// The zero value is AuthBasic.
const (
	// AuthBasic is a password by Basic authentication, checked against htpasswd.
	AuthBasic Auth = iota
	// AuthToken is a token of a token server, which takes the password.
	AuthToken
	// AuthNone lets anybody in.
	AuthNone
	// AuthSilly lets everybody in who shows any token, and its token server gives
	// one to anybody. It is the registry's own way of trying things out.
	AuthSilly
)

// Server is a registry that runs until the test ends.
type Server struct {
	// Host is its address with the port, as docker spells it.
	Host string
	// CAPEM is the authority that signed its certificate.
	CAPEM string
	// TokenHost is the address of the token server; empty without one.
	TokenHost string
	// Tokens is the token server; nil without one.
	Tokens *TokenServer

	door *door
}

// Calls returns how many connections to the registry were made.
func (s *Server) Calls() int { return int(s.door.calls.Load()) }

// Stop makes the registry unreachable until start is called.
func (s *Server) Stop(t *testing.T) (start func()) {
	s.door.shut()
	return func() { s.door.open(t) }
}

// New starts a registry with these users and their passwords.
func New(t testing.TB, auth Auth, users map[string]string) *Server {
	t.Helper()
	program := os.Getenv(Program)
	if program == "" {
		t.Fatalf("%s is not set: run make conformance, or tools/counterparts.sh, which prints it", Program)
	}
	dir := t.TempDir()
	ca := newAuthority(t)
	s := &Server{CAPEM: ca.pem}
	cert, key := ca.issue(t, dir)
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"formatter": "json", "level": "info"},
		"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": filepath.Join(dir, "data")}},
		"http":    map[string]any{"addr": "127.0.0.1:0", "tls": map[string]any{"certificate": cert, "key": key}},
	}
	switch auth {
	case AuthBasic:
		file := write(t, filepath.Join(dir, "htpasswd"), htpasswd(t, users))
		config["auth"] = map[string]any{"htpasswd": map[string]any{"realm": "registry", "path": file}}
	case AuthToken, AuthSilly:
		s.Tokens = newTokenServer(t, ca, users)
		s.TokenHost = s.Tokens.host()
		bundle := write(t, filepath.Join(dir, "issuer.pem"), s.Tokens.bundle)
		config["auth"] = map[string]any{"token": map[string]any{
			"realm": s.Tokens.url(), "service": tokenService, "issuer": tokenIssuer, "rootcertbundle": bundle,
		}}
		if auth == AuthSilly {
			s.Tokens.anybody = true
			config["auth"] = map[string]any{"silly": map[string]any{"realm": s.Tokens.url(), "service": tokenService}}
		}
	case AuthNone:
	}
	encoded, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	s.start(t, program, write(t, filepath.Join(dir, "config.yml"), string(encoded)))
	return s
}

// start runs the program until the test ends, and waits for its address.
func (s *Server) start(t testing.TB, program, config string) {
	t.Helper()
	c := exec.Command(program, "serve", config) //nolint:gosec // who runs the tests names the program
	// The environment could set any of its options.
	c.Env = []string{"OTEL_TRACES_EXPORTER=none"}
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(stderr, ready)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-done
		_ = c.Wait() // it was killed
	})
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var answer string
	select {
	case answer = <-ready:
	case <-ctx.Done():
	}
	backend, err := netip.ParseAddrPort(answer)
	if err != nil {
		t.Fatalf("the registry did not start: %s", answer)
	}
	s.door = newDoor(t, backend.String())
	s.Host = s.door.address
}

// follow reads the log to its end, and tells the address that the registry
// listens at, or the last line when it ended before.
func follow(log io.Reader, ready chan<- string) {
	const listening = "listening on "
	last := ""
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Message string `json:"msg"`
		}
		last = lines.Text()
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		if address, found := strings.CutPrefix(line.Message, listening); found {
			address, _, _ = strings.Cut(address, ",")
			ready <- address
			break
		}
	}
	_, _ = io.Copy(io.Discard, log) // until it ends
	select {
	case ready <- last:
	default: // it was told
	}
}

// htpasswd returns the users in the only form that the registry reads.
func htpasswd(t testing.TB, users map[string]string) string {
	t.Helper()
	var b strings.Builder
	for name, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:%s\n", name, hash)
	}
	return b.String()
}

func write(t testing.TB, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

//go:build conformance

package smtp

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
	"github.com/credstore/credstore/test/heldport"
)

// smtpProgram is the environment variable that names chasquid's program, as
// tools/counterparts.sh unpacks it; chasquid-util stands beside it.
const smtpProgram = "CREDSTORE_SMTP_SERVER"

// realServer is chasquid with one user, both for STARTTLS and for TLS.
type realServer struct {
	ca            string
	startTLS, tls uint16
}

func newRealServer(t *testing.T) *realServer {
	t.Helper()
	program := os.Getenv(smtpProgram)
	if program == "" {
		t.Fatalf("%s is not set: run make conformance, or tools/counterparts.sh, which prints it", smtpProgram)
	}
	dir := t.TempDir()
	certificate, ca := testCertificate(t, net.IPv4(127, 0, 0, 1))
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, ca, dir, "certs", "mail.example.com", "fullchain.pem")
	write(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), dir, "certs", "mail.example.com", "privkey.pem")
	write(t, fmt.Sprintf("hostname: %q\nsubmission_address: \"systemd\"\nsubmission_over_tls_address: \"systemd\"\ndata_dir: %q\nmail_log_path: \"<stderr>\"\n",
		"mail.example.com", filepath.Join(dir, "data")), dir, "chasquid.conf")
	if err := os.MkdirAll(filepath.Join(dir, "domains", "example.com"), 0o700); err != nil {
		t.Fatal(err)
	}
	add := exec.Command(program+"-util", "-C="+dir, "user-add", user, "--password="+password)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("add a user: %v, %s", err, out)
	}
	s := &realServer{ca: ca}
	// The sockets are handed to it as systemd does: so no port is guessed, and
	// connections wait until it accepts them. Its process id is known to the shell
	// that becomes it.
	run := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, program, "-config_dir="+dir)
	run.Env = []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=submission:submission_tls"}
	var log bytes.Buffer
	run.Stdout, run.Stderr = &log, &log
	for _, port := range []*uint16{&s.startTLS, &s.tls} {
		run.ExtraFiles = append(run.ExtraFiles, listen(t, port))
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait() // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return s
}

func listen(t *testing.T, port *uint16) *os.File {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	*port = netip.MustParseAddrPort(listener.Addr().String()).Port()
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		t.Fatalf("%T", listener)
	}
	file, err := tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if err := listener.Close(); err != nil { // the file keeps it open
		t.Fatal(err)
	}
	return file
}

func write(t *testing.T, content string, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *realServer) login(t *testing.T, security credentialv1.Smtp_Security, username, password string) credential.Login {
	t.Helper()
	port := s.startTLS
	if security == credentialv1.Smtp_TLS {
		port = s.tls
	}
	return loginOf(t, &credentialv1.Smtp{
		Host: "127.0.0.1", Port: uint32(port), Security: security, Username: username, Password: password, CaPem: s.ca,
	})
}

func (s *realServer) client() *SMTP {
	return New(Config{Egress: loopback, Ports: []uint16{s.startTLS, s.tls}})
}

func TestConformanceAnswers(t *testing.T) {
	s := newRealServer(t)
	for _, security := range []credentialv1.Smtp_Security{credentialv1.Smtp_STARTTLS, credentialv1.Smtp_TLS} {
		for _, test := range []struct{ name, username, password, text string }{
			{"right", user, password, ""},
			{"wrong password", user, "n0t-it", "auth: refused: 535 5.7.8 Incorrect user or password"},
			{"unknown user", "nobody@example.com", password, "auth: refused: 535 5.7.8 Incorrect user or password"},
			{"unknown domain", "alerts@example.net", password, "auth: refused: 535 5.7.8 Incorrect user or password"},
		} {
			t.Run(security.String()+", "+test.name, func(t *testing.T) {
				got, err := s.client().Verify(t.Context(), s.login(t, security, test.username, test.password))
				if test.text == "" {
					if err != nil || got.Name != user {
						t.Errorf("%v, %v", got, err)
					}
					return
				}
				if !errors.Is(err, provider.ErrRefused) || err.Error() != test.text {
					t.Errorf("error is %v; want %q", err, test.text)
				}
			})
		}
	}
	t.Run("TLS where it is STARTTLS", func(t *testing.T) {
		m := s.login(t, credentialv1.Smtp_STARTTLS, user, password).Payload.Message().GetSmtp()
		m.Security = credentialv1.Smtp_TLS
		_, err := s.client().Verify(t.Context(), loginOf(t, m))
		if !errors.Is(err, provider.ErrUnavailable) || !strings.Contains(err.Error(), "does not speak TLS") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("without the authority", func(t *testing.T) {
		m := s.login(t, credentialv1.Smtp_STARTTLS, user, password).Payload.Message().GetSmtp()
		m.CaPem = ""
		_, err := s.client().Verify(t.Context(), loginOf(t, m))
		if !errors.Is(err, provider.ErrUnavailable) || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("error is %v", err)
		}
	})
}

// The suite that the fake passes. A relay before the server counts connections.
func TestConformanceSuite(t *testing.T) {
	s := newRealServer(t)
	front := &relay{backend: s.startTLS, port: netip.MustParseAddrPort(heldport.Reserve(t)).Port()}
	front.open(t)
	behind := &realServer{ca: s.ca, startTLS: front.port}
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: behind.client(),
		Good:     behind.login(t, credentialv1.Smtp_STARTTLS, user, password), Identity: user,
		Wrong:   behind.login(t, credentialv1.Smtp_STARTTLS, user, "wr0ng-canary"),
		Calls:   func() int { return int(front.calls.Load()) },
		Stop:    func(t *testing.T) func() { front.shut(); return func() { front.open(t) } },
		Secrets: []string{password, "wr0ng-canary"},
	})
}

// relay stands before a server, counts who comes, and can be shut.
type relay struct {
	backend, port uint16
	listener      net.Listener
	calls         atomic.Int32
	wg            sync.WaitGroup
}

func (r *relay) open(t *testing.T) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	r.listener = listener
	r.wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			r.calls.Add(1)
			r.wg.Go(func() { r.pass(in) })
		}
	})
	t.Cleanup(r.shut)
}

func (r *relay) shut() {
	_ = r.listener.Close() // a second time does nothing
	r.wg.Wait()
}

func (r *relay) pass(in net.Conn) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.backend))
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	r.wg.Go(func() {
		_, _ = io.Copy(out, in) // ends with either connection
		_ = out.Close()
	})
	_, _ = io.Copy(in, out) // the server closes it
}

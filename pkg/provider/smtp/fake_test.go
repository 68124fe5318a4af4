package smtp

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	user     = "alerts@example.com"
	password = "s3cret p4ss-canary"
)

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// testCertificate makes a certificate for an address that signs itself.
func testCertificate(t testing.TB, address net.IP) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{address},
		IsCA:        true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// fake is a submission server, written from RFC 5321, 3207 and 4954. It fails the
// test when a password comes before TLS, and refuses what is out of order.
type fake struct {
	t        *testing.T
	listener net.Listener
	config   *tls.Config
	ca       string
	wg       sync.WaitGroup
	calls    atomic.Int32
	down     atomic.Bool

	// implicit makes TLS begin at once.
	implicit bool
	// mechanisms are those that EHLO lists after TLS, and early before it.
	mechanisms, early string
	noStartTLS        bool
	// answers are sent in place of the server's own, by the command's first word
	// or "connect"; hang answers nothing to one.
	answers map[string]string
	hang    string
	// smuggle comes in one packet with the reply to STARTTLS.
	smuggle string
	// asked is closed when hang was asked.
	asked chan struct{}
	quits atomic.Int32
	// garbage says that the client sends other things than commands.
	garbage bool
}

func newFake(t *testing.T, set func(*fake)) *fake {
	t.Helper()
	certificate, ca := testCertificate(t, net.IPv4(127, 0, 0, 1))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		t: t, listener: listener, ca: ca, mechanisms: "PLAIN LOGIN", asked: make(chan struct{}),
		config: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	if set != nil {
		set(f)
	}
	f.wg.Go(f.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		f.wg.Wait()
	})
	return f
}

func (f *fake) port() uint16 {
	return netip.MustParseAddrPort(f.listener.Addr().String()).Port()
}

func (f *fake) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.calls.Add(1)
		f.wg.Go(func() {
			defer func() { _ = conn.Close() }()
			if !f.down.Load() {
				f.serve(conn)
			}
		})
	}
}

// talk is the server's side of one conversation.
type talk struct {
	f       *fake
	conn    net.Conn
	reader  *bufio.Reader
	secured bool
	greeted bool
}

func (f *fake) serve(conn net.Conn) {
	s := &talk{f: f, conn: conn}
	if f.implicit && !s.secure() {
		return
	}
	s.reader = bufio.NewReader(s.conn)
	s.say("connect", "220 mail.example.com ESMTP")
	for {
		line, err := s.reader.ReadString('\n')
		if err != nil {
			return
		}
		if !strings.HasSuffix(line, "\r\n") && !f.garbage {
			f.t.Errorf("a command ends with a bare line feed")
		}
		verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), " ")
		if f.hang == verb {
			close(f.asked)
			_, _ = io.Copy(io.Discard, s.reader) // until the client goes
			return
		}
		if !s.command(verb, rest) {
			return
		}
	}
}

func (s *talk) say(verb, text string) {
	if other, ok := s.f.answers[verb]; ok {
		text = other
	}
	_, _ = io.WriteString(s.conn, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
}

// command answers one command and says whether the conversation goes on.
func (s *talk) command(verb, rest string) bool {
	f := s.f
	switch verb {
	case "EHLO":
		s.greeted = rest != ""
		lines := []string{"250-mail.example.com", "250-SIZE 1000"}
		mechanisms := f.mechanisms
		if !s.secured {
			mechanisms = f.early
			if !f.noStartTLS {
				lines = append(lines, "250-STARTTLS")
			}
		}
		if mechanisms != "" {
			lines = append(lines, "250-AUTH "+mechanisms)
		}
		s.say(verb, strings.Join(append(lines, "250 HELP"), "\n"))
	case "STARTTLS":
		if s.secured || f.noStartTLS {
			s.say(verb, "503 not now")
			return true
		}
		s.say(verb, "220 go ahead"+f.smuggle)
		if _, other := f.answers[verb]; other || f.smuggle != "" {
			return true
		}
		s.greeted = false
		return s.secure()
	case "AUTH":
		return s.auth(rest)
	case "QUIT":
		f.quits.Add(1)
		s.say(verb, "221 bye")
		return false
	default:
		s.say(verb, "502 what?")
	}
	return true
}

func (s *talk) secure() bool {
	conn := tls.Server(s.conn, s.f.config)
	if err := conn.HandshakeContext(s.f.t.Context()); err != nil {
		return false
	}
	s.conn, s.reader, s.secured = conn, bufio.NewReader(conn), true
	return true
}

func (s *talk) auth(rest string) bool {
	mechanism, initial, _ := strings.Cut(rest, " ")
	if !s.secured {
		s.f.t.Errorf("AUTH %s before TLS", mechanism)
	}
	if !s.secured || !s.greeted || !strings.Contains(" "+s.f.mechanisms+" ", " "+mechanism+" ") {
		s.say("AUTH", "503 not now")
		return true
	}
	name, secret, ok := "", "", false
	switch mechanism {
	case "PLAIN":
		if initial == "" {
			initial, ok = s.ask("")
			if !ok {
				return false
			}
		} else if len(rest)+5 > 510 {
			s.f.t.Errorf("an AUTH command of %d bytes", len(rest)+5)
		}
		name, secret, ok = plain(initial)
	case "LOGIN":
		encodedName, ok1 := s.ask("VXNlcm5hbWU6")
		encodedSecret, ok2 := s.ask("UGFzc3dvcmQ6")
		if !ok1 || !ok2 {
			return false
		}
		n, err1 := base64.StdEncoding.DecodeString(encodedName)
		p, err2 := base64.StdEncoding.DecodeString(encodedSecret)
		name, secret, ok = string(n), string(p), err1 == nil && err2 == nil
	}
	switch {
	case !ok:
		s.say("AUTH", "501 5.5.2 cannot decode")
	case name == user && secret == password:
		s.say("AUTH", "235 2.7.0 welcome")
	default:
		// Some repeat what they got, in lines of 512 bytes.
		secret = secret[:min(len(secret), 100)]
		s.say("AUTH", fmt.Sprintf("535-5.7.8 no such login: %s\n535 5.7.8 %s", secret, base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+secret))))
	}
	return true
}

// ask sends a challenge and reads the response.
func (s *talk) ask(challenge string) (string, bool) {
	s.say("334", "334 "+challenge)
	line, err := s.reader.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err == nil
}

// plain reads a response of RFC 4616 without an authorization identity.
func plain(response string) (name, secret string, ok bool) {
	decoded, err := base64.StdEncoding.DecodeString(response)
	parts := strings.Split(string(decoded), "\x00")
	if err != nil || len(parts) != 3 || parts[0] != "" {
		return "", "", false
	}
	return parts[1], parts[2], true
}

func (f *fake) login(t *testing.T, m *credentialv1.Smtp) credential.Login {
	t.Helper()
	if m.GetHost() == "" {
		m.Host = "127.0.0.1"
	}
	if m.GetCaPem() == "" {
		m.CaPem = f.ca
	}
	if f.implicit {
		m.Security = credentialv1.Smtp_TLS
	}
	m.Port = uint32(f.port())
	return loginOf(t, m)
}

func loginOf(t *testing.T, m *credentialv1.Smtp) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Smtp{Smtp: m}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/mail", ID: "1", Payload: p}
}

func (f *fake) client() *SMTP { return New(Config{Egress: loopback, Ports: []uint16{f.port()}}) }

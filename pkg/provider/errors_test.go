package provider

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/credstore/credstore/test/heldport"
)

func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  *Error
		want string
	}{
		{&Error{Kind: ErrMissing}, "no such secret"},
		{&Error{Kind: ErrRefused, Op: "login", Status: 403, Text: "permission denied"}, "login: refused: 403 permission denied"},
		{&Error{Kind: ErrUnavailable, Op: "read", Status: 503}, "read: store unavailable: 503"},
		{&Error{Kind: ErrUnavailable, Op: "read", Text: "connection refused", NotAsked: true, RetryAfter: 1, LoginLost: true}, "read: store unavailable: connection refused"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
		if !errors.Is(fmt.Errorf("wrapped: %w", test.err), test.err.Kind) {
			t.Errorf("%q is not found by its kind", test.want)
		}
	}
}

func TestClean(t *testing.T) {
	for _, test := range []struct {
		text    string
		secrets []string
		want    string
	}{
		{"plain", nil, "plain"},
		{" a\tb\r\n\x00\x1b[31mc\u2028d\xff ", nil, "a b [31mc d"},
		{"the token abcd1234 and abcd1234.", []string{"abcd1234"}, "the token (redacted) and (redacted)."},
		{"a cat", []string{"", "a"}, "a cat"},
		{strings.Repeat("ü", 400), nil, strings.Repeat("ü", MaxText-1) + "…"},
	} {
		if got := Clean(test.text, test.secrets...); got != test.want {
			t.Errorf("Clean(%q) is %q, want %q", test.text, got, test.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a token abcd1234", "abcd1234")
	f.Add("\xff\u2028\x00", "")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := Clean(text, secret)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > MaxText || strings.ContainsAny(got, "\n\r\t\x00\x1b") {
			t.Errorf("Clean(%q) is %q", text, got)
		}
	})
}

// Each text is the same whenever the same thing happens, and names neither local
// ports nor the time.
func TestNetworkError(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 8200}
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 54321}
	op := func(name string, err error) error {
		return &url.Error{Op: "Get", URL: "https://vault/v1/secret/data/app?version=1", Err: &net.OpError{Op: name, Net: "tcp", Source: local, Addr: tcp, Err: err}}
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED)), "dial 10.0.0.1:8200: connection refused"},
		{op("read", os.NewSyscallError("read", syscall.ECONNRESET)), "read 10.0.0.1:8200: connection reset by peer"},
		{op("dial", os.ErrDeadlineExceeded), "dial 10.0.0.1:8200: timed out"},
		{op("dial", context.DeadlineExceeded), "dial 10.0.0.1:8200: timed out"},
		{&url.Error{Op: "Get", URL: "https://vault", Err: io.EOF}, "the connection was closed before an answer"},
		{io.ErrUnexpectedEOF, "the connection was closed before an answer"},
		{net.ErrClosed, "the connection was closed"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "vault.example", Server: "10.0.0.53:53", IsNotFound: true}}, "look up vault.example: no such host"},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "the certificate is signed by an unknown authority: give the server's certificate authority"},
		{&tls.CertificateVerificationError{Err: x509.HostnameError{Host: "vault.example", Certificate: &x509.Certificate{}}}, "the certificate is not valid for vault.example"},
		{&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2026-01-01T00:00:00Z is after …"}}, "the certificate has expired or is not yet valid"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "the server does not speak TLS"},
		{errors.New("words with a secret"), "no answer (*errors.errorString)"},
		{&url.Error{Op: "Get", URL: "https://u:secret@vault", Err: errors.New("secret")}, "no answer (*errors.errorString)"},
	} {
		got := NetworkError("read", test.err)
		if got.Text != test.want || !errors.Is(got, ErrUnavailable) || got.Op != "read" {
			t.Errorf("%v becomes %v, want %q", test.err, got, test.want)
		}
	}
}

// What net/http really returns reads as the table says.
func TestNetworkErrorOfRealServers(t *testing.T) {
	egress := Egress{Allow: prefixes("127.0.0.0/8")}
	transport, err := egress.Transport("")
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	get := func(address string) string {
		resp, err := client.Get(address)
		if err == nil {
			_ = resp.Body.Close()
			return "no error"
		}
		return NetworkError("read", err).Text
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }))
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	gone := heldport.Refusing(t)
	for _, test := range []struct{ address, want string }{
		{plain.URL, "the connection was closed before an answer"},
		{secure.URL, "the certificate is signed by an unknown authority: give the server's certificate authority"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "the server does not speak TLS"},
		{"http://" + gone, "dial " + gone + ": connection refused"},
	} {
		for range 2 {
			if got := get(test.address); got != test.want {
				t.Errorf("%s: %q, want %q", test.address, got, test.want)
			}
		}
	}
}

func TestSecretPrintsNoValues(t *testing.T) {
	s := Secret{Values: map[string][]byte{"key-canary": []byte("value-canary")}, Version: "7"}
	if got, want := fmt.Sprintf("%+v %#v %s %x", s, s, s, s), strings.Repeat(` secret(version "7", 1 values, redacted)`, 4)[1:]; got != want {
		t.Errorf("%s", got)
	}
}

func TestPolicyDefaults(t *testing.T) {
	p := Policy{}.normal()
	if p.Timeout != 10*time.Second || p.Attempts != 2 || p.Rate != 100 || p.BreakAfter != 3 || p.MaxPause != time.Minute || p.Random == nil {
		t.Errorf("%+v", p)
	}
}

package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func good() *credentialv1.Smtp { return &credentialv1.Smtp{Username: user, Password: password} }

func TestVendor(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*fake)
	}{
		{"STARTTLS", nil},
		{"TLS", func(f *fake) { f.implicit = true }},
		{"LOGIN", func(f *fake) { f.mechanisms = "CRAM-MD5 LOGIN" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, test.set)
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: f.client(),
				Good:     f.login(t, good()), Identity: user,
				Wrong: f.login(t, &credentialv1.Smtp{Username: user, Password: "wr0ng-canary"}),
				Calls: func() int { return int(f.calls.Load()) },
				Stop: func(*testing.T) func() {
					f.down.Store(true)
					return func() { f.down.Store(false) }
				},
				Secrets: []string{password, "wr0ng-canary", plainResponse(user, password), plainResponse(user, "wr0ng-canary")},
			})
		})
	}
}

func TestLeavesPolitely(t *testing.T) {
	f := newFake(t, nil)
	if _, err := f.client().Verify(t.Context(), f.login(t, good())); err != nil {
		t.Fatal(err)
	}
	if f.quits.Load() != 1 {
		t.Error("no QUIT")
	}
}

func TestLongPassword(t *testing.T) {
	f := newFake(t, nil)
	m := good()
	m.Password = strings.Repeat("p", 1000)
	_, err := f.client().Verify(t.Context(), f.login(t, m))
	if !errors.Is(err, provider.ErrRefused) || !strings.HasPrefix(err.Error(), "auth: refused: 535 ") {
		t.Errorf("error is %v", err)
	}
}

func TestAnswers(t *testing.T) {
	answer := func(verb, text string) func(*fake) {
		return func(f *fake) { f.answers = map[string]string{verb: text} }
	}
	const notMail = "store unavailable: what answers there is no mail server"
	for _, test := range []struct {
		name string
		set  func(*fake)
		kind error
		text string
	}{
		{"wrong password", answer("AUTH", "535 5.7.8 Username and Password not accepted"), provider.ErrRefused, "auth: refused: 535 5.7.8 Username and Password not accepted"},
		{"password of an application wanted", answer("AUTH", "534-5.7.9 Application-specific password required.\n534 5.7.9 Learn more"), provider.ErrRefused, "auth: refused: 534 5.7.9 Application-specific password required. 5.7.9 Learn more"},
		{"for now", answer("AUTH", "454 4.7.0 Temporary authentication failure"), provider.ErrUnavailable, "auth: store unavailable: 454 4.7.0 Temporary authentication failure"},
		{"closing", answer("AUTH", "421 too many connections"), provider.ErrUnavailable, "auth: store unavailable: 421 too many connections"},
		{"mechanism unknown after all", answer("AUTH", "504 unrecognized authentication type"), provider.ErrUnsupported, "auth: not supported: 504 unrecognized authentication type"},
		{"success of another command", answer("AUTH", "250 ok"), provider.ErrUnavailable, "auth: " + notMail},
		{"asks without an end", answer("AUTH", "334 "), provider.ErrUnavailable, "auth: " + notMail},
		{"no login", func(f *fake) { f.mechanisms = "" }, provider.ErrUnsupported, "auth: not supported: the server offers no login"},
		{"other mechanisms", func(f *fake) { f.mechanisms = "XOAUTH2 CRAM-MD5" }, provider.ErrUnsupported, "auth: not supported: the server takes none of PLAIN and LOGIN, only CRAM-MD5, XOAUTH2"},
		{"no STARTTLS", func(f *fake) { f.noStartTLS, f.early = true, "PLAIN" }, provider.ErrRefused, "starttls: refused: the server does not offer STARTTLS, and the password is not sent without TLS"},
		{"STARTTLS not now", answer("STARTTLS", "454 TLS not available due to temporary reason"), provider.ErrUnavailable, "starttls: store unavailable: 454 TLS not available due to temporary reason"},
		{"STARTTLS refused", answer("STARTTLS", "502 no"), provider.ErrRefused, "starttls: refused: 502 no"},
		{"injection", func(f *fake) { f.smuggle = "\r\n250-mail\r\n250 AUTH PLAIN" }, provider.ErrRefused, "starttls: refused: something was slipped in between STARTTLS and TLS: the connection is not trusted"},
		{"EHLO unknown", answer("EHLO", "502 unimplemented"), provider.ErrUnsupported, "ehlo: not supported: the server speaks SMTP without extensions, and so without a login"},
		{"EHLO refused", answer("EHLO", "550 bad name"), provider.ErrRefused, "ehlo: refused: 550 bad name"},
		{"refuses to talk", answer("connect", "554 go away"), provider.ErrRefused, "connect: refused: 554 go away"},
		{"busy", answer("connect", "421 busy"), provider.ErrUnavailable, "connect: store unavailable: 421 busy"},
		{"another protocol", answer("connect", "SSH-2.0-OpenSSH_9.2 secret-banner"), provider.ErrUnavailable, "connect: " + notMail},
		{"two codes in a reply", answer("connect", "220-a\n250 b"), provider.ErrUnavailable, "connect: " + notMail},
		{"no space after the code", answer("connect", "220x"), provider.ErrUnavailable, "connect: " + notMail},
		{"code out of range", answer("connect", "199 a"), provider.ErrUnavailable, "connect: " + notMail},
		{"line without an end", answer("connect", "220 "+strings.Repeat("x", 2000)), provider.ErrUnavailable, "connect: " + notMail},
		{"reply without an end", answer("connect", strings.Repeat("220-x\n", 200)+"220 x"), provider.ErrUnavailable, "connect: " + notMail},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, test.set)
			_, err := f.client().Verify(t.Context(), f.login(t, good()))
			if !errors.Is(err, test.kind) || err.Error() != test.text {
				t.Errorf("error is %v; want %q", err, test.text)
			}
			if e, ok := errors.AsType[*provider.Error](err); !ok || e.Op == "" {
				t.Errorf("error is %#v", err)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	f := newFake(t, nil)
	_, err := New(Config{Egress: loopback}).Verify(t.Context(), f.login(t, good()))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "does not connect to port") {
		t.Errorf("error is %v", err)
	}
	if f.calls.Load() != 0 {
		t.Error("it was connected to")
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	f := newFake(t, nil)
	_, err := New(Config{Ports: []uint16{f.port()}}).Verify(t.Context(), f.login(t, good()))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("error is %v", err)
	}
	if f.calls.Load() != 0 {
		t.Error("it was connected to")
	}
}

func TestCertificates(t *testing.T) {
	_, foreign := testCertificate(t, net.IPv4(127, 0, 0, 1))
	for _, implicit := range []bool{false, true} {
		for _, test := range []struct {
			name, ca string
			address  net.IP
			text     string
		}{
			{"another authority", foreign, net.IPv4(127, 0, 0, 1), "unknown authority"},
			{"another name", "", net.IPv4(127, 0, 0, 2), "the certificate is not valid for 127.0.0.1"},
		} {
			t.Run(fmt.Sprintf("%s, TLS from the beginning %t", test.name, implicit), func(t *testing.T) {
				f := newFake(t, func(f *fake) {
					f.implicit = implicit
					f.config.Certificates[0], f.ca = testCertificate(t, test.address)
				})
				m := good()
				m.CaPem = test.ca
				_, err := f.client().Verify(t.Context(), f.login(t, m))
				if !errors.Is(err, provider.ErrUnavailable) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("error is %v; want %q", err, test.text)
				}
			})
		}
	}
}

func TestServerWithoutTLS(t *testing.T) {
	f := newFake(t, func(f *fake) { f.garbage = true }) // it speaks first, in plain
	m := good()
	m.Security = credentialv1.Smtp_TLS
	_, err := f.client().Verify(t.Context(), f.login(t, m))
	if !errors.Is(err, provider.ErrUnavailable) || !strings.Contains(err.Error(), "the server does not speak TLS") {
		t.Errorf("error is %v", err)
	}
}

func TestCancelled(t *testing.T) {
	f := newFake(t, func(f *fake) { f.hang = "AUTH" })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-f.asked
		cancel()
	}()
	if _, err := f.client().Verify(ctx, f.login(t, good())); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestSlowServer(t *testing.T) {
	f := newFake(t, func(f *fake) { f.hang = "AUTH" })
	c := f.client()
	c.patience = 200 * time.Millisecond
	_, err := c.Verify(t.Context(), f.login(t, good()))
	if !errors.Is(err, provider.ErrUnavailable) || err.Error() != "verify: store unavailable: the server took too long" {
		t.Errorf("error is %v", err)
	}
}

func TestOtherKind(t *testing.T) {
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "a", Password: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{}).Verify(t.Context(), credential.Login{Payload: p}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
}

package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says which mail servers may be asked. Its zero value is for public ones
// at the ports of mail.
type Config struct {
	Egress provider.Egress
	// Ports are allowed beside 25, 465, 587, 2465, 2525 and 2587: the port comes
	// from a payload, and whoever may write one must not find out what listens
	// where by it.
	Ports []uint16
	// Hello is the name that this program greets servers with; "localhost" when
	// empty. Some want one that resolves.
	Hello string
}

// SMTP verifies logins of the kind smtp. It is safe for concurrent use and keeps
// nothing.
type SMTP struct {
	cfg      Config
	patience time.Duration // for a whole conversation
}

// New returns an SMTP.
func New(cfg Config) *SMTP {
	if cfg.Hello == "" {
		cfg.Hello = "localhost"
	}
	return &SMTP{cfg: cfg, patience: conversation}
}

var _ provider.Verifier = (*SMTP)(nil)

// mailPorts are those of SMTP (RFC 5321), submission (RFC 6409), submission over
// TLS (RFC 8314), and what providers offer where these are blocked.
var mailPorts = []uint16{25, 465, 587, 2465, 2525, 2587}

// conversation is how long a login may take in all. Servers answer a wrong
// password only after a while.
const conversation = 30 * time.Second

// Verify logs in: TLS from the beginning or by STARTTLS as the payload says,
// EHLO, AUTH with PLAIN or LOGIN, QUIT. The password never leaves before TLS, and
// the identity is the user name. Mechanisms that need a token (XOAUTH2,
// OAUTHBEARER), or the password in a form of their own (CRAM-MD5), are not
// spoken: a server with these only is ErrUnsupported. (RFC 3207, RFC 4954)
func (s *SMTP) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m := login.Payload.Message().GetSmtp()
	if m == nil {
		return credential.Identity{}, &provider.Error{Kind: provider.ErrUnsupported, Op: "verify", Text: "the credential is no login to a mail server"}
	}
	if port := uint16(m.GetPort()); !slices.Contains(mailPorts, port) && !slices.Contains(s.cfg.Ports, port) {
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrRefused, Op: "connect",
			Text: fmt.Sprintf("this server does not connect to port %d for mail; its configuration can allow it", port),
		}
	}
	config, err := tlsConfig(m)
	if err != nil {
		return credential.Identity{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.patience, errSlow)
	defer cancel()
	err = s.verify(ctx, m, config)
	switch {
	case err == nil:
	case ctx.Err() == nil:
		return credential.Identity{}, err
	case errors.Is(context.Cause(ctx), errSlow):
		return credential.Identity{}, &provider.Error{Kind: provider.ErrUnavailable, Op: "verify", Text: "the server took too long"}
	default:
		return credential.Identity{}, ctx.Err()
	}
	return credential.Identity{Name: m.GetUsername()}, nil
}

// errSlow says that the server took too long, not that the caller gave up.
var errSlow = errors.New("the server took too long")

func tlsConfig(m *credentialv1.Smtp) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: trimBrackets(m.GetHost())}
	if m.GetCaPem() == "" {
		return config, nil
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM([]byte(m.GetCaPem())) {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "connect", Text: "the certificate authority of the mail server is not a certificate in PEM form"}
	}
	return config, nil
}

// verify has the conversation. The context's end closes the connection.
func (s *SMTP) verify(ctx context.Context, m *credentialv1.Smtp, config *tls.Config) error {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: s.cfg.Egress.Control}
	address := net.JoinHostPort(trimBrackets(m.GetHost()), strconv.FormatUint(uint64(m.GetPort()), 10))
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return provider.NetworkError("connect", err)
	}
	defer context.AfterFunc(ctx, func() { _ = plain.Close() })()
	defer func() { _ = plain.Close() }()
	c := &client{conn: plain, secrets: secretsOf(m)}
	if m.GetSecurity() == credentialv1.Smtp_TLS {
		if err := c.secure(ctx, config); err != nil {
			return err
		}
	}
	if err := c.greeting(); err != nil {
		return err
	}
	if err := c.hello(s.cfg.Hello); err != nil {
		return err
	}
	if !c.secured {
		if err := c.startTLS(ctx, config, s.cfg.Hello); err != nil {
			return err
		}
	}
	if err := c.authenticate(m.GetUsername(), m.GetPassword()); err != nil {
		return err
	}
	c.quit()
	return nil
}

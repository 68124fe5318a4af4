package offline

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const opVerify = "verify"

// Config is what New needs. The zero value is fine.
type Config struct {
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Verifier verifies credentials of the kinds certificate and sshKey. It
// implements provider.Verifier, and prints as its name.
type Verifier struct{ now func() time.Time }

var _ provider.Verifier = (*Verifier)(nil)

// New returns a Verifier.
func New(cfg Config) *Verifier {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{now: cfg.Now}
}

// String returns "offline".
func (v *Verifier) String() string { return "offline" }

// GoString returns what String does.
func (v *Verifier) GoString() string { return v.String() }

// Verify implements provider.Verifier. A certificate is verified when its key is
// its own, each certificate beside it signed one before it, and all of them are
// in time; whether somebody trusts the last one is for those who are shown it.
// Of an SSH key, which no host was named for, nothing can be said
// (provider.ErrUnsupported).
func (v *Verifier) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	if err := ctx.Err(); err != nil {
		return credential.Identity{}, err
	}
	switch login.Payload.Kind() {
	case "certificate":
		return v.certificate(login)
	case "sshKey":
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrUnsupported, Op: opVerify,
			Text: "the key is sound, but nothing says which host accepts it: log in to one with it",
		}
	}
	return credential.Identity{}, &provider.Error{
		Kind: provider.ErrUnsupported, Op: opVerify, Text: "a credential of this kind cannot be verified without asking somebody",
	}
}

func refused(format string, args ...any) error {
	return &provider.Error{Kind: provider.ErrRefused, Op: opVerify, Text: provider.Clean(fmt.Sprintf(format, args...))}
}

func (v *Verifier) certificate(login credential.Login) (credential.Identity, error) {
	pem := []byte(login.Payload.Message().GetCertificate().GetPem())
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		// The text of crypto/tls may describe the key.
		return credential.Identity{}, refused("the certificate and its private key do not fit together: store them anew")
	}
	chain := make([]*x509.Certificate, 0, len(pair.Certificate))
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return credential.Identity{}, refused("a certificate of the chain cannot be read: store it anew")
		}
		chain = append(chain, c)
	}
	for i, c := range chain {
		if err := v.inTime(c, i); err != nil {
			return credential.Identity{}, err
		}
		if i > 0 && !signedOne(c, chain[:i]) {
			return credential.Identity{}, refused("certificate %d of the chain signed none before it: put the chain in order by storing it anew", i+1)
		}
	}
	facts := login.Payload.Facts()
	who := credential.Identity{Name: provider.Clean(chain[0].Subject.CommonName), Facts: map[string]string{}}
	if who.Name == "" {
		who.Name = provider.Clean(facts["dnsNames"])
	}
	for _, name := range []string{"issuer", "notAfter"} {
		if facts[name] != "" {
			who.Facts[name] = provider.Clean(facts[name])
		}
	}
	return who, nil
}

// inTime says whether a certificate is valid now.
func (v *Verifier) inTime(c *x509.Certificate, i int) error {
	what := "the certificate"
	if i > 0 {
		what = fmt.Sprintf("certificate %d of the chain", i+1)
	}
	now := v.now()
	switch {
	case now.After(c.NotAfter):
		return refused("%s expired at %s", what, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return refused("%s is not valid before %s", what, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// signedOne says whether a certificate signed one of others.
func signedOne(c *x509.Certificate, others []*x509.Certificate) bool {
	for _, o := range others {
		if o.CheckSignatureFrom(c) == nil {
			return true
		}
	}
	return false
}

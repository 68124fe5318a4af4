package credential

import (
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// certificate is an X.509 certificate with its private key. One that has expired
// is accepted, since people keep what they have, and since what was accepted
// once must be later: its state and Verify say that it has.
var certificate = behaviour[*credentialv1.Certificate]{
	check: func(m *credentialv1.Certificate, r *report) {
		m.Pem = checkCertificate("pem", m.GetPem(), r)
	},
	facts: func(m *credentialv1.Certificate) map[string]string {
		b, _ := certRead(m.GetPem())
		return certFacts(b.chain)
	},
	expireTime: func(m *credentialv1.Certificate) time.Time { return certExpireTime(m.GetPem()) },
}

// checkCertificate returns a certificate, its intermediates in order and its key.
func checkCertificate(field, pasted string, r *report) string {
	b, problems := certRead(pasted)
	for _, p := range problems {
		r.add(field, "must be a certificate with its intermediates, if it has any, and its unencrypted private key, in PEM form; it "+p)
	}
	if len(problems) > 0 {
		return pasted
	}
	return b.encode()
}

// certExpireTime returns the end of the leaf, which is what its owner renews; an
// earlier end of an intermediate is a fact.
func certExpireTime(pem string) time.Time {
	b, _ := certRead(pem)
	if len(b.chain) == 0 {
		return time.Time{}
	}
	return b.chain[0].NotAfter
}

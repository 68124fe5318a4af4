package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// certMax is the most certificates of a bundle, which bounds how many signatures
// are looked at.
const certMax = 10

// certBundle is a certificate with what was pasted beside it.
type certBundle struct {
	// chain begins with the leaf. Each other one signed one before it.
	chain []*x509.Certificate
	key   pemBlock
}

// encode returns the chain and the key in PEM form.
func (b certBundle) encode() string {
	var out strings.Builder
	for _, c := range b.chain {
		out.WriteString(pemBlock{label: pemCertificate, der: c.Raw}.encode())
	}
	out.WriteString(b.key.encode())
	return out.String()
}

// certParts is what a text holds, before it is known to fit together.
type certParts struct {
	certificates []*x509.Certificate
	keys         []pemBlock
	problems     []string
}

func (p *certParts) add(problem string) {
	if !slices.Contains(p.problems, problem) {
		p.problems = append(p.problems, problem)
	}
}

// certRead reads a certificate with its intermediates and its private key. The
// problems each end a sentence that begins with "it"; without any, the bundle is
// complete and in order.
func certRead(pasted string) (certBundle, []string) {
	blocks, problem := pemRead(pasted)
	if problem != "" {
		return certBundle{}, []string{problem}
	}
	if len(blocks) == 0 {
		return certBundle{}, []string{pemNone(pasted)}
	}
	p := &certParts{}
	for _, b := range blocks {
		p.sort(b)
	}
	p.complete(len(p.problems) == 0)
	key, chain := p.fit()
	if len(p.problems) > 0 {
		return certBundle{}, p.problems
	}
	return certBundle{chain: chain, key: key}, nil
}

// sort puts a block where it belongs.
func (p *certParts) sort(b pemBlock) {
	switch {
	case b.label == pemCertificate:
		c, err := x509.ParseCertificate(b.der)
		switch {
		case err != nil:
			p.add("has a certificate that cannot be read")
		case !slices.ContainsFunc(p.certificates, c.Equal):
			p.certificates = append(p.certificates, c)
		}
	case pemIsKey(b.label):
		if !slices.ContainsFunc(p.keys, func(k pemBlock) bool { return bytes.Equal(k.der, b.der) }) {
			p.keys = append(p.keys, b)
		}
	case b.label == pemECParameters:
	case b.label == "CERTIFICATE REQUEST", b.label == "NEW CERTIFICATE REQUEST":
		p.add("has a request for a certificate (CSR): paste the certificate that the authority made of it")
	case b.label == "TRUSTED CERTIFICATE":
		p.add(`has a certificate in OpenSSL's own form: convert it with "openssl x509 -in FILE"`)
	case b.label == "PKCS7", b.label == "CMS":
		p.add(`has certificates in PKCS#7 form: convert them with "openssl pkcs7 -in FILE -print_certs"`)
	case b.label == "PUBLIC KEY", b.label == "RSA PUBLIC KEY":
		p.add("has a public key, which the certificate has already: remove it")
	default:
		p.add("has a part that is neither a certificate nor a private key: remove it")
	}
}

// complete reports what is missing and what is too much. A certificate is not
// missed where something else stands in its place.
func (p *certParts) complete(plain bool) {
	switch n := len(p.certificates); {
	case n == 0 && plain:
		p.add("has no certificate: put it before the private key")
	case n > certMax:
		p.add(fmt.Sprintf("has more than %d certificates", certMax))
	}
	switch n := len(p.keys); {
	case n == 0:
		p.add("has no private key: put it below the certificate")
	case n > 1:
		p.add("has more than one private key: keep that of the certificate")
	case p.keys[0].sealed():
		p.add(`has an encrypted private key: decrypt it with "openssl pkey -in FILE", and paste what that prints`)
	case p.keys[0].label == pemOpenSSH:
		p.add(`has a private key in OpenSSH's form: convert a copy of it with "ssh-keygen -p -m PKCS8 -f FILE"`)
	}
}

// fit finds the leaf by its key and puts the others in order, as far as what is
// there allows.
func (p *certParts) fit() (pemBlock, []*x509.Certificate) {
	if len(p.certificates) > certMax {
		return pemBlock{}, nil
	}
	if len(p.keys) != 1 || p.keys[0].sealed() || p.keys[0].label == pemOpenSSH {
		if leaves := slices.DeleteFunc(slices.Clone(p.certificates), isAuthority); len(leaves) > 1 {
			p.add(certTwoLeaves)
		}
		return pemBlock{}, nil
	}
	key, problem := pemKey(p.keys[0])
	if problem != "" {
		p.add(problem)
		return pemBlock{}, nil
	}
	leaf := p.leafOf(key)
	if leaf == nil {
		return pemBlock{}, nil
	}
	chain := certOrder(leaf, p.certificates)
	p.outside(chain)
	return p.keys[0], chain
}

const certTwoLeaves = "has more than one leaf certificate: keep that of the private key with its intermediates"

func isAuthority(c *x509.Certificate) bool { return c.IsCA }

// outside reports the certificates that are not in the chain.
func (p *certParts) outside(chain []*x509.Certificate) {
	var positions []string
	problem := ""
	for i, c := range p.certificates {
		if slices.Contains(chain, c) {
			continue
		}
		positions = append(positions, strconv.Itoa(i+1))
		if !c.IsCA {
			problem = certTwoLeaves
		}
	}
	switch {
	case problem != "":
		p.add(problem)
	case len(positions) > 0:
		p.add("has certificates that did not sign the leaf, directly or through others (by position: " +
			strings.Join(positions, ", ") + "): remove them")
	}
}

// leafOf returns the certificate of a key, and reports it if there is not one.
func (p *certParts) leafOf(key crypto.Signer) *x509.Certificate {
	var leaf *x509.Certificate
	for _, c := range p.certificates {
		if !pemEqual(key, c.PublicKey) {
			continue
		}
		if leaf != nil {
			p.add("has more than one certificate of the private key: keep the current one")
			return nil
		}
		leaf = c
	}
	if leaf == nil && len(p.certificates) > 0 {
		p.add("has a private key that belongs to another certificate")
	}
	return leaf
}

// certSigned says whether parent signed child.
func certSigned(child, parent *x509.Certificate) bool {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return false
	}
	if k, ok := parent.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > pemMaxBits {
		return false
	}
	return child.CheckSignatureFrom(parent) == nil
}

// certOrder returns the leaf and those that signed it, directly or through
// others, the nearest first; of several at the same distance, as authorities
// have that are signed twice, those first that did not sign themselves.
func certOrder(leaf *x509.Certificate, all []*x509.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{leaf}
	for i := 0; i < len(chain); i++ {
		var signers []*x509.Certificate
		for _, c := range all {
			if !slices.Contains(chain, c) && certSigned(chain[i], c) {
				signers = append(signers, c)
			}
		}
		slices.SortStableFunc(signers, func(a, b *x509.Certificate) int {
			return certSelfIssued(a) - certSelfIssued(b)
		})
		chain = append(chain, signers...)
	}
	return chain
}

// certSelfIssued returns 1 for a certificate that names itself as its issuer.
func certSelfIssued(c *x509.Certificate) int {
	if bytes.Equal(c.RawSubject, c.RawIssuer) {
		return 1
	}
	return 0
}

// certFacts returns what is public in a chain.
func certFacts(chain []*x509.Certificate) map[string]string {
	facts := map[string]string{}
	if len(chain) == 0 {
		return facts
	}
	leaf := chain[0]
	var addresses, uris []string
	for _, ip := range leaf.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	for _, u := range leaf.URIs {
		uris = append(uris, u.String())
	}
	digest := sha256.Sum256(leaf.Raw)
	for name, value := range map[string]string{
		"subject":           certText(leaf.Subject.String()),
		"issuer":            certText(leaf.Issuer.String()),
		"serialNumber":      certText(fmt.Sprintf("%X", leaf.SerialNumber)),
		"notBefore":         certTime(leaf.NotBefore),
		"notAfter":          certTime(leaf.NotAfter),
		"chainExpireTime":   certChainEnd(chain),
		"fingerprintSha256": certFingerprint(digest[:]),
		"keyType":           certKeyType(leaf.PublicKey),
		"dnsNames":          certList(leaf.DNSNames),
		"ipAddresses":       certList(addresses),
		"uris":              certList(uris),
	} {
		if value != "" {
			facts[name] = value
		}
	}
	return facts
}

func certTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// certChainEnd returns when the first certificate of a chain ends, "" when that
// is the leaf.
func certChainEnd(chain []*x509.Certificate) string {
	soonest := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	if !soonest.NotAfter.Before(chain[0].NotAfter) {
		return ""
	}
	return certTime(soonest.NotAfter)
}

// certFingerprint writes a digest as "openssl x509 -fingerprint" does.
func certFingerprint(digest []byte) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", digest), " ", ":")
}

func certKeyType(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return ""
}

// certText returns what a certificate says as one line that can be shown:
// whoever made it chose the bytes.
func certText(text string) string {
	const most = 512
	text = strings.Map(func(c rune) rune {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, text)
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// certList joins the first names of a list.
func certList(all []string) string {
	const most = 20
	shown := make([]string, 0, most)
	for _, name := range all[:min(len(all), most)] {
		shown = append(shown, certText(name))
	}
	list := strings.Join(shown, ", ")
	if len(all) > most {
		list += fmt.Sprintf(", … (%d in all)", len(all))
	}
	return list
}

// checkCertAuthorities normalises a field with certificates that a client is to
// trust, of which none is fine.
func checkCertAuthorities(field, pasted string, r *report) string {
	if trimPasted(pasted) == "" {
		return ""
	}
	normal, problem := certAuthorities(pasted)
	if problem != "" {
		r.add(field, "must be one or more certificates in PEM form, of at most 65,536 bytes; it "+problem)
		return pasted
	}
	return normal
}

// certAuthorities returns certificates as one PEM text. Problems end a sentence
// that begins with "it".
func certAuthorities(pasted string) (normal, problem string) {
	const most = 64 << 10
	blocks, problem := pemRead(pasted)
	switch {
	case problem != "":
		return "", problem
	case len(blocks) == 0:
		return "", pemNone(pasted)
	}
	var out strings.Builder
	for _, b := range blocks {
		switch {
		case pemIsKey(b.label):
			return "", "has a private key"
		case b.label != pemCertificate:
			return "", "has something else than certificates"
		}
		if _, err := x509.ParseCertificate(b.der); err != nil {
			return "", "has a certificate that cannot be read"
		}
		out.WriteString(pemBlock{label: pemCertificate, der: b.der}.encode())
	}
	if out.Len() > most {
		return "", "is longer"
	}
	return out.String(), ""
}

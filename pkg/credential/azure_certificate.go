package credential

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// azureChain is a certificate with its key and the certificates above it.
type azureChain struct {
	key          *rsa.PrivateKey
	certificates []*x509.Certificate // the key's own first
	// text is all of it in PEM form: the certificates in order, then the key.
	text string
}

const (
	// azureMaxBlocks bounds the blocks of a PEM text: a chain has three or four.
	azureMaxBlocks = 20
	// azureMaxKey bounds an encoded private key: one of RSA with 8,192 bits has
	// 4,700 bytes, and larger ones are slow to check.
	azureMaxKey = 5000
)

// azureCertificate reads a PEM text and returns it in one form: line breaks,
// indentation and what stands between the blocks do not matter, nor do line
// breaks that were lost or escaped, the order of the blocks, or base64 around
// the whole. The problem ends a sentence that begins with "it".
func azureCertificate(text string) (azureChain, string) {
	if !strings.Contains(text, "-----BEGIN ") {
		inner, ok := azureBase64(azureBare(text))
		if !ok || !bytes.Contains(inner, []byte("-----BEGIN ")) {
			return azureChain{}, `holds no "-----BEGIN CERTIFICATE-----"`
		}
		text = string(inner)
	}
	var chain azureChain
	blocks := 0
	for {
		block, rest, problem := azureBlock(text)
		if problem != "" {
			return azureChain{}, problem
		}
		if block == nil {
			return chain.complete()
		}
		if blocks++; blocks > azureMaxBlocks {
			return azureChain{}, "holds more than 20 blocks"
		}
		if problem := chain.add(block); problem != "" {
			return azureChain{}, problem
		}
		text = rest
	}
}

// azureBlock reads the first block of a text; nil when there is none. Unlike
// encoding/pem it needs no line breaks, which variables and forms lose.
func azureBlock(text string) (block *pem.Block, rest, problem string) {
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	_, text, found := strings.Cut(text, begin)
	if !found {
		return nil, "", ""
	}
	label, text, found := strings.Cut(text, dashes)
	const longest = 40
	if !found || len(label) > longest {
		return nil, "", "holds a line that begins a block, but is not complete"
	}
	body, rest, found := strings.Cut(text, end+label+dashes)
	if !found {
		return nil, "", "holds a block that begins and does not end: was all of it copied?"
	}
	if strings.Contains(body, "Proc-Type:") {
		return nil, "", azureEncryptedKey
	}
	body = strings.NewReplacer(`\r`, "", `\n`, "").Replace(body)
	content, ok := azureBase64(body)
	if !ok || strings.ContainsAny(body, "-_") {
		return nil, "", "holds a block that is no base64: was all of it copied?"
	}
	return &pem.Block{Type: label, Bytes: content}, rest, ""
}

const azureEncryptedKey = `holds an encrypted key: decrypt it first, as with "openssl pkey -in encrypted.pem -out key.pem"`

// add takes one block in.
func (c *azureChain) add(block *pem.Block) string {
	switch block.Type {
	case "CERTIFICATE", "X509 CERTIFICATE":
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "holds a block CERTIFICATE that is no certificate"
		}
		c.certificates = append(c.certificates, certificate)
		return ""
	case "PRIVATE KEY", "RSA PRIVATE KEY":
		if c.key != nil {
			return "holds more than one private key"
		}
		if len(block.Bytes) > azureMaxKey {
			return "holds a private key of more than 8,192 bits, which Entra ID does not accept"
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		}
		if err != nil {
			return "holds a private key that is none: was all of it copied?"
		}
		key, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			return azureNoRSA
		}
		c.key = key
		return ""
	case "ENCRYPTED PRIVATE KEY":
		return azureEncryptedKey
	case "EC PRIVATE KEY", "OPENSSH PRIVATE KEY":
		return azureNoRSA
	}
	return "holds a block that is neither a certificate nor its private key"
}

const azureNoRSA = "holds a key that is not of RSA, and Entra ID accepts no other for this"

// complete finds the key's own certificate and puts those above it in order.
func (c *azureChain) complete() (azureChain, string) {
	const smallest = 2048
	switch {
	case len(c.certificates) == 0:
		return azureChain{}, "holds no certificate, only a private key"
	case c.key == nil:
		return azureChain{}, "holds no private key, only the certificate: the secret part is missing"
	case c.key.N.BitLen() < smallest:
		return azureChain{}, "holds a key of less than 2,048 bits, which Entra ID does not accept"
	}
	leaf := -1
	for i, certificate := range c.certificates {
		if c.key.PublicKey.Equal(certificate.PublicKey) {
			leaf = i
			break
		}
	}
	if leaf < 0 {
		return azureChain{}, "holds a private key that belongs to none of its certificates"
	}
	ordered := []*x509.Certificate{c.certificates[leaf]}
	left := append(append([]*x509.Certificate{}, c.certificates[:leaf]...), c.certificates[leaf+1:]...)
	for len(left) > 0 {
		last := ordered[len(ordered)-1]
		above := -1
		for i, certificate := range left {
			if bytes.Equal(certificate.RawSubject, last.RawIssuer) && !bytes.Equal(certificate.Raw, last.Raw) {
				above = i
				break
			}
		}
		if above < 0 {
			return azureChain{}, "holds a certificate that does not belong to the chain of the key's own"
		}
		ordered = append(ordered, left[above])
		left = append(left[:above], left[above+1:]...)
	}
	chain := azureChain{key: c.key, certificates: ordered}
	var out bytes.Buffer
	for _, certificate := range ordered {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}) // a buffer does not fail
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return azureChain{}, "holds a private key that cannot be written again"
	}
	_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	chain.text = out.String()
	return chain, ""
}

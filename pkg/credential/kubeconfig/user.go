package kubeconfig

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxToken = 65536
	// maxSubject bounds what a token or certificate says of itself, in
	// characters; a longer one is not shown.
	maxSubject = 512
	// maxCertificates bounds a chain, or the authorities of a cluster.
	maxCertificates = 200
)

// user reads what is shown to the cluster.
func (r *reader) user(e entry, l *Login) {
	field := func(key string) string { return join(e.inner, key) }
	before := len(r.problems)
	r.misspelt(e.body, e.inner, "token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data",
		"username", "password", "exec", "auth-provider", "as", "as-uid", "as-groups", "as-user-extra")
	for _, key := range []string{"as", "as-uid", "as-groups", "as-user-extra"} {
		if r.child(e.body, e.inner, key) != nil {
			r.add(field(key), "must be absent: what is minted for a client says who it is and cannot ask to be somebody else; give a login of the user that is meant")
		}
	}
	for _, key := range []string{"username", "password"} {
		if r.child(e.body, e.inner, key) != nil {
			r.add(field(key), "must be absent: Kubernetes removed user names with passwords in version 1.19; use a token or a client certificate")
		}
	}
	if r.text(e.body, e.inner, "tokenFile") != "" {
		r.add(field("tokenFile"), "must be absent: it names a file of another machine, which cannot be read here; put the contents in token")
	}
	r.token(e, l)
	r.clientCertificate(e, l)
	static := l.Token != "" || l.CertificatePEM != "" || l.KeyPEM != ""
	switch {
	case r.child(e.body, e.inner, "exec") != nil:
		if static || r.child(e.body, e.inner, "auth-provider") != nil {
			r.add(field("exec"), "must be the only way to log in; the user has another one beside it: remove what is not used")
		}
		r.exec(e, l)
	case r.child(e.body, e.inner, "auth-provider") != nil:
		if static {
			r.add(field("auth-provider"), "must be the only way to log in; the user has another one beside it: remove what is not used")
		}
		r.authProvider(e, l)
	case !static && len(r.problems) == before:
		r.add(e.inner, "must hold a token, or client-certificate-data with client-key-data; there is none")
	}
}

func (r *reader) token(e entry, l *Login) {
	before := len(r.problems)
	l.Token = r.text(e.body, e.inner, "token")
	if l.Token == "" || len(r.problems) > before {
		return
	}
	if problem := badToken(l.Token); problem != "" {
		r.add(join(e.inner, "token"), "must be at most 65,536 visible ASCII characters without space; it "+problem)
		return
	}
	claims := claimsOf(l.Token)
	l.Subject = subject(claims.Sub)
	if end := claims.end(); !end.IsZero() {
		l.ends(end)
	}
}

func badToken(token string) string {
	switch {
	case token == "REDACTED":
		return "is REDACTED, which kubectl shows in its place: use " + flatten
	case len(token) > maxToken:
		return "is longer"
	case strings.TrimSpace(token) != token:
		return `begins or ends with white space, as after "token: |": write it in the same line`
	case strings.HasPrefix(token, "Bearer "):
		return `begins with "Bearer ": give what follows it`
	case strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "holds a space or a character outside ASCII"
	}
	return ""
}

// claims are those of a JSON Web Token (RFC 7519) that are of use here. Nobody
// has checked them: the cluster does.
type claims struct {
	Sub string  `json:"sub"`
	Exp float64 `json:"exp"`
}

// claimsOf returns the zero value for a token of another form.
func claimsOf(token string) claims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims{}
	}
	var c claims
	if json.Unmarshal(decoded, &c) != nil {
		return claims{}
	}
	return c
}

// end returns the end of a token, zero when it has none that a calendar knows.
func (c claims) end() time.Time {
	const year9999 = 253402300799
	if !(c.Exp >= 1 && c.Exp <= year9999) {
		return time.Time{}
	}
	return time.Unix(int64(c.Exp), 0).UTC()
}

// subject returns a name that can be shown, "" for another.
func subject(name string) string {
	if utf8.RuneCountInString(name) > maxSubject || strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name) {
		return ""
	}
	return name
}

// ends notes the end of a part of the login.
func (l *Login) ends(at time.Time) {
	if l.ExpireTime.IsZero() || at.Before(l.ExpireTime) {
		l.ExpireTime = at
	}
}

func (r *reader) clientCertificate(e entry, l *Login) {
	field := func(key string) string { return join(e.inner, key) }
	before := len(r.problems)
	l.CertificatePEM = r.data(e, "client-certificate")
	l.KeyPEM = r.data(e, "client-key")
	if l.CertificatePEM == "" && l.KeyPEM == "" {
		return
	}
	complete := len(r.problems) == before
	var leaf *x509.Certificate
	if l.CertificatePEM != "" {
		chain, problem := certificates(l.CertificatePEM)
		if problem != "" {
			r.add(field("client-certificate-data"), "must be base64 of a certificate in PEM form; "+problem)
		} else {
			leaf = chain[0]
			l.ends(leaf.NotAfter.UTC())
			if name := subject(leaf.Subject.CommonName); name != "" {
				l.Subject = name // clusters ask for the certificate first
			}
		}
	} else if complete {
		r.add(field("client-certificate-data"), "must stand beside client-key-data; it is missing")
	}
	if l.KeyPEM == "" {
		if complete {
			r.add(field("client-key-data"), "must stand beside client-certificate-data; it is missing")
		}
		return
	}
	if problem := badKey(l.KeyPEM, l.CertificatePEM, leaf); problem != "" {
		r.add(field("client-key-data"), "must be base64 of the certificate's private key in PEM form; "+problem)
	}
}

// badKey says what is wrong with a key, and with its certificate when that is
// known.
func badKey(keyPEM, certificatePEM string, leaf *x509.Certificate) string {
	block, kind := privateKey(keyPEM)
	switch {
	case block == nil:
		return "it holds none"
	case kind == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return "it is encrypted, and kubectl could not read it either: decrypt it first (`openssl pkey`)"
	}
	key := parseKey(block.Bytes)
	if key == nil {
		return "it holds one that cannot be read"
	}
	if leaf == nil {
		return ""
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return "it is the key of another certificate than the first of client-certificate-data"
	}
	if _, err := tls.X509KeyPair([]byte(certificatePEM), []byte(keyPEM)); err != nil {
		return "it does not go together with client-certificate-data"
	}
	return ""
}

// privateKey returns the first block that is a private key.
func privateKey(text string) (*pem.Block, string) {
	rest := []byte(text)
	for range maxCertificates {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, ""
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return block, block.Type
		}
	}
	return nil, ""
}

// parseKey reads the three forms that crypto/tls does; nil for another.
func parseKey(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, _ := key.(crypto.Signer)
		return signer
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

// data returns the text that a field KEY-data holds as base64, "" after a
// problem and when there is neither it nor KEY, which would name a file.
func (r *reader) data(e entry, key string) string {
	encoded := r.text(e.body, e.inner, key+"-data")
	if encoded == "" {
		if r.text(e.body, e.inner, key) != "" {
			r.add(join(e.inner, key), "must be absent: it names a file of another machine, which cannot be read here; "+
				"print the configuration with its files inside: "+flatten)
		}
		return ""
	}
	want := "must be base64 of PEM; "
	switch {
	case encoded == "DATA+OMITTED" || encoded == "REDACTED":
		r.add(join(e.inner, key+"-data"), want+"it is "+encoded+", which kubectl shows in its place: use "+flatten)
		return ""
	case strings.Contains(encoded, "-----BEGIN"):
		r.add(join(e.inner, key+"-data"), want+"it is the PEM itself: encode it (`base64 -w0`)")
		return ""
	}
	// As encoding/json does for kubectl: line breaks do not count, all else does.
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		r.add(join(e.inner, key+"-data"), want+"it is no base64, or a part of it is missing")
		return ""
	}
	if !bytes.Contains(decoded, []byte("-----BEGIN")) || !utf8.Valid(decoded) {
		r.add(join(e.inner, key+"-data"), want+"what it encodes is no PEM")
		return ""
	}
	return string(decoded)
}

// certificates returns those of a bundle, or what is wrong with it.
func certificates(text string) ([]*x509.Certificate, string) {
	var found []*x509.Certificate
	rest := []byte(text)
	for range maxCertificates {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if len(found) == 0 {
				return nil, "it holds no certificate"
			}
			return found, ""
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, "it holds one that cannot be read"
		}
		found = append(found, c)
	}
	return nil, "it holds more blocks than a bundle has"
}

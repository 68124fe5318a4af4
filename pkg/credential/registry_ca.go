package credential

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// maxAuthority is the most bytes of certificates of authorities.
const maxAuthority = 64 << 10

// checkAuthority returns certificates in PEM form with the base64, the quotes,
// the line ends and the white space that a paste brought removed, and reports what
// is wrong with them. None are fine.
func checkAuthority(field, value string, r *report) string {
	normal := func(text string) string { return trimPasted(strings.ReplaceAll(text, "\r\n", "\n")) }
	value = normal(value)
	// What can be read as it stands is not touched.
	if value != "" && isNoAuthority(value) != "" {
		value = normal(pemUnwrap(unquotePaste(value)))
	}
	if value != "" {
		r.check(field, value, "one or more certificates in PEM form, of at most 65,536 bytes", longerThan(maxAuthority), isNoAuthority)
	}
	return value
}

func isNoAuthority(value string) string {
	found := 0
	for rest := []byte(value); ; found++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && strings.Contains(string(rest), "-----BEGIN "):
			return "holds a block that is damaged or not complete"
		case block == nil && found == 0:
			return "holds none"
		case block == nil:
			return ""
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return "holds a private key"
		case block.Type != "CERTIFICATE":
			return "holds something else than certificates"
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "holds a certificate that cannot be read"
		}
	}
}

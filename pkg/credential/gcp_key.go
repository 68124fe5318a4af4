package credential

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strings"
	"unicode"
)

// gcpKeyLabel is what the PEM block of a key says that Google makes.
const gcpKeyLabel = "PRIVATE KEY"

// Limits of an RSA key. Below, its signatures are not safe; above, reading it
// takes long, and no vendor makes one.
const (
	gcpKeyMinBits = 2048
	gcpKeyMaxBits = 8192
	// gcpKeyMaxDER is more than a key of gcpKeyMaxBits takes, in bytes.
	gcpKeyMaxDER = 4800
)

// gcpKey is an RSA private key as somebody pasted it.
type gcpKey struct {
	key *rsa.PrivateKey
	// text is the key in PEM form with lines of 64 characters and a line break
	// after each of them: what every library reads.
	text string
}

var gcpBegin = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]{1,40})-----`)

// gcpEscapes undoes what escaping for JSON or a shell leaves in a PEM block.
var gcpEscapes = strings.NewReplacer(`\\`, `\`, `\r\n`, "\n", `\n`, "\n", `\r`, "\n", `\/`, "/", `\u003d`, "=")

// gcpOtherPEM says what the blocks are that are no RSA private key.
var gcpOtherPEM = map[string]string{
	"ENCRYPTED PRIVATE KEY": "is encrypted with a passphrase: remove it with \"openssl rsa\"",
	"EC PRIVATE KEY":        "is a key for elliptic curves, not an RSA key",
	"DSA PRIVATE KEY":       "is a DSA key, not an RSA key",
	"OPENSSH PRIVATE KEY":   "is a key of OpenSSH, not one in PKCS#1 or PKCS#8 form",
	"PUBLIC KEY":            "is the public key: the private one is needed",
	"RSA PUBLIC KEY":        "is the public key: the private one is needed",
	"CERTIFICATE":           "is a certificate: the private key is needed",
}

// gcpParseKey reads an RSA private key in PEM form, PKCS#8 or PKCS#1. It
// understands what environment variables and forms do to one: line breaks that
// became a backslash with an n, spaces, or nothing, those of Windows, quotes
// around it. What is wrong is returned as the end of a sentence that begins with
// "it", "" when nothing is.
func gcpParseKey(text string) (gcpKey, string) {
	text = strings.Trim(trimPasted(text), "\"'")
	// Once for each time that somebody escaped it.
	for range 2 {
		text = gcpEscapes.Replace(text)
	}
	label, body, problem := gcpBlock(text)
	if problem != "" {
		return gcpKey{}, problem
	}
	der, err := base64.StdEncoding.Strict().DecodeString(body)
	switch {
	case err != nil:
		return gcpKey{}, "holds characters between its BEGIN and END lines that are no base64, or some are missing: copy the key again"
	case len(der) == 0:
		return gcpKey{}, "holds nothing between its BEGIN and END lines"
	case len(der) > gcpKeyMaxDER:
		return gcpKey{}, "is longer than any RSA key of 8,192 bits"
	}
	key, problem := gcpDecodeKey(label, der)
	if problem != "" {
		return gcpKey{}, problem
	}
	return gcpKey{key: key, text: string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))}, ""
}

// gcpBlock returns the label of the only PEM block of the text and its base64
// without white space, or what is wrong.
func gcpBlock(text string) (label, body, problem string) {
	begin := gcpBegin.FindStringSubmatchIndex(text)
	if begin == nil {
		if trimPasted(text) == "" {
			return "", "", "is empty"
		}
		return "", "", "has no line -----BEGIN PRIVATE KEY-----: paste it with its first and last line"
	}
	label = text[begin[2]:begin[3]]
	if problem := gcpOtherPEM[label]; problem != "" {
		return "", "", problem
	}
	if label != gcpKeyLabel && label != "RSA PRIVATE KEY" {
		return "", "", "has a BEGIN line of something else than a private key"
	}
	if trimPasted(text[:begin[0]]) != "" {
		return "", "", "holds something before its BEGIN line"
	}
	body, after, ended := strings.Cut(text[begin[1]:], "-----END "+label+"-----")
	switch {
	case !ended:
		return "", "", "has no line -----END " + label + "-----: the end is missing"
	case gcpBegin.MatchString(after):
		return "", "", "holds more than one PEM block: only the private key is needed"
	case trimPasted(after) != "":
		return "", "", "holds something after its END line"
	case strings.Contains(body, "ENCRYPTED"):
		return "", "", gcpOtherPEM["ENCRYPTED PRIVATE KEY"]
	}
	return label, strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return -1
		}
		return c
	}, body), ""
}

// gcpDecodeKey reads the contents of a PEM block.
func gcpDecodeKey(label string, der []byte) (*rsa.PrivateKey, string) {
	const no = "is no private key: the base64 between its BEGIN and END lines decodes, but what it stands for is damaged or made up"
	if label != gcpKeyLabel {
		key, err := x509.ParsePKCS1PrivateKey(der)
		if err != nil {
			return nil, no
		}
		return gcpStrongKey(key)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, no
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, "is not an RSA key"
	}
	return gcpStrongKey(key)
}

func gcpStrongKey(key *rsa.PrivateKey) (*rsa.PrivateKey, string) {
	switch bits := key.N.BitLen(); {
	case bits < gcpKeyMinBits:
		return nil, "has fewer than 2,048 bits"
	case bits > gcpKeyMaxBits:
		return nil, "has more than 8,192 bits"
	}
	return key, ""
}

// gcpSameKey says whether a text is a key that libraries read as it stands:
// then nothing in it need be changed.
func gcpSameKey(text string, k gcpKey) bool {
	block, rest := pem.Decode([]byte(text))
	want, _ := pem.Decode([]byte(k.text))
	return block != nil && !strings.Contains(text, "\r") && len(bytes.TrimSpace(rest)) == 0 &&
		strings.HasPrefix(text, "-----BEGIN ") && bytes.Equal(block.Bytes, want.Bytes)
}

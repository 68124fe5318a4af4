package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strings"
	"unicode"
)

// The labels of PEM blocks (RFC 7468) that more than one kind knows.
const (
	pemCertificate  = "CERTIFICATE"
	pemPKCS8        = "PRIVATE KEY"
	pemPKCS8Sealed  = "ENCRYPTED PRIVATE KEY"
	pemPKCS1        = "RSA PRIVATE KEY"
	pemSEC1         = "EC PRIVATE KEY"
	pemDSA          = "DSA PRIVATE KEY"
	pemOpenSSH      = "OPENSSH PRIVATE KEY"
	pemECParameters = "EC PARAMETERS" // what openssl ecparam writes before a key
)

const (
	// pemMaxBlocks is more than any bundle has, and bounds the work on one.
	pemMaxBlocks = 32
	pemMaxLabel  = 64
)

// pemBlock is one block of a PEM text. It has no content unless its label is one
// of those above.
type pemBlock struct {
	label   string
	headers map[string]string
	der     []byte
}

// encode returns the block as OpenSSL writes it.
func (b pemBlock) encode() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: b.label, Headers: b.headers, Bytes: b.der}))
}

// sealed says whether the block is encrypted with a pass phrase, OpenSSH's own
// form apart.
func (b pemBlock) sealed() bool {
	return b.label == pemPKCS8Sealed || strings.Contains(b.headers["Proc-Type"], "ENCRYPTED")
}

// pemRead returns the blocks of what was pasted: PEM with text around it,
// indented, with the line ends of any system or none, with line breaks written
// as \n, or in base64 (as in a Kubernetes Secret). The problem is "" when there
// is none, and otherwise ends a sentence that begins with "it".
func pemRead(pasted string) (blocks []pemBlock, problem string) {
	rest := pemUnwrap(pasted)
	for {
		var found bool
		if _, rest, found = strings.Cut(rest, "-----BEGIN "); !found {
			return blocks, ""
		}
		if len(blocks) == pemMaxBlocks {
			return nil, "has too many parts"
		}
		var b pemBlock
		if b, rest, problem = pemNext(rest); problem != "" {
			return nil, problem
		}
		blocks = append(blocks, b)
	}
}

const (
	pemCutOff  = `is cut off: from "-----BEGIN" to "-----END …-----" all of it is needed`
	pemDamaged = "has a part whose base64 is damaged: copy it again, whole"
)

// pemNext reads one block, of which text begins after "-----BEGIN ".
func pemNext(text string) (b pemBlock, rest, problem string) {
	label, _, found := strings.Cut(text[:min(len(text), pemMaxLabel+5)], "-----")
	if !found || strings.ContainsFunc(label, func(c rune) bool { return c != ' ' && (c < '0' || c > 'Z') }) {
		return b, "", pemCutOff
	}
	body, rest, _ := strings.Cut(text[len(label)+5:], "-----")
	end := "END " + label + "-----"
	if !strings.HasPrefix(rest, end) {
		return b, "", pemCutOff
	}
	rest = rest[len(end):]
	b.label = label
	switch label {
	case pemCertificate, pemPKCS8, pemPKCS8Sealed, pemPKCS1, pemSEC1, pemDSA, pemOpenSSH:
	case "X509 CERTIFICATE": // an older name of the same
		b.label = pemCertificate
	default:
		return b, rest, ""
	}
	var ok bool
	if b.headers, b.der, ok = pemBody(body); !ok {
		return b, "", pemDamaged
	}
	return b, rest, ""
}

// pemBody splits what is between the lines of a block into its headers (RFC 1421,
// section 4.6) and its content.
func pemBody(body string) (headers map[string]string, der []byte, ok bool) {
	body = strings.ReplaceAll(body, "\r", "\n")
	for {
		line, rest, more := strings.Cut(body, "\n")
		key, value, isHeader := strings.Cut(line, ":")
		if !more || !isHeader && strings.TrimSpace(line) != "" {
			break
		}
		if isHeader {
			if headers == nil {
				headers = map[string]string{}
			}
			headers[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		body = rest
	}
	der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(pemDense(body), "="))
	return headers, der, err == nil && len(der) > 0
}

// pemDense removes white space and byte order marks.
func pemDense(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) || c == '\ufeff' || c == '\u200b' {
			return -1
		}
		return c
	}, text)
}

var (
	// pemBreaks are line breaks as they are written in JSON, in files of
	// variables, and in both at once.
	pemBreaks = regexp.MustCompile(`\\+[nr]`)
	pemSlash  = regexp.MustCompile(`\\+/`)
)

// pemUnwrap removes what is around PEM, as far as it matters.
func pemUnwrap(pasted string) string {
	text := trimPasted(pasted)
	if !strings.Contains(text, "-----BEGIN ") {
		if decoded := pemBase64(text); decoded != "" {
			text = decoded
		}
	}
	if strings.Contains(text, `\`) {
		text = pemSlash.ReplaceAllString(pemBreaks.ReplaceAllString(text, "\n"), "/")
	}
	return text
}

// pemBegin is how base64 of a PEM text begins.
const pemBegin = "LS0tLS1CRUdJTi"

// pemBase64 decodes each run of base64 that begins as PEM does: what stands
// before it in its line, and lines that are no base64, are names of fields. It
// returns "" when there is none.
func pemBase64(text string) string {
	var out, run strings.Builder
	flush := func() {
		decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(run.String(), "="))
		run.Reset()
		if err == nil {
			out.Write(decoded)
			out.WriteByte('\n')
		}
	}
	for line := range strings.Lines(text) {
		line = strings.Trim(trimPasted(line), `"',`)
		if i := strings.Index(line, pemBegin); i >= 0 {
			flush()
			line = line[i:]
		} else if run.Len() == 0 {
			continue
		}
		if strings.ContainsFunc(line, pemNoBase64) {
			flush()
			continue
		}
		run.WriteString(line)
	}
	flush()
	return strings.TrimSpace(out.String())
}

func pemNoBase64(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=')
}

// pemNone says what was pasted in place of PEM, as the end of a sentence that
// begins with "it".
func pemNone(pasted string) string {
	text := trimPasted(pasted)
	der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(pemDense(text), "="))
	switch {
	case text == "":
		return "is empty"
	case err == nil && bytes.HasPrefix(der, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return `is a Java keystore: convert it with "keytool -importkeystore -srckeystore FILE -destkeystore new.p12 -deststoretype PKCS12", and that with "openssl pkcs12 -in new.p12 -noenc"`
	case err == nil && pemIsPFX(der):
		return `is a PFX (PKCS#12) file: convert it with "openssl pkcs12 -in FILE -noenc"`
	case err == nil && len(der) > 64 && der[0] == 0x30:
		return `is base64 without the lines "-----BEGIN …-----" and "-----END …-----" around it`
	case strings.HasPrefix(text, "PuTTY-User-Key-File-"):
		return `is a key in PuTTY's form: convert it with "puttygen key.ppk -O private-openssh -o key"`
	case pemIsPath(text):
		return "is the name of a file, which this server cannot read: paste what is in it"
	}
	return `has no line "-----BEGIN …-----"`
}

// pemIsPFX says whether der begins as PKCS#12 does (RFC 7292, section 4): a
// sequence of the version, 3, and a content type of PKCS#7.
func pemIsPFX(der []byte) bool {
	return len(der) > 32 && der[0] == 0x30 &&
		bytes.Contains(der[:8], []byte{0x02, 0x01, 0x03, 0x30}) &&
		bytes.Contains(der[:32], []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07})
}

var pemPath = regexp.MustCompile(`^@?(?:[A-Za-z]:\\|~?/|\.{1,2}/)?[\w ./\\-]+\.(?:pem|crt|cer|key|p12|pfx|ppk|jks)$|^@?~?/[\w ./-]+$`)

func pemIsPath(text string) bool { return len(text) <= 1024 && pemPath.MatchString(text) }

// pemHasMargin finds what a paste leaves around a value.
func pemHasMargin(value string) string {
	if value != trimPasted(value) {
		return "begins or ends with white space"
	}
	return ""
}

package credential

import (
	"crypto/md5" //nolint:gosec // the vendor's fingerprint, no protection
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

const ociMinBits = 2048 // what Oracle asks for

var (
	// ociRegion is the form of a region's identifier.
	ociRegion = regexp.MustCompile(`^[a-z]{2,4}(?:-[a-z0-9]{1,20}){1,3}-[0-9]{1,3}$`)
	// ociID is the form of an OCID after its type
	// (https://docs.oracle.com/iaas/Content/General/Concepts/identifiers.htm).
	ociID          = regexp.MustCompile(`^\.[a-z0-9]{1,20}\.[a-z0-9-]{0,40}\.(?:[a-z0-9-]{0,40}\.)?[a-zA-Z0-9_-]{1,100}$`)
	ociFingerprint = regexp.MustCompile(`^(?:[0-9a-f]{2}:){15}[0-9a-f]{2}$`)
)

// ociNoID finds what is no OCID of a type.
func ociNoID(kind string) test {
	return func(value string) string {
		switch rest, ok := strings.CutPrefix(value, "ocid1."+kind); {
		case !ok && strings.HasPrefix(value, "ocid1."):
			return "is the OCID of something else"
		case !ok:
			return "does not begin so"
		case strings.ContainsAny(rest, "<>…"):
			return "is a placeholder"
		case len(rest) > 300 || !ociID.MatchString(rest):
			return "is damaged, or not complete"
		}
		return ""
	}
}

// ociNoRegion finds what is no region's identifier.
func ociNoRegion(value string) string {
	if len(value) == 3 {
		return "is the short code of a region"
	}
	if len(value) > 60 || !ociRegion.MatchString(value) {
		return "is none"
	}
	return ""
}

// ociNormalFingerprint returns a fingerprint as Oracle writes it.
func ociNormalFingerprint(value string) string {
	value = strings.TrimPrefix(strings.ToLower(trimPasted(value)), "md5:")
	if len(value) != 32 || strings.Contains(value, ":") {
		return value
	}
	var pairs []string
	for pair := range slices.Chunk([]byte(value), 2) {
		pairs = append(pairs, string(pair))
	}
	return strings.Join(pairs, ":")
}

// ociFingerprintOf returns the fingerprint that Oracle knows a key by: of its
// public half in DER form
// (https://docs.oracle.com/iaas/Content/API/Concepts/apisigningkey.htm).
func ociFingerprintOf(key *rsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	digest := md5.Sum(der) //nolint:gosec // see the import
	return strings.ReplaceAll(fmt.Sprintf("% x", digest[:]), " ", ":"), nil
}

// checkOciKey normalises the key and returns its fingerprint, "" when something
// is wrong with it.
func checkOciKey(m *credentialv1.Oci, r *report) string {
	refuse := func(problem string) string {
		r.add("privateKeyPem", "must be the RSA private key of the API key, of 2,048 to 8,192 bits, in PEM form; it "+problem)
		return ""
	}
	b, problem := pemOneKey(m.GetPrivateKeyPem())
	switch {
	case problem != "":
		return refuse(problem)
	case b.label == pemOpenSSH:
		return refuse(`is in OpenSSH's form: convert a copy of it with "ssh-keygen -p -m PEM -f FILE"`)
	}
	key, problem, wrong := pemOpen(b, m.GetPassphrase())
	switch {
	case problem != "":
		return refuse(problem)
	case wrong != "":
		r.add("passphrase", "must be what the private key is encrypted with; "+wrong)
		return ""
	}
	public, ok := key.Public().(*rsa.PublicKey)
	switch {
	case !ok:
		return refuse("is of another type")
	case public.N.BitLen() < ociMinBits:
		return refuse("has fewer")
	}
	fingerprint, err := ociFingerprintOf(public)
	if err != nil {
		return refuse("cannot be read")
	}
	m.PrivateKeyPem = b.encode()
	return fingerprint
}

// readOciDocument moves what a profile says into the other fields. It says
// whether the profile could be read, and whether it named the key's file: nothing
// is to be reported as missing which stands there.
func readOciDocument(m *credentialv1.Oci, r *report) (read, keyFile bool) {
	text := trimPasted(m.GetDocument())
	m.Document = ""
	if text == "" {
		return true, false
	}
	profile, problem := ociProfile(text)
	if decoded, ok := decodePaste(unquotePaste(text)); ok && problem != "" {
		profile, problem = ociProfile(decoded)
	}
	if problem != "" {
		r.add("document", "must be one profile of ~/.oci/config; it "+problem)
		return false, false
	}
	if key := profile[ociPEM]; key != "" && m.GetPrivateKeyPem() == "" {
		m.PrivateKeyPem = key
	}
	// The names are those of
	// https://docs.oracle.com/iaas/Content/API/Concepts/sdkconfig.htm.
	for _, f := range []struct {
		name  string
		field *string
	}{
		{"tenancy", &m.Tenancy},
		{"user", &m.User},
		{"fingerprint", &m.Fingerprint},
		{"region", &m.Region},
		{"pass_phrase", &m.Passphrase},
		{"passphrase", &m.Passphrase},
	} {
		value := profile[f.name]
		switch {
		case value == "":
		case *f.field == "" || f.name == "fingerprint" && ociNormalFingerprint(*f.field) == ociNormalFingerprint(value):
			*f.field = value
		case trimPasted(*f.field) != value:
			r.add("document."+f.name, "must be what the field of this name beside the document says; it is something else, so leave one of them out")
		}
	}
	_, keyFile = profile["key_file"]
	if keyFile = keyFile && trimPasted(m.GetPrivateKeyPem()) == ""; keyFile {
		r.add("document.key_file", "names a file, which this server cannot read: put what is in it into privateKeyPem")
	}
	for _, name := range []string{"security_token_file", "delegation_token_file", "authentication_type"} {
		if _, named := profile[name]; named {
			r.add("document."+name, "must be left out: only the API key of a user is understood, not a session or the identity of a machine")
		}
	}
	return true, keyFile
}

// ociPEM stands for the private key in a profile.
const ociPEM = "-----BEGIN"

// ociProfile reads one profile: lines of "name = value", with a name in brackets
// above them or none. White space, comments and other lines do not matter.
func ociProfile(text string) (profile map[string]string, problem string) {
	profile = map[string]string{}
	// A key may stand in key_content, over several lines, or below the profile.
	if begin, end := ociKeyIn(text); begin < end {
		profile[ociPEM] = text[begin:end]
		text = text[:begin] + text[end:]
	}
	sections := 0
	for line := range strings.Lines(strings.ReplaceAll(text, "\r", "\n")) {
		line = trimPasted(line)
		name, value, pair := strings.Cut(line, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case line == "", line[0] == '#', line[0] == ';':
		case line[0] == '[':
			if sections++; sections > 1 {
				return nil, "has more than one profile: paste one"
			}
		case !pair || !ociIsName(name):
		default:
			if _, twice := profile[name]; twice {
				return nil, "has a name twice"
			}
			profile[name] = ociValue(value)
		}
	}
	for _, name := range []string{"tenancy", "user", "fingerprint", "region"} {
		if _, ok := profile[name]; ok {
			return profile, ""
		}
	}
	return nil, "has none of the lines tenancy=, user=, fingerprint= and region="
}

// ociKeyIn returns where a PEM block begins and ends; both 0 without one.
func ociKeyIn(text string) (begin, end int) {
	begin = strings.Index(text, "-----BEGIN ")
	if begin < 0 {
		return 0, 0
	}
	end = strings.Index(text[begin:], "-----END ")
	if end < 0 {
		return begin, len(text)
	}
	end += begin + len("-----END ")
	if i := strings.Index(text[end:], "-----"); i >= 0 {
		return begin, end + i + len("-----")
	}
	return begin, len(text)
}

func ociIsName(name string) bool {
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(c rune) bool {
		return c != '_' && c != '-' && (c < 'a' || c > 'z')
	})
}

// ociValue returns a value without quotes and without the comment that Oracle's
// console puts behind one.
func ociValue(value string) string {
	if i := strings.Index(value, " #"); i >= 0 {
		value = value[:i]
	}
	value = trimPasted(value)
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = value[1 : n-1]
	}
	return value
}

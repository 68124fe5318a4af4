package credential

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

const wantMailHost = `the mail server's host name, as "smtp.example.com"`

// smtpSchemes are the schemes of the URLs that applications are configured with,
// and how the connection begins where they say it.
var smtpSchemes = map[string]credentialv1.Smtp_Security{
	"smtp": credentialv1.Smtp_SECURITY_UNSPECIFIED, "submission": credentialv1.Smtp_STARTTLS,
	"smtps": credentialv1.Smtp_TLS, "submissions": credentialv1.Smtp_TLS,
}

// readSmtpAddress spreads a host with its port, or a URL, over the fields. What a
// field says already must be the same.
func readSmtpAddress(m *credentialv1.Smtp, r *report) {
	rest := trimPasted(m.GetHost())
	if scheme, address, isURL := strings.Cut(rest, "://"); isURL {
		security, known := smtpSchemes[strings.ToLower(scheme)]
		if !known {
			r.add("host", "must be "+wantMailHost+"; it has a scheme other than smtp and smtps")
		} else if security != credentialv1.Smtp_SECURITY_UNSPECIFIED {
			agree(r, "security", &m.Security, security)
		}
		address, _, _ = strings.Cut(address, "?")
		rest = strings.TrimSuffix(address, "/")
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			readSmtpUser(m, r, rest[:i])
			rest = rest[i+1:]
		}
	}
	host, port, ok := cutPort(rest)
	if ok {
		agree(r, "port", &m.Port, port)
	}
	m.Host = strings.ToLower(host)
}

// readSmtpUser reads what stands before the @ of a URL.
func readSmtpUser(m *credentialv1.Smtp, r *report, user string) {
	name, password, _ := strings.Cut(user, ":")
	for _, part := range []struct {
		field   string
		to      *string
		encoded string
	}{{"username", &m.Username, name}, {"password", &m.Password, password}} {
		value, err := url.PathUnescape(part.encoded)
		if err != nil {
			r.add("host", "must be a URL with % before two hexadecimal digits only; the "+part.field+" in it has another %")
			continue
		}
		if value != "" {
			agree(r, part.field, part.to, value)
		}
	}
}

// agree sets a field that is not set, and reports one that says another thing
// than the host.
func agree[T comparable](r *report, field string, to *T, value T) {
	var unset T
	switch *to {
	case unset:
		*to = value
	case value:
	default:
		r.add(field, "must be what host says, which names it too, or be absent; it is another")
	}
}

// cutPort cuts a port off a host.
func cutPort(value string) (host string, port uint32, ok bool) {
	i := strings.LastIndexByte(value, ':')
	if i <= strings.LastIndexByte(value, ']') {
		return value, 0, false
	}
	if _, err := netip.ParseAddr(value); err == nil {
		return value, 0, false // an IPv6 address without brackets
	}
	n, err := strconv.ParseUint(value[i+1:], 10, 16)
	if err != nil || n == 0 {
		return value, 0, false
	}
	return value[:i], uint32(n), true
}

// isNoMailbox finds what is no mailbox (RFC 5321, section 4.1.2) with a local
// part without quotes and a domain by name.
func isNoMailbox(value string) string {
	const maxPath = 254 // RFC 5321, section 4.5.3.1.3, without the brackets
	if strings.ContainsAny(value, "<>\" \t,;") {
		return "holds a name, brackets, quotes or more than one address"
	}
	at := strings.LastIndexByte(value, '@')
	if at < 0 {
		return "holds no @"
	}
	local, domain := value[:at], value[at+1:]
	switch {
	case len(value) > maxPath:
		return "is longer than 254 characters"
	case local == "" || len(local) > 64:
		return "has no part before the @, or one of more than 64 characters"
	case strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, ".."):
		return "has a dot at the beginning or the end of the part before the @, or two in a row"
	}
	for i := range len(local) {
		if c := local[i]; !isAtomText(c) && c != '.' {
			return "has characters before the @ that an address does not have without quotes"
		}
	}
	if _, err := netip.ParseAddr(strings.Trim(domain, "[]")); err == nil {
		return "has an IP address after the @"
	}
	if serviceHost(strings.ToLower(domain)) != "" {
		return "has after the @ what is no domain"
	}
	return ""
}

// isAtomText is atext of RFC 5322, section 3.2.3.
func isAtomText(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

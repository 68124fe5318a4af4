package credential

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxHost is the longest name that the DNS knows (RFC 1035, section 2.3.4).
const maxHost = 253

// serviceHostPort finds what is no host with an optional port, in lower case: a
// name by the letter-digit-hyphen rule (RFC 1123, section 2.1), an IPv4 address,
// or an IPv6 address in brackets.
func serviceHostPort(value string) string {
	host := value
	// In an IPv6 address the last colon may be inside the brackets.
	if i := strings.LastIndexByte(value, ':'); i > strings.LastIndexByte(value, ']') {
		port := value[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return "has a port that is no number from 1 to 65535"
		}
		host = value[:i]
	}
	return serviceHost(host)
}

// serviceHost finds what is no host, in lower case and without a port.
func serviceHost(host string) string {
	if host == "" {
		return "has no host"
	}
	if inner, bracket := strings.CutPrefix(host, "["); bracket {
		inner, closed := strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !closed || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "has brackets around what is no IPv6 address"
		}
		return ""
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Is6() {
			return "is an IPv6 address without brackets"
		}
		return ""
	}
	if len(host) > maxHost {
		return "has a host name of more than 253 characters"
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if problem := hostLabel(label); problem != "" {
			return problem
		}
		last = label
	}
	// Resolvers read "10.1" and "0x7f.1" as addresses, each in its own way.
	if last[0] >= '0' && last[0] <= '9' {
		return "has a host whose last part begins with a digit, but is no IPv4 address"
	}
	return ""
}

func hostLabel(label string) string {
	if label == "" {
		return "has a host with an empty part between its dots"
	}
	if len(label) > 63 {
		return "has a host with a part of more than 63 characters"
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "has a host with other characters than letters, digits, hyphens and dots"
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return "has a host with a part that begins or ends with a hyphen"
	}
	return ""
}

// serviceURL reads an https URL that may have a path, and says what is wrong
// with it otherwise. The host of what it returns is in lower case, and has no
// port where that is the one of https.
func serviceURL(value string) (*url.URL, string) {
	if problem := isEmpty(value); problem != "" {
		return nil, problem
	}
	if problem := holdsInvisible(value); problem != "" {
		return nil, problem
	}
	scheme, _, found := strings.Cut(value, "://")
	switch {
	case !found:
		return nil, `does not begin with "https://"`
	case strings.EqualFold(scheme, "http"):
		return nil, `begins with "http://": what is secret is not sent without TLS`
	case !strings.EqualFold(scheme, "https"):
		return nil, `begins with another scheme than "https://"`
	}
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return nil, "cannot be read as a URL"
	case u.User != nil:
		return nil, "holds a user name or a password before the host"
	case strings.Contains(value, "#"):
		return nil, "has a fragment, which begins with #"
	}
	u.Host = strings.TrimSuffix(strings.ToLower(u.Host), ":443")
	if problem := serviceHostPort(u.Host); problem != "" {
		return nil, problem
	}
	return u, ""
}

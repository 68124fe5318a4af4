package registry

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/credstore/credstore/pkg/provider"
)

// challenge is one way to authenticate that a server offers (RFC 9110, section
// 11.6.1). The scheme and the names of parameters are in lower case.
type challenge struct {
	scheme string
	params map[string]string
	realm  *url.URL // of a Bearer challenge, once it was checked
}

// maxParams bounds the parameters of a challenge.
const maxParams = 32

// parseChallenges reads WWW-Authenticate headers. What cannot be read ends its
// header.
func parseChallenges(headers []string) []challenge {
	var out []challenge
	for _, h := range headers {
		var current *challenge
		for h = skipList(h); h != ""; h = skipList(h) {
			name, rest := cutName(h)
			if name == "" {
				break
			}
			spaces := strings.TrimLeft(rest, " \t")
			if value, after, ok := cutValue(spaces); ok && current != nil {
				if len(current.params) < maxParams {
					current.params[strings.ToLower(name)] = value
				}
				h = after
				continue
			}
			out = append(out, challenge{scheme: strings.ToLower(name), params: map[string]string{}})
			current = &out[len(out)-1]
			h = rest
		}
	}
	return out
}

// skipList removes what stands between the parts of a list.
func skipList(h string) string { return strings.TrimLeft(h, " \t,") }

// cutName cuts a token (RFC 9110, section 5.6.2) off.
func cutName(h string) (name, rest string) {
	end := strings.IndexFunc(h, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
	if end < 0 {
		end = len(h)
	}
	return h[:end], h[end:]
}

// cutValue cuts "= value" off, whose value is a token or in quotes.
func cutValue(h string) (value, rest string, ok bool) {
	h, ok = strings.CutPrefix(h, "=")
	if !ok {
		return "", "", false
	}
	h = strings.TrimLeft(h, " \t")
	if !strings.HasPrefix(h, `"`) {
		end := strings.IndexAny(h, ", \t")
		if end < 0 {
			end = len(h)
		}
		return h[:end], h[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(h); i++ {
		switch {
		case h[i] == '\\' && i+1 < len(h):
			i++
			b.WriteByte(h[i])
		case h[i] == '"':
			return b.String(), h[i+1:], true
		default:
			b.WriteByte(h[i])
		}
	}
	return "", "", true // not closed: nothing of it can be trusted
}

// choose returns how to log in: by the token server where there is one.
func (s *session) choose(challenges []challenge) (challenge, error) {
	unsupported := func(text string) error {
		return &provider.Error{Kind: provider.ErrUnsupported, Op: "verify", Text: text}
	}
	for _, c := range challenges {
		if c.scheme != "bearer" {
			continue
		}
		realm, why := s.checkRealm(c.params["realm"])
		if why != "" {
			return challenge{}, &provider.Error{Kind: provider.ErrRefused, Op: "token", Text: provider.Clean(why)}
		}
		c.realm = realm
		return c, nil
	}
	for _, c := range challenges {
		if c.scheme != "basic" {
			continue
		}
		if s.account.identity != "" {
			return challenge{}, unsupported("the registry asks for a password and has no token server, where an identity token could be used")
		}
		return c, nil
	}
	return challenge{}, unsupported("the registry offers neither Bearer nor Basic authentication")
}

// checkRealm returns the address of a token server that may have the login, or
// why this one may not.
func (s *session) checkRealm(realm string) (*url.URL, string) {
	const longest = 2048
	u, err := url.Parse(realm)
	switch {
	case realm == "":
		return nil, "the registry does not say where its token server is"
	case err != nil || len(realm) > longest || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return nil, "the registry names a token server by what is no proper URL"
	case u.Scheme != "https":
		return nil, fmt.Sprintf("the registry names a token server without TLS, at %s: the login is not sent there", u.Host)
	case !s.owns(u):
		return nil, fmt.Sprintf("the registry names the token server %s, which is not known to belong to it: "+
			"the login is not sent there; the server's configuration can allow it", u.Host)
	}
	return u, ""
}

// pairs are registries with token servers on another domain, as their vendors
// document it. The first is a pattern of package path.
var pairs = []struct{ registry, token string }{
	{"rg.*.scw.cloud", "api.scaleway.com"}, // Scaleway
}

// owns says whether a token server belongs to the registry.
func (s *session) owns(token *url.URL) bool {
	host, port := splitPort(s.host)
	tokenHost, tokenPort := splitPort(strings.ToLower(token.Host))
	switch {
	case tokenHost == host && tokenPort == port:
		return true
	case slices.ContainsFunc(s.tokenHosts, func(allowed string) bool {
		h, p := splitPort(strings.ToLower(allowed))
		return h == tokenHost && p == tokenPort
	}):
		return true
	case tokenPort != httpsPort && tokenPort != port:
		return false
	case sameSite(host, tokenHost):
		return true
	}
	for _, p := range pairs {
		if matched, err := path.Match(p.registry, host); err == nil && matched && port == httpsPort && tokenPort == httpsPort && tokenHost == p.token {
			return true
		}
	}
	return false
}

// sameSite says whether two names are below the same registrable domain. IP
// addresses and names without a dot have none.
func sameSite(a, b string) bool {
	if _, err := netip.ParseAddr(a); err == nil {
		return false
	}
	if _, err := netip.ParseAddr(b); err == nil {
		return false
	}
	siteA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	siteB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && siteA == siteB
}

const httpsPort = "443"

// splitPort returns the host without brackets, and the port, which is that of
// https when there is none.
func splitPort(hostPort string) (host, port string) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil || port == "" {
		return strings.Trim(strings.TrimSuffix(hostPort, ":"), "[]"), httpsPort
	}
	return host, port
}

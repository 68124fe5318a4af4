package credential

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/credstore/credstore/pkg/resourcename"
)

// vaultAddress returns a server's URL without a slash at its end, and what is
// wrong with it as the end of a sentence that begins with "it".
func vaultAddress(pasted string) (normal, problem string) {
	text := trimPasted(pasted)
	u, err := url.Parse(text)
	switch {
	case len(text) > 2048:
		return text, "is longer"
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return text, "is no such URL"
	case u.User != nil:
		return text, "has a user name or password"
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return text, "has a path, query or fragment"
	case !strings.EqualFold(u.Scheme, "https") && !strings.EqualFold(u.Scheme, "http"):
		return text, "does not begin with https://"
	case strings.EqualFold(u.Scheme, "http") && !vaultIsLoopback(u.Hostname()):
		return text, "begins with http://, which is for loopback addresses only: the login would cross the network in clear"
	}
	return strings.ToLower(u.Scheme + "://" + u.Host), ""
}

func vaultIsLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// vaultNoNamespace finds what is no path of a namespace; it becomes a header.
func vaultNoNamespace(value string) string {
	if value == "" {
		return ""
	}
	if problem := holdsInvisible(value); problem != "" {
		return problem
	}
	return isNoMount(value)
}

// vaultNoUsername finds what is not one element of a path, where Vault wants the
// user name.
func vaultNoUsername(value string) string {
	if value == "." || value == ".." || strings.ContainsAny(value, `/?#%\`) {
		return `is "." or "..", or holds one of / ? # % \`
	}
	return ""
}

// vaultNoCredential finds what is no credential's full name.
func vaultNoCredential(value string) string {
	if _, err := resourcename.ParseCredential(value); err != nil {
		return "is none"
	}
	return ""
}

// vaultClaims are what is public in a JWT (RFC 7519, section 4.1).
type vaultClaims struct {
	Issuer  string
	Subject string
	Expire  time.Time
}

// vaultJWT reads a JWT without checking its signature, which is for who accepts
// it.
func vaultJWT(token string) (vaultClaims, bool) {
	parts := strings.SplitN(token, ".", 4)
	if len(parts) != 3 || parts[2] == "" {
		return vaultClaims{}, false
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	var claims struct {
		Issuer  any      `json:"iss"`
		Subject any      `json:"sub"`
		Expire  *float64 `json:"exp"`
	}
	if !vaultPart(parts[0], &header) || header.Algorithm == "" || !vaultPart(parts[1], &claims) {
		return vaultClaims{}, false
	}
	var c vaultClaims
	c.Issuer, c.Subject = vaultClaim(claims.Issuer), vaultClaim(claims.Subject)
	// Until the year 9999, beyond which no timestamp can be kept.
	if e := claims.Expire; e != nil && *e > 0 && *e < 253402300800 {
		whole, part := math.Modf(*e)
		c.Expire = time.Unix(int64(whole), int64(part*1e9)).UTC()
	}
	return c, true
}

// vaultClaim returns a claim as it can be shown, "" when it is no string.
func vaultClaim(claim any) string {
	s, _ := claim.(string)
	return certText(s)
}

// vaultPart decodes a part of a JWT: an object in base64url.
func vaultPart(part string, to any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && utf8.Valid(text) && json.Unmarshal(text, to) == nil
}

func vaultNoJWT(value string) string {
	if _, ok := vaultJWT(value); !ok {
		return "is none"
	}
	return ""
}

package azure

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// claims are what a token says. Nothing is granted by them: they came over TLS
// from the authority that was asked, and are compared and shown.
// Source: https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
type claims struct {
	Issuer string `json:"iss"`
	Tenant string `json:"tid"`
	Object string `json:"oid"`
	// Application is appid in tokens of version 1, and azp in those of version 2.
	AppID  string `json:"appid"`
	Azp    string `json:"azp"`
	Expiry int64  `json:"exp"`
	// Resource is the identity's resource id, in tokens of managed identities.
	Resource string `json:"xms_mirid"`
}

// readClaims reads a JWT without checking its signature.
func readClaims(token string) (claims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, false
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	return c, true
}

func (c claims) application() string {
	if c.AppID != "" {
		return c.AppID
	}
	return c.Azp
}

func (c claims) end() time.Time { return time.Unix(c.Expiry, 0) }

// issuerTenant returns the tenant in the issuer, as in
// "https://sts.windows.net/TENANT/" or "https://login.microsoftonline.com/TENANT/v2.0".
func (c claims) issuerTenant() string {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return first
}

// identity says whose the token is, and refuses one of somebody else.
func (p *principal) identity(c claims) (credential.Identity, error) {
	same := func(want, got string) bool { return want == "" || strings.EqualFold(want, got) }
	if !same(p.tenant, c.Tenant) || !same(p.tenant, c.issuerTenant()) || !same(p.client, c.application()) {
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrRefused, Op: opVerify,
			Text: provider.Clean(fmt.Sprintf("Entra ID's token is of application %s in tenant %s (issuer %s), the credential of application %s in tenant %s",
				c.application(), c.Tenant, c.Issuer, p.client, p.tenant), p.secrets...),
		}
	}
	identity := credential.Identity{
		Name:  provider.Clean("app "+c.application()+" in tenant "+c.Tenant, p.secrets...),
		Facts: map[string]string{},
	}
	if c.Resource != "" {
		identity.Name = provider.Clean(c.Resource, p.secrets...)
	}
	for name, value := range map[string]string{
		"tenantId": c.Tenant, "clientId": c.application(), "objectId": c.Object, "resourceId": c.Resource,
	} {
		if value != "" {
			identity.Facts[name] = provider.Clean(value, p.secrets...)
		}
	}
	return identity, nil
}

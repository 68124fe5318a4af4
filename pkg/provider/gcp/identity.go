package gcp

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// identity is a login, ready to get tokens with.
type identity struct {
	// own names what the login itself is: an e-mail address, or the audience of a
	// federation.
	own string
	// key and federation: one of them is set.
	key        *keyFile
	federation *federation
	// hops are the accounts to act as, each with the token of the one before.
	hops []hop
}

// name returns whose tokens are minted.
func (i identity) name() string {
	if len(i.hops) > 0 {
		return i.hops[len(i.hops)-1].account
	}
	return i.own
}

// as returns the identity acting as one more account, or itself when account is
// empty.
func (i identity) as(account string, delegates []string) identity {
	if account == "" {
		return i
	}
	i.hops = append(slices.Clip(i.hops), hop{account: account, delegates: delegates})
	return i
}

// open reads what a login holds. It makes no call.
func (c *Client) open(login credential.Login) (identity, error) {
	m := login.Payload.Message()
	switch kind := login.Payload.Kind(); kind {
	case "gcpServiceAccount":
		f := &keyFile{}
		if err := parse(m.GetGcpServiceAccount().GetDocument(), f); err != nil {
			return identity{}, err
		}
		return identity{own: f.Email, key: f}.as(m.GetGcpServiceAccount().GetImpersonate(), nil), nil
	case "gcpExternalAccount":
		f := &federation{}
		if err := parse(m.GetGcpExternalAccount().GetDocument(), f); err != nil {
			return identity{}, err
		}
		i := identity{own: f.Audience, federation: f}.as(login.Payload.Facts()["impersonate"], nil)
		if seconds := f.Impersonation.Seconds; len(i.hops) > 0 && seconds > 0 {
			i.hops[0].lifetime = time.Duration(seconds) * time.Second
		}
		return i, nil
	default:
		return identity{}, &provider.Error{Kind: provider.ErrUnsupported, Op: "open", Text: fmt.Sprintf("package gcp does not know kind %s", kind)}
	}
}

// first gets an access token of the login itself.
func (c *Client) first(ctx context.Context, who identity, scopes []string) (bearer, error) {
	if who.federation != nil {
		return c.exchange(ctx, who.federation, scopes)
	}
	return c.grant(ctx, *who.key, scopes, "")
}

// before gets the token that the last hop is made with. There is a hop.
func (c *Client) before(ctx context.Context, who identity) (bearer, error) {
	platform := []string{credential.GCPCloudPlatform}
	b, err := c.first(ctx, who, platform)
	for _, h := range who.hops[:len(who.hops)-1] {
		if err != nil {
			return bearer{}, err
		}
		h.lifetime = hopLife
		b, err = c.generateAccessToken(ctx, b, h, platform)
	}
	return b, err
}

// accessAs gets an access token with the scopes. The lifetime is for a token of
// an account that is acted as; 0 means what the document says, or an hour.
func (c *Client) accessAs(ctx context.Context, who identity, scopes []string, lifetime time.Duration) (bearer, error) {
	if len(who.hops) == 0 {
		return c.first(ctx, who, scopes)
	}
	b, err := c.before(ctx, who)
	if err != nil {
		return bearer{}, err
	}
	last := who.hops[len(who.hops)-1]
	switch {
	case lifetime > 0:
		last.lifetime = lifetime
	case last.lifetime == 0:
		last.lifetime = time.Hour
	}
	return c.generateAccessToken(ctx, b, last, scopes)
}

package gcp

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// emailScope lets a token say whose it is, and nothing more.
const emailScope = "https://www.googleapis.com/auth/userinfo.email"

// Verify implements provider.Verifier. A service account's key is proved by
// exchanging an assertion for a token that may do next to nothing, an external
// account by the exchange of its identity, both with the tokens of the accounts
// that they act as; an API key by a listing that costs nothing.
func (c *Client) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	if login.Payload.Kind() == "gcpApiKey" {
		return c.verifyAPIKey(ctx, login.Payload.Message().GetGcpApiKey().GetApiKey())
	}
	who, err := c.open(login)
	if err != nil {
		return credential.Identity{}, err
	}
	scopes := []string{emailScope}
	if who.federation != nil && len(who.hops) == 0 {
		// The one that the Security Token Service is documented with.
		scopes = []string{credential.GCPCloudPlatform}
	}
	if _, err := c.accessAs(ctx, who, scopes, hopLife); err != nil {
		return credential.Identity{}, err
	}
	identity := credential.Identity{Name: who.name(), Facts: map[string]string{}}
	if len(who.hops) > 0 {
		identity.Facts["impersonatedBy"] = who.own
	}
	return identity, nil
}

// restrictions are the reasons of answers that only a key gets that Google
// knows, and what each says of the key
// (google/api/error_reason.proto).
var restrictions = map[string]string{
	"SERVICE_DISABLED":              "another API",
	"API_KEY_SERVICE_BLOCKED":       "APIs",
	"API_KEY_HTTP_REFERRER_BLOCKED": "web sites",
	"API_KEY_IP_ADDRESS_BLOCKED":    "IP addresses",
	"API_KEY_ANDROID_APP_BLOCKED":   "Android apps",
	"API_KEY_IOS_APP_BLOCKED":       "iOS apps",
	"BILLING_DISABLED":              "another API",
}

// worthless are the reasons of answers to a key that nothing can be done with.
var worthless = []string{"API_KEY_INVALID", "CONSUMER_INVALID", "CONSUMER_SUSPENDED"}

// verifyAPIKey tells a key that Google knows from one that it does not. A key
// has no permissions of its own: most are restricted to some API, and then the
// answer to a call of another one says so, which proves it too.
func (c *Client) verifyAPIKey(ctx context.Context, key string) (credential.Identity, error) {
	k := call{op: "verify", client: c.http, secrets: []string{key}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.APIKeyURL, nil)
	if err != nil {
		return credential.Identity{}, unusable(k.op, "the endpoint is no URL")
	}
	// Not in the URL, which proxies and servers write down.
	r.Header.Set("X-Goog-Api-Key", key)
	a, err := k.send(r)
	if err != nil {
		return credential.Identity{}, err
	}
	if a.Status < http.StatusMultipleChoices {
		return credential.Identity{Facts: map[string]string{}}, nil
	}
	said, _ := parseComplaint(a.Body)
	if restricted := restrictions[said.reason]; restricted != "" {
		return credential.Identity{Name: provider.Clean(said.consumer, key), Facts: map[string]string{"restrictedTo": restricted}}, nil
	}
	e := k.judge(a)
	if errors.Is(e, provider.ErrRefused) && !slices.Contains(worthless, said.reason) {
		e.Kind, e.Text = provider.ErrUnsupported, "the answer says nothing of the key: "+e.Text
	}
	return credential.Identity{}, e
}

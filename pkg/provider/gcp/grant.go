package gcp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/credstore/credstore/pkg/provider"
)

const (
	// assertionLife is how long an assertion is valid: the most that Google takes
	// is an hour, and it is used at once.
	assertionLife = 10 * time.Minute
	// skew is how far this server's clock may be ahead of Google's.
	skew = 30 * time.Second
)

// keyFile is what is used of a service account's key file.
type keyFile struct {
	KeyID string `json:"private_key_id"`
	Key   string `json:"private_key"`
	Email string `json:"client_email"`
}

// bearer is an access token or an ID token with its end.
type bearer struct {
	token string
	end   time.Time
}

// sign makes the assertion of a service account (RFC 7523, section 3), with
// either the scopes or the audience of the token to get.
func (c *Client) sign(f keyFile, scopes []string, audience string) (string, error) {
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(f.Key))
	if err != nil {
		return "", unusable("sign", "the stored private_key is no RSA key: store the key file again")
	}
	now := c.cfg.Now()
	claims := jwt.MapClaims{"iss": f.Email, "aud": TokenURL, "iat": now.Add(-skew).Unix(), "exp": now.Add(assertionLife).Unix()}
	if audience != "" {
		claims["target_audience"] = audience
	} else {
		claims["scope"] = strings.Join(scopes, " ")
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = f.KeyID
	signed, err := t.SignedString(key)
	if err != nil {
		return "", unusable("sign", "the stored private_key cannot sign: store the key file again")
	}
	return signed, nil
}

// tokenAnswer is what both token endpoints answer with.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	IDToken     string `json:"id_token"`
	ExpiresIn   int64  `json:"expires_in"`
	// asked is when the answer was asked for: it counts from some time after that.
	asked time.Time
}

// grant exchanges a service account's assertion for an access token, or for an
// ID token when there is an audience.
func (c *Client) grant(ctx context.Context, f keyFile, scopes []string, audience string) (bearer, error) {
	assertion, err := c.sign(f, scopes, audience)
	if err != nil {
		return bearer{}, err
	}
	k := call{op: "token", client: c.http, secrets: []string{assertion, f.Key}}
	answer, err := c.postForm(ctx, k, c.cfg.TokenURL, url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"},
		"assertion":  {assertion},
	})
	if err != nil {
		return bearer{}, err
	}
	if audience != "" {
		return k.idToken(answer.IDToken)
	}
	return c.accessToken(k, answer)
}

// postForm sends a form to a token endpoint.
func (c *Client) postForm(ctx context.Context, k call, to string, form url.Values) (tokenAnswer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return tokenAnswer{}, unusable(k.op, "the endpoint is no URL")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := tokenAnswer{asked: c.cfg.Now()}
	body, err := k.do(r)
	if err != nil {
		return tokenAnswer{}, err
	}
	return a, k.decode(body, &a)
}

// accessToken takes the access token from an answer.
func (c *Client) accessToken(k call, a tokenAnswer) (bearer, error) {
	const most = 24 * 3600 // seconds; Google gives an hour, or 12 where a policy allows it
	if a.AccessToken == "" || a.ExpiresIn <= 0 || a.ExpiresIn > most {
		return bearer{}, k.strange()
	}
	return bearer{token: a.AccessToken, end: a.asked.Add(time.Duration(a.ExpiresIn) * time.Second)}, nil
}

// idToken takes the end from an ID token. Its signature is for whoever accepts
// it to check; it came from Google.
func (k call) idToken(token string) (bearer, error) {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil || claims.ExpiresAt == nil {
		return bearer{}, k.strange()
	}
	return bearer{token: token, end: claims.ExpiresAt.Time}, nil
}

// hop is one account to act as, with the token of the one before it.
type hop struct {
	account   string
	delegates []string
	lifetime  time.Duration
}

// hopLife is how long a token lives that only gets the next one.
const hopLife = 5 * time.Minute

// generateAccessToken calls the method of that name of the IAM Credentials API.
func (c *Client) generateAccessToken(ctx context.Context, as bearer, h hop, scopes []string) (bearer, error) {
	k := call{op: "generateAccessToken", client: c.http, secrets: []string{as.token}}
	body, err := c.askIAM(ctx, k, as, h, map[string]any{
		"scope": scopes, "delegates": resourceNames(h.delegates), "lifetime": strconv.Itoa(int(h.lifetime/time.Second)) + "s",
	})
	if err != nil {
		return bearer{}, err
	}
	var answer struct {
		AccessToken string    `json:"accessToken"`
		ExpireTime  time.Time `json:"expireTime"`
	}
	if err := k.decode(body, &answer); err != nil {
		return bearer{}, err
	}
	if answer.AccessToken == "" || answer.ExpireTime.IsZero() {
		return bearer{}, k.strange()
	}
	return bearer{token: answer.AccessToken, end: answer.ExpireTime}, nil
}

// generateIDToken calls generateIdToken of the IAM Credentials API. The token
// has the account's e-mail address, as one that a key is exchanged for.
func (c *Client) generateIDToken(ctx context.Context, as bearer, h hop, audience string) (bearer, error) {
	k := call{op: "generateIdToken", client: c.http, secrets: []string{as.token}}
	body, err := c.askIAM(ctx, k, as, h, map[string]any{
		"audience": audience, "delegates": resourceNames(h.delegates), "includeEmail": true,
	})
	if err != nil {
		return bearer{}, err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := k.decode(body, &answer); err != nil {
		return bearer{}, err
	}
	return k.idToken(answer.Token)
}

// askIAM calls a method of the IAM Credentials API on an account; the method's
// name is the operation's.
func (c *Client) askIAM(ctx context.Context, k call, as bearer, h hop, message map[string]any) ([]byte, error) {
	to := strings.TrimSuffix(c.cfg.IAMCredentialsURL, "/") + "/v1/" + resourceNames([]string{url.PathEscape(h.account)})[0] + ":" + k.op
	r, err := jsonRequest(ctx, to, message)
	if err != nil {
		return nil, unusable(k.op, provider.Clean(err.Error()))
	}
	r.Header.Set("Authorization", "Bearer "+as.token)
	body, err := k.do(r)
	if typed, ok := errors.AsType[*provider.Error](err); ok && errors.Is(err, provider.ErrRefused) {
		typed.Text = "for " + provider.Clean(h.account) + ": " + typed.Text
	}
	return body, err
}

// resourceNames returns the names that the IAM Credentials API has for accounts.
func resourceNames(accounts []string) []string {
	names := make([]string, 0, len(accounts))
	for _, account := range accounts {
		names = append(names, "projects/-/serviceAccounts/"+account)
	}
	return names
}

// parse reads a stored document, which was checked when it was stored.
func parse(document string, into any) error {
	if json.Unmarshal([]byte(document), into) != nil {
		return unusable("read", "the stored document is not JSON: store it again")
	}
	return nil
}

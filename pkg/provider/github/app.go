package github

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	// skew is how far this server's clock may be ahead of GitHub's, which refuses
	// a token from the future.
	skew = time.Minute
	// tokenLife is less than the ten minutes that GitHub takes, for a clock that
	// is behind.
	tokenLife = 8 * time.Minute

	apiVersion = "2022-11-28"
)

// app is one App, ready to be asked as.
type app struct {
	client  *Client
	payload *credentialv1.GithubApp
	base    string
	token   string
	// secrets are blotted out of what GitHub says.
	secrets []string
}

// open signs the App's token. It makes no call.
func (c *Client) open(login credential.Login) (*app, error) {
	m := login.Payload.Message().GetGithubApp()
	if m == nil {
		return nil, &provider.Error{Kind: provider.ErrUnsupported, Op: "open", Text: "package github knows kind githubApp only"}
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(m.GetPrivateKeyPem()))
	if err != nil {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "sign", Text: "the stored privateKeyPem is no RSA key: store the key again"}
	}
	now := c.cfg.Now()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": m.GetAppId(), "iat": now.Add(-skew).Unix(), "exp": now.Add(tokenLife).Unix(),
	}).SignedString(key)
	if err != nil {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "sign", Text: "the stored privateKeyPem cannot sign: store the key again"}
	}
	base := m.GetApiUrl()
	if base == "" || base == credential.GitHubAPI && c.cfg.APIURL != "" {
		base = c.cfg.APIURL
	}
	if base == "" {
		base = credential.GitHubAPI
	}
	return &app{client: c, payload: m, base: base, token: signed, secrets: []string{signed, m.GetPrivateKeyPem()}}, nil
}

// ask makes a request and reads the answer into a message. Its error is a
// *provider.Error or the context's.
func (a *app) ask(ctx context.Context, op, method, path string, message, into any) error {
	var body bytes.Buffer
	if message != nil {
		if err := json.NewEncoder(&body).Encode(message); err != nil {
			return &provider.Error{Kind: provider.ErrRefused, Op: op, Text: "the request cannot be encoded"}
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, a.base+path, &body)
	if err != nil {
		return &provider.Error{Kind: provider.ErrRefused, Op: op, Text: "the stored apiUrl is no URL: store it again"}
	}
	r.Header.Set("Accept", "application/vnd.github+json")
	r.Header.Set("X-GitHub-Api-Version", apiVersion)
	// GitHub refuses requests without one.
	r.Header.Set("User-Agent", "credstore")
	r.Header.Set("Authorization", "Bearer "+a.token)
	answer, err := provider.Ask(a.client.http, r, op)
	if err != nil {
		return err
	}
	return a.read(op, answer, into)
}

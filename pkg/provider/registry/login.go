package registry

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// clientID is the name that this program goes by at token servers, which keep it
// in their records.
const clientID = "credstore"

// challenges asks without a login how to log in.
func (s *session) challenges(ctx context.Context) ([]challenge, error) {
	a, err := s.ping(ctx, "")
	if err != nil {
		return nil, err
	}
	switch a.Status {
	case http.StatusUnauthorized:
		return parseChallenges(a.Header.Values("WWW-Authenticate")), nil
	case http.StatusOK:
		return nil, &provider.Error{
			Kind: provider.ErrUnsupported, Op: "verify", Status: a.Status,
			Text: "the registry lets anybody in without a login: that it accepts this one would prove nothing",
		}
	}
	return nil, s.unavailable("verify", a, "no registry of the distribution API answers here")
}

// login returns nil when the registry accepts the account.
func (s *session) login(ctx context.Context, way challenge, who account) error {
	authorization := basic(who)
	if way.scheme == "bearer" {
		token, err := s.token(ctx, way, who)
		if err != nil {
			return err
		}
		authorization = "Bearer " + token
	}
	a, err := s.ping(ctx, authorization)
	if err != nil {
		return err
	}
	switch a.Status {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return s.refused("verify", a)
	}
	return s.unavailable("verify", a, "it is not what a registry answers to a login")
}

// ping is GET /v2/.
func (s *session) ping(ctx context.Context, authorization string) (provider.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/v2/", nil)
	if err != nil {
		return provider.Answer{}, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: "the registry's address cannot be used"}
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return provider.Ask(s.client, req, "verify")
}

// token asks the token server: by the password in a GET (the token
// specification), by a refresh token in a POST (the OAuth 2 one,
// https://distribution.github.io/distribution/spec/auth/oauth/).
func (s *session) token(ctx context.Context, way challenge, who account) (string, error) {
	form := url.Values{"client_id": {clientID}}
	for _, name := range []string{"service", "scope"} {
		if way.params[name] != "" {
			form.Set(name, way.params[name])
		}
	}
	req, err := tokenRequest(ctx, *way.realm, form, who)
	if err != nil {
		return "", &provider.Error{Kind: provider.ErrRefused, Op: "token", Text: "the token server's address cannot be used"}
	}
	a, err := provider.Ask(s.client, req, "token")
	if err != nil {
		return "", err
	}
	switch a.Status {
	case http.StatusOK:
		return s.readToken(a)
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return "", s.refused("token", a)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		if who.identity != "" {
			return "", &provider.Error{
				Kind: provider.ErrUnsupported, Op: "token", Status: a.Status,
				Text: "the token server takes no refresh tokens: store a user name and a password",
			}
		}
	}
	return "", s.unavailable("token", a, "it is not what a token server answers")
}

func tokenRequest(ctx context.Context, realm url.URL, form url.Values, who account) (*http.Request, error) {
	if who.identity != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", who.identity)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	form.Set("account", who.username)
	query := realm.Query()
	maps.Copy(query, form)
	realm.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err == nil {
		req.SetBasicAuth(who.username, who.password)
	}
	return req, err
}

// readToken returns the token of an answer, which has it under one of two names.
func (s *session) readToken(a provider.Answer) (string, error) {
	var body struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return "", s.unavailable("token", a, "it is no JSON")
	}
	token := body.Token
	if token == "" {
		token = body.AccessToken
	}
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", s.unavailable("token", a, "it holds no token")
	}
	return token, nil
}

// isRefused says whether an error is a server's no to a login.
func isRefused(err error) bool {
	e, ok := errors.AsType[*provider.Error](err)
	return ok && errors.Is(e.Kind, provider.ErrRefused) && e.Status != 0
}

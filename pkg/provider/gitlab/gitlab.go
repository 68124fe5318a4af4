package gitlab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says which servers may be asked. Its zero value is for public ones.
type Config struct {
	Egress provider.Egress
	// CAPEM is the authority of the servers, in PEM form; the system's when empty.
	CAPEM string
}

// Gitlab verifies tokens. It is safe for concurrent use and keeps nothing.
type Gitlab struct{ cfg Config }

// New returns a Gitlab.
func New(cfg Config) *Gitlab { return &Gitlab{cfg: cfg} }

var _ provider.Verifier = (*Gitlab)(nil)

// The types of tokens, as the kind's fact "type" names them.
const (
	accessToken = "accessToken"
	deployToken = "deployToken"
)

// Verify asks whose the token is:
//
//   - personal, group and project access tokens by GET
//     /api/v4/personal_access_tokens/self, which every scope may, and for the
//     user's name GET /api/v4/user where a scope allows it; servers before GitLab
//     15.5 by the latter alone
//     (https://docs.gitlab.com/api/personal_access_tokens/);
//   - deploy tokens by GET /jwt/auth, where the container registry sends its
//     users, since the API takes none. That needs read_registry or
//     write_registry, and a server with a container registry;
//   - all others, as of pipeline triggers and OAuth applications, by nothing that
//     would not use them: ErrUnsupported.
func (g *Gitlab) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m := login.Payload.Message().GetGitlabToken()
	if m == nil {
		return credential.Identity{}, unsupported(0, "the credential is no token of GitLab")
	}
	client, err := g.cfg.Egress.Client(g.cfg.CAPEM)
	if err != nil {
		return credential.Identity{}, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: provider.Clean(err.Error())}
	}
	defer client.CloseIdleConnections()
	s := &session{client: client, base: m.GetUrl(), token: m.GetToken(), username: m.GetUsername()}
	switch kind := login.Payload.Facts()["type"]; kind {
	case deployToken:
		return s.deploy(ctx)
	case accessToken, "":
		return s.access(ctx)
	default:
		return credential.Identity{}, unsupported(0, fmt.Sprintf("GitLab has no call that proves a token of type %s without using it", kind))
	}
}

// self is what GitLab says of a token that asks for itself.
type self struct {
	ID        int64    `json:"id"`
	Name      string   `json:"name"`
	Revoked   bool     `json:"revoked"`
	Active    *bool    `json:"active"`
	Scopes    []string `json:"scopes"`
	UserID    int64    `json:"user_id"`
	ExpiresAt string   `json:"expires_at"`
}

func (s *session) access(ctx context.Context) (credential.Identity, error) {
	a, err := s.get(ctx, "/api/v4/personal_access_tokens/self", s.byHeader)
	if err != nil {
		return credential.Identity{}, err
	}
	switch a.Status {
	case http.StatusOK:
		return s.describe(ctx, a)
	case http.StatusBadRequest, http.StatusNotFound:
		// A server before 15.5, or a token of another type that the API takes too.
		return s.user(ctx)
	case http.StatusUnauthorized, http.StatusForbidden:
		return credential.Identity{}, s.fail(provider.ErrRefused, a)
	}
	return credential.Identity{}, s.unavailable(a)
}

// describe says whose the token is.
func (s *session) describe(ctx context.Context, a provider.Answer) (credential.Identity, error) {
	var token self
	if err := json.Unmarshal(a.Body, &token); err != nil || token.ID == 0 || token.UserID == 0 {
		return credential.Identity{}, notGitlab(a)
	}
	if token.Revoked || token.Active != nil && !*token.Active {
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrRefused, Op: "verify", Status: a.Status, Text: "GitLab knows the token, and says that it is revoked or has expired",
		}
	}
	out := credential.Identity{Name: "user " + strconv.FormatInt(token.UserID, 10), Facts: map[string]string{}}
	for name, value := range map[string]string{
		"tokenName": token.Name, "scopes": strings.Join(token.Scopes, ", "), "expiresAt": token.ExpiresAt,
	} {
		if value = s.clean(value); value != "" {
			out.Facts[name] = value
		}
	}
	if !slices.ContainsFunc(token.Scopes, func(scope string) bool { return slices.Contains([]string{"api", "read_api", "read_user"}, scope) }) {
		return out, nil // the user's name is for others to read
	}
	who, err := s.user(ctx)
	switch {
	case err == nil:
		out.Name = who.Name
	case ctx.Err() != nil:
		return credential.Identity{}, err
	}
	// The token is proved, whatever came of the name.
	return out, nil
}

// user asks for the user of the token.
func (s *session) user(ctx context.Context) (credential.Identity, error) {
	a, err := s.get(ctx, "/api/v4/user", s.byHeader)
	if err != nil {
		return credential.Identity{}, err
	}
	var body struct {
		Username string `json:"username"`
	}
	switch a.Status {
	case http.StatusOK:
		if err := json.Unmarshal(a.Body, &body); err != nil || body.Username == "" {
			return credential.Identity{}, notGitlab(a)
		}
		return credential.Identity{Name: s.clean(body.Username)}, nil
	case http.StatusUnauthorized:
		return credential.Identity{}, s.fail(provider.ErrRefused, a)
	case http.StatusForbidden:
		if strings.Contains(string(a.Body), "insufficient_scope") {
			return credential.Identity{}, unsupported(a.Status, "the server is older than GitLab 15.5, and the token has none of the scopes that it could be asked with: api, read_api, read_user")
		}
		return credential.Identity{}, s.fail(provider.ErrRefused, a)
	case http.StatusNotFound:
		return credential.Identity{}, notGitlab(a)
	}
	return credential.Identity{}, s.unavailable(a)
}

// deploy asks for a token of the container registry without a scope, which is
// given to those whose login is right and who may do anything there.
func (s *session) deploy(ctx context.Context) (credential.Identity, error) {
	query := url.Values{"service": {"container_registry"}, "client_id": {"credstore"}, "account": {s.username}}
	a, err := s.get(ctx, "/jwt/auth?"+query.Encode(), s.byPassword)
	if err != nil {
		return credential.Identity{}, err
	}
	var body struct {
		Token string `json:"token"`
	}
	switch a.Status {
	case http.StatusOK:
		if err := json.Unmarshal(a.Body, &body); err != nil || body.Token == "" {
			return credential.Identity{}, notGitlab(a)
		}
		return credential.Identity{Name: s.username}, nil
	case http.StatusUnauthorized:
		return credential.Identity{}, s.fail(provider.ErrRefused, a)
	case http.StatusForbidden:
		return credential.Identity{}, unsupported(a.Status, "only the container registry could prove a deploy token, and this one has neither read_registry nor write_registry there")
	case http.StatusNotFound:
		return credential.Identity{}, unsupported(a.Status, "only the container registry could prove a deploy token, and the server has none")
	}
	return credential.Identity{}, s.unavailable(a)
}

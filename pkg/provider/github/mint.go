package github

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Mint implements provider.Minter for githubInstallationToken:
// "POST /app/installations/ID/access_tokens". The installation is the request's,
// the payload's, or the only one that the App has.
func (c *Client) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	a, err := c.open(login)
	if err != nil {
		return credential.Token{}, err
	}
	m := request.Message().GetGithubInstallationToken()
	if m == nil {
		return credential.Token{}, unsupported("package github does not mint " + request.Kind())
	}
	id := m.GetInstallationId()
	if id == "" {
		id = a.payload.GetInstallationId()
	}
	if id == "" {
		if id, err = a.only(ctx); err != nil {
			return credential.Token{}, err
		}
	}
	const op = "create installation access token"
	var answer struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	body := struct {
		Repositories []string          `json:"repositories,omitempty"`
		Permissions  map[string]string `json:"permissions,omitempty"`
	}{m.GetRepositories(), m.GetPermissions()}
	if err := a.ask(ctx, op, http.MethodPost, "/app/installations/"+id+"/access_tokens", body, &answer); err != nil {
		return credential.Token{}, notThere(err)
	}
	if answer.Token == "" || answer.ExpiresAt.IsZero() {
		return credential.Token{}, strange(op, http.StatusCreated)
	}
	token, err := credential.NewToken(&credentialv1.Token{
		ExpireTime: timestamppb.New(answer.ExpiresAt),
		Kind:       &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: answer.Token, Type: "Bearer"}},
	})
	if err != nil {
		return credential.Token{}, strange(op, http.StatusCreated)
	}
	return token, nil
}

func unsupported(text string) error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: "mint", Text: text}
}

const (
	// pageSize is the most that GitHub lists at a time.
	pageSize = 100
	// maxNamed is how many installations an error names.
	maxNamed = 5
)

// only returns the id of the App's installation when there is exactly one.
func (a *app) only(ctx context.Context) (string, error) {
	var all []installation
	if err := a.ask(ctx, "list installations", http.MethodGet, "/app/installations?per_page="+strconv.Itoa(pageSize), nil, &all); err != nil {
		return "", err
	}
	if len(all) == 1 {
		return strconv.FormatInt(all[0].ID, 10), nil
	}
	if len(all) == 0 {
		return "", unsupported("the App is installed nowhere: install it first")
	}
	count := strconv.Itoa(len(all))
	if len(all) >= pageSize {
		count += " or more"
	}
	var named []string
	for _, i := range all[:min(len(all), maxNamed)] {
		named = append(named, fmt.Sprintf("%d of %s", i.ID, i.account()))
	}
	return "", unsupported(a.clean(fmt.Sprintf("the App has %s installations: say which with installationId, as %s", count, strings.Join(named, ", "))))
}

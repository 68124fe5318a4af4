package github

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// installation is what is used of an installation's description.
type installation struct {
	ID      int64 `json:"id"`
	Account struct {
		Login string `json:"login"`
		// Slug names an enterprise, which has no login.
		Slug string `json:"slug"`
	} `json:"account"`
	SuspendedAt string `json:"suspended_at"`
}

// account returns where the App is installed.
func (i installation) account() string {
	if i.Account.Login != "" {
		return i.Account.Login
	}
	return i.Account.Slug
}

// Verify implements provider.Verifier: "GET /app" proves the key and says whose
// it is, and "GET /app/installations/ID" that the installation which the payload
// names, if it names one, is the App's and not suspended.
func (c *Client) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	a, err := c.open(login)
	if err != nil {
		return credential.Identity{}, err
	}
	const op = "get app"
	var m struct {
		ID    int64  `json:"id"`
		Slug  string `json:"slug"`
		Owner struct {
			Login string `json:"login"`
			Slug  string `json:"slug"`
		} `json:"owner"`
		Permissions   map[string]string `json:"permissions"`
		Installations *int              `json:"installations_count"`
	}
	if err := a.ask(ctx, op, http.MethodGet, "/app", nil, &m); err != nil {
		return credential.Identity{}, err
	}
	if m.Slug == "" || m.ID == 0 {
		return credential.Identity{}, strange(op, http.StatusOK)
	}
	facts := map[string]string{"appId": strconv.FormatInt(m.ID, 10)}
	if owner := m.Owner.Login + m.Owner.Slug; owner != "" {
		facts["owner"] = a.clean(owner)
	}
	if len(m.Permissions) > 0 {
		facts["permissions"] = a.clean(list(m.Permissions))
	}
	if m.Installations != nil {
		facts["installations"] = strconv.Itoa(*m.Installations)
	}
	if id := a.payload.GetInstallationId(); id != "" {
		i, err := a.installation(ctx, id)
		if err != nil {
			return credential.Identity{}, err
		}
		facts["installation"] = a.clean(i.account())
	}
	return credential.Identity{Name: a.clean(m.Slug), Facts: facts}, nil
}

func (a *app) clean(text string) string { return provider.Clean(text, a.secrets...) }

// list returns permissions in one line, sorted.
func list(permissions map[string]string) string {
	parts := make([]string, 0, len(permissions))
	for _, name := range slices.Sorted(maps.Keys(permissions)) {
		parts = append(parts, name+"="+permissions[name])
	}
	return strings.Join(parts, ", ")
}

// installation describes one that can be used.
func (a *app) installation(ctx context.Context, id string) (installation, error) {
	const op = "get installation"
	var i installation
	if err := a.ask(ctx, op, http.MethodGet, "/app/installations/"+id, nil, &i); err != nil {
		return i, notThere(err)
	}
	if i.SuspendedAt != "" {
		return i, &provider.Error{
			Kind: provider.ErrRefused, Op: op, Status: http.StatusOK,
			Text: fmt.Sprintf("the installation for %s is suspended since %s", a.clean(i.account()), a.clean(i.SuspendedAt)),
		}
	}
	return i, nil
}

// notThere says what "Not Found" means of an installation.
func notThere(err error) error {
	if e, ok := errors.AsType[*provider.Error](err); ok && e.Status == http.StatusNotFound && e.Text == "Not Found" {
		e.Text += " (the App has no such installation: it was removed, or it is another App's)"
	}
	return err
}

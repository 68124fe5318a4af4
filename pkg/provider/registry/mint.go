package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	// hubKey is what docker calls Docker Hub in its configuration.
	hubKey = "https://index.docker.io/v1/"
	// tokenUser stands for the user where the password is a refresh token, in the
	// protocol of docker's credential helpers.
	tokenUser = "<token>"
)

// Mint returns the stored login as docker wants it, without asking the registry:
// it ends when somebody changes it there. For a refresh token the user name is
// "<token>", as for docker's credential helpers. A request for another server
// than the stored one is ErrUnsupported.
func (r *Registry) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	if err := ctx.Err(); err != nil {
		return credential.Token{}, err
	}
	m, err := messageOf(login, "mint")
	if err != nil {
		return credential.Token{}, err
	}
	asked := request.Message().GetRegistryLogin()
	switch {
	case asked == nil:
		return credential.Token{}, &provider.Error{Kind: provider.ErrUnsupported, Op: "mint", Text: "only a registryLogin can be made of this credential"}
	case asked.GetServer() != "" && asked.GetServer() != m.GetServer():
		return credential.Token{}, &provider.Error{
			Kind: provider.ErrUnsupported, Op: "mint",
			Text: provider.Clean(fmt.Sprintf("the stored login is for %s, not for the server that was asked for", m.GetServer())),
		}
	}
	config, err := dockerConfig(m)
	if err != nil {
		return credential.Token{}, err
	}
	auth := &credentialv1.Token_RegistryAuth{Server: m.GetServer(), Username: m.GetUsername(), Password: m.GetPassword(), DockerConfig: config}
	if m.GetIdentityToken() != "" {
		auth.Username, auth.Password = tokenUser, m.GetIdentityToken()
	}
	return credential.NewToken(&credentialv1.Token{Kind: &credentialv1.Token_Registry{Registry: auth}})
}

// dockerConfig returns a ~/.docker/config.json with one login.
func dockerConfig(m *credentialv1.DockerRegistry) (string, error) {
	entry := map[string]string{}
	if m.GetUsername() != "" {
		entry["auth"] = base64.StdEncoding.EncodeToString([]byte(m.GetUsername() + ":" + m.GetPassword()))
	}
	if m.GetIdentityToken() != "" {
		entry["identitytoken"] = m.GetIdentityToken()
	}
	key := m.GetServer()
	if key == dockerHub {
		key = hubKey
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // nobody embeds it in HTML
	if err := encoder.Encode(map[string]any{"auths": map[string]any{key: entry}}); err != nil {
		return "", &provider.Error{Kind: provider.ErrUnsupported, Op: "mint", Text: fmt.Sprintf("the login cannot be written as JSON (%T)", err)}
	}
	return string(bytes.TrimSuffix(out.Bytes(), []byte("\n"))), nil
}

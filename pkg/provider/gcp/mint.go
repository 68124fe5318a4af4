package gcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// registryUser is the user name that Google's registries know access tokens by.
const registryUser = "oauth2accesstoken"

// Mint implements provider.Minter for gcpAccessToken, gcpIdToken, registryLogin
// (a login to Artifact Registry or Container Registry) and kubernetesLogin (a
// token for GKE). A request that names an account to act as does so from the
// account that the payload acts as, not instead of it.
func (c *Client) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	who, err := c.open(login)
	if err != nil {
		return credential.Token{}, err
	}
	m := request.Message()
	switch m.GetKind().(type) {
	case *credentialv1.TokenRequest_GcpAccessToken_:
		return c.mintAccessToken(ctx, who, m.GetGcpAccessToken())
	case *credentialv1.TokenRequest_GcpIdToken_:
		return c.mintIDToken(ctx, who, m.GetGcpIdToken())
	case *credentialv1.TokenRequest_RegistryLogin_:
		return c.mintRegistryLogin(ctx, who, m.GetRegistryLogin())
	case *credentialv1.TokenRequest_KubernetesLogin_:
		return c.mintKubernetesLogin(ctx, who)
	}
	return credential.Token{}, unsupported("package gcp does not mint " + request.Kind())
}

func unsupported(text string) error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: "mint", Text: text}
}

func (c *Client) mintAccessToken(ctx context.Context, who identity, m *credentialv1.TokenRequest_GcpAccessToken) (credential.Token, error) {
	who = who.as(m.GetImpersonate(), m.GetDelegates())
	if m.GetDuration() != nil && len(who.hops) == 0 {
		return credential.Token{}, unsupported("Google alone says how long this credential's own tokens live: leave out duration, or ask with impersonate")
	}
	b, err := c.accessAs(ctx, who, m.GetScopes(), m.GetDuration().AsDuration())
	if err != nil {
		return credential.Token{}, err
	}
	return bearerToken(b)
}

func (c *Client) mintIDToken(ctx context.Context, who identity, m *credentialv1.TokenRequest_GcpIdToken) (credential.Token, error) {
	who = who.as(m.GetImpersonate(), m.GetDelegates())
	b, err := c.idTokenAs(ctx, who, m.GetAudience())
	if err != nil {
		return credential.Token{}, err
	}
	return bearerToken(b)
}

// idTokenAs gets an ID token for an audience.
func (c *Client) idTokenAs(ctx context.Context, who identity, audience string) (bearer, error) {
	switch {
	case len(who.hops) > 0:
		b, err := c.before(ctx, who)
		if err != nil {
			return bearer{}, err
		}
		return c.generateIDToken(ctx, b, who.hops[len(who.hops)-1], audience)
	case who.key == nil:
		return bearer{}, unsupported("a federated identity has no ID tokens of Google's: ask with impersonate, or store a document with service_account_impersonation_url")
	}
	return c.grant(ctx, *who.key, nil, audience)
}

func (c *Client) mintRegistryLogin(ctx context.Context, who identity, m *credentialv1.TokenRequest_RegistryLogin) (credential.Token, error) {
	b, err := c.accessAs(ctx, who.as(m.GetImpersonate(), nil), []string{credential.GCPCloudPlatform}, 0)
	if err != nil {
		return credential.Token{}, err
	}
	type auth struct {
		Auth string `json:"auth"`
	}
	config, err := json.Marshal(map[string]map[string]auth{"auths": {
		m.GetServer(): {Auth: base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + b.token))},
	}})
	if err != nil {
		return credential.Token{}, unencoded()
	}
	return made(&credentialv1.Token{ExpireTime: timestamppb.New(b.end), Kind: &credentialv1.Token_Registry{Registry: &credentialv1.Token_RegistryAuth{
		Server: m.GetServer(), Username: registryUser, Password: b.token, DockerConfig: string(config),
	}}})
}

func (c *Client) mintKubernetesLogin(ctx context.Context, who identity) (credential.Token, error) {
	// Without the second, the cluster knows the account by its number only, and
	// bindings to its address do nothing.
	b, err := c.accessAs(ctx, who, []string{credential.GCPCloudPlatform, emailScope}, 0)
	if err != nil {
		return credential.Token{}, err
	}
	exec, err := json.Marshal(map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
		"status": map[string]string{"token": b.token, "expirationTimestamp": b.end.UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return credential.Token{}, unencoded()
	}
	return made(&credentialv1.Token{ExpireTime: timestamppb.New(b.end), Kind: &credentialv1.Token_Kubernetes{Kubernetes: &credentialv1.Token_KubernetesCredential{
		Token: b.token, ExecCredential: string(exec),
	}}})
}

func bearerToken(b bearer) (credential.Token, error) {
	return made(&credentialv1.Token{ExpireTime: timestamppb.New(b.end), Kind: &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{
		Token: b.token, Type: "Bearer",
	}}})
}

func made(m *credentialv1.Token) (credential.Token, error) {
	t, err := credential.NewToken(m)
	if err != nil {
		return credential.Token{}, unencoded()
	}
	return t, nil
}

// unencoded is the error for what always can be encoded. The encoder's words
// are left out, since they could repeat a token.
func unencoded() error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: "mint", Text: "the token cannot be encoded"}
}

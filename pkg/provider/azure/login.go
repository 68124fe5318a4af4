package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/provider"
)

// registryUser is who logs in with a token in place of a password.
const registryUser = "00000000-0000-0000-0000-000000000000"

// registry exchanges a token of Entra ID for one of the registry, which docker
// takes as a password for three hours.
// Source: https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
func (v *Vendor) registry(ctx context.Context, p *principal, server string) (*credentialv1.Token, error) {
	c, err := registryCloud(p, server)
	if err != nil {
		return nil, err
	}
	token, err := p.get(ctx, opMint, c.registryScope)
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {server}, "access_token": {token.text}}
	if p.tenant != "" {
		form.Set("tenant", p.tenant)
	}
	address := "https://" + server
	if v.cfg.Registry != "" {
		address = strings.TrimSuffix(v.cfg.Registry, "/")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/oauth2/exchange", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, notUnderstood(opMint)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	got, err := provider.Ask(v.client, request, opMint)
	switch {
	case err != nil:
		return nil, err
	case got.Status != http.StatusOK:
		return nil, judge(opMint, got, append([]string{token.text}, p.secrets...))
	}
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal(got.Body, &answer) != nil {
		return nil, notUnderstood(opMint)
	}
	claims, ok := readClaims(answer.Refresh)
	if !ok || !claims.end().After(v.cfg.Now()) {
		return nil, notUnderstood(opMint)
	}
	config, err := dockerConfig(server, registryUser, answer.Refresh)
	if err != nil {
		return nil, notUnderstood(opMint)
	}
	return &credentialv1.Token{
		Kind: &credentialv1.Token_Registry{Registry: &credentialv1.Token_RegistryAuth{
			Server: server, Username: registryUser, Password: answer.Refresh, DockerConfig: config,
		}},
		ExpireTime: timestamppb.New(claims.end()),
	}, nil
}

// registryCloud finds the cloud of a registry, which must be the principal's.
func registryCloud(p *principal, server string) (*cloud, error) {
	for i := range clouds {
		if !strings.HasSuffix(server, clouds[i].registries) {
			continue
		}
		if p.cloud != nil && p.cloud != &clouds[i] {
			break
		}
		return &clouds[i], nil
	}
	return nil, &provider.Error{
		Kind: provider.ErrUnsupported, Op: opMint,
		Text: "the registry is of another cloud than the credential, whose tokens it does not take",
	}
}

// dockerConfig returns a ~/.docker/config.json with one login.
func dockerConfig(server, user, password string) (string, error) {
	type auth struct {
		Auth string `json:"auth"`
	}
	encoded, err := json.Marshal(map[string]map[string]auth{"auths": {
		server: {Auth: base64.StdEncoding.EncodeToString([]byte(user + ":" + password))},
	}})
	return string(encoded), err
}

// cluster makes what a Kubernetes client sends to an AKS cluster that uses Entra
// ID.
func (p *principal) cluster(ctx context.Context, m *credentialv1.TokenRequest_KubernetesLogin) (*credentialv1.Token, error) {
	server := m.GetServerId()
	if server == "" {
		server = aksServer
	}
	token, err := p.get(ctx, opMint, server+defaultScope)
	if err != nil {
		return nil, err
	}
	exec, err := execCredential(token)
	if err != nil {
		return nil, notUnderstood(opMint)
	}
	return &credentialv1.Token{
		Kind: &credentialv1.Token_Kubernetes{Kubernetes: &credentialv1.Token_KubernetesCredential{
			Token: token.text, ExecCredential: exec,
		}},
		ExpireTime: timestamppb.New(token.end),
	}, nil
}

// execCredential returns what a client's exec plugin prints.
// Source: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
func execCredential(token accessToken) (string, error) {
	type status struct {
		Expires string `json:"expirationTimestamp"`
		Token   string `json:"token"`
	}
	encoded, err := json.Marshal(struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Spec       map[string]any `json:"spec"`
		Status     status         `json:"status"`
	}{
		"client.authentication.k8s.io/v1", "ExecCredential",
		map[string]any{"interactive": false},
		status{token.end.UTC().Format(time.RFC3339), token.text},
	})
	return string(encoded), err
}

package vault

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// maxToken is the most bytes of a service account's token.
const maxToken = 64 << 10

// request is one request of login: to auth/MOUNT/PATH, with a body of which the
// secrets must appear in no error.
type request struct {
	mount, path string
	body        map[string]any
	secrets     []string
}

// logIn makes a new lease from the payload.
func (s *Session) logIn(ctx context.Context) (*lease, error) {
	m := s.login.Payload.Message().GetVault()
	if t, ok := m.GetMethod().(*credentialv1.Vault_Token); ok {
		return s.logInByToken(ctx, t.Token)
	}
	r, err := s.request(ctx, m)
	if err != nil {
		return nil, err
	}
	return s.send(ctx, r)
}

// request makes the request of a method. Its error is a *provider.Error or the
// context's.
func (s *Session) request(ctx context.Context, m *credentialv1.Vault) (request, error) {
	switch m := m.GetMethod().(type) {
	case *credentialv1.Vault_AppRole_:
		body := map[string]any{"role_id": m.AppRole.GetRoleId()}
		if id := m.AppRole.GetSecretId(); id != "" {
			body["secret_id"] = id
		}
		return request{mount: or(m.AppRole.GetMount(), "approle"), path: "login", body: body}, nil
	case *credentialv1.Vault_Userpass_:
		return request{
			mount: or(m.Userpass.GetMount(), "userpass"), path: "login/" + m.Userpass.GetUsername(),
			body: map[string]any{"password": m.Userpass.GetPassword()},
		}, nil
	case *credentialv1.Vault_Kubernetes_:
		token, err := s.serviceAccountToken()
		return jwtRequest(or(m.Kubernetes.GetMount(), "kubernetes"), m.Kubernetes.GetRole(), token), err
	case *credentialv1.Vault_Jwt_:
		return jwtRequest(or(m.Jwt.GetMount(), "jwt"), m.Jwt.GetRole(), m.Jwt.GetJwt()), nil
	case *credentialv1.Vault_Certificate_:
		body := map[string]any{}
		if role := m.Certificate.GetRole(); role != "" {
			body["name"] = role
		}
		return request{mount: or(m.Certificate.GetMount(), "cert"), path: "login", body: body}, nil
	case *credentialv1.Vault_Aws_:
		return s.awsRequest(ctx, m.Aws)
	case *credentialv1.Vault_Azure_:
		token, err := s.azureToken(ctx, m.Azure.GetResource())
		return jwtRequest(or(m.Azure.GetMount(), "azure"), m.Azure.GetRole(), token), err
	}
	return request{}, unusable(errors.New("the login has a method that this server does not know"))
}

// or returns a mount, the usual one when it was not filled in.
func or(mount, usual string) string {
	if mount == "" {
		return usual
	}
	return mount
}

// jwtRequest is the request of the methods that take a signed token.
func jwtRequest(mount, role, token string) request {
	body := map[string]any{"jwt": token}
	if role != "" {
		body["role"] = role
	}
	return request{mount: mount, path: "login", body: body, secrets: []string{token}}
}

// serviceAccountToken reads the token of this server's pod. It changes every
// hour, so it is never kept.
func (s *Session) serviceAccountToken() (string, error) {
	file, err := os.Open(s.cfg.TokenFile)
	if err != nil {
		return "", unusable(fmt.Errorf("this server has no service account token at %s: it runs outside of Kubernetes, or without one", s.cfg.TokenFile))
	}
	defer func() { _ = file.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	token := strings.TrimSpace(string(text))
	if err != nil || token == "" || len(text) > maxToken {
		return "", unusable(fmt.Errorf("the service account token at %s cannot be read, is empty or too long", s.cfg.TokenFile))
	}
	return token, nil
}

// source returns the credential that the payload refers to.
func (s *Session) source() (credential.Login, error) {
	if s.login.Source == nil {
		return credential.Login{}, unusable(errors.New("the credential that the login refers to as its source is missing"))
	}
	return *s.login.Source, nil
}

// awsRequest signs a request for AWS that Vault sends in our place
// (https://developer.hashicorp.com/vault/api-docs/auth/aws#login).
func (s *Session) awsRequest(ctx context.Context, m *credentialv1.Vault_Aws) (request, error) {
	source, err := s.source()
	if err != nil {
		return request{}, err
	}
	if s.cfg.SignAWS == nil {
		return request{}, unusable(errors.New("this server does not sign requests for AWS"))
	}
	method, url, body, headers, err := s.cfg.SignAWS(ctx, source, m.GetServerId())
	if err != nil {
		return request{}, ofSource(err)
	}
	encoded, err := json.Marshal(headers)
	if err != nil {
		return request{}, unusable(errors.New("the signed request for AWS cannot be encoded"))
	}
	var secrets []string
	for _, values := range headers {
		secrets = append(secrets, values...)
	}
	base := base64.StdEncoding.EncodeToString
	return request{mount: or(m.GetMount(), "aws"), path: "login", secrets: secrets, body: map[string]any{
		"role": m.GetRole(), "iam_http_request_method": method, "iam_request_url": base([]byte(url)),
		"iam_request_body": base([]byte(body)), "iam_request_headers": base(encoded),
	}}, nil
}

// azureToken mints a token for the resource that the mount expects. The resource
// stands in the scope as it is, with the slash that it may end with: Entra ID
// puts it into the token's audience so, and Vault compares.
func (s *Session) azureToken(ctx context.Context, resource string) (string, error) {
	source, err := s.source()
	if err != nil {
		return "", err
	}
	if s.cfg.Minter == nil {
		return "", unusable(errors.New("this server does not mint tokens of Azure"))
	}
	wanted, err := credential.NewTokenRequest(source.Payload.Kind(), &credentialv1.TokenRequest{
		Kind: &credentialv1.TokenRequest_AzureAccessToken_{
			AzureAccessToken: &credentialv1.TokenRequest_AzureAccessToken{Scope: resource + "/.default"},
		},
	})
	if err != nil {
		return "", unusable(err)
	}
	minted, err := s.cfg.Minter.Mint(ctx, source, wanted)
	if err != nil {
		return "", ofSource(err)
	}
	token, err := minted.Field("token")
	if err != nil {
		return "", unusable(errors.New("the source of the login is no token of Azure"))
	}
	return string(token), nil
}

// ofSource says of a vendor's error that it is about the credential that the
// login refers to. The context's stay as they are.
func ofSource(err error) error {
	e, ok := errors.AsType[*provider.Error](err)
	if !ok {
		return err
	}
	out := *e
	if errors.Is(out.Kind, provider.ErrUnsupported) {
		out.Kind = provider.ErrRefused
	}
	out.Op, out.Text = opLogin, provider.Clean("with its source: "+e.Error())
	out.Status = 0 // not of this server
	return &out
}

// send logs in.
func (s *Session) send(ctx context.Context, r request) (*lease, error) {
	since := time.Now()
	answer, err := s.ask(ctx, opLogin, nil, func(ctx context.Context) (*api.Secret, error) {
		return s.base.Logical().WriteWithContext(ctx, "auth/"+r.mount+"/"+r.path, r.body)
	})
	if err != nil {
		if e, ok := errors.AsType[*provider.Error](err); ok {
			e.Text = provider.Clean(e.Text, r.secrets...)
		}
		return nil, refusedUnlessUnavailable(err)
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return nil, strange(opLogin)
	}
	a := answer.Auth
	l := s.newLease(a.ClientToken, true, since, time.Duration(a.LeaseDuration)*time.Second, a.Renewable)
	l.who = granted(r.mount, a)
	return l, nil
}

func (s *Session) logInByToken(ctx context.Context, token string) (*lease, error) {
	since := time.Now()
	l := s.newLease(token, false, since, 0, false)
	answer, err := s.lookUp(ctx, opLogin, l)
	if forbidden(err) && !ended(err) {
		// A token whose policies do not let it look itself up may still read.
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	ttl, err := answer.TokenTTL()
	if err != nil {
		return nil, strange(opLogin)
	}
	renewable, err := answer.TokenIsRenewable()
	if err != nil {
		return nil, strange(opLogin)
	}
	return s.newLease(token, false, since, ttl, renewable), nil
}

// present makes TLS send a client certificate, whatever authorities the server
// says that it knows: it is Vault that tells what is wrong with one.
func present(pem, address string, config *tls.Config) error {
	if !strings.HasPrefix(strings.ToLower(address), "https://") {
		return errors.New("logins by certificate are a part of TLS: the address must begin with https://")
	}
	pair, err := tls.X509KeyPair([]byte(pem), []byte(pem))
	if err != nil {
		// The text of crypto/tls may describe the key.
		return errors.New("the certificate and its private key cannot be used: store them anew")
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return nil
}

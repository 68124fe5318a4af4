package azure

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/provider"
)

// application makes an azidentity credential with the given options.
type application func(azcore.ClientOptions) (azcore.TokenCredential, error)

func (v *Vendor) servicePrincipal(op string, m *credentialv1.AzureServicePrincipal) (*principal, error) {
	c, err := cloudOf(op, m.GetAuthority())
	if err != nil {
		return nil, err
	}
	p := &principal{
		tenant: m.GetTenantId(), client: m.GetClientId(), cloud: c, manager: m.GetResourceManager(),
		secrets: []string{m.GetClientSecret()},
	}
	if p.manager == "" {
		p.manager = c.manager
	}
	if m.GetCertificatePem() == "" {
		p.get = v.getter(p, func(options azcore.ClientOptions) (azcore.TokenCredential, error) {
			return azidentity.NewClientSecretCredential(p.tenant, p.client, m.GetClientSecret(),
				&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		})
		return p, nil
	}
	chain, key, err := readCertificate(m.GetCertificatePem())
	if err != nil {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: op, Text: "the stored certificate cannot be read: save the credential again"}
	}
	if end := chain[0].NotAfter; v.cfg.Now().After(end) {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: op, Text: "the certificate expired at " + end.UTC().Format("2006-01-02 15:04 MST")}
	}
	p.get = v.getter(p, func(options azcore.ClientOptions) (azcore.TokenCredential, error) {
		return azidentity.NewClientCertificateCredential(p.tenant, p.client, chain, key,
			&azidentity.ClientCertificateCredentialOptions{
				ClientOptions: options, DisableInstanceDiscovery: true,
				// Some applications trust an authority's name in place of one certificate,
				// and need to see the chain; others ignore it.
				SendCertificateChain: true,
			})
	})
	return p, nil
}

func readCertificate(text string) ([]*x509.Certificate, any, error) {
	var chain []*x509.Certificate
	var key any
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			chain = append(chain, certificate)
			continue
		}
		var err error
		if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			return nil, nil, err
		}
	}
	if len(chain) == 0 || key == nil {
		return nil, nil, errors.New("certificate or key is missing")
	}
	return chain, key, nil
}

func (v *Vendor) workloadIdentity(op string, m *credentialv1.AzureWorkloadIdentity) (*principal, error) {
	c, err := cloudOf(op, m.GetAuthority())
	if err != nil {
		return nil, err
	}
	assertion, err := v.federatedToken(op)
	if err != nil {
		return nil, err
	}
	p := &principal{tenant: m.GetTenantId(), client: m.GetClientId(), cloud: c, manager: c.manager, secrets: []string{assertion}}
	p.get = v.getter(p, func(options azcore.ClientOptions) (azcore.TokenCredential, error) {
		return azidentity.NewClientAssertionCredential(p.tenant, p.client,
			func(context.Context) (string, error) { return assertion, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	})
	return p, nil
}

// federatedToken reads the token that the cluster renews in its file.
func (v *Vendor) federatedToken(op string) (string, error) {
	name := v.cfg.FederatedTokenFile
	if name == "" {
		name = v.cfg.Getenv("AZURE_FEDERATED_TOKEN_FILE")
	}
	if name == "" {
		return "", &provider.Error{
			Kind: provider.ErrUnsupported, Op: op,
			Text: "this server has no federated token (AZURE_FEDERATED_TOKEN_FILE is not set): it does not run in a pod with a workload identity",
		}
	}
	const most = 64 << 10
	unreadable := &provider.Error{Kind: provider.ErrUnavailable, Op: op, Text: "the file with the federated token cannot be read, or holds none"}
	file, err := os.Open(name)
	if err != nil {
		return "", unreadable
	}
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	err = errors.Join(err, file.Close())
	token := string(bytes.TrimSpace(content))
	if err != nil || len(content) > most || strings.Count(token, ".") != 2 {
		return "", unreadable
	}
	return token, nil
}

// getter returns what asks the principal's authority for tokens.
func (v *Vendor) getter(p *principal, make application) func(context.Context, string, string) (accessToken, error) {
	return func(ctx context.Context, op, scope string) (accessToken, error) {
		authority, hosts := p.cloud.authority, p.cloud.hosts
		if v.cfg.Authority != "" {
			authority, hosts = v.cfg.Authority, []string{hostOf(v.cfg.Authority)}
		}
		// One connection's answers are kept apart from those of other calls.
		saw := &exchange{client: v.client, hosts: hosts}
		credential, err := make(azcore.ClientOptions{
			Cloud:     azcloud.Configuration{ActiveDirectoryAuthorityHost: authority},
			Transport: saw,
			Retry:     policy.RetryOptions{MaxRetries: -1},
			Telemetry: policy.TelemetryOptions{Disabled: true},
		})
		if err != nil {
			// The SDK's words may quote what it was given.
			return accessToken{}, &provider.Error{Kind: provider.ErrRefused, Op: op, Text: "the Azure SDK does not take the credential: save it again"}
		}
		token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		if err != nil {
			return accessToken{}, saw.why(ctx, op, p.secrets)
		}
		return accessToken{text: token.Token, end: token.ExpiresOn}, nil
	}
}

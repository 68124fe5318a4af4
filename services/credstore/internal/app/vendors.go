package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/aws"
	"github.com/credstore/credstore/pkg/provider/azure"
	"github.com/credstore/credstore/pkg/provider/conjur"
	"github.com/credstore/credstore/pkg/provider/gcp"
	"github.com/credstore/credstore/pkg/provider/github"
	"github.com/credstore/credstore/pkg/provider/gitlab"
	"github.com/credstore/credstore/pkg/provider/ibm"
	"github.com/credstore/credstore/pkg/provider/kube"
	"github.com/credstore/credstore/pkg/provider/oci"
	"github.com/credstore/credstore/pkg/provider/offline"
	"github.com/credstore/credstore/pkg/provider/registry"
	"github.com/credstore/credstore/pkg/provider/smtp"
	"github.com/credstore/credstore/pkg/provider/vault"
	"github.com/credstore/credstore/pkg/provider/webhook"
	"github.com/credstore/credstore/services/credstore/internal/broker"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/issuer"
)

// VendorConfig says where vendors are asked when not at their public endpoints,
// as where a network has private ones. The zero value is the public ones.
type VendorConfig struct {
	endpoints  map[string]string
	tokenHosts map[string][]string
	// CAPEM are the certificates to trust at vendors' endpoints, the system's when
	// empty. Credentials that have certificates of their own, as registries, are
	// not concerned.
	CAPEM string
	// SMTPPorts are ports that mail servers may be asked at beside the usual ones.
	SMTPPorts []uint16
}

// The endpoints that can be replaced, by the name that the flag takes.
const (
	awsSTS            = "aws.sts"
	awsECR            = "aws.ecr"
	awsECRPublic      = "aws.ecr-public"
	awsIMDS           = "aws.imds"
	awsContainer      = "aws.container"
	azureAuthority    = "azure.authority"
	azureRegistry     = "azure.registry"
	azureMetadata     = "azure.metadata"
	gcpToken          = "gcp.token"
	gcpSTS            = "gcp.sts"
	gcpIAMCredentials = "gcp.iamcredentials"
	gcpAPIKey         = "gcp.apikey"
	gcpMetadata       = "gcp.metadata"
	ibmIAM            = "ibm.iam"
	githubAPI         = "github.api"
	ociIdentity       = "oci.identity"
	dockerHub         = "docker.hub"
)

// vendorEndpoints lists the names.
func vendorEndpoints() []string {
	return []string{
		awsSTS, awsECR, awsECRPublic, awsIMDS, awsContainer, azureAuthority, azureRegistry, azureMetadata,
		gcpToken, gcpSTS, gcpIAMCredentials, gcpAPIKey, gcpMetadata, ibmIAM, githubAPI, ociIdentity, dockerHub,
	}
}

// SetEndpoint replaces one endpoint: "aws.sts=https://sts.example.com".
func (c *VendorConfig) SetEndpoint(text string) error {
	name, url, ok := strings.Cut(text, "=")
	if !ok || url == "" || !slices.Contains(vendorEndpoints(), name) {
		return fmt.Errorf("%q is not of the form NAME=URL; the names are %s", text, strings.Join(vendorEndpoints(), ", "))
	}
	if c.endpoints == nil {
		c.endpoints = make(map[string]string)
	}
	c.endpoints[name] = url
	return nil
}

// AllowTokenHost lets a registry send logins to a token server elsewhere:
// "registry.example.com=auth.example.net".
func (c *VendorConfig) AllowTokenHost(text string) error {
	name, host, ok := strings.Cut(text, "=")
	if !ok || name == "" || host == "" || strings.ContainsAny(text, "/ ") {
		return fmt.Errorf("%q is not of the form REGISTRY=HOST, as registry.example.com=auth.example.net", text)
	}
	if c.tokenHosts == nil {
		c.tokenHosts = make(map[string][]string)
	}
	c.tokenHosts[name] = append(c.tokenHosts[name], host)
	return nil
}

// reached is what this server reaches: every vendor by the kinds of its
// credentials, and every kind of external store by its name in the contract.
type reached struct {
	vendors map[credential.Kind]issuer.Vendor
	stores  map[string]broker.Opener
	// close closes the connections that are idle.
	close func()
}

// reach makes the code of all vendors. It connects to none.
func reach(egress provider.Egress, c VendorConfig) (reached, error) {
	var errs []error
	at := func(name string) string { return c.endpoints[name] }
	amazon, err := aws.New(aws.Config{
		Egress: egress, STSEndpoint: at(awsSTS), ECREndpoint: at(awsECR), ECRPublicEndpoint: at(awsECRPublic),
		IMDSEndpoint: at(awsIMDS), ContainerEndpoint: at(awsContainer), CAPEM: c.CAPEM,
	})
	errs = append(errs, err)
	microsoft, err := azure.New(azure.Config{
		Egress: egress, Authority: at(azureAuthority), Registry: at(azureRegistry), Metadata: at(azureMetadata), CAPEM: c.CAPEM,
	})
	errs = append(errs, err)
	google, err := gcp.New(gcp.Config{
		Egress: egress, CAPEM: c.CAPEM, TokenURL: at(gcpToken), STSURL: at(gcpSTS), IAMCredentialsURL: at(gcpIAMCredentials),
		APIKeyURL: at(gcpAPIKey), MetadataURL: at(gcpMetadata),
	})
	errs = append(errs, err)
	ibmCloud, err := ibm.New(ibm.Config{Egress: egress, Endpoint: at(ibmIAM), CAPEM: c.CAPEM})
	errs = append(errs, err)
	apps, err := github.New(github.Config{Egress: egress, CAPEM: c.CAPEM, APIURL: at(githubAPI)})
	errs = append(errs, err)
	oracle, err := oci.New(oci.Config{Egress: egress, Endpoint: at(ociIdentity), CAPEM: c.CAPEM})
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return reached{}, fmt.Errorf("vendors: %w", err)
	}
	docker := registry.New(registry.Config{Egress: egress, Hub: at(dockerHub), TokenHosts: c.tokenHosts})
	clouds := map[credential.Kind]issuer.Vendor{
		"awsAccessKey":          {Verifier: amazon, Minter: amazon},
		"awsRole":               {Verifier: amazon, Minter: amazon},
		"awsAssumeRole":         {Verifier: amazon, Minter: amazon},
		"azureServicePrincipal": {Verifier: microsoft, Minter: microsoft},
		"azureManagedIdentity":  {Verifier: microsoft, Minter: microsoft},
		"azureWorkloadIdentity": {Verifier: microsoft, Minter: microsoft},
		"gcpServiceAccount":     {Verifier: google, Minter: google},
		"gcpExternalAccount":    {Verifier: google, Minter: google},
	}
	// What has tokens made by a cloud asks for them here.
	clusters := kube.New(kube.Config{Egress: egress, Minter: func(k credential.Kind) provider.Minter { return clouds[k].Minter }})
	vaults := vault.Config{Egress: egress, SignAWS: signer(amazon), Minter: microsoft}
	offlineKeys := offline.New(offline.Config{})
	vendors := map[credential.Kind]issuer.Vendor{
		"gcpApiKey":      {Verifier: google},
		"ibmCloud":       {Verifier: ibmCloud, Minter: ibmCloud},
		"oci":            {Verifier: oracle},
		"kubeconfig":     {Verifier: clusters, Minter: clusters},
		"vault":          {Verifier: vault.New(vaults)},
		"dockerRegistry": {Verifier: docker, Minter: docker},
		"githubApp":      {Verifier: apps, Minter: apps},
		"gitlabToken":    {Verifier: gitlab.New(gitlab.Config{Egress: egress, CAPEM: c.CAPEM})},
		"smtp":           {Verifier: smtp.New(smtp.Config{Egress: egress, Ports: c.SMTPPorts})},
		"webhook":        {Verifier: webhook.New(webhook.Config{Egress: egress, CAPEM: c.CAPEM})},
		"conjur":         {Verifier: conjur.New(conjur.Config{Egress: egress})},
		"certificate":    {Verifier: offlineKeys},
		"sshKey":         {Verifier: offlineKeys},
	}
	maps.Copy(vendors, clouds)
	return reached{
		vendors: vendors,
		close: func() {
			microsoft.Close()
			ibmCloud.Close()
			oracle.Close()
		},
		stores: map[string]broker.Opener{
			"vault": func(ctx context.Context, store *core.SecretStore, login credential.Login) (provider.Session, error) {
				config := vaults
				config.Address, config.Namespace, config.Mount, config.CAPEM = store.Vault.Address, store.Vault.Namespace, store.Vault.Mount, store.Vault.CAPEM
				return vault.Open(ctx, config, login)
			},
		},
	}, nil
}

// signer signs identities for Vault's login by AWS.
func signer(amazon *aws.Provider) func(context.Context, credential.Login, string) (string, string, string, http.Header, error) {
	return func(ctx context.Context, source credential.Login, serverID string) (string, string, string, http.Header, error) {
		s, err := amazon.SignIdentity(ctx, source, serverID)
		return s.Method, s.URL, string(s.Body), s.Headers, err
	}
}

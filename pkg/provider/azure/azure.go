package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says where Azure is. The zero value is the real one; it holds no secret.
type Config struct {
	// Egress guards the addresses that are connected to, those of the metadata
	// service excepted.
	Egress provider.Egress
	// Authority replaces the authority that a credential names: an https URL
	// without a path, for tests and for private copies. Empty: the credential's.
	Authority string
	// Registry replaces the address of each registry in the same way. Empty: the
	// registry's own host.
	Registry string
	// CAPEM are the certificates to trust, the system's when empty.
	CAPEM string
	// Metadata is where the machine's metadata service is, an http URL with an
	// address and without a path; "http://169.254.169.254" when empty.
	Metadata string
	// ResourceManager is what Verify asks a managed identity's token for: the
	// resource manager of the cloud that this server runs in,
	// "https://management.azure.com" when empty.
	ResourceManager string
	// FederatedTokenFile is where the cluster puts the token that a workload
	// identity shows to Entra ID; when empty, the file that the environment
	// variable AZURE_FEDERATED_TOKEN_FILE names at the time of the call.
	FederatedTokenFile string
	// Getenv returns variables of the environment, os.Getenv's when nil. Only
	// ambient kinds read any: AZURE_FEDERATED_TOKEN_FILE, and IDENTITY_ENDPOINT
	// and IDENTITY_HEADER, by which App Service and Container Apps offer managed
	// identities.
	Getenv func(string) string
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

const (
	defaultMetadata = "http://169.254.169.254"
	// aksServer is the application of all AKS clusters that use Entra ID.
	aksServer = "6dae42f8-4368-4678-94ff-3960e28e3630"
	// defaultScope is the end of each scope of an application.
	defaultScope = "/.default"
)

// What is asked, as the errors name it.
const (
	opVerify = "verify"
	opMint   = "mint"
)

// Vendor verifies the Azure kinds and mints from them. It implements
// provider.Verifier and provider.Minter, and prints as its name.
type Vendor struct {
	cfg      Config
	client   *http.Client
	metadata *http.Client
}

// New checks the configuration. It connects to nobody.
func New(cfg Config) (*Vendor, error) {
	for _, address := range []string{cfg.Authority, cfg.Registry} {
		if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "") {
			return nil, errors.New("azure: Authority and Registry must be https URLs without a path")
		}
	}
	if cfg.Metadata == "" {
		cfg.Metadata = defaultMetadata
	}
	addresses, err := addressesOf(cfg.Metadata)
	if err != nil {
		return nil, fmt.Errorf("azure: Metadata %w", err)
	}
	if cfg.ResourceManager == "" {
		cfg.ResourceManager = clouds[0].manager
	}
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	client, err := cfg.Egress.Client(cfg.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("azure: %w", err)
	}
	return &Vendor{cfg: cfg, client: client, metadata: provider.MetadataClient(addresses...)}, nil
}

// Close closes connections that are idle.
func (v *Vendor) Close() {
	v.client.CloseIdleConnections()
	v.metadata.CloseIdleConnections()
}

// String returns "azure".
func (v *Vendor) String() string { return "azure" }

// GoString returns what String does.
func (v *Vendor) GoString() string { return v.String() }

// addressesOf returns the addresses that an http URL stands for.
func addressesOf(address string) ([]netip.AddrPort, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("must be an http URL")
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	hosts := []string{u.Hostname()}
	if hosts[0] == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var out []netip.AddrPort
	for _, host := range hosts {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		ap, err := netip.ParseAddrPort(host + ":" + port)
		if err != nil {
			return nil, errors.New("must name its host by an address")
		}
		out = append(out, ap)
	}
	return out, nil
}

// cloud is one of Microsoft's clouds, as far as minting needs it; the kinds have
// checked that a credential's authority is one of these.
type cloud struct {
	authority string
	manager   string
	// hosts are the authority's names. The addresses that it hands out may be of
	// any of them.
	hosts []string
	// registries is the end of the names of its registries, and registryScope what
	// a token must be for that they take.
	registries    string
	registryScope string
}

// Sources: https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud,
// and for registries the audiences of the SDK's azcontainerregistry.
var clouds = []cloud{
	{
		authority: "https://login.microsoftonline.com", manager: "https://management.azure.com",
		hosts:      []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"},
		registries: ".azurecr.io", registryScope: "https://containerregistry.azure.net/.default",
	},
	{
		authority: "https://login.microsoftonline.us", manager: "https://management.usgovcloudapi.net",
		hosts:      []string{"login.microsoftonline.us", "login.usgovcloudapi.net"},
		registries: ".azurecr.us", registryScope: "https://containerregistry.azure.us/.default",
	},
	{
		authority: "https://login.chinacloudapi.cn", manager: "https://management.chinacloudapi.cn",
		hosts:      []string{"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"},
		registries: ".azurecr.cn", registryScope: "https://containerregistry.azure.cn/.default",
	},
}

// principal is a login as it asks for tokens.
type principal struct {
	// tenant and client are what a token must be of; empty for a managed identity
	// that is named otherwise.
	tenant, client string
	// cloud is nil for a managed identity, which is of the cloud of its machine.
	cloud *cloud
	// manager is the resource manager of the cloud.
	manager string
	// secrets are not to be repeated.
	secrets []string
	// get asks for a token.
	get func(ctx context.Context, op, scope string) (accessToken, error)
}

// accessToken is a token with its end.
type accessToken struct {
	text string
	end  time.Time
}

// principalOf reads the login's payload.
func (v *Vendor) principalOf(op string, login credential.Login) (*principal, error) {
	var p *principal
	var err error
	switch kind := login.Payload.Message().GetKind().(type) {
	case *credentialv1.Payload_AzureServicePrincipal:
		p, err = v.servicePrincipal(op, kind.AzureServicePrincipal)
	case *credentialv1.Payload_AzureWorkloadIdentity:
		p, err = v.workloadIdentity(op, kind.AzureWorkloadIdentity)
	case *credentialv1.Payload_AzureManagedIdentity:
		p = v.managedIdentity(kind.AzureManagedIdentity)
	default:
		err = &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: "the credential is of no Azure kind"}
	}
	return p, err
}

// cloudOf finds the cloud of an authority.
func cloudOf(op, authority string) (*cloud, error) {
	at := slices.IndexFunc(clouds, func(c cloud) bool { return c.authority == authority })
	if at < 0 {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: op, Text: "the credential names an authority that is not known here: save it again"}
	}
	return &clouds[at], nil
}

// Verify asks for a token for the resource manager, and compares whose it is with
// what the credential says. An application needs no role for that.
func (v *Vendor) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	if err := ctx.Err(); err != nil {
		return credential.Identity{}, err
	}
	p, err := v.principalOf(opVerify, login)
	if err != nil {
		return credential.Identity{}, err
	}
	token, err := p.get(ctx, opVerify, p.manager+defaultScope)
	if err != nil {
		return credential.Identity{}, err
	}
	c, ok := readClaims(token.text)
	if !ok {
		return credential.Identity{}, notUnderstood(opVerify)
	}
	return p.identity(c)
}

// Mint makes what the request asks for. A request of a service principal without
// a scope is for the resource manager of its cloud.
func (v *Vendor) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	if err := ctx.Err(); err != nil {
		return credential.Token{}, err
	}
	p, err := v.principalOf(opMint, login)
	if err != nil {
		return credential.Token{}, err
	}
	var token *credentialv1.Token
	switch kind := request.Message().GetKind().(type) {
	case *credentialv1.TokenRequest_AzureAccessToken_:
		token, err = p.bearer(ctx, kind.AzureAccessToken)
	case *credentialv1.TokenRequest_RegistryLogin_:
		token, err = v.registry(ctx, p, kind.RegistryLogin.GetServer())
	case *credentialv1.TokenRequest_KubernetesLogin_:
		token, err = p.cluster(ctx, kind.KubernetesLogin)
	default:
		err = &provider.Error{Kind: provider.ErrUnsupported, Op: opMint, Text: "Azure makes no such token"}
	}
	if err != nil {
		return credential.Token{}, err
	}
	return credential.NewToken(token)
}

func (p *principal) bearer(ctx context.Context, m *credentialv1.TokenRequest_AzureAccessToken) (*credentialv1.Token, error) {
	scope := m.GetScope()
	if scope == "" {
		scope = p.manager + defaultScope
	}
	token, err := p.get(ctx, opMint, scope)
	if err != nil {
		return nil, err
	}
	return &credentialv1.Token{
		Kind:       &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: token.text, Type: "Bearer"}},
		ExpireTime: timestamppb.New(token.end),
	}, nil
}

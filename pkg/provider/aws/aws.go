package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says how AWS is reached. It holds no secret; its zero value is the public
// AWS over public addresses.
type Config struct {
	// Egress guards the addresses that are connected to, metadata services apart.
	Egress provider.Egress
	// STSEndpoint, ECREndpoint and ECRPublicEndpoint are asked in place of the
	// public endpoint of each region, as "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com",
	// where AWS is reached over private ones. Requests are signed for the region all
	// the same. Tokens for clusters and signed identities name the public endpoint,
	// since others send them there.
	STSEndpoint, ECREndpoint, ECRPublicEndpoint string
	// CAPEM are the certificates to trust, the system's when empty.
	CAPEM string
	// IMDSEndpoint is the instance metadata service; "http://169.254.169.254" when
	// empty. Its host is an IP address.
	IMDSEndpoint string
	// ContainerEndpoint is what AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is relative
	// to; "http://169.254.170.2" when empty. Its host is an IP address.
	ContainerEndpoint string
	// Getenv reads the environment for the kind awsRole, at each call; os.Getenv
	// when nil. See [Provider.Verify] for the variables.
	Getenv func(string) string
	// Now is the clock by which tokens for clusters and identities are signed;
	// time.Now when nil.
	Now func() time.Time
}

// Provider verifies the AWS kinds and mints from them. It implements
// provider.Verifier and provider.Minter.
type Provider struct {
	cfg    Config
	client *http.Client
}

// New makes a Provider; it connects to nothing. Its error names an endpoint that
// is none.
func New(cfg Config) (*Provider, error) {
	if cfg.IMDSEndpoint == "" {
		cfg.IMDSEndpoint = "http://169.254.169.254"
	}
	if cfg.ContainerEndpoint == "" {
		cfg.ContainerEndpoint = "http://169.254.170.2"
	}
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for name, endpoint := range map[string]string{
		"STS": cfg.STSEndpoint, "ECR": cfg.ECREndpoint, "ECR Public": cfg.ECRPublicEndpoint,
	} {
		if endpoint != "" && !isURL(endpoint) {
			return nil, fmt.Errorf("the %s endpoint is no URL of the form https://sts.eu-central-1.amazonaws.com", name)
		}
	}
	for name, endpoint := range map[string]string{"instance metadata": cfg.IMDSEndpoint, "container": cfg.ContainerEndpoint} {
		if _, err := metadataAddress(endpoint); err != nil {
			return nil, fmt.Errorf("the %s endpoint: %w", name, err)
		}
	}
	client, err := cfg.Egress.Client(cfg.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("make the client for AWS: %w", err)
	}
	return &Provider{cfg: cfg, client: bounded(client)}, nil
}

func isURL(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	// What is asked and answered there must not cross a network in clear.
	ip, _ := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || ip.IsLoopback()
	return (u.Scheme == "https" || u.Scheme == "http" && local) && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// Verify calls sts:GetCallerIdentity, for which no permission is needed, and
// before it what it takes to get there: each AssumeRole of a chain, and for an
// awsRole the place that has its credentials. That is the metadata service,
// version 2 (INSTANCE_METADATA); AWS_CONTAINER_CREDENTIALS_RELATIVE_URI
// (CONTAINER); AWS_CONTAINER_CREDENTIALS_FULL_URI (POD_IDENTITY), both with
// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or AWS_CONTAINER_AUTHORIZATION_TOKEN; or
// AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN (WEB_IDENTITY).
//
// The identity's name is an ARN; its facts are account and userId.
func (p *Provider) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	s, err := p.open(ctx, login)
	if err != nil {
		return credential.Identity{}, named("verify", err)
	}
	answer, err := p.whoami(ctx, s)
	if err != nil {
		return credential.Identity{}, named("verify", err)
	}
	return credential.Identity{
		Name: awssdk.ToString(answer.Arn),
		Facts: map[string]string{
			"account": awssdk.ToString(answer.Account),
			"userId":  awssdk.ToString(answer.UserId),
		},
	}, nil
}

// whoami asks whose a session is.
func (p *Provider) whoami(ctx context.Context, s session) (*sts.GetCallerIdentityOutput, error) {
	answer, err := p.sts(s).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, failed(ctx, "GetCallerIdentity", err, s)
	}
	if awssdk.ToString(answer.Arn) == "" {
		return nil, unusable("GetCallerIdentity", "AWS's answer names no ARN")
	}
	return answer, nil
}

// sts returns a client that signs as a session does; for its region. A session
// without a key signs nothing.
func (p *Provider) sts(s session) *sts.Client {
	return sts.New(sts.Options{
		Region:       s.region,
		Credentials:  s.provider(),
		HTTPClient:   p.client,
		BaseEndpoint: orNil(p.cfg.STSEndpoint),
		Retryer:      awssdk.NopRetryer{},
		// A clock that is wrong is for somebody to put right, and reported.
		DisableClockSkewCorrection: true,
	})
}

// orNil returns nil for "".
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// named puts what was wanted before what failed on the way.
func named(op string, err error) error {
	var e *provider.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	if out.Op == "" {
		out.Op = op
	} else {
		out.Op = op + " (" + out.Op + ")"
	}
	return &out
}

package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/credential/kubeconfig"
	"github.com/credstore/credstore/pkg/provider"
)

// Config is what a Vendor uses. The zero value reaches clusters at public
// addresses, with what is in their kubeconfigs.
type Config struct {
	// Egress says which addresses clusters may have. Many have private ones.
	Egress provider.Egress
	// Minter returns what mints tokens from credentials of a kind, as those of AWS
	// for EKS; nil for a kind that it does not know. It may be nil.
	Minter func(credential.Kind) provider.Minter
}

// Vendor verifies credentials of kind kubeconfig and mints from them. It is safe
// for concurrent use and keeps no connections between calls.
type Vendor struct {
	config Config
}

var (
	_ provider.Verifier = (*Vendor)(nil)
	_ provider.Minter   = (*Vendor)(nil)
)

// New returns a Vendor.
func New(c Config) *Vendor { return &Vendor{config: c} }

// material is what a cluster is shown.
type material struct {
	token, certificatePEM, keyPEM string
	// expireTime is zero when nothing says when it ends.
	expireTime time.Time
}

// open reads the payload and gets what its user authenticates with.
func (v *Vendor) open(ctx context.Context, op string, login credential.Login) (*kubeconfig.Login, material, error) {
	m := login.Payload.Message().GetKubeconfig()
	if m == nil {
		return nil, material{}, &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: "the credential is no kubeconfig"}
	}
	l, problems := kubeconfig.Parse(m.GetDocument(), m.GetContext())
	if l == nil {
		// Stored under older rules.
		p := problems[0]
		return nil, material{}, &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: provider.Clean(p.Field + " " + p.Text)}
	}
	if l.Plugin != nil {
		minted, err := v.fromSource(ctx, op, login.Source, l.Plugin)
		return l, minted, err
	}
	if !l.ExpireTime.IsZero() && !time.Now().Before(l.ExpireTime) {
		return nil, material{}, &provider.Error{
			Kind: provider.ErrRefused, Op: op,
			Text: fmt.Sprintf("the %s ended on %s", words(l), l.ExpireTime.UTC().Format(time.RFC3339)),
		}
	}
	return l, material{token: l.Token, certificatePEM: l.CertificatePEM, keyPEM: l.KeyPEM, expireTime: l.ExpireTime}, nil
}

// words names what a user logs in with.
func words(l *kubeconfig.Login) string {
	switch {
	case l.Plugin != nil:
		return "token that was minted from the token source"
	case l.CertificatePEM == "":
		return "token"
	case l.Token == "":
		return "client certificate"
	}
	return "client certificate or token"
}

// fromSource mints a token from the credential that the kubeconfig refers to.
func (v *Vendor) fromSource(ctx context.Context, op string, source *credential.Login, p *kubeconfig.Plugin) (material, error) {
	unsupported := func(text string) (material, error) {
		return material{}, &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: provider.Clean(text)}
	}
	if source == nil {
		return unsupported("the token source is missing")
	}
	kind := source.Payload.Kind()
	var minter provider.Minter
	if v.config.Minter != nil {
		minter = v.config.Minter(kind)
	}
	if minter == nil {
		return unsupported(fmt.Sprintf("this server mints no tokens from credentials of kind %s", kind))
	}
	if tenant := source.Payload.Facts()["tenantId"]; tenant != "" && p.TenantID != "" && !strings.EqualFold(tenant, p.TenantID) {
		return material{}, &provider.Error{
			Kind: provider.ErrRefused, Op: op,
			Text: "the cluster expects tokens of another directory (tenant-id) than the token source belongs to",
		}
	}
	request, err := credential.NewTokenRequest(kind, &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_KubernetesLogin_{
		KubernetesLogin: &credentialv1.TokenRequest_KubernetesLogin{
			Cluster: p.ClusterName, Region: p.Region, RoleArn: p.RoleARN, ServerId: p.ServerID,
		},
	}})
	if err != nil {
		return unsupported("the token source does not take what the kubeconfig asks for: " + err.Error())
	}
	token, err := minter.Mint(ctx, *source, request)
	if err != nil {
		return material{}, err
	}
	m := token.Message().GetKubernetes()
	if m.GetToken() == "" {
		return unsupported("the token source made no token for a cluster")
	}
	minted := material{token: m.GetToken()}
	if at, ok := token.ExpireTime(); ok {
		minted.expireTime = at
	}
	return minted, nil
}

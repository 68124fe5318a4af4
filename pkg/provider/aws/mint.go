package aws

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Mint answers awsSession (GetSessionToken), awsAssumeRole (AssumeRole),
// registryLogin (GetAuthorizationToken of ECR or ECR Public) and kubernetesLogin
// (a GetCallerIdentity request that is signed here, and sent by the cluster).
// The last two act as a role, if the request names one.
func (p *Provider) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	token, err := p.mint(ctx, login, request)
	if err != nil {
		return credential.Token{}, named("mint", err)
	}
	return credential.NewToken(token)
}

func (p *Provider) mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (*credentialv1.Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := request.Message()
	switch {
	case m.GetAwsSession() != nil:
		return p.userSession(ctx, login, m.GetAwsSession())
	case m.GetAwsAssumeRole() != nil:
		return p.roleSession(ctx, login, m.GetAwsAssumeRole())
	case m.GetRegistryLogin() != nil:
		asked := m.GetRegistryLogin()
		s, err := p.openAs(ctx, login, asked.GetRoleArn(), asked.GetRegion())
		if err != nil {
			return nil, err
		}
		return p.registryLogin(ctx, s, asked.GetServer())
	case m.GetKubernetesLogin() != nil:
		asked := m.GetKubernetesLogin()
		s, err := p.openAs(ctx, login, asked.GetRoleArn(), asked.GetRegion())
		if err != nil {
			return nil, err
		}
		return p.clusterLogin(ctx, s, asked.GetCluster())
	}
	return nil, unsupported("", "AWS has no tokens of the kind "+request.Kind())
}

// userSession gets temporary credentials of the same user.
func (p *Provider) userSession(ctx context.Context, login credential.Login, asked *credentialv1.TokenRequest_AwsSession) (*credentialv1.Token, error) {
	const op = "GetSessionToken"
	s, err := p.open(ctx, login)
	if err != nil {
		return nil, err
	}
	if s.keys.SessionToken != "" {
		return nil, unsupported(op, "the credential is temporary already, and AWS makes sessions from users' access keys only: read it, or ask for awsAssumeRole")
	}
	// The answer does not say whose they are.
	who, err := p.whoami(ctx, s)
	if err != nil {
		return nil, err
	}
	length := defaultDuration
	if asked.GetDuration() != nil {
		length = asked.GetDuration().AsDuration()
	}
	answer, err := p.sts(s).GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: awssdk.Int32(int32(length / time.Second))})
	if err != nil {
		return nil, failed(ctx, op, err, s)
	}
	made, err := newSession(op, answer.Credentials, nil, s.region)
	if err != nil {
		return nil, err
	}
	made.arn = awssdk.ToString(who.Arn)
	return made.token(), nil
}

// roleSession gets credentials of a role.
func (p *Provider) roleSession(ctx context.Context, login credential.Login, asked *credentialv1.TokenRequest_AwsRoleSession) (*credentialv1.Token, error) {
	if asked.GetRoleArn() == "" {
		s, err := p.ownSession(ctx, login, asked)
		if err != nil {
			return nil, err
		}
		return s.token(), nil
	}
	from, err := p.open(ctx, login)
	if err != nil {
		return nil, err
	}
	s, err := p.assume(ctx, from, asked, login.ShortName())
	if err != nil {
		return nil, err
	}
	return s.token(), nil
}

// token returns the session as it is handed out.
func (s session) token() *credentialv1.Token {
	owner, _ := arn.Parse(s.arn) // AWS's answer; without one there is no account
	return &credentialv1.Token{
		Kind: &credentialv1.Token_Aws{Aws: &credentialv1.Token_AwsCredentials{
			AccessKeyId: s.keys.AccessKeyID, SecretAccessKey: s.keys.SecretAccessKey, SessionToken: s.keys.SessionToken,
			Arn: s.arn, Account: owner.AccountID,
		}},
		ExpireTime: timestamppb.New(s.keys.Expires),
	}
}

// openAs returns the login's session in a region, or that of a role.
func (p *Provider) openAs(ctx context.Context, login credential.Login, roleARN, region string) (session, error) {
	if roleARN == "" && login.Payload.Ambient() {
		// The request's check says so already; nothing may hand it out by mistake.
		return session{}, unsupported("", "the server's own role is never handed out: name a role to act as")
	}
	s, err := p.open(ctx, login)
	if err != nil {
		return session{}, err
	}
	if roleARN != "" {
		// The login's own region knows the role as well; that of the registry or
		// cluster may be one where STS is switched off.
		s, err = p.assume(ctx, s, &credentialv1.TokenRequest_AwsRoleSession{RoleArn: roleARN}, login.ShortName())
		if err != nil {
			return session{}, err
		}
	}
	return s.in(region), nil
}

// publicRegistry is that of ECR Public, which is asked in one region only.
const (
	publicRegistry = "public.ecr.aws"
	publicRegion   = "us-east-1"
)

// registryLogin gets a password for a registry, for the account's own when server
// is empty.
func (p *Provider) registryLogin(ctx context.Context, s session, server string) (*credentialv1.Token, error) {
	if server == publicRegistry {
		return p.publicLogin(ctx, s.in(publicRegion))
	}
	const op = "GetAuthorizationToken"
	client := ecr.New(ecr.Options{
		Region: s.region, Credentials: s.provider(), HTTPClient: p.client, BaseEndpoint: orNil(p.cfg.ECREndpoint),
		Retryer: awssdk.NopRetryer{}, DisableClockSkewCorrection: true,
	})
	answer, err := client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, failed(ctx, op, err, s)
	}
	if len(answer.AuthorizationData) == 0 {
		return nil, unusable(op, "AWS's answer holds no token")
	}
	data := answer.AuthorizationData[0]
	if server == "" {
		server = strings.TrimPrefix(awssdk.ToString(data.ProxyEndpoint), "https://")
	}
	return registryToken(op, server, awssdk.ToString(data.AuthorizationToken), data.ExpiresAt)
}

func (p *Provider) publicLogin(ctx context.Context, s session) (*credentialv1.Token, error) {
	const op = "GetAuthorizationToken"
	client := ecrpublic.New(ecrpublic.Options{
		Region: s.region, Credentials: s.provider(), HTTPClient: p.client, BaseEndpoint: orNil(p.cfg.ECRPublicEndpoint),
		Retryer: awssdk.NopRetryer{}, DisableClockSkewCorrection: true,
	})
	answer, err := client.GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, failed(ctx, op, err, s)
	}
	if answer.AuthorizationData == nil {
		return nil, unusable(op, "AWS's answer holds no token")
	}
	return registryToken(op, publicRegistry, awssdk.ToString(answer.AuthorizationData.AuthorizationToken), answer.AuthorizationData.ExpiresAt)
}

// registryToken reads a token of ECR: base64 of a name and a password, as they
// stand in a docker config.
func registryToken(op, server, encoded string, expires *time.Time) (*credentialv1.Token, error) {
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	user, password, ok := strings.Cut(string(decoded), ":")
	if err != nil || !ok || user == "" || password == "" || server == "" || expires == nil {
		return nil, unusable(op, "AWS's answer holds no token of the form that ECR has")
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{server: map[string]string{"auth": encoded}}})
	if err != nil {
		return nil, fmt.Errorf("write the docker config: %w", err)
	}
	return &credentialv1.Token{
		Kind: &credentialv1.Token_Registry{Registry: &credentialv1.Token_RegistryAuth{
			Server: server, Username: user, Password: password, DockerConfig: string(config),
		}},
		ExpireTime: timestamppb.New(*expires),
	}, nil
}

// How EKS takes tokens: a GetCallerIdentity request as an URL, that is signed and
// encoded. The request works for 15 minutes after it was signed, whatever
// X-Amz-Expires says; aws-iam-authenticator counts one less.
// Source: kubernetes-sigs/aws-iam-authenticator, pkg/token/token.go.
const (
	clusterHeader   = "x-k8s-aws-id"
	clusterPrefix   = "k8s-aws-v1."
	clusterExpires  = "60"
	clusterLifetime = 14 * time.Minute
)

// clusterLogin makes a token for an EKS cluster. AWS is not asked: whether the key
// is any good shows when the cluster uses the token.
func (p *Provider) clusterLogin(ctx context.Context, s session, cluster string) (*credentialv1.Token, error) {
	now := p.cfg.Now()
	signed, err := p.presign(ctx, s, http.Header{clusterHeader: {cluster}}, clusterExpires, now)
	if err != nil {
		return nil, err
	}
	end := now.Add(clusterLifetime)
	if s.keys.CanExpire && s.keys.Expires.Before(end) {
		end = s.keys.Expires
	}
	end = end.Truncate(time.Second)
	token := clusterPrefix + base64.RawURLEncoding.EncodeToString([]byte(signed))
	exec, err := json.Marshal(map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1",
		"kind":       "ExecCredential",
		"status":     map[string]string{"token": token, "expirationTimestamp": end.UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return nil, fmt.Errorf("write the ExecCredential: %w", err)
	}
	return &credentialv1.Token{
		Kind:       &credentialv1.Token_Kubernetes{Kubernetes: &credentialv1.Token_KubernetesCredential{Token: token, ExecCredential: string(exec)}},
		ExpireTime: timestamppb.New(end),
	}, nil
}

var (
	_ provider.Verifier = (*Provider)(nil)
	_ provider.Minter   = (*Provider)(nil)
)

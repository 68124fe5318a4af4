package aws

import (
	"context"
	"fmt"
	"regexp"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	// defaultDuration is how long a session lasts unless something else is asked for.
	defaultDuration = time.Hour
	// maxChain is the most roles that are assumed one with another. The store
	// refuses cycles; this holds for what it did not see.
	maxChain = 8
)

// session is what requests are signed with, for a region.
type session struct {
	keys   awssdk.Credentials
	region string
	// arn is whose it is, "" where nobody said yet.
	arn string
}

// provider returns the keys as AWS's client wants them, nil for none.
func (s session) provider() awssdk.CredentialsProvider {
	if s.keys.AccessKeyID == "" {
		return awssdk.AnonymousCredentials{}
	}
	return credentials.StaticCredentialsProvider{Value: s.keys}
}

// in returns the session for another region, the same for "".
func (s session) in(region string) session {
	if region != "" {
		s.region = region
	}
	return s
}

// secrets returns what no text may contain.
func (s session) secrets() []string { return []string{s.keys.SecretAccessKey, s.keys.SessionToken} }

// open returns the session that a login stands for.
func (p *Provider) open(ctx context.Context, login credential.Login) (session, error) {
	return p.openChain(ctx, login, 0)
}

func (p *Provider) openChain(ctx context.Context, login credential.Login, depth int) (session, error) {
	m := login.Payload.Message()
	switch {
	case m.GetAwsAccessKey() != nil:
		key := m.GetAwsAccessKey()
		return session{
			keys: awssdk.Credentials{
				AccessKeyID: key.GetAccessKeyId(), SecretAccessKey: key.GetSecretAccessKey(), SessionToken: key.GetSessionToken(),
			},
			region: key.GetRegion(),
		}, nil
	case m.GetAwsRole() != nil:
		return p.ambient(ctx, login, m.GetAwsRole())
	case m.GetAwsAssumeRole() != nil:
		return p.openRole(ctx, login, roleOf(m.GetAwsAssumeRole()), depth)
	}
	return session{}, unsupported("", fmt.Sprintf("a credential of kind %s is not one of AWS", login.Payload.Kind()))
}

// openRole assumes the role of an awsAssumeRole with its source.
func (p *Provider) openRole(ctx context.Context, login credential.Login, role *credentialv1.TokenRequest_AwsRoleSession, depth int) (session, error) {
	switch {
	case login.Source == nil:
		return session{}, unsupported("", "the credential to assume the role with is missing")
	case depth >= maxChain:
		return session{}, unsupported("", fmt.Sprintf("more than %d roles are assumed one with another", maxChain))
	}
	from, err := p.openChain(ctx, *login.Source, depth+1)
	if err != nil {
		return session{}, err
	}
	return p.assume(ctx, from, role, login.ShortName())
}

// roleOf returns what a stored role says as a request for a session.
func roleOf(m *credentialv1.AwsAssumeRole) *credentialv1.TokenRequest_AwsRoleSession {
	return &credentialv1.TokenRequest_AwsRoleSession{
		RoleArn: m.GetRoleArn(), ExternalId: m.GetExternalId(), SessionName: m.GetSessionName(), Duration: m.GetDuration(),
		Tags: m.GetTags(), TransitiveTagKeys: m.GetTransitiveTagKeys(), Policy: m.GetPolicy(), PolicyArns: m.GetPolicyArns(),
		Region: m.GetRegion(), SourceIdentity: m.GetSourceIdentity(),
	}
}

// assume calls AssumeRole. name is whose credential it is for.
func (p *Provider) assume(ctx context.Context, from session, role *credentialv1.TokenRequest_AwsRoleSession, name string) (session, error) {
	const op = "AssumeRole"
	from = from.in(role.GetRegion())
	in := &sts.AssumeRoleInput{
		RoleArn:           awssdk.String(role.GetRoleArn()),
		RoleSessionName:   awssdk.String(sessionName(role.GetSessionName(), name)),
		ExternalId:        orNil(role.GetExternalId()),
		DurationSeconds:   awssdk.Int32(int32(durationOf(role) / time.Second)),
		Policy:            orNil(role.GetPolicy()),
		SourceIdentity:    orNil(role.GetSourceIdentity()),
		TransitiveTagKeys: role.GetTransitiveTagKeys(),
	}
	for key, value := range role.GetTags() {
		in.Tags = append(in.Tags, types.Tag{Key: awssdk.String(key), Value: awssdk.String(value)})
	}
	for _, arn := range role.GetPolicyArns() {
		in.PolicyArns = append(in.PolicyArns, types.PolicyDescriptorType{Arn: awssdk.String(arn)})
	}
	answer, err := p.sts(from).AssumeRole(ctx, in)
	if err != nil {
		return session{}, refusedRole(failed(ctx, op, err, from), role.GetExternalId() != "")
	}
	return newSession(op, answer.Credentials, answer.AssumedRoleUser, from.region)
}

// newSession reads an answer of STS.
func newSession(op string, keys *types.Credentials, user *types.AssumedRoleUser, region string) (session, error) {
	if keys == nil || awssdk.ToString(keys.AccessKeyId) == "" || awssdk.ToString(keys.SecretAccessKey) == "" || keys.Expiration == nil {
		return session{}, unusable(op, "AWS's answer holds no credentials")
	}
	s := session{region: region, keys: awssdk.Credentials{
		AccessKeyID: *keys.AccessKeyId, SecretAccessKey: *keys.SecretAccessKey, SessionToken: awssdk.ToString(keys.SessionToken),
		CanExpire: true, Expires: *keys.Expiration,
	}}
	if user != nil {
		s.arn = awssdk.ToString(user.Arn)
	}
	return s, nil
}

func durationOf(role *credentialv1.TokenRequest_AwsRoleSession) time.Duration {
	if role.GetDuration() == nil {
		return defaultDuration
	}
	return role.GetDuration().AsDuration()
}

// notInNames are the characters that session names cannot have.
// Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
var notInNames = regexp.MustCompile(`[^A-Za-z0-9_+=,.@-]+`)

// sessionName returns how CloudTrail shows a session: as it was asked for, or
// after the credential.
func sessionName(asked, credentialID string) string {
	const longest = 64
	if asked != "" {
		return asked
	}
	name := "credstore-" + notInNames.ReplaceAllString(credentialID, "-")
	return name[:min(len(name), longest)]
}

// ownSession returns the session of an awsAssumeRole for a shorter time than is
// stored.
func (p *Provider) ownSession(ctx context.Context, login credential.Login, asked *credentialv1.TokenRequest_AwsRoleSession) (session, error) {
	role := roleOf(login.Payload.Message().GetAwsAssumeRole())
	if asked.GetDuration() != nil {
		if most := durationOf(role); asked.GetDuration().AsDuration() > most {
			return session{}, unsupported("", "the session can be at most as long as the credential says, "+most.String()+
				": ask for less, or change its duration")
		}
		role = proto.CloneOf(role)
		role.Duration = asked.GetDuration()
	}
	return p.openRole(ctx, login, role, 0)
}

func unsupported(op, text string) *provider.Error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: provider.Clean(text)}
}

// unusable is the error for an answer, or a token of the machine, that makes no
// sense.
func unusable(op, text string) *provider.Error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Text: provider.Clean(text)}
}

package app

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// badVendorCalls are requests about what vendors are asked, rotation periods and
// references.
func badVendorCalls() []badCase {
	denied := because(codes.PermissionDenied, "PERMISSION_DENIED")
	notFound := because(codes.NotFound, "NOT_FOUND")
	project := func(p *credstorev1.Project, paths ...string) *credstorev1.UpdateProjectRequest {
		return &credstorev1.UpdateProjectRequest{Project: p, UpdateMask: mask(paths...)}
	}
	role := func(change func(*credentialv1.AwsAssumeRole)) *credentialv1.Payload {
		m := &credentialv1.AwsAssumeRole{Source: missing, RoleArn: "arn:aws:iam::123456789012:role/deploy"}
		change(m)
		return &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAssumeRole{AwsAssumeRole: m}}
	}
	session := &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsSession_{AwsSession: &credentialv1.TokenRequest_AwsSession{}}}
	const roleAt = "credential.payload.awsAssumeRole."
	return []badCase{
		{name: "verify what is missing", request: &credstorev1.VerifyCredentialRequest{Name: missing}, want: notFound},
		{name: "verify a missing version", request: &credstorev1.VerifyCredentialRequest{Name: bot + "/versions/99"}, want: notFound},
		{name: "verify a destroyed version", request: &credstorev1.VerifyCredentialRequest{Name: bot + "/versions/1"}, want: because(codes.FailedPrecondition, "VERSION_NOT_ENABLED")},
		{name: "verify under a bad name", request: &credstorev1.VerifyCredentialRequest{Name: inDefault + "/credentials/Bot"}, want: field("name")},
		{name: "reader verifies", as: "reader", request: &credstorev1.VerifyCredentialRequest{Name: bot}, want: denied},
		{name: "workload verifies", as: "workload", request: &credstorev1.VerifyCredentialRequest{Name: bot}, want: denied},
		{name: "mint from what is missing", request: &credstorev1.MintTokenRequest{Name: missing}, want: notFound},
		{name: "mint from a version", request: &credstorev1.MintTokenRequest{Name: bot + "/versions/4"}, want: field("name"), rest: noPath()},
		{name: "mint from a kind that has no tokens", request: &credstorev1.MintTokenRequest{Name: bot}, want: field("token")},
		{name: "mint what another kind makes", request: &credstorev1.MintTokenRequest{Name: bot, Token: session}, want: field("token")},
		{name: "operator mints", as: "operator", request: &credstorev1.MintTokenRequest{Name: bot}, want: denied},
		{name: "reader mints", as: "reader", request: &credstorev1.MintTokenRequest{Name: bot}, want: denied},
		{name: "workload mints from another's", as: "workload", request: &credstorev1.MintTokenRequest{Name: inDefault + "/credentials/api"}, want: denied},

		{name: "rotation period of an hour", request: createWith(&credstorev1.Credential{Payload: basic("a", canary), RotationPeriod: durationpb.New(time.Hour)}), want: field("credential.rotationPeriod")},
		{name: "rotation period of 20 years", request: createWith(&credstorev1.Credential{Payload: basic("a", canary), RotationPeriod: durationpb.New(20 * 365 * 24 * time.Hour)}), want: field("credential.rotationPeriod")},
		{name: "rotation period before zero", request: createWith(&credstorev1.Credential{Payload: basic("a", canary), RotationPeriod: durationpb.New(-time.Hour)}), want: field("credential.rotationPeriod")},
		{name: "project's rotation period of an hour", request: project(&credstorev1.Project{Name: inDefault, RotationPeriod: durationpb.New(time.Hour)}, "rotation_period"), want: field("project.rotationPeriod")},
		{name: "project that is missing", request: project(&credstorev1.Project{Name: "projects/nowhere", Description: "x"}, "description"), want: notFound},
		{name: "project's uid", request: project(&credstorev1.Project{Name: inDefault, Uid: "x"}, "uid"), want: field("updateMask")},
		{name: "project with an old etag", request: project(&credstorev1.Project{Name: inDefault, Etag: "1-0", Description: "x"}, "description"), want: because(codes.Aborted, "ETAG_MISMATCH")},
		{name: "operator updates the project", as: "operator", request: project(&credstorev1.Project{Name: inDefault, Description: "x"}, "description"), want: denied},

		{name: "role with a missing source", request: createPayload(role(func(*credentialv1.AwsAssumeRole) {})), want: field(roleAt + "source")},
		{name: "role with a source of another kind", request: createPayload(role(func(m *credentialv1.AwsAssumeRole) { m.Source = bot })), want: field(roleAt + "source")},
		{name: "role with a source elsewhere", request: createPayload(role(func(m *credentialv1.AwsAssumeRole) { m.Source = "projects/other/credentials/foreign" })), want: field(roleAt + "source")},
		{name: "role with nothing right", request: createPayload(role(func(m *credentialv1.AwsAssumeRole) {
			m.Source, m.RoleArn, m.ExternalId, m.Duration, m.Policy = "x", "arn", "?", durationpb.New(time.Second), "{"
		})), want: field(roleAt+"source", roleAt+"roleArn", roleAt+"externalId", roleAt+"duration", roleAt+"policy")},

		{name: "filter by an age without a unit", request: &credstorev1.ListCredentialsRequest{Parent: inDefault, Filter: "age > 90"}, want: field("filter")},
		{name: "filter by an unknown age state", request: &credstorev1.ListCredentialsRequest{Parent: inDefault, Filter: "ageState = ROTTEN"}, want: field("filter")},
		{name: "watch that filters by age", request: &credstorev1.WatchRequest{Parent: inDefault, Filter: "age > 90d"}, want: field("filter")},
		{name: "update that verifies no payload", request: &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot, Description: "x"}, UpdateMask: mask("description"), Verify: true,
		}, want: field("verify")},
		{name: "usage of a derived type", request: &credstorev1.DeclareUsageRequest{Parent: bot, UsageId: "x", Usage: &credstorev1.Usage{User: "u", Type: credstorev1.Usage_INJECTION}}, want: field("usage.type")},
	}
}

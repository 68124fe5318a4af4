package grpcapi_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

const awsKey = "projects/default/credentials/aws"

func awsPayload(secret string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{
		AccessKeyId: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX" + secret,
	}}}
}

// What the vendors said, the age and its period travel over the wire.
func TestVerifyAndMintOverGRPC(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	f := newFixture(t, nil, issuer.Use)
	ctx := as(t, "admin")
	period := durationpb.New(30 * 24 * time.Hour)
	made, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: "projects/default", CredentialId: "aws", Verify: true,
		Credential: &credstorev1.Credential{Payload: awsPayload("00000000"), RotationPeriod: period},
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := made.GetVerification(); v.GetState() != credstorev1.Verification_VERIFIED || v.GetVersion() != 1 || v.GetIdentity() != "identity of aws" ||
		v.GetFacts()["account"] != "123456789012" || v.GetLatency().AsDuration() != 7*time.Millisecond || v.GetVerifyTime() == nil {
		t.Errorf("verification of a create: %v", v)
	}
	if made.GetAgeState() != credstorev1.Credential_FRESH || !cmp.Equal(made.GetRotationPeriod(), period, protocmp.Transform()) {
		t.Errorf("age state %v, period %v", made.GetAgeState(), made.GetRotationPeriod())
	}

	issuer.Answer(func(credential.Login) (core.Verification, error) {
		return core.Verification{State: core.Verified, Identity: credential.Identity{Checks: []credential.Check{
			{Name: "create secrets", Passed: true}, {Name: "delete secrets", Message: "no"},
		}}}, nil
	})
	got, err := f.credentials.VerifyCredential(ctx, &credstorev1.VerifyCredentialRequest{Name: awsKey})
	if err != nil {
		t.Fatal(err)
	}
	want := []*credstorev1.Verification_Check{{Name: "create secrets", Passed: true}, {Name: "delete secrets", Message: "no"}}
	if diff := cmp.Diff(want, got.GetChecks(), protocmp.Transform()); diff != "" || got.GetState() != credstorev1.Verification_REFUSED || got.GetMessage() == "" {
		t.Errorf("verification %v; checks (-want +got)\n%s", got, diff)
	}
	for state, name := range map[core.VerificationState]credstorev1.Verification_State{
		core.VerificationUnreachable: credstorev1.Verification_UNREACHABLE, core.VerificationUnsupported: credstorev1.Verification_UNSUPPORTED,
	} {
		issuer.Answer(func(credential.Login) (core.Verification, error) {
			return core.Verification{State: state, Message: "x"}, nil
		})
		if got, err := f.credentials.VerifyCredential(ctx, &credstorev1.VerifyCredentialRequest{Name: awsKey + "/versions/1"}); err != nil || got.GetState() != name {
			t.Errorf("%v, %v; want %v", got, err, name)
		}
	}
	_, err = f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: awsKey, Payload: awsPayload("11111111")}, Verify: true,
	})
	refused(t, err, codes.FailedPrecondition, core.ReasonVerificationFailed, "")
	issuer.Answer(nil)

	minted, err := f.credentials.MintToken(ctx, &credstorev1.MintTokenRequest{Name: awsKey})
	if err != nil || minted.GetVersion() != awsKey+"/versions/1" || minted.GetToken().GetBearer().GetToken() == "" || minted.GetToken().GetExpireTime() == nil {
		t.Errorf("minted %v, %v", minted, err)
	}
	_, err = f.credentials.MintToken(ctx, &credstorev1.MintTokenRequest{Name: awsKey, Token: &credentialv1.TokenRequest{
		Kind: &credentialv1.TokenRequest_IbmIamToken_{IbmIamToken: &credentialv1.TokenRequest_IbmIamToken{}},
	}})
	refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, "token.ibmIamToken")
	issuer.Refuse(&core.Error{Kind: core.ErrUnavailable, Reason: core.ReasonVendorUnavailable, Message: "no answer"})
	_, err = f.credentials.MintToken(ctx, &credstorev1.MintTokenRequest{Name: awsKey})
	refused(t, err, codes.Unavailable, core.ReasonVendorUnavailable, "")
	issuer.Refuse(nil)
}

func TestRotationPeriodsOverGRPC(t *testing.T) {
	f := newFixture(t, nil)
	ctx := as(t, "admin")
	period := durationpb.New(10 * 24 * time.Hour)
	got, err := f.projects.UpdateProject(ctx, &credstorev1.UpdateProjectRequest{
		Project:    &credstorev1.Project{Name: "projects/default", RotationPeriod: period, Description: "not in the mask"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rotationPeriod"}},
	})
	if err != nil || !cmp.Equal(got.GetRotationPeriod(), period, protocmp.Transform()) || got.GetDescription() == "not in the mask" {
		t.Fatalf("%v, %v", got, err)
	}
	// A mask that names it without a value goes back to the default.
	got, err = f.projects.UpdateProject(ctx, &credstorev1.UpdateProjectRequest{
		Project: &credstorev1.Project{Name: "projects/default"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rotation_period"}},
	})
	if err != nil || got.RotationPeriod != nil {
		t.Errorf("%v, %v", got, err)
	}
	_, err = f.projects.UpdateProject(ctx, &credstorev1.UpdateProjectRequest{
		Project: &credstorev1.Project{Name: "projects/default", RotationPeriod: durationpb.New(time.Second)},
	})
	refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, "project.rotationPeriod")
	_, err = f.projects.UpdateProject(ctx, &credstorev1.UpdateProjectRequest{
		Project: &credstorev1.Project{Name: "projects/default"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"uid"}},
	})
	refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, "updateMask")
}

func TestMintItemsOverGRPC(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	f := newFixture(t, nil, issuer.Use)
	ctx := as(t, "admin")
	if _, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: "projects/default", CredentialId: "aws", Credential: &credstorev1.Credential{Payload: awsPayload("00000000")},
	}); err != nil {
		t.Fatal(err)
	}
	item := &credstorev1.Item{
		Source: &credstorev1.Item_Mint{Mint: &credstorev1.MintSource{Credential: awsKey, Field: "sessionToken", Token: &credentialv1.TokenRequest{
			Kind: &credentialv1.TokenRequest_AwsSession_{AwsSession: &credentialv1.TokenRequest_AwsSession{Duration: durationpb.New(time.Hour)}},
		}}},
		Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: "aws/token", Mode: "0400"}},
	}
	made, err := f.injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
		Parent: "projects/default", InjectionId: "web",
		Injection: &credstorev1.Injection{Selector: map[string]string{"app": "web"}, Items: []*credstorev1.Item{item}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*credstorev1.Item{item}, made.GetItems(), protocmp.Transform()); diff != "" {
		t.Errorf("items (-want +got)\n%s", diff)
	}
	usages, err := f.credentials.ListUsages(ctx, &credstorev1.ListUsagesRequest{Parent: awsKey})
	if err != nil || len(usages.GetUsages()) != 1 || usages.GetUsages()[0].GetType() != credstorev1.Usage_INJECTION {
		t.Errorf("usages %v, %v", usages, err)
	}
	item.GetMint().Field = "nosuch"
	_, err = f.injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
		Parent: "projects/default", InjectionId: "other",
		Injection: &credstorev1.Injection{Selector: map[string]string{"app": "other"}, Items: []*credstorev1.Item{item}},
	})
	refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, "injection.items[0].mint.field")
}

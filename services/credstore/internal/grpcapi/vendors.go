package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func (s credentialService) VerifyCredential(ctx context.Context, r *credstorev1.VerifyCredentialRequest) (*credstorev1.Verification, error) {
	var p parser
	n, version := p.credentialOrVersion(r.GetName())
	if err := p.err(); err != nil {
		return nil, err
	}
	result, err := s.store.VerifyCredential(ctx, n, version)
	if err != nil {
		return nil, err
	}
	return verificationMessage(result), nil
}

func (s credentialService) MintToken(ctx context.Context, r *credstorev1.MintTokenRequest) (*credstorev1.MintTokenResponse, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseCredential)
	if err := p.err(); err != nil {
		return nil, err
	}
	version, token, err := s.store.MintToken(ctx, n, r.GetToken())
	if err != nil {
		return nil, err
	}
	return &credstorev1.MintTokenResponse{Version: version.String(), Token: token.Message()}, nil
}

// verificationMessage returns nil for a credential that was never verified.
func verificationMessage(v *core.Verification) *credstorev1.Verification {
	if v == nil {
		return nil
	}
	return &credstorev1.Verification{
		State: verificationState(v.State), Version: v.Version, Identity: v.Identity.Name, Facts: v.Identity.Facts, Message: v.Message,
		Checks: convertAll(v.Identity.Checks, func(c credential.Check) *credstorev1.Verification_Check {
			return &credstorev1.Verification_Check{Name: c.Name, Passed: c.Passed, Message: c.Message}
		}),
		VerifyTime: timestamp(v.Time), Latency: durationpb.New(v.Latency),
	}
}

func verificationState(s core.VerificationState) credstorev1.Verification_State {
	switch s {
	case core.Verified:
		return credstorev1.Verification_VERIFIED
	case core.VerificationRefused:
		return credstorev1.Verification_REFUSED
	case core.VerificationUnreachable:
		return credstorev1.Verification_UNREACHABLE
	case core.VerificationUnsupported:
		return credstorev1.Verification_UNSUPPORTED
	}
	return credstorev1.Verification_STATE_UNSPECIFIED
}

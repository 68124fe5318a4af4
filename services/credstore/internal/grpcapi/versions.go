package grpcapi

import (
	"context"

	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func (s credentialService) ListCredentialVersions(ctx context.Context, r *credstorev1.ListCredentialVersionsRequest) (*credstorev1.ListCredentialVersionsResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseCredential)
	if err := p.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.ListVersions(ctx, parent, page(r))
	if err != nil {
		return nil, err
	}
	convert := func(v core.Version) *credstorev1.CredentialVersion { return versionMessage(&v) }
	return &credstorev1.ListCredentialVersionsResponse{Versions: convertAll(list, convert), NextPageToken: next}, nil
}

func (s credentialService) ActivateCredentialVersion(ctx context.Context, r *credstorev1.ActivateCredentialVersionRequest) (*credstorev1.Credential, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	c, err := s.store.ActivateVersion(ctx, change)
	if err != nil {
		return nil, err
	}
	return s.message(c), nil
}

func (s credentialService) DisableCredentialVersion(ctx context.Context, r *credstorev1.DisableCredentialVersionRequest) (*credstorev1.CredentialVersion, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	v, err := s.store.DisableVersion(ctx, change)
	if err != nil {
		return nil, err
	}
	return versionMessage(v), nil
}

func (s credentialService) EnableCredentialVersion(ctx context.Context, r *credstorev1.EnableCredentialVersionRequest) (*credstorev1.CredentialVersion, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	v, err := s.store.EnableVersion(ctx, change)
	if err != nil {
		return nil, err
	}
	return versionMessage(v), nil
}

func (s credentialService) DestroyCredentialVersion(ctx context.Context, r *credstorev1.DestroyCredentialVersionRequest) (*credstorev1.CredentialVersion, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	v, err := s.store.DestroyVersion(ctx, change)
	if err != nil {
		return nil, err
	}
	return versionMessage(v), nil
}

// changeVersion parses what the four changes of a version share.
func changeVersion(r interface {
	proto.Message
	GetName() string
	GetEtag() string
	GetRequestId() string
},
) (core.ChangeVersionRequest, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseVersion)
	m, err := p.mutation(r, false)
	return core.ChangeVersionRequest{Mutation: m, Name: n, Etag: r.GetEtag()}, err
}

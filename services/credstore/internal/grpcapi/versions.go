package grpcapi

import (
	"context"
	"fmt"

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
	c, list, next, err := s.store.ListVersions(ctx, parent, page(r))
	if err != nil {
		return nil, err
	}
	convert := func(v core.Version) *credstorev1.CredentialVersion { return versionMessage(c, &v) }
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
	return credentialMessage(c), nil
}

func (s credentialService) DisableCredentialVersion(ctx context.Context, r *credstorev1.DisableCredentialVersionRequest) (*credstorev1.CredentialVersion, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	c, err := s.store.DisableVersion(ctx, change)
	return changedVersion(c, change, err)
}

func (s credentialService) EnableCredentialVersion(ctx context.Context, r *credstorev1.EnableCredentialVersionRequest) (*credstorev1.CredentialVersion, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	c, err := s.store.EnableVersion(ctx, change)
	return changedVersion(c, change, err)
}

func (s credentialService) DestroyCredentialVersion(ctx context.Context, r *credstorev1.DestroyCredentialVersionRequest) (*credstorev1.CredentialVersion, error) {
	change, err := changeVersion(r)
	if err != nil {
		return nil, err
	}
	c, err := s.store.DestroyVersion(ctx, change)
	return changedVersion(c, change, err)
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

// changedVersion picks the version out of the credential that a change returned.
func changedVersion(c *core.Credential, r core.ChangeVersionRequest, err error) (*credstorev1.CredentialVersion, error) {
	if err != nil {
		return nil, err
	}
	v := c.Version(r.Name.Number)
	if v == nil {
		return nil, fmt.Errorf("%s is gone from the credential that was changed", r.Name)
	}
	return versionMessage(c, v), nil
}

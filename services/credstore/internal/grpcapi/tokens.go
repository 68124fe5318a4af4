package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

type tokenService struct {
	credstorev1.UnimplementedTokenServiceServer

	store *core.Store
}

func (s tokenService) CreateToken(ctx context.Context, r *credstorev1.CreateTokenRequest) (*credstorev1.CreateTokenResponse, error) {
	var p parser
	t := r.GetToken()
	n := resourcename.Token{Project: name(&p, "parent", r.GetParent(), resourcename.ParseProject).ID, ID: r.GetTokenId()}
	p.ownName("token.name", t.GetName(), n.String(), "parent and tokenId")
	credentials := names(&p, "token.credentials", t.GetCredentials(), resourcename.ParseCredential)
	expires := p.time("token.expireTime", t.GetExpireTime())
	m, err := p.mutation(r, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	made, secret, err := s.store.CreateToken(ctx, core.CreateTokenRequest{
		Mutation: m, Name: n, Description: t.GetDescription(), Role: roleOf(t.GetRole()), AllProjects: t.GetAllProjects(),
		Attributes: t.GetAttributes(), Credentials: credentials, ExpireTime: expires,
	})
	if err != nil {
		return nil, err
	}
	return &credstorev1.CreateTokenResponse{Token: tokenMessage(made), Secret: secret}, nil
}

func (s tokenService) GetToken(ctx context.Context, r *credstorev1.GetTokenRequest) (*credstorev1.Token, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseToken)
	if err := p.err(); err != nil {
		return nil, err
	}
	got, err := s.store.GetToken(ctx, n)
	if err != nil {
		return nil, err
	}
	return tokenMessage(got), nil
}

func (s tokenService) ListTokens(ctx context.Context, r *credstorev1.ListTokensRequest) (*credstorev1.ListTokensResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	if err := p.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.ListTokens(ctx, parent, page(r))
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListTokensResponse{Tokens: convertAll(list, tokenMessage), NextPageToken: next}, nil
}

func (s tokenService) DeleteToken(ctx context.Context, r *credstorev1.DeleteTokenRequest) (*emptypb.Empty, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseToken)
	m, err := p.mutation(r, false)
	if err != nil {
		return nil, err
	}
	return empty(s.store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Mutation: m, Name: n, Etag: r.GetEtag()}))
}

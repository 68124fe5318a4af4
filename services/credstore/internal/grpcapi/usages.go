package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func (s credentialService) ListUsages(ctx context.Context, r *credstorev1.ListUsagesRequest) (*credstorev1.ListUsagesResponse, error) {
	var p parser
	target := p.usageTarget("parent", r.GetParent())
	if err := p.err(); err != nil {
		return nil, err
	}
	usages, consumers, next, err := s.store.ListUsages(ctx, target, page(r))
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListUsagesResponse{
		Usages: convertAll(usages, usageMessage), Consumers: convertAll(consumers, consumerMessage), NextPageToken: next,
	}, nil
}

// usageTarget parses the name of what can be used, as a usage without an id.
func (p *parser) usageTarget(field, value string) resourcename.Usage {
	if st, err := resourcename.ParseSecretStore(value); err == nil {
		return resourcename.Usage{Project: st.Project, Collection: resourcename.SecretStores, Resource: st.ID}
	}
	c := name(p, field, value, resourcename.ParseCredential)
	return resourcename.Usage{Project: c.Project, Collection: resourcename.Credentials, Resource: c.ID}
}

func (s credentialService) DeclareUsage(ctx context.Context, r *credstorev1.DeclareUsageRequest) (*credstorev1.Usage, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseCredential)
	n := resourcename.Usage{Project: parent.Project, Collection: resourcename.Credentials, Resource: parent.ID, ID: r.GetUsageId()}
	p.ownName("usage.name", r.GetUsage().GetName(), n.String(), "parent and usageId")
	ttl := p.duration("usage.ttl", r.GetUsage().GetTtl())
	m, err := p.mutation(r, false)
	if err != nil {
		return nil, err
	}
	declared, err := s.store.DeclareUsage(ctx, core.DeclareUsageRequest{
		Mutation: m, Name: n, Type: core.UsageType(r.GetUsage().GetType()), User: r.GetUsage().GetUser(), Link: r.GetUsage().GetLink(), TTL: ttl,
	})
	if err != nil {
		return nil, err
	}
	return usageMessage(*declared), nil
}

func (s credentialService) DeleteUsage(ctx context.Context, r *credstorev1.DeleteUsageRequest) (*emptypb.Empty, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseUsage)
	m, err := p.mutation(r, false)
	if err != nil {
		return nil, err
	}
	return empty(s.store.DeleteUsage(ctx, core.DeleteRequest[resourcename.Usage]{Mutation: m, Name: n}))
}

func (s credentialService) ListConsumers(ctx context.Context, r *credstorev1.ListConsumersRequest) (*credstorev1.ListConsumersResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseCredential)
	if err := p.err(); err != nil {
		return nil, err
	}
	list, err := s.store.ListConsumers(ctx, parent)
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListConsumersResponse{Consumers: convertAll(list, consumerMessage)}, nil
}

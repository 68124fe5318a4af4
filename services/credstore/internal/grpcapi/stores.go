package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

type secretStoreService struct {
	credstorev1.UnimplementedSecretStoreServiceServer

	store *core.Store
}

func (s secretStoreService) CreateSecretStore(ctx context.Context, r *credstorev1.CreateSecretStoreRequest) (*credstorev1.SecretStore, error) {
	var p parser
	st := r.GetSecretStore()
	n := resourcename.SecretStore{Project: name(&p, "parent", r.GetParent(), resourcename.ParseProject).ID, ID: r.GetSecretStoreId()}
	p.ownName("secretStore.name", st.GetName(), n.String(), "parent and secretStoreId")
	credential := name(&p, "secretStore.credential", st.GetCredential(), resourcename.ParseCredential)
	interval := p.duration("secretStore.pollInterval", st.GetPollInterval())
	p.delivery(st.GetDelivery())
	m, err := p.mutation(r, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	made, err := s.store.CreateSecretStore(ctx, core.CreateSecretStoreRequest{
		Mutation: m, Name: n, Description: st.GetDescription(), Labels: st.GetLabels(),
		Credential: credential, Vault: vaultProvider(st.GetVault()), PollInterval: interval,
	})
	if err != nil {
		return nil, err
	}
	return secretStoreMessage(made), nil
}

// delivery refuses a number that no name stands for; there is one way now.
func (p *parser) delivery(d credstorev1.SecretStore_Delivery) {
	switch d {
	case credstorev1.SecretStore_DELIVERY_UNSPECIFIED, credstorev1.SecretStore_BROKERED:
	default:
		p.add("secretStore.delivery", "must be BROKERED, or left out")
	}
}

// vaultProvider returns nil when there is none.
func vaultProvider(v *credstorev1.VaultProvider) *core.VaultProvider {
	if v == nil {
		return nil
	}
	return &core.VaultProvider{Address: v.GetAddress(), Namespace: v.GetNamespace(), Mount: v.GetMount(), CAPEM: v.GetCaPem()}
}

func (s secretStoreService) GetSecretStore(ctx context.Context, r *credstorev1.GetSecretStoreRequest) (*credstorev1.SecretStore, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseSecretStore)
	if err := p.err(); err != nil {
		return nil, err
	}
	got, err := s.store.GetSecretStore(ctx, n)
	if err != nil {
		return nil, err
	}
	return secretStoreMessage(got), nil
}

func (s secretStoreService) ListSecretStores(ctx context.Context, r *credstorev1.ListSecretStoresRequest) (*credstorev1.ListSecretStoresResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	if err := p.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.ListSecretStores(ctx, parent, page(r))
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListSecretStoresResponse{SecretStores: convertAll(list, secretStoreMessage), NextPageToken: next}, nil
}

func (s secretStoreService) UpdateSecretStore(ctx context.Context, r *credstorev1.UpdateSecretStoreRequest) (*credstorev1.SecretStore, error) {
	var p parser
	update := p.updateSecretStore(r)
	var err error
	if update.Mutation, err = p.mutation(r, r.GetValidateOnly()); err != nil {
		return nil, err
	}
	updated, err := s.store.UpdateSecretStore(ctx, *update)
	if err != nil {
		return nil, err
	}
	return secretStoreMessage(updated), nil
}

func (p *parser) updateSecretStore(r *credstorev1.UpdateSecretStoreRequest) *core.UpdateSecretStoreRequest {
	st := r.GetSecretStore()
	fields := p.mask(r.GetUpdateMask(), st, "description", "labels", "credential", "vault", "poll_interval")
	u := &core.UpdateSecretStoreRequest{
		Name:        name(p, "secretStore.name", st.GetName(), resourcename.ParseSecretStore),
		Etag:        st.GetEtag(),
		Description: pointer(fields, "description", st.GetDescription()),
		Labels:      pointer(fields, "labels", st.GetLabels()),
	}
	p.delivery(st.GetDelivery())
	if fields["credential"] {
		c := name(p, "secretStore.credential", st.GetCredential(), resourcename.ParseCredential)
		u.Credential = &c
	}
	if fields["vault"] {
		if u.Vault = vaultProvider(st.GetVault()); u.Vault == nil {
			p.add("secretStore.vault", "is required, as the mask names it: where the store is")
		}
	}
	if fields["poll_interval"] {
		interval := core.DefaultPollInterval
		if st.GetPollInterval() != nil {
			interval = p.duration("secretStore.pollInterval", st.GetPollInterval())
		}
		u.PollInterval = &interval
	}
	return u
}

func (s secretStoreService) DeleteSecretStore(ctx context.Context, r *credstorev1.DeleteSecretStoreRequest) (*emptypb.Empty, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseSecretStore)
	m, err := p.mutation(r, false)
	if err != nil {
		return nil, err
	}
	return empty(s.store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Mutation: m, Name: n, Etag: r.GetEtag()}))
}

func (s secretStoreService) TestSecretStore(ctx context.Context, r *credstorev1.TestSecretStoreRequest) (*credstorev1.TestSecretStoreResponse, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseSecretStore)
	if err := p.err(); err != nil {
		return nil, err
	}
	result, err := s.store.TestSecretStore(ctx, n)
	if err != nil {
		return nil, err
	}
	return &credstorev1.TestSecretStoreResponse{
		Ok: result.OK, Identity: result.Identity, Message: result.Message, Latency: durationpb.New(result.Latency),
	}, nil
}

func (s secretStoreService) RefreshSecretStore(ctx context.Context, r *credstorev1.RefreshSecretStoreRequest) (*credstorev1.RefreshSecretStoreResponse, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseSecretStore)
	if err := p.err(); err != nil {
		return nil, err
	}
	result, err := s.store.RefreshSecretStore(ctx, n)
	if err != nil {
		return nil, err
	}
	return &credstorev1.RefreshSecretStoreResponse{
		Polled: count(result.Polled), Changed: count(result.Changed), Failed: count(result.Failed),
	}, nil
}

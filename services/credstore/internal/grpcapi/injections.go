package grpcapi

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/types/known/emptypb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

type injectionService struct {
	credstorev1.UnimplementedInjectionServiceServer

	store *core.Store
}

func (s injectionService) CreateInjection(ctx context.Context, r *credstorev1.CreateInjectionRequest) (*credstorev1.Injection, error) {
	var p parser
	i := r.GetInjection()
	n := resourcename.Injection{Project: name(&p, "parent", r.GetParent(), resourcename.ParseProject).ID, ID: r.GetInjectionId()}
	p.ownName("injection.name", i.GetName(), n.String(), "parent and injectionId")
	items := p.items("injection.items", i.GetItems())
	m, err := p.mutation(r, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	made, err := s.store.CreateInjection(ctx, core.CreateInjectionRequest{
		Mutation: m, Name: n, Description: i.GetDescription(), Labels: i.GetLabels(), Selector: i.GetSelector(), Items: items,
	})
	if err != nil {
		return nil, err
	}
	return injectionMessage(made), nil
}

// items parses those of an injection.
func (p *parser) items(field string, list []*credstorev1.Item) []core.Item {
	if len(list) > core.MaxItems {
		p.add(field, fmt.Sprintf("has %d entries; at most %d", len(list), core.MaxItems))
		return nil
	}
	out := make([]core.Item, len(list))
	for i, m := range list {
		at := field + "[" + strconv.Itoa(i) + "]"
		out[i] = core.Item{Group: m.GetGroup(), File: p.file(at+".file", m.GetFile())}
		switch source := m.GetSource().(type) {
		case *credstorev1.Item_Credential:
			out[i].Credential = &core.CredentialSource{
				Name:  name(p, at+".credential.name", source.Credential.GetName(), resourcename.ParseCredential),
				Field: source.Credential.GetField(),
			}
		case *credstorev1.Item_Secret:
			out[i].Secret = &core.SecretSource{
				Store: name(p, at+".secret.store", source.Secret.GetStore(), resourcename.ParseSecretStore),
				Path:  source.Secret.GetPath(), Key: source.Secret.GetKey(), Version: source.Secret.GetVersion(),
			}
		case *credstorev1.Item_Mint:
			out[i].Mint = &core.MintSource{
				Credential: name(p, at+".mint.credential", source.Mint.GetCredential(), resourcename.ParseCredential),
				Request:    source.Mint.GetToken(), Field: source.Mint.GetField(),
			}
		}
	}
	return out
}

func (p *parser) file(field string, f *credstorev1.FileTarget) core.FileTarget {
	if f == nil {
		p.add(field, "is required: where the value goes")
		return core.FileTarget{}
	}
	t := core.FileTarget{Path: f.GetPath(), UID: f.Uid, GID: f.Gid}
	if text := f.GetMode(); text != "" {
		mode, err := strconv.ParseUint(text, 8, 16)
		if err != nil || mode == 0 || mode > 0o777 || text[0] == '+' {
			p.add(field+".mode", `must be octal permission bits from 0001 to 0777, as "0400"`)
		}
		t.Mode = uint32(mode)
	}
	return t
}

func (s injectionService) GetInjection(ctx context.Context, r *credstorev1.GetInjectionRequest) (*credstorev1.Injection, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseInjection)
	if err := p.err(); err != nil {
		return nil, err
	}
	got, err := s.store.GetInjection(ctx, n)
	if err != nil {
		return nil, err
	}
	return injectionMessage(got), nil
}

func (s injectionService) ListInjections(ctx context.Context, r *credstorev1.ListInjectionsRequest) (*credstorev1.ListInjectionsResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	if err := p.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.ListInjections(ctx, parent, page(r))
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListInjectionsResponse{Injections: convertAll(list, injectionMessage), NextPageToken: next}, nil
}

func (s injectionService) UpdateInjection(ctx context.Context, r *credstorev1.UpdateInjectionRequest) (*credstorev1.Injection, error) {
	var p parser
	i := r.GetInjection()
	fields := p.mask(r.GetUpdateMask(), i, "description", "labels", "selector", "items")
	update := core.UpdateInjectionRequest{
		Name:        name(&p, "injection.name", i.GetName(), resourcename.ParseInjection),
		Etag:        i.GetEtag(),
		Description: pointer(fields, "description", i.GetDescription()),
		Labels:      pointer(fields, "labels", i.GetLabels()),
		Selector:    pointer(fields, "selector", i.GetSelector()),
	}
	if fields["items"] {
		items := p.items("injection.items", i.GetItems())
		update.Items = &items
	}
	var err error
	if update.Mutation, err = p.mutation(r, r.GetValidateOnly()); err != nil {
		return nil, err
	}
	updated, err := s.store.UpdateInjection(ctx, update)
	if err != nil {
		return nil, err
	}
	return injectionMessage(updated), nil
}

func (s injectionService) DeleteInjection(ctx context.Context, r *credstorev1.DeleteInjectionRequest) (*emptypb.Empty, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseInjection)
	m, err := p.mutation(r, false)
	if err != nil {
		return nil, err
	}
	return empty(s.store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Mutation: m, Name: n, Etag: r.GetEtag()}))
}

func (s injectionService) GetInjectionStatus(ctx context.Context, r *credstorev1.GetInjectionStatusRequest) (*credstorev1.InjectionStatus, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseInjection)
	if err := p.err(); err != nil {
		return nil, err
	}
	status, err := s.store.GetInjectionStatus(ctx, n)
	if err != nil {
		return nil, err
	}
	return statusMessage(status), nil
}

func (s injectionService) GetSet(ctx context.Context, r *credstorev1.GetSetRequest) (*credstorev1.Set, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	only := p.injections("injections", r.GetInjections())
	if err := p.err(); err != nil {
		return nil, err
	}
	set, err := s.store.GetSet(ctx, parent, only)
	if err != nil {
		return nil, err
	}
	return setMessage(set), nil
}

// maxInjections is how many a caller may name.
const maxInjections = 1000

// injections parses the names that a caller limits its set to.
func (p *parser) injections(field string, list []string) []resourcename.Injection {
	if len(list) > maxInjections {
		p.add(field, fmt.Sprintf("has %d entries; at most %d", len(list), maxInjections))
		return nil
	}
	return names(p, field, list, resourcename.ParseInjection)
}

package grpcapi

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

type credentialService struct {
	credstorev1.UnimplementedCredentialServiceServer

	store *core.Store
}

func (s credentialService) CreateCredential(ctx context.Context, r *credstorev1.CreateCredentialRequest) (*credstorev1.Credential, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	create := p.createCredential(parent, r.GetCredentialId(), r.GetCredential())
	create.Verify = r.GetVerify()
	var err error
	if create.Mutation, err = p.mutation(r, r.GetValidateOnly()); err != nil {
		return nil, err
	}
	made, err := s.store.CreateCredential(ctx, *create)
	if err != nil {
		return nil, err
	}
	return s.message(made), nil
}

// message is credentialMessage with what time alone changes.
func (s credentialService) message(c *core.Credential) *credstorev1.Credential {
	m := credentialMessage(c)
	if c.UID != "" { // of a deleted one there is only the name
		m.AgeState = credstorev1.Credential_AgeState(s.store.AgeState(c))
	}
	return m
}

// createCredential parses what a create and an operation of a batch share.
func (p *parser) createCredential(parent resourcename.Project, id string, c *credstorev1.Credential) *core.CreateCredentialRequest {
	n := resourcename.Credential{Project: parent.ID, ID: id}
	p.ownName("credential.name", c.GetName(), n.String(), "parent and credentialId")
	p.ownKind(c)
	return &core.CreateCredentialRequest{
		Name: n, Description: c.GetDescription(), Labels: c.GetLabels(), Payload: p.payload("credential.", c.GetPayload()),
		RotationPeriod: p.duration("credential.rotationPeriod", c.GetRotationPeriod()),
	}
}

// ownKind checks the kind beside a payload, which decides it: it may be left out,
// or sent back as it was read.
func (p *parser) ownKind(c *credstorev1.Credential) {
	m := c.GetPayload().ProtoReflect()
	if kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); kind != nil {
		p.ownName("credential.kind", c.GetKind(), kind.JSONName(), "the payload")
	}
}

func (s credentialService) GetCredential(ctx context.Context, r *credstorev1.GetCredentialRequest) (*credstorev1.Credential, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseCredential)
	if err := p.err(); err != nil {
		return nil, err
	}
	got, err := s.store.GetCredential(ctx, n)
	if err != nil {
		return nil, err
	}
	return s.message(got), nil
}

func (s credentialService) ListCredentials(ctx context.Context, r *credstorev1.ListCredentialsRequest) (*credstorev1.ListCredentialsResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	if err := p.err(); err != nil {
		return nil, err
	}
	list, next, err := s.store.ListCredentials(ctx, parent, r.GetFilter(), page(r))
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListCredentialsResponse{Credentials: convertAll(list, s.message), NextPageToken: next}, nil
}

func (s credentialService) UpdateCredential(ctx context.Context, r *credstorev1.UpdateCredentialRequest) (*credstorev1.Credential, error) {
	var p parser
	update := p.updateCredential(r.GetCredential(), r.GetUpdateMask())
	update.Verify = r.GetVerify()
	var err error
	if update.Mutation, err = p.mutation(r, r.GetValidateOnly()); err != nil {
		return nil, err
	}
	updated, err := s.store.UpdateCredential(ctx, *update)
	if err != nil {
		return nil, err
	}
	return s.message(updated), nil
}

// updateCredential parses what an update and an operation of a batch share.
func (p *parser) updateCredential(c *credstorev1.Credential, mask *fieldmaskpb.FieldMask) *core.UpdateCredentialRequest {
	fields := p.mask(mask, c, "description", "labels", "rotation_period", "payload")
	u := &core.UpdateCredentialRequest{
		Name:        name(p, "credential.name", c.GetName(), resourcename.ParseCredential),
		Etag:        c.GetEtag(),
		Description: pointer(fields, "description", c.GetDescription()),
		Labels:      pointer(fields, "labels", c.GetLabels()),
	}
	if fields["rotation_period"] {
		period := p.duration("credential.rotationPeriod", c.GetRotationPeriod())
		u.RotationPeriod = &period
	}
	switch {
	case fields["payload"] && c.GetPayload() == nil:
		p.add("credential.payload", "is required, as the mask names it: set exactly one kind")
	case fields["payload"]:
		p.ownKind(c)
		payload := p.payload("credential.", c.GetPayload())
		u.Payload = &payload
	}
	return u
}

func (s credentialService) DeleteCredential(ctx context.Context, r *credstorev1.DeleteCredentialRequest) (*emptypb.Empty, error) {
	var p parser
	del := p.deleteCredential(r)
	var err error
	if del.Mutation, err = p.mutation(r, false); err != nil {
		return nil, err
	}
	return empty(s.store.DeleteCredential(ctx, *del))
}

// deleteCredential parses what a delete and an operation of a batch share.
func (p *parser) deleteCredential(r interface {
	GetName() string
	GetEtag() string
	GetForce() bool
},
) *core.DeleteCredentialRequest {
	return &core.DeleteCredentialRequest{
		Name: name(p, "name", r.GetName(), resourcename.ParseCredential), Etag: r.GetEtag(), Force: r.GetForce(),
	}
}

func (s credentialService) BatchWriteCredentials(ctx context.Context, r *credstorev1.BatchWriteCredentialsRequest) (*credstorev1.BatchWriteCredentialsResponse, error) {
	var p parser
	parent := name(&p, "parent", r.GetParent(), resourcename.ParseProject)
	operations := p.operations(parent, r.GetOperations())
	m, err := p.mutation(r, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	written, err := s.store.BatchWrite(ctx, core.BatchWriteRequest{Mutation: m, Project: parent, Operations: operations})
	if err != nil {
		return nil, err
	}
	return &credstorev1.BatchWriteCredentialsResponse{Credentials: convertAll(written, s.message)}, nil
}

// operations parses those of a batch; the domain refuses one that is empty, and
// too many, before which not more are parsed than it accepts.
func (p *parser) operations(parent resourcename.Project, list []*credstorev1.BatchWriteCredentialsRequest_Operation) []core.BatchOperation {
	if len(list) > core.MaxBatchOperations {
		p.add("operations", fmt.Sprintf("has %d entries; 1 to %d", len(list), core.MaxBatchOperations))
		return nil
	}
	out := make([]core.BatchOperation, len(list))
	for i, o := range list {
		switch o := o.GetOperation().(type) {
		case *credstorev1.BatchWriteCredentialsRequest_Operation_Create:
			p.prefix = fmt.Sprintf("operations[%d].create.", i)
			out[i].Create = p.createCredential(parent, o.Create.GetCredentialId(), o.Create.GetCredential())
		case *credstorev1.BatchWriteCredentialsRequest_Operation_Update:
			p.prefix = fmt.Sprintf("operations[%d].update.", i)
			out[i].Update = p.updateCredential(o.Update.GetCredential(), o.Update.GetUpdateMask())
		case *credstorev1.BatchWriteCredentialsRequest_Operation_Delete:
			p.prefix = fmt.Sprintf("operations[%d].delete.", i)
			out[i].Delete = p.deleteCredential(o.Delete)
		}
	}
	p.prefix = ""
	return out
}

func (s credentialService) AccessCredential(ctx context.Context, r *credstorev1.AccessCredentialRequest) (*credstorev1.AccessCredentialResponse, error) {
	var p parser
	n, version := p.credentialOrVersion(r.GetName())
	if err := p.err(); err != nil {
		return nil, err
	}
	read, payload, err := s.store.AccessCredential(ctx, n, version)
	if err != nil {
		return nil, err
	}
	return &credstorev1.AccessCredentialResponse{Name: read.String(), Payload: payload.Message()}, nil
}

// credentialOrVersion returns version 0, the active one, for a credential.
func (p *parser) credentialOrVersion(value string) (resourcename.Credential, uint32) {
	if v, err := resourcename.ParseVersion(value); err == nil {
		return v.Parent(), v.Number
	}
	return name(p, "name", value, resourcename.ParseCredential), 0
}

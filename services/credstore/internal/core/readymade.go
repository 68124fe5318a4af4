package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// ReadyMade is a credential that the server's configuration makes where it is
// absent, as "instance-role" in the projects that may act as the server. It is a
// credential like any other from then on: one that was changed is left alone,
// one that was deleted is made again at the next start, and one that is no
// longer configured stays.
type ReadyMade struct {
	Name        resourcename.Credential
	Description string
	// Payload refers to no other credential.
	Payload credential.Payload
}

// makeReady commits those of the configured credentials that are absent from
// projects that exist. It does not wait for the feed, which does not run yet.
func (s *Store) makeReady(ctx context.Context) error {
	for _, r := range s.cfg.ReadyMade {
		if len(r.Payload.References()) > 0 {
			return fmt.Errorf("ready-made %s refers to another credential", r.Name)
		}
		v := s.model.view()
		old, _, exists := lookup[*Credential](v, keyCredential(r.Name))
		_, _, hasProject := lookup[*Project](v, keyProject(r.Name.Parent()))
		switch {
		case !hasProject:
			s.log.Warn("a credential of the configuration is not made: its project does not exist", "credential", r.Name.String())
			continue
		case exists && old.Kind != r.Payload.Kind():
			s.log.Warn("a credential of the configuration is not made: another one has its name", "credential", r.Name.String(), "kind", string(old.Kind))
			continue
		case exists:
			continue
		}
		made, err := s.makeOneReady(ctx, v, r)
		if err != nil {
			return fmt.Errorf("make %s: %w", r.Name, err)
		}
		if made {
			s.log.Info("made a credential of the configuration", "credential", r.Name.String(), "kind", string(r.Payload.Kind()))
		}
	}
	return nil
}

func (s *Store) makeOneReady(ctx context.Context, v view, r ReadyMade) (bool, error) {
	uid, err := newUID(s.cfg.Random)
	if err != nil {
		return false, err
	}
	w := &credentialsWrite{
		store: s, project: r.Name.Parent(), at: single, uids: []string{uid},
		ops: []BatchOperation{{Create: &CreateCredentialRequest{Name: r.Name, Description: r.Description, Payload: r.Payload}}},
	}
	if err := checkWrites(w.ops, single); err != nil {
		return false, err
	}
	p, err := w.plan(v)
	if err != nil {
		return false, err
	}
	if err := s.record(AsSystem(ctx), AuditEntry{Permission: CredentialsCreate, Resource: r.Name.String(), Allowed: true}); err != nil {
		return false, err
	}
	_, err = s.storage.Commit(ctx, p.batch)
	if _, ok := errors.AsType[*PreconditionError](err); ok {
		return false, nil // another server was faster
	}
	return err == nil, err
}

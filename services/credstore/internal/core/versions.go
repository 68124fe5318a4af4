package core

import (
	"context"
	"time"

	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/resourcename"
)

// ListVersions returns a page of a credential's versions, newest first.
func (s *Store) ListVersions(ctx context.Context, name resourcename.Credential, page Page) ([]Version, string, error) {
	if err := s.permit(ctx, CredentialsGet, name.Parent(), name); err != nil {
		return nil, "", err
	}
	v := s.model.view()
	c, _, ok := lookup[*Credential](v, keyCredential(name))
	if !ok {
		return nil, "", notFound(name)
	}
	prefix := prefixVersions(c.UID)
	hash := queryHash("versions", prefix)
	size, after, err := page.resolve(prefix, hash)
	if err != nil {
		return nil, "", err
	}
	var out []Version
	var next string
	v.scanBefore(prefix, after, func(key string, e entry) bool {
		ver, ok := e.value.(*Version)
		if !ok {
			return true
		}
		if len(out) == size {
			next = encodePageToken(hash, keyVersion(c.UID, out[size-1].Number))
			return false
		}
		out = append(out, ver.of(c))
		return true
	})
	return out, next, nil
}

// of completes a version with what its credential knows.
func (v *Version) of(c *Credential) Version {
	out := *v
	out.Name, out.Active = c.Name.Version(v.Number), v.Number == c.ActiveVersion
	return out
}

// ActivateVersion makes an enabled version the active one. What its payload
// refers to must be there, and the caller be allowed to use it.
func (s *Store) ActivateVersion(ctx context.Context, r ChangeVersionRequest) (*Credential, error) {
	var c *Credential
	change := func() (err error) {
		c, _, err = s.changeVersion(ctx, "ActivateCredentialVersion", r, func(e versionEdit) error {
			if e.version.State != Enabled {
				return precondition(ReasonVersionNotEnabled, r.Name, "is %s: only an enabled version can be active", e.version.State)
			}
			if e.credential.ActiveVersion == e.version.Number {
				return nil
			}
			return s.activate(ctx, e)
		})
		return err
	}
	var err error
	if s.refers(r.Name) {
		err = s.inTurn(ctx, change)
	} else {
		err = change()
	}
	return c, err
}

// refers says whether a version's payload refers to anything, as far as this
// server knows.
func (s *Store) refers(name resourcename.Version) bool {
	c, _, ok := lookup[*Credential](s.model, keyCredential(name.Parent()))
	if !ok {
		return false
	}
	v, _, ok := lookup[*Version](s.model, keyVersion(c.UID, name.Number))
	return ok && len(v.References) > 0
}

// activate plans that another version becomes the active one.
func (s *Store) activate(ctx context.Context, e versionEdit) error {
	c := e.credential
	if err := s.permitReferences(ctx, c.Kind, e.version.References); err != nil {
		return err
	}
	record, _ := e.view.get(keyVersion(c.UID, e.version.Number))
	payload, err := s.open(c.UID, e.version.Number, record.sealed)
	if err != nil {
		return err
	}
	if e.validateOnly || !s.isActivePayload(e.view, c, payload) {
		c.RotateTime = e.now
	}
	g := newGraph(e.view)
	g.add(&written{
		name: c.Name, kind: c.Kind, before: sourcesIn(c.References), now: sourcesIn(e.version.References), payload: payload,
		field: func(string) string { return "name" },
	})
	c.activate(e.version)
	return s.planReferences(e.plan, g, e.now)
}

// DisableVersion makes a version's payload inaccessible until it is enabled.
func (s *Store) DisableVersion(ctx context.Context, r ChangeVersionRequest) (*Version, error) {
	_, v, err := s.changeVersion(ctx, "DisableCredentialVersion", r, func(e versionEdit) error {
		switch v := e.version; {
		case v.State == Destroyed:
			return precondition(ReasonVersionDestroyed, r.Name, "is destroyed")
		case v.Number == e.credential.ActiveVersion:
			return precondition(ReasonVersionActive, r.Name, "is the active version: activate another one first")
		}
		e.version.State = Disabled
		return nil
	})
	return v, err
}

// EnableVersion undoes a disable.
func (s *Store) EnableVersion(ctx context.Context, r ChangeVersionRequest) (*Version, error) {
	_, v, err := s.changeVersion(ctx, "EnableCredentialVersion", r, func(e versionEdit) error {
		if e.version.State == Destroyed {
			return precondition(ReasonVersionDestroyed, r.Name, "is destroyed")
		}
		e.version.State = Enabled
		return nil
	})
	return v, err
}

// DestroyVersion erases a version's payload for good.
func (s *Store) DestroyVersion(ctx context.Context, r ChangeVersionRequest) (*Version, error) {
	_, v, err := s.changeVersion(ctx, "DestroyCredentialVersion", r, func(e versionEdit) error {
		if e.version.Number == e.credential.ActiveVersion {
			return precondition(ReasonVersionActive, r.Name, "is the active version: activate another one first")
		}
		if e.version.State != Destroyed {
			e.version.State, e.version.DestroyTime = Destroyed, e.now
		}
		removeMinted(e.view, e.plan, e.credential, func(version uint32) bool { return version == e.version.Number })
		return nil
	})
	return v, err
}

// versionEdit is what a change of a version works on: copies of the version and
// its credential, to be changed, and the plan, to be added to.
type versionEdit struct {
	view         view
	plan         *plan
	credential   *Credential
	version      *Version
	now          time.Time
	validateOnly bool
}

// changeVersion lets edit change a version and its credential, and returns both
// as they are then.
func (s *Store) changeVersion(ctx context.Context, method string, r ChangeVersionRequest, edit func(versionEdit) error) (*Credential, *Version, error) {
	name := r.Name.Parent()
	if err := s.permit(ctx, CredentialsUpdate, resourcename.Project{ID: name.Project}, r.Name); err != nil {
		return nil, nil, err
	}
	var c *Credential
	var changed Version
	res, err := s.change(ctx, r.Mutation, method, name.Project, func(v view) (*plan, error) {
		now := time.Now()
		var rev Revision
		var err error
		if c, rev, err = editable(v, name, r.Etag, now); err != nil {
			return nil, err
		}
		key := keyVersion(c.UID, r.Name.Number)
		old, _, ok := lookup[*Version](v, key)
		if !ok {
			return nil, notFound(r.Name)
		}
		changed = *old
		p := &plan{name: r.Name.String()}
		e := versionEdit{view: v, plan: p, credential: c, version: &changed, now: now, validateOnly: r.ValidateOnly}
		if err := edit(e); err != nil {
			return nil, err
		}
		p.require(AtRevision, keyCredential(name), rev)
		if changed.State != old.State {
			e, _ := v.get(key)
			payload := e.sealed
			if changed.State == Destroyed {
				payload = nil
			}
			if err := s.putVersion(p, c.UID, &changed, payload); err != nil {
				return nil, err
			}
		}
		p.response = &recordv1.VersionChange{
			Credential: asCredentialRecord(c), Version: asVersionRecord(&changed),
		}
		return p, s.put(p, keyCredential(name), encodeCredential(c))
	})
	if err != nil {
		return nil, nil, err
	}
	if res.replayed != nil {
		if c, changed, err = decodeVersionChange(name, res.replayed.response, res.rev); err != nil {
			return nil, nil, err
		}
	}
	c.Etag = etagOf(c.UID, res.rev)
	out := changed.of(c)
	return c, &out, nil
}

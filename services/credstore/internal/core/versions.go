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

// ActivateVersion makes an enabled version the active one.
func (s *Store) ActivateVersion(ctx context.Context, r ChangeVersionRequest) (*Credential, error) {
	c, _, err := s.changeVersion(ctx, "ActivateCredentialVersion", r, func(c *Credential, v *Version, now time.Time) error {
		if v.State != Enabled {
			return precondition(ReasonVersionNotEnabled, r.Name, "is %s: only an enabled version can be active", v.State)
		}
		if c.ActiveVersion != v.Number {
			c.activate(v)
			c.RotateTime = now
		}
		return nil
	})
	return c, err
}

// DisableVersion makes a version's payload inaccessible until it is enabled.
func (s *Store) DisableVersion(ctx context.Context, r ChangeVersionRequest) (*Version, error) {
	_, v, err := s.changeVersion(ctx, "DisableCredentialVersion", r, func(c *Credential, v *Version, _ time.Time) error {
		switch {
		case v.State == Destroyed:
			return precondition(ReasonVersionDestroyed, r.Name, "is destroyed")
		case v.Number == c.ActiveVersion:
			return precondition(ReasonVersionActive, r.Name, "is the active version: activate another one first")
		}
		v.State = Disabled
		return nil
	})
	return v, err
}

// EnableVersion undoes a disable.
func (s *Store) EnableVersion(ctx context.Context, r ChangeVersionRequest) (*Version, error) {
	_, v, err := s.changeVersion(ctx, "EnableCredentialVersion", r, func(_ *Credential, v *Version, _ time.Time) error {
		if v.State == Destroyed {
			return precondition(ReasonVersionDestroyed, r.Name, "is destroyed")
		}
		v.State = Enabled
		return nil
	})
	return v, err
}

// DestroyVersion erases a version's payload for good.
func (s *Store) DestroyVersion(ctx context.Context, r ChangeVersionRequest) (*Version, error) {
	_, v, err := s.changeVersion(ctx, "DestroyCredentialVersion", r, func(c *Credential, v *Version, now time.Time) error {
		if v.Number == c.ActiveVersion {
			return precondition(ReasonVersionActive, r.Name, "is the active version: activate another one first")
		}
		if v.State != Destroyed {
			v.State, v.DestroyTime = Destroyed, now
		}
		return nil
	})
	return v, err
}

// changeVersion lets edit change a version and its credential, and returns both
// as they are then.
func (s *Store) changeVersion(ctx context.Context, method string, r ChangeVersionRequest, edit func(*Credential, *Version, time.Time) error) (*Credential, *Version, error) {
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
		if err := edit(c, &changed, now); err != nil {
			return nil, err
		}
		p := &plan{name: r.Name.String()}
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

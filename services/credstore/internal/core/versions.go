package core

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
)

// ListVersions returns a credential and a page of its versions, newest first.
func (s *Store) ListVersions(ctx context.Context, name resourcename.Credential, page Page) (*Credential, []Version, string, error) {
	if err := s.permit(ctx, CredentialsGet, name.Parent(), name); err != nil {
		return nil, nil, "", err
	}
	c, _, ok := lookup[*Credential](s.model, keyCredential(name))
	if !ok {
		return nil, nil, "", notFound(name)
	}
	hash := queryHash("versions", name.String(), c.UID)
	size, after, err := page.resolve("", hash)
	if err != nil {
		return nil, nil, "", err
	}
	below := uint64(1) << 32
	if after != "" {
		if below, err = strconv.ParseUint(after, 10, 32); err != nil {
			return nil, nil, "", invalidField("pageToken", "is not a token from this server")
		}
	}
	var out []Version
	for _, v := range slices.Backward(c.Versions) {
		if uint64(v.Number) >= below {
			continue
		}
		if len(out) == size {
			last := out[size-1].Number
			return c, out, encodePageToken(hash, strconv.FormatUint(uint64(last), 10)), nil
		}
		out = append(out, v)
	}
	return c, out, "", nil
}

// ActivateVersion makes an enabled version the active one.
func (s *Store) ActivateVersion(ctx context.Context, r ChangeVersionRequest) (*Credential, error) {
	return s.changeVersion(ctx, "ActivateCredentialVersion", r, func(p *plan, c *Credential, v *Version, now time.Time) error {
		if v.State != Enabled {
			return precondition(ReasonVersionNotEnabled, r.Name, "is %s: only an enabled version can be active", v.State)
		}
		if c.ActiveVersion != v.Number {
			c.ActiveVersion, c.RotateTime = v.Number, now
		}
		return nil
	})
}

// DisableVersion makes a version's payload inaccessible until it is enabled.
func (s *Store) DisableVersion(ctx context.Context, r ChangeVersionRequest) (*Credential, error) {
	return s.changeVersion(ctx, "DisableCredentialVersion", r, func(_ *plan, c *Credential, v *Version, _ time.Time) error {
		switch {
		case v.State == Destroyed:
			return precondition(ReasonVersionDestroyed, r.Name, "is destroyed")
		case v.Number == c.ActiveVersion:
			return precondition(ReasonVersionActive, r.Name, "is the active version: activate another one first")
		}
		v.State = Disabled
		return nil
	})
}

// EnableVersion undoes a disable.
func (s *Store) EnableVersion(ctx context.Context, r ChangeVersionRequest) (*Credential, error) {
	return s.changeVersion(ctx, "EnableCredentialVersion", r, func(_ *plan, _ *Credential, v *Version, _ time.Time) error {
		if v.State == Destroyed {
			return precondition(ReasonVersionDestroyed, r.Name, "is destroyed")
		}
		v.State = Enabled
		return nil
	})
}

// DestroyVersion erases a version's payload for good.
func (s *Store) DestroyVersion(ctx context.Context, r ChangeVersionRequest) (*Credential, error) {
	return s.changeVersion(ctx, "DestroyCredentialVersion", r, func(p *plan, c *Credential, v *Version, now time.Time) error {
		if v.Number == c.ActiveVersion {
			return precondition(ReasonVersionActive, r.Name, "is the active version: activate another one first")
		}
		if v.State != Destroyed {
			v.State, v.DestroyTime = Destroyed, now
			p.remove(keyPayload(c.UID, v.Number))
		}
		return nil
	})
}

func (s *Store) changeVersion(ctx context.Context, method string, r ChangeVersionRequest, edit func(*plan, *Credential, *Version, time.Time) error) (*Credential, error) {
	name := r.Name.Parent()
	if err := s.permit(ctx, CredentialsUpdate, resourcename.Project{ID: name.Project}, r.Name); err != nil {
		return nil, err
	}
	var c *Credential
	res, err := s.change(ctx, r.Mutation, method, name.Project, func(v view) (*plan, error) {
		now := time.Now()
		var rev Revision
		var err error
		if c, rev, err = editable(v, name, r.Etag, now); err != nil {
			return nil, err
		}
		ver := c.Version(r.Name.Number)
		if ver == nil {
			return nil, notFound(r.Name)
		}
		p := &plan{name: r.Name.String()}
		if err := edit(p, c, ver, now); err != nil {
			return nil, err
		}
		key := keyCredential(name)
		p.require(AtRevision, key, rev)
		p.response = encodeCredentials([]*Credential{c})
		return p, s.put(p, key, encodeCredential(c))
	})
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		out, err := decodeCredentials(res.replayed.response, res.rev)
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}
	c.Etag = etagOf(c.UID, res.rev)
	return c, nil
}

package core

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/credstore/credstore/pkg/resourcename"
)

func newUID(random io.Reader) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	u, err := uuid.NewRandomFromReader(random)
	return u.String(), err
}

// CreateProject makes an empty project.
func (s *Store) CreateProject(ctx context.Context, r CreateProjectRequest) (*Project, error) {
	if err := s.permit(ctx, ProjectsCreate, resourcename.Project{}, r.Name); err != nil {
		return nil, err
	}
	var v invalid
	v.checkID("projectId", r.Name.ID)
	v.checkDescription("project.description", r.Description)
	v.checkLabels("project.labels", r.Labels)
	v.checkRotationPeriod("project.rotationPeriod", r.RotationPeriod)
	if err := v.err(); err != nil {
		return nil, err
	}
	uid, err := newUID(s.cfg.Random)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	p := &Project{Name: r.Name, UID: uid, Description: r.Description, Labels: r.Labels, RotationPeriod: r.RotationPeriod, CreateTime: now, UpdateTime: now}
	res, err := s.change(ctx, r.Mutation, "CreateProject", r.Name.ID, func(v view) (*plan, error) {
		key := keyProject(r.Name)
		if _, ok := v.get(key); ok {
			return nil, alreadyExists(r.Name)
		}
		pl := &plan{name: r.Name.String(), response: encodeProject(p)}
		pl.require(Absent, key, 0)
		return pl, s.put(pl, key, encodeProject(p))
	})
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeProject(r.Name, res.replayed.response, res.rev)
	}
	p.Etag = etagOf(uid, res.rev)
	return p, nil
}

// UpdateProject changes the fields of the request that are not nil.
func (s *Store) UpdateProject(ctx context.Context, r UpdateProjectRequest) (*Project, error) {
	if err := s.permit(ctx, ProjectsUpdate, r.Name, r.Name); err != nil {
		return nil, err
	}
	var bad invalid
	if r.Description != nil {
		bad.checkDescription("project.description", *r.Description)
	}
	if r.Labels != nil {
		bad.checkLabels("project.labels", *r.Labels)
	}
	if r.RotationPeriod != nil {
		bad.checkRotationPeriod("project.rotationPeriod", *r.RotationPeriod)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	var out *Project
	edit := func(v view) (*plan, error) {
		old, rev, ok := lookup[*Project](v, keyProject(r.Name))
		switch {
		case !ok:
			return nil, notFound(r.Name)
		case r.Etag != "" && r.Etag != old.Etag:
			return nil, etagMismatch(r.Name)
		}
		p := *old
		p.UpdateTime = time.Now()
		if r.Description != nil {
			p.Description = *r.Description
		}
		if r.Labels != nil {
			p.Labels = *r.Labels
		}
		if r.RotationPeriod != nil {
			p.RotationPeriod = *r.RotationPeriod
		}
		out = &p
		pl := &plan{name: r.Name.String(), response: encodeProject(&p)}
		pl.require(AtRevision, keyProject(r.Name), rev)
		return pl, s.put(pl, keyProject(r.Name), encodeProject(&p))
	}
	if r.Description == nil && r.Labels == nil && r.RotationPeriod == nil {
		if _, err := edit(s.model.view()); err != nil {
			return nil, err
		}
		return project(s.model, r.Name)
	}
	res, err := s.change(ctx, r.Mutation, "UpdateProject", r.Name.ID, edit)
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeProject(r.Name, res.replayed.response, res.rev)
	}
	out.Etag = etagOf(out.UID, res.rev)
	return out, nil
}

// GetProject returns one project.
func (s *Store) GetProject(ctx context.Context, name resourcename.Project) (*Project, error) {
	if err := s.permit(ctx, ProjectsGet, name, name); err != nil {
		return nil, err
	}
	return project(s.model, name)
}

// ListProjects returns the projects that the caller may get, by name.
func (s *Store) ListProjects(ctx context.Context, page Page) ([]*Project, string, error) {
	if err := s.permit(ctx, ProjectsList, resourcename.Project{}, nil); err != nil {
		return nil, "", err
	}
	who := PrincipalFrom(ctx)
	return listPage(s.model.view(), prefixProject, page, "projects", func(p *Project) bool {
		return who.system || s.cfg.Authorizer.Authorize(Access{
			Principal: who, Permission: ProjectsGet, Project: p.Name, ProjectUID: p.UID, Resource: p.Name.String(),
		}) == nil
	})
}

// DeleteProject removes an empty project. Requests that were made in it are
// remembered as long as all others.
func (s *Store) DeleteProject(ctx context.Context, r DeleteRequest[resourcename.Project]) error {
	if err := s.permit(ctx, ProjectsDelete, r.Name, r.Name); err != nil {
		return err
	}
	if r.Name.ID == DefaultProject {
		return precondition(ReasonProjectProtected, r.Name, "cannot be deleted: it exists in every store")
	}
	_, err := s.change(ctx, r.Mutation, "DeleteProject", r.Name.ID, func(v view) (*plan, error) {
		key := keyProject(r.Name)
		p, rev, ok := lookup[*Project](v, key)
		if !ok {
			return nil, notFound(r.Name)
		}
		if r.Etag != "" && r.Etag != p.Etag {
			return nil, etagMismatch(r.Name)
		}
		var first string
		v.scan(keyIn(r.Name.ID), func(k string, _ entry) bool { first = k; return false })
		if first != "" {
			_, kind, id, _ := splitIn(first)
			return nil, precondition(ReasonProjectNotEmpty, r.Name, "is not empty: it holds %s%s, for one", kind, id)
		}
		pl := &plan{name: r.Name.String()}
		pl.require(AtRevision, key, rev)
		pl.require(PrefixEmpty, keyIn(r.Name.ID), 0)
		pl.remove(key)
		return pl, nil
	})
	return err
}

package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

type projectService struct {
	credstorev1.UnimplementedProjectServiceServer

	store *core.Store
}

func (s projectService) CreateProject(ctx context.Context, r *credstorev1.CreateProjectRequest) (*credstorev1.Project, error) {
	var p parser
	id := resourcename.Project{ID: r.GetProjectId()}
	p.ownName("project.name", r.GetProject().GetName(), id.String(), "projectId")
	m, err := p.mutation(r, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	made, err := s.store.CreateProject(ctx, core.CreateProjectRequest{
		Mutation: m, Name: id, Description: r.GetProject().GetDescription(), Labels: r.GetProject().GetLabels(),
		RotationPeriod: p.duration("project.rotationPeriod", r.GetProject().GetRotationPeriod()),
	})
	if err != nil {
		return nil, err
	}
	return projectMessage(made), nil
}

func (s projectService) GetProject(ctx context.Context, r *credstorev1.GetProjectRequest) (*credstorev1.Project, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseProject)
	if err := p.err(); err != nil {
		return nil, err
	}
	got, err := s.store.GetProject(ctx, n)
	if err != nil {
		return nil, err
	}
	return projectMessage(got), nil
}

func (s projectService) ListProjects(ctx context.Context, r *credstorev1.ListProjectsRequest) (*credstorev1.ListProjectsResponse, error) {
	list, next, err := s.store.ListProjects(ctx, page(r))
	if err != nil {
		return nil, err
	}
	return &credstorev1.ListProjectsResponse{Projects: convertAll(list, projectMessage), NextPageToken: next}, nil
}

func (s projectService) UpdateProject(ctx context.Context, r *credstorev1.UpdateProjectRequest) (*credstorev1.Project, error) {
	var p parser
	c := r.GetProject()
	fields := p.mask(r.GetUpdateMask(), c, "description", "labels", "rotation_period")
	update := core.UpdateProjectRequest{
		Name:        name(&p, "project.name", c.GetName(), resourcename.ParseProject),
		Etag:        c.GetEtag(),
		Description: pointer(fields, "description", c.GetDescription()),
		Labels:      pointer(fields, "labels", c.GetLabels()),
	}
	if fields["rotation_period"] {
		period := p.duration("project.rotationPeriod", c.GetRotationPeriod())
		update.RotationPeriod = &period
	}
	var err error
	if update.Mutation, err = p.mutation(r, r.GetValidateOnly()); err != nil {
		return nil, err
	}
	updated, err := s.store.UpdateProject(ctx, update)
	if err != nil {
		return nil, err
	}
	return projectMessage(updated), nil
}

func (s projectService) DeleteProject(ctx context.Context, r *credstorev1.DeleteProjectRequest) (*emptypb.Empty, error) {
	var p parser
	n := name(&p, "name", r.GetName(), resourcename.ParseProject)
	m, err := p.mutation(r, false)
	if err != nil {
		return nil, err
	}
	return empty(s.store.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Mutation: m, Name: n, Etag: r.GetEtag()}))
}

// empty is the answer of a delete.
func empty(err error) (*emptypb.Empty, error) {
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

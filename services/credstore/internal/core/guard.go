package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
)

// audited says which permissions leave a line in the audit log when they are
// granted. Denials always do. A payload or token has a line of its own, written
// when it is known which version leaves.
func audited(p Permission) bool {
	_, verb, _ := strings.Cut(string(p), ".")
	switch verb {
	case "get", "list", "watch", "access", "use", "verify", "mint":
		return false
	}
	return true
}

// permit is the one step in which every call is authorized and put on record.
// resource is what the call is about, or its parent.
func (s *Store) permit(ctx context.Context, p Permission, project resourcename.Project, resource fmt.Stringer) error {
	principal := PrincipalFrom(ctx)
	if principal == nil {
		return &Error{Kind: ErrUnauthenticated, Reason: ReasonUnauthenticated, Message: "the call carries no identity: send an API token as \"Authorization: Bearer …\""}
	}
	if principal.system {
		return nil
	}
	a := Access{Principal: principal, Permission: p, Project: project}
	if resource != nil {
		a.Resource = resource.String()
	}
	switch r := resource.(type) {
	case resourcename.Credential:
		a.Credential = r
	case resourcename.Version:
		a.Credential = r.Parent()
	case resourcename.Usage:
		if r.Collection == resourcename.Credentials {
			a.Credential = resourcename.Credential{Project: r.Project, ID: r.Resource}
		}
	}
	if project.ID != "" {
		if pr, _, ok := lookup[*Project](s.model, keyProject(project)); ok {
			a.ProjectUID = pr.UID
		}
	}
	denied := s.cfg.Authorizer.Authorize(a)
	if denied == nil && !audited(p) {
		return nil
	}
	e := AuditEntry{Permission: p, Resource: a.Resource, Allowed: denied == nil}
	if denied != nil {
		e.Reason = denied.Error()
	}
	if err := s.record(ctx, e); err != nil {
		return err
	}
	if denied != nil && !errors.Is(denied, ErrPermissionDenied) {
		denied = fmt.Errorf("%w: %w", ErrPermissionDenied, denied)
	}
	return denied
}

// refuse denies a call for a reason of the domain's own, and puts it on record.
func (s *Store) refuse(ctx context.Context, p Permission, resource fmt.Stringer, why string) error {
	if err := s.record(ctx, AuditEntry{Permission: p, Resource: resource.String(), Reason: why}); err != nil {
		return err
	}
	return &Error{Kind: ErrPermissionDenied, Reason: ReasonPermissionDenied, Resource: resource.String(), Message: why}
}

// record completes an entry with the caller and appends it.
func (s *Store) record(ctx context.Context, e AuditEntry) error {
	e.Time = time.Now()
	if p := PrincipalFrom(ctx); p != nil {
		e.Principal, e.Remote = p.Name, p.Remote
	}
	e.RequestID = CallID(ctx)
	if err := s.cfg.Auditor.Record(ctx, e); err != nil {
		s.log.Error("audit log cannot be written", "error", err)
		return &Error{Kind: ErrUnavailable, Reason: ReasonAuditUnavailable, Message: "the audit log cannot be written, so the call was refused"}
	}
	return nil
}

// release puts on record that payloads are about to leave to the caller.
func (s *Store) release(ctx context.Context, p Permission, resource string, payloads []string, stream string, rev Revision) error {
	e := AuditEntry{Permission: p, Resource: resource, Allowed: true, Payloads: payloads, Revision: rev}
	if stream != "" {
		e.Subscriptions = []string{stream}
	}
	return s.record(ctx, e)
}

// recordPush puts on record that one commit's payloads go to all these streams.
func (s *Store) recordPush(ctx context.Context, payloads, streams []string, rev Revision) error {
	return s.cfg.Auditor.Record(ctx, AuditEntry{
		Time: time.Now(), Principal: "system", Permission: CredentialsWatch, Allowed: true,
		Payloads: payloads, Subscriptions: streams, Revision: rev,
	})
}

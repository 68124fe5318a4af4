package authz

import (
	"fmt"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Roles decides by the table of roles. It is immutable and safe for concurrent
// use; make one with New.
type Roles struct {
	grants map[core.Permission][core.Workload + 1]grant
}

var _ core.Authorizer = (*Roles)(nil)

// New returns the decision table.
func New() *Roles {
	r := &Roles{grants: make(map[core.Permission][core.Workload + 1]grant)}
	for _, row := range table() {
		r.grants[row.permission] = [core.Workload + 1]grant{
			core.Admin: row.admin, core.Operator: row.operator, core.Reader: row.reader, core.Workload: row.workload,
		}
	}
	return r
}

// Authorize returns nil or a *core.Error of kind core.ErrPermissionDenied that
// names the permission and what was asked for. It says the same whether or not
// the resource, or its project, exists: what is denied cannot be probed.
func (r *Roles) Authorize(a core.Access) error {
	if a.Principal != nil && r.allowed(a) {
		return nil
	}
	message := fmt.Sprintf("permission %s is missing", a.Permission)
	if a.Resource != "" {
		message += " on " + a.Resource
	}
	return &core.Error{
		Kind: core.ErrPermissionDenied, Reason: core.ReasonPermissionDenied, Resource: a.Resource,
		Message: message + ": use a token whose role and project include it",
	}
}

func (r *Roles) allowed(a core.Access) bool {
	p := a.Principal
	if p.Role > core.Workload {
		return false
	}
	switch r.grants[a.Permission][p.Role] {
	case project:
		return inProject(a)
	case server:
		return true
	case everywhere:
		return p.AllProjects
	case named:
		return inProject(a) && names(a)
	case no:
	}
	return false
}

// inProject compares uids, so that a token does not come to hold in a project
// that was deleted and created again. A project that does not exist has none.
func inProject(a core.Access) bool {
	return a.Principal.AllProjects || a.ProjectUID != "" && a.ProjectUID == a.Principal.ProjectUID
}

// names says whether the token names the credential in question. A question
// about no single credential is denied: the domain asks about each.
func names(a core.Access) bool {
	return a.Credential != (resourcename.Credential{}) && a.Principal.Names(a.Credential)
}

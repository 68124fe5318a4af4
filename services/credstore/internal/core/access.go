package core

import (
	"context"
	"slices"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
)

// Permission names what a call does, "<resource>.<verb>", as the proto option
// of each method tells it.
type Permission string

// All permissions. A method of the contract names one of them.
const (
	ProjectsCreate Permission = "projects.create"
	ProjectsGet    Permission = "projects.get"
	ProjectsList   Permission = "projects.list"
	ProjectsUpdate Permission = "projects.update"
	ProjectsDelete Permission = "projects.delete"

	TokensCreate Permission = "tokens.create"
	TokensGet    Permission = "tokens.get"
	TokensList   Permission = "tokens.list"
	TokensDelete Permission = "tokens.delete"

	CredentialsCreate Permission = "credentials.create"
	CredentialsGet    Permission = "credentials.get"
	CredentialsList   Permission = "credentials.list"
	CredentialsUpdate Permission = "credentials.update"
	CredentialsDelete Permission = "credentials.delete"
	CredentialsUse    Permission = "credentials.use"
	CredentialsAccess Permission = "credentials.access"
	CredentialsWatch  Permission = "credentials.watch"
	CredentialsVerify Permission = "credentials.verify"
	CredentialsMint   Permission = "credentials.mint"

	UsagesList    Permission = "usages.list"
	UsagesDeclare Permission = "usages.declare"

	SecretStoresCreate Permission = "secretStores.create"
	SecretStoresGet    Permission = "secretStores.get"
	SecretStoresList   Permission = "secretStores.list"
	SecretStoresUpdate Permission = "secretStores.update"
	SecretStoresDelete Permission = "secretStores.delete"
	SecretStoresUse    Permission = "secretStores.use"

	InjectionsCreate Permission = "injections.create"
	InjectionsGet    Permission = "injections.get"
	InjectionsList   Permission = "injections.list"
	InjectionsUpdate Permission = "injections.update"
	InjectionsDelete Permission = "injections.delete"

	SetsGet Permission = "sets.get"
)

// Principal is the authenticated caller with its attested attributes.
type Principal struct {
	// Name is what audit lines and consumers show, as
	// "projects/default/tokens/web".
	Name string
	// TokenUID is the permanent id of the token that was presented.
	TokenUID string
	Role     Role
	// Project and ProjectUID say where the role holds, unless AllProjects.
	Project     resourcename.Project
	ProjectUID  string
	AllProjects bool
	Attributes  map[string]string
	// Credentials are those whose payload a Workload may have.
	Credentials []resourcename.Credential
	// ExpireTime is when the principal stops being one; zero means never.
	ExpireTime time.Time
	// Remote is the caller's network address, for the audit log.
	Remote string
	// system marks the server's own work; only this package can make one.
	system bool
}

// Names says whether the principal's token names the credential.
func (p *Principal) Names(c resourcename.Credential) bool {
	return slices.Contains(p.Credentials, c)
}

type principalKey struct{}

// WithPrincipal returns a context that carries the caller.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns the caller, or nil when nobody was authenticated.
func PrincipalFrom(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// AsSystem returns a context in which the server acts for itself, as when the
// first token is made by somebody who holds the data folder and its root key.
func AsSystem(ctx context.Context) context.Context {
	return WithPrincipal(ctx, &Principal{Name: "system", Role: Admin, AllProjects: true, system: true})
}

// Access is a question to the Authorizer: may the principal do this to that?
type Access struct {
	Principal  *Principal
	Permission Permission
	// Project is the project in question with its uid; both are zero for a
	// question about the server (projects.create, projects.list).
	Project    resourcename.Project
	ProjectUID string
	// Resource is the full name of what is accessed, or of its parent for
	// creates and lists.
	Resource string
	// Credential is set when the resource is a credential or in one.
	Credential resourcename.Credential
}

// Authorizer decides. It must be fast: it is asked on every call.
type Authorizer interface {
	// Authorize returns nil or an error that wraps ErrPermissionDenied and says
	// which permission is missing.
	Authorize(Access) error
}

// AuditEntry is one line of the audit log. It never holds secret material.
type AuditEntry struct {
	Time       time.Time
	Principal  string
	Remote     string
	RequestID  string
	Permission Permission
	Resource   string
	Allowed    bool
	// Payloads names the versions whose payload leaves with this call or push.
	Payloads []string
	// Minted names the version and the token that is asked of it, as
	// "projects/default/credentials/aws/versions/1 awsAssumeRole roleArn=…". It leaves
	// with this call unless the vendor refuses it.
	Minted string
	// Subscriptions names the streams that a push goes to.
	Subscriptions []string
	// Revision is that of the commit that is pushed, else 0.
	Revision Revision
	// Reason says why a call was not allowed.
	Reason string
}

// Auditor keeps the record of who did what. A call whose entry cannot be
// written does not happen.
type Auditor interface {
	// Record appends the entry before it returns.
	Record(ctx context.Context, e AuditEntry) error
}

type requestIDKey struct{}

// WithCallID returns a context that carries an id of this call for the audit
// log; it is not the request_id of a mutation.
func WithCallID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// CallID returns the id of this call, or "".
func CallID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

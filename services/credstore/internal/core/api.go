package core

import (
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// Mutation is what every change carries beside its own fields.
type Mutation struct {
	// RequestID, if not empty, makes the change safe to repeat: 1 to 128
	// visible ASCII characters.
	RequestID string
	// Digest identifies the whole request, so that a RequestID that is used
	// for another one is noticed.
	Digest [32]byte
	// ValidateOnly checks everything and changes nothing.
	ValidateOnly bool
}

// Page asks for a part of a list.
type Page struct {
	Size  int // 0 means DefaultPageSize; above MaxPageSize means that
	Token string
}

// CreateProjectRequest asks for a new project.
type CreateProjectRequest struct {
	Mutation
	Name        resourcename.Project
	Description string
	Labels      map[string]string
	// RotationPeriod may be 0: see Project.
	RotationPeriod time.Duration
}

// UpdateProjectRequest changes the fields that are not nil.
type UpdateProjectRequest struct {
	Mutation
	Name           resourcename.Project
	Etag           string
	Description    *string
	Labels         *map[string]string
	RotationPeriod *time.Duration // 0 means DefaultRotationPeriod again
}

// CreateTokenRequest asks for a new token.
type CreateTokenRequest struct {
	Mutation
	Name        resourcename.Token
	Description string
	Role        Role
	AllProjects bool
	Attributes  map[string]string
	Credentials []resourcename.Credential
	ExpireTime  time.Time
}

// CreateCredentialRequest asks for a new credential.
type CreateCredentialRequest struct {
	Mutation
	Name        resourcename.Credential
	Description string
	Labels      map[string]string
	Payload     credential.Payload
	// RotationPeriod may be 0: see Credential.
	RotationPeriod time.Duration
	// Verify asks the vendor first; nothing is stored unless it says yes.
	Verify bool
}

// UpdateCredentialRequest changes the fields that are not nil.
type UpdateCredentialRequest struct {
	Mutation
	Name        resourcename.Credential
	Etag        string
	Description *string
	Labels      *map[string]string
	Payload     *credential.Payload
	// RotationPeriod 0 means the project's again.
	RotationPeriod *time.Duration
	// Verify is as in CreateCredentialRequest; it needs a Payload.
	Verify bool
}

// DeleteCredentialRequest removes a credential.
type DeleteCredentialRequest struct {
	Mutation
	Name  resourcename.Credential
	Etag  string
	Force bool
}

// BatchOperation is one write of a batch; exactly one field is set. The
// Mutation inside it is not used.
type BatchOperation struct {
	Create *CreateCredentialRequest
	Update *UpdateCredentialRequest
	Delete *DeleteCredentialRequest
}

// BatchWriteRequest applies all operations in one commit, or none.
type BatchWriteRequest struct {
	Mutation
	Project    resourcename.Project
	Operations []BatchOperation
}

// ChangeVersionRequest activates, disables, enables or destroys a version.
type ChangeVersionRequest struct {
	Mutation
	Name resourcename.Version
	Etag string
}

// DeleteRequest removes a resource that needs no more than its name and etag.
type DeleteRequest[N any] struct {
	Mutation
	Name N
	Etag string
}

// CreateSecretStoreRequest asks for a new secret store.
type CreateSecretStoreRequest struct {
	Mutation
	Name         resourcename.SecretStore
	Description  string
	Labels       map[string]string
	Credential   resourcename.Credential
	Vault        *VaultProvider
	PollInterval time.Duration // 0 means DefaultPollInterval
}

// UpdateSecretStoreRequest changes the fields that are not nil.
type UpdateSecretStoreRequest struct {
	Mutation
	Name         resourcename.SecretStore
	Etag         string
	Description  *string
	Labels       *map[string]string
	Credential   *resourcename.Credential
	Vault        *VaultProvider
	PollInterval *time.Duration
}

// CreateInjectionRequest asks for a new injection.
type CreateInjectionRequest struct {
	Mutation
	Name        resourcename.Injection
	Description string
	Labels      map[string]string
	Selector    map[string]string
	Items       []Item
}

// UpdateInjectionRequest changes the fields that are not nil.
type UpdateInjectionRequest struct {
	Mutation
	Name        resourcename.Injection
	Etag        string
	Description *string
	Labels      *map[string]string
	Selector    *map[string]string
	Items       *[]Item
}

// DeclareUsageRequest records that the caller uses a credential.
type DeclareUsageRequest struct {
	Mutation
	Name resourcename.Usage
	Type UsageType // 0 means UsageOther
	User string
	Link string
	TTL  time.Duration // 0 means DefaultUsageTTL
}

// View says how much of each credential a watcher gets.
type View int

// The views.
const (
	ViewMetadata View = iota + 1
	ViewPayload
)

// WatchRequest opens a watch of a project's credentials.
type WatchRequest struct {
	Project resourcename.Project
	View    View // zero means ViewMetadata
	Filter  string
	// Names, if not empty, limits the watch to these; at most MaxWatchNames.
	Names       []resourcename.Credential
	ResumeToken string
	Heartbeat   time.Duration // 0 means DefaultHeartbeat
	Consumer    string
}

// OpenSetRequest opens the stream of a workload's set.
type OpenSetRequest struct {
	Project    resourcename.Project
	Workload   string
	Injections []resourcename.Injection
	Have       map[string]string
	Heartbeat  time.Duration
}

// SetReport is what an injector says it has done.
type SetReport struct {
	Revision Revision
	Failures []ItemReport
	Goodbye  bool
}

// ItemReport says why an item could not be applied.
type ItemReport struct {
	ID      string
	Message string
}

// ItemState says how an item of a set stands.
type ItemState int

// The states of an item.
const (
	ItemOK ItemState = iota + 1
	// ItemStale: the value is the last good one, its store cannot be reached.
	ItemStale
	// ItemFailed: there is no value that may be delivered.
	ItemFailed
)

// SetItem is one item of a set. Items are shared between streams and must not
// be changed.
type SetItem struct {
	ID        string
	Injection resourcename.Injection
	File      FileTarget
	Group     string
	Digest    string
	State     ItemState
	Message   string
	Version   string
	// RefreshTime is when the value last came from its source.
	RefreshTime time.Time

	source valueSource
}

// InjectionStatus is what the server knows of an injection's workloads.
type InjectionStatus struct {
	Name      resourcename.Injection
	Items     []SetItem
	Workloads []WorkloadStatus
}

// WorkloadStatus is one workload of an injection.
type WorkloadStatus struct {
	Principal       string
	Workload        string
	Connected       bool
	SentRevision    Revision
	AppliedRevision Revision
	ReportTime      time.Time
	Failures        []ItemReport
}

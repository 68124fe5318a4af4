package core

import (
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// Limits of the domain; docs/limits.md lists them for users.
const (
	MaxLabels           = 64
	MaxLabelKey         = 63
	MaxLabelValue       = 256
	MaxDescription      = 1024
	MaxItems            = 1000
	MaxSetBytes         = 8 << 20
	MaxSecretValue      = 1 << 20
	MaxWatchNames       = 10_000
	MaxBatchOperations  = 100
	MaxTokenCredentials = 1000
	MaxFilter           = 4096

	MinPollInterval     = time.Second
	MaxPollInterval     = 24 * time.Hour
	DefaultPollInterval = 30 * time.Second

	MinHeartbeat     = time.Second
	MaxHeartbeat     = time.Hour
	DefaultHeartbeat = 30 * time.Second

	MinUsageTTL     = time.Minute
	MaxUsageTTL     = 90 * 24 * time.Hour
	DefaultUsageTTL = 24 * time.Hour

	MinRotationPeriod     = 24 * time.Hour
	MaxRotationPeriod     = 10 * 365 * 24 * time.Hour
	DefaultRotationPeriod = 90 * 24 * time.Hour
	// ExpiringBefore is how long before its end a credential counts as expiring.
	ExpiringBefore = 14 * 24 * time.Hour

	// MaxSources bounds how many credentials refer to one another in a row, as
	// roles that are assumed with roles do.
	MaxSources = 5

	DefaultPageSize = 50
	MaxPageSize     = 1000
)

// DefaultProject exists in every store.
const DefaultProject = "default"

// Project is the unit of tenancy.
type Project struct {
	Name        resourcename.Project
	UID         string
	Description string
	Labels      map[string]string
	// RotationPeriod is how long secrets may stay the same unless their
	// credential says otherwise; 0 means DefaultRotationPeriod.
	RotationPeriod time.Duration
	Etag           string
	CreateTime     time.Time
	UpdateTime     time.Time
}

// Credential is a credential's metadata. It has no payload, so what handles
// only this cannot leak one. Values handed out by a Store are shared and must
// not be changed.
type Credential struct {
	Name          resourcename.Credential
	UID           string
	Kind          credential.Kind
	Description   string
	Labels        map[string]string
	ActiveVersion uint32
	NextVersion   uint32
	// Facts, References, ExpireTime and Ageless are those of the active version.
	Facts      map[string]string
	References []string
	ExpireTime time.Time
	// Ageless: it holds no secret that should be changed from time to time.
	Ageless bool
	// RotationPeriod is how long the secret may stay the same; 0 means the
	// project's.
	RotationPeriod time.Duration
	// Verification is the last one of the active version, nil when there was none.
	Verification *Verification
	Etag         string
	CreateTime   time.Time
	UpdateTime   time.Time
	// RotateTime is when the secret last changed.
	RotateTime time.Time
}

// VerificationState says what came of a verification.
type VerificationState uint32

// The states of a verification; the numbers are stored.
const (
	Verified VerificationState = iota + 1
	// VerificationRefused: the vendor refuses it, or a check failed.
	VerificationRefused
	// VerificationUnreachable: the vendor gave no usable answer.
	VerificationUnreachable
	// VerificationUnsupported: nobody can be asked.
	VerificationUnsupported
)

// String returns the state's name in the contract.
func (s VerificationState) String() string {
	switch s {
	case Verified:
		return "VERIFIED"
	case VerificationRefused:
		return "REFUSED"
	case VerificationUnreachable:
		return "UNREACHABLE"
	case VerificationUnsupported:
		return "UNSUPPORTED"
	}
	return "STATE_UNSPECIFIED"
}

// Verification is what a vendor said of a credential. It holds no secret and
// must not be changed.
type Verification struct {
	State VerificationState
	// Version is what was verified, 0 for a payload that is not stored.
	Version  uint32
	Identity credential.Identity
	// Message says why the state is not Verified.
	Message string
	Time    time.Time
	Latency time.Duration
}

// VersionState says whether a version's payload can be had.
type VersionState uint32

// The states of a version; the numbers are stored.
const (
	Enabled VersionState = iota + 1
	Disabled
	Destroyed
)

// String returns the state's name.
func (s VersionState) String() string {
	switch s {
	case Enabled:
		return "ENABLED"
	case Disabled:
		return "DISABLED"
	case Destroyed:
		return "DESTROYED"
	}
	return "STATE_UNSPECIFIED"
}

// Version is one immutable payload's metadata.
type Version struct {
	Name resourcename.Version
	// Active says whether it is the credential's active one.
	Active      bool
	Number      uint32
	State       VersionState
	Facts       map[string]string
	References  []string
	CreateTime  time.Time
	DestroyTime time.Time // zero unless destroyed
	ExpireTime  time.Time // zero when the payload does not say
	Ageless     bool
}

// SecretStore is an external store plus the credential used to reach it.
type SecretStore struct {
	Name        resourcename.SecretStore
	UID         string
	Description string
	Labels      map[string]string
	Credential  resourcename.Credential
	// Vault is the only provider now; exactly one provider is set.
	Vault        *VaultProvider
	PollInterval time.Duration
	Etag         string
	CreateTime   time.Time
	UpdateTime   time.Time
}

// VaultProvider says where a HashiCorp Vault KV version 2 engine is.
type VaultProvider struct {
	Address   string
	Namespace string
	Mount     string // "secret" when created empty
	CAPEM     string
}

// Injection says which workloads get which values as which files.
type Injection struct {
	Name        resourcename.Injection
	UID         string
	Description string
	Labels      map[string]string
	Selector    map[string]string
	Items       []Item
	Etag        string
	CreateTime  time.Time
	UpdateTime  time.Time
}

// Item is one value with its target. Exactly one source is set.
type Item struct {
	Credential *CredentialSource
	Secret     *SecretSource
	Mint       *MintSource
	File       FileTarget
	Group      string
}

// CredentialSource is a credential's payload, or a field of it.
type CredentialSource struct {
	Name  resourcename.Credential
	Field string
}

// SecretSource is what an external store holds. Version 0 is the newest.
type SecretSource struct {
	Store   resourcename.SecretStore
	Path    string
	Key     string
	Version uint32
}

// MintSource is a token that is minted from a credential, or a field of it.
// Request is one that fits the credential's kind, once the injection is saved.
type MintSource struct {
	Credential resourcename.Credential
	Request    *credentialv1.TokenRequest
	Field      string
}

// FileTarget is a file below the injector's root.
type FileTarget struct {
	Path string
	Mode uint32 // permission bits; never 0
	UID  *uint32
	GID  *uint32
}

// UsageSource says how a usage came about.
type UsageSource uint32

// The sources of usages; the numbers are stored.
const (
	Derived UsageSource = iota + 1
	Declared
)

// UsageType says what a credential is used for.
type UsageType uint32

// The types of usages; the numbers are stored and those of the contract.
const (
	UsageOther UsageType = iota + 1
	UsageRegistryScan
	UsageServerlessScan
	UsageCloudScan
	UsageAlertChannel
	UsageDeployment
	UsageSecretStore
	UsageInjection
	UsageCredential
)

// Usage is a durable fact that somebody uses a credential or secret store.
type Usage struct {
	Name       resourcename.Usage
	Source     UsageSource
	Type       UsageType
	User       string
	Link       string
	ExpireTime time.Time // zero for derived ones
	CreateTime time.Time
	Principal  string // who declared it
}

// Consumer is a live workload that was sent a version of a credential.
type Consumer struct {
	Principal string
	Workload  string
	Injection string
	Version   uint32
	// Named: it asked for this credential by name or through an injection, so
	// that a delete would take something from it.
	Named          bool
	Connected      bool
	Since          time.Time
	AppliedVersion uint32
}

// Role is a fixed set of permissions.
type Role uint32

// The roles; the numbers are stored.
const (
	Admin Role = iota + 1
	Operator
	Reader
	Workload
)

// String returns the role's name.
func (r Role) String() string {
	switch r {
	case Admin:
		return "ADMIN"
	case Operator:
		return "OPERATOR"
	case Reader:
		return "READER"
	case Workload:
		return "WORKLOAD"
	}
	return "ROLE_UNSPECIFIED"
}

// Token is what an API token may do.
type Token struct {
	Name        resourcename.Token
	UID         string
	ProjectUID  string
	Description string
	Role        Role
	AllProjects bool
	Attributes  map[string]string
	Credentials []resourcename.Credential
	ExpireTime  time.Time // zero means never
	Etag        string
	CreateTime  time.Time

	hash []byte // SHA-256 of the secret
}

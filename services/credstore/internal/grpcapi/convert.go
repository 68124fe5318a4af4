package grpcapi

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// convertAll converts a list; an empty one is nil.
func convertAll[V, M any](values []V, convert func(V) M) []M {
	if len(values) == 0 {
		return nil
	}
	out := make([]M, len(values))
	for i, v := range values {
		out[i] = convert(v)
	}
	return out
}

// timestamp returns nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// duration returns nil for 0.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// count converts a number of things.
func count(n int) uint32 {
	if n < 0 {
		return 0
	}
	return uint32(min(n, math.MaxUint32))
}

func projectMessage(p *core.Project) *credstorev1.Project {
	return &credstorev1.Project{
		Name: p.Name.String(), Uid: p.UID, Description: p.Description, Labels: p.Labels, Etag: p.Etag,
		CreateTime: timestamp(p.CreateTime), UpdateTime: timestamp(p.UpdateTime), RotationPeriod: duration(p.RotationPeriod),
	}
}

func tokenMessage(t *core.Token) *credstorev1.Token {
	m := &credstorev1.Token{
		Name: t.Name.String(), Uid: t.UID, Description: t.Description, Role: roleMessage(t.Role),
		AllProjects: t.AllProjects, Attributes: t.Attributes, ExpireTime: timestamp(t.ExpireTime),
		Etag: t.Etag, CreateTime: timestamp(t.CreateTime),
	}
	for _, c := range t.Credentials {
		m.Credentials = append(m.Credentials, c.String())
	}
	return m
}

func roleMessage(r core.Role) credstorev1.Token_Role {
	switch r {
	case core.Admin:
		return credstorev1.Token_ADMIN
	case core.Operator:
		return credstorev1.Token_OPERATOR
	case core.Reader:
		return credstorev1.Token_READER
	case core.Workload:
		return credstorev1.Token_WORKLOAD
	}
	return credstorev1.Token_ROLE_UNSPECIFIED
}

// roleOf returns 0, no role, for one that is unknown here.
func roleOf(r credstorev1.Token_Role) core.Role {
	switch r {
	case credstorev1.Token_ADMIN:
		return core.Admin
	case credstorev1.Token_OPERATOR:
		return core.Operator
	case credstorev1.Token_READER:
		return core.Reader
	case credstorev1.Token_WORKLOAD:
		return core.Workload
	case credstorev1.Token_ROLE_UNSPECIFIED:
	}
	return 0
}

// credentialMessage never sets the payload: the domain's type has none.
func credentialMessage(c *core.Credential) *credstorev1.Credential {
	return &credstorev1.Credential{
		Name: c.Name.String(), Uid: c.UID, Kind: string(c.Kind), Description: c.Description, Labels: c.Labels,
		ActiveVersion: c.ActiveVersion, Etag: c.Etag, Facts: c.Facts, References: c.References, ExpireTime: timestamp(c.ExpireTime),
		CreateTime: timestamp(c.CreateTime), UpdateTime: timestamp(c.UpdateTime), RotateTime: timestamp(c.RotateTime),
		RotationPeriod: duration(c.RotationPeriod), Verification: verificationMessage(c.Verification),
	}
}

func versionMessage(v *core.Version) *credstorev1.CredentialVersion {
	return &credstorev1.CredentialVersion{
		Name: v.Name.String(), Version: v.Number, State: versionState(v.State),
		Active: v.Active, Facts: v.Facts,
		CreateTime: timestamp(v.CreateTime), DestroyTime: timestamp(v.DestroyTime), ExpireTime: timestamp(v.ExpireTime),
	}
}

func versionState(s core.VersionState) credstorev1.CredentialVersion_State {
	switch s {
	case core.Enabled:
		return credstorev1.CredentialVersion_ENABLED
	case core.Disabled:
		return credstorev1.CredentialVersion_DISABLED
	case core.Destroyed:
		return credstorev1.CredentialVersion_DESTROYED
	}
	return credstorev1.CredentialVersion_STATE_UNSPECIFIED
}

func usageMessage(u core.Usage) *credstorev1.Usage {
	m := &credstorev1.Usage{
		Name: u.Name.String(), User: u.User, Link: u.Link, Type: credstorev1.Usage_Type(u.Type),
		ExpireTime: timestamp(u.ExpireTime), CreateTime: timestamp(u.CreateTime),
	}
	switch u.Source {
	case core.Derived:
		m.Source = credstorev1.Usage_DERIVED
	case core.Declared:
		m.Source = credstorev1.Usage_DECLARED
	}
	return m
}

func consumerMessage(c core.Consumer) *credstorev1.Consumer {
	return &credstorev1.Consumer{
		Principal: c.Principal, Workload: c.Workload, Injection: c.Injection, Version: c.Version,
		Named: c.Named, Connected: c.Connected, Since: timestamp(c.Since), AppliedVersion: c.AppliedVersion,
	}
}

func secretStoreMessage(s *core.SecretStore) *credstorev1.SecretStore {
	m := &credstorev1.SecretStore{
		Name: s.Name.String(), Uid: s.UID, Description: s.Description, Labels: s.Labels, Credential: s.Credential.String(),
		Delivery: credstorev1.SecretStore_BROKERED, PollInterval: durationpb.New(s.PollInterval), Etag: s.Etag,
		CreateTime: timestamp(s.CreateTime), UpdateTime: timestamp(s.UpdateTime),
	}
	if v := s.Vault; v != nil {
		m.Provider = &credstorev1.SecretStore_Vault{Vault: &credstorev1.VaultProvider{
			Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, CaPem: v.CAPEM,
		}}
	}
	return m
}

func injectionMessage(i *core.Injection) *credstorev1.Injection {
	return &credstorev1.Injection{
		Name: i.Name.String(), Uid: i.UID, Description: i.Description, Labels: i.Labels, Selector: i.Selector,
		Items: convertAll(i.Items, itemMessage), Etag: i.Etag,
		CreateTime: timestamp(i.CreateTime), UpdateTime: timestamp(i.UpdateTime),
	}
}

func itemMessage(i core.Item) *credstorev1.Item {
	m := &credstorev1.Item{Target: &credstorev1.Item_File{File: fileMessage(i.File)}, Group: i.Group}
	switch {
	case i.Credential != nil:
		m.Source = &credstorev1.Item_Credential{Credential: &credstorev1.CredentialSource{
			Name: i.Credential.Name.String(), Field: i.Credential.Field,
		}}
	case i.Secret != nil:
		m.Source = &credstorev1.Item_Secret{Secret: &credstorev1.SecretSource{
			Store: i.Secret.Store.String(), Path: i.Secret.Path, Key: i.Secret.Key, Version: i.Secret.Version,
		}}
	case i.Mint != nil:
		m.Source = &credstorev1.Item_Mint{Mint: &credstorev1.MintSource{
			Credential: i.Mint.Credential.String(), Token: i.Mint.Request, Field: i.Mint.Field,
		}}
	}
	return m
}

func fileMessage(f core.FileTarget) *credstorev1.FileTarget {
	return &credstorev1.FileTarget{Path: f.Path, Mode: fmt.Sprintf("%04o", f.Mode), Uid: f.UID, Gid: f.GID}
}

func statusMessage(s *core.InjectionStatus) *credstorev1.InjectionStatus {
	return &credstorev1.InjectionStatus{
		Name: s.Name.String(),
		Items: convertAll(s.Items, func(i core.SetItem) *credstorev1.InjectionStatus_ItemStatus {
			return &credstorev1.InjectionStatus_ItemStatus{
				Path: i.File.Path, State: itemState(i.State), Message: i.Message, Version: i.Version, RefreshTime: timestamp(i.RefreshTime),
			}
		}),
		Workloads: convertAll(s.Workloads, func(w core.WorkloadStatus) *credstorev1.InjectionStatus_WorkloadStatus {
			return &credstorev1.InjectionStatus_WorkloadStatus{
				Principal: w.Principal, Workload: w.Workload, Connected: w.Connected,
				SentRevision: uint64(w.SentRevision), AppliedRevision: uint64(w.AppliedRevision), ReportTime: timestamp(w.ReportTime),
				Failures: convertAll(w.Failures, func(r core.ItemReport) *credstorev1.ItemReport {
					return &credstorev1.ItemReport{Id: r.ID, Message: r.Message}
				}),
			}
		}),
	}
}

func itemState(s core.ItemState) credstorev1.SetItem_State {
	switch s {
	case core.ItemOK:
		return credstorev1.SetItem_OK
	case core.ItemStale:
		return credstorev1.SetItem_STALE
	case core.ItemFailed:
		return credstorev1.SetItem_FAILED
	}
	return credstorev1.SetItem_STATE_UNSPECIFIED
}

// setMessage is secret: it holds contents.
func setMessage(u *core.SetUpdate) *credstorev1.Set {
	m := &credstorev1.Set{Revision: uint64(u.Revision), Whole: u.Whole, Removed: u.Removed}
	for i := range u.Items {
		it := &u.Items[i]
		item := &credstorev1.SetItem{
			Id: it.ID, Injection: it.Injection.String(), File: fileMessage(it.File), Group: it.Group,
			Digest: it.Digest, State: itemState(it.State), Message: it.Message, Version: it.Version,
		}
		if content, ok := u.Contents[it.ID]; ok {
			if content == nil {
				content = []byte{} // an empty file, not an absent one
			}
			item.Content = content
		}
		m.Items = append(m.Items, item)
	}
	return m
}

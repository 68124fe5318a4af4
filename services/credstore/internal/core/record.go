package core

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// This file turns resources into records and back. It is the only one that
// knows how they are stored.

// etagOf changes with every change of a resource, and differs between a
// resource and a later one of the same name.
func etagOf(uid string, r Revision) string {
	if len(uid) > 8 {
		uid = uid[:8]
	}
	return strconv.FormatUint(uint64(r), 36) + "-" + uid
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func unstamp(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// span is a duration's record; 0 is not kept.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// asCredentialRecord is encodeCredential for a message inside of another.
func asCredentialRecord(c *Credential) *recordv1.Credential {
	m, _ := encodeCredential(c).(*recordv1.Credential)
	return m
}

func asVersionRecord(v *Version) *recordv1.Version {
	m, _ := encodeVersion(v).(*recordv1.Version)
	return m
}

func decodeVersionChange(name resourcename.Credential, b []byte, rev Revision) (*Credential, Version, error) {
	var m recordv1.VersionChange
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, Version{}, err
	}
	cb, err := marshal(m.GetCredential())
	if err != nil {
		return nil, Version{}, err
	}
	vb, err := marshal(m.GetVersion())
	if err != nil {
		return nil, Version{}, err
	}
	c, err := decodeCredential(name, cb, rev)
	if err != nil {
		return nil, Version{}, err
	}
	v, err := decodeVersion(vb)
	if err != nil {
		return nil, Version{}, err
	}
	return c, *v, nil
}

func encodeProject(p *Project) proto.Message {
	return &recordv1.Project{
		Uid: p.UID, Description: p.Description, Labels: p.Labels,
		CreateTime: stamp(p.CreateTime), UpdateTime: stamp(p.UpdateTime), RotationPeriod: span(p.RotationPeriod),
	}
}

func decodeProject(name resourcename.Project, b []byte, rev Revision) (*Project, error) {
	var m recordv1.Project
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return &Project{
		Name: name, UID: m.GetUid(), Description: m.GetDescription(), Labels: m.GetLabels(),
		Etag: etagOf(m.GetUid(), rev), CreateTime: unstamp(m.GetCreateTime()), UpdateTime: unstamp(m.GetUpdateTime()),
		RotationPeriod: m.GetRotationPeriod().AsDuration(),
	}, nil
}

func encodeCredential(c *Credential) proto.Message {
	m := &recordv1.Credential{
		Uid: c.UID, Kind: string(c.Kind), Description: c.Description, Labels: c.Labels,
		ActiveVersion: c.ActiveVersion, NextVersion: c.NextVersion,
		Facts: c.Facts, References: c.References, ExpireTime: stamp(c.ExpireTime),
		CreateTime: stamp(c.CreateTime), UpdateTime: stamp(c.UpdateTime), RotateTime: stamp(c.RotateTime),
		RotationPeriod: span(c.RotationPeriod), Verification: asVerificationRecord(c.Verification), Ageless: c.Ageless,
	}
	return m
}

func decodeCredential(name resourcename.Credential, b []byte, rev Revision) (*Credential, error) {
	var m recordv1.Credential
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	c := &Credential{
		Name: name, UID: m.GetUid(), Kind: credential.Kind(m.GetKind()), Description: m.GetDescription(), Labels: m.GetLabels(),
		ActiveVersion: m.GetActiveVersion(), NextVersion: m.GetNextVersion(), Etag: etagOf(m.GetUid(), rev),
		Facts: m.GetFacts(), References: m.GetReferences(), ExpireTime: unstamp(m.GetExpireTime()),
		CreateTime: unstamp(m.GetCreateTime()), UpdateTime: unstamp(m.GetUpdateTime()), RotateTime: unstamp(m.GetRotateTime()),
		RotationPeriod: m.GetRotationPeriod().AsDuration(), Verification: fromVerificationRecord(m.GetVerification()), Ageless: m.GetAgeless(),
	}
	return c, nil
}

func encodeVersion(v *Version) proto.Message {
	return &recordv1.Version{
		Number: v.Number, State: uint32(v.State), Facts: v.Facts, References: v.References,
		CreateTime: stamp(v.CreateTime), DestroyTime: stamp(v.DestroyTime), ExpireTime: stamp(v.ExpireTime), Ageless: v.Ageless,
	}
}

func decodeVersion(b []byte) (*Version, error) {
	var m recordv1.Version
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return &Version{
		Number: m.GetNumber(), State: VersionState(m.GetState()), Facts: m.GetFacts(), References: m.GetReferences(),
		CreateTime: unstamp(m.GetCreateTime()), DestroyTime: unstamp(m.GetDestroyTime()), ExpireTime: unstamp(m.GetExpireTime()),
		Ageless: m.GetAgeless(),
	}, nil
}

func asVerificationRecord(v *Verification) *recordv1.Verification {
	if v == nil {
		return nil
	}
	m := &recordv1.Verification{
		State: uint32(v.State), Version: v.Version, Identity: v.Identity.Name, Facts: v.Identity.Facts, Message: v.Message,
		VerifyTime: stamp(v.Time), Latency: durationpb.New(v.Latency),
	}
	for _, c := range v.Identity.Checks {
		m.Checks = append(m.Checks, &recordv1.Verification_Check{Name: c.Name, Passed: c.Passed, Message: c.Message})
	}
	return m
}

func fromVerificationRecord(m *recordv1.Verification) *Verification {
	if m == nil {
		return nil
	}
	v := &Verification{
		State: VerificationState(m.GetState()), Version: m.GetVersion(), Message: m.GetMessage(),
		Identity: credential.Identity{Name: m.GetIdentity(), Facts: m.GetFacts()},
		Time:     unstamp(m.GetVerifyTime()), Latency: m.GetLatency().AsDuration(),
	}
	for _, c := range m.GetChecks() {
		v.Identity.Checks = append(v.Identity.Checks, credential.Check{Name: c.GetName(), Passed: c.GetPassed(), Message: c.GetMessage()})
	}
	return v
}

// A version's record is its metadata and its payload, each sealed for itself, so
// that one can be read without opening the other; the length of the first comes
// before it. A destroyed version has no second part.
func joinVersion(metadata, payload []byte) []byte {
	b := make([]byte, 0, binary.MaxVarintLen64+len(metadata)+len(payload))
	b = binary.AppendUvarint(b, uint64(len(metadata)))
	return append(append(b, metadata...), payload...)
}

func cutVersion(record []byte) (metadata, payload []byte, err error) {
	n, size := binary.Uvarint(record)
	if size <= 0 || n > uint64(len(record)-size) {
		return nil, nil, ErrSealBroken
	}
	rest := record[size:]
	return rest[:n:n], rest[n:], nil
}

// payloadPlace is where a version's payload is bound to; the mark keeps it apart
// from the metadata in the same record.
func payloadPlace(uid string, version uint32) Place {
	return Place{Key: keyVersion(uid, version) + "#payload", UID: uid, Version: uint64(version)}
}

func versionPlace(uid string, version uint32) Place {
	return Place{Key: keyVersion(uid, version), UID: uid, Version: uint64(version)}
}

func encodeCredentials(cs []*Credential) proto.Message {
	m := &recordv1.Credentials{}
	for _, c := range cs {
		n := &recordv1.Credentials_Named{Name: c.Name.String()}
		if c.UID != "" {
			n.Credential = asCredentialRecord(c)
		}
		m.Credentials = append(m.Credentials, n)
	}
	return m
}

func decodeCredentials(b []byte, rev Revision) ([]*Credential, error) {
	var m recordv1.Credentials
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	var out []*Credential
	for _, n := range m.GetCredentials() {
		name, err := resourcename.ParseCredential(n.GetName())
		if err != nil {
			return nil, err
		}
		c := &Credential{Name: name}
		if n.Credential != nil {
			inner, err := marshal(n.Credential)
			if err != nil {
				return nil, err
			}
			if c, err = decodeCredential(name, inner, rev); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// tomb is what is kept of a deleted credential for as long as a watcher may
// resume from before.
type tomb struct{ uid string }

func encodeTomb(uid string) proto.Message { return &recordv1.Tomb{Uid: uid} }

func decodeTomb(b []byte) (tomb, error) {
	var m recordv1.Tomb
	err := proto.Unmarshal(b, &m)
	return tomb{uid: m.GetUid()}, err
}

func encodeStore(s *SecretStore) proto.Message {
	m := &recordv1.SecretStore{
		Uid: s.UID, Description: s.Description, Labels: s.Labels, Credential: s.Credential.String(),
		PollInterval: durationpb.New(s.PollInterval), CreateTime: stamp(s.CreateTime), UpdateTime: stamp(s.UpdateTime),
	}
	if v := s.Vault; v != nil {
		m.Provider = &recordv1.SecretStore_Vault{Vault: &recordv1.VaultProvider{
			Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, CaPem: v.CAPEM,
		}}
	}
	return m
}

func decodeStore(name resourcename.SecretStore, b []byte, rev Revision) (*SecretStore, error) {
	var m recordv1.SecretStore
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	cred, err := resourcename.ParseCredential(m.GetCredential())
	if err != nil {
		return nil, err
	}
	s := &SecretStore{
		Name: name, UID: m.GetUid(), Description: m.GetDescription(), Labels: m.GetLabels(), Credential: cred,
		PollInterval: m.GetPollInterval().AsDuration(), Etag: etagOf(m.GetUid(), rev),
		CreateTime: unstamp(m.GetCreateTime()), UpdateTime: unstamp(m.GetUpdateTime()),
	}
	if v := m.GetVault(); v != nil {
		s.Vault = &VaultProvider{Address: v.GetAddress(), Namespace: v.GetNamespace(), Mount: v.GetMount(), CAPEM: v.GetCaPem()}
	}
	return s, nil
}

func encodeInjection(i *Injection) proto.Message {
	m := &recordv1.Injection{
		Uid: i.UID, Description: i.Description, Labels: i.Labels, Selector: i.Selector,
		CreateTime: stamp(i.CreateTime), UpdateTime: stamp(i.UpdateTime),
	}
	for _, it := range i.Items {
		r := &recordv1.Item{
			Group:  it.Group,
			Target: &recordv1.Item_File{File: &recordv1.File{Path: it.File.Path, Mode: it.File.Mode, Uid: it.File.UID, Gid: it.File.GID}},
		}
		switch {
		case it.Credential != nil:
			r.Source = &recordv1.Item_Credential{Credential: &recordv1.CredentialSource{Name: it.Credential.Name.String(), Field: it.Credential.Field}}
		case it.Secret != nil:
			r.Source = &recordv1.Item_Secret{Secret: &recordv1.SecretSource{
				Store: it.Secret.Store.String(), Path: it.Secret.Path, Key: it.Secret.Key, Version: it.Secret.Version,
			}}
		case it.Mint != nil:
			r.Source = &recordv1.Item_Mint{Mint: &recordv1.MintSource{
				Credential: it.Mint.Credential.String(), Token: it.Mint.Request, Field: it.Mint.Field,
			}}
		}
		m.Items = append(m.Items, r)
	}
	return m
}

func decodeInjection(name resourcename.Injection, b []byte, rev Revision) (*Injection, error) {
	var m recordv1.Injection
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	i := &Injection{
		Name: name, UID: m.GetUid(), Description: m.GetDescription(), Labels: m.GetLabels(), Selector: m.GetSelector(),
		Etag: etagOf(m.GetUid(), rev), CreateTime: unstamp(m.GetCreateTime()), UpdateTime: unstamp(m.GetUpdateTime()),
	}
	for _, r := range m.GetItems() {
		f := r.GetFile()
		it := Item{Group: r.GetGroup(), File: FileTarget{Path: f.GetPath(), Mode: f.GetMode()}}
		if f != nil {
			it.File.UID, it.File.GID = f.Uid, f.Gid
		}
		if c := r.GetCredential(); c != nil {
			n, err := resourcename.ParseCredential(c.GetName())
			if err != nil {
				return nil, err
			}
			it.Credential = &CredentialSource{Name: n, Field: c.GetField()}
		}
		if s := r.GetSecret(); s != nil {
			n, err := resourcename.ParseSecretStore(s.GetStore())
			if err != nil {
				return nil, err
			}
			it.Secret = &SecretSource{Store: n, Path: s.GetPath(), Key: s.GetKey(), Version: s.GetVersion()}
		}
		if m := r.GetMint(); m != nil {
			n, err := resourcename.ParseCredential(m.GetCredential())
			if err != nil {
				return nil, err
			}
			it.Mint = &MintSource{Credential: n, Request: m.GetToken(), Field: m.GetField()}
		}
		if it.sources() != 1 {
			return nil, fmt.Errorf("record of %s has an item without exactly one source", name)
		}
		i.Items = append(i.Items, it)
	}
	return i, nil
}

// sources counts the sources that are set.
func (i *Item) sources() int {
	n := 0
	for _, set := range []bool{i.Credential != nil, i.Secret != nil, i.Mint != nil} {
		if set {
			n++
		}
	}
	return n
}

func encodeUsage(u *Usage) proto.Message {
	return &recordv1.Usage{
		Source: uint32(u.Source), User: u.User, Link: u.Link,
		ExpireTime: stamp(u.ExpireTime), CreateTime: stamp(u.CreateTime), Principal: u.Principal, Type: uint32(u.Type),
	}
}

func decodeUsage(name resourcename.Usage, b []byte) (*Usage, error) {
	var m recordv1.Usage
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return &Usage{
		Name: name, Source: UsageSource(m.GetSource()), User: m.GetUser(), Link: m.GetLink(),
		ExpireTime: unstamp(m.GetExpireTime()), CreateTime: unstamp(m.GetCreateTime()), Principal: m.GetPrincipal(),
		Type: usageType(m.GetType(), name.ID),
	}, nil
}

// usageType reads a usage's type. Records older than the field have none.
func usageType(stored uint32, id string) UsageType {
	collection, _, derived := strings.Cut(id, ".")
	switch {
	case stored != 0:
		return UsageType(stored)
	case derived && collection == resourcename.SecretStores:
		return UsageSecretStore
	case derived && collection == resourcename.Injections:
		return UsageInjection
	case derived && collection == resourcename.Credentials:
		return UsageCredential
	}
	return UsageOther
}

func encodeToken(t *Token) proto.Message {
	m := &recordv1.Token{
		Uid: t.UID, ProjectUid: t.ProjectUID, Description: t.Description, Role: uint32(t.Role), AllProjects: t.AllProjects,
		Attributes: t.Attributes, ExpireTime: stamp(t.ExpireTime), CreateTime: stamp(t.CreateTime), Hash: t.hash,
	}
	for _, c := range t.Credentials {
		m.Credentials = append(m.Credentials, c.String())
	}
	return m
}

func decodeToken(name resourcename.Token, b []byte, rev Revision) (*Token, error) {
	var m recordv1.Token
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	t := &Token{
		Name: name, UID: m.GetUid(), ProjectUID: m.GetProjectUid(), Description: m.GetDescription(), Role: Role(m.GetRole()),
		AllProjects: m.GetAllProjects(), Attributes: m.GetAttributes(), Etag: etagOf(m.GetUid(), rev),
		ExpireTime: unstamp(m.GetExpireTime()), CreateTime: unstamp(m.GetCreateTime()), hash: m.GetHash(),
	}
	for _, c := range m.GetCredentials() {
		n, err := resourcename.ParseCredential(c)
		if err != nil {
			return nil, err
		}
		t.Credentials = append(t.Credentials, n)
	}
	return t, nil
}

package core

import (
	"context"
	"fmt"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// Retention: the newest versions stay, and so do all that are younger than the
// age; the active one always stays.
const (
	keepVersions   = 10
	keepVersionAge = 30 * 24 * time.Hour
)

// CreateCredential stores a new credential with version 1.
func (s *Store) CreateCredential(ctx context.Context, r CreateCredentialRequest) (*Credential, error) {
	if err := s.permit(ctx, CredentialsCreate, r.Name.Parent(), r.Name); err != nil {
		return nil, err
	}
	out, err := s.writeCredentials(ctx, r.Mutation, "CreateCredential", r.Name.Project, []BatchOperation{{Create: &r}}, single)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// UpdateCredential changes the fields of the request that are not nil. A
// payload becomes a new version, active at once.
func (s *Store) UpdateCredential(ctx context.Context, r UpdateCredentialRequest) (*Credential, error) {
	if err := s.permit(ctx, CredentialsUpdate, r.Name.Parent(), r.Name); err != nil {
		return nil, err
	}
	if r.Description == nil && r.Labels == nil && r.Payload == nil {
		c, _, ok := lookup[*Credential](s.model, keyCredential(r.Name))
		if !ok {
			return nil, notFound(r.Name)
		}
		if r.Etag != "" && r.Etag != c.Etag {
			return nil, etagMismatch(r.Name)
		}
		return c, nil
	}
	out, err := s.writeCredentials(ctx, r.Mutation, "UpdateCredential", r.Name.Project, []BatchOperation{{Update: &r}}, single)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// DeleteCredential removes a credential that nobody uses, with its versions.
func (s *Store) DeleteCredential(ctx context.Context, r DeleteCredentialRequest) error {
	if err := s.permit(ctx, CredentialsDelete, r.Name.Parent(), r.Name); err != nil {
		return err
	}
	_, err := s.writeCredentials(ctx, r.Mutation, "DeleteCredential", r.Name.Project, []BatchOperation{{Delete: &r}}, single)
	return err
}

// BatchWrite applies all operations in one commit, or none of them. It returns
// a credential for each; of a deleted one only the name.
func (s *Store) BatchWrite(ctx context.Context, r BatchWriteRequest) ([]*Credential, error) {
	if err := s.permit(ctx, CredentialsUpdate, r.Project, r.Project); err != nil {
		return nil, err
	}
	var v invalid
	if n := len(r.Operations); n == 0 || n > MaxBatchOperations {
		v.add("operations", "has %d entries; 1 to %d", n, MaxBatchOperations)
		return nil, v.err()
	}
	seen := make(map[resourcename.Credential]int)
	for i, op := range r.Operations {
		name, p, ok := op.target()
		if !ok {
			v.add(fmt.Sprintf("operations[%d]", i), "needs exactly one of create, update, delete")
			continue
		}
		if name.Project != r.Project.ID {
			v.add(fmt.Sprintf("operations[%d]", i), "must be in %s", r.Project)
			continue
		}
		if j, ok := seen[name]; ok {
			v.add(fmt.Sprintf("operations[%d]", i), "names %s, as operations[%d] does: one write for each credential", name, j)
		}
		seen[name] = i
		if err := s.permit(ctx, p, r.Project, name); err != nil {
			return nil, err
		}
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	return s.writeCredentials(ctx, r.Mutation, "BatchWriteCredentials", r.Project.ID, r.Operations, inBatch(r.Operations))
}

func (o BatchOperation) target() (resourcename.Credential, Permission, bool) {
	switch {
	case o.Create != nil && o.Update == nil && o.Delete == nil:
		return o.Create.Name, CredentialsCreate, true
	case o.Update != nil && o.Create == nil && o.Delete == nil:
		return o.Update.Name, CredentialsUpdate, true
	case o.Delete != nil && o.Create == nil && o.Update == nil:
		return o.Delete.Name, CredentialsDelete, true
	}
	return resourcename.Credential{}, "", false
}

// fieldPath says how violations name the fields of an operation.
type fieldPath func(i int, field string) string

// single names the fields as the request of one write does.
func single(_ int, field string) string { return field }

// inBatch names them as a batch does: "operations[1].update.credential.payload".
func inBatch(ops []BatchOperation) fieldPath {
	return func(i int, field string) string {
		verb := "update"
		if ops[i].Create != nil {
			verb = "create"
		}
		return fmt.Sprintf("operations[%d].%s.%s", i, verb, field)
	}
}

// writeCredentials is behind every write of credentials.
func (s *Store) writeCredentials(ctx context.Context, m Mutation, method, projectID string, ops []BatchOperation, at fieldPath) ([]*Credential, error) {
	for i, op := range ops {
		if op.Delete != nil && !m.ValidateOnly {
			if err := s.dropLapsedUsages(ctx, usageTarget(op.Delete.Name)); err != nil {
				return nil, err
			}
		}
		if err := checkWrite(i, op, at); err != nil {
			return nil, err
		}
	}
	uids := make([]string, len(ops))
	for i := range ops {
		var err error
		if uids[i], err = newUID(s.cfg.Random); err != nil {
			return nil, err
		}
	}
	var out []*Credential
	res, err := s.change(ctx, m, method, projectID, func(v view) (*plan, error) {
		if _, err := project(v, resourcename.Project{ID: projectID}); err != nil {
			return nil, err
		}
		p := &plan{}
		p.require(Present, keyProject(resourcename.Project{ID: projectID}), 0)
		out = make([]*Credential, len(ops))
		now := time.Now()
		var err error
		for i, op := range ops {
			switch {
			case op.Create != nil:
				out[i], err = s.planCreate(v, p, op.Create, uids[i], now)
			case op.Update != nil:
				out[i], err = s.planUpdate(v, p, op.Update, now, func(f string) string { return at(i, f) })
			default:
				out[i], err = &Credential{Name: op.Delete.Name}, s.planDelete(v, p, op.Delete)
			}
			if err != nil {
				return nil, err
			}
		}
		p.name = out[0].Name.String()
		p.response = encodeCredentials(out)
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeCredentials(res.replayed.response, res.rev)
	}
	for _, c := range out {
		if c.UID != "" {
			c.Etag = etagOf(c.UID, res.rev)
		}
	}
	return out, nil
}

// checkWrite is what can be said of an operation without the state.
func checkWrite(i int, op BatchOperation, at fieldPath) error {
	var v invalid
	switch {
	case op.Create != nil:
		v.checkID(at(i, "credentialId"), op.Create.Name.ID)
		v.checkDescription(at(i, "credential.description"), op.Create.Description)
		v.checkLabels(at(i, "credential.labels"), op.Create.Labels)
		if op.Create.Payload.IsZero() {
			v.add(at(i, "credential.payload"), "is required: set exactly one kind")
		}
	case op.Update != nil:
		if op.Update.Description != nil {
			v.checkDescription(at(i, "credential.description"), *op.Update.Description)
		}
		if op.Update.Labels != nil {
			v.checkLabels(at(i, "credential.labels"), *op.Update.Labels)
		}
		if op.Update.Payload != nil && op.Update.Payload.IsZero() {
			v.add(at(i, "credential.payload"), "is required when the mask names it: set exactly one kind")
		}
	}
	return v.err()
}

func (s *Store) planCreate(v view, p *plan, r *CreateCredentialRequest, uid string, now time.Time) (*Credential, error) {
	key := keyCredential(r.Name)
	if _, ok := v.get(key); ok {
		return nil, alreadyExists(r.Name)
	}
	c := &Credential{
		Name: r.Name, UID: uid, Kind: r.Payload.Kind(), Description: r.Description, Labels: r.Labels,
		NextVersion: 1, CreateTime: now, UpdateTime: now,
	}
	p.require(Absent, key, 0)
	if _, ok := v.get(keyGone(r.Name)); ok {
		p.remove(keyGone(r.Name))
	}
	if err := s.addVersion(p, c, r.Payload, now); err != nil {
		return nil, err
	}
	return c, s.put(p, key, encodeCredential(c))
}

func (s *Store) planUpdate(v view, p *plan, r *UpdateCredentialRequest, now time.Time, at func(string) string) (*Credential, error) {
	c, rev, err := editable(v, r.Name, r.Etag, now)
	if err != nil {
		return nil, err
	}
	if r.Description != nil {
		c.Description = *r.Description
	}
	if r.Labels != nil {
		c.Labels = *r.Labels
	}
	if r.Payload != nil {
		if r.Payload.Kind() != c.Kind {
			return nil, invalidField(at("credential.payload"), "is of kind %s; this credential's kind is %s and cannot change: create another credential", r.Payload.Kind(), c.Kind)
		}
		if err := s.addVersion(p, c, *r.Payload, now); err != nil {
			return nil, err
		}
		prune(v, p, c, now)
	}
	key := keyCredential(r.Name)
	p.require(AtRevision, key, rev)
	return c, s.put(p, key, encodeCredential(c))
}

func (s *Store) planDelete(v view, p *plan, r *DeleteCredentialRequest) error {
	key := keyCredential(r.Name)
	c, rev, ok := lookup[*Credential](v, key)
	if !ok {
		return notFound(r.Name)
	}
	if r.Etag != "" && r.Etag != c.Etag {
		return etagMismatch(r.Name)
	}
	if err := s.refuseInUse(v, ReasonCredentialInUse, r.Name, usageTarget(r.Name), s.consumers.named(r.Name), r.Force); err != nil {
		return err
	}
	p.require(AtRevision, key, rev)
	p.require(PrefixEmpty, prefixUsages(usageTarget(r.Name)), 0)
	p.remove(key)
	v.scan(prefixVersions(c.UID), func(key string, _ entry) bool {
		p.remove(key)
		return true
	})
	return s.put(p, keyGone(r.Name), encodeTomb(c.UID))
}

// editable returns a copy of a credential that a plan may change.
func editable(v view, name resourcename.Credential, etag string, now time.Time) (*Credential, Revision, error) {
	old, rev, ok := lookup[*Credential](v, keyCredential(name))
	if !ok {
		return nil, 0, notFound(name)
	}
	if etag != "" && etag != old.Etag {
		return nil, 0, etagMismatch(name)
	}
	c := *old
	c.UpdateTime = now
	return &c, rev, nil
}

// addVersion makes the payload the credential's next version and activates it.
func (s *Store) addVersion(p *plan, c *Credential, payload credential.Payload, now time.Time) error {
	n := c.NextVersion
	plain, err := payload.Marshal()
	if err != nil {
		return err
	}
	sealed, err := s.cfg.Sealer.Seal(payloadPlace(c.UID, n), plain)
	clear(plain)
	if err != nil {
		return err
	}
	v := &Version{Number: n, State: Enabled, Facts: payload.Facts(), References: payload.References(), CreateTime: now}
	if t, ok := payload.ExpireTime(); ok {
		v.ExpireTime = t
	}
	c.activate(v)
	c.NextVersion, c.RotateTime = n+1, now
	return s.putVersion(p, c.UID, v, sealed)
}

// activate makes v the active version.
func (c *Credential) activate(v *Version) {
	c.ActiveVersion = v.Number
	c.Facts, c.References, c.ExpireTime = v.Facts, v.References, v.ExpireTime
}

// putVersion adds a version's record to a plan; payload is sealed already.
func (s *Store) putVersion(p *plan, uid string, v *Version, payload []byte) error {
	plain, err := marshal(encodeVersion(v))
	if err != nil {
		return err
	}
	metadata, err := s.cfg.Sealer.Seal(versionPlace(uid, v.Number), plain)
	if err != nil {
		return err
	}
	p.batch.Changes = append(p.batch.Changes, Change{Key: keyVersion(uid, v.Number), Value: joinVersion(metadata, payload)})
	return nil
}

// prune lets go of versions beyond the retention: the oldest, as long as they
// are neither among the newest nor young. The newest one is active.
func prune(v view, p *plan, c *Credential, now time.Time) {
	v.scan(prefixVersions(c.UID), func(key string, e entry) bool {
		old, ok := e.value.(*Version)
		if !ok || old.Number+keepVersions > c.ActiveVersion || now.Sub(old.CreateTime) < keepVersionAge {
			return false
		}
		p.remove(key)
		return true
	})
}

// GetCredential returns a credential's metadata.
func (s *Store) GetCredential(ctx context.Context, name resourcename.Credential) (*Credential, error) {
	if err := s.permit(ctx, CredentialsGet, name.Parent(), name); err != nil {
		return nil, err
	}
	c, _, ok := lookup[*Credential](s.model, keyCredential(name))
	if !ok {
		return nil, notFound(name)
	}
	return c, nil
}

// ListCredentials returns the metadata of a project's credentials that match
// the filter, by name.
func (s *Store) ListCredentials(ctx context.Context, name resourcename.Project, filter string, page Page) ([]*Credential, string, error) {
	if err := s.permit(ctx, CredentialsList, name, name); err != nil {
		return nil, "", err
	}
	f, err := parseFilter(filter)
	if err != nil {
		return nil, "", err
	}
	v := s.model.view()
	if _, err := project(v, name); err != nil {
		return nil, "", err
	}
	return listPage(v, keyIn(name.ID)+kindCredential, page, filter, f.match)
}

// AccessCredential returns the payload of the active version, or, when version
// is not 0, of that one. The access is on record when it returns.
func (s *Store) AccessCredential(ctx context.Context, name resourcename.Credential, version uint32) (resourcename.Version, credential.Payload, error) {
	var none resourcename.Version
	if err := s.permit(ctx, CredentialsAccess, name.Parent(), name); err != nil {
		return none, credential.Payload{}, err
	}
	c, sealed, err := s.model.payload(name, version)
	if err != nil {
		return none, credential.Payload{}, err
	}
	if version == 0 {
		version = c.ActiveVersion
	}
	payload, err := s.open(c.UID, version, sealed)
	if err != nil {
		return none, credential.Payload{}, err
	}
	at := name.Version(version)
	if err := s.release(ctx, CredentialsAccess, name.String(), []string{at.String()}, "", 0); err != nil {
		return none, credential.Payload{}, err
	}
	return at, payload, nil
}

// open unseals a version's payload.
func (s *Store) open(uid string, version uint32, sealed []byte) (credential.Payload, error) {
	plain, err := s.cfg.Sealer.Open(payloadPlace(uid, version), sealed)
	if err != nil {
		s.log.Error("payload cannot be opened", "key", keyVersion(uid, version), "error", err)
		return credential.Payload{}, err
	}
	defer clear(plain)
	return credential.Unmarshal(plain)
}

// payload returns a version's sealed payload, the active one's for version 0,
// together with the metadata of the same moment.
func (m *model) payload(name resourcename.Credential, version uint32) (*Credential, []byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.state.Get(keyCredential(name))
	c, _ := e.value.(*Credential)
	if !ok || c == nil {
		return nil, nil, notFound(name)
	}
	if version == 0 {
		version = c.ActiveVersion
	}
	p, _ := m.state.Get(keyVersion(c.UID, version))
	ver, ok := p.value.(*Version)
	switch {
	case !ok && version == c.ActiveVersion: // only tampering removes it
		return nil, nil, fmt.Errorf("record %s is missing: %w", keyVersion(c.UID, version), ErrSealBroken)
	case !ok:
		return nil, nil, notFound(name.Version(version))
	case ver.State != Enabled:
		return nil, nil, precondition(ReasonVersionNotEnabled, name.Version(version), "is %s", ver.State)
	}
	return c, p.sealed, nil
}

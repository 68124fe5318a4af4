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
	if r.Description == nil && r.Labels == nil && r.Payload == nil && r.RotationPeriod == nil && !r.Verify {
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
	if err := checkWrites(ops, at); err != nil {
		return nil, err
	}
	refers := false
	for _, op := range ops {
		if op.Delete != nil && !m.ValidateOnly {
			if err := s.dropLapsedUsages(ctx, usageTarget(op.Delete.Name)); err != nil {
				return nil, err
			}
		}
		refs := op.payload().References()
		refers = refers || len(refs) > 0
		if err := s.permitReferences(ctx, op.payload().Kind(), refs); err != nil {
			return nil, err
		}
	}
	w := &credentialsWrite{store: s, project: resourcename.Project{ID: projectID}, ops: ops, at: at, validateOnly: m.ValidateOnly, uids: make([]string, len(ops))}
	for i := range ops {
		var err error
		if w.uids[i], err = newUID(s.cfg.Random); err != nil {
			return nil, err
		}
	}
	if err := s.verifyWrites(ctx, m, method, w); err != nil {
		return nil, err
	}
	var res result
	commit := func() (err error) {
		res, err = s.change(ctx, m, method, projectID, w.plan)
		return err
	}
	if refers {
		write := commit
		commit = func() error { return s.inTurn(ctx, write) }
	}
	if err := commit(); err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeCredentials(res.replayed.response, res.rev)
	}
	for _, c := range w.out {
		if c.UID != "" {
			c.Etag = etagOf(c.UID, res.rev)
		}
	}
	return w.out, nil
}

// credentialsWrite is one write of credentials on its way.
type credentialsWrite struct {
	store        *Store
	project      resourcename.Project
	ops          []BatchOperation
	at           fieldPath
	validateOnly bool
	uids         []string // of those that are created
	// verified is what the vendors said of the payloads that they were asked of.
	verified map[resourcename.Credential]*Verification
	out      []*Credential // what the last plan makes of the credentials
}

// plan plans all operations on a state; it may be called several times.
func (w *credentialsWrite) plan(v view) (*plan, error) {
	if _, err := project(v, w.project); err != nil {
		return nil, err
	}
	p := &plan{}
	p.require(Present, keyProject(w.project), 0)
	w.out = make([]*Credential, len(w.ops))
	g := newGraph(v)
	now := time.Now()
	var err error
	for i, op := range w.ops {
		switch {
		case op.Create != nil:
			w.out[i], err = w.planCreate(v, p, g, i, now)
		case op.Update != nil:
			w.out[i], err = w.planUpdate(v, p, g, i, now)
		default:
			w.out[i], err = &Credential{Name: op.Delete.Name}, w.store.planDelete(v, p, g, op.Delete)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := w.store.planReferences(p, g, now); err != nil {
		return nil, err
	}
	p.name = w.out[0].Name.String()
	p.response = encodeCredentials(w.out)
	return p, nil
}

// payload returns what the operation writes, the zero payload if none.
func (o BatchOperation) payload() credential.Payload {
	switch {
	case o.Create != nil:
		return o.Create.Payload
	case o.Update != nil && o.Update.Payload != nil:
		return *o.Update.Payload
	}
	return credential.Payload{}
}

// checkWrites is what can be said of operations without the state, all at once.
func checkWrites(ops []BatchOperation, at fieldPath) error {
	var v invalid
	for i, op := range ops {
		field := func(f string) string { return at(i, f) }
		switch {
		case op.Create != nil:
			r := op.Create
			v.checkID(field("credentialId"), r.Name.ID)
			v.checkDescription(field("credential.description"), r.Description)
			v.checkLabels(field("credential.labels"), r.Labels)
			v.checkRotationPeriod(field("credential.rotationPeriod"), r.RotationPeriod)
			if r.Payload.IsZero() {
				v.add(field("credential.payload"), "is required: set exactly one kind")
			}
		case op.Update != nil:
			r := op.Update
			if r.Description != nil {
				v.checkDescription(field("credential.description"), *r.Description)
			}
			if r.Labels != nil {
				v.checkLabels(field("credential.labels"), *r.Labels)
			}
			if r.RotationPeriod != nil {
				v.checkRotationPeriod(field("credential.rotationPeriod"), *r.RotationPeriod)
			}
			if r.Payload != nil && r.Payload.IsZero() {
				v.add(field("credential.payload"), "is required when the mask names it: set exactly one kind")
			}
			if r.Verify && r.Payload == nil {
				v.add(field("verify"), "needs a payload in the same update; verify what is stored with VerifyCredential")
			}
		}
		if name, _, ok := op.target(); ok {
			v.checkReferences(name, op.payload(), inCredential(field))
		}
	}
	return v.err()
}

// inCredential turns the path of a payload's field into that of a request.
func inCredential(field func(string) string) func(string) string {
	return func(path string) string { return field("credential." + path) }
}

func (w *credentialsWrite) planCreate(v view, p *plan, g *graph, i int, now time.Time) (*Credential, error) {
	r := w.ops[i].Create
	key := keyCredential(r.Name)
	if _, ok := v.get(key); ok {
		return nil, alreadyExists(r.Name)
	}
	c := &Credential{
		Name: r.Name, UID: w.uids[i], Kind: r.Payload.Kind(), Description: r.Description, Labels: r.Labels,
		RotationPeriod: r.RotationPeriod, NextVersion: 1, CreateTime: now, UpdateTime: now, RotateTime: now,
	}
	p.require(Absent, key, 0)
	if _, ok := v.get(keyGone(r.Name)); ok {
		p.remove(keyGone(r.Name))
	}
	if err := w.store.addVersion(p, c, r.Payload, now); err != nil {
		return nil, err
	}
	c.Verification = w.verified[r.Name].at(c.ActiveVersion)
	g.add(&written{
		name: r.Name, kind: c.Kind, now: sourcesIn(c.References), payload: r.Payload, created: true,
		field: inCredential(func(f string) string { return w.at(i, f) }),
	})
	return c, w.store.put(p, key, encodeCredential(c))
}

func (w *credentialsWrite) planUpdate(v view, p *plan, g *graph, i int, now time.Time) (*Credential, error) {
	r, s := w.ops[i].Update, w.store
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
	if r.RotationPeriod != nil {
		c.RotationPeriod = *r.RotationPeriod
	}
	if r.Payload != nil {
		if r.Payload.Kind() != c.Kind {
			return nil, invalidField(w.at(i, "credential.payload"), "is of kind %s; this credential's kind is %s and cannot change: create another credential", r.Payload.Kind(), c.Kind)
		}
		before := sourcesIn(c.References)
		// Who only checks learns nothing of the stored payload: otherwise its
		// secret could be guessed as often as one likes.
		if w.validateOnly || !s.isActivePayload(v, c, *r.Payload) {
			c.RotateTime = now
		}
		if err := s.addVersion(p, c, *r.Payload, now); err != nil {
			return nil, err
		}
		c.Verification = w.verified[r.Name].at(c.ActiveVersion)
		prune(v, p, c, now)
		g.add(&written{
			name: r.Name, kind: c.Kind, before: before, now: sourcesIn(c.References), payload: *r.Payload,
			field: inCredential(func(f string) string { return w.at(i, f) }),
		})
	}
	key := keyCredential(r.Name)
	p.require(AtRevision, key, rev)
	return c, s.put(p, key, encodeCredential(c))
}

// planDelete plans all of a delete but who uses the credential: that is said
// when all operations of the batch are known.
func (s *Store) planDelete(v view, p *plan, g *graph, r *DeleteCredentialRequest) error {
	key := keyCredential(r.Name)
	c, rev, ok := lookup[*Credential](v, key)
	if !ok {
		return notFound(r.Name)
	}
	if r.Etag != "" && r.Etag != c.Etag {
		return etagMismatch(r.Name)
	}
	p.require(AtRevision, key, rev)
	p.remove(key)
	v.scan(prefixVersions(c.UID), func(key string, _ entry) bool {
		p.remove(key)
		return true
	})
	removeMinted(v, p, c, allVersions)
	g.add(&written{name: r.Name, kind: c.Kind, before: sourcesIn(c.References), deleted: true, force: r.Force})
	return s.put(p, keyGone(r.Name), encodeTomb(c.UID))
}

// isActivePayload says whether a payload equals the active version's. One that
// cannot be opened equals nothing: it must be possible to replace it.
func (s *Store) isActivePayload(v view, c *Credential, payload credential.Payload) bool {
	e, ok := v.get(keyVersion(c.UID, c.ActiveVersion))
	if !ok {
		return false
	}
	active, err := s.open(c.UID, c.ActiveVersion, e.sealed)
	return err == nil && active.Equal(payload)
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
	v := &Version{Number: n, State: Enabled, Facts: payload.Facts(), References: payload.References(), CreateTime: now, Ageless: !payload.LongLived()}
	if t, ok := payload.ExpireTime(); ok {
		v.ExpireTime = t
	}
	c.activate(v)
	c.NextVersion = n + 1
	return s.putVersion(p, c.UID, v, sealed)
}

// activate makes v the active version.
func (c *Credential) activate(v *Version) {
	c.ActiveVersion = v.Number
	c.Facts, c.References, c.ExpireTime, c.Ageless = v.Facts, v.References, v.ExpireTime, v.Ageless
	c.Verification = nil // it was another version's
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
	pruned := make(map[uint32]bool)
	v.scan(prefixVersions(c.UID), func(key string, e entry) bool {
		old, ok := e.value.(*Version)
		if !ok || old.Number+keepVersions > c.ActiveVersion || now.Sub(old.CreateTime) < keepVersionAge {
			return false
		}
		p.remove(key)
		pruned[old.Number] = true
		return true
	})
	if len(pruned) > 0 {
		removeMinted(v, p, c, func(version uint32) bool { return pruned[version] })
	}
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
	p, err := project(v, name)
	if err != nil {
		return nil, "", err
	}
	m := momentIn(p)
	return listPage(v, keyIn(name.ID)+kindCredential, page, filter, func(c *Credential) bool { return f.match(c, m) })
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

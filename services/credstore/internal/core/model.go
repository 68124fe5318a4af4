package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/credstore/credstore/pkg/resourcename"
)

// model is the current state in memory, fed only by the storage's feed. Reads
// and lists come from here and never touch the disk. Metadata is kept decoded;
// payloads and values stay sealed until somebody accesses them.
type model struct {
	sealer Sealer

	mu    sync.RWMutex
	rev   Revision
	nonce uint64
	// compacted is the last revision whose deletions are forgotten.
	compacted Revision
	state     *btree.Map[string, entry]
	// latestView is of the state as it is, for all who ask until it changes.
	latestView *view
	// latest orders the last change of every credential by revision, deletions
	// included: what a watcher that fell behind has to be told.
	latest *btree.BTreeG[latestChange]
	// tombs says at which revision a credential that is gone was deleted.
	tombs map[string]latestChange
	// nonces holds those of all commits after compacted, ascending.
	nonces []commitNonce
	tokens map[string]resourcename.Token // by uid
	// waiters are closed when the model has applied the revision; stopped is
	// when nothing will be applied any more.
	waiters map[Revision]chan struct{}
	stopped chan struct{}
	// sessions are ended when their token goes.
	sessions map[string]map[*session]struct{}
}

// entry is one record. A payload or value has only sealed; all others have
// only value.
type entry struct {
	rev    Revision
	value  any
	sealed []byte
}

type latestChange struct {
	rev     Revision
	key     string
	deleted bool
	uid     string // of a deleted one, when known
}

type commitNonce struct {
	rev   Revision
	nonce uint64
}

// update is what one commit changed, as the fan-out carries it.
type update struct {
	rev         Revision
	credentials []credentialUpdate
	shared      sharedCommits
}

type credentialUpdate struct {
	name     resourcename.Credential
	old, now *Credential // nil when there was or is none
	sealed   []byte      // the active payload's record as of this commit
}

func newModel(sealer Sealer) *model {
	return &model{
		sealer: sealer,
		state:  new(btree.Map[string, entry]),
		latest: btree.NewBTreeGOptions(func(a, b latestChange) bool {
			if a.rev != b.rev {
				return a.rev < b.rev
			}
			return a.key < b.key
		}, btree.Options{NoLocks: true}),
		tombs:    make(map[string]latestChange),
		tokens:   make(map[string]resourcename.Token),
		waiters:  make(map[Revision]chan struct{}),
		stopped:  make(chan struct{}),
		sessions: make(map[string]map[*session]struct{}),
	}
}

// loadModel makes a model of the storage's state and returns the feed that goes
// on from it. A compaction that comes between means to begin again.
func loadModel(ctx context.Context, sealer Sealer, storage Storage) (*model, Feed, error) {
	var err error
	for range maxAttempts {
		m := newModel(sealer)
		var feed Feed
		if feed, err = m.load(ctx, storage); err == nil {
			return m, feed, nil
		}
		if !errors.Is(err, ErrCompacted) {
			break
		}
	}
	return nil, nil, err
}

// load fills an empty model from a snapshot and returns the feed that goes on
// from it. What the feed tells of the time before the snapshot is used for what
// a snapshot cannot tell: which credentials were deleted, and the nonces.
func (m *model) load(ctx context.Context, storage Storage) (Feed, error) {
	info, err := storage.Info(ctx)
	if err != nil {
		return nil, err
	}
	var broken []error
	rev, err := storage.Snapshot(ctx, "", func(r Record) error {
		e, err := m.decode(r.Key, r.Value, r.Revision)
		if err != nil {
			if broken = append(broken, err); len(broken) >= 10 {
				return errors.Join(broken...)
			}
			return nil
		}
		m.put(r.Key, e)
		return nil
	})
	if err == nil && len(broken) > 0 {
		err = errors.Join(broken...)
	}
	if err != nil {
		return nil, fmt.Errorf("load state: %w", err)
	}
	feed, err := storage.Feed(ctx, info.Compacted)
	if err != nil {
		return nil, fmt.Errorf("load history: %w", err)
	}
	m.compacted = info.Compacted
	for m.rev < rev && info.Compacted < rev {
		c, err := feed.Next(ctx)
		if err != nil {
			feed.Close()
			return nil, fmt.Errorf("load history: %w", err)
		}
		m.rev, m.nonce = c.Revision, c.Nonce
		m.nonces = append(m.nonces, commitNonce{c.Revision, c.Nonce})
		for _, ch := range c.Changes {
			if !ch.Delete || !isCredentialKey(ch.Key) {
				continue
			}
			if _, ok := m.state.Get(ch.Key); !ok {
				gone, _, _ := lookup[tomb](m.loading(), keyGone(credentialOfKey(ch.Key)))
				m.bury(ch.Key, c.Revision, gone.uid)
			}
		}
	}
	m.rev = rev
	if len(m.nonces) == 0 && info.Revision == rev {
		m.nonce = info.Nonce
		m.nonces = append(m.nonces, commitNonce{rev, info.Nonce})
	}
	return feed, nil
}

// loading is the state of a model that nobody else has yet.
func (m *model) loading() view { return view{state: m.state} }

func isCredentialKey(key string) bool {
	_, kind, _, ok := splitIn(key)
	return ok && kind == kindCredential
}

// decode opens and decodes a record, all but payloads and values.
func (m *model) decode(key string, sealed []byte, rev Revision) (entry, error) {
	e := entry{rev: rev}
	if key == KeySeal {
		e.sealed = sealed
		return e, nil
	}
	place := Place{Key: key}
	if uid, n, ok := splitVersion(key); ok && strings.HasPrefix(key, prefixVersion) {
		var err error
		if sealed, e.sealed, err = cutVersion(sealed); err != nil {
			return entry{}, fmt.Errorf("record %s: %w", key, err)
		}
		place = versionPlace(uid, n)
	}
	plain, err := m.sealer.Open(place, sealed)
	if err != nil {
		return entry{}, fmt.Errorf("record %s: %w", key, err)
	}
	if e.value, err = decodeRecord(key, plain, rev); err != nil {
		return entry{}, fmt.Errorf("record %s: %w", key, err)
	}
	if strings.HasPrefix(key, prefixValue) || strings.HasPrefix(key, prefixMinted) {
		e.sealed = sealed // its metadata is decoded, its content stays sealed
	}
	return e, nil
}

func decodeRecord(key string, plain []byte, rev Revision) (any, error) {
	switch {
	case strings.HasPrefix(key, prefixProject):
		return decodeProject(resourcename.Project{ID: key[len(prefixProject):]}, plain, rev)
	case strings.HasPrefix(key, prefixVersion):
		return decodeVersion(plain)
	case strings.HasPrefix(key, prefixUsage):
		name, ok := splitUsage(key)
		if !ok {
			return nil, errors.New("unknown kind of record")
		}
		return decodeUsage(name, plain)
	case strings.HasPrefix(key, prefixValue):
		return decodeValue(plain)
	case strings.HasPrefix(key, prefixMinted):
		return decodeMinted(plain)
	case strings.HasPrefix(key, prefixRequest):
		return decodeRequest(plain, rev)
	case strings.HasPrefix(key, prefixGone):
		return decodeTomb(plain)
	case strings.HasPrefix(key, prefixGuard):
		return nil, nil //nolint:nilnil // a guard has only a revision
	}
	project, kind, id, ok := splitIn(key)
	if !ok {
		return nil, errors.New("unknown kind of record")
	}
	switch kind {
	case kindCredential:
		return decodeCredential(resourcename.Credential{Project: project, ID: id}, plain, rev)
	case kindInjection:
		return decodeInjection(resourcename.Injection{Project: project, ID: id}, plain, rev)
	case kindStore:
		return decodeStore(resourcename.SecretStore{Project: project, ID: id}, plain, rev)
	case kindToken:
		return decodeToken(resourcename.Token{Project: project, ID: id}, plain, rev)
	}
	return nil, errors.New("unknown kind of record")
}

// put replaces a record; the caller holds the lock.
func (m *model) put(key string, e entry) (old entry) {
	old, _ = m.state.Set(key, e)
	switch v := e.value.(type) {
	case *Credential:
		m.unlist(key, old)
		m.latest.Set(latestChange{rev: e.rev, key: key})
	case *Token:
		m.tokens[v.UID] = v.Name
	}
	return old
}

// remove deletes a record; the caller holds the lock.
func (m *model) remove(key string, rev Revision) (old entry) {
	old, ok := m.state.Delete(key)
	if !ok {
		return entry{}
	}
	switch v := old.value.(type) {
	case *Credential:
		m.unlist(key, old)
		m.bury(key, rev, v.UID)
	case *Token:
		delete(m.tokens, v.UID)
		m.endSessions(v.UID, "its token was deleted")
	}
	return old
}

func (m *model) unlist(key string, old entry) {
	if old.value != nil {
		m.latest.Delete(latestChange{rev: old.rev, key: key})
	}
	if t, ok := m.tombs[key]; ok {
		m.latest.Delete(t)
		delete(m.tombs, key)
	}
}

func (m *model) bury(key string, rev Revision, uid string) {
	if t, ok := m.tombs[key]; ok {
		m.latest.Delete(t)
	}
	t := latestChange{rev: rev, key: key, deleted: true, uid: uid}
	m.tombs[key] = t
	m.latest.Set(t)
}

// apply takes in some consecutive commits as one step and returns what they
// changed together. Records are decoded before the lock is taken, so that
// readers wait as little as possible.
func (m *model) apply(commits []Commit) (*update, []string, error) {
	decoded := make([][]entry, len(commits))
	for i, c := range commits {
		decoded[i] = make([]entry, len(c.Changes))
		for j, ch := range c.Changes {
			if ch.Delete || ch.Superseded {
				continue
			}
			e, err := m.decode(ch.Key, ch.Value, c.Revision)
			if err != nil {
				return nil, nil, fmt.Errorf("revision %d: %w", c.Revision, err)
			}
			decoded[i][j] = e
		}
	}
	var topics []string
	changed := make(map[string]int) // key to index in u.credentials

	m.mu.Lock()
	defer m.mu.Unlock()
	m.latestView = nil
	u := &update{}
	for i, c := range commits {
		for j, ch := range c.Changes {
			if ch.Superseded {
				continue // a later one of these commits has what became of it
			}
			old := m.change(ch, decoded[i][j], c.Revision)
			topics = appendTopics(topics, ch.Key)
			if !isCredentialKey(ch.Key) {
				continue
			}
			was, _ := old.value.(*Credential)
			now, _ := decoded[i][j].value.(*Credential)
			if at, ok := changed[ch.Key]; ok {
				u.credentials[at].now = now
			} else if was != nil || now != nil {
				changed[ch.Key] = len(u.credentials)
				u.credentials = append(u.credentials, credentialUpdate{name: credentialOfKey(ch.Key), old: was, now: now})
			}
		}
		u.rev = c.Revision
		m.rev, m.nonce = c.Revision, c.Nonce
		m.nonces = append(m.nonces, commitNonce{c.Revision, c.Nonce})
	}
	for i := range u.credentials {
		if cu := &u.credentials[i]; cu.now != nil {
			p, _ := m.state.Get(keyVersion(cu.now.UID, cu.now.ActiveVersion))
			cu.sealed = p.sealed
		}
	}
	for _, c := range commits {
		if w, ok := m.waiters[c.Revision]; ok {
			close(w)
			delete(m.waiters, c.Revision)
		}
	}
	return u, topics, nil
}

// change applies one change and returns what was there; the caller holds the
// lock.
func (m *model) change(ch Change, e entry, rev Revision) (old entry) {
	if ch.Delete {
		return m.remove(ch.Key, rev)
	}
	old = m.put(ch.Key, e)
	if t, ok := e.value.(*Token); ok {
		if was, ok := old.value.(*Token); ok && was.UID != t.UID {
			delete(m.tokens, was.UID)
			m.endSessions(was.UID, "its token was replaced")
		}
	}
	return old
}

// Topics of the fan-out: everything of a project's credentials, one record, and
// anything about a project's injections.
func topicCredentials(project string) string { return "credentials " + project }
func topicKey(key string) string             { return "key " + key }
func topicInjections(project string) string  { return "injections " + project }

func appendTopics(topics []string, key string) []string {
	project, kind, _, ok := splitIn(key)
	switch {
	case ok && kind == kindCredential:
		return append(topics, topicCredentials(project), topicKey(key))
	case ok && kind == kindInjection:
		return append(topics, topicInjections(project), topicKey(key))
	case ok && kind == kindStore, strings.HasPrefix(key, prefixValue), strings.HasPrefix(key, prefixMinted):
		return append(topics, topicKey(key))
	}
	return topics
}

// wait returns when the model has applied the revision, which must be that of a
// commit, or ErrUnavailable when it never will, because the Store has stopped.
func (m *model) wait(ctx context.Context, rev Revision) error {
	m.mu.Lock()
	if m.rev >= rev {
		m.mu.Unlock()
		return nil
	}
	w, ok := m.waiters[rev]
	if !ok {
		w = make(chan struct{})
		m.waiters[rev] = w
	}
	m.mu.Unlock()
	select {
	case <-w:
		return nil
	case <-m.stopped:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replace takes over another model's state, after the feed had to be given up.
// Watchers are told by the fan-out that they have fallen behind.
func (m *model) replace(n *model) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range m.tokens {
		if _, ok := n.tokens[uid]; !ok {
			m.endSessions(uid, "its token was deleted")
		}
	}
	m.latestView = nil
	m.rev, m.nonce, m.compacted = n.rev, n.nonce, n.compacted
	m.state, m.latest, m.tombs, m.nonces, m.tokens = n.state, n.latest, n.tombs, n.nonces, n.tokens
	for rev, w := range m.waiters {
		if rev <= m.rev {
			close(w)
			delete(m.waiters, rev)
		}
	}
}

// forget drops deletions and nonces through the revision, as the storage has.
// The revision's own nonce stays: a stream that has reached it misses nothing
// that is forgotten, and needs a token when nothing happens for long.
func (m *model) forget(through Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if through <= m.compacted {
		return
	}
	m.compacted = through
	m.latestView = nil
	n, _ := slices.BinarySearchFunc(m.nonces, through, func(c commitNonce, r Revision) int {
		switch {
		case c.rev < r:
			return -1
		case c.rev > r:
			return 1
		}
		return 0
	})
	m.nonces = slices.Clone(m.nonces[n:])
	for key, t := range m.tombs {
		if t.rev <= through {
			m.latest.Delete(t)
			delete(m.tombs, key)
		}
	}
}

// view is the whole state at one revision; it costs next to nothing to make.
type view struct {
	rev    Revision
	nonce  uint64
	state  *btree.Map[string, entry]
	latest *btree.BTreeG[latestChange]
	// compacted is as in model.
	compacted Revision
}

func (m *model) view() view {
	m.mu.RLock()
	if v := m.latestView; v != nil {
		m.mu.RUnlock()
		return *v
	}
	m.mu.RUnlock()
	m.mu.Lock() // Copy marks the nodes of the original as shared
	defer m.mu.Unlock()
	if m.latestView == nil {
		m.latestView = &view{rev: m.rev, nonce: m.nonce, state: m.state.Copy(), compacted: m.compacted}
	}
	return *m.latestView
}

// viewWithChanges is view for a watcher that catches up.
func (m *model) viewWithChanges() view {
	m.mu.Lock()
	defer m.mu.Unlock()
	return view{rev: m.rev, nonce: m.nonce, state: m.state.Copy(), latest: m.latest.Copy(), compacted: m.compacted}
}

// get returns one record without the cost of a view.
func (m *model) get(key string) (entry, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state.Get(key)
}

// reader is what lookups need: a model or a view.
type reader interface {
	get(key string) (entry, bool)
}

func (v view) get(key string) (entry, bool) { return v.state.Get(key) }

// scan calls yield for the records below prefix, in order of key, until it
// returns false.
func (v view) scan(prefix string, yield func(key string, e entry) bool) {
	v.state.Ascend(prefix, func(key string, e entry) bool {
		return strings.HasPrefix(key, prefix) && yield(key, e)
	})
}

// scanAfter is scan from just behind a key.
func (v view) scanAfter(prefix, after string, yield func(key string, e entry) bool) {
	if after < prefix {
		v.scan(prefix, yield)
		return
	}
	v.state.Ascend(after+"\x00", func(key string, e entry) bool {
		return strings.HasPrefix(key, prefix) && yield(key, e)
	})
}

// scanBefore calls yield for the records below prefix in descending order of
// key, from just before a key, or from the last one when before is empty.
func (v view) scanBefore(prefix, before string, yield func(key string, e entry) bool) {
	pivot := before
	if pivot == "" {
		pivot = prefix + "\xff"
	}
	v.state.Descend(pivot, func(key string, e entry) bool {
		if key == before {
			return true
		}
		return strings.HasPrefix(key, prefix) && yield(key, e)
	})
}

// lookup returns the record at key if it is a V.
func lookup[V any](r reader, key string) (V, Revision, bool) {
	e, ok := r.get(key)
	if !ok {
		var none V
		return none, 0, false
	}
	v, ok := e.value.(V)
	return v, e.rev, ok
}

// nonceAt returns the nonce of the commit with that revision.
func (m *model) nonceAt(rev Revision) (uint64, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, ok := slices.BinarySearchFunc(m.nonces, rev, func(c commitNonce, r Revision) int {
		switch {
		case c.rev < r:
			return -1
		case c.rev > r:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	return m.nonces[i].nonce, true
}

// session is one stream's claim that its token holds.
type session struct {
	cancel context.CancelCauseFunc
}

// openSession returns a context that ends when the token is deleted or expires.
func (m *model) openSession(ctx context.Context, tokenUID string, expire time.Time) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() { cancel(nil) }
	if tokenUID == "" {
		return ctx, stop
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.tokens[tokenUID]; !ok {
		cancel(sessionEnded("its token was deleted"))
		return ctx, stop
	}
	s := &session{cancel: cancel}
	if m.sessions[tokenUID] == nil {
		m.sessions[tokenUID] = make(map[*session]struct{})
	}
	m.sessions[tokenUID][s] = struct{}{}
	release := func() {
		cancel(nil)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.sessions[tokenUID], s)
		if len(m.sessions[tokenUID]) == 0 {
			delete(m.sessions, tokenUID)
		}
	}
	if expire.IsZero() {
		return ctx, release
	}
	limited, stopTimer := context.WithDeadlineCause(ctx, expire, sessionEnded("its token has expired"))
	return limited, func() { stopTimer(); release() }
}

func (m *model) endSessions(tokenUID, why string) {
	for s := range m.sessions[tokenUID] {
		s.cancel(sessionEnded(why))
	}
}

func sessionEnded(why string) error {
	return &Error{Kind: ErrUnauthenticated, Reason: ReasonUnauthenticated, Message: "the stream ends: " + why}
}

package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/fanout"
)

// EventKind says what a WatchEvent is.
type EventKind int

// The kinds of events.
const (
	// EventReset: forget what you have; a whole state follows.
	EventReset EventKind = iota + 1
	// EventCommit: changes of one commit, or, while catching up, of several.
	EventCommit
	// EventSynced: what existed when the stream began has been sent.
	EventSynced
	// EventHeartbeat: nothing happened for the heartbeat interval.
	EventHeartbeat
)

// WatchEvent is one message of a watch.
type WatchEvent struct {
	Kind EventKind
	// Revision is what the stream has reached with this event.
	Revision Revision
	// FromRevision, of a commit, is what it had reached before.
	FromRevision Revision
	// ResumeToken is empty before synced.
	ResumeToken string
	Commit      *CredentialCommit
}

// ChangeType says what happened to a credential, as one watcher sees it.
type ChangeType int

// The types of changes.
const (
	ChangePut ChangeType = iota + 1
	ChangeDelete
	// ChangeLeftFilter: it exists and no longer matches the filter.
	ChangeLeftFilter
)

// CredentialChange is one change of a commit.
type CredentialChange struct {
	Type ChangeType
	// Credential is whole for a put, and has only name and uid otherwise.
	Credential *Credential
	// Payload is that of the active version, for a put in ViewPayload.
	Payload credential.Payload
}

// CredentialCommit is the changes of one event. Watchers that see the same
// share one, so that it is opened and encoded once.
type CredentialCommit struct {
	Changes []CredentialChange

	once    sync.Once
	encoded []byte
	err     error
}

// Encoded returns what encode makes of the changes, calling it once for all
// watchers that share the commit. The bytes must not be changed.
func (c *CredentialCommit) Encoded(encode func([]CredentialChange) ([]byte, error)) ([]byte, error) {
	c.once.Do(func() { c.encoded, c.err = encode(c.Changes) })
	return c.encoded, c.err
}

// sharedCommits finds the CredentialCommit that another watcher made of the
// same update. The pointers are weak: payloads are in memory in clear only
// while some watcher is sending them.
type sharedCommits struct {
	mu sync.Mutex
	m  map[string]weak.Pointer[CredentialCommit]
}

func (s *sharedCommits) get(variant string, build func() (*CredentialCommit, error)) (*CredentialCommit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.m[variant].Value(); c != nil {
		return c, nil
	}
	c, err := build()
	if err != nil {
		return nil, err
	}
	if s.m == nil {
		s.m = make(map[string]weak.Pointer[CredentialCommit])
	}
	s.m[variant] = weak.Make(c)
	return c, nil
}

// payloads names the versions that a push of the update carries.
func (u *update) payloads() []string {
	var out []string
	for _, c := range u.credentials {
		if c.now != nil {
			out = append(out, c.name.Version(c.now.ActiveVersion).String())
		}
	}
	return out
}

// chunkBytes is about how much of the state one message carries.
const chunkBytes = 1 << 20

// CredentialWatch is one stream of a project's credentials. It is for one
// goroutine; the caller closes it.
type CredentialWatch struct {
	store     *Store
	id        string
	req       WatchRequest
	filter    filter
	names     nameSet
	query     [8]byte
	sub       *fanout.Subscription[*update]
	consumer  *consumer
	heartbeat *time.Timer

	// reached is the revision that the events so far add up to.
	reached Revision
	// synced is set once EventSynced was returned.
	synced bool
	// pending is what a catch-up has still to say, first of all a reset.
	reset   bool
	pending *catchUp
}

// catchUp is a walk over a state, from which the stream goes on at its revision.
type catchUp struct {
	view view
	from Revision
	// whole: every credential is sent, not only those changed after from.
	whole bool
	after string       // key, for a whole walk
	next  latestChange // for the others
	done  bool
	// overtaken: the fan-out dropped events and has to be told where to go on.
	overtaken bool
}

// Watch opens a stream of a project's credentials. A workload gets those that
// its token names, and no others.
func (s *Store) Watch(ctx context.Context, r WatchRequest) (*CredentialWatch, error) {
	if r.View == 0 {
		r.View = ViewMetadata
	}
	if r.Heartbeat == 0 {
		r.Heartbeat = DefaultHeartbeat
	}
	who := PrincipalFrom(ctx)
	if who != nil && who.Role == Workload && !who.system {
		// Not the project but each name is what such a caller is allowed.
		if len(r.Names) == 0 {
			r.Names = who.Credentials
		}
		if len(r.Names) == 0 {
			return nil, s.refuse(ctx, CredentialsWatch, r.Project, "the token names no credentials, so there is nothing that it may watch")
		}
		for _, n := range r.Names {
			if err := s.permitWatch(ctx, r.View, n.Parent(), n); err != nil {
				return nil, err
			}
		}
	} else if err := s.permitWatch(ctx, r.View, r.Project, r.Project); err != nil {
		return nil, err
	}
	var bad invalid
	if len(r.Names) > MaxWatchNames {
		bad.add("names", "has %d entries; at most %d", len(r.Names), MaxWatchNames)
	}
	bad.checkDuration("heartbeatInterval", r.Heartbeat, MinHeartbeat, MaxHeartbeat)
	bad.checkWorkloadName("consumer", r.Consumer)
	for i, n := range r.Names {
		if n.Project != r.Project.ID && len(bad.violations) < 10 {
			bad.add(fmt.Sprintf("names[%d]", i), "must be in %s", r.Project)
		}
	}
	f, err := parseFilter(r.Filter)
	if err != nil {
		return nil, err
	}
	if err := f.refuseTimed(); err != nil {
		return nil, err
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	v := s.model.viewWithChanges()
	if _, err := project(v, r.Project); err != nil {
		return nil, err
	}
	w := &CredentialWatch{store: s, id: s.streamID("watch"), req: r, filter: f, query: watchQuery(r)}
	if len(r.Names) > 0 {
		w.names = make(nameSet, len(r.Names))
		for _, n := range r.Names {
			w.names[n] = struct{}{}
		}
	}
	from, ok, err := s.resumes(r.ResumeToken, w.query, v)
	if err != nil {
		return nil, err
	}
	w.reset = !ok
	w.reached = from
	w.pending = &catchUp{view: v, from: from, whole: !ok}
	if r.View == ViewPayload {
		w.consumer = s.consumers.join(w.id, who.Name, r.Consumer, len(r.Names) > 0)
	}
	w.sub = s.hub.Subscribe(w.pushID(), uint64(v.rev), w.topics()...)
	w.heartbeat = time.NewTimer(r.Heartbeat)
	return w, nil
}

func (s *Store) permitWatch(ctx context.Context, view View, project resourcename.Project, resource fmt.Stringer) error {
	if err := s.permit(ctx, CredentialsWatch, project, resource); err != nil || view != ViewPayload {
		return err
	}
	return s.permit(ctx, CredentialsAccess, project, resource)
}

// pushID is how the audit line of a push names this stream. One that may not
// get all of a push writes lines of its own, and one without payloads none.
func (w *CredentialWatch) pushID() string {
	if w.req.View != ViewPayload || len(w.filter) > 0 || w.names != nil {
		return ""
	}
	return w.id
}

func (w *CredentialWatch) topics() []string {
	if w.names == nil {
		return []string{topicCredentials(w.req.Project.ID)}
	}
	out := make([]string, 0, len(w.names))
	for n := range w.names {
		out = append(out, topicKey(keyCredential(n)))
	}
	return out
}

// Close ends the stream.
func (w *CredentialWatch) Close() {
	w.sub.Close()
	w.heartbeat.Stop()
	if w.consumer != nil {
		w.consumer.leave(false)
	}
}

// Next returns the next event. Its error is ctx's, or an ErrUnavailable when
// the Store stops.
func (w *CredentialWatch) Next(ctx context.Context) (WatchEvent, error) {
	w.heartbeat.Reset(w.req.Heartbeat)
	for {
		if w.reset {
			w.reset = false
			w.synced = false
			return WatchEvent{Kind: EventReset, Revision: w.pending.view.rev}, nil
		}
		if w.pending != nil {
			e, ok, err := w.fromState(ctx)
			if ok || err != nil {
				return e, err
			}
			continue
		}
		e, ok, err := w.sub.TryNext()
		switch {
		case errors.Is(err, fanout.ErrLagged):
			w.fallBehind()
			continue
		case err != nil:
			return WatchEvent{}, errStopping
		case ok:
			ev, send, err := w.fromUpdate(ctx, e)
			if send || err != nil {
				return ev, err
			}
			continue
		}
		select {
		case <-w.sub.Ready():
		case <-w.heartbeat.C:
			w.heartbeat.Reset(w.req.Heartbeat)
			return w.event(WatchEvent{Kind: EventHeartbeat}, Revision(w.sub.Reached())), nil
		case <-ctx.Done():
			return WatchEvent{}, context.Cause(ctx)
		}
	}
}

// event completes an event that takes the stream to rev.
func (w *CredentialWatch) event(e WatchEvent, rev Revision) WatchEvent {
	e.Revision = max(rev, w.reached)
	w.reached = e.Revision
	if w.synced {
		e.ResumeToken = w.store.tokenAt(e.Revision, w.query)
	}
	return e
}

// fallBehind prepares a walk over the state, after the fan-out has dropped what
// this stream was too slow to take.
func (w *CredentialWatch) fallBehind() {
	v := w.store.model.viewWithChanges()
	w.pending = &catchUp{view: v, from: w.reached, overtaken: true}
	if w.reached < v.compacted {
		w.pending.from, w.pending.whole, w.reset = 0, true, true
	}
}

// fromState returns the next part of a walk, or, at its end, synced or nothing.
func (w *CredentialWatch) fromState(ctx context.Context) (WatchEvent, bool, error) {
	p := w.pending
	if !p.done {
		changes, err := w.chunk(p)
		if err != nil {
			return WatchEvent{}, false, err
		}
		if len(changes) > 0 {
			if err := w.leaving(ctx, changes, p.view.rev); err != nil {
				return WatchEvent{}, false, err
			}
			e := WatchEvent{Kind: EventCommit, FromRevision: p.from, Revision: p.view.rev, Commit: &CredentialCommit{Changes: changes}}
			if p.done && w.synced {
				// The last part of a bracket: what came before adds up to it.
				e = w.event(e, p.view.rev)
				w.goOn()
			}
			return e, true, nil
		}
	}
	rev := p.view.rev
	w.goOn()
	if w.synced {
		w.reached = max(w.reached, rev)
		return WatchEvent{}, false, nil
	}
	w.synced = true
	return w.event(WatchEvent{Kind: EventSynced}, rev), true, nil
}

func (w *CredentialWatch) goOn() {
	if w.pending.overtaken {
		w.sub.Resume(uint64(w.pending.view.rev))
	}
	w.pending = nil
}

// chunk collects about chunkBytes of changes.
func (w *CredentialWatch) chunk(p *catchUp) ([]CredentialChange, error) {
	var out []CredentialChange
	var failed error
	size := 0
	add := func(c *Credential, e credentialUpdate) bool {
		ch, n, err := w.put(c, e.sealed)
		if err != nil {
			failed = err
			return false
		}
		out = append(out, ch)
		size += n
		return size < chunkBytes
	}
	full := false
	if p.whole {
		prefix := keyIn(w.req.Project.ID) + kindCredential
		visit := func(key string, e entry) bool {
			p.after = key
			c, ok := e.value.(*Credential)
			if !ok || !w.names.has(c.Name) || !w.filter.match(c, moment{}) {
				return true
			}
			pe, _ := p.view.get(keyVersion(c.UID, c.ActiveVersion))
			full = !add(c, credentialUpdate{sealed: pe.sealed})
			return !full
		}
		p.view.scanAfter(prefix, p.after, visit)
	} else {
		if p.next.rev == 0 {
			p.next = latestChange{rev: p.from + 1}
		}
		prefix := keyIn(w.req.Project.ID) + kindCredential
		p.view.latest.Ascend(p.next, func(l latestChange) bool {
			p.next = latestChange{rev: l.rev, key: l.key + "\x00"}
			name := credentialOfKey(l.key)
			if !strings.HasPrefix(l.key, prefix) || !w.names.has(name) {
				return true
			}
			if l.deleted {
				out = append(out, CredentialChange{Type: ChangeDelete, Credential: &Credential{Name: name, UID: l.uid}})
				size += 128
				full = size >= chunkBytes
				return !full
			}
			c, _, ok := lookup[*Credential](p.view, l.key)
			switch {
			case !ok:
				return true
			case !w.filter.match(c, moment{}):
				out = append(out, CredentialChange{Type: ChangeLeftFilter, Credential: &Credential{Name: c.Name, UID: c.UID}})
				size += 128
				full = size >= chunkBytes
				return !full
			}
			pe, _ := p.view.get(keyVersion(c.UID, c.ActiveVersion))
			full = !add(c, credentialUpdate{sealed: pe.sealed})
			return !full
		})
	}
	p.done = !full
	return out, failed
}

// put makes the change that tells of a credential, and about how large it is.
func (w *CredentialWatch) put(c *Credential, sealed []byte) (CredentialChange, int, error) {
	ch := CredentialChange{Type: ChangePut, Credential: c}
	if w.req.View != ViewPayload {
		return ch, 512, nil
	}
	payload, err := w.store.open(c.UID, c.ActiveVersion, sealed)
	if err != nil {
		return ch, 0, err
	}
	ch.Payload = payload
	return ch, 512 + len(sealed), nil
}

// fromUpdate makes this stream's event of an update; send is false when nothing
// in it concerns the stream.
func (w *CredentialWatch) fromUpdate(ctx context.Context, e fanout.Event[*update]) (ev WatchEvent, send bool, err error) {
	u := e.Value
	variant := make([]byte, 1, 1+len(u.credentials))
	variant[0] = byte(w.req.View)
	any := false
	for _, c := range u.credentials {
		t := w.sees(c)
		variant = append(variant, byte(t))
		any = any || t != 0
	}
	if !any {
		w.reached = max(w.reached, u.rev)
		return WatchEvent{}, false, nil
	}
	commit, err := u.shared.get(string(variant), func() (*CredentialCommit, error) {
		out := &CredentialCommit{}
		for i, c := range u.credentials {
			switch t := ChangeType(variant[1+i]); t {
			case ChangePut:
				ch, _, err := w.put(c.now, c.sealed)
				if err != nil {
					return nil, err
				}
				out.Changes = append(out.Changes, ch)
			case ChangeDelete, ChangeLeftFilter:
				uid := ""
				if c.old != nil {
					uid = c.old.UID
				}
				out.Changes = append(out.Changes, CredentialChange{Type: t, Credential: &Credential{Name: c.name, UID: uid}})
			}
		}
		return out, nil
	})
	if err != nil {
		return WatchEvent{}, false, err
	}
	if w.pushID() == "" || e.Replayed {
		err = w.leaving(ctx, commit.Changes, u.rev)
	} else {
		w.note(commit.Changes, u.rev)
	}
	if err != nil {
		return WatchEvent{}, false, err
	}
	return w.event(WatchEvent{Kind: EventCommit, FromRevision: w.reached, Commit: commit}, u.rev), true, nil
}

// sees says what a change is to this stream, 0 when nothing.
func (w *CredentialWatch) sees(c credentialUpdate) ChangeType {
	if c.name.Project != w.req.Project.ID || !w.names.has(c.name) {
		return 0
	}
	was := c.old != nil && w.filter.match(c.old, moment{})
	is := c.now != nil && w.filter.match(c.now, moment{})
	switch {
	case is:
		return ChangePut
	case was && c.now == nil:
		return ChangeDelete
	case was:
		return ChangeLeftFilter
	}
	return 0
}

// auditRetry is how long a parked stream waits before it tries again to put on
// record what it is about to send.
const auditRetry = time.Second

// leaving puts on record what this stream is about to send. While that cannot
// be done the stream is parked, not cut.
func (w *CredentialWatch) leaving(ctx context.Context, changes []CredentialChange, rev Revision) error {
	w.note(changes, rev)
	if w.req.View != ViewPayload {
		return nil
	}
	var payloads []string
	for _, c := range changes {
		if c.Type == ChangePut {
			payloads = append(payloads, c.Credential.Name.Version(c.Credential.ActiveVersion).String())
		}
	}
	if len(payloads) == 0 {
		return nil
	}
	return w.store.parkUntil(ctx, func() error {
		return w.store.release(ctx, CredentialsWatch, w.req.Project.String(), payloads, w.id, rev)
	})
}

// parkUntil repeats try until it succeeds or ctx ends.
func (s *Store) parkUntil(ctx context.Context, try func() error) error {
	for {
		if try() == nil {
			return nil
		}
		t := time.NewTimer(auditRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// note keeps the register of consumers current.
func (w *CredentialWatch) note(changes []CredentialChange, rev Revision) {
	if w.consumer == nil {
		return
	}
	for _, c := range slices.Backward(changes) {
		if c.Type == ChangePut {
			w.consumer.sent(c.Credential.Name, c.Credential.ActiveVersion, "", rev)
		} else {
			w.consumer.released(c.Credential.Name)
		}
	}
}

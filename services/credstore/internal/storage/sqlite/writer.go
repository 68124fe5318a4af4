package sqlite

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/tidwall/btree"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// writer is the one goroutine that writes. Its fields are its own.
type writer struct {
	s     *Store
	c     *conn
	ended chan struct{}

	begin, commit, rollback                *stmt
	appendSlot, fillSlot, appendLog        *stmt
	blockAt, trimLog, setCompacted, newest *stmt

	slots    slots
	blocks   []blockMark // the log's rows, oldest first
	trimGoal core.Revision
	waiters  []*request // compactions that wait for trimGoal
	walPages int        // pages written since the last checkpoint
	dirty    bool       // the write-ahead log was written since it was truncated
}

// blockMark is a row of the log without its content.
type blockMark struct {
	last core.Revision
	time int64 // of the last commit, Unix nanoseconds
}

func (w *writer) prepare() error {
	w.ended = make(chan struct{})
	for _, p := range []struct {
		to    **stmt
		query string
	}{
		{&w.begin, `BEGIN IMMEDIATE`},
		{&w.commit, `COMMIT`},
		{&w.rollback, `ROLLBACK`},
		{&w.appendSlot, `INSERT INTO slot (id, data) VALUES (?, ?)`},
		{&w.fillSlot, `UPDATE slot SET data = ?2 WHERE id = ?1`},
		{&w.appendLog, `INSERT INTO log (revision, time, block) VALUES (?, ?, ?)`},
		{&w.blockAt, `SELECT revision, block FROM log WHERE revision >= ? ORDER BY revision LIMIT 1`},
		{&w.trimLog, `DELETE FROM log WHERE revision <= ?`},
		{&w.setCompacted, `UPDATE meta SET compacted = ?, compacted_nonce = ?`},
		{&w.newest, `SELECT max(compacted, coalesce((SELECT max(revision) FROM log), 0)) FROM meta`},
	} {
		var err error
		if *p.to, err = w.c.prepare(p.query); err != nil {
			return err
		}
	}
	return nil
}

// run serves requests until they are closed, and all that were sent by then.
func (w *writer) run() {
	defer close(w.ended)
	tick := w.s.knobs.tick
	if tick == nil {
		t := time.NewTicker(maintenanceInterval)
		defer t.Stop()
		tick = t.C
	}
	group := make([]*request, 0, w.s.opts.MaxBatch)
	for {
		first, open, ticked := w.next(tick)
		if !open {
			break
		}
		if first != nil {
			group = w.gather(append(group[:0], first))
			w.serve(group)
			clear(group)
		}
		if ticked {
			w.maintain()
		}
		w.trimStep()
		w.checkpointWhenDue()
	}
	for len(w.waiters) > 0 && w.trimStep() { // each step removes history
		continue
	}
	w.s.endFeeds()
}

// next waits for something to do; while history waits to be trimmed it only
// looks.
func (w *writer) next(tick <-chan time.Time) (r *request, open, ticked bool) {
	if w.trimGoal > w.s.newest.Load().compacted {
		select {
		case r, open = <-w.s.requests:
			return r, open, false
		default:
			return nil, true, false
		}
	}
	select {
	case r, open = <-w.s.requests:
		return r, open, false
	case <-tick:
		return nil, true, true
	}
}

// gather adds the requests that wait already. Those who were just answered are
// about to ask again: the scheduler lets them, for it costs less than a second
// transaction.
func (w *writer) gather(group []*request) []*request {
	bytes := group[0].bytes
	for yields := 0; len(group) < w.s.opts.MaxBatch && bytes < groupBytes; {
		select {
		case r, open := <-w.s.requests:
			if !open {
				return group
			}
			group = append(group, r)
			bytes += r.bytes
		default:
			if yields++; yields > 2 {
				return group
			}
			runtime.Gosched()
		}
	}
	return group
}

// serve answers the requests of a group.
func (w *writer) serve(group []*request) {
	commits := group[:0]
	for _, r := range group {
		switch {
		case !r.state.CompareAndSwap(waiting, taken): // its caller has left
		case len(r.batch.Changes) == 0:
			w.wantCompacted(r)
		default:
			commits = append(commits, r)
		}
	}
	if len(commits) == 0 {
		return
	}
	if w.attempt(commits) {
		return
	}
	// The transaction was rolled back: let those that can be written be.
	for i := range commits {
		w.attempt(commits[i : i+1])
	}
}

// attempt writes the requests in one transaction and answers them. It returns
// false, without answers, when the transaction was rolled back and trying the
// requests one by one may help.
func (w *writer) attempt(group []*request) bool {
	if f := w.s.failure.Load(); f != nil {
		for _, r := range group {
			r.answer <- answer{err: f.err}
		}
		return true
	}
	g := w.stage(group)
	if len(g.commits) > 0 {
		if err := w.write(g); err != nil {
			g.undo(w)
			if len(group) > 1 && w.s.failure.Load() == nil {
				return false
			}
			for _, r := range group {
				r.answer <- answer{err: err}
			}
			return true
		}
	}
	for i, r := range group {
		r.answer <- g.answers[i]
	}
	return true
}

// staged is a group on its way into the database.
type staged struct {
	answers []answer // one for each request
	commits []core.Commit
	bytes   int
	keys    btree.Map[string, change] // what the group leaves at each key it changes
	placed  []placed
	next    int64 // slots.next before the group
	block   []byte
	pages   int
}

// change is what is left at a key.
type change struct {
	value   []byte
	deleted bool
	rev     core.Revision
}

// placed says what the group does to the slots for a key.
type placed struct {
	key         string
	before, now entry // id 0: none
	reused      bool  // now was taken from the free slots
}

// stage decides each request in order: on what is committed, and on what those
// before it in the group do.
func (w *writer) stage(group []*request) *staged {
	g := &staged{answers: make([]answer, len(group)), next: w.slots.next}
	at := w.s.opts.Clock()
	rev := w.s.revision()
	for i, r := range group {
		if err := w.check(g, r.batch.If); err != nil {
			g.answers[i] = answer{err: err}
			continue
		}
		rev++
		g.answers[i] = answer{rev: rev}
		g.bytes += r.bytes
		g.commits = append(g.commits, core.Commit{Revision: rev, Time: at, Changes: r.batch.Changes})
		for _, c := range r.batch.Changes {
			g.keys.Set(c.Key, change{value: c.Value, deleted: c.Delete, rev: rev})
		}
	}
	return g
}

// check returns a *core.PreconditionError when a precondition does not hold.
func (w *writer) check(g *staged, conditions []core.Precondition) error {
	var failed []core.Precondition
	for _, p := range conditions {
		holds := false
		switch p.Condition {
		case core.Absent:
			holds = w.revisionOf(g, p.Key) == 0
		case core.Present:
			holds = w.revisionOf(g, p.Key) != 0
		case core.AtRevision:
			holds = p.Revision != 0 && w.revisionOf(g, p.Key) == p.Revision
		case core.PrefixEmpty:
			holds = w.empty(g, p.Key)
		}
		if !holds {
			failed = append(failed, p)
		}
	}
	if failed == nil {
		return nil
	}
	return &core.PreconditionError{Failed: failed}
}

// revisionOf returns the revision of the record at key, 0 when there is none.
func (w *writer) revisionOf(g *staged, key string) core.Revision {
	if c, ok := g.keys.Get(key); ok {
		if c.deleted {
			return 0
		}
		return c.rev
	}
	e, _ := w.s.index.keys.Get(key)
	return e.rev
}

func (w *writer) empty(g *staged, prefix string) bool {
	found := false
	ascend(&g.keys, prefix, func(_ string, c change) bool {
		found = !c.deleted
		return !found
	})
	if found {
		return false
	}
	ascend(&w.s.index.keys, prefix, func(key string, _ entry) bool {
		c, changed := g.keys.Get(key)
		found = !changed || !c.deleted
		return !found
	})
	return !found
}

// write puts the group into the database and makes it visible. On an error
// nothing of it is there, unless the store has failed.
func (w *writer) write(g *staged) error {
	if err := nonces(g.commits); err != nil {
		return err
	}
	g.block = encodeBlock(g.commits)
	err := w.transaction(func() error {
		if err := w.place(g); err != nil {
			return err
		}
		last := g.commits[len(g.commits)-1]
		return w.appendLog.run(int64(last.Revision), last.Time.UnixNano(), g.block)
	}, func() { w.publish(g) })
	if err != nil {
		return fmt.Errorf("sqlite: commit: %w", err)
	}
	w.walPages += g.pages
	// Outside commitMu: a feed's lock is not worth a reader's wait.
	w.s.tell(g.commits, g.bytes)
	return nil
}

// nonces gives every commit 8 random bytes, never 0.
func nonces(commits []core.Commit) error {
	random := make([]byte, 8*len(commits))
	if _, err := rand.Read(random); err != nil {
		return err
	}
	for i := range commits {
		commits[i].Nonce = max(1, binary.BigEndian.Uint64(random[8*i:]))
	}
	return nil
}

// place writes the group's records into slots.
func (w *writer) place(g *staged) (err error) {
	g.keys.Scan(func(key string, c change) bool {
		before, had := w.s.index.keys.Get(key)
		p := placed{key: key, before: before}
		if !c.deleted {
			need := slotNeed(key, c.value)
			appended := false
			if had && slotFits(before.size, need) {
				p.now = entry{id: before.id, size: before.size, rev: c.rev}
			} else {
				p.now.rev = c.rev
				p.now.id, p.now.size, appended = w.slots.take(need)
				p.reused = !appended
			}
			g.placed = append(g.placed, p) // before anything can fail, for undo
			data := encodeSlot(p.now.size, c.rev, key, c.value)
			if appended {
				err = w.appendSlot.run(p.now.id, data)
			} else {
				err = w.fillSlot.run(p.now.id, data)
			}
			g.pages += 1 + p.now.size/4096
		} else {
			g.placed = append(g.placed, p)
		}
		if err == nil && had && p.now.id != before.id {
			err = w.fillSlot.run(before.id, make([]byte, before.size))
			g.pages += 1 + before.size/4096
		}
		return err == nil
	})
	return err
}

// undo gives back the slots of a group that was not written.
func (g *staged) undo(w *writer) {
	for _, p := range g.placed {
		if p.reused {
			w.slots.give(p.now.id, p.now.size)
		}
	}
	w.slots.next = g.next
}

// publish shows the group to readers; commitMu is held.
func (w *writer) publish(g *staged) {
	x := &w.s.index
	x.mu.Lock()
	for _, p := range g.placed {
		switch {
		case p.now.id == 0:
			x.keys.Delete(p.key)
		case p.before.id == 0:
			// A key of the caller's may be a part of something large.
			x.keys.Set(strings.Clone(p.key), p.now)
		default:
			x.keys.Set(p.key, p.now)
		}
	}
	x.mu.Unlock()
	for _, p := range g.placed {
		if p.before.id != 0 && p.before.id != p.now.id {
			w.slots.give(p.before.id, p.before.size)
		}
	}
	last := g.commits[len(g.commits)-1]
	w.blocks = append(w.blocks, blockMark{last: last.Revision, time: last.Time.UnixNano()})
	w.advance(func(p *position) { p.rev, p.nonce = last.Revision, last.Nonce })
	w.historyGoal()
}

func (w *writer) advance(change func(*position)) {
	p := *w.s.newest.Load()
	change(&p)
	w.s.newest.Store(&p)
}

// transaction runs fn between BEGIN and COMMIT, and then done, before anyone
// can see the database ahead of the index. An error means that nothing
// happened, or, when it wraps ErrFailed, that nobody knows.
func (w *writer) transaction(fn func() error, done func()) error {
	if err := w.begin.run(); err != nil {
		return w.failIfBroken(err)
	}
	var err error
	if w.s.knobs.beforeWrite != nil {
		err = w.s.knobs.beforeWrite()
	}
	if err == nil {
		err = fn()
	}
	if err != nil {
		// SQLite may have rolled back by itself; a second time is an error
		// that says nothing new.
		_ = w.rollback.run()
		return w.failIfBroken(err)
	}
	w.s.commitMu.Lock()
	defer w.s.commitMu.Unlock()
	w.dirty = true
	if err := w.runCommit(); err != nil {
		return w.afterFailedCommit(err)
	}
	if w.s.knobs.committed != nil {
		w.s.knobs.committed()
	}
	done()
	return nil
}

func (w *writer) runCommit() error {
	if w.s.knobs.atCommit != nil {
		if err := w.s.knobs.atCommit(); err != nil {
			return err
		}
	}
	return w.commit.run()
}

// afterFailedCommit finds out whether the transaction is there.
func (w *writer) afterFailedCommit(cause error) error {
	if broken(cause) {
		return w.fail(cause)
	}
	_ = w.rollback.run() // an error when COMMIT has rolled back already
	var newest int64
	if err := w.newest.one(nil, &newest); err != nil {
		return w.fail(errors.Join(cause, err))
	}
	// A trim step does not change the newest revision, and doing it again or
	// not at all is the same to everyone; a group does.
	if core.Revision(newest) != w.s.revision() {
		return w.fail(fmt.Errorf("newest revision is %d after a failed COMMIT at %d: %w", newest, w.s.revision(), cause))
	}
	return cause
}

func (w *writer) failIfBroken(err error) error {
	if broken(err) {
		return w.fail(err)
	}
	return err
}

// fail closes the store to writes and returns the error that says so.
func (w *writer) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	w.s.failure.Store(&failure{err: fmt.Errorf("sqlite: %w", err)})
	return err
}

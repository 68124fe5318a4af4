package sqlite

import (
	"fmt"
	"slices"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// trimBlocks is how many rows of the log one step removes.
const trimBlocks = 256

// wantCompacted takes a request to compact; it is answered when it is done.
func (w *writer) wantCompacted(r *request) {
	pos := w.s.newest.Load()
	switch f := w.s.failure.Load(); {
	case r.through > pos.rev:
		r.answer <- answer{err: fmt.Errorf("compact through %d, the newest is %d: %w", r.through, pos.rev, core.ErrFutureRevision)}
	case r.through <= pos.compacted:
		r.answer <- answer{}
	case f != nil:
		r.answer <- answer{err: f.err}
	default:
		w.trimGoal = max(w.trimGoal, r.through)
		w.waiters = append(w.waiters, r)
	}
}

// historyGoal lets go of the commits that are too many, once an eighth of the
// limit or a step is worth it.
func (w *writer) historyGoal() {
	pos, limit := w.s.newest.Load(), core.Revision(w.s.opts.HistoryCommits)
	if pos.rev-pos.compacted > limit+min(limit/8, trimBlocks) {
		w.trimGoal = max(w.trimGoal, pos.rev-limit)
	}
}

// maintain lets go of the commits that are too old and empties the write-ahead
// log. It runs every maintenanceInterval.
func (w *writer) maintain() {
	cutoff := w.s.opts.Clock().Add(-w.s.opts.HistoryAge).UnixNano()
	for _, b := range w.blocks { // ends at the first that is young enough
		if b.time >= cutoff {
			break
		}
		w.trimGoal = max(w.trimGoal, b.last)
	}
	if err := w.truncate(); err != nil && broken(err) {
		_ = w.fail(err) // every later commit reports it
	}
}

// trimStep removes some history, if there is a goal, and answers those who
// wait for it. It tells whether it removed any.
func (w *writer) trimStep() bool {
	compacted := w.s.newest.Load().compacted
	if w.trimGoal <= compacted {
		return false
	}
	if f := w.s.failure.Load(); f != nil {
		return w.giveUp(f.err)
	}
	n := 0
	for n < len(w.blocks) && n < trimBlocks && w.blocks[n].last <= w.trimGoal {
		n++
	}
	// The goal may lie inside a block: its row stays until the rest of it goes,
	// and is not handed out any more.
	through := w.trimGoal
	if n == trimBlocks {
		through = w.blocks[n-1].last
	}
	at, err := w.commitAt(through)
	if err == nil {
		err = w.transaction(func() error {
			if err := w.trimLog.run(int64(through)); err != nil {
				return err
			}
			return w.setCompacted.run(int64(through), int64(at.Nonce))
		}, func() {
			w.blocks = slices.Delete(w.blocks, 0, n)
			w.advance(func(p *position) { p.compacted = through })
		})
	}
	if err != nil {
		return w.giveUp(fmt.Errorf("sqlite: compact: %w", err))
	}
	w.walPages += 1 + n/8
	keep := w.waiters[:0]
	for _, r := range w.waiters {
		if r.through <= through {
			r.answer <- answer{}
		} else {
			keep = append(keep, r)
		}
	}
	w.waiters = keep
	return true
}

// giveUp drops the goal; the history that is too long or too old sets it again.
func (w *writer) giveUp(err error) bool {
	w.trimGoal = w.s.newest.Load().compacted
	for _, r := range w.waiters {
		r.answer <- answer{err: err}
	}
	w.waiters = nil
	return false
}

// commitAt reads a commit of the log.
func (w *writer) commitAt(rev core.Revision) (core.Commit, error) {
	var last int64
	var block []byte
	if err := w.blockAt.one([]any{int64(rev)}, &last, &block); err != nil {
		return core.Commit{}, fmt.Errorf("read log at %d: %w", rev, err)
	}
	commits, err := decodeBlock(block, core.Revision(last))
	if err != nil {
		return core.Commit{}, err
	}
	for _, c := range commits {
		if c.Revision == rev {
			return c, nil
		}
	}
	return core.Commit{}, fmt.Errorf("log has no commit %d: %w", rev, ErrCorrupt)
}

// checkpointWhenDue copies the write-ahead log into the file when it has grown
// enough, after the commits that made it grow were acknowledged. SQLite then
// begins the log anew, so that it stays of about this size.
func (w *writer) checkpointWhenDue() {
	if w.walPages < w.s.knobs.walPages {
		return
	}
	w.walPages = 0
	if err := w.c.exec(`PRAGMA wal_checkpoint(PASSIVE)`); err != nil && broken(err) {
		_ = w.fail(err) // every later commit reports it
	}
}

// truncate empties the write-ahead log unless another connection reads from it
// just now, for which it does not wait.
func (w *writer) truncate() error {
	if !w.dirty {
		return nil
	}
	if err := w.c.exec(`PRAGMA busy_timeout = 0`); err != nil {
		return err
	}
	var busy, pages, done int64
	err := w.c.one(`PRAGMA wal_checkpoint(TRUNCATE)`, &busy, &pages, &done)
	if err == nil && busy == 0 {
		w.dirty, w.walPages = false, 0
	}
	if e := w.c.exec(fmt.Sprintf(`PRAGMA busy_timeout = %d`, w.s.opts.BusyTimeout.Milliseconds())); err == nil {
		err = e
	}
	return err
}

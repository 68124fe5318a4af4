package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

const (
	// replayBlocks and replayCommits bound what a Feed reads from the log at
	// once; a block is never divided.
	replayBlocks  = 64
	replayCommits = 256
)

// feed hands out commits: from the log until it has caught up, then from a
// queue that the writer fills. When the queue is full the writer lets go of the
// feed, which takes what is in the queue and goes on from the log.
type feed struct {
	s    *Store
	done chan struct{} // closed by Close
	once sync.Once
	wake chan struct{} // holds one

	mu     sync.Mutex
	behind bool          // the writer does not fill queue
	queue  []core.Commit // contiguous
	bytes  int           // of keys and values in queue
	newest core.Revision // that the writer told of

	// The reader's own.
	pos    core.Revision // of the last commit handed out
	replay []core.Commit // read from the log
}

// Feed implements core.Storage.
func (s *Store) Feed(ctx context.Context, after core.Revision) (core.Feed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.feedsMu.Lock()
	defer s.feedsMu.Unlock()
	select {
	case <-s.closing:
		return nil, core.ErrClosed
	default:
	}
	// The writer shows a commit here before it tells the feeds, so that a feed
	// may be told of one that it has read, or that its caller has seen. Next
	// passes over those.
	pos := s.newest.Load()
	switch {
	case after > pos.rev:
		return nil, fmt.Errorf("feed after %d, the newest is %d: %w", after, pos.rev, core.ErrFutureRevision)
	case after < pos.compacted:
		return nil, fmt.Errorf("feed after %d, compacted is %d: %w", after, pos.compacted, core.ErrCompacted)
	}
	f := &feed{
		s:      s,
		done:   make(chan struct{}),
		wake:   make(chan struct{}, 1),
		behind: after < pos.rev,
		newest: pos.rev,
		pos:    after,
	}
	s.feeds[f] = struct{}{}
	return f, nil
}

// tell hands new commits to the feeds. It never waits for one.
func (s *Store) tell(commits []core.Commit, bytes int) {
	s.feedsMu.Lock()
	defer s.feedsMu.Unlock()
	for f := range s.feeds {
		f.push(commits, bytes)
	}
}

// endFeeds forgets the feeds; the closed Store has woken their readers.
func (s *Store) endFeeds() {
	s.feedsMu.Lock()
	defer s.feedsMu.Unlock()
	clear(s.feeds)
}

func (f *feed) push(commits []core.Commit, bytes int) {
	f.mu.Lock()
	f.newest = commits[len(commits)-1].Revision
	switch {
	case f.behind:
	case len(f.queue) > 0 && (len(f.queue)+len(commits) > f.s.opts.FeedBuffer || f.bytes+bytes > feedBytes):
		f.behind = true
	default:
		// An empty queue takes any group, so that a large one does not send
		// every feed to the log.
		f.queue = append(f.queue, commits...)
		f.bytes += bytes
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Next implements core.Feed.
func (f *feed) Next(ctx context.Context) (core.Commit, error) {
	for { // a round without a commit ends in a wait or has read all there was
		if err := f.ended(ctx); err != nil {
			return core.Commit{}, err
		}
		if len(f.replay) > 0 {
			c := f.replay[0]
			f.replay = f.replay[1:]
			f.pos = c.Revision
			return c, nil
		}
		c, ok, behind, newest := f.pop()
		switch {
		case ok && c.Revision <= f.pos: // it was in the log already
			continue
		case ok && c.Revision != f.pos+1:
			return core.Commit{}, fmt.Errorf("sqlite: feed: %d follows %d: %w", c.Revision, f.pos, ErrCorrupt)
		case ok:
			f.pos = c.Revision
			return c, nil
		case behind:
			if err := f.read(ctx, newest); err != nil {
				return core.Commit{}, err
			}
			continue
		}
		select {
		case <-f.wake:
		case <-f.done:
		case <-f.s.closing:
		case <-ctx.Done():
		}
	}
}

func (f *feed) ended(ctx context.Context) error {
	select {
	case <-f.done:
		return core.ErrClosed
	case <-f.s.closing:
		return core.ErrClosed
	default:
		return ctx.Err()
	}
}

// pop returns the next commit of the queue, or that there is none, whether the
// log must be read, and how far.
func (f *feed) pop() (c core.Commit, ok, behind bool, newest core.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) > 0 {
		c, f.queue[0] = f.queue[0], core.Commit{}
		if f.queue = f.queue[1:]; len(f.queue) == 0 {
			f.queue, f.bytes = nil, 0
		}
		for _, ch := range c.Changes {
			f.bytes = max(0, f.bytes-len(ch.Key)-len(ch.Value))
		}
		return c, true, false, 0
	}
	return core.Commit{}, false, f.behind, f.newest
}

// read fills replay from the log, up to newest. When that is all there is, the
// feed goes over to the queue here, under the lock that the writer takes to
// fill it: nothing can come between.
func (f *feed) read(ctx context.Context, newest core.Revision) error {
	r, err := f.s.acquire(ctx)
	if err != nil {
		return err
	}
	defer f.s.release(r)
	commits, err := r.history(&f.s.index, f.pos, newest)
	if err != nil {
		if !errors.Is(err, core.ErrCompacted) {
			err = fmt.Errorf("sqlite: feed: %w", err)
		}
		return err
	}
	f.replay = commits
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.newest <= commits[len(commits)-1].Revision {
		f.behind = false
	}
	return nil
}

// Close implements core.Feed.
func (f *feed) Close() {
	f.once.Do(func() {
		close(f.done)
		f.s.feedsMu.Lock()
		delete(f.s.feeds, f)
		f.s.feedsMu.Unlock()
	})
}

// history returns some commits after pos, and at least one if there is any, up
// to newest.
func (r *reader) history(x *index, pos, newest core.Revision) (commits []core.Commit, err error) {
	err = r.atomically(func() {}, func() error {
		var compacted int64
		if err := r.compacted.one(nil, &compacted); err != nil {
			return err
		}
		if pos < core.Revision(compacted) {
			return fmt.Errorf("feed at %d, compacted is %d: %w", pos, compacted, core.ErrCompacted)
		}
		if err := r.blocks.each(func(row []driver.Value) error {
			var last int64
			var block []byte
			if err := scan(row, &last, &block); err != nil {
				return err
			}
			if len(commits) >= replayCommits {
				return nil
			}
			decoded, err := decodeBlock(block, core.Revision(last))
			if err != nil {
				return err
			}
			for _, c := range decoded {
				if c.Revision <= pos || c.Revision > newest {
					continue
				}
				if want := pos + 1 + core.Revision(len(commits)); c.Revision != want {
					return fmt.Errorf("log has %d where %d is due: %w", c.Revision, want, ErrCorrupt)
				}
				commits = append(commits, c)
			}
			return nil
		}, int64(pos), int64(replayBlocks)); err != nil {
			return err
		}
		if len(commits) == 0 {
			return fmt.Errorf("log has nothing between %d and %d: %w", pos, newest, ErrCorrupt)
		}
		commits, err = r.fill(x, commits)
		return err
	})
	return commits, err
}

// fill adds the values that are still kept, and marks the other changes as
// superseded. It returns fewer commits when their values are many.
//
// A record that the index has at the commit's revision is read from its slot.
// The database can be ahead of the index but not behind it; what the slot then
// holds was put there by a later commit, and superseded is right again.
func (r *reader) fill(x *index, commits []core.Commit) ([]core.Commit, error) {
	type where struct{ commit, change int }
	var ids []int64
	wanted := map[int64]where{}
	records := make(map[int64]core.Record, manySlots)
	bytes := 0
	flush := func() error {
		clear(records)
		if err := r.records(ids, records); err != nil {
			return err
		}
		for _, id := range ids {
			c := &commits[wanted[id].commit]
			ch := &c.Changes[wanted[id].change]
			rec := records[id]
			if rec.Key == ch.Key && rec.Revision == c.Revision {
				ch.Value, ch.Superseded = rec.Value, false
				bytes += len(rec.Value)
			}
		}
		ids = ids[:0]
		clear(wanted)
		return nil
	}
	for i := range commits {
		for j := range commits[i].Changes {
			ch := &commits[i].Changes[j]
			if ch.Delete {
				continue
			}
			ch.Superseded = true
			if e, ok := x.get(ch.Key); ok && e.rev == commits[i].Revision {
				ids = append(ids, e.id)
				wanted[e.id] = where{i, j}
			}
			if len(ids) == manySlots {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
		if bytes > feedBytes {
			commits = commits[:i+1]
			break
		}
	}
	if len(ids) == 0 {
		return commits, nil
	}
	return commits, flush()
}

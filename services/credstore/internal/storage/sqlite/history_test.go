package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// logRows counts the rows of the log on disk.
func logRows(t testing.TB, s *Store) int64 {
	t.Helper()
	r, err := s.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.release(r)
	var n int64
	if err := r.c.one(`SELECT count(*) FROM log`, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestHistoryByCount(t *testing.T) {
	const limit, slack = 80, 10
	s := fresh(t, Options{HistoryCommits: limit}, knobs{synchronous: "OFF"})
	for i := range 1000 {
		rev := put(t, s, fmt.Sprintf("k%d", i%7), "v")
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if kept := rev - info.Compacted; rev > limit && kept < limit {
			t.Fatalf("at %d only %d commits are kept, want %d", rev, kept, limit)
		}
	}
	waitFor(t, func() bool {
		info, err := s.Info(t.Context())
		return err == nil && info.Revision-info.Compacted <= limit+slack
	})
	if n := logRows(t, s); n > limit+slack {
		t.Errorf("%d rows in the log, want at most %d", n, limit+slack)
	}
	if _, err := s.Feed(t.Context(), 100); !errors.Is(err, core.ErrCompacted) {
		t.Errorf("Feed(100) = %v, want ErrCompacted", err)
	}
	checkHistory(t, s)
}

func TestHistoryByAge(t *testing.T) {
	var now atomic.Int64
	tick := make(chan timeTick)
	s := fresh(t, Options{
		HistoryAge: time.Hour,
		Clock:      func() time.Time { return time.Unix(now.Load(), 0) },
	}, knobs{tick: tick, synchronous: "OFF"})
	for minute := range 180 {
		now.Store(int64(minute) * 60)
		put(t, s, "k", "v")
	}
	tick <- timeTick{}
	tick <- timeTick{} // the first has been served
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Now is 2:59, so the commits of 1:59 and later stay: revisions from 120.
	if info.Compacted != 119 || logRows(t, s) != 61 {
		t.Errorf("compacted %d with %d rows left, want 119 with 61", info.Compacted, logRows(t, s))
	}
	checkHistory(t, s)
}

// TestCompactInsideAGroup compacts through a commit that shares its row of the
// log with later ones.
func TestCompactInsideAGroup(t *testing.T) {
	gate := newGate()
	s := fresh(t, Options{}, knobs{beforeWrite: gate.pass})
	for i, err := range gate.together(t, s, 9, func(i int) core.Batch {
		return core.Batch{Changes: []core.Change{{Key: fmt.Sprintf("k%d", i), Value: []byte("v")}}}
	}) {
		if err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
	}
	if n := logRows(t, s); n != 2 {
		t.Fatalf("%d rows, want 2: the group was divided and the test shows nothing", n)
	}
	for _, through := range []core.Revision{4, 7, 10} {
		if err := s.Compact(t.Context(), through); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Feed(t.Context(), through-1); !errors.Is(err, core.ErrCompacted) {
			t.Errorf("Feed(%d) = %v, want ErrCompacted", through-1, err)
		}
		checkHistory(t, s)
		path := s.path
		before, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = fresh(t, Options{Path: path}, knobs{})
		if after, err := s.Info(t.Context()); err != nil || after != before {
			t.Errorf("Info = %+v, %v after %+v", after, err, before)
		}
		checkHistory(t, s)
	}
	if n := logRows(t, s); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if rev := put(t, s, "k", "v"); rev != 11 {
		t.Errorf("revision %d, want 11", rev)
	}
}

// TestCompactDoesNotStall: a commit that comes while a long history is being
// compacted is written after the step under way.
func TestCompactDoesNotStall(t *testing.T) {
	const n = 10 * trimBlocks
	var s *Store
	var starts []position // what each transaction of the compaction began at
	var armed atomic.Bool
	result := make(chan error, 1)
	s = fresh(t, Options{}, knobs{synchronous: "OFF", beforeWrite: func() error {
		if !armed.Load() {
			return nil
		}
		if starts = append(starts, *s.newest.Load()); len(starts) == 2 {
			go func() {
				_, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: "between"}}})
				result <- err
			}()
			waitFor(t, func() bool { return len(s.requests) == 1 })
		}
		return nil
	}})
	for i := range n {
		put(t, s, "k", fmt.Sprint(i))
	}
	armed.Store(true)
	if err := errors.Join(s.Compact(t.Context(), n), <-result); err != nil {
		t.Fatal(err)
	}
	armed.Store(false)
	checkHistory(t, s)
	if err := s.Close(); err != nil { // the writer is done with starts
		t.Fatal(err)
	}
	if len(starts) < 11 {
		t.Fatalf("%d transactions, want 10 steps and a commit", len(starts))
	}
	if starts[2].rev != n || starts[3].rev != n+1 || starts[3].compacted >= n {
		t.Errorf("the commit did not follow the step that it came in: %+v", starts[:4])
	}
}

// TestSlowFeed: the queue of a feed that nobody reads is bounded by count and
// by bytes, the writer does not wait, and the feed loses nothing.
func TestSlowFeed(t *testing.T) {
	for name, value := range map[string]string{"count": "v", "bytes": strings.Repeat("v", 64<<10)} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t, Options{FeedBuffer: 32}, knobs{synchronous: "OFF"})
			opened, err := s.Feed(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			f, ok := opened.(*feed)
			if !ok {
				t.Fatalf("%T", opened)
			}
			put(t, s, "first", "v")
			if c, err := f.Next(t.Context()); err != nil || c.Revision != 1 {
				t.Fatalf("Next = %+v, %v", c, err)
			}
			if _, _, behind, _ := f.pop(); behind {
				t.Fatal("the feed has not caught up: the test shows nothing")
			}
			for i := range 100 {
				put(t, s, fmt.Sprintf("k%d", i), value)
			}
			f.mu.Lock()
			queued, bytes, behind := len(f.queue), f.bytes, f.behind
			f.mu.Unlock()
			if queued == 0 || queued > 32 || bytes > feedBytes || !behind {
				t.Fatalf("%d commits of %d bytes are queued, behind: %v", queued, bytes, behind)
			}
			for want := core.Revision(2); want <= 101; want++ {
				c, err := f.Next(t.Context())
				if err != nil || c.Revision != want {
					t.Fatalf("Next = %d, %v, want %d", c.Revision, err, want)
				}
				if got := string(c.Changes[0].Value); got != value || c.Changes[0].Superseded {
					t.Fatalf("revision %d has a value of %d bytes, want %d", want, len(got), len(value))
				}
			}
			if _, _, behind, _ := f.pop(); behind {
				t.Error("the feed stays behind after it has caught up")
			}
			if f.bytes != 0 {
				t.Errorf("%d bytes are counted in an empty queue", f.bytes)
			}
		})
	}
}

// TestFeedToldTwice: a commit that the feed has read from the log already comes
// to its queue as well, when the feed was opened in just that moment.
func TestFeedToldTwice(t *testing.T) {
	s := fresh(t, Options{}, knobs{})
	put(t, s, "k1", "v")
	put(t, s, "k2", "v")
	f, err := s.Feed(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := f.Next(t.Context())
	if err != nil || c.Revision != 2 {
		t.Fatalf("Next = %+v, %v", c, err)
	}
	s.tell([]core.Commit{c}, 0)
	put(t, s, "k3", "v")
	if c, err := f.Next(t.Context()); err != nil || c.Revision != 3 {
		t.Fatalf("Next = %+v, %v, want revision 3", c, err)
	}
}

// TestNothingIsAheadOfInfo: between COMMIT and the moment when the store shows
// a commit, it is in the database already. No read may hand it out then: its
// revision would be in the future for Feed and Info.
func TestNothingIsAheadOfInfo(t *testing.T) {
	var armed atomic.Bool
	var s *Store
	var f core.Feed
	type seen struct {
		what        string
		rev, newest core.Revision
		err         error
	}
	reads := make(chan seen, 3)
	look := func(what string, read func() (core.Revision, error)) {
		rev, err := read()
		reads <- seen{what, rev, s.revision(), err}
	}
	s = fresh(t, Options{}, knobs{committed: func() {
		if !armed.CompareAndSwap(true, false) {
			return
		}
		go look("Get", func() (core.Revision, error) {
			r, err := s.Get(t.Context(), "k")
			return r.Revision, err
		})
		go look("Snapshot", func() (core.Revision, error) {
			return s.Snapshot(t.Context(), "", func(core.Record) error { return nil })
		})
		go look("Feed", func() (core.Revision, error) {
			var last core.Revision
			for range 3 {
				c, err := f.Next(t.Context())
				if err != nil {
					return 0, err
				}
				if last = c.Revision; last > s.revision() {
					break
				}
			}
			return last, nil
		})
		// Reads that do not wait, as they must, are done by then.
		<-time.After(100 * time.Millisecond)
	}})
	put(t, s, "k", "v")
	put(t, s, "k", "v")
	var err error
	if f, err = s.Feed(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	armed.Store(true)
	put(t, s, "k", "v")
	for range 3 {
		if r := <-reads; r.err != nil || r.rev > r.newest || r.rev != 3 && r.what != "Snapshot" {
			t.Errorf("%s saw revision %d, %v, when the newest was %d", r.what, r.rev, r.err, r.newest)
		}
	}
}

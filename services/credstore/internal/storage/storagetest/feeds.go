package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func testFeedPastAndLive(e *env) {
	var revs []core.Revision
	for i := range 5 {
		revs = append(revs, e.put(fmt.Sprintf("k%d", i), "v"))
	}
	all, some, none := e.feed(0), e.feed(revs[2]), e.feed(revs[4])
	for i := 5; i < 8; i++ {
		revs = append(revs, e.put(fmt.Sprintf("k%d", i), "v"))
	}
	for _, c := range []struct {
		feed core.Feed
		from int
	}{{all, 0}, {some, 3}, {none, 5}} {
		for i := c.from; i < len(revs); i++ {
			got := e.next(c.feed)
			if got.Revision != revs[i] {
				e.Fatalf("revision %d, want %d", got.Revision, revs[i])
			}
			e.wantDiff("changes", puts(fmt.Sprintf("k%d", i), "v").Changes, got.Changes)
		}
	}
	// Nothing more is there: Next waits for the next commit.
	got := make(chan core.Commit, 1)
	go func() {
		if c, err := none.Next(e.ctx); err == nil {
			got <- c
		}
		close(got)
	}()
	rev := e.put("later", "v")
	if c := <-got; c.Revision != rev {
		e.Fatalf("revision %d, want %d", c.Revision, rev)
	}
}

func testFeedSuperseded(e *env) {
	e.commit(puts("a", "a1", "b", "b1"))
	e.put("a", "a2")
	e.commit(core.Batch{Changes: append(deletes("b"), puts("c", "c1").Changes...)})
	e.delete("c", "never")
	e.put("c", "c2")
	f := e.feed(0)
	old := func(key string) core.Change { return core.Change{Key: key, Superseded: true} }
	for i, want := range [][]core.Change{
		{old("a"), old("b")},
		{{Key: "a", Value: []byte("a2")}},
		append(deletes("b"), old("c")),
		deletes("c", "never"),
		{{Key: "c", Value: []byte("c2")}},
	} {
		got := e.next(f).Changes
		// A backend may keep more than it must.
		for j := range got {
			if j < len(want) && want[j].Superseded && !got[j].Superseded && !got[j].Delete && len(got[j].Value) > 0 {
				want[j] = got[j]
			}
		}
		e.wantDiff(fmt.Sprintf("commit %d", i+1), want, got)
	}
}

// follow reads commits until it has seen the last revision, and checks that
// they come in order.
func follow(ctx context.Context, f core.Feed, after, last core.Revision) ([]core.Commit, error) {
	var out []core.Commit
	for at := after; at < last; {
		c, err := f.Next(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %d: %w", at, err)
		}
		if c.Revision <= at {
			return nil, fmt.Errorf("revision %d after %d", c.Revision, at)
		}
		at = c.Revision
		out = append(out, c)
	}
	return out, nil
}

// load commits from several goroutines and returns which key each revision put.
func (e *env) load(writers, each int) map[core.Revision]string {
	e.Helper()
	var mu sync.Mutex
	acked := map[core.Revision]string{}
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := range each {
				key := fmt.Sprintf("load/%d/%d", w, i)
				rev, err := e.Commit(e.ctx, puts(key, key))
				if err != nil {
					return err
				}
				mu.Lock()
				other, twice := acked[rev]
				acked[rev] = key
				mu.Unlock()
				if twice {
					return fmt.Errorf("revision %d for %q and %q", rev, key, other)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
	return acked
}

// check compares what a feed told with what was acknowledged.
func (e *env) check(acked map[core.Revision]string, got []core.Commit) {
	e.Helper()
	if len(got) != len(acked) {
		e.Errorf("%d commits told, %d acknowledged", len(got), len(acked))
	}
	for _, c := range got {
		want := puts(acked[c.Revision], acked[c.Revision]).Changes
		if d := cmp.Diff(want, c.Changes); d != "" {
			e.Fatalf("revision %d (-want +got):\n%s", c.Revision, d)
		}
	}
}

// testFeedUnderLoad opens feeds at all times while commits come: each must see
// every commit after its start exactly once, in order.
func testFeedUnderLoad(e *env) {
	const writers, each = 16, 60
	start := e.put("first", "v")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	type told struct {
		after   core.Revision
		commits []core.Commit
	}
	var feeds errgroup.Group
	results := make(chan told, 1000)
	target := start + writers*each // every commit makes at least one revision
	open := func(after core.Revision) {
		f, err := e.Feed(ctx, after)
		if err != nil {
			e.Errorf("Feed(%d): %v", after, err)
			return
		}
		feeds.Go(func() error {
			defer f.Close()
			c, err := follow(ctx, f, after, target)
			results <- told{after, c}
			return err
		})
	}
	open(start)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		for range 50 {
			info, err := e.Info(ctx)
			if err != nil || info.Revision >= target {
				return
			}
			open(info.Revision)
			open(start)
		}
	}()
	acked := e.load(writers, each)
	<-opened
	if err := feeds.Wait(); err != nil {
		e.Fatal(err)
	}
	close(results)
	n := 0
	for r := range results {
		want := map[core.Revision]string{}
		for rev, key := range acked {
			if rev > r.after {
				want[rev] = key
			}
		}
		e.check(want, r.commits)
		n++
	}
	e.Logf("%d feeds", n)
}

// testFeedSlow lets a feed wait while more is committed than any queue holds.
func testFeedSlow(e *env) {
	slow := e.feed(0)
	e.put("first", "v")
	e.next(slow) // it has caught up once
	acked := e.load(16, 100)
	got, err := follow(e.ctx, slow, 1, e.info().Revision)
	if err != nil {
		e.Fatal(err)
	}
	e.check(acked, got)
	// And it is live again.
	rev := e.put("last", "v")
	if c := e.next(slow); c.Revision != rev {
		e.Fatalf("revision %d, want %d", c.Revision, rev)
	}
}

// testFeedState applies a replay to nothing and compares with the snapshot.
func testFeedState(e *env) {
	var g errgroup.Group
	for w := range 4 {
		g.Go(func() error {
			for i := range 100 {
				k := fmt.Sprintf("k/%d", (w*31+i*17)%40)
				b := puts(k, fmt.Sprintf("%d/%d", w, i), "both/"+k, "v")
				if i%3 == 0 {
					b = core.Batch{Changes: deletes(k)}
				}
				if _, err := e.Commit(e.ctx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	live := e.feed(0)
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
	want, rev := e.snapshot("")
	for name, f := range map[string]core.Feed{"live": live, "past": e.feed(0)} {
		commits, err := follow(e.ctx, f, 0, rev)
		if err != nil {
			e.Fatal(err)
		}
		state := map[string]core.Record{}
		for _, c := range commits {
			for _, ch := range c.Changes {
				if ch.Delete {
					delete(state, ch.Key)
				} else {
					state[ch.Key] = core.Record{Key: ch.Key, Value: ch.Value, Revision: c.Revision}
				}
			}
		}
		e.wantDiff(name+": number of records", len(want), len(state))
		for _, r := range want {
			e.wantDiff(name, r, state[r.Key])
		}
	}
}

func testFeedFuture(e *env) {
	_, err := e.Feed(e.ctx, 1)
	e.wantErr("Feed(1) of an empty store", err, core.ErrFutureRevision)
	rev := e.put("k", "v")
	_, err = e.Feed(e.ctx, rev+1)
	e.wantErr("Feed", err, core.ErrFutureRevision)
	e.feed(rev)
}

func testNextContext(e *env) {
	f := e.feed(0)
	ctx, cancel := context.WithCancel(e.ctx)
	errs := make(chan error, 1)
	go func() {
		_, err := f.Next(ctx)
		errs <- err
	}()
	cancel()
	e.wantErr("Next", <-errs, context.Canceled)
	rev := e.put("k", "v")
	_, err := f.Next(ctx)
	e.wantErr("Next with a commit at hand", err, context.Canceled)
	if c := e.next(f); c.Revision != rev {
		e.Fatalf("revision %d, want %d", c.Revision, rev)
	}
}

func testNonceAndTime(e *env) {
	f := e.feed(0)
	before := time.Now().Add(-24 * time.Hour) // the store's clock may differ
	seen := map[uint64]bool{0: true}
	for range 20 {
		e.put("k", "v")
		live := e.next(f)
		if seen[live.Nonce] {
			e.Fatalf("nonce %d twice, or 0", live.Nonce)
		}
		seen[live.Nonce] = true
		if live.Time.Before(before) {
			e.Fatalf("time %v", live.Time)
		}
		if i := e.info(); i.Nonce != live.Nonce || i.Revision != live.Revision {
			e.Fatalf("Info tells %d of %d, the feed %d of %d", i.Nonce, i.Revision, live.Nonce, live.Revision)
		}
		past := e.next(e.feed(live.Revision - 1))
		if past.Nonce != live.Nonce || !past.Time.Equal(live.Time) {
			e.Fatalf("replayed %d at %v, live %d at %v", past.Nonce, past.Time, live.Nonce, live.Time)
		}
	}
}

func testFeedClose(e *env) {
	f := e.feed(0)
	e.put("k", "v")
	f.Close()
	_, err := f.Next(e.ctx)
	e.wantErr("Next", err, core.ErrClosed)
	f.Close()
	// A Next that waits ends too.
	f = e.feed(1)
	errs := make(chan error, 1)
	go func() {
		_, err := f.Next(e.ctx)
		errs <- err
	}()
	f.Close()
	e.wantErr("Next", <-errs, core.ErrClosed)
	e.put("k", "v") // nobody waits for it
}

func testCompact(e *env) {
	e.put("a", "1")
	middle := e.put("b", "1")
	last := e.put("c", "1")
	want, _ := e.snapshot("")
	if err := e.Compact(e.ctx, middle); err != nil {
		e.Fatal(err)
	}
	got, rev := e.snapshot("")
	e.wantDiff("records", want, got)
	e.wantDiff("revision", last, rev)
	if i := e.info(); i.Compacted != middle || i.Revision != last {
		e.Fatalf("Info = %+v", i)
	}
	_, err := e.Feed(e.ctx, middle-1)
	e.wantErr("Feed before", err, core.ErrCompacted)
	_, err = e.Feed(e.ctx, 0)
	e.wantErr("Feed(0)", err, core.ErrCompacted)
	if c := e.next(e.feed(middle)); c.Revision != last {
		e.Fatalf("revision %d, want %d", c.Revision, last)
	}
	e.commit(core.Batch{
		If:      []core.Precondition{{Condition: core.AtRevision, Key: "b", Revision: middle}},
		Changes: puts("b", "2").Changes,
	})
}

func testCompactBounds(e *env) {
	if err := e.Compact(e.ctx, 0); err != nil {
		e.Fatal(err)
	}
	e.wantErr("Compact(1) of an empty store", e.Compact(e.ctx, 1), core.ErrFutureRevision)
	e.put("k", "v")
	last := e.put("k", "v")
	for _, rev := range []core.Revision{last, last, 1, 0} {
		if err := e.Compact(e.ctx, rev); err != nil {
			e.Fatalf("Compact(%d): %v", rev, err)
		}
		if i := e.info(); i.Compacted != last {
			e.Fatalf("compacted %d, want %d", i.Compacted, last)
		}
	}
	e.wantErr("Compact beyond", e.Compact(e.ctx, last+1), core.ErrFutureRevision)
}

// testCompactOvertakes compacts what a feed has not read: it must get the
// commits in order without a gap, or ErrCompacted.
func testCompactOvertakes(e *env) {
	e.load(8, 200)
	f := e.feed(0)
	at := e.next(f).Revision
	if err := e.Compact(e.ctx, e.info().Revision); err != nil {
		e.Fatal(err)
	}
	last := e.put("end", "v")
	for at < last {
		c, err := f.Next(e.ctx)
		if errors.Is(err, core.ErrCompacted) {
			return
		}
		if err != nil {
			e.Fatal(err)
		}
		if c.Revision != at+1 && last == 1602 { // a backend without gaps shows that there is none
			e.Fatalf("revision %d after %d", c.Revision, at)
		}
		at = c.Revision
	}
	e.Fatal("the feed read 1,600 commits that were compacted under it: nothing was forgotten")
}

func testCompactAll(e *env) {
	rev := e.put("k", "v")
	before := e.info()
	if err := e.Compact(e.ctx, rev); err != nil {
		e.Fatal(err)
	}
	e.wantDiff("Info", core.StorageInfo{
		FeedID: before.FeedID, Revision: rev, Compacted: rev, Nonce: before.Nonce, SchemaVersion: before.SchemaVersion,
	}, e.info())
	f := e.feed(rev)
	next := e.delete("k")
	if next <= rev {
		e.Fatalf("revision %d after %d", next, rev)
	}
	if c := e.next(f); c.Revision != next {
		e.Fatalf("revision %d, want %d", c.Revision, next)
	}
}

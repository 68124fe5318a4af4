package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func testInfo(e *env) {
	i := e.info()
	if i.FeedID == "" || i.SchemaVersion < 1 || i.Revision != 0 || i.Compacted != 0 || i.Nonce != 0 {
		e.Fatalf("Info of an empty store = %+v", i)
	}
	rev := e.put("k", "v")
	j := e.info()
	if j.FeedID != i.FeedID || j.Revision != rev || j.Nonce == 0 {
		e.Fatalf("Info = %+v after %+v", j, i)
	}
}

func testEndedContext(e *env) {
	e.put("k", "v")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	for name, call := range calls(ctx, e.Storage) {
		e.wantErr(name, call(), context.Canceled)
	}
}

// calls makes one call of every method that returns an error.
func calls(ctx context.Context, s core.Storage) map[string]func() error {
	return map[string]func() error{
		"Get":      func() error { _, err := s.Get(ctx, "k"); return err },
		"Snapshot": func() error { _, err := s.Snapshot(ctx, "", func(core.Record) error { return nil }); return err },
		"Commit":   func() error { _, err := s.Commit(ctx, puts("k", "v")); return err },
		"Feed": func() error {
			f, err := s.Feed(ctx, 0)
			if err == nil {
				f.Close()
			}
			return err
		},
		"Compact": func() error { return s.Compact(ctx, 1) },
		"Info":    func() error { _, err := s.Info(ctx); return err },
	}
}

func testClosed(e *env) {
	e.put("k", "v")
	f := e.feed(0)
	for range 2 {
		if err := e.Close(); err != nil {
			e.Fatalf("Close: %v", err)
		}
		for name, call := range calls(e.ctx, e.Storage) {
			e.wantErr(name, call(), core.ErrClosed)
		}
		_, err := f.Next(e.ctx)
		e.wantErr("Next", err, core.ErrClosed)
	}
	f.Close()
}

// testCloseWaits closes under writers: each commit is acknowledged and there
// afterwards, or was refused with ErrClosed and is not.
func testCloseWaits(e *env) {
	var mu sync.Mutex
	outcome := map[string]bool{}
	var g errgroup.Group
	started := make(chan struct{}, 8)
	for w := range 8 {
		g.Go(func() error {
			for i := 0; ; i++ {
				key := fmt.Sprintf("k/%d/%d", w, i)
				_, err := e.Commit(e.ctx, puts(key, "v"))
				if err != nil && !errors.Is(err, core.ErrClosed) {
					return err
				}
				mu.Lock()
				outcome[key] = err == nil
				mu.Unlock()
				if i == 5 {
					started <- struct{}{}
				}
				if err != nil {
					return nil //nolint:nilerr // ErrClosed is how it ends
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	if err := e.Close(); err != nil {
		e.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
	e.reopen()
	for key, acked := range outcome {
		if acked {
			e.get(key)
		} else {
			e.wantAbsent(key)
		}
	}
}

func testCloseEndsNext(e *env) {
	f := e.feed(0)
	errs := make(chan error, 1)
	go func() {
		_, err := f.Next(e.ctx)
		errs <- err
	}()
	if err := e.Close(); err != nil {
		e.Fatal(err)
	}
	e.wantErr("Next", <-errs, core.ErrClosed)
}

func testReopen(e *env) {
	e.commit(puts("a", "1", "b", "2", "c", ""))
	e.put("a", "3")
	e.delete("b")
	want, rev := e.snapshot("")
	info := e.info()
	e.reopen()
	got, then := e.snapshot("")
	e.wantDiff("records", want, got)
	e.wantDiff("revision", rev, then)
	e.wantDiff("Info", info, e.info())
	commits, err := follow(e.ctx, e.feed(0), 0, rev)
	if err != nil {
		e.Fatal(err)
	}
	e.wantDiff("changes of the last commit", deletes("b"), commits[2].Changes)
	_, err = e.Commit(e.ctx, core.Batch{If: []core.Precondition{{Condition: core.Absent, Key: "a"}}, Changes: deletes("a")})
	e.failed(err)
	e.commit(core.Batch{If: []core.Precondition{{Condition: core.Absent, Key: "b"}}, Changes: puts("b", "again").Changes})
	if next := e.info().Revision; next <= rev {
		e.Fatalf("revision %d after %d", next, rev)
	}
}

func testReopenFeed(e *env) {
	acked := e.load(4, 50)
	var got []core.Commit
	f := e.feed(0)
	for range 70 {
		got = append(got, e.next(f))
	}
	e.reopen()
	at := got[len(got)-1].Revision
	f = e.feed(at)
	e.put("after", "v")
	rest, err := follow(e.ctx, f, at, e.info().Revision)
	if err != nil {
		e.Fatal(err)
	}
	got = append(got, rest[:len(rest)-1]...)
	e.check(acked, got)
}

func testReopenCompacted(e *env) {
	e.put("k", "v")
	rev := e.delete("k")
	if err := e.Compact(e.ctx, rev); err != nil {
		e.Fatal(err)
	}
	before := e.info()
	for range 2 {
		e.reopen()
		e.wantDiff("Info", before, e.info())
	}
	_, err := e.Feed(e.ctx, 0)
	e.wantErr("Feed(0)", err, core.ErrCompacted)
	f := e.feed(rev)
	next := e.put("k", "v")
	if next <= rev {
		e.Fatalf("revision %d after %d", next, rev)
	}
	if c := e.next(f); c.Revision != next {
		e.Fatalf("revision %d, want %d", c.Revision, next)
	}
}

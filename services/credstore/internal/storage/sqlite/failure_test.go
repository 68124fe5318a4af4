package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// wantWhole opens the path again and checks that it holds what the live store
// showed, and that history and records agree.
func wantWhole(t *testing.T, s *Store, keys map[string]bool) {
	t.Helper()
	check := func(s *Store) {
		t.Helper()
		for key, want := range keys {
			if _, err := s.Get(t.Context(), key); (err == nil) != want || err != nil && !errors.Is(err, core.ErrNotFound) {
				t.Errorf("Get(%s): %v, want it there: %v", key, err, want)
			}
		}
		checkHistory(t, s)
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkIntegrity(t, s.path)
	check(fresh(t, Options{Path: s.path}, knobs{}))
}

// TestOneThatCannotBeWritten: a transaction that SQLite refuses is tried commit
// by commit, and only those that cannot be written fail.
func TestOneThatCannotBeWritten(t *testing.T) {
	gate := newGate()
	s := fresh(t, Options{}, knobs{beforeWrite: gate.pass, setup: func(c *conn) error {
		return c.exec(`PRAGMA max_page_count = 40`) // 160 KiB
	}})
	results := gate.together(t, s, 8, func(i int) core.Batch {
		value := "small"
		if i%4 == 1 {
			value = strings.Repeat("x", 1<<20)
		}
		return core.Batch{Changes: []core.Change{{Key: fmt.Sprintf("k%d", i), Value: []byte(value)}}}
	})
	want := map[string]bool{}
	for i, err := range results {
		want[fmt.Sprintf("k%d", i)] = i%4 != 1
		if (err == nil) != (i%4 != 1) {
			t.Errorf("commit %d: %v", i, err)
		}
		if errors.Is(err, ErrFailed) {
			t.Errorf("commit %d: %v, though a full database is no damage", i, err)
		}
	}
	put(t, s, "after", "v")
	want["after"] = true
	wantWhole(t, s, want)
}

// gate holds the writer in its first transaction until a group has formed.
type gate struct {
	armed  atomic.Bool
	inside chan struct{}
	open   chan struct{}
}

func newGate() *gate {
	return &gate{inside: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) pass() error {
	if g.armed.CompareAndSwap(true, false) {
		close(g.inside)
		<-g.open
	}
	return nil
}

// together commits n batches so that the writer finds them all waiting, in this
// order.
func (g *gate) together(t *testing.T, s *Store, n int, batch func(i int) core.Batch) []error {
	t.Helper()
	results := make([]error, n)
	var wg errgroup.Group
	g.armed.Store(true)
	wg.Go(func() error {
		_, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: "gate"}}})
		return err
	})
	<-g.inside
	for i := range n {
		wg.Go(func() error {
			_, results[i] = s.Commit(t.Context(), batch(i))
			return nil
		})
		waitFor(t, func() bool { return len(s.requests) == i+1 })
	}
	close(g.open)
	if err := wg.Wait(); err != nil {
		t.Fatal(err)
	}
	return results
}

// waitFor polls what no channel tells.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(time.Minute)
	for !cond() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatal("waited for a minute")
		}
	}
}

// TestGroupSeesItsOwnEffects: each batch of a group is checked against those
// before it, for all four preconditions.
func TestGroupSeesItsOwnEffects(t *testing.T) {
	gate := newGate()
	s := fresh(t, Options{}, knobs{beforeWrite: gate.pass})
	put(t, s, "p/old", "v") // 1; the gate is 2, so the first of the group is 3
	cases := []struct {
		why     string
		cond    core.Precondition
		change  core.Change
		applied bool
	}{
		{"creates it", core.Precondition{Condition: core.Absent, Key: "new"}, core.Change{Key: "new"}, true},
		{"it was created", core.Precondition{Condition: core.Absent, Key: "new"}, core.Change{Key: "new"}, false},
		{"it is there, at 3", core.Precondition{Condition: core.AtRevision, Key: "new", Revision: 3}, core.Change{Key: "x"}, true},
		{"deletes the only one", core.Precondition{Condition: core.Present, Key: "p/old"}, core.Change{Key: "p/old", Delete: true}, true},
		{"it was deleted", core.Precondition{Condition: core.Present, Key: "p/old"}, core.Change{Key: "y"}, false},
		{"it was deleted, at 1", core.Precondition{Condition: core.AtRevision, Key: "p/old", Revision: 1}, core.Change{Key: "y"}, false},
		{"none is left", core.Precondition{Condition: core.PrefixEmpty, Key: "p/"}, core.Change{Key: "p/2"}, true},
		{"there is one again", core.Precondition{Condition: core.PrefixEmpty, Key: "p/"}, core.Change{Key: "p/3"}, false},
	}
	results := gate.together(t, s, len(cases), func(i int) core.Batch {
		return core.Batch{If: []core.Precondition{cases[i].cond}, Changes: []core.Change{cases[i].change}}
	})
	for i, c := range cases {
		var failed *core.PreconditionError
		if (results[i] == nil) != c.applied || results[i] != nil && !errors.As(results[i], &failed) {
			t.Errorf("%d, %s: %v, want it applied: %v", i, c.why, results[i], c.applied)
		}
	}
	if n := logRows(t, s); n != 3 { // put, gate, and one for the group
		t.Errorf("%d transactions, want 3: the group was divided and the test shows nothing", n)
	}
	wantWhole(t, s, map[string]bool{"new": true, "x": true, "y": false, "p/old": false, "p/2": true, "p/3": false})
}

// TestFailedCommitThatIsNotThere: COMMIT fails without effect; the commits of
// the group are tried again, and the store goes on.
func TestFailedCommitThatIsNotThere(t *testing.T) {
	fail := errors.New("no commit now")
	var times atomic.Int32
	s := fresh(t, Options{}, knobs{atCommit: func() error {
		if times.Add(-1) >= 0 {
			return fail
		}
		return nil
	}})
	put(t, s, "before", "v")
	times.Store(1)
	if _, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: "lost", Value: []byte("v")}}}); !errors.Is(err, fail) || errors.Is(err, ErrFailed) {
		t.Fatalf("Commit = %v, want the cause and not ErrFailed", err)
	}
	if rev := put(t, s, "after", "v"); rev != 2 {
		t.Errorf("revision %d, want 2", rev)
	}
	wantWhole(t, s, map[string]bool{"before": true, "lost": false, "after": true})
}

// TestAmbiguousCommit: COMMIT took effect and an error was told, as when the
// disk's answer is lost. The store must not go on from a state that it does not
// know.
func TestAmbiguousCommit(t *testing.T) {
	var s *Store
	var armed atomic.Bool
	lost := errors.New("answer lost")
	s = fresh(t, Options{}, knobs{atCommit: func() error {
		if armed.CompareAndSwap(true, false) {
			return errors.Join(s.w.commit.run(), lost)
		}
		return nil
	}})
	put(t, s, "before", "v")
	f, err := s.Feed(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	armed.Store(true)
	for i := range 3 {
		if _, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: fmt.Sprintf("unknown%d", i)}}}); !errors.Is(err, ErrFailed) {
			t.Fatalf("Commit %d = %v, want ErrFailed", i, err)
		}
	}
	if err := s.Compact(t.Context(), 1); !errors.Is(err, ErrFailed) {
		t.Errorf("Compact = %v, want ErrFailed", err)
	}
	// Reads show what was acknowledged.
	if info, err := s.Info(t.Context()); err != nil || info.Revision != 1 {
		t.Errorf("Info = %+v, %v, want revision 1", info, err)
	}
	if c, err := f.Next(t.Context()); err != nil || c.Revision != 1 {
		t.Errorf("Next = %+v, %v", c, err)
	}
	path := s.path
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Opened again, the truth: the first was written, the others were not.
	again := fresh(t, Options{Path: path}, knobs{})
	if rev := put(t, again, "next", "v"); rev != 3 {
		t.Errorf("revision %d, want 3", rev)
	}
	wantWhole(t, again, map[string]bool{"before": true, "unknown0": true, "unknown1": false, "next": true})
}

// TestUndo: a group that is rolled back gives its slots back, those it took and
// those it appended, and what is written next has its own.
func TestUndo(t *testing.T) {
	fail := errors.New("no commit now")
	var armed atomic.Bool
	s := fresh(t, Options{}, knobs{atCommit: func() error {
		if armed.CompareAndSwap(true, false) {
			return fail
		}
		return nil
	}})
	put(t, s, "a", "free me")
	put(t, s, "b", "stay")
	if _, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: "a", Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	_, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{
		{Key: "c", Value: []byte("takes the free slot")},
		{Key: "d", Value: []byte("appends")},
		{Key: "b", Value: []byte(strings.Repeat("moves", 100))},
	}})
	if !errors.Is(err, fail) {
		t.Fatalf("Commit = %v", err)
	}
	put(t, s, "e", "takes the free slot")
	if s.w.slots.next != 3 {
		t.Errorf("next slot is %d, want 3: the free one was not taken", s.w.slots.next)
	}
	put(t, s, "f", "appends")
	if r, err := s.Get(t.Context(), "b"); err != nil || string(r.Value) != "stay" {
		t.Errorf("Get(b) = %v, %v", r, err)
	}
	wantWhole(t, s, map[string]bool{"a": false, "b": true, "c": false, "d": false, "e": true, "f": true})
}

// TestBusy: another program holds the write lock for longer than BusyTimeout.
func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credstore.db")
	s := fresh(t, Options{Path: path, BusyTimeout: 10 * time.Millisecond}, knobs{})
	put(t, s, "k", "v")
	other, err := dial(dsn(path, writing, 0, "FULL"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.close() }()
	if err := other.exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: "k"}}}); err == nil || errors.Is(err, ErrFailed) {
		t.Errorf("Commit = %v, want an error that is not final", err)
	}
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Errorf("Get = %v", err)
	}
	if err := other.exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "v")
}

// TestAbandoned: a commit whose caller leaves while the writer is busy is not
// written.
func TestAbandoned(t *testing.T) {
	gate := newGate()
	s := fresh(t, Options{}, knobs{beforeWrite: gate.pass})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	left := make(chan error, 1)
	gate.armed.Store(true)
	go func() {
		_, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: "gate"}}})
		left <- err
	}()
	<-gate.inside
	gone := make(chan error, 1)
	go func() {
		_, err := s.Commit(ctx, core.Batch{Changes: []core.Change{{Key: "left"}}})
		gone <- err
	}()
	waitFor(t, func() bool { return len(s.requests) == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("Commit = %v, want context.Canceled", err)
	}
	close(gate.open)
	if err := <-left; err != nil {
		t.Fatal(err)
	}
	put(t, s, "after", "v")
	wantWhole(t, s, map[string]bool{"gate": true, "left": false, "after": true})
}

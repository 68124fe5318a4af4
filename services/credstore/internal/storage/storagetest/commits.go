package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func testGet(e *env) {
	first := e.put("k", "one")
	e.wantDiff("record", core.Record{Key: "k", Value: []byte("one"), Revision: first}, e.get("k"))
	e.put("other", "x")
	second := e.put("k", "two")
	e.wantDiff("record", core.Record{Key: "k", Value: []byte("two"), Revision: second}, e.get("k"))
	e.delete("k")
	e.wantAbsent("k")
	again := e.put("k", "three")
	e.wantDiff("record", core.Record{Key: "k", Value: []byte("three"), Revision: again}, e.get("k"))
}

func testGetAbsent(e *env) {
	e.wantAbsent("k")
	e.put("kk", "v")
	e.wantAbsent("k")
	e.wantAbsent("kkk")
	e.wantAbsent("")
}

func testValueOwnership(e *env) {
	value := []byte("value")
	f := e.feed(0)
	e.commit(core.Batch{Changes: []core.Change{{Key: "k", Value: value}}})
	kept := e.get("k").Value
	clear(value)
	e.put("k", "other")
	if string(kept) != "value" {
		e.Fatalf("a value from Get became %q", kept)
	}
	if ch := e.next(f).Changes[0]; !ch.Superseded && string(ch.Value) != "value" {
		e.Fatalf("the caller's slice shows in the feed: %q", ch.Value)
	}
}

func testSizes(e *env) {
	var want []core.Record
	for i, size := range []int{0, 1, 13, 50, 64, 500, 1000, 4000, 4096, 5000, 70_000, 1 << 20} {
		key := fmt.Sprintf("size/%02d", i)
		value := bytes.Repeat([]byte{byte(i + 1)}, size)
		rev := e.commit(core.Batch{Changes: []core.Change{{Key: key, Value: value}}})
		want = append(want, core.Record{Key: key, Value: value, Revision: rev})
	}
	for i, key := range []string{"\x00", "a\x00b", "\xff\xff", "é/ü", strings.Repeat("k", 1000)} {
		e.put(key, strconv.Itoa(i))
		if got := e.get(key); got.Key != key || string(got.Value) != strconv.Itoa(i) {
			e.Fatalf("Get(%q) = %v", key, got)
		}
	}
	for _, w := range want {
		e.wantDiff(w.Key, w, e.get(w.Key))
	}
	// Grow and shrink the same key.
	for _, size := range []int{10, 3000, 200, 100_000, 0, 700} {
		value := bytes.Repeat([]byte{7}, size)
		rev := e.commit(core.Batch{Changes: []core.Change{{Key: "size/00", Value: value}}})
		e.wantDiff("resized", core.Record{Key: "size/00", Value: value, Revision: rev}, e.get("size/00"))
	}
	got, _ := e.snapshot("size/")
	e.wantDiff("keys", len(want), len(got))
}

func testSnapshotOrder(e *env) {
	keys := []string{"a", "b", "b/", "b/1", "b/10", "b/2", "b0", "b\x00", "b\xff", "b\xff\xff", "c", "é"}
	for i := range keys {
		e.put(keys[(i*7)%len(keys)], "v")
	}
	e.delete("b0")
	// More than any backend reads at once.
	many := core.Batch{}
	for i := range 1000 {
		many.Changes = append(many.Changes, core.Change{Key: fmt.Sprintf("many/%03d", (i*37)%1000), Value: []byte{1}})
	}
	e.commit(many)
	for _, c := range many.Changes {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "b", "b/", "b/1", "b\xff", "many/", "many/99", "nothing", "é"} {
		var want, got []string
		for _, k := range keys {
			if strings.HasPrefix(k, prefix) && k != "b0" {
				want = append(want, k)
			}
		}
		records, _ := e.snapshot(prefix)
		for _, r := range records {
			got = append(got, r.Key)
		}
		e.wantDiff(fmt.Sprintf("Snapshot(%q)", prefix), want, got)
	}
}

func testSnapshotRevision(e *env) {
	if r, rev := e.snapshot(""); len(r) != 0 || rev != 0 {
		e.Fatalf("an empty store has %v at %d", r, rev)
	}
	e.put("a/1", "v")
	last := e.put("b/1", "v")
	if _, rev := e.snapshot("a/"); rev != last {
		e.Fatalf("revision %d, want %d", rev, last)
	}
	last = e.delete("b/1")
	if _, rev := e.snapshot("nothing"); rev != last {
		e.Fatalf("revision %d, want %d", rev, last)
	}
}

func testSnapshotYieldError(e *env) {
	e.commit(puts("a", "1", "b", "2", "c", "3"))
	stop := errors.New("stop")
	var seen []string
	_, err := e.Snapshot(e.ctx, "", func(r core.Record) error {
		if seen = append(seen, r.Key); len(seen) == 2 {
			return stop
		}
		return nil
	})
	if err != stop { //nolint:errorlint // as it is, not wrapped
		e.Fatalf("error %v, want yield's own", err)
	}
	e.wantDiff("seen", []string{"a", "b"}, seen)
	e.snapshot("") // the store is not stuck
}

// testSnapshotConsistent moves an amount between two keys in every commit; the
// sum must be the same in every snapshot, and both must carry the snapshot's
// newest revision.
func testSnapshotConsistent(e *env) {
	keys := make([]string, 200) // more than one read apart
	b := core.Batch{}
	for i := range keys {
		keys[i] = fmt.Sprintf("k/%03d", i)
		b.Changes = append(b.Changes, core.Change{Key: keys[i], Value: []byte("0")})
	}
	e.commit(b)
	ctx, cancel := context.WithCancel(e.ctx)
	var g errgroup.Group
	for w := range 4 {
		g.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				v := strconv.Itoa(w*1_000_000 + n)
				first, last := keys[w], keys[len(keys)-1-w]
				if _, err := e.Commit(ctx, puts(first, v, last, v)); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	for range 200 {
		got := map[string]core.Record{}
		var newest core.Revision
		records, rev := e.snapshot("k/")
		for _, r := range records {
			got[r.Key] = r
			newest = max(newest, r.Revision)
		}
		if len(got) != len(keys) || newest > rev {
			e.Errorf("snapshot at %d has %d records, the newest of %d", rev, len(got), newest)
		}
		for w := range 4 {
			first, last := got[keys[w]], got[keys[len(keys)-1-w]]
			if string(first.Value) != string(last.Value) || first.Revision != last.Revision {
				e.Errorf("snapshot at %d is torn: %q@%d and %q@%d", rev, first.Value, first.Revision, last.Value, last.Revision)
			}
		}
		if f, err := e.Feed(e.ctx, rev); err != nil {
			e.Errorf("Feed at the snapshot's revision: %v", err)
		} else {
			f.Close()
		}
		if e.Failed() {
			break
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
}

func testRevisions(e *env) {
	last := e.put("k", "v")
	if last != 1 {
		e.Fatalf("first revision %d", last)
	}
	for i := range 20 {
		var rev core.Revision
		switch i % 3 {
		case 0:
			rev = e.put("k", "v") // the same again
		case 1:
			rev = e.delete("k")
		default:
			rev = e.put("other", "v")
		}
		if rev <= last {
			e.Fatalf("revision %d after %d", rev, last)
		}
		last = rev
	}
	_, err := e.Commit(e.ctx, core.Batch{If: []core.Precondition{{Condition: core.Absent, Key: "other"}}, Changes: deletes("other")})
	e.failed(err)
	if i := e.info(); i.Revision != last {
		e.Fatalf("a commit that failed made revision %d of %d", i.Revision, last)
	}
}

func testAtomic(e *env) {
	e.put("old", "v")
	rev := e.commit(core.Batch{Changes: append(deletes("old"), puts("a", "1", "b", "2").Changes...)})
	e.wantAbsent("old")
	for _, k := range []string{"a", "b"} {
		if r := e.get(k); r.Revision != rev {
			e.Fatalf("%s has revision %d, want the commit's %d", k, r.Revision, rev)
		}
	}
	before, at := e.snapshot("")
	_, err := e.Commit(e.ctx, core.Batch{
		If:      []core.Precondition{{Condition: core.Present, Key: "a"}, {Condition: core.Absent, Key: "b"}},
		Changes: append(deletes("a"), puts("c", "3").Changes...),
	})
	e.failed(err)
	after, then := e.snapshot("")
	e.wantDiff("records after a commit that failed", before, after)
	e.wantDiff("revision after a commit that failed", at, then)
}

func testDeleteAbsent(e *env) {
	f := e.feed(0)
	rev := e.delete("never")
	if rev != 1 {
		e.Fatalf("revision %d", rev)
	}
	for _, f := range []core.Feed{f, e.feed(0)} {
		e.wantDiff("changes", deletes("never"), e.next(f).Changes)
	}
	rev = e.commit(core.Batch{Changes: append(deletes("never"), puts("k", "v").Changes...)})
	if r := e.get("k"); r.Revision != rev {
		e.Fatalf("revision %d, want %d", r.Revision, rev)
	}
}

func testBadBatches(e *env) {
	e.put("k", "v")
	for name, b := range map[string]core.Batch{
		"empty":               {},
		"preconditions only":  {If: []core.Precondition{{Condition: core.Present, Key: "k"}}},
		"empty key":           puts("", "v"),
		"empty key, delete":   {Changes: deletes("")},
		"second key is empty": puts("a", "1", "", "2"),
		"a key twice":         puts("a", "1", "b", "2", "a", "3"),
		"put and delete":      {Changes: append(deletes("a"), puts("a", "1").Changes...)},
		"twice among many": {Changes: func() []core.Change {
			var out []core.Change
			for i := range 100 {
				out = append(out, core.Change{Key: strconv.Itoa(i % 99)})
			}
			return out
		}()},
		"empty key in a condition": {If: []core.Precondition{{Condition: core.Present}}, Changes: deletes("a")},
		"no condition":             {If: []core.Precondition{{Key: "k"}}, Changes: deletes("a")},
		"unknown condition":        {If: []core.Precondition{{Condition: 99, Key: "k"}}, Changes: deletes("a")},
	} {
		if rev, err := e.Commit(e.ctx, b); !errors.Is(err, core.ErrBadBatch) {
			e.Errorf("%s: Commit = %d, %v, want ErrBadBatch", name, rev, err)
		}
	}
	if records, rev := e.snapshot(""); len(records) != 1 || rev != 1 {
		e.Fatalf("something was applied: %v at %d", records, rev)
	}
}

func testCommitContext(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	_, err := e.Commit(ctx, puts("k", "v"))
	e.wantErr("Commit", err, context.Canceled)
	e.wantAbsent("k") // ended before it began
}

func testCommitAbandoned(e *env) {
	var g errgroup.Group
	var unknown atomic.Int64
	for w := range 8 {
		g.Go(func() error {
			for i := range 50 {
				ctx, cancel := context.WithCancel(e.ctx)
				go cancel()
				k := fmt.Sprintf("%d/%d", w, i)
				rev, err := e.Commit(ctx, puts("a/"+k, "v", "b/"+k, "v"))
				cancel()
				switch {
				case err == nil:
					if r, err := e.Get(e.ctx, "a/"+k); err != nil || r.Revision != rev {
						return fmt.Errorf("acknowledged at %d: Get = %v, %w", rev, r, err)
					}
				case errors.Is(err, context.Canceled):
					unknown.Add(1)
				default:
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
	e.Logf("%d of 400 were left by their callers", unknown.Load())
	e.put("end", "") // whatever was under way is decided
	a, _ := e.snapshot("a/")
	b, _ := e.snapshot("b/")
	e.wantDiff("halves", len(a), len(b))
	for i := range a {
		if a[i].Revision != b[i].Revision {
			e.Fatalf("%v and %v are of one batch", a[i], b[i])
		}
	}
}

func testPreconditions(e *env) {
	rev := e.put("p/k", "v")
	e.put("q", "v")
	for _, c := range []struct {
		name  string
		cond  core.Precondition
		holds bool
	}{
		{"absent of an absent key", core.Precondition{Condition: core.Absent, Key: "p"}, true},
		{"absent of a present key", core.Precondition{Condition: core.Absent, Key: "p/k"}, false},
		{"present of a present key", core.Precondition{Condition: core.Present, Key: "p/k"}, true},
		{"present of an absent key", core.Precondition{Condition: core.Present, Key: "p/"}, false},
		{"at its revision", core.Precondition{Condition: core.AtRevision, Key: "p/k", Revision: rev}, true},
		{"at another revision", core.Precondition{Condition: core.AtRevision, Key: "p/k", Revision: rev + 1}, false},
		{"an absent key at a revision", core.Precondition{Condition: core.AtRevision, Key: "no", Revision: rev}, false},
		{"an absent key at revision 0", core.Precondition{Condition: core.AtRevision, Key: "no"}, false},
		{"an empty prefix", core.Precondition{Condition: core.PrefixEmpty, Key: "p/l"}, true},
		{"a prefix with keys", core.Precondition{Condition: core.PrefixEmpty, Key: "p/"}, false},
		{"a prefix that is a key", core.Precondition{Condition: core.PrefixEmpty, Key: "p/k"}, false},
		{"a prefix longer than any key", core.Precondition{Condition: core.PrefixEmpty, Key: "p/k/"}, true},
		{"the whole store", core.Precondition{Condition: core.PrefixEmpty}, false},
	} {
		got, err := e.Commit(e.ctx, core.Batch{If: []core.Precondition{c.cond}, Changes: puts("out", "v").Changes})
		if c.holds {
			if err != nil || got == 0 {
				e.Errorf("%s: Commit = %d, %v, want it applied", c.name, got, err)
			}
		} else {
			e.wantDiff(c.name, []core.Precondition{c.cond}, e.failed(err))
		}
	}
	// What a commit itself changes does not count for its preconditions.
	e.commit(core.Batch{If: []core.Precondition{{Condition: core.Absent, Key: "new"}}, Changes: puts("new", "v").Changes})
	e.commit(core.Batch{If: []core.Precondition{{Condition: core.Present, Key: "new"}}, Changes: deletes("new")})
	// The last key of a prefix goes, and the prefix is empty.
	e.delete("p/k")
	e.commit(core.Batch{If: []core.Precondition{{Condition: core.PrefixEmpty, Key: "p/"}}, Changes: puts("out", "v").Changes})
}

func testPreconditionsListed(e *env) {
	e.put("here", "v")
	conds := []core.Precondition{
		{Condition: core.Absent, Key: "here"},
		{Condition: core.Present, Key: "here"},
		{Condition: core.Present, Key: "gone"},
		{Condition: core.AtRevision, Key: "here", Revision: 77},
		{Condition: core.PrefixEmpty, Key: "he"},
	}
	_, err := e.Commit(e.ctx, core.Batch{If: conds, Changes: puts("x", "v").Changes})
	e.wantDiff("failed", []core.Precondition{conds[0], conds[2], conds[3], conds[4]}, e.failed(err))
	e.wantAbsent("x")
}

// testNeighbours commits at the same time batches of which every other fails.
func testNeighbours(e *env) {
	e.put("here", "v")
	var g errgroup.Group
	for i := range 200 {
		g.Go(func() error {
			b := puts(fmt.Sprintf("k/%d", i), "v")
			if i%2 == 0 {
				b.If = []core.Precondition{{Condition: core.Absent, Key: "here"}}
			}
			_, err := e.Commit(e.ctx, b)
			var p *core.PreconditionError
			if errors.As(err, &p) != (i%2 == 0) || i%2 == 1 && err != nil {
				return fmt.Errorf("commit %d: %w", i, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
	if r, rev := e.snapshot("k/"); len(r) != 100 || rev < 101 {
		e.Fatalf("%d records at %d, want 100", len(r), rev)
	}
}

// testReferenceRace lets one commit refer to a target while another deletes it:
// exactly one of the two may win, every time.
func testReferenceRace(e *env) {
	var referred, deleted int
	for i := range e.opts.Rounds {
		target, usage := fmt.Sprintf("target/%d", i), fmt.Sprintf("usage/%d/", i)
		e.put(target, "v")
		var wg sync.WaitGroup
		var refErr, delErr error
		refer := func() {
			_, refErr = e.Commit(e.ctx, core.Batch{
				If:      []core.Precondition{{Condition: core.Present, Key: target}},
				Changes: puts(usage+"me", "v").Changes,
			})
		}
		remove := func() {
			_, delErr = e.Commit(e.ctx, core.Batch{
				If:      []core.Precondition{{Condition: core.PrefixEmpty, Key: usage}},
				Changes: deletes(target),
			})
		}
		first, second := refer, remove
		if i%2 == 1 {
			first, second = remove, refer
		}
		wg.Go(first)
		wg.Go(second)
		wg.Wait()
		switch {
		case refErr == nil && delErr != nil:
			referred++
			e.failed(delErr)
			e.get(target)
		case refErr != nil && delErr == nil:
			deleted++
			e.failed(refErr)
			e.wantAbsent(target)
			e.wantAbsent(usage + "me")
		default:
			e.Fatalf("round %d: reference %v, delete %v: exactly one must win", i, refErr, delErr)
		}
	}
	e.Logf("%d references and %d deletes won", referred, deleted)
}

func testIncrements(e *env) {
	const writers, each = 8, 25
	e.put("n", "0")
	var g errgroup.Group
	for range writers {
		g.Go(func() error {
			for done := 0; done < each; {
				r, err := e.Get(e.ctx, "n")
				if err != nil {
					return err
				}
				n, err := strconv.Atoi(string(r.Value))
				if err != nil {
					return err
				}
				b := puts("n", strconv.Itoa(n+1))
				b.If = []core.Precondition{{Condition: core.AtRevision, Key: "n", Revision: r.Revision}}
				_, err = e.Commit(e.ctx, b)
				if _, ok := errors.AsType[*core.PreconditionError](err); ok {
					continue
				}
				if err != nil {
					return err
				}
				done++
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
	e.wantDiff("count", strconv.Itoa(writers*each), string(e.get("n").Value))
}

func testOneCreator(e *env) {
	for i := range e.opts.Rounds / 10 {
		key := fmt.Sprintf("k/%d", i)
		var g errgroup.Group
		var won atomic.Int64
		for range 8 {
			g.Go(func() error {
				b := puts(key, "v")
				b.If = []core.Precondition{{Condition: core.Absent, Key: key}}
				_, err := e.Commit(e.ctx, b)
				var p *core.PreconditionError
				switch {
				case err == nil:
					won.Add(1)
				case !errors.As(err, &p):
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			e.Fatal(err)
		}
		if won.Load() != 1 {
			e.Fatalf("%d creators of %q won", won.Load(), key)
		}
	}
}

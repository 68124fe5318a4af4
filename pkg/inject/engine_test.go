package inject_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/credstore/credstore/pkg/inject"
	"github.com/credstore/credstore/pkg/inject/fileset"
)

// step is one set that arrives, and what must be so afterwards.
type step struct {
	set      inject.Set
	files    map[string]string
	failures map[string]string
	ready    bool
}

func TestSets(t *testing.T) {
	ok := map[string]string{}
	tests := []struct {
		name  string
		steps []step
	}{
		{"whole set, then a delta, then a removal", []step{
			{whole(1, item("a", "A"), item("b/c", "C", mode("0440"))), map[string]string{"a": "A 0400", "b/c": "C 0440"}, ok, true},
			{delta(2, item("a", "A2")), map[string]string{"a": "A2 0400", "b/c": "C 0440"}, ok, true},
			{inject.Set{Revision: 3, Removed: []string{"web/b/c"}}, map[string]string{"a": "A2 0400"}, ok, true},
			{whole(4, item("x", "X")), map[string]string{"x": "X 0400"}, ok, true},
			{whole(5), nil, ok, true},
		}},
		{"an empty set is complete", []step{
			{whole(1), nil, ok, true},
			{delta(2, item("a", "", failed)), nil, map[string]string{"web/a": "store refused"}, true},
		}},
		{"an empty content is a content", []step{
			{whole(1, item("a", "")), map[string]string{"a": " 0400"}, ok, true},
		}},
		{"a mode alone changes", []step{
			{whole(1, item("a", "A")), map[string]string{"a": "A 0400"}, ok, true},
			{delta(2, item("a", "A", mode("0440"))), map[string]string{"a": "A 0440"}, ok, true},
		}},
		{"a failed item keeps its last good content and holds back nobody", []step{
			{whole(1, item("a", "A"), item("b", "B")), map[string]string{"a": "A 0400", "b": "B 0400"}, ok, true},
			{delta(2, item("a", "", failed), item("b", "B2")), map[string]string{"a": "A 0400", "b": "B2 0400"}, map[string]string{"web/a": "no value for it: store refused"}, true},
			{delta(3, item("a", "A", known)), map[string]string{"a": "A 0400", "b": "B2 0400"}, ok, true},
			{delta(4, item("a", "", failed)), map[string]string{"a": "A 0400", "b": "B2 0400"}, map[string]string{"web/a": ""}, true},
			{delta(5, item("a", "A3")), map[string]string{"a": "A3 0400", "b": "B2 0400"}, ok, true},
		}},
		{"a stale item is as good as any", []step{
			{whole(1, item("a", "A", func(it *inject.Item) { it.State, it.Message = inject.Stale, "vault is sealed" })), map[string]string{"a": "A 0400"}, ok, true},
		}},
		{"a group changes together or not at all", []step{
			{whole(1, item("cert", "C1", group("tls")), item("key", "K1", group("tls")), item("other", "O1")), map[string]string{"cert": "C1 0400", "key": "K1 0400", "other": "O1 0400"}, ok, true},
			{delta(2, item("cert", "C2", group("tls")), item("key", "", group("tls"), failed), item("other", "O2")), map[string]string{"cert": "C1 0400", "key": "K1 0400", "other": "O2 0400"}, map[string]string{"web/cert": `held back with its group "tls" by item "web/key"`, "web/key": "store refused"}, true},
			// The content of cert was delivered before, and is not sent again.
			{delta(3, item("key", "K2", group("tls"))), map[string]string{"cert": "C2 0400", "key": "K2 0400", "other": "O2 0400"}, ok, true},
		}},
		{"a group that goes back to the value from before", []step{
			{whole(1, item("cert", "C1", group("tls")), item("key", "K1", group("tls"))), map[string]string{"cert": "C1 0400", "key": "K1 0400"}, ok, true},
			{delta(2, item("cert", "C2", group("tls")), item("key", "", group("tls"), failed)), map[string]string{"cert": "C1 0400", "key": "K1 0400"}, map[string]string{"web/cert": "", "web/key": ""}, true},
			{delta(3, item("cert", "C1", group("tls"), known), item("key", "K1", group("tls"), known)), map[string]string{"cert": "C1 0400", "key": "K1 0400"}, ok, true},
			{delta(4, item("cert", "C1", group("tls"), known)), map[string]string{"cert": "C1 0400", "key": "K1 0400"}, ok, true},
		}},
		{"a group of one injection is not that of another", []step{
			{whole(1, item("a", "A", group("g")), item("b", "B", group("g"), of(jobInjection))), map[string]string{"a": "A 0400", "b": "B 0400"}, ok, true},
			{delta(2, item("a", "", group("g"), failed), item("b", "B2", group("g"), of(jobInjection))), map[string]string{"a": "A 0400", "b": "B2 0400"}, map[string]string{"web/a": ""}, true},
		}},
		{"a new item waits for its group", []step{
			{whole(1, item("a", "A", group("g"))), map[string]string{"a": "A 0400"}, ok, true},
			{delta(2, item("b", "B", group("g")), item("a", "", group("g"), failed)), map[string]string{"a": "A 0400"}, map[string]string{"web/a": "", "web/b": "held back"}, true},
			{delta(3, item("a", "A", group("g"), known)), map[string]string{"a": "A 0400", "b": "B 0400"}, ok, true},
		}},
		{"a removal does not wait for its group", []step{
			{whole(1, item("a", "A", group("g")), item("b", "B", group("g"))), map[string]string{"a": "A 0400", "b": "B 0400"}, ok, true},
			{inject.Set{Revision: 2, Items: []inject.Item{item("b", "", group("g"), failed)}, Removed: []string{"web/a"}}, map[string]string{"b": "B 0400"}, map[string]string{"web/b": ""}, true},
		}},
		{"the first start waits for all", []step{
			{whole(1, item("a", "A"), item("b", "", failed)), nil, map[string]string{"web/a": "waits for web/b", "web/b": "store refused"}, false},
			{delta(2, item("c", "C")), nil, map[string]string{"web/a": "waits", "web/b": "", "web/c": "waits for web/b"}, false},
			{delta(3, item("b", "B")), map[string]string{"a": "A 0400", "b": "B 0400", "c": "C 0400"}, ok, true},
			{delta(4, item("d", "", failed), item("a", "A2")), map[string]string{"a": "A2 0400", "b": "B 0400", "c": "C 0400"}, map[string]string{"web/d": ""}, true},
		}},
		{"what was delivered before the first start was complete counts as last good", []step{
			{whole(1, item("a", "A"), item("b", "", failed)), nil, map[string]string{"web/a": "", "web/b": ""}, false},
			{delta(2, item("a", "", failed)), nil, map[string]string{"web/a": "", "web/b": ""}, false},
			{delta(3, item("b", "B")), map[string]string{"a": "A 0400", "b": "B 0400"}, map[string]string{"web/a": "store refused"}, true},
		}},
		{"a path that leads out is refused, and the others are applied", []step{
			{
				whole(1, item("a", "A"), item("../../etc/passwd", "X"), item("/abs", "X"), item("b/../../c", "X"), item("..data", "X"), item("", "X")),
				map[string]string{"a": "A 0400"},
				map[string]string{"web/../../etc/passwd": `element "." or ".."`, "web//abs": "absolute", "web/b/../../c": "", "web/..data": "reserved", "web/": "empty"},
				false,
			},
			{delta(2, item("a", "A2")), map[string]string{"a": "A2 0400"}, map[string]string{"web/../../etc/passwd": "", "web//abs": "", "web/b/../../c": "", "web/..data": "", "web/": ""}, false},
			{whole(3, item("a", "A2", known)), map[string]string{"a": "A2 0400"}, ok, true},
		}},
		{"a mode or an owner that cannot be is refused", []step{
			{
				whole(1, item("a", "A"), item("b", "B", mode("4755")), item("c", "C", mode("rw")), item("d", "D", func(it *inject.Item) { uid := uint32(1<<32 - 1); it.UID = &uid })),
				map[string]string{"a": "A 0400"},
				map[string]string{"web/b": `mode "4755"`, "web/c": "mode", "web/d": "uid"},
				false,
			},
		}},
		{"of overlapping paths the first by id is kept", []step{
			{whole(1, item("x", "job's", of(jobInjection)), item("x", "web's"), item("y", "Y")), map[string]string{"x": "job's 0400", "y": "Y 0400"}, map[string]string{"web/x": `overlaps with that of item "job/x"`}, false},
			{delta(2, item("y/z", "Z", of(jobInjection))), map[string]string{"x": "job's 0400", "y/z": "Z 0400"}, map[string]string{"web/x": "", "web/y": `item "job/y/z"`}, false},
			{inject.Set{Revision: 3, Removed: []string{"job/x", "job/y/z"}}, map[string]string{"x": "web's 0400"}, map[string]string{"web/y": "not delivered"}, false},
			{whole(4, item("x", "web's", known), item("y", "Y")), map[string]string{"x": "web's 0400", "y": "Y 0400"}, ok, true},
		}},
		{"an overlap does not remove a file before another takes its place", []step{
			{whole(1, item("x", "web's")), map[string]string{"x": "web's 0400"}, ok, true},
			{delta(2, item("x", "", of(jobInjection), failed)), map[string]string{"x": "web's 0400"}, map[string]string{"job/x": "", "web/x": "overlaps"}, true},
			{delta(3, item("x", "job's", of(jobInjection))), map[string]string{"x": "job's 0400"}, map[string]string{"web/x": "overlaps"}, true},
		}},
		{"a refused item holds back its group and nobody else", []step{
			{whole(1, item("a", "A", group("g")), item("../b", "B", group("g")), item("c", "C")), map[string]string{"c": "C 0400"}, map[string]string{"web/../b": "", "web/a": "held back"}, false},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			synctest.Test(t, func(t *testing.T) {
				r := start(t, root, nil)
				defer r.end()
				for i, s := range test.steps {
					r.give(s.set)
					r.wantFiles(s.files)
					r.wantReport(s.set.Revision, s.failures)
					if got := ready(r.engine); got != s.ready {
						t.Errorf("step %d: ready %v, want %v: %v", i+1, got, s.ready, r.engine.Status().Reasons)
					}
					if t.Failed() {
						t.Fatalf("step %d", i+1)
					}
				}
			})
			if _, err := os.Stat(filepath.Join(filepath.Dir(root), "c")); err == nil {
				t.Error("something was written outside root")
			}
		})
	}
}

func TestNothingIsTouchedWhenNothingChanged(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, root, nil)
		defer r.end()
		r.give(whole(1, item("a", "A"), item("b", "B")))
		before := stat(t, root)
		r.give(whole(1, item("a", "A"), item("b", "B")))
		r.give(whole(2, item("a", "A", known), item("b", "B", known)))
		r.give(delta(3, item("a", "A", known)))
		if diff := cmp.Diff(before, stat(t, root)); diff != "" {
			t.Errorf("root was touched (-before +after):\n%s", diff)
		}
		r.wantReport(3, nil)
		if _, n := r.source.last(); n != 4 {
			t.Errorf("%d reports for 4 sets", n)
		}
	})
}

// stat describes everything in root, so that any change shows.
func stat(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.Walk(root, func(p string, info os.FileInfo, err error) error {
		if err == nil {
			st := info.Sys().(*syscall.Stat_t)
			all = append(all, fmt.Sprintf("%s %d %s %d", p, st.Ino, info.Mode(), st.Ctim.Nano()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRestart(t *testing.T) {
	tests := []struct {
		name     string
		set      inject.Set
		files    map[string]string
		failures map[string]string
		ready    bool
	}{
		{"a failed item is found on the disk", whole(9, item("a", "", failed), item("b", "B2")), map[string]string{"a": "A 0440", "b": "B2 0400"}, map[string]string{"web/a": ""}, true},
		{"a group with a failed item stays", whole(9, item("a", "", group("g"), failed), item("b", "B2", group("g"))), map[string]string{"a": "A 0440", "b": "B 0400"}, map[string]string{"web/a": "", "web/b": "held back"}, true},
		{"what is gone from the set goes", whole(9, item("b", "B")), map[string]string{"b": "B 0400"}, nil, true},
		{"nothing waits for an item that never had a content", whole(9, item("a", "A2"), item("n", "", failed)), map[string]string{"a": "A2 0400"}, map[string]string{"web/n": ""}, false},
		{"an item without content that nobody has", whole(9, item("a", "A", known)), map[string]string{"a": "A 0440"}, map[string]string{"web/a": "not delivered"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, root, nil)
				r.give(whole(1, item("a", "A", mode("0440")), item("b", "B")))
				r.end()

				r = start(t, root, nil)
				defer r.end()
				r.wantFiles(map[string]string{"a": "A 0440", "b": "B 0400"})
				if have := r.have(); len(have) != 0 {
					t.Errorf("a fresh engine claims to have %v", have)
				}
				r.give(test.set)
				r.wantFiles(test.files)
				r.wantReport(9, test.failures)
				if got := ready(r.engine); got != test.ready {
					t.Errorf("ready %v, want %v", got, test.ready)
				}
			})
		})
	}
}

// broken is a disk that refuses to be written to while err is set.
type broken struct {
	inject.Files
	mu       sync.Mutex
	err      error
	attempts int
}

func (b *broken) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *broken) tried() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.attempts
}

func (b *broken) Publish(ctx context.Context, files []fileset.File) (fileset.Change, error) {
	b.mu.Lock()
	b.attempts++
	err := b.err
	b.mu.Unlock()
	if _, unsettled := errors.AsType[*fileset.SettleError](err); unsettled {
		change, failed := b.Files.Publish(ctx, files)
		return change, errors.Join(failed, err)
	}
	if err != nil {
		return fileset.Change{}, err
	}
	return b.Files.Publish(ctx, files)
}

func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &broken{}
		r := start(t, root, func(f inject.Files) inject.Files { disk.Files = f; return disk })
		defer r.end()
		r.give(whole(1, item("a", "A"), item("b", "B"), item("c", "C")))

		disk.fail(fmt.Errorf("publish: write: %w", syscall.ENOSPC))
		r.give(inject.Set{Revision: 2, Items: []inject.Item{item("a", "A2")}, Removed: []string{"web/c"}})
		old := map[string]string{"a": "A 0400", "b": "B 0400", "c": "C 0400"}
		r.wantFiles(old)
		r.wantReport(2, map[string]string{"web/a": "no space left", "web/c": "not removed yet: publish: write: no space left"})
		if !ready(r.engine) {
			t.Error("a later failure made it unready")
		}
		if diff := cmp.Diff(map[string]string{"web/a": "d:A2", "web/b": "d:B"}, r.have()); diff != "" {
			t.Errorf("have (-want +got):\n%s", diff)
		}

		_, reports := r.source.last()
		wait()
		r.wantFiles(old)
		if _, n := r.source.last(); n != reports {
			t.Errorf("retries that changed nothing sent %d reports", n-reports)
		}
		// An hour at 30 s with full jitter is 240 attempts on average.
		if n := disk.tried(); n < 100 || n > 600 {
			t.Errorf("%d attempts in an hour", n)
		}

		disk.fail(nil)
		wait()
		r.wantFiles(map[string]string{"a": "A2 0400", "b": "B 0400"})
		r.wantReport(2, nil)
		n := disk.tried()
		wait()
		if disk.tried() != n {
			t.Error("it went on after a success")
		}
	})
}

func TestUnsettledSetIsPublishedAndTriedAgain(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &broken{err: &fileset.SettleError{Err: syscall.EIO}}
		r := start(t, root, func(f inject.Files) inject.Files { disk.Files = f; return disk })
		defer r.end()
		r.give(whole(1, item("a", "A")))
		r.wantFiles(map[string]string{"a": "A 0400"})
		r.wantReport(1, nil)
		n := disk.tried()
		wait()
		if disk.tried() == n {
			t.Error("not tried again")
		}
		disk.fail(nil)
		wait()
		n = disk.tried()
		wait()
		if disk.tried() != n {
			t.Error("it went on after a success")
		}
	})
}

func TestOneUnpublishableItemHoldsBackNobody(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, root, nil)
		defer r.end()
		// Somebody's own directory is in the way of b.
		if err := os.MkdirAll(filepath.Join(root, "b", "mine"), 0o755); err != nil {
			t.Fatal(err)
		}
		r.give(whole(1, item("a", "A"), item("b/x", "X"), item("b/y", "Y")))
		data := map[string]string{"a": "A 0400"}
		r.wantFiles(data)
		r.wantReport(1, map[string]string{"web/b/x": `"b"`, "web/b/y": `"b"`})
		if ready(r.engine) {
			t.Error("ready without all files")
		}
		if err := os.RemoveAll(filepath.Join(root, "b")); err != nil {
			t.Fatal(err)
		}
		wait()
		r.wantFiles(map[string]string{"a": "A 0400", "b/x": "X 0400", "b/y": "Y 0400"})
		r.wantReport(1, nil)
		if !ready(r.engine) {
			t.Error("not ready")
		}
	})
}

func TestLastGoodFileThatCannotBePublishedHoldsBackNobody(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, root, nil)
		defer r.end()
		r.give(whole(1, item("a", "A"), item("b", "B")))
		// Somebody puts a directory in the place of b's link.
		if err := os.Remove(filepath.Join(root, "b")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(root, "b"), 0o755); err != nil {
			t.Fatal(err)
		}
		r.give(delta(2, item("a", "A2"), item("b", "B2")))
		r.wantFiles(map[string]string{"a": "A2 0400"})
		r.wantReport(2, map[string]string{"web/b": `"b"`})
		if err := os.Remove(filepath.Join(root, "b")); err != nil {
			t.Fatal(err)
		}
		wait()
		r.wantFiles(map[string]string{"a": "A2 0400", "b": "B2 0400"})
		r.wantReport(2, nil)
	})
}

func TestOwnerThatCannotBeGivenFailsOneItem(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &ownerless{}
		r := start(t, root, func(f inject.Files) inject.Files { disk.Files = f; return disk })
		defer r.end()
		uid := uint32(4711)
		owned := func(it *inject.Item) { it.UID = &uid; it.Digest += ":4711" }
		r.give(whole(1, item("a", "A"), item("b", "B")))
		r.give(delta(2, item("a", "A2", owned), item("b", "B2")))
		r.wantFiles(map[string]string{"a": "A 0400", "b": "B2 0400"})
		r.wantReport(2, map[string]string{"web/a": "4711"})
	})
}

// ownerless is a disk without the privilege to give files away.
type ownerless struct{ inject.Files }

func (o *ownerless) Publish(ctx context.Context, files []fileset.File) (fileset.Change, error) {
	for _, f := range files {
		if f.UID != nil && *f.UID != os.Geteuid() {
			return fileset.Change{}, fmt.Errorf("publish: %w", &fileset.OwnerError{Path: f.Path, UID: *f.UID, GID: -1, Err: syscall.EPERM})
		}
	}
	return o.Files.Publish(ctx, files)
}

func TestFileChangedBySomebodyElseIsAskedForAgain(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(path string) error
	}{
		{"changed", func(p string) error {
			if err := os.Chmod(p, 0o600); err != nil {
				return err
			}
			return os.WriteFile(p, []byte("mine"), 0o600)
		}},
		{"removed", os.Remove},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, root, nil)
				defer r.end()
				r.give(whole(1, item("a", "A"), item("b", "B")))
				if err := test.change(filepath.Join(root, "..data", "a")); err != nil {
					t.Fatal(err)
				}
				r.give(delta(2, item("b", "B2")))
				r.wantReport(2, map[string]string{"web/a": "changed by somebody else"})
				if diff := cmp.Diff(map[string]string{"web/b": "d:B2"}, r.have()); diff != "" {
					t.Errorf("have (-want +got):\n%s", diff)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if r.source.reconnected() == 0 {
					t.Error("no whole set was asked for")
				}
				r.give(whole(2, item("a", "A"), item("b", "B2", known)))
				r.wantFiles(map[string]string{"a": "A 0400", "b": "B2 0400"})
				r.wantReport(2, nil)
				n := r.source.reconnected()
				wait()
				if r.source.reconnected() != n {
					t.Error("it went on asking")
				}
			})
		})
	}
}

func TestServerThatNeverDeliversIsNotAskedInALoop(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, root, nil)
		defer r.end()
		r.give(whole(1, item("a", "A", known)))
		wait()
		if n := r.source.reconnected(); n < 100 || n > 600 {
			t.Errorf("asked %d times in an hour", n)
		}
		if ready(r.engine) {
			t.Error("ready without content")
		}
	})
}

func TestContentsAreForgotten(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, root, nil)
		defer r.end()
		it := item("a", "very secret")
		content := it.Content
		r.give(whole(1, it))
		if !bytes.Equal(content, make([]byte, len(content))) {
			t.Errorf("the content is still in memory: %q", content)
		}
		r.wantFiles(map[string]string{"a": "very secret 0400"})
		old := item("a", "never written", group("g"))
		r.give(delta(2, old, item("b", "", group("g"), failed)))
		superseded := old.Content
		r.give(delta(3, item("a", "other", group("g"))))
		if !bytes.Equal(superseded, make([]byte, len(superseded))) {
			t.Error("a superseded content is still in memory")
		}
		r.give(whole(4, item("a", "very secret"), item("b", "B")))
		held := item("a", "never written", group("g"))
		r.give(delta(5, held, item("b", "", group("g"), failed)))
		r.give(delta(6, item("a", "very secret", group("g"), known)))
		if !bytes.Equal(held.Content, make([]byte, len(held.Content))) {
			t.Error("a content that was taken back is still in memory")
		}
		if strings.Contains(r.log.String(), "secret") || strings.Contains(fmt.Sprintf("%v %+v %#v", old, it, it), "secret") {
			t.Error("a content was printed")
		}
	})
}

func TestStopInTheMiddleIsNoFailure(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		slow := &waiting{entered: make(chan struct{})}
		r := start(t, root, func(f inject.Files) inject.Files { slow.Files = f; return slow })
		go func() {
			r.source.in <- func(ctx context.Context, c inject.Consumer) { c.Set(ctx, whole(1, item("a", "A"))) }
		}()
		<-slow.entered
		r.end()
		if _, n := r.source.last(); n != 0 {
			t.Error("a stop was reported as a failure")
		}
		if strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("a stop was logged as an error:\n%s", r.log)
		}
	})
}

// waiting is a disk that takes until the context ends.
type waiting struct {
	inject.Files
	entered chan struct{}
}

func (w *waiting) Publish(ctx context.Context, _ []fileset.File) (fileset.Change, error) {
	close(w.entered)
	<-ctx.Done()
	return fileset.Change{}, ctx.Err()
}

func TestOnce(t *testing.T) {
	run := func(t *testing.T, expect []string, timeout time.Duration, sets ...inject.Set) (*source, error) {
		t.Helper()
		dir, err := fileset.Open(t.TempDir(), fileset.Options{Linger: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		src := newSource()
		e, err := inject.New(inject.Options{Source: src, Files: dir, Expect: expect})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		go func() {
			for _, s := range sets {
				select {
				case src.in <- func(ctx context.Context, c inject.Consumer) { c.Set(ctx, s) }:
				case <-ctx.Done():
				}
			}
		}()
		return src, e.Once(ctx)
	}
	synctest.Test(t, func(t *testing.T) {
		src, err := run(t, nil, time.Minute, whole(1, item("a", "A"), item("b", "", failed)), delta(2, item("b", "B")))
		if err != nil {
			t.Error(err)
		}
		if r, _ := src.last(); r.Revision != 2 || len(r.Failures) > 0 {
			t.Errorf("last report %+v", r)
		}
		if !src.goodbye {
			t.Error("no goodbye")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		src, err := run(t, nil, time.Minute, whole(1, item("a", "A"), item("b", "", failed)))
		var incomplete *inject.IncompleteError
		if !errors.As(err, &incomplete) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		if text := err.Error(); !strings.Contains(text, `item "web/b": the server has no value for it: store refused`) {
			t.Errorf("the error does not name the item: %s", text)
		}
		if !src.goodbye {
			t.Error("no goodbye")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if _, err := run(t, nil, time.Minute); err == nil || !strings.Contains(err.Error(), "no set has arrived yet") {
			t.Errorf("error %v", err)
		}
	})
	// An injection that was named and is not there is no empty set.
	synctest.Test(t, func(t *testing.T) {
		_, err := run(t, []string{webInjection, "projects/p/injections/wbe"}, time.Minute, whole(1, item("a", "A")))
		if err == nil || !strings.Contains(err.Error(), "projects/p/injections/wbe is not for this workload") || strings.Contains(err.Error(), webInjection+" is not") {
			t.Errorf("error %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if _, err := run(t, []string{webInjection}, time.Minute, whole(1, item("a", "A"))); err != nil {
			t.Error(err)
		}
	})
}

// Whoever learns of a report finds the status that belongs to it, and whoever
// learns that the set is complete finds both.
func TestReportComesAfterTheStatusAndBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, t.TempDir(), nil)
		defer r.end()
		type seen struct {
			Revision            uint64
			Failures            int
			Ready, Completed    bool
			AsReported, Applied bool
		}
		var got []seen
		r.source.told = func(report inject.Report) {
			s := r.engine.Status()
			completed := false
			select {
			case <-r.engine.Completed():
				completed = true
			default:
			}
			got = append(got, seen{
				s.Revision, len(s.Failures), s.Ready, completed,
				s.Revision == report.Revision && cmp.Equal(s.Failures, report.Failures), !s.Applied.IsZero(),
			})
		}
		r.give(whole(1, item("a", "A"), item("b", "", failed)))
		r.give(delta(2, item("b", "B")))
		r.give(delta(3, item("b", "", failed)))
		want := []seen{
			{1, 2, false, false, true, false}, // a waits for b: nothing is published yet
			{2, 0, true, false, true, true},
			{3, 1, true, true, true, true},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the status at each report (-want +got):\n%s", diff)
		}
	})
}

func TestStatusAndMetrics(t *testing.T) {
	dir, err := fileset.Open(t.TempDir(), fileset.Options{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	src, registry := newSource(), prometheus.NewPedanticRegistry()
	e, err := inject.New(inject.Options{Source: src, Files: dir, Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	received := time.Now().Add(-20 * time.Millisecond)
	step := func(do func(ctx context.Context, c inject.Consumer)) {
		ran := make(chan struct{})
		src.in <- func(ctx context.Context, c inject.Consumer) { defer close(ran); do(ctx, c) }
		<-ran
	}
	step(func(_ context.Context, c inject.Consumer) { c.Disconnected(errors.New("refused")) })
	if s := e.Status(); s.Ready || len(s.Reasons) != 2 || s.Reasons[0] != "not connected: refused" {
		t.Errorf("status %+v", s)
	}
	step(func(ctx context.Context, c inject.Consumer) {
		c.Connected()
		set := whole(7, item("a", "A"), item("b", "B"), item("c", "C", of(jobInjection)))
		set.Received = received
		c.Set(ctx, set)
		c.Set(ctx, delta(8, item("b", "", failed)))
	})
	want := map[string]float64{
		"injector_connected":                      1,
		"injector_connections_total":              1,
		"injector_disconnections_total":           1,
		"injector_failed_items " + jobInjection:   0,
		"injector_failed_items " + webInjection:   1,
		"injector_items " + jobInjection:          1,
		"injector_items " + webInjection:          2,
		"injector_ready":                          1,
		"injector_set_revision":                   8,
		"injector_publish_failures_total":         0,
		"injector_apply_duration_seconds (count)": 1,
	}
	got := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			switch {
			case m.GetHistogram() != nil:
				got[name+" (count)"] = float64(m.GetHistogram().GetSampleCount())
				if sum := m.GetHistogram().GetSampleSum(); sum < 0.02 {
					t.Errorf("latency %f s, want it to count from the receipt", sum)
				}
			default:
				got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	for _, name := range []string{"injector_last_apply_timestamp_seconds", "injector_set_age_seconds"} {
		if got[name] <= 0 {
			t.Errorf("%s is %f", name, got[name])
		}
		delete(got, name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

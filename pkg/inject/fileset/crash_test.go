package fileset

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// transitions are pairs of sets that together need every kind of change.
var transitions = []struct {
	name     string
	old, new []File // old nil: nothing was ever published
	twice    bool   // crash twice even if faults are not wanted in full
}{
	{name: "first set", old: nil, new: set("a", "1", "db/b", "1", "db/c/d", "1"), twice: true},
	{name: "all contents", old: set("a", "1", "db/b", "1"), new: set("a", "2", "db/b", "2")},
	{name: "one content of several", old: set("a", "1", "db/b", "1", "db/c", "1"), new: set("a", "1", "db/b", "2", "db/c", "1")},
	{name: "names come and go", old: set("a", "1", "gone", "1", "gone2/x", "1", "db/b", "1"), new: set("a", "2", "new", "2", "new2/x", "2", "db/b", "1"), twice: true},
	{name: "mode alone", old: set("a", "1"), new: []File{{Path: "a", Content: []byte("1"), Mode: 0o440}}},
	{name: "file becomes directory and back", old: set("a", "1", "b/x", "1"), new: set("a/x", "2", "b", "2")},
	{name: "to nothing", old: set("a", "1", "db/b", "1"), new: []File{}},
	{name: "from nothing", old: []File{}, new: set("a", "1")},
}

// crash is what a hook panics with where the process is to die.
type crash struct{}

// faults counts the changes that are made to the disk, and crashes or fails at
// some of them.
type faults struct {
	at      int   // the change that is the first one hit, from 0; less than 0: none
	err     error // what it fails with; nil: crash
	lasting bool  // all later changes fail too
	made    int   // changes announced until now
	hit     string
}

func (f *faults) before(what op, name string) error {
	n := f.made
	f.made++
	if f.at < 0 || n < f.at || n > f.at && !f.lasting {
		return nil
	}
	if f.hit == "" {
		f.hit = fmt.Sprintf("change %d: %s %s", n, what, name)
	}
	if f.err == nil {
		panic(crash{})
	}
	return f.err
}

// died runs f and says whether it crashed.
func died(f func()) (dead bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	f()
	return false
}

// abandon does what the kernel does for a process that died: it closes files.
func abandon(d *Dir) { d.release() }

// oldOrNew fails unless a reader has the old set or the new one, and the same
// through both ways of reading. It returns the one it has.
func oldOrNew(t *testing.T, root string, old, next []File) []File {
	t.Helper()
	got, err := readSet(root)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	for _, files := range [][]File{old, next} {
		if cmp.Equal(viewOf(files), got) {
			checkView(t, root, files)
			return files
		}
	}
	t.Fatalf("reader has neither the old set nor the new one: %v", got)
	return nil
}

// prepare publishes old into a new root, unless it is nil.
func prepare(t *testing.T, old []File) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	d := mustOpen(t, root, atOnce)
	if old != nil {
		mustPublish(t, d, old)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return root
}

// changesOf counts the changes to the disk that a publish makes.
func changesOf(t *testing.T, old, next []File) int {
	t.Helper()
	f := &faults{at: -1}
	d := mustOpen(t, prepare(t, old), atOnce)
	d.disk.before = f.before
	mustPublish(t, d, next)
	if f.made < 5 {
		t.Fatalf("only %d changes: the hook is not where it belongs", f.made)
	}
	return f.made
}

// TestCrashAtEveryChange crashes a publisher before each single change that it
// makes to the disk, and the one that opens after it at each of its own.
func TestCrashAtEveryChange(t *testing.T) {
	for _, tt := range transitions {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for at := range changesOf(t, tt.old, tt.new) {
				recoverAt := 0
				if !tt.twice && os.Getenv("CREDSTORE_FAULTS") != "full" {
					recoverAt = 1 << 30 // the second one survives
				}
				for crashTwice(t, tt.old, tt.new, at, recoverAt) {
					recoverAt++
				}
			}
		})
	}
}

// crashTwice crashes a publish at one change and the next open at another. It
// reports false if that open made fewer changes.
func crashTwice(t *testing.T, old, next []File, at, recoverAt int) bool {
	t.Helper()
	root := prepare(t, old)
	first := &faults{at: at}
	d := mustOpen(t, root, atOnce)
	d.disk.before = first.before
	if !died(func() { _, _ = d.Publish(t.Context(), next) }) {
		t.Fatalf("survived change %d", at)
	}
	abandon(d)
	defer func() {
		if t.Failed() {
			t.Logf("crashed at %s, then opened and crashed at change %d", first.hit, recoverAt)
		}
	}()
	has := oldOrNew(t, root, old, next)

	second := &faults{at: recoverAt}
	d = &Dir{opts: atOnce, disk: disk{before: second.before}}
	crashed := died(func() {
		if err := d.open(root); err != nil {
			t.Fatalf("open after a crash: %v", err)
		}
	})
	abandon(d)
	checkView(t, root, has)

	d = mustOpen(t, root, atOnce)
	checkView(t, root, has)
	checkTidy(t, root, has)
	mustPublish(t, d, next)
	checkView(t, root, next)
	checkTidy(t, root, next)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return crashed
}

// TestFailureAtEveryChange lets each single change fail, and then each and all
// that follow, as on a full disk.
func TestFailureAtEveryChange(t *testing.T) {
	for _, tt := range transitions {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for at := range changesOf(t, tt.old, tt.new) {
				for _, lasting := range []bool{false, true} {
					failOnce(t, tt.old, tt.new, faults{at: at, err: syscall.ENOSPC, lasting: lasting})
				}
			}
		})
	}
}

func failOnce(t *testing.T, old, next []File, f faults) {
	t.Helper()
	root := prepare(t, old)
	d := mustOpen(t, root, atOnce)
	d.disk.before = f.before
	change, err := d.Publish(t.Context(), next)
	defer func() {
		if t.Failed() {
			t.Logf("failed at %s, lasting %t: %v", f.hit, f.lasting, err)
		}
	}()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Publish = %v, want ENOSPC", err)
	}
	has := oldOrNew(t, root, old, next)
	if _, ok := errors.AsType[*SettleError](err); ok {
		if !cmp.Equal(viewOf(has), viewOf(next)) {
			t.Fatalf("the old set is there, with %v", err)
		}
	} else {
		if !cmp.Equal(viewOf(has), viewOf(old)) || !change.Empty() {
			t.Fatalf("the new set is there, with %v and %+v", err, change)
		}
		if !f.lasting {
			checkTidy(t, root, old)
		}
	}

	// The same Dir publishes as soon as it can again, and tidies up.
	d.disk.before = nil
	mustPublish(t, d, next)
	checkView(t, root, next)
	checkTidy(t, root, next)
	if d.unsettled {
		t.Error("root was not synced")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSyncedBeforeVisible holds the order of changes that a loss of power
// needs. Killing processes cannot show it: the kernel keeps what they wrote.
func TestSyncedBeforeVisible(t *testing.T) {
	for _, tt := range transitions {
		t.Run(tt.name, func(t *testing.T) {
			root := prepare(t, tt.old)
			d := mustOpen(t, root, atOnce)
			dirty := map[string]bool{} // what was changed and not synced
			switched := false
			d.disk.before = func(what op, name string) error {
				switch what {
				case opCreate, opWrite, opChown, opMkdir, opLink, opChmod:
					if switched {
						t.Errorf("%s %s after the switch", what, name)
					}
					if what != opMkdir || name != firstElement(name) {
						dirty[path.Dir(name)] = true
					}
					if what != opLink {
						dirty[name] = true
					}
				case opSync:
					delete(dirty, name)
					switched = switched && name != "."
				case opRename:
					delete(dirty, ".") // root is synced after the switch
					if name == dataLink {
						switched = true
						for name := range dirty {
							t.Errorf("%s is not synced before the switch", name)
						}
						checkFinal(t, root, tt.new)
					}
				case opRemove:
					if switched {
						t.Errorf("%s removed before the switch is synced", name)
					}
				}
				return nil
			}
			mustPublish(t, d, tt.new)
			if switched {
				t.Error("root is not synced after the switch")
			}
		})
	}
}

// checkFinal fails unless some data directory in root, not published yet, has
// the files with their modes, and directories with theirs.
func checkFinal(t *testing.T, root string, files []File) {
	t.Helper()
	published, _ := os.Readlink(filepath.Join(root, dataLink))
	for _, name := range listing(t, root) {
		if !dataName.MatchString(name) || name == published {
			continue
		}
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode().Perm() != DefaultDirMode {
			t.Errorf("data directory before the switch: %v, %v", info.Mode(), err)
		}
		got, err := readTree(os.DirFS(filepath.Join(root, name)))
		if diff := cmp.Diff(viewOf(files), got); err != nil || diff != "" {
			t.Errorf("data directory before the switch (-want +got): %v\n%s", err, diff)
		}
		return
	}
	t.Error("no data directory before the switch")
}

// TestNothingIsReachableBeforeTheSwitch looks at the modes while a set is built.
func TestNothingIsReachableBeforeTheSwitch(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	looked := 0
	d.disk.before = func(what op, name string) error {
		data := firstElement(strings.TrimPrefix(name, "/"))
		if what != opWrite && what != opCreate && (what != opChmod || name == data) {
			return nil
		}
		looked++
		info, err := os.Stat(filepath.Join(root, data))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("before %s %s the data directory has mode %v (%v)", what, name, info.Mode(), err)
		}
		return nil
	}
	mustPublish(t, d, set("a", "1", "db/b", "2"))
	if looked < 5 {
		t.Errorf("looked %d times", looked)
	}
}

// TestFailedPublishKeepsRepairedLinks lets a publish fail after it has put a
// link back that the old set needs too.
func TestFailedPublishKeepsRepairedLinks(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	old := set("a", "1", "db/b", "1")
	mustPublish(t, d, old)
	if err := os.Remove(filepath.Join(root, "db")); err != nil {
		t.Fatal(err)
	}
	d.disk.before = func(what op, name string) error {
		if what == opRename && name == dataLink {
			return syscall.EIO
		}
		return nil
	}
	if _, err := d.Publish(t.Context(), set("db/b", "2", "new", "2")); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Publish = %v, want EIO", err)
	}
	checkView(t, root, old)
	checkTidy(t, root, old)
}

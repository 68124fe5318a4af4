package fileset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/credstore/credstore/pkg/targetpath"
)

func TestPublishFollowsTheSet(t *testing.T) {
	defer goleak.VerifyNone(t)
	root := filepath.Join(t.TempDir(), "not", "there", "yet")
	d := mustOpen(t, root, atOnce)
	defer d.Close()
	steps := []struct {
		name  string
		files []File
		want  Change
	}{
		{"nothing", nil, Change{}},
		{"first", set("b/c", "1", "a", "1"), Change{Added: []string{"a", "b/c"}}},
		{"same in another order", set("a", "1", "b/c", "1"), Change{}},
		{"content", set("a", "2", "b/c", "1"), Change{Changed: []string{"a"}}},
		{"content of the same length", set("a", "3", "b/c", "1"), Change{Changed: []string{"a"}}},
		{"empty file", set("a", "", "b/c", "1"), Change{Changed: []string{"a"}}},
		{"mode", []File{{Path: "a", Mode: 0o444}, {Path: "b/c", Content: []byte("1")}}, Change{Changed: []string{"a"}}},
		{"explicit default mode", []File{{Path: "a", Mode: 0o444}, {Path: "b/c", Content: []byte("1"), Mode: DefaultMode}}, Change{}},
		{"one more beside", set("a", "", "b/c", "1", "b/d/e", "2"), Change{Added: []string{"b/d/e"}, Changed: []string{"a"}}},
		{"one less", set("a", "", "b/d/e", "2"), Change{Removed: []string{"b/c"}}},
		{"file becomes directory", set("a/x", "1", "b/d/e", "2"), Change{Added: []string{"a/x"}, Removed: []string{"a"}}},
		{"directory becomes file", set("a/x", "1", "b", "2"), Change{Added: []string{"b"}, Removed: []string{"b/d/e"}}},
		{"all others", set("z", "1"), Change{Added: []string{"z"}, Removed: []string{"a/x", "b"}}},
		{"empty set", nil, Change{Removed: []string{"z"}}},
		{"again", set("z", "1"), Change{Added: []string{"z"}}},
	}
	for _, step := range steps {
		got := mustPublish(t, d, step.files)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Fatalf("%s: change (-want +got):\n%s", step.name, diff)
		}
		checkView(t, root, step.files)
		checkTidy(t, root, step.files)
		if again := mustPublish(t, d, step.files); !again.Empty() {
			t.Fatalf("%s: published again: %+v", step.name, again)
		}
	}
}

func TestLinksHaveTheFormOfKubernetesVolumes(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, Options{})
	mustPublish(t, d, set("db/password", "x", "token", "y"))
	for name, want := range map[string]string{"db": "..data/db", "token": "..data/token"} {
		if got, err := os.Readlink(filepath.Join(root, name)); err != nil || got != want {
			t.Errorf("%s leads to %q (%v), want %q", name, got, err, want)
		}
	}
	target, err := os.Readlink(filepath.Join(root, dataLink))
	if err != nil || !dataName.MatchString(target) {
		t.Errorf("..data leads to %q (%v)", target, err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "db", "password")); err != nil || string(got) != "x" {
		t.Errorf("db/password = %q, %v", got, err)
	}
}

func TestNothingIsTouchedWhenNothingChanged(t *testing.T) {
	root := t.TempDir()
	files := []File{
		{Path: "a", Content: []byte("1")},
		{Path: "db/b", Content: []byte("2"), Mode: 0o440},
		{Path: "db/c", Mode: 0o600, UID: new(os.Getuid()), GID: new(os.Getgid())},
	}
	d := mustOpen(t, root, Options{})
	mustPublish(t, d, files)
	before := stamps(t, root)
	for range 3 {
		if change := mustPublish(t, d, files); !change.Empty() {
			t.Fatalf("change: %+v", change)
		}
	}
	if diff := cmp.Diff(before, stamps(t, root)); diff != "" {
		t.Errorf("published again (-before +after):\n%s", diff)
	}

	// Nor by a new process.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, root, Options{})
	mustPublish(t, d, files)
	if diff := cmp.Diff(before, stamps(t, root)); diff != "" {
		t.Errorf("opened and published again (-before +after):\n%s", diff)
	}
}

func TestUnchangedFilesKeepTheirInode(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	mustPublish(t, d, set("stays", "1", "mode", "1", "content", "1"))
	before := map[string]os.FileInfo{}
	for _, name := range []string{"stays", "mode", "content"} {
		before[name], _ = os.Stat(filepath.Join(root, name))
	}
	// Who is in the old set while the new one is written sees its mode.
	old, err := os.Open(filepath.Join(root, "mode"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	mustPublish(t, d, []File{{Path: "stays", Content: []byte("1")}, {Path: "mode", Content: []byte("1"), Mode: 0o444}, {Path: "content", Content: []byte("2")}})
	for name, want := range map[string]bool{"stays": true, "mode": false, "content": false} {
		after, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if same := os.SameFile(before[name], after); same != want {
			t.Errorf("%s is the same file: %t, want %t", name, same, want)
		}
	}
	if info, err := old.Stat(); err != nil || info.Mode().Perm() != DefaultMode {
		t.Errorf("the old set's file has mode %v (%v), want %v", info.Mode(), err, DefaultMode)
	}
}

func TestWhatOthersDidIsPutRight(t *testing.T) {
	files := set("a", "secret", "db/b", "secret too")
	tests := []struct {
		name   string
		meddle func(root, data string) error
		want   Change
	}{
		{"content in place", func(_, data string) error {
			return errors.Join(os.Chmod(filepath.Join(data, "a"), 0o600), os.WriteFile(filepath.Join(data, "a"), []byte("forged"), 0o600), os.Chmod(filepath.Join(data, "a"), 0o400))
		}, Change{Changed: []string{"a"}}},
		{"mode", func(_, data string) error { return os.Chmod(filepath.Join(data, "a"), 0o444) }, Change{Changed: []string{"a"}}},
		{"file removed", func(_, data string) error { return os.Remove(filepath.Join(data, "db/b")) }, Change{Added: []string{"db/b"}}},
		{"file added", func(_, data string) error { return os.WriteFile(filepath.Join(data, "db/x"), nil, 0o400) }, Change{Removed: []string{"db/x"}}},
		{"file replaced by a link to the same content", func(_, data string) error {
			return errors.Join(os.Rename(filepath.Join(data, "a"), filepath.Join(data, "a2")), os.Symlink("a2", filepath.Join(data, "a")))
		}, Change{Changed: []string{"a"}, Removed: []string{"a2"}}},
		{"file replaced by a pipe", func(_, data string) error {
			return errors.Join(os.Remove(filepath.Join(data, "a")), syscall.Mkfifo(filepath.Join(data, "a"), 0o400))
		}, Change{Changed: []string{"a"}}},
		{"file replaced by a directory", func(_, data string) error {
			return errors.Join(os.Remove(filepath.Join(data, "a")), os.Mkdir(filepath.Join(data, "a"), 0o755))
		}, Change{Added: []string{"a"}}},
		{"empty directory added", func(_, data string) error { return os.Mkdir(filepath.Join(data, "x"), 0o755) }, Change{}},
		{"reserved name added", func(_, data string) error { return os.Mkdir(filepath.Join(data, "..x"), 0o755) }, Change{}},
		{"mode of a directory", func(_, data string) error { return os.Chmod(filepath.Join(data, "db"), 0o777) }, Change{}},
		{"link removed", func(root, _ string) error { return os.Remove(filepath.Join(root, "db")) }, Change{}},
		{"link turned elsewhere", func(root, _ string) error {
			return errors.Join(os.Remove(filepath.Join(root, "a")), os.Symlink("/etc/passwd", filepath.Join(root, "a")))
		}, Change{}},
		{"link to nothing of the set", func(root, _ string) error { return os.Symlink("..data/x", filepath.Join(root, "x")) }, Change{}},
		{"data link removed", func(root, _ string) error { return os.Remove(filepath.Join(root, dataLink)) }, Change{Added: []string{"a", "db/b"}}},
		{"data link turned elsewhere", func(root, _ string) error {
			return errors.Join(os.Remove(filepath.Join(root, dataLink)), os.Symlink("/etc", filepath.Join(root, dataLink)))
		}, Change{Added: []string{"a", "db/b"}}},
		{"data link turned to nothing", func(root, _ string) error {
			return errors.Join(os.Remove(filepath.Join(root, dataLink)), os.Symlink("..2026_01_31_12_00_00.0123456789abcdef", filepath.Join(root, dataLink)))
		}, Change{Added: []string{"a", "db/b"}}},
		{"data link replaced by a directory", func(root, _ string) error {
			return errors.Join(os.Remove(filepath.Join(root, dataLink)), os.MkdirAll(filepath.Join(root, dataLink, "a"), 0o755))
		}, Change{Added: []string{"a", "db/b"}}},
		{"data link replaced by a file", func(root, _ string) error {
			return errors.Join(os.Remove(filepath.Join(root, dataLink)), os.WriteFile(filepath.Join(root, dataLink), nil, 0o600))
		}, Change{Added: []string{"a", "db/b"}}},
		{"data directory removed", func(_, data string) error { return os.RemoveAll(data) }, Change{Added: []string{"a", "db/b"}}},
		{"leftovers", func(root, _ string) error {
			return errors.Join(os.MkdirAll(filepath.Join(root, "..2026_01_31_12_00_00.0123456789abcdef", "a"), 0o755),
				os.Symlink("..data/a", filepath.Join(root, "..link.0123456789abcdef")))
		}, Change{}},
	}
	for _, tt := range tests {
		for _, reopen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reopen %t", tt.name, reopen), func(t *testing.T) {
				root := t.TempDir()
				d := mustOpen(t, root, atOnce)
				mustPublish(t, d, files)
				data, err := filepath.EvalSymlinks(filepath.Join(root, dataLink))
				if err != nil {
					t.Fatal(err)
				}
				if err := tt.meddle(root, data); err != nil {
					t.Fatal(err)
				}
				if reopen {
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
					d = mustOpen(t, root, atOnce)
				}
				if diff := cmp.Diff(tt.want, mustPublish(t, d, files)); diff != "" {
					t.Errorf("change (-want +got):\n%s", diff)
				}
				checkView(t, root, files)
				checkTidy(t, root, files)
			})
		}
	}
}

func TestOpenCompletesTheLinks(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	files := set("a", "1", "db/b", "2")
	mustPublish(t, d, files)
	if err := errors.Join(d.Close(), os.Remove(filepath.Join(root, "a")), os.Symlink("..data/gone", filepath.Join(root, "gone"))); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, root, atOnce)
	checkView(t, root, files)
	checkTidy(t, root, files)
}

func TestForeignFilesStay(t *testing.T) {
	root := t.TempDir()
	foreign := map[string]string{"foreign": "f", "dir/inside": "d", ".hidden": "h", "..own": "o", "..2026_01_31": "t"}
	for name, content := range foreign {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755), os.WriteFile(filepath.Join(root, name), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "foreign", "dangling": "nowhere", "absolute": "/etc", "other": "..data/a"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	extra := listing(t, root)
	d := mustOpen(t, root, atOnce)
	for _, files := range [][]File{set("a", "1"), set("b", "1"), nil} {
		mustPublish(t, d, files)
		checkTidy(t, root, files, extra...)
	}
	for name, content := range foreign {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != content {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
}

func TestConflictWithForeignFile(t *testing.T) {
	for name, plant := range map[string]func(p string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			d := mustOpen(t, root, atOnce)
			old := set("a", "1")
			mustPublish(t, d, old)
			if err := plant(filepath.Join(root, "db")); err != nil {
				t.Fatal(err)
			}
			before := stamps(t, root)
			change, err := d.Publish(t.Context(), set("a", "2", "db/b", "2"))
			var conflict *ConflictError
			if !errors.As(err, &conflict) || conflict.Name != "db" || !change.Empty() {
				t.Fatalf("Publish = %+v, %v", change, err)
			}
			if diff := cmp.Diff(before, stamps(t, root)); diff != "" {
				t.Errorf("root (-before +after):\n%s", diff)
			}
			if err := os.Remove(filepath.Join(root, "db")); err != nil {
				t.Fatal(err)
			}
			mustPublish(t, d, set("a", "2", "db/b", "2"))
		})
	}
}

func TestBadSetsAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	tests := []struct {
		name  string
		files []File
		want  error
	}{
		{"escape", set("ok", "", "../outside", "x"), &targetpath.Error{Path: "../outside", Reason: targetpath.DotElement}},
		{"absolute", set("/tmp/outside", "x"), &targetpath.Error{Path: "/tmp/outside", Reason: targetpath.Absolute}},
		{"reserved", set("..data", "x"), &targetpath.Error{Path: "..data", Reason: targetpath.ReservedElement}},
		{"overlap", set("a", "", "a/b", ""), &targetpath.OverlapError{Path: "a/b", Other: "a"}},
		{"set-user-id", []File{{Path: "a", Mode: 0o755 | fs.ModeSetuid}}, &FileError{Path: "a", Field: "mode"}},
		{"unix set-user-id bits", []File{{Path: "a", Mode: 0o4755}}, &FileError{Path: "a", Field: "mode"}},
		{"directory", []File{{Path: "a", Mode: 0o755 | fs.ModeDir}}, &FileError{Path: "a", Field: "mode"}},
		{"negative user", []File{{Path: "a", UID: new(-1)}}, &FileError{Path: "a", Field: "uid"}},
		{"group that means none", []File{{Path: "a", GID: new(1<<32 - 1)}}, &FileError{Path: "a", Field: "gid"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			d := mustOpen(t, root, atOnce)
			mustPublish(t, d, set("a", "1"))
			before := stamps(t, root)
			change, err := d.Publish(t.Context(), tt.files)
			if got := cause(err); !cmp.Equal(tt.want, got) || !change.Empty() {
				t.Errorf("Publish = %+v, %v", change, err)
			}
			if diff := cmp.Diff(before, stamps(t, root)); diff != "" {
				t.Errorf("root (-before +after):\n%s", diff)
			}
		})
	}
}

// cause unwraps a refusal and leaves out its sentence.
func cause(err error) error {
	if e := (*FileError)(nil); errors.As(err, &e) {
		return &FileError{Path: e.Path, Field: e.Field}
	}
	return errors.Unwrap(err)
}

func TestPublishDoesNotTouchTheArgument(t *testing.T) {
	d := mustOpen(t, t.TempDir(), atOnce)
	files := set("b", "1", "a", "2")
	mustPublish(t, d, files)
	if diff := cmp.Diff(set("b", "1", "a", "2"), files); diff != "" {
		t.Errorf("argument (-before +after):\n%s", diff)
	}
}

func TestCancelledPublishLeavesTheOldSet(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	old := set("a", "1")
	mustPublish(t, d, old)
	for _, when := range []op{opMkdir, opWrite, opSync, opSymlink} {
		ctx, cancel := context.WithCancel(t.Context())
		d.disk.before = func(what op, _ string) error {
			if what == when {
				cancel()
			}
			return nil
		}
		if _, err := d.Publish(ctx, set("a", "2", "b", "2", "c", "2")); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at %s: %v", when, err)
		}
		cancel()
		checkView(t, root, old)
		checkTidy(t, root, old)
	}
}

func TestTwoInjectorsDoNotShareARoot(t *testing.T) {
	root := t.TempDir()
	first := mustOpen(t, root, Options{})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{root, root + "/.", link} {
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
			t.Errorf("second Open(%s) = %v, want ErrLocked", dir, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := mustOpen(t, root, Options{})
	mustPublish(t, second, set("a", "1"))
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dir string
		opts      Options
	}{
		{"a file", file, Options{}},
		{"beneath a file", filepath.Join(file, "x"), Options{}},
		{"empty", "", Options{}},
		{"directories that the owner cannot enter", t.TempDir(), Options{DirMode: 0o655}},
		{"directories with more than permissions", t.TempDir(), Options{DirMode: 0o755 | fs.ModeSticky}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d, err := Open(tt.dir, tt.opts); err == nil {
				_ = d.Close()
				t.Error("Open succeeded")
			}
		})
	}
}

func TestClosed(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, Options{})
	mustPublish(t, d, set("a", "1"))
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, publish := d.Publish(t.Context(), nil)
	_, current := d.Current()
	_, read := d.Read("a")
	for name, err := range map[string]error{"Publish": publish, "Current": current, "Read": read} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s = %v, want fs.ErrClosed", name, err)
		}
	}
	checkView(t, root, set("a", "1"))
}

func TestCurrentIsWhatIsOnTheDisk(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, Options{})
	if got, err := d.Current(); err != nil || len(got) != 0 {
		t.Errorf("Current before the first set = %v, %v", got, err)
	}
	files := []File{{Path: "a", Content: []byte("1"), Mode: 0o440}, {Path: "db/b", Content: []byte{}}}
	mustPublish(t, d, files)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, root, Options{})
	uid, gid := new(os.Geteuid()), new(os.Getegid())
	want := map[string]File{
		"a":    {Path: "a", Content: []byte("1"), Mode: 0o440, UID: uid, GID: gid},
		"db/b": {Path: "db/b", Content: []byte{}, Mode: DefaultMode, UID: uid, GID: gid},
	}
	got, err := d.Current()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Current (-want +got):\n%s", diff)
	}
	one, err := d.Read("a")
	if diff := cmp.Diff(want["a"], one); err != nil || diff != "" {
		t.Errorf("Read (-want +got): %v\n%s", err, diff)
	}
	for p, want := range map[string]error{"db": fs.ErrNotExist, "x": fs.ErrNotExist} {
		if _, err := d.Read(p); !errors.Is(err, want) {
			t.Errorf("Read(%s) = %v, want %v", p, err, want)
		}
	}
	if _, err := d.Read("../x"); cause(fmt.Errorf("%w", err)) == nil {
		t.Errorf("Read(../x) = %v", err)
	}

	// What Current returns can be published as it is, and is no change.
	var again []File
	for _, f := range got {
		again = append(again, f)
	}
	if change := mustPublish(t, d, again); !change.Empty() {
		t.Errorf("published Current: %+v", change)
	}
}

func TestReplacedSetLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		d := mustOpen(t, root, Options{})
		old, next := set("a", "1", "gone", "1"), set("a", "2")
		mustPublish(t, d, old)
		reader, err := os.OpenRoot(filepath.Join(root, dataLink))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		mustPublish(t, d, next)

		checkView(t, root, next)
		got, err := readTree(reader.FS())
		if diff := cmp.Diff(viewOf(old), got); err != nil || diff != "" {
			t.Fatalf("reader of the old set (-want +got): %v\n%s", err, diff)
		}
		if n := len(listing(t, root)); n != 4 { // a, ..data and two data directories
			t.Errorf("%d names in root: %v", n, listing(t, root))
		}

		<-time.After(DefaultLinger)
		synctest.Wait()
		checkTidy(t, root, next)
		if _, err := reader.Open("a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the old set's file after its time: %v", err)
		}
	})
}

func TestLingeringSetsAreFew(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, Options{Linger: 1 << 62})
	for i := range 3 * maxLingering {
		mustPublish(t, d, set("a", fmt.Sprint(i)))
	}
	if got, want := len(listing(t, root)), maxLingering+3; got != want { // a, ..data, the current set
		t.Errorf("%d names in root, want %d", got, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	checkTidy(t, root, set("a", "any"))
}

func TestFilesDoNotPrintTheirContent(t *testing.T) {
	const canary = "CANARY-9f31"
	f := File{Path: "a", Content: []byte(canary)}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%t"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", f, &f, []File{f})
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "file", f, "files", []File{f})
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "file", f, "files", []File{f})
	asJSON, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(asJSON)
	for _, leak := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), "67 65 78", "Q0FOQVJZ", "1000011"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed %q:\n%s", leak, out.String())
		}
	}
	if !strings.Contains(out.String(), `file "a" (11 bytes)`) {
		t.Errorf("does not print path and size:\n%s", out.String())
	}
}

package fileset

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outside makes a directory with a root in it, and with files beside that root
// which nobody may touch.
func outside(t *testing.T) (dir, root string) {
	t.Helper()
	dir = t.TempDir()
	root = filepath.Join(dir, "root")
	for _, d := range []string{root, filepath.Join(dir, "beside", "db")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "beside/a", "beside/db/b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("do not touch"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, root
}

// stampsOutside is stamps of everything in dir that is not in its root.
func stampsOutside(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := stamps(t, dir)
	root := filepath.Join(dir, "root")
	for p := range got {
		if p == root || strings.HasPrefix(p, root+"/") {
			delete(got, p)
		}
	}
	return got
}

// TestPlantedSymlinks plants symlinks that lead out of root at every name that
// a publish touches, before it and in the middle of it.
func TestPlantedSymlinks(t *testing.T) {
	old, next := set("a", "1", "db/b", "1"), set("a", "2", "db/b", "2", "new/c", "2")
	for _, target := range []string{"../beside", "../a", "/etc", "/", "..", ".", "../../..", "nowhere", "..data", "..data/..data"} {
		for _, name := range []string{"a", "db", "new", "x", dataLink, "..2026_01_31_12_00_00.0123456789abcdef", "..link.0123456789abcdef"} {
			t.Run(name+" to "+strings.ReplaceAll(target, "/", "|"), func(t *testing.T) {
				dir, root := outside(t)
				d := mustOpen(t, root, atOnce)
				mustPublish(t, d, old)
				before := stampsOutside(t, dir)
				_ = os.Remove(filepath.Join(root, name))
				if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
				mustPublish(t, d, next)
				if diff := cmp.Diff(before, stampsOutside(t, dir)); diff != "" {
					t.Fatalf("outside of root (-before +after):\n%s", diff)
				}
				if got, err := readSet(root); err != nil || !cmp.Equal(viewOf(next), got) {
					t.Errorf("reader has %v, %v", got, err)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				d = mustOpen(t, root, atOnce)
				mustPublish(t, d, nil)
				if diff := cmp.Diff(before, stampsOutside(t, dir)); diff != "" {
					t.Errorf("outside of root, after removal (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestNewDirectoryIsExchanged exchanges the new data directory for a link, or
// for another directory, while it is filled.
func TestNewDirectoryIsExchanged(t *testing.T) {
	for _, target := range []string{"../beside", "beside"} {
		for at := range 12 {
			dir, root := outside(t)
			if err := os.MkdirAll(filepath.Join(root, "beside", "db"), 0o755); err != nil {
				t.Fatal(err)
			}
			d := mustOpen(t, root, atOnce)
			mustPublish(t, d, set("a", "1", "db/b", "1"))
			before := stampsOutside(t, dir)
			n := 0
			d.disk.before = func(_ op, name string) error {
				if n++; n == at+2 {
					data := filepath.Join(root, firstElement(name))
					return errors.Join(os.Rename(data, filepath.Join(root, "stolen")), os.Symlink(target, data))
				}
				return nil
			}
			// Whether it succeeds is not the question.
			_, err := d.Publish(t.Context(), set("a", "2", "db/b", "2"))
			if diff := cmp.Diff(before, stampsOutside(t, dir)); diff != "" {
				t.Fatalf("change %d, %v: outside of root (-before +after):\n%s", at, err, diff)
			}
			if names := listing(t, filepath.Join(root, "beside")); !cmp.Equal(names, []string{"db"}) {
				t.Errorf("change %d, %v: written into another directory: %q", at, err, names)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOldFileIsExchanged exchanges an unchanged file at the moment when it gets
// its second name.
func TestOldFileIsExchanged(t *testing.T) {
	for name, exchange := range map[string]func(p string) error{
		"other file": func(p string) error { return os.WriteFile(p, []byte("forged"), 0o400) },
		"symlink":    func(p string) error { return os.Symlink("../../a", p) },
		"nothing":    func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			_, root := outside(t)
			d := mustOpen(t, root, atOnce)
			mustPublish(t, d, set("a", "1", "b", "1"))
			done := false
			d.disk.before = func(what op, _ string) error {
				if what != opLink {
					return nil
				}
				done = true
				p := filepath.Join(root, dataLink, "a")
				return errors.Join(os.Remove(p), exchange(p))
			}
			mustPublish(t, d, set("a", "1", "b", "2"))
			if !done {
				t.Error("an unchanged file is written again")
			}
			checkView(t, root, set("a", "1", "b", "2"))
			checkTidy(t, root, set("a", "1", "b", "2"))
		})
	}
}

// TestOpenNewTakesNothingElse gives it what somebody could have put in place of
// the directory that was made.
func TestOpenNewTakesNothingElse(t *testing.T) {
	_, root := outside(t)
	d := mustOpen(t, root, atOnce)
	if err := errors.Join(os.Mkdir(filepath.Join(root, "other"), 0o700), os.Symlink("other", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	names := []string{"link", "missing"}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Mkdir(filepath.Join(root, "theirs"), 0o777), os.Chown(filepath.Join(root, "theirs"), nobody, nobody)); err != nil {
			t.Fatal(err)
		}
		names = append(names, "theirs")
	}
	for _, name := range names {
		if dir, err := d.openNew(name); err == nil {
			_ = dir.root.Close()
			t.Errorf("openNew takes %q", name)
		}
	}
	dir, err := d.openNew("other")
	if err != nil {
		t.Fatal(err)
	}
	_ = dir.root.Close()
}

// TestReadDoesNotWaitForAPipe reads where somebody has put a named pipe, which
// has no other end.
func TestReadDoesNotWaitForAPipe(t *testing.T) {
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	mustPublish(t, d, set("a", "1", "b", "2"))
	p := filepath.Join(root, dataLink, "a")
	if err := errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o400)); err != nil {
		t.Fatal(err)
	}
	if f, err := d.Read("a"); err == nil {
		t.Errorf("Read = %v", f)
	}
	files, err := d.Current()
	if err == nil || len(files) != 1 || string(files["b"].Content) != "2" {
		t.Errorf("Current = %v, %v", files, err)
	}
}

func FuzzPublishStaysInRoot(f *testing.F) {
	f.Add("a\ndb/b", "a", "../beside")
	f.Add("../a", "..data", "../beside")
	f.Add("a/../../a\nb", "b", "/etc")
	f.Add("..data/a", "db", "..")
	f.Add("root/a\nroot", "..2026_01_31_12_00_00.0123456789abcdef", ".")
	f.Fuzz(func(t *testing.T, paths, name, target string) {
		dir, root := outside(t)
		before := stampsOutside(t, dir)
		var files []File
		for i, p := range strings.Split(paths, "\n") {
			if i == 8 {
				break // enough; each costs a write
			}
			files = append(files, File{Path: p, Content: []byte(p)})
		}
		if !strings.ContainsAny(name, "/\x00") {
			_ = os.Symlink(target, filepath.Join(root, name))
		}
		d := mustOpen(t, root, atOnce)
		_, err := d.Publish(t.Context(), files)
		if diff := cmp.Diff(before, stampsOutside(t, dir)); diff != "" {
			t.Fatalf("outside of root, with %v (-before +after):\n%s", err, diff)
		}
		if err == nil {
			checkViewOf(t, d, root, files)
		}
		if _, err := d.Publish(t.Context(), nil); err != nil {
			t.Fatalf("publish nothing: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, stampsOutside(t, dir)); diff != "" {
			t.Fatalf("outside of root, after removal (-before +after):\n%s", diff)
		}
	})
}

// checkViewOf fails unless readers, and d itself, see files.
func checkViewOf(t *testing.T, d *Dir, root string, files []File) {
	t.Helper()
	got, err := readSet(root)
	if diff := cmp.Diff(viewOf(files), got); err != nil || diff != "" {
		t.Fatalf("reader (-want +got): %v\n%s", err, diff)
	}
	for _, f := range files {
		if read, err := d.Read(f.Path); err != nil || string(read.Content) != string(f.Content) {
			t.Fatalf("Read(%q): %v", f.Path, err)
		}
		if content, err := os.ReadFile(filepath.Join(root, f.Path)); err != nil || string(content) != string(f.Content) {
			t.Fatalf("plain path %q: %v", f.Path, err)
		}
	}
}

package fileset

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// atOnce is what most tests open with: nothing lingers, so that what lies
// about afterwards is a leftover.
var atOnce = Options{Linger: -1}

func mustOpen(t *testing.T, dir string, opts Options) *Dir {
	t.Helper()
	d, err := Open(dir, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func mustPublish(t *testing.T, d *Dir, files []File) Change {
	t.Helper()
	change, err := d.Publish(t.Context(), files)
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return change
}

// set makes files from pairs of path and content, with the default mode.
func set(pairs ...string) []File {
	var files []File
	for i := 0; i < len(pairs); i += 2 {
		files = append(files, File{Path: pairs[i], Content: []byte(pairs[i+1])})
	}
	return files
}

// view is what a reader has: path to mode and content.
type view map[string]string

func viewOf(files []File) view {
	v := view{}
	for _, f := range files {
		mode := f.Mode
		if mode == 0 {
			mode = DefaultMode
		}
		v[f.Path] = fmt.Sprintf("%04o %s", mode, f.Content)
	}
	return v
}

// readSet reads as the package documentation says that readers of several
// files do: ..data is opened once.
func readSet(root string) (view, error) {
	data, err := os.OpenRoot(filepath.Join(root, dataLink))
	if errors.Is(err, fs.ErrNotExist) {
		return view{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer data.Close()
	return readTree(data.FS())
}

func readTree(fsys fs.FS) (view, error) {
	v := view{}
	err := fs.WalkDir(fsys, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := fs.Stat(fsys, p)
		if err != nil {
			return err
		}
		content, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err // no file that looks empty
		}
		v[p] = fmt.Sprintf("%04o %s", info.Mode().Perm(), content)
		return nil
	})
	return v, err
}

// readPlain reads through the names in root, as a reader of one file does.
// Names that lead nowhere are as good as absent.
func readPlain(root string) (view, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	v := view{}
	for _, e := range entries {
		full := filepath.Join(root, e.Name())
		info, err := os.Stat(full)
		if len(e.Name()) > 1 && e.Name()[:2] == ".." || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			content, err := os.ReadFile(full)
			if err != nil {
				return nil, err
			}
			v[e.Name()] = fmt.Sprintf("%04o %s", info.Mode().Perm(), content)
			continue
		}
		sub, err := readTree(os.DirFS(full))
		if err != nil {
			return nil, err
		}
		for p, c := range sub {
			v[path.Join(e.Name(), p)] = c
		}
	}
	return v, nil
}

// checkView fails unless both kinds of reader see files and nothing else.
func checkView(t *testing.T, root string, files []File) {
	t.Helper()
	for name, read := range map[string]func(string) (view, error){"..data": readSet, "plain paths": readPlain} {
		got, err := read(root)
		if err != nil {
			t.Fatalf("read through %s: %v", name, err)
		}
		if diff := cmp.Diff(viewOf(files), got); diff != "" {
			t.Fatalf("read through %s (-want +got):\n%s", name, diff)
		}
	}
}

// checkTidy fails unless root holds exactly what the set files needs, and
// extra.
func checkTidy(t *testing.T, root string, files []File, extra ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, name := range extra {
		want[name] = true
	}
	for _, f := range files {
		want[firstElement(f.Path)] = true
	}
	if target, err := os.Readlink(filepath.Join(root, dataLink)); err == nil {
		want[dataLink], want[target] = true, true
	}
	if diff := cmp.Diff(append([]string{}, slices.Sorted(maps.Keys(want))...), listing(t, root)); diff != "" {
		t.Fatalf("names in root (-want +got):\n%s", diff)
	}
}

func listing(t *testing.T, root string) []string {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// stamps is everything about a tree that a write would change.
func stamps(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		uid, gid := owner(info)
		got[p] = fmt.Sprintf("%s %d:%d inode %d size %d written %s changed %s",
			info.Mode(), uid, gid, inode(info), info.Size(), info.ModTime(), changeTime(info))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

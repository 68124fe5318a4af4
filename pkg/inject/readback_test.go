package inject

import (
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/inject/fileset"
)

// shut is a disk with files that this process cannot read back.
type shut struct {
	memory
	secret func(fileset.File) bool
}

var errShut = errors.New("permission denied")

func (s *shut) Current() (map[string]fileset.File, error) {
	files, err := s.memory.Current()
	for p, f := range files {
		if s.secret(f) {
			delete(files, p)
			err = errShut
		}
	}
	return files, err
}

func (s *shut) contents() map[string]string {
	all := map[string]string{}
	for p, f := range s.files {
		all[p] = string(f.Content)
	}
	return all
}

func newShut(t *testing.T, disk *shut) (*Engine, consumer) {
	t.Helper()
	e, err := New(Options{Source: &mute{}, Files: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.retryTimer.Stop() })
	e.euid = 1000
	return e, consumer{e}
}

func give(it Item, content string) Item {
	it.Path, it.Injection = it.ID, "i"
	it.Digest, it.HasContent, it.Content = "digest of "+content, true, []byte(content)
	return it
}

// A process that gives its files away, and may not read those of others, still
// changes one file without losing the other.
func TestFilesThatCannotBeReadBack(t *testing.T) {
	other := uint32(2000)
	disk := &shut{secret: func(f fileset.File) bool { return f.UID != nil && *f.UID == int(other) }}
	_, to := newShut(t, disk)
	a, b, c := Item{ID: "a", UID: &other}, Item{ID: "b"}, Item{ID: "c"}
	to.Set(t.Context(), Set{Revision: 1, Whole: true, Items: []Item{give(a, "A"), give(b, "B"), give(c, "C")}})
	to.Set(t.Context(), Set{Revision: 2, Items: []Item{give(b, "B2")}})
	a.Path, a.Injection, a.State = "a", "i", Failed
	to.Set(t.Context(), Set{Revision: 3, Items: []Item{a, give(c, "C2")}})
	if diff := cmp.Diff(map[string]string{"a": "A", "b": "B2", "c": "C2"}, disk.contents()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if f := disk.files["a"]; f.UID == nil || *f.UID != int(other) {
		t.Error("the last good file lost its owner")
	}
}

// After a restart nobody knows the contents of such files. They must not go
// just because their items have no value now.
func TestRestartOverFilesThatCannotBeReadBack(t *testing.T) {
	disk := &shut{secret: func(f fileset.File) bool { return f.Path == "a" }}
	disk.files = map[string]fileset.File{"a": {Path: "a", Content: []byte("A")}, "b": {Path: "b", Content: []byte("B")}}
	before := maps.Clone(disk.contents())
	e, to := newShut(t, disk)
	failed := Item{ID: "a", Path: "a", Injection: "i", State: Failed}
	to.Set(t.Context(), Set{Revision: 1, Whole: true, Items: []Item{failed, give(Item{ID: "b"}, "B2")}})
	if diff := cmp.Diff(before, disk.contents()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if s := e.Status(); s.Ready || len(s.Failures) != 2 {
		t.Errorf("status %+v", s)
	}
	to.Set(t.Context(), Set{Revision: 2, Items: []Item{give(Item{ID: "a"}, "A2")}})
	if diff := cmp.Diff(map[string]string{"a": "A2", "b": "B2"}, disk.contents()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestReadable(t *testing.T) {
	me, you := 1000, 2000
	for _, test := range []struct {
		file fileset.File
		euid int
		want bool
	}{
		{fileset.File{Mode: 0o400}, me, true},
		{fileset.File{Mode: 0o400, UID: &me}, me, true},
		{fileset.File{Mode: 0o440, UID: &you}, me, false},
		{fileset.File{Mode: 0o040}, me, false},
		{fileset.File{Mode: 0o040, UID: &you}, 0, true},
	} {
		if got := readable(test.file, test.euid); got != test.want {
			t.Errorf("mode %o for %d: %v, want %v", test.file.Mode, test.euid, got, test.want)
		}
	}
}

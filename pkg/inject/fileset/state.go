package fileset

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"syscall"

	"github.com/credstore/credstore/pkg/targetpath"
)

// dataLink is the symlink whose switch publishes a set.
const dataLink = "..data"

var (
	// dataName is what data directories are called, and nothing else.
	dataName = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.[0-9a-f]{16}$`)
	// tempName is what a symlink is called before it takes its place.
	tempName = regexp.MustCompile(`^\.\.link\.[0-9a-f]{16}$`)
)

// state is what root holds. The disk is asked each time: it is the only truth
// that survives a crash, and others may have touched it.
type state struct {
	// data is the data directory that ..data leads to; "" if there is none.
	data  string
	files map[string]fs.FileInfo // its files, by path
	gid   int                    // its group, which files have that name none
	// sound is false if the data directory holds something that Publish never
	// makes, or belongs to somebody else: then it is built anew.
	sound bool
	// links are the names in root that lead to ..data/<name>.
	links map[string]bool
	// others are the names in root that are neither that nor reserved; true
	// for symlinks.
	others map[string]bool
	// litter are reserved names that nothing needs: leftovers of a crash.
	litter []string
	// blocked says that ..data is a directory, so that no rename replaces it.
	blocked bool
}

// names returns the first elements of the published paths.
func (s *state) names() map[string]bool {
	names := make(map[string]bool)
	for p := range s.files {
		names[firstElement(p)] = true
	}
	return names
}

// look reads what root holds. It opens no files.
func (d *Dir) look() (*state, error) {
	s := &state{links: map[string]bool{}, others: map[string]bool{}, files: map[string]fs.FileInfo{}}
	if err := d.lookAtData(s); err != nil {
		return nil, err
	}
	entries, err := readDir(d.disk.root, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == dataLink:
		case dataName.MatchString(name) || tempName.MatchString(name):
			if name != s.data && !slices.ContainsFunc(d.lingering, func(l *lingerer) bool { return l.name == name }) {
				s.litter = append(s.litter, name)
			}
		case e.Type()&fs.ModeSymlink != 0:
			if target, err := d.disk.root.Readlink(name); err == nil && target == dataLink+"/"+name {
				s.links[name] = true
			} else {
				s.others[name] = true
			}
		default:
			s.others[name] = false
		}
	}
	return s, nil
}

// lookAtData fills in what ..data leads to. A ..data that this package would
// not make, or that leads nowhere, is as good as none.
func (d *Dir) lookAtData(s *state) error {
	info, err := d.disk.root.Lstat(dataLink)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		s.blocked = info.IsDir()
		return nil
	}
	name, err := d.disk.root.Readlink(dataLink)
	if err != nil || !dataName.MatchString(name) {
		return err
	}
	info, err = d.disk.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	s.data = name
	_, s.gid = owner(info)
	s.sound = true
	return d.walk(s, name, "", targetpath.MaxElements)
}

// walk adds what lies in one directory of the data directory to s.
func (d *Dir) walk(s *state, at, prefix string, depth int) error {
	info, err := d.disk.root.Lstat(at)
	if err != nil {
		return err
	}
	if !ownedByUs(info) || info.Mode().Perm() != d.opts.DirMode || depth == 0 {
		s.sound = false
	}
	if depth == 0 {
		return nil
	}
	entries, err := readDir(d.disk.root, at)
	if err != nil {
		// Nothing can be said about what lies in there, so build it anew.
		s.sound = false
		return nil //nolint:nilerr // not sound is the answer
	}
	if prefix != "" && len(entries) == 0 {
		s.sound = false
	}
	for _, e := range entries {
		p := path.Join(prefix, e.Name())
		info, err := d.disk.root.Lstat(path.Join(at, e.Name()))
		if err != nil {
			return err
		}
		switch {
		case targetpath.Validate(p) != nil:
			s.sound = false
		case info.IsDir():
			if err := d.walk(s, path.Join(at, e.Name()), p, depth-1); err != nil {
				return err
			}
		default:
			s.files[p] = info
			s.sound = s.sound && info.Mode().IsRegular()
		}
	}
	return nil
}

// readDir lists a directory of root, in the order of names.
func readDir(root *os.Root, name string) ([]fs.DirEntry, error) {
	h, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer h.Close() //nolint:errcheck // only read
	entries, err := h.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return bytes.Compare([]byte(a.Name()), []byte(b.Name())) })
	return entries, err
}

// same says whether the file at name, that info describes, is f already; gid is
// the group of files that name none. One that cannot be read, and that this Dir
// did not write, counts as another: writing it again is always right.
func (d *Dir) same(name string, info fs.FileInfo, f File, gid int) bool {
	if info.Mode() != f.Mode || info.Size() != int64(len(f.Content)) {
		return false
	}
	wantUID, wantGID := os.Geteuid(), gid
	if f.UID != nil {
		wantUID = *f.UID
	}
	if f.GID != nil {
		wantGID = *f.GID
	}
	if uid, gid := owner(info); uid != wantUID || gid != wantGID {
		return false
	}
	content, err := d.read(name, info)
	if errors.Is(err, fs.ErrPermission) {
		w, ok := d.written[f.Path]
		return ok && w.is(info) && w.sum == sha256.Sum256(f.Content)
	}
	return err == nil && bytes.Equal(content, f.Content)
}

// written remembers a file that this Dir wrote. A process that may give files
// away, but may not read what is not its own, has nothing else to compare with.
type written struct {
	info fs.FileInfo
	sum  [sha256.Size]byte // of the content
}

// is says whether info describes the file as it was written.
func (w written) is(info fs.FileInfo) bool {
	return os.SameFile(w.info, info) && w.info.ModTime().Equal(info.ModTime())
}

// read returns the content of the regular file that info describes, and of no
// other that took its place meanwhile.
func (d *Dir) read(name string, info fs.FileInfo) ([]byte, error) {
	// Without O_NONBLOCK, a named pipe in that place would block the open.
	h, err := d.disk.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer h.Close() //nolint:errcheck // only read
	opened, err := h.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, opened) || !opened.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: replaced while reading, or no regular file", targetpath.Quote(name))
	}
	content := make([]byte, opened.Size())
	if _, err := io.ReadFull(h, content); err != nil {
		return nil, fmt.Errorf("read %s: %w", targetpath.Quote(name), err)
	}
	return content, nil
}

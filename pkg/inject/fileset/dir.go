package fileset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/credstore/credstore/pkg/targetpath"
)

// DefaultDirMode is the mode of directories: others may enter and list them,
// as applications run under other users than the injector. What they may read
// is for the modes of the files to say.
const DefaultDirMode fs.FileMode = 0o755

// DefaultLinger is how long a replaced set stays readable.
const DefaultLinger = time.Second

// maxLingering is how many replaced sets stay readable at most. When sets
// follow each other faster than [Options.Linger], the oldest goes early.
const maxLingering = 8

// Options tune a [Dir]. The zero value is meant for use.
type Options struct {
	// DirMode is the mode of root, if Open makes it, and of all directories
	// beneath it; 0 means [DefaultDirMode]. It must allow the owner everything.
	// The umask does not apply.
	DirMode fs.FileMode
	// Linger is how long the data directory of a replaced set remains, for
	// readers that opened ..data before the switch; 0 means [DefaultLinger],
	// less than 0 that it goes at once. Removed names disappear at once in any
	// case. At most eight replaced sets linger.
	Linger time.Duration
}

// Dir publishes sets of files under one root. Its methods may be called from
// several goroutines; they run one after the other.
type Dir struct {
	opts Options
	disk disk
	self *os.File // root itself: holds the lock, and is synced

	mu        sync.Mutex // guards what follows
	closed    bool
	unsettled bool               // root was changed and not synced since
	written   map[string]written // of the published set, by path, as far as known
	lingering []*lingerer
	timers    sync.WaitGroup // the timers of lingering
}

// lingerer is a replaced data directory that some reader may still be in.
type lingerer struct {
	name  string
	timer *time.Timer
}

// Open takes root dir, which it makes if it is missing, parents included. It
// locks dir until [Dir.Close], or until the process ends in whatever way, and
// answers [ErrLocked] if somebody else has it. It removes what a crash left
// behind and completes the links to what is published; the published set itself
// stays as it is.
func Open(dir string, opts Options) (*Dir, error) {
	d := &Dir{opts: opts}
	if err := d.open(dir); err != nil {
		d.release()
		return nil, fmt.Errorf("open file set %s: %w", targetpath.Quote(dir), err)
	}
	return d, nil
}

func (d *Dir) open(dir string) (err error) {
	if d.opts.DirMode == 0 {
		d.opts.DirMode = DefaultDirMode
	}
	if mode := d.opts.DirMode; mode&^fs.ModePerm != 0 || mode&0o700 != 0o700 {
		return fmt.Errorf("directory mode %s: use permission bits that include 0700", mode)
	}
	if d.opts.Linger == 0 {
		d.opts.Linger = DefaultLinger
	}
	if err := makeRoot(dir, d.opts.DirMode); err != nil {
		return err
	}
	if d.disk.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	if d.self, err = d.disk.root.Open("."); err != nil {
		return err
	}
	// The lock is on the directory itself, so that no lock file lies about,
	// and the kernel drops it when the process dies.
	err = syscall.Flock(int(d.self.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return d.recover()
}

// makeRoot makes dir, if it is missing, so that it survives a loss of power.
func makeRoot(dir string, mode fs.FileMode) error {
	dir = filepath.Clean(dir)
	err := os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // the umask of whoever starts the injector applies
			return err
		}
		err = os.Mkdir(dir, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // OpenRoot says if it is no directory
	}
	if err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, info.Mode()&fs.ModeSetgid|mode); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(syncFile(parent), parent.Close())
}

// recover brings root into order after whatever ended the last process: the
// published set gets all its links, and everything that belongs to no set goes.
func (d *Dir) recover() error {
	s, err := d.look()
	if err != nil {
		return err
	}
	names := s.names()
	// Something else in a link's place is for the next Publish to report.
	links := missingLinks(s, names)
	for _, name := range links {
		if err := d.disk.symlink(dataLink+"/"+name, name, newTempName()); err != nil {
			return err
		}
	}
	// The last process may have died between the switch and its sync.
	d.unsettled = true
	return d.settle(s, names, "")
}

// Read returns one file of the published set, with its content, mode and
// owner as they are on the disk. A file that is not in the set is
// fs.ErrNotExist. Reading a file that was given to another user, with a mode
// that shuts this process out, needs CAP_DAC_READ_SEARCH (or root).
func (d *Dir) Read(p string) (File, error) {
	if err := targetpath.Validate(p); err != nil {
		return File{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.lookOpen()
	if err != nil {
		return File{}, fmt.Errorf("read published set: %w", err)
	}
	info, ok := s.files[p]
	if !ok {
		return File{}, fmt.Errorf("read published file %s: %w", targetpath.Quote(p), fs.ErrNotExist)
	}
	return d.load(s, p, info)
}

// Current returns the published set by path, as it is on the disk; it is empty
// if there is none. All contents are in memory then; use [Dir.Read] where one
// file is enough. An error means that a file could not be read, and comes with
// those that could.
func (d *Dir) Current() (map[string]File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.lookOpen()
	if err != nil {
		return nil, fmt.Errorf("read published set: %w", err)
	}
	files := make(map[string]File, len(s.files))
	var failed error
	for p, info := range s.files {
		f, err := d.load(s, p, info)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		files[p] = f
	}
	return files, failed
}

// lookOpen is look for an open Dir.
func (d *Dir) lookOpen() (*state, error) {
	if d.closed {
		return nil, fs.ErrClosed
	}
	return d.look()
}

func (d *Dir) load(s *state, p string, info fs.FileInfo) (File, error) {
	content, err := d.read(path.Join(s.data, p), info)
	if err != nil {
		return File{}, fmt.Errorf("read published file %s: %w", targetpath.Quote(p), err)
	}
	uid, gid := owner(info)
	return File{Path: p, Content: content, Mode: info.Mode().Perm(), UID: &uid, GID: &gid}, nil
}

// Close removes replaced sets that linger, unlocks root, and waits for what
// runs in the background. The published set stays. Closing again does nothing;
// other methods answer fs.ErrClosed afterwards.
func (d *Dir) Close() error {
	d.mu.Lock()
	var err error
	if !d.closed {
		err = d.removeLingering(0)
		d.closed = true
		d.release()
	}
	d.mu.Unlock()
	d.timers.Wait()
	if err != nil {
		return fmt.Errorf("close file set: %w", err)
	}
	return nil
}

// release lets go of root and of its lock.
func (d *Dir) release() {
	if d.self != nil {
		_ = d.self.Close()
	}
	if d.disk.root != nil {
		_ = d.disk.root.Close()
	}
}

// firstElement returns the name under root that leads to p.
func firstElement(p string) string {
	name, _, _ := strings.Cut(p, "/")
	return name
}

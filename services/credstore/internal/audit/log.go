package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// ErrClosed says that the log was closed.
var ErrClosed = errors.New("audit log is closed")

// keepBuffer is the size up to which the line buffer is kept for the next
// entry; a push to thousands of subscriptions has a line beyond it.
const keepBuffer = 64 << 10

// Options change how a log writes; the zero value is fine.
type Options struct {
	// Sync waits after each line until the disk has it. Without it a line
	// survives the end of the process, and not that of the machine.
	Sync bool
}

// Log appends audit entries to a file or writer. It is safe for concurrent use;
// entries are never mixed, each is one write.
type Log struct {
	sync bool
	path string // "" when the caller gave the writer
	// turn holds one value while nobody writes. It is a channel and no mutex so
	// that a call can give up when its context ends before it is its turn.
	turn chan struct{}

	// What follows belongs to whose turn it is.
	w      io.Writer
	file   *os.File // w, when it is ours
	buffer []byte
	// torn says that the last line was left incomplete, so that the next one
	// has to begin on a fresh line.
	torn bool
}

var _ core.Auditor = (*Log)(nil)

// Open appends to the regular file at path and makes it, with mode 0600, when
// there is none. A file that others may read or write is refused: it says who
// uses what. The caller closes the Log.
func Open(path string, o Options) (*Log, error) {
	l := newLog(o)
	l.path = path
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// New appends to w, which the caller closes; Reopen does nothing. Options.Sync
// needs a w with a method Sync() error, as an *os.File has. Record blocks for
// as long as w.Write does: a pipe that nobody reads stops every call.
func New(w io.Writer, o Options) *Log {
	l := newLog(o)
	l.w = w
	return l
}

func newLog(o Options) *Log {
	l := &Log{sync: o.Sync, turn: make(chan struct{}, 1), buffer: make([]byte, 0, 1024)}
	l.turn <- struct{}{}
	return l
}

// Record appends the entry with one write and returns when the operating system
// has it, or the disk if Options.Sync is set. It fails when ctx ends before its
// turn, when not all of the line was written, and after Close.
func (l *Log) Record(ctx context.Context, e core.AuditEntry) error {
	if err := l.acquire(ctx); err != nil {
		return err
	}
	defer l.release()
	if l.w == nil {
		return ErrClosed
	}
	b := l.buffer[:0]
	if l.torn {
		b = append(b, '\n')
	}
	b = appendLine(b, &e)
	if cap(b) <= keepBuffer {
		l.buffer = b
	}
	n, err := l.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		l.torn = l.torn || n > 0
		return fmt.Errorf("write audit log: %w", err)
	}
	l.torn = false
	if s, ok := l.w.(interface{ Sync() error }); ok && l.sync {
		if err := s.Sync(); err != nil {
			return fmt.Errorf("sync audit log: %w", err)
		}
	}
	return nil
}

// Reopen opens the path anew, after logrotate has moved the file away. When
// that fails the Log goes on with the file that it has.
func (l *Log) Reopen() error {
	l.acquireAlways()
	defer l.release()
	switch {
	case l.w == nil:
		return ErrClosed
	case l.path == "":
		return nil
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	if err := old.Close(); err != nil {
		return fmt.Errorf("close rotated audit log: %w", err)
	}
	return nil
}

// Close waits for the line under way and closes the file. A second Close does
// nothing.
func (l *Log) Close() error {
	l.acquireAlways()
	defer l.release()
	file := l.file
	l.w, l.file = nil, nil
	if file == nil {
		return nil
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

func (l *Log) acquire(ctx context.Context) error {
	select {
	case <-l.turn:
		return nil
	default:
	}
	select {
	case <-l.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("audit log is busy: %w", context.Cause(ctx))
	}
}

func (l *Log) acquireAlways() { <-l.turn }
func (l *Log) release()       { l.turn <- struct{}{} }

// open replaces the file; it is this one's turn, or nobody else has the Log yet.
func (l *Log) open() error {
	// Without O_NONBLOCK the open of a pipe would wait for a reader.
	const flags = os.O_APPEND | os.O_CREATE | os.O_RDWR | unix.O_NONBLOCK | unix.O_NOFOLLOW
	f, err := os.OpenFile(l.path, flags, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	torn, err := check(f)
	if err != nil {
		return fmt.Errorf("open audit log %s: %w", l.path, errors.Join(err, f.Close()))
	}
	l.w, l.file, l.torn = f, f, torn
	return nil
}

// check says whether the file's last line is incomplete, as a crash leaves it.
func check(f *os.File) (torn bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, errors.New("it is not a regular file, so a write to it could block every call")
	}
	if info.Mode().Perm()&^fs.FileMode(0o600) != 0 {
		return false, fmt.Errorf("its mode is %#o and must be 0600: others could read who uses what", info.Mode().Perm())
	}
	if info.Size() == 0 {
		return false, nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Store is a core.Storage in one SQLite file. Open makes it.
type Store struct {
	opts    Options
	knobs   knobs
	path    string // resolved
	feedID  string
	version int
	lock    *os.File

	// requests goes to the writer; sendMu is held for reading while sending,
	// so that Close can close it.
	sendMu   sync.RWMutex
	sendOver bool
	requests chan *request

	// closing is closed by Close, done when the writer has ended.
	closing chan struct{}
	done    chan struct{}
	closed  sync.Once
	result  error // of Close, valid after done

	readers chan *reader
	index   index
	// commitMu is held by the writer from COMMIT until index and newest show
	// the commit.
	commitMu sync.Mutex
	newest   atomic.Pointer[position]
	failure  atomic.Pointer[failure]

	feedsMu sync.Mutex
	feeds   map[*feed]struct{}

	w *writer
}

// position is what Info tells of the history.
type position struct {
	rev, compacted core.Revision
	nonce          uint64
}

type failure struct{ err error }

var _ core.Storage = (*Store)(nil)

// Open opens the store, or makes it when the file does not exist, and brings an
// older schema up to date. It returns ErrLocked when another Store has the file
// open, core.ErrSchemaNewer when a newer program wrote it, and ErrNotStore when
// it is something else; the file is then unchanged. ctx bounds nothing but the
// start of Open: reading the index of a large file is not interrupted.
func Open(ctx context.Context, o Options) (*Store, error) {
	return open(ctx, o, knobs{})
}

func open(ctx context.Context, o Options, k knobs) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &Store{
		opts:     o,
		knobs:    k.withDefaults(),
		requests: make(chan *request, o.MaxBatch),
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
		readers:  make(chan *reader, readers),
		feeds:    map[*feed]struct{}{},
	}
	if s.path, err = resolve(o.Path); err != nil {
		return nil, err
	}
	if s.lock, err = lockFile(s.path); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", s.path, err), s.shut())
	}
	go s.w.run()
	return s, nil
}

// load opens the connections and reads what is kept in memory.
func (s *Store) load() error {
	if err := prepareFile(s.path, len(s.knobs.steps), s.opts.BusyTimeout); err != nil {
		return err
	}
	c, err := dial(dsn(s.path, writing, s.opts.BusyTimeout, s.knobs.synchronous))
	if err != nil {
		return err
	}
	s.w = &writer{s: s, c: c}
	var mode string
	if err := c.one(`PRAGMA journal_mode`, &mode); err != nil {
		return err
	}
	if !strings.EqualFold(mode, "wal") {
		return fmt.Errorf("journal mode is %q: the file system does not support SQLite's write-ahead log", mode)
	}
	if s.version, err = migrate(c, s.knobs.steps); err != nil {
		return err
	}
	if err := s.w.load(); err != nil {
		return err
	}
	if s.knobs.setup != nil {
		if err := s.knobs.setup(c); err != nil {
			return err
		}
	}
	for range readers {
		r, err := openReader(dsn(s.path, reading, s.opts.BusyTimeout, ""))
		if err != nil {
			return err
		}
		s.readers <- r
	}
	return nil
}

// shut closes whatever is open. The writer's connection is the last one, so
// that SQLite folds the write-ahead log into the file and removes it.
func (s *Store) shut() error {
	var errs []error
	for range len(s.readers) {
		errs = append(errs, (<-s.readers).c.close())
	}
	if s.w != nil {
		errs = append(errs, s.w.c.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// load reads the history's bounds and the index.
func (w *writer) load() error {
	var compacted, nonce int64
	if err := w.c.one(`SELECT feed_id, compacted, compacted_nonce FROM meta`, &w.s.feedID, &compacted, &nonce); err != nil {
		return fmt.Errorf("read meta: %w", err)
	}
	pos := position{rev: core.Revision(compacted), compacted: core.Revision(compacted), nonce: uint64(nonce)}
	q, err := w.c.prepareOnce(`SELECT revision, time FROM log ORDER BY revision`)
	if err != nil {
		return err
	}
	err = q.each(func(row []driver.Value) error {
		var rev, at int64
		if err := scan(row, &rev, &at); err != nil {
			return err
		}
		w.blocks = append(w.blocks, blockMark{last: core.Revision(rev), time: at})
		return nil
	})
	if err := errors.Join(err, q.s.Close()); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if err := w.prepare(); err != nil {
		return err
	}
	if n := len(w.blocks); n > 0 {
		c, err := w.commitAt(w.blocks[n-1].last)
		if err != nil {
			return err
		}
		if c.Revision <= pos.rev {
			return fmt.Errorf("log ends at %d, compacted is %d: %w", c.Revision, pos.rev, ErrCorrupt)
		}
		pos.rev, pos.nonce = c.Revision, c.Nonce
	}
	w.s.newest.Store(&pos)
	w.trimGoal = pos.compacted
	return loadSlots(w.c, &w.s.index, &w.slots, pos.rev)
}

func (s *Store) revision() core.Revision { return s.newest.Load().rev }

// Info implements core.Storage.
func (s *Store) Info(ctx context.Context) (core.StorageInfo, error) {
	if err := ctx.Err(); err != nil {
		return core.StorageInfo{}, err
	}
	select {
	case <-s.closing:
		return core.StorageInfo{}, core.ErrClosed
	default:
	}
	p := s.newest.Load()
	return core.StorageInfo{
		FeedID:        s.feedID,
		Revision:      p.rev,
		Compacted:     p.compacted,
		Nonce:         p.nonce,
		SchemaVersion: s.version,
	}, nil
}

// Close implements core.Storage: it waits for the commits and reads under way,
// ends the feeds, folds the write-ahead log into the file and releases the
// lock. An error means that the log could not be folded or the file not be
// closed; what was acknowledged is durable all the same.
func (s *Store) Close() error {
	s.closed.Do(func() {
		close(s.closing)
		s.sendMu.Lock()
		s.sendOver = true
		close(s.requests)
		s.sendMu.Unlock()
		<-s.w.ended
		// Reads hold a reader; when all are back, none is under way.
		idle := make([]*reader, 0, readers)
		for range readers {
			idle = append(idle, <-s.readers)
		}
		for _, r := range idle {
			s.readers <- r
		}
		err := s.w.truncate()
		if err := errors.Join(err, s.shut()); err != nil {
			s.result = fmt.Errorf("sqlite: close %s: %w", s.path, err)
		}
		close(s.done)
	})
	<-s.done
	return s.result
}

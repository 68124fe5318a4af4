package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// manySlots is how many slots one statement reads.
const manySlots = 64

// reader is a read-only connection with its statements.
type reader struct {
	c                 *conn
	begin, mark, end  *stmt
	slot, many        *stmt
	compacted, blocks *stmt
	args              []any
}

func openReader(dsn string) (*reader, error) {
	c, err := dial(dsn)
	if err != nil {
		return nil, err
	}
	r := &reader{c: c}
	for _, p := range []struct {
		to    **stmt
		query string
	}{
		{&r.begin, `BEGIN`},
		{&r.mark, `SELECT id FROM meta`},
		{&r.end, `COMMIT`},
		{&r.slot, `SELECT data FROM slot WHERE id = ?`},
		{&r.many, `SELECT id, data FROM slot WHERE id IN (?` + strings.Repeat(`,?`, manySlots-1) + `)`},
		{&r.compacted, `SELECT compacted FROM meta`},
		{&r.blocks, `SELECT revision, block FROM log WHERE revision > ? ORDER BY revision LIMIT ?`},
	} {
		if *p.to, err = c.prepare(p.query); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return r, nil
}

// atomically runs fn on one state of the database, which is fixed when fixed
// is called, before fn.
func (r *reader) atomically(fixed func(), fn func() error) (err error) {
	if err := r.begin.run(); err != nil {
		fixed()
		return err
	}
	defer func() {
		if e := r.end.run(); err == nil { // fn's error is returned as it is
			err = e
		}
	}()
	// BEGIN alone reads nothing; the first read chooses the state.
	var id int64
	err = r.mark.one(nil, &id)
	fixed()
	if err != nil {
		return err
	}
	return fn()
}

// record returns the record in a slot; its Revision is 0 when the slot is free
// or gone.
func (r *reader) record(id int64) (rec core.Record, err error) {
	err = r.slot.each(func(row []driver.Value) error {
		var data []byte
		if err := scan(row, &data); err != nil {
			return err
		}
		if rec, err = decodeSlot(data); err != nil {
			return fmt.Errorf("slot %d: %w", id, err)
		}
		return nil
	}, id)
	return rec, err
}

// records reads at most manySlots slots into the map.
func (r *reader) records(ids []int64, into map[int64]core.Record) error {
	r.args = r.args[:0]
	for _, id := range ids {
		r.args = append(r.args, id)
	}
	for len(r.args) < manySlots {
		r.args = append(r.args, int64(-1)) // no slot has it
	}
	return r.many.each(func(row []driver.Value) error {
		var id int64
		var data []byte
		if err := scan(row, &id, &data); err != nil {
			return err
		}
		rec, err := decodeSlot(data)
		if err != nil {
			return fmt.Errorf("slot %d: %w", id, err)
		}
		into[id] = rec
		return nil
	}, r.args...)
}

// acquire returns a reader once one is free. The caller releases it.
func (s *Store) acquire(ctx context.Context) (*reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-s.closing:
		return nil, core.ErrClosed
	default:
	}
	select {
	case r := <-s.readers:
		select {
		case <-s.closing:
			s.release(r)
			return nil, core.ErrClosed
		default:
		}
		return r, nil
	case <-s.closing:
		return nil, core.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Store) release(r *reader) { s.readers <- r }

// Get implements core.Storage.
func (s *Store) Get(ctx context.Context, key string) (core.Record, error) {
	r, err := s.acquire(ctx)
	if err != nil {
		return core.Record{}, err
	}
	defer s.release(r)
	for { // a round is lost only to a commit that moved this key meanwhile
		e, ok := s.index.get(key)
		if !ok {
			return core.Record{}, fmt.Errorf("%w: %q", core.ErrNotFound, key)
		}
		rec, err := r.record(e.id)
		if err != nil {
			return core.Record{}, fmt.Errorf("sqlite: get %q: %w", key, err)
		}
		if rec.Revision > s.revision() || rec.Key != key {
			// The disk is ahead of the index: wait for the commit under way.
			s.commitMu.Lock()
			s.commitMu.Unlock() //nolint:staticcheck // an empty critical section is a wait
		}
		if rec.Revision != 0 && rec.Key == key {
			return rec, nil
		}
		if again, ok := s.index.get(key); ok && again == e {
			return core.Record{}, fmt.Errorf("sqlite: get %q: slot %d does not hold it: %w", key, e.id, ErrCorrupt)
		}
		if err := ctx.Err(); err != nil {
			return core.Record{}, err
		}
	}
}

// Snapshot implements core.Storage. While yield runs, the write-ahead log
// cannot be truncated, and one of four readers is taken; a yield that takes
// minutes lets the one grow, and four of those make other reads wait.
func (s *Store) Snapshot(ctx context.Context, prefix string, yield func(core.Record) error) (core.Revision, error) {
	r, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer s.release(r)
	// Between a COMMIT and its application to the index the two differ, so the
	// state of the database is fixed while no commit is under way.
	s.commitMu.Lock()
	keys, rev := s.index.copy(), s.revision()
	err = r.atomically(s.commitMu.Unlock, func() error {
		batch := make([]located, 0, manySlots)
		var err error
		ascend(keys, prefix, func(key string, e entry) bool {
			if batch = append(batch, located{key, e}); len(batch) == manySlots {
				err = s.yield(ctx, r, batch, yield)
				batch = batch[:0]
			}
			return err == nil
		})
		if err != nil {
			return err
		}
		return s.yield(ctx, r, batch, yield)
	})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// located is a key with its place.
type located struct {
	key string
	entry
}

// yield reads the records and hands them over in the order given.
func (s *Store) yield(ctx context.Context, r *reader, batch []located, yield func(core.Record) error) error {
	if len(batch) == 0 {
		return nil
	}
	ids := make([]int64, 0, manySlots)
	for _, l := range batch {
		ids = append(ids, l.id)
	}
	records := make(map[int64]core.Record, len(batch))
	if err := r.records(ids, records); err != nil {
		return fmt.Errorf("sqlite: snapshot: %w", err)
	}
	for _, l := range batch {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing:
			return core.ErrClosed
		default:
		}
		rec := records[l.id]
		if rec.Key != l.key || rec.Revision != l.rev {
			return fmt.Errorf("sqlite: snapshot: slot %d does not hold %q as of %d: %w", l.id, l.key, l.rev, ErrCorrupt)
		}
		if err := yield(rec); err != nil {
			return err
		}
	}
	return nil
}

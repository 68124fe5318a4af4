package sqlite

import (
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// entry says where a key's record is.
type entry struct {
	id   int64 // of its slot
	size int   // of its slot
	rev  core.Revision
}

// index maps the keys of everything committed to their slots, in order. Only
// the writer changes it, so the writer reads it without the lock.
type index struct {
	mu   sync.RWMutex
	keys btree.Map[string, entry]
}

func (x *index) get(key string) (entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.keys.Get(key)
}

// copy returns the index as it is now; it costs nothing, and the writer some
// copying later on.
func (x *index) copy() *btree.Map[string, entry] {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.keys.Copy()
}

// ascend calls fn for the keys with the prefix in order until fn returns false.
func ascend[V any](m *btree.Map[string, V], prefix string, fn func(key string, v V) bool) {
	m.Ascend(prefix, func(key string, v V) bool {
		return strings.HasPrefix(key, prefix) && fn(key, v)
	})
}

// slots knows which slots are free; it is the writer's.
type slots struct {
	next int64           // the id of the next slot to append
	free map[int][]int64 // by size
}

// take returns a free slot for n bytes, or one to append.
func (s *slots) take(n int) (id int64, size int, appended bool) {
	size = slotSize(n)
	for try := size; slotFits(try, n); try = slotSize(try + 1) {
		if ids := s.free[try]; len(ids) > 0 {
			s.free[try] = ids[:len(ids)-1]
			return ids[len(ids)-1], try, false
		}
	}
	s.next++
	return s.next - 1, size, true
}

func (s *slots) give(id int64, size int) {
	s.free[size] = append(s.free[size], id)
}

// loadSlots builds the index from the slot table.
func loadSlots(c *conn, x *index, s *slots, newest core.Revision) error {
	q, err := c.prepareOnce(`SELECT id, data FROM slot`)
	if err != nil {
		return err
	}
	s.next, s.free = 1, map[int][]int64{}
	var id int64
	var data []byte
	err = q.each(func(row []driver.Value) error {
		if err := scan(row, &id, &data); err != nil {
			return err
		}
		s.next = max(s.next, id+1)
		key, _, rev, err := splitSlot(data)
		switch {
		case err != nil:
			return fmt.Errorf("slot %d: %w", id, err)
		case rev == 0:
			s.give(id, len(data))
			return nil
		case rev > newest:
			return fmt.Errorf("slot %d has revision %d, the newest is %d: %w", id, rev, newest, ErrCorrupt)
		}
		if other, twice := x.keys.Set(string(key), entry{id: id, size: len(data), rev: rev}); twice {
			return fmt.Errorf("slots %d and %d hold the same key: %w", other.id, id, ErrCorrupt)
		}
		return nil
	})
	if e := q.s.Close(); err == nil {
		err = e
	}
	return err
}

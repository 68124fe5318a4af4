package fanout

import (
	"sort"
	"sync/atomic"
)

// entry is a published event. It never changes.
type entry[E any] struct {
	seq      uint64
	revision uint64
	size     int64
	topics   []string
	value    E
}

// ring holds the newest events under consecutive sequence numbers. All but get
// need the hub's lock.
type ring[E any] struct {
	// slots[seq%len] is written under the hub's lock and read without it.
	slots []atomic.Pointer[entry[E]]
	// first is the oldest event held, next the number of the one to come.
	first, next uint64
	bytes       int64
	// floor is the newest revision that a reader can no longer get here:
	// that of the last event dropped, or where the hub began.
	floor uint64
}

// get returns the event, or nil when it has been dropped.
func (r *ring[E]) get(seq uint64) *entry[E] {
	e := r.slots[seq%uint64(len(r.slots))].Load()
	if e == nil || e.seq != seq {
		return nil
	}
	return e
}

// makeRoom drops the oldest events until one more of this size fits, or none
// is left: an event above the bound is held alone.
func (r *ring[E]) makeRoom(size, bound int64) {
	for r.first < r.next && (r.next-r.first == uint64(len(r.slots)) || r.bytes > bound-size) {
		r.drop()
	}
}

// clear drops everything.
func (r *ring[E]) clear() {
	for r.first < r.next {
		r.drop()
	}
}

func (r *ring[E]) drop() {
	// The slot is emptied at once, so that the event can be collected.
	e := r.slots[r.first%uint64(len(r.slots))].Swap(nil)
	r.first++
	r.bytes -= e.size
	r.floor = e.revision
}

// push takes an event for which makeRoom was called.
func (r *ring[E]) push(e *entry[E]) {
	r.slots[e.seq%uint64(len(r.slots))].Store(e)
	r.next = e.seq + 1
	r.bytes += e.size
}

// after returns the sequence number of the first event above the revision;
// next when there is none.
func (r *ring[E]) after(revision uint64) uint64 {
	n := sort.Search(int(r.next-r.first), func(i int) bool {
		return r.get(r.first+uint64(i)).revision > revision
	})
	return r.first + uint64(n)
}

package fanout

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Defaults of Limits.
const (
	DefaultEvents  = 4096
	DefaultBytes   = 64 << 20
	DefaultPending = 1024
)

// Limits bounds the memory of a Hub. A field that is zero or negative means
// its default.
type Limits struct {
	// Events is how many events the ring holds; default 4096.
	Events int
	// Bytes is how much the events in the ring may weigh, as told to Publish;
	// default 64 MiB. One event above it is held alone until the next one.
	Bytes int64
	// Pending is how many events may wait for one subscription before it is
	// lagged; default 1024, and never more than Events. A subscription with
	// that many waiting weighs up to 16 bytes for each; a lagged one nothing.
	Pending int
}

func (l Limits) withDefaults() Limits {
	if l.Events <= 0 {
		l.Events = DefaultEvents
	}
	if l.Bytes <= 0 {
		l.Bytes = DefaultBytes
	}
	if l.Pending <= 0 {
		l.Pending = DefaultPending
	}
	l.Pending = min(l.Pending, l.Events)
	return l
}

// Stats describes a Hub at one moment.
type Stats struct {
	// Subscriptions that are not closed.
	Subscriptions int
	// Lagged counts how often a subscription was lagged since New.
	Lagged uint64
	// Events and Bytes are what the ring holds.
	Events int
	Bytes  int64
	// Revision is the last one published.
	Revision uint64
}

// Hub hands the events of one publisher to many subscriptions. All methods are
// safe for concurrent use.
type Hub[E any] struct {
	limits Limits
	lagged atomic.Uint64
	// published is the last revision that every subscription has been offered.
	published atomic.Uint64

	// mu orders all that decides who gets what: Publish, Subscribe, Resume,
	// SetTopics, Reset and Close. Reading an event does not take it, so readers
	// go on while a publisher is inside its before. Taken before a
	// subscription's lock, never after.
	mu     sync.Mutex
	ring   ring[E]
	topics map[string][]*Subscription[E]
	subs   map[*Subscription[E]]struct{}
	last   uint64
	closed bool
	// due and ids are Publish's scratch space, empty between calls.
	due []*Subscription[E]
	ids []string
}

// New returns a Hub for the events above the revision after: that of the state
// with which the publisher began (0: from the very first). Whoever subscribes
// from an earlier one is lagged, because the events between never come here.
func New[E any](limits Limits, after uint64) *Hub[E] {
	h := &Hub[E]{
		limits: limits.withDefaults(),
		topics: make(map[string][]*Subscription[E]),
		subs:   make(map[*Subscription[E]]struct{}),
		last:   after,
	}
	h.ring.slots = make([]atomic.Pointer[entry[E]], h.limits.Events)
	h.ring.floor = after
	h.published.Store(after)
	return h
}

// Publish makes the event available to every subscription on any of the topics
// and returns without waiting for a reader. Revisions must strictly increase:
// another one is ErrOrder; after Close it is ErrClosed; in both cases nothing
// was done. size is what value and topics cost in memory, in bytes.
//
// before, when it is not nil and somebody named will get the event, is called
// once with the ids of exactly those, in no order, before any of them can see
// it; nobody can join or leave until Publish is done. It must be quick, must not
// call the Hub or its subscriptions, except for TryNext and Reached, and must not keep
// the slice. When it fails, the subscriptions it was told of are lagged instead
// of getting the event, all others get it, and Publish returns that error,
// wrapped; the event counts as published. Subscriptions without an id are not
// told.
//
// A subscription that gets the event can still be lagged before it reads it.
func (h *Hub[E]) Publish(revision uint64, topics []string, size int, value E, before func(ids []string) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("publish revision %d: %w", revision, ErrClosed)
	}
	if revision <= h.last {
		return fmt.Errorf("publish revision %d after %d: %w", revision, h.last, ErrOrder)
	}
	e := &entry[E]{
		seq:      h.ring.next,
		revision: revision,
		size:     int64(max(size, 0)),
		topics:   slices.Clone(topics),
		value:    value,
	}
	// Room is made first, because it decides who is lagged and so whom before
	// is told of. The event goes into the ring last, so that a before that
	// panics leaves it unpublished.
	h.ring.makeRoom(e.size, h.limits.Bytes)
	defer h.clearScratch()
	h.collect(e)
	var err error
	if before != nil {
		err = h.announce(e, before)
	}
	h.ring.push(e)
	h.last = revision
	for _, s := range h.due {
		s.offer(e, h.ring.first)
	}
	h.published.Store(revision)
	return err
}

// collect fills due with the subscriptions on the event's topics, each once.
func (h *Hub[E]) collect(e *entry[E]) {
	if len(e.topics) == 1 {
		h.due = append(h.due, h.topics[e.topics[0]]...)
		return
	}
	for _, topic := range e.topics {
		for _, s := range h.topics[topic] {
			// Sequence numbers begin at 0, and a new subscription's mark is 0.
			if s.mark == e.seq+1 {
				continue
			}
			s.mark = e.seq + 1
			h.due = append(h.due, s)
		}
	}
}

// announce calls before with the ids of those in due that can take the event.
// When it fails they are lagged.
func (h *Hub[E]) announce(e *entry[E], before func(ids []string) error) error {
	for _, s := range h.due {
		if s.id != "" && s.admits(e, h.ring.first) {
			h.ids = append(h.ids, s.id)
		}
	}
	if len(h.ids) == 0 {
		return nil
	}
	err := before(h.ids)
	if err == nil {
		return nil
	}
	for _, s := range h.due {
		if s.id != "" {
			s.park(e.revision)
		}
	}
	return fmt.Errorf("announce revision %d: %w", e.revision, err)
}

// clearScratch forgets whom the last event went to, so that the scratch space
// does not keep closed subscriptions alive.
func (h *Hub[E]) clearScratch() {
	clear(h.due)
	clear(h.ids)
	h.due, h.ids = h.due[:0], h.ids[:0]
}

// Reset says that the events through the revision were not seen by the
// publisher, as when it had to load a whole state anew. Every subscription that
// is not there yet is lagged, and the ring is emptied. The last published
// revision changes nothing; an earlier one is ErrOrder.
func (h *Hub[E]) Reset(revision uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return fmt.Errorf("reset to revision %d: %w", revision, ErrClosed)
	case revision < h.last:
		return fmt.Errorf("reset to revision %d after %d: %w", revision, h.last, ErrOrder)
	case revision == h.last:
		return nil
	}
	h.ring.clear()
	h.ring.floor, h.last = revision, revision
	for s := range h.subs {
		s.park(revision)
	}
	h.published.Store(revision)
	return nil
}

// Subscribe returns a subscription to the events above the revision after on
// any of the topics: those already published, which are still in the ring, and
// those to come. So a caller that reads the state at a revision and then
// subscribes from it misses nothing and gets nothing twice, however much was
// published in between, and also when the state is ahead of the hub. When too
// much was published in between, the first Next is ErrLagged; on a closed Hub
// it is ErrClosed once nothing is left.
//
// id is what Publish tells its before; the Hub does not mind one used twice.
// The caller closes the subscription.
func (h *Hub[E]) Subscribe(id string, after uint64, topics ...string) *Subscription[E] {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Subscription[E]{
		hub:     h,
		id:      id,
		ready:   make(chan struct{}, 1),
		reached: after,
		ended:   h.closed,
	}
	h.subs[s] = struct{}{}
	h.index(s, topics)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place()
	return s
}

// index enters s under the topics.
func (h *Hub[E]) index(s *Subscription[E], topics []string) {
	s.at = make(map[string]int, len(topics))
	for _, topic := range topics {
		if _, ok := s.at[topic]; ok {
			continue
		}
		s.at[topic] = len(h.topics[topic])
		h.topics[topic] = append(h.topics[topic], s)
	}
}

// unindex removes s from all its topics.
func (h *Hub[E]) unindex(s *Subscription[E]) {
	for topic, i := range s.at {
		list := h.topics[topic]
		end := len(list) - 1
		if end == 0 {
			delete(h.topics, topic)
			continue
		}
		list[i] = list[end]
		list[i].at[topic] = i
		list[end] = nil
		h.topics[topic] = list[:end]
	}
	s.at = nil
}

// Stats returns what the Hub holds now.
func (h *Hub[E]) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{
		Subscriptions: len(h.subs),
		Lagged:        h.lagged.Load(),
		Events:        int(h.ring.next - h.ring.first),
		Bytes:         h.ring.bytes,
		Revision:      h.last,
	}
}

// Close ends publishing. Every subscription still gives out what waits for it,
// and then ErrClosed. A second call does nothing.
func (h *Hub[E]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		s.end()
	}
}

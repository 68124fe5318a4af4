package fanout

import (
	"context"
	"sync"
)

// Event is what a subscription gives out.
type Event[E any] struct {
	Revision uint64
	Value    E
	// Replayed is set when the event was published before Subscribe, Resume or
	// SetTopics put the subscription where it is. Publish's before was not told
	// that this subscription would get it, so a caller that keeps a record of
	// deliveries writes that record itself.
	Replayed bool
}

// Subscription is one reader's place in the events. Next, TryNext, Resume and
// SetTopics are for one goroutine at a time; Close and Reached for any.
type Subscription[E any] struct {
	hub   *Hub[E]
	id    string
	ready chan struct{}

	// These belong to the hub's lock. at holds the position in the hub's list
	// of each topic; mark is one more than the sequence number of the last
	// event of several topics that was collected for this subscription.
	at   map[string]int
	mark uint64

	mu sync.Mutex
	// waiting holds the events to come, all still to be found in the ring or,
	// when the ring dropped them since, the proof that this one is lagged.
	waiting queue
	// live is the first sequence number that Publish offered; those before it
	// were found in the ring by place.
	live uint64
	// reached is a revision through which the reader has everything.
	reached uint64
	lagged  bool
	ended   bool // the hub is closed: nothing will follow
	closed  bool
}

// Next waits for the next event. It returns a *LaggedError, again and again
// until Resume or SetTopics, once the subscription has lost an event; ErrClosed
// after Close, or when the hub is closed and nothing is left; ctx.Err() when ctx
// ends while nothing is there.
func (s *Subscription[E]) Next(ctx context.Context) (Event[E], error) {
	for {
		event, ok, err := s.TryNext()
		if ok || err != nil {
			return event, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return Event[E]{}, ctx.Err()
		}
	}
}

// TryNext is Next for callers that wait for several things: false without an
// error means that nothing is there yet.
func (s *Subscription[E]) TryNext() (Event[E], bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	event, ok, err := s.take()
	if s.waiting.len() > 0 || s.lagged || s.ended || s.closed {
		s.wake() // there is more to give: what Ready promises
	}
	return event, ok, err
}

func (s *Subscription[E]) take() (Event[E], bool, error) {
	var none Event[E]
	if s.closed {
		return none, false, ErrClosed
	}
	if !s.lagged && s.waiting.len() > 0 {
		seq := s.waiting.peek()
		if e := s.hub.ring.get(seq); e != nil {
			s.waiting.pop()
			s.reached = e.revision
			return Event[E]{Revision: e.revision, Value: e.value, Replayed: seq < s.live}, true, nil
		}
		s.lag()
	}
	if s.lagged {
		return none, false, &LaggedError{Reached: s.reached}
	}
	if s.ended {
		return none, false, ErrClosed
	}
	return none, false, nil
}

// Ready returns a channel, always the same and never closed, for callers that
// select: a value comes when TryNext may have an event or an error to give.
// Answer each value with one TryNext; when that leaves more to give, another
// value follows. A value may also come for nothing.
func (s *Subscription[E]) Ready() <-chan struct{} { return s.ready }

// Reached returns the revision through which Next has returned every event of
// the topics. It grows while nothing of interest is published, and so is what a
// heartbeat may claim once the last event has been passed on.
func (s *Subscription[E]) Reached() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.through()
}

// Resume goes on after the caller has caught up with the state through the
// revision after: what Next returns from here on are the events above it. An
// after below what the subscription has reached anyway means the latter. If
// events above it have left the ring, or more of them wait than may, Next is
// ErrLagged again. On a closed subscription it does nothing.
func (s *Subscription[E]) Resume(after uint64) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.reached = max(s.reached, after)
	s.place()
}

// SetTopics replaces the topics and goes on as Resume does, for a caller that
// has read the state of the new topics at the revision after. Events of the old
// topics that wait and are not above it are dropped: that state covers them.
// When Next has already returned an event above after, ErrLagged follows,
// because the new topics may have had events in between.
func (s *Subscription[E]) SetTopics(after uint64, topics ...string) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.hub.unindex(s)
	s.hub.index(s, topics)
	early := after < s.reached
	s.reached = after
	s.place()
	if early && !s.lagged {
		s.lagAt(after)
	}
}

// Close ends the subscription and forgets what waits for it. It returns when no
// Publish will name it any more. A second call does nothing.
func (s *Subscription[E]) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	delete(s.hub.subs, s)
	s.hub.unindex(s)
	s.closed = true
	s.waiting = queue{}
	s.wake()
}

// offer makes the event wait here, unless it is not wanted or is too much.
// first is the oldest event in the ring. Needs the hub's lock.
func (s *Subscription[E]) offer(e *entry[E], first uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admit(e, first) {
		s.waiting.push(e.seq)
		s.wake()
	}
}

// admits tells whether offer would take the event. What it answers holds until
// the hub's lock is released: readers only ever make room.
func (s *Subscription[E]) admits(e *entry[E], first uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admit(e, first)
}

func (s *Subscription[E]) admit(e *entry[E], first uint64) bool {
	if s.lagged || e.revision <= s.reached {
		return false
	}
	n := s.waiting.len()
	if n >= s.hub.limits.Pending || n > 0 && s.waiting.peek() < first {
		s.lag()
		return false
	}
	return true
}

// park lags s unless it is there, or is beyond the revision. Needs the hub's
// lock.
func (s *Subscription[E]) park(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lagged && s.reached < revision {
		s.lag()
	}
}

// end says that the hub is closed.
func (s *Subscription[E]) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wake()
}

// place makes s wait for what the ring has above s.reached. Needs both locks.
func (s *Subscription[E]) place() {
	r := &s.hub.ring
	s.lagged = false
	s.waiting = queue{}
	s.live = r.next
	if s.reached < r.floor {
		s.lagAt(s.reached)
		return
	}
	for seq := r.after(s.reached); seq < r.next; seq++ {
		if !s.wants(r.get(seq).topics) {
			continue
		}
		if s.waiting.len() == s.hub.limits.Pending {
			s.lagAt(s.reached)
			return
		}
		s.waiting.push(seq)
	}
	if s.waiting.len() > 0 || s.ended {
		s.wake()
	}
}

func (s *Subscription[E]) wants(topics []string) bool {
	for _, topic := range topics {
		if _, ok := s.at[topic]; ok {
			return true
		}
	}
	return false
}

// through is a revision through which the reader has everything: with nothing
// waiting, all that every subscription has been offered.
func (s *Subscription[E]) through() uint64 {
	if s.lagged || s.closed || s.waiting.len() > 0 {
		return s.reached
	}
	return max(s.reached, s.hub.published.Load())
}

// lag marks s as having lost an event that was not published before now.
func (s *Subscription[E]) lag() { s.lagAt(s.through()) }

func (s *Subscription[E]) lagAt(reached uint64) {
	s.reached = reached
	s.lagged = true
	// Nothing that waits is of use: the state covers it.
	s.waiting = queue{}
	s.hub.lagged.Add(1)
	s.wake()
}

// wake leaves a value in ready, unless one is there.
func (s *Subscription[E]) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

package fanout

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// The reference is what the package promises, said as plainly as possible:
// it keeps every event and every subscription's whole list, and finds out by
// looking through all of them.

type refEvent struct {
	revision uint64
	topics   []string
	size     int64
}

type refHub struct {
	limits Limits
	events []refEvent
	held   int // events[held:] are in the ring
	floor  uint64
	last   uint64
	closed bool
}

type refSub struct {
	id      string
	topics  []string
	waiting []refEvent
	replays int // how many at the head of waiting are replayed
	reached uint64
	lagged  bool
	closed  bool
}

func (e refEvent) on(topics []string) bool {
	return slices.ContainsFunc(e.topics, func(t string) bool { return slices.Contains(topics, t) })
}

// keep drops the oldest events until count and bytes fit; the newest stays.
func (h *refHub) keep(ring []refEvent) {
	var bytes int64
	for _, e := range ring {
		bytes += e.size
	}
	for len(ring) > h.limits.Events || len(ring) > 1 && bytes > h.limits.Bytes {
		bytes -= ring[0].size
		h.floor = ring[0].revision
		h.held++
		ring = ring[1:]
	}
}

func (s *refSub) through(h *refHub) uint64 {
	if s.lagged || s.closed || len(s.waiting) > 0 {
		return s.reached
	}
	return max(s.reached, h.last)
}

func (s *refSub) lag(h *refHub) {
	s.reached = s.through(h)
	s.lagged, s.waiting, s.replays = true, nil, 0
}

func (s *refSub) place(h *refHub) {
	s.lagged, s.waiting = false, nil
	for _, e := range h.events[h.held:] {
		if e.revision > s.reached && e.on(s.topics) {
			s.waiting = append(s.waiting, e)
		}
	}
	s.replays = len(s.waiting)
	if s.reached < h.floor || len(s.waiting) > h.limits.Pending {
		s.lagged, s.waiting, s.replays = true, nil, 0
	}
}

// overtaken lags s when something that it waits for is in the ring no more.
func (s *refSub) overtaken(h *refHub) {
	if len(s.waiting) > 0 && s.waiting[0].revision <= h.floor {
		s.lag(h)
	}
}

// TestModel runs random schedules against the reference and compares every
// answer: events, errors with the revision reached, whom before is told of,
// what Reached says.
func TestModel(t *testing.T) {
	seeds := 3000
	if testing.Short() {
		seeds = 300
	}
	seen := map[string]int{}
	for seed := range uint64(seeds) {
		if !t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { modelSchedule(t, seed, seen) }) {
			return // one counterexample says enough
		}
	}
	// A schedule that never gets anywhere would agree with any reference.
	for _, what := range []string{"event", "replayed event", "lagged", "nothing", "closed", "told", "before failed", "order"} {
		if seen[what] < seeds {
			t.Errorf("%q happened only %d times", what, seen[what])
		}
	}
}

func modelSchedule(t *testing.T, seed uint64, seen map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	limits := Limits{Events: 1 + rng.IntN(12), Bytes: 20 + rng.Int64N(80), Pending: 1 + rng.IntN(6)}
	limits.Pending = min(limits.Pending, limits.Events)
	start := rng.Uint64N(3)
	h, ref := New[uint64](limits, start), &refHub{limits: limits, floor: start, last: start}
	type pair struct {
		real *Subscription[uint64]
		ref  *refSub
	}
	var subs []pair
	topics := func() []string {
		all := []string{"a", "b", "c", "d"}
		list := make([]string, rng.IntN(4))
		for i := range list {
			list[i] = all[rng.IntN(len(all))]
		}
		return list
	}
	near := func() uint64 { // around the last revision, more often behind it
		return max(ref.last+4, 16) - rng.Uint64N(16)
	}
	failed := errors.New("not on record")

	for step := range 200 {
		switch op := rng.IntN(100); {
		case op < 35: // publish
			e := refEvent{revision: ref.last + 1 + rng.Uint64N(3), topics: topics(), size: rng.Int64N(30)}
			if rng.IntN(10) == 0 {
				e.revision = ref.last - rng.Uint64N(ref.last+1)
			}
			var want, got []string
			var before func([]string) error
			mode := rng.IntN(4)
			if mode > 0 {
				before = func(ids []string) error {
					got = slices.Sorted(slices.Values(ids))
					if mode == 1 {
						return failed
					}
					return nil
				}
			}
			err := h.Publish(e.revision, e.topics, int(e.size), e.revision, before)
			if ref.closed {
				check(t, step, "Publish", errors.Is(err, ErrClosed), true)
				break
			}
			if e.revision <= ref.last {
				seen["order"]++
				check(t, step, "Publish", errors.Is(err, ErrOrder), true)
				break
			}
			ref.events = append(ref.events, e)
			ref.keep(ref.events[ref.held:])
			for _, s := range subs {
				if s.ref.closed || s.ref.lagged {
					continue
				}
				s.ref.overtaken(ref)
				if s.ref.lagged || e.revision <= s.ref.reached || !e.on(s.ref.topics) {
					continue
				}
				if len(s.ref.waiting) == limits.Pending {
					s.ref.lag(ref)
					continue
				}
				if mode > 0 && s.ref.id != "" {
					want = append(want, s.ref.id)
					if mode == 1 {
						s.ref.lag(ref)
						continue
					}
				}
				s.ref.waiting = append(s.ref.waiting, e)
			}
			ref.last = e.revision
			slices.Sort(want)
			check(t, step, "told", fmt.Sprint(got), fmt.Sprint(want))
			check(t, step, "Publish failed", errors.Is(err, failed), mode == 1 && want != nil)
			if want != nil {
				seen["told"]++
			}
			if err != nil {
				seen["before failed"]++
			}
		case op < 80: // read
			if len(subs) == 0 {
				break
			}
			s := subs[rng.IntN(len(subs))]
			event, ok, err := s.real.TryNext()
			got, want := fmt.Sprint(event, ok, err), ""
			switch {
			case s.ref.closed, ref.closed && !s.ref.lagged && len(s.ref.waiting) == 0:
				seen["closed"]++
				want = fmt.Sprint(Event[uint64]{}, false, ErrClosed)
			case s.ref.lagged:
				seen["lagged"]++
				want = fmt.Sprint(Event[uint64]{}, false, &LaggedError{Reached: s.ref.reached})
			case len(s.ref.waiting) == 0:
				seen["nothing"]++
				want = fmt.Sprint(Event[uint64]{}, false, nil)
			default:
				e := s.ref.waiting[0]
				replayed := s.ref.replays > 0
				seen["event"]++
				if replayed {
					seen["replayed event"]++
					s.ref.replays--
				}
				s.ref.waiting, s.ref.reached = s.ref.waiting[1:], e.revision
				want = fmt.Sprint(Event[uint64]{e.revision, e.revision, replayed}, true, nil)
			}
			check(t, step, "TryNext", got, want)
		case op < 86: // subscribe
			s := &refSub{id: fmt.Sprint("s", len(subs)), topics: topics(), reached: near()}
			if rng.IntN(3) == 0 {
				s.id = ""
			}
			s.place(ref)
			subs = append(subs, pair{h.Subscribe(s.id, s.reached, s.topics...), s})
		case op < 91: // resume
			if len(subs) == 0 {
				break
			}
			s, after := subs[rng.IntN(len(subs))], near()
			s.real.Resume(after)
			if !s.ref.closed {
				s.ref.reached = max(s.ref.reached, after)
				s.ref.place(ref)
			}
		case op < 95: // set topics
			if len(subs) == 0 {
				break
			}
			s, after, list := subs[rng.IntN(len(subs))], near(), topics()
			s.real.SetTopics(after, list...)
			if !s.ref.closed {
				early := after < s.ref.reached
				s.ref.topics, s.ref.reached = list, after
				s.ref.place(ref)
				if early {
					s.ref.lagged, s.ref.waiting, s.ref.replays = true, nil, 0
				}
			}
		case op < 97: // close one
			if len(subs) == 0 {
				break
			}
			s := subs[rng.IntN(len(subs))]
			s.real.Close()
			s.ref.closed, s.ref.waiting = true, nil
		case op < 98: // reset
			to := ref.last + rng.Uint64N(5)
			err := h.Reset(to)
			check(t, step, "Reset", err == nil, !ref.closed)
			if ref.closed || to == ref.last {
				break
			}
			for _, s := range subs {
				if !s.ref.closed && !s.ref.lagged && s.ref.reached < to {
					s.ref.lag(ref)
				}
			}
			ref.held, ref.floor, ref.last = len(ref.events), to, to
		case op < 99 && step > 150: // close all
			h.Close()
			ref.closed = true
		default:
			for _, s := range subs {
				if !s.ref.closed {
					check(t, step, "Reached", s.real.Reached(), s.ref.through(ref))
				}
			}
		}
		stats := h.Stats()
		check(t, step, "ring", stats.Events, len(ref.events)-ref.held)
		check(t, step, "revision", stats.Revision, ref.last)
	}
}

func check[T comparable](t *testing.T, step int, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("step %d: %s is %v, want %v", step, what, got, want)
	}
}

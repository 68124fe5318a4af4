package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// publish publishes an event whose value is its revision and that weighs one byte.
func publish(t *testing.T, h *Hub[uint64], revision uint64, topics ...string) {
	t.Helper()
	if err := h.Publish(revision, topics, 1, revision, nil); err != nil {
		t.Fatalf("Publish(%d): %v", revision, err)
	}
}

// drain takes what waits now and returns the revisions.
func drain(t *testing.T, s *Subscription[uint64]) []uint64 {
	t.Helper()
	var got []uint64
	for {
		event, ok, err := s.TryNext()
		if err != nil {
			t.Fatalf("TryNext after %v: %v", got, err)
		}
		if !ok {
			return got
		}
		if event.Value != event.Revision {
			t.Fatalf("revision %d came with the value of %d", event.Revision, event.Value)
		}
		got = append(got, event.Revision)
	}
}

// wantLagged takes one answer, which must be ErrLagged at the revision.
func wantLagged(t *testing.T, s *Subscription[uint64], reached uint64) {
	t.Helper()
	event, ok, err := s.TryNext()
	var lagged *LaggedError
	if !errors.As(err, &lagged) || !errors.Is(err, ErrLagged) || ok {
		t.Fatalf("TryNext = %v, %v, %v; want ErrLagged", event, ok, err)
	}
	if lagged.Reached != reached {
		t.Fatalf("lagged after %d, want %d", lagged.Reached, reached)
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestOrdered(t *testing.T) {
	h := New[uint64](Limits{}, 0)
	s := h.Subscribe("s", 0, "a", "b")
	for _, revision := range []uint64{3, 4, 9, 11} { // gaps mean nothing
		publish(t, h, revision, []string{"a", "b", "other"}[revision%3])
	}
	equal(t, "events", drain(t, s), []uint64{3, 4, 9})

	for _, revision := range []uint64{0, 3, 11} {
		err := h.Publish(revision, []string{"a"}, 1, revision, func([]string) error {
			t.Error("before was called for a refused event")
			return nil
		})
		if !errors.Is(err, ErrOrder) {
			t.Errorf("Publish(%d) after 11 = %v, want ErrOrder", revision, err)
		}
	}
	publish(t, h, 12, "b")
	equal(t, "events after the refusals", drain(t, s), []uint64{12})
}

func TestUnique(t *testing.T) {
	h := New[uint64](Limits{}, 0)
	s := h.Subscribe("s", 0, "a", "b", "c", "a")
	publish(t, h, 1, "a", "b", "c")
	publish(t, h, 2, "c", "c", "x", "b")
	publish(t, h, 3, "b", "b")
	equal(t, "events", drain(t, s), []uint64{1, 2, 3})

	again := h.Subscribe("again", 1, "a", "b")
	equal(t, "events found in the ring", drain(t, again), []uint64{2, 3})
	again.Resume(0)
	equal(t, "events after resuming from where it was already beyond", drain(t, again), []uint64(nil))
}

func TestAtomic(t *testing.T) {
	h := New[[]string](Limits{}, 0)
	s := h.Subscribe("s", 0, "b")
	commit := []string{"a=1", "b=1", "c=1"}
	if err := h.Publish(1, []string{"a", "b", "c"}, 9, commit, nil); err != nil {
		t.Fatal(err)
	}
	event, ok, err := s.TryNext()
	if !ok || err != nil {
		t.Fatalf("TryNext = %v, %v", ok, err)
	}
	equal(t, "commit", event, Event[[]string]{Revision: 1, Value: commit})
	if event, ok, err := s.TryNext(); ok || err != nil {
		t.Errorf("a second answer for one commit: %v, %v", event, err)
	}
}

// TestReliable holds each way to lose an event against ErrLagged. That there
// are no others is what TestModel and TestSeam are for.
func TestReliable(t *testing.T) {
	tests := []struct {
		name    string
		limits  Limits
		lose    func(t *testing.T, h *Hub[uint64])
		reached uint64
	}{
		{"too many wait", Limits{Pending: 3}, func(t *testing.T, h *Hub[uint64]) {
			for r := uint64(2); r <= 5; r++ {
				publish(t, h, r, "a")
			}
		}, 1},
		{"overtaken by others in number", Limits{Events: 3}, func(t *testing.T, h *Hub[uint64]) {
			publish(t, h, 2, "a")
			for r := uint64(3); r <= 5; r++ {
				publish(t, h, r, "other")
			}
		}, 1},
		{"overtaken by others in bytes", Limits{Bytes: 100}, func(t *testing.T, h *Hub[uint64]) {
			publish(t, h, 2, "a")
			if err := h.Publish(3, []string{"other"}, 100, 3, nil); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"overtaken, then offered more", Limits{Events: 2}, func(t *testing.T, h *Hub[uint64]) {
			publish(t, h, 2, "a")
			publish(t, h, 3, "other")
			publish(t, h, 4, "other")
			publish(t, h, 5, "a")
		}, 1},
		{"not on record", Limits{}, func(t *testing.T, h *Hub[uint64]) {
			publish(t, h, 2, "other")
			full := errors.New("disk is full")
			err := h.Publish(3, []string{"a"}, 1, 3, func([]string) error { return full })
			if !errors.Is(err, full) {
				t.Errorf("Publish = %v, want the error of before", err)
			}
		}, 2},
		{"not seen by the publisher", Limits{}, func(t *testing.T, h *Hub[uint64]) {
			publish(t, h, 2, "other")
			if err := h.Reset(9); err != nil {
				t.Fatal(err)
			}
		}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := New[uint64](tt.limits, 0)
			s := h.Subscribe("s", 0, "a")
			publish(t, h, 1, "a")
			equal(t, "events before", drain(t, s), []uint64{1})
			tt.lose(t, h)
			wantLagged(t, s, tt.reached)
			wantLagged(t, s, tt.reached) // until it resumes
			equal(t, "lagged", h.Stats().Lagged, uint64(1))
		})
	}
}

func TestLaggedThenResume(t *testing.T) {
	h := New[uint64](Limits{Events: 8, Pending: 2}, 0)
	s := h.Subscribe("s", 0, "a")
	for r := uint64(1); r <= 5; r++ {
		publish(t, h, r, "a")
	}
	wantLagged(t, s, 0)
	s.Resume(2) // three wait above it, two may
	wantLagged(t, s, 2)
	s.Resume(4)
	publish(t, h, 6, "a")
	equal(t, "events", drain(t, s), []uint64{5, 6})
	for r := uint64(7); r <= 20; r++ {
		publish(t, h, r, "other")
	}
	s.Resume(11) // 12 has left the ring
	wantLagged(t, s, 11)
	s.Resume(12)
	publish(t, h, 21, "a")
	equal(t, "events", drain(t, s), []uint64{21})
	s.Resume(30) // the state is ahead of the hub
	publish(t, h, 30, "a")
	publish(t, h, 31, "a")
	equal(t, "events", drain(t, s), []uint64{31})
}

func TestEventAboveTheByteBound(t *testing.T) {
	h := New[uint64](Limits{Bytes: 10}, 0)
	quick, slow := h.Subscribe("quick", 0, "a"), h.Subscribe("slow", 0, "a")
	publish(t, h, 1, "a")
	equal(t, "quick", drain(t, quick), []uint64{1})
	if err := h.Publish(2, []string{"a"}, 1000, 2, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, "quick", drain(t, quick), []uint64{2})
	wantLagged(t, slow, 0)
	equal(t, "stats", h.Stats(), Stats{Subscriptions: 2, Lagged: 1, Events: 1, Bytes: 1000, Revision: 2})
	slow.Resume(2)
	publish(t, h, 3, "a")
	equal(t, "slow", drain(t, slow), []uint64{3})
	equal(t, "stats", h.Stats(), Stats{Subscriptions: 2, Lagged: 1, Events: 1, Bytes: 1, Revision: 3})
}

func TestSubscribePositions(t *testing.T) {
	h := New[uint64](Limits{Events: 4}, 10)
	for r := uint64(11); r <= 16; r++ { // 11 and 12 leave the ring
		publish(t, h, r, "a")
	}
	tests := []struct {
		after  uint64
		want   []uint64
		lagged bool
	}{
		{after: 0, lagged: true},
		{after: 11, lagged: true},
		{after: 12, want: []uint64{13, 14, 15, 16}},
		{after: 15, want: []uint64{16}},
		{after: 16},
		{after: 20},
	}
	for _, tt := range tests {
		s := h.Subscribe("s", tt.after, "a")
		if tt.lagged {
			wantLagged(t, s, tt.after)
		} else {
			equal(t, fmt.Sprint("events after ", tt.after), drain(t, s), tt.want)
		}
		s.Close()
	}
	t.Run("from before the hub began", func(t *testing.T) {
		h := New[uint64](Limits{}, 10)
		wantLagged(t, h.Subscribe("s", 9, "a"), 9)
		equal(t, "events", drain(t, h.Subscribe("s", 10, "a")), []uint64(nil))
	})
}

func TestSetTopics(t *testing.T) {
	h := New[uint64](Limits{}, 0)
	s := h.Subscribe("s", 0, "a")
	publish(t, h, 1, "a")
	publish(t, h, 2, "b")
	publish(t, h, 3, "a")
	s.SetTopics(1, "b")
	publish(t, h, 4, "b")
	publish(t, h, 5, "a")
	equal(t, "events of the new topic", drain(t, s), []uint64{2, 4})

	// b's events up to 4 are there, c's above 3 are not known.
	s.SetTopics(3, "b", "c")
	wantLagged(t, s, 3)
	s.SetTopics(5)
	publish(t, h, 6, "a", "b", "c")
	equal(t, "events without topics", drain(t, s), []uint64(nil))
	equal(t, "reached", s.Reached(), uint64(6))
	s.Close()
	if len(h.topics) != 0 {
		t.Errorf("index still has %v", h.topics)
	}
}

func TestReset(t *testing.T) {
	h := New[uint64](Limits{}, 0)
	publish(t, h, 5, "a")
	ahead := h.Subscribe("ahead", 9, "a")
	if err := h.Reset(4); !errors.Is(err, ErrOrder) {
		t.Errorf("Reset(4) after 5 = %v, want ErrOrder", err)
	}
	if err := h.Reset(5); err != nil || h.Stats().Events != 1 {
		t.Errorf("Reset to the last revision = %v and left %d events, want 1", err, h.Stats().Events)
	}
	if err := h.Reset(9); err != nil {
		t.Fatal(err)
	}
	equal(t, "stats", h.Stats(), Stats{Subscriptions: 1, Revision: 9})
	wantLagged(t, h.Subscribe("s", 8, "a"), 8)
	publish(t, h, 10, "a")
	equal(t, "one that was ahead", drain(t, ahead), []uint64{10})
}

// TestNeverBlocksThePublisher runs in a bubble: a publisher that waited for the
// reader that never reads would be a deadlock there.
func TestNeverBlocksThePublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events, size = 100_000, 1 << 10
		h := New[[]byte](Limits{Events: 2048, Bytes: 1 << 20, Pending: 1024}, 0)
		stuck := h.Subscribe("stuck", 0, "a")
		quick := h.Subscribe("quick", 0, "a")
		received := make(chan int, 1)
		go func() {
			n := 0
			for {
				event, err := quick.Next(t.Context())
				if errors.Is(err, ErrClosed) {
					received <- n
					return
				}
				if n++; err != nil || event.Revision != uint64(n) {
					t.Errorf("neighbour's event %d: %d, %v", n, event.Revision, err)
					received <- n
					return
				}
			}
		}()
		before := heap()
		for r := 1; r <= events; r++ {
			if err := h.Publish(uint64(r), []string{"a"}, size, make([]byte, size), nil); err != nil {
				t.Fatal(err)
			}
			if r%500 == 0 {
				synctest.Wait() // the neighbour keeps up
			}
		}
		stats := h.Stats()
		if stats.Events > 2048 || stats.Bytes > 1<<20 {
			t.Errorf("ring is above its bounds: %+v", stats)
		}
		// 1 MiB is the ring's. All events would be 100 MiB, and those that a
		// stuck reader may have waiting another one.
		if grown := heap() - before; grown > 4<<20 {
			t.Errorf("heap grew by %d KiB", grown>>10)
		}
		h.Close()
		if n := <-received; n != events {
			t.Errorf("neighbour got %d events, want %d", n, events)
		}
		if _, _, err := stuck.TryNext(); !errors.Is(err, ErrLagged) {
			t.Errorf("stuck reader got %v, want ErrLagged", err)
		}
	})
}

// TestStuckSubscriptionPinsNothing: a reader with events waiting, which the
// ring has dropped since, keeps none of them.
func TestStuckSubscriptionPinsNothing(t *testing.T) {
	const size = 1 << 20
	h := New[[]byte](Limits{Events: 4}, 0)
	stuck := h.Subscribe("stuck", 0, "a")
	before := heap()
	for r := uint64(1); r <= 64; r++ {
		topic := "other"
		if r <= 4 {
			topic = "a"
		}
		if err := h.Publish(r, []string{topic}, size, make([]byte, size), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Reset(100); err != nil { // nothing is left in the ring
		t.Fatal(err)
	}
	if grown := heap() - before; grown > size/2 {
		t.Errorf("heap grew by %d KiB", grown>>10)
	}
	if _, _, err := stuck.TryNext(); !errors.Is(err, ErrLagged) {
		t.Errorf("stuck reader got %v, want ErrLagged", err)
	}
	runtime.KeepAlive(h)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New[uint64](Limits{}, 0)
		s := h.Subscribe("s", 0, "a")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("Next = %v after %v, want the deadline after a minute", err, time.Since(start))
		}

		answers := make(chan error, 1)
		next := func() { _, err := s.Next(t.Context()); answers <- err }
		stillWaits := func(what string) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-answers:
				t.Fatalf("Next returned %v %s", err, what)
			default:
			}
		}
		go next()
		publish(t, h, 1, "other")
		stillWaits("for another topic")
		publish(t, h, 2, "a")
		if err := <-answers; err != nil {
			t.Errorf("Next = %v after its event", err)
		}
		go next()
		stillWaits("before anything was there")
		if err := h.Reset(9); err != nil {
			t.Fatal(err)
		}
		if err := <-answers; !errors.Is(err, ErrLagged) {
			t.Errorf("Next = %v after a reset, want ErrLagged", err)
		}
		s.Resume(9)
		go next()
		stillWaits("after Resume")
		s.Close()
		if err := <-answers; !errors.Is(err, ErrClosed) {
			t.Errorf("Next = %v after Close, want ErrClosed", err)
		}
	})
}

// TestReady reads by the rule in Ready's comment: one TryNext for each value.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New[uint64](Limits{Pending: 8}, 0)
		publish(t, h, 1, "a")
		s := h.Subscribe("s", 0, "a")
		var got []uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range s.Ready() {
				event, ok, err := s.TryNext()
				switch {
				case errors.Is(err, ErrClosed):
					return
				case errors.Is(err, ErrLagged):
					s.Resume(100)
				case ok:
					got = append(got, event.Revision)
				}
			}
		}()
		synctest.Wait()
		equal(t, "events found in the ring", got, []uint64{1})
		publish(t, h, 2, "a")
		publish(t, h, 3, "a")
		publish(t, h, 4, "a")
		synctest.Wait()
		if err := h.Reset(100); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		publish(t, h, 101, "a")
		publish(t, h, 102, "a")
		h.Close()
		<-done
		equal(t, "events", got, []uint64{1, 2, 3, 4, 101, 102})
	})
}

func TestClose(t *testing.T) {
	t.Run("subscription", func(t *testing.T) {
		h := New[uint64](Limits{}, 0)
		gone, stays := h.Subscribe("gone", 0, "a", "b"), h.Subscribe("stays", 0, "b", "a")
		publish(t, h, 1, "a")
		gone.Close()
		gone.Close()
		gone.Resume(0)
		gone.SetTopics(0, "a")
		publish(t, h, 2, "a", "b")
		if event, ok, err := gone.TryNext(); ok || !errors.Is(err, ErrClosed) {
			t.Errorf("TryNext = %v, %v, %v; want ErrClosed", event, ok, err)
		}
		equal(t, "neighbour", drain(t, stays), []uint64{1, 2})
		equal(t, "subscriptions", h.Stats().Subscriptions, 1)
		stays.Close()
		equal(t, "subscriptions", h.Stats().Subscriptions, 0)
		if len(h.topics) != 0 {
			t.Errorf("index still has %v", h.topics)
		}
	})
	t.Run("hub", func(t *testing.T) {
		h := New[uint64](Limits{}, 0)
		s := h.Subscribe("s", 0, "a")
		publish(t, h, 1, "a")
		publish(t, h, 2, "a")
		h.Close()
		h.Close()
		if err := h.Publish(3, []string{"a"}, 1, 3, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Publish = %v, want ErrClosed", err)
		}
		if err := h.Reset(3); !errors.Is(err, ErrClosed) {
			t.Errorf("Reset = %v, want ErrClosed", err)
		}
		for _, s := range []*Subscription[uint64]{s, h.Subscribe("late", 0, "a")} {
			for want := uint64(1); want <= 2; want++ {
				if event, err := s.Next(t.Context()); err != nil || event.Revision != want {
					t.Fatalf("Next = %v, %v; want what was waiting", event, err)
				}
			}
			if _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("Next = %v, want ErrClosed", err)
			}
			s.Close()
		}
	})
}

// TestBefore: before is told of exactly those that get the event, once, and
// before any of them has it.
func TestBefore(t *testing.T) {
	h := New[uint64](Limits{Pending: 2}, 0)
	subs := map[string]*Subscription[uint64]{}
	for id, topics := range map[string][]string{
		"one": {"a"}, "both": {"a", "b"}, "other": {"c"}, "full": {"a", "b"}, "ahead": {"a"}, "closed": {"a"}, "": {"a"},
	} {
		after := uint64(0)
		if id == "ahead" {
			after = 3
		}
		subs[id] = h.Subscribe(id, after, topics...)
	}
	subs["closed"].Close()
	publish(t, h, 1, "b")
	publish(t, h, 2, "b")
	equal(t, "both", drain(t, subs["both"]), []uint64{1, 2})

	var told []string
	check := func(ids []string) error {
		told = slices.Sorted(slices.Values(ids))
		for id, s := range subs {
			if event, ok, _ := s.TryNext(); ok && event.Revision >= 3 {
				t.Errorf("%q has %d already", id, event.Revision)
			}
		}
		return nil
	}
	if err := h.Publish(3, []string{"a", "b"}, 1, 3, check); err != nil {
		t.Fatal(err)
	}
	equal(t, "told", told, []string{"both", "one"})
	for _, id := range []string{"both", "one", ""} {
		equal(t, "events of "+id, drain(t, subs[id]), []uint64{3})
	}
	wantLagged(t, subs["full"], 0)
	for _, id := range []string{"ahead", "other"} {
		equal(t, "events of "+id, drain(t, subs[id]), []uint64(nil))
	}

	t.Run("is not called for nobody", func(t *testing.T) {
		for i, topic := range []string{"nobody's", "a"} {
			h := New[uint64](Limits{}, 0)
			h.Subscribe("", 0, "a")
			err := h.Publish(1, []string{topic}, 1, 1, func(ids []string) error {
				t.Errorf("case %d: called with %v", i, ids)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("fails", func(t *testing.T) {
		h := New[uint64](Limits{}, 0)
		told, untold := h.Subscribe("told", 0, "a"), h.Subscribe("", 0, "a")
		full := errors.New("disk is full")
		if err := h.Publish(1, []string{"a"}, 1, 1, func([]string) error { return full }); !errors.Is(err, full) {
			t.Errorf("Publish = %v, want the error of before", err)
		}
		equal(t, "events of one that is not told of", drain(t, untold), []uint64{1})
		wantLagged(t, told, 0)
		told.Resume(0)
		event, ok, err := told.TryNext()
		if !ok || err != nil {
			t.Fatalf("TryNext = %v, %v", ok, err)
		}
		equal(t, "event after Resume", event, Event[uint64]{Revision: 1, Value: 1, Replayed: true})
	})

	t.Run("panics", func(t *testing.T) {
		h := New[uint64](Limits{}, 0)
		s := h.Subscribe("s", 0, "a")
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = h.Publish(1, []string{"a"}, 1, 1, func([]string) error { panic("before") })
		}()
		equal(t, "events of an unpublished revision", drain(t, s), []uint64(nil))
		equal(t, "reached", s.Reached(), uint64(0))
		publish(t, h, 1, "a")
		equal(t, "events", drain(t, s), []uint64{1})
	})
}

// TestBeforeDelaysNoReader: while a publisher is inside its before, others read
// what was there.
func TestBeforeDelaysNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New[uint64](Limits{}, 0)
		s := h.Subscribe("s", 0, "a")
		publish(t, h, 1, "a")
		inside, leave, done := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			done <- h.Publish(2, []string{"a"}, 1, 2, func([]string) error {
				close(inside)
				<-leave
				return nil
			})
		}()
		<-inside
		equal(t, "events while before runs", drain(t, s), []uint64{1})
		equal(t, "reached while before runs", s.Reached(), uint64(1))
		close(leave)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		equal(t, "events", drain(t, s), []uint64{2})
	})
}

func TestReplayed(t *testing.T) {
	h := New[uint64](Limits{}, 0)
	publish(t, h, 1, "a")
	s := h.Subscribe("s", 0, "a")
	publish(t, h, 2, "a")
	for _, want := range []Event[uint64]{{1, 1, true}, {2, 2, false}} {
		got, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "event", got, want)
	}
}

func TestReached(t *testing.T) {
	h := New[uint64](Limits{}, 3)
	s := h.Subscribe("s", 3, "a")
	equal(t, "at the start", s.Reached(), uint64(3))
	publish(t, h, 4, "other")
	equal(t, "after another's event", s.Reached(), uint64(4))
	publish(t, h, 5, "a")
	publish(t, h, 6, "other")
	if got := s.Reached(); got >= 5 {
		t.Errorf("reached %d while 5 waits", got)
	}
	equal(t, "events", drain(t, s), []uint64{5})
	equal(t, "after its event", s.Reached(), uint64(6))
	if again := h.Subscribe("again", s.Reached(), "a"); len(drain(t, again)) != 0 {
		t.Error("one that goes on from there gets something twice")
	}
}

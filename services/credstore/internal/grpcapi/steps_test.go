package grpcapi

import (
	"context"
	"errors"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func TestAdmitWhileDraining(t *testing.T) {
	s := &Server{cfg: Config{Limits: Limits{}.withDefaults()}}
	served := 0
	h := s.admit(func(context.Context, *call) error { served++; return nil })
	closed, open := &call{method: &method{}}, &call{method: &method{open: true}}
	if err := h(t.Context(), closed); err != nil {
		t.Fatal(err)
	}
	s.draining.Store(true)
	if err := h(t.Context(), closed); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("a call while draining: %v", err)
	}
	// A load balancer still learns that the server is going.
	if err := h(t.Context(), open); err != nil || served != 2 {
		t.Errorf("a health check while draining: %v, %d served", err, served)
	}
	if n := s.calls.Load(); n != 0 {
		t.Errorf("%d calls are still counted", n)
	}
}

func TestAdmitBoundsCalls(t *testing.T) {
	s := &Server{cfg: Config{Limits: Limits{Calls: 2, Streams: 1}}}
	var depth int
	var h handler
	h = s.admit(func(ctx context.Context, c *call) error {
		if depth++; depth > 10 {
			return nil
		}
		return h(ctx, c) // one call within another
	})
	if err := h(t.Context(), &call{method: &method{}}); !errors.Is(err, errOverloaded) || depth != 2 {
		t.Errorf("got %v at depth %d, want 2", err, depth)
	}
}

// One project, or one token of all projects, has half of the places.
func TestSharesOfCalls(t *testing.T) {
	s := newShares(5)
	alice, bob := &core.Principal{TokenUID: "t1", ProjectUID: "p1"}, &core.Principal{TokenUID: "t2", ProjectUID: "p1"}
	other, admin := &core.Principal{TokenUID: "t3", ProjectUID: "p2"}, &core.Principal{TokenUID: "t4", ProjectUID: "p1", AllProjects: true}
	var releases []func()
	for i, step := range []struct {
		p  *core.Principal
		ok bool
	}{{alice, true}, {bob, true}, {alice, false}, {bob, false}, {other, true}, {admin, true}, {admin, true}, {admin, false}} {
		release, err := s.take(step.p)
		if (err == nil) != step.ok || err != nil && !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("step %d: %v", i, err)
		}
		if release != nil {
			releases = append(releases, release)
		}
	}
	releases[0]()
	if release, err := s.take(bob); err != nil {
		t.Errorf("after one has ended: %v", err)
	} else {
		release()
	}
	for _, release := range releases[1:] {
		release()
	}
	if len(s.of) != 0 {
		t.Errorf("counted after all have ended: %v", s.of)
	}
	if release, err := newShares(1).take(alice); err != nil {
		t.Errorf("one place is nobody's: %v", err)
	} else {
		release()
	}
}

// Streams have places of their own: a project may have as many as there are.
func TestThrottleBoundsAProject(t *testing.T) {
	s := &Server{shares: newShares(2)}
	ctx := core.WithPrincipal(t.Context(), &core.Principal{TokenUID: "t1", ProjectUID: "p1"})
	for _, stream := range []bool{false, true} {
		depth := 0
		var h handler
		h = s.throttle(func(ctx context.Context, c *call) error {
			if depth++; depth == 3 {
				return nil
			}
			return h(ctx, c) // one call within another
		})
		err := h(ctx, &call{method: &method{stream: stream}})
		if stream && (err != nil || depth != 3) || !stream && (!errors.Is(err, errShareTaken) || depth != 1) {
			t.Errorf("stream %t: %v at depth %d", stream, err, depth)
		}
		if len(s.shares.of) != 0 {
			t.Errorf("stream %t: still counted", stream)
		}
	}
}

// closedSet fails the test when a report reaches it after Close.
type closedSet struct {
	t      *testing.T
	got    int
	closed bool
}

func (s *closedSet) Close() { s.closed = true }
func (s *closedSet) Report(core.SetReport) {
	if s.got++; s.closed {
		s.t.Error("a report reached a stream that is closed")
	}
}

func TestReportsEndWithTheStream(t *testing.T) {
	set := &closedSet{t: t}
	sink := &reportSink{set: set}
	sink.report(core.SetReport{})
	sink.close()
	sink.report(core.SetReport{})
	if set.got != 1 || !set.closed {
		t.Errorf("%d reports, closed %v", set.got, set.closed)
	}
}

func TestRatesAreBounded(t *testing.T) {
	r := newRates(1)
	for i := range maxRates + 10 {
		if r.of(string(rune(i))) == nil {
			t.Fatal("no limiter")
		}
	}
	if len(r.byKey) != maxRates || r.order.Len() != maxRates {
		t.Errorf("%d principals are remembered, want %d", len(r.byKey), maxRates)
	}
	if err := newRates(-1).take("anybody", core.Principal{}.ExpireTime); err != nil {
		t.Errorf("no bound: %v", err)
	}
}

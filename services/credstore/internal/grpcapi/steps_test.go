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

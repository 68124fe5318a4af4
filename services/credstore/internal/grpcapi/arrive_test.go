package grpcapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/tap"
)

// TestDeadlines holds what a call and a stream are given when they arrive.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{
			cfg:     Config{Limits: Limits{}.withDefaults()},
			methods: map[string]*method{"/s/Call": {}, "/s/Stream": {stream: true}},
		}
		for _, test := range []struct {
			method       string
			theirs, want time.Duration
		}{
			{"/s/Call", 0, 30 * time.Second},
			{"/s/Call", 10 * time.Second, 10 * time.Second},
			{"/s/Call", 60 * time.Second, 60 * time.Second},
			{"/s/Call", time.Hour, 60 * time.Second},
			{"/s/Unknown", 0, 30 * time.Second},
			{"/s/Stream", 0, 0},
			{"/s/Stream", time.Hour, time.Hour},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			if test.theirs > 0 {
				ctx, cancel = context.WithTimeout(ctx, test.theirs)
			}
			got, err := s.arrive(ctx, &tap.Info{FullMethodName: test.method})
			if err != nil {
				t.Fatal(err)
			}
			deadline, ok := got.Deadline()
			if ok != (test.want > 0) || ok && time.Until(deadline) != test.want {
				t.Errorf("%s, client's deadline %v: %v (%v), want %v", test.method, test.theirs, time.Until(deadline), ok, test.want)
			}
			cancel()
		}

		opened, err := s.arrive(t.Context(), &tap.Info{FullMethodName: "/s/Stream"})
		if err != nil {
			t.Fatal(err)
		}
		silent, err := s.arrive(t.Context(), &tap.Info{FullMethodName: "/s/Stream"})
		if err != nil {
			t.Fatal(err)
		}
		a, _ := opened.Value(arrivalKey{}).(arrival)
		a.opened()
		time.Sleep(time.Hour)
		if opened.Err() != nil {
			t.Error("a stream that was opened was cut")
		}
		if !errors.Is(context.Cause(silent), errNotOpened) {
			t.Errorf("a stream that was never opened: %v", context.Cause(silent))
		}
		a.over()
	})
}

package grpcapi

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// openStreams ends the streams that are open when the server stops.
type openStreams struct {
	mu       sync.Mutex
	streams  map[*openStream]struct{}
	draining bool
}

type openStream struct {
	end   context.CancelCauseFunc
	timer *time.Timer
}

func newOpenStreams() *openStreams {
	return &openStreams{streams: make(map[*openStream]struct{})}
}

// add returns a context that ends with errShuttingDown when the server stops.
// The caller calls release when the stream is over.
func (o *openStreams) add(ctx context.Context) (held context.Context, release func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.draining {
		return nil, nil, errShuttingDown
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &openStream{end: cancel}
	o.streams[s] = struct{}{}
	return ctx, func() { o.remove(s) }, nil
}

func (o *openStreams) remove(s *openStream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.streams, s)
	if s.timer != nil {
		s.timer.Stop()
	}
	s.end(nil)
}

// drain ends every stream within the time, each at a moment of its own, so that
// their clients do not all come to another server at once.
func (o *openStreams) drain(within time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.draining = true
	for s := range o.streams {
		var after time.Duration
		if within > 0 {
			after = rand.N(within) //nolint:gosec // jitter needs no secrecy
		}
		s.timer = time.AfterFunc(after, func() { s.end(errShuttingDown) })
	}
}

// Package redial owns keeping one connection at a time to a server that may be
// away: when to try again, and when a silent connection is dead. It does not
// know what a connection carries.
package redial

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Delays between attempts are drawn from zero to a bound (full jitter, so that a
// fleet does not come back in step), which grows from the first to the second.
const (
	FirstDelay = 100 * time.Millisecond
	MaxDelay   = 30 * time.Second
)

// SilentIntervals is for how many heartbeat intervals a connection may be silent.
const SilentIntervals = 3

// ErrSilent says that a server sent not even a heartbeat.
var ErrSilent = errors.New("the server was silent for 3 heartbeat intervals")

// Run makes one connection after the other until ctx ends. connect makes one,
// calls up when it works, and returns why it ended. ended is told of each
// that did not end because of ctx.
func Run(ctx context.Context, connect func(ctx context.Context, up func()) error, ended func(error)) {
	bound := time.Duration(0)
	for ctx.Err() == nil {
		var since time.Time
		err := connect(ctx, func() { since = time.Now() })
		if ctx.Err() != nil {
			return
		}
		ended(err)
		bound = nextBound(bound, since)
		timer := time.NewTimer(rand.N(bound) + 1) //nolint:gosec // spreads load, hides nothing
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// nextBound returns the bound of the next delay. A connection that lasted longer
// than the bound before it counts as a success; one that did not must not make
// a loop of quick failures.
func nextBound(bound time.Duration, since time.Time) time.Duration {
	if bound == 0 || !since.IsZero() && time.Since(since) > bound {
		return FirstDelay
	}
	return min(MaxDelay, 2*bound)
}

// Watchdog ends a connection that is silent.
type Watchdog struct {
	timer *time.Timer
	after time.Duration
}

// NewWatchdog calls cancel with ErrSilent when SilentIntervals of interval
// pass without a call of Reset. The caller stops it.
func NewWatchdog(cancel context.CancelCauseFunc, interval time.Duration) *Watchdog {
	after := SilentIntervals * interval
	return &Watchdog{timer: time.AfterFunc(after, func() { cancel(ErrSilent) }), after: after}
}

// Reset starts the time anew: something was heard.
func (w *Watchdog) Reset() { w.timer.Reset(w.after) }

// Stop stops it until the next Reset: nobody listens now.
func (w *Watchdog) Stop() { w.timer.Stop() }

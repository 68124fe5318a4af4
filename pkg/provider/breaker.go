package provider

import (
	"errors"
	"sync"
	"time"
)

// breaker keeps calls away from a store that fails. It is closed when last is
// nil. While it is open one call at a time, the probe, is let through each time
// that a pause is over; an answer of any kind closes it.
type breaker struct {
	after    int
	first    time.Duration // the first pause
	most     time.Duration // the longest pause, and the one after a refused login
	random   func() float64
	mu       sync.Mutex
	failures int
	trips    int
	until    time.Time
	probing  bool
	last     *Error
}

// allow returns the remembered error when the call must not be made. Otherwise
// done must be called with the same probe.
func (b *breaker) allow() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		return false, nil
	}
	wait := time.Until(b.until)
	if b.probing || wait > 0 {
		e := *b.last
		e.NotAsked, e.RetryAfter = true, max(wait, b.first)
		return false, &e
	}
	b.probing = true
	return true, nil
}

// done takes what came of a call.
func (b *breaker) done(probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case err != nil && !ok:
		// The caller gave up, which says nothing about the store.
	case ok && (e.LoginLost || errors.Is(e.Kind, ErrUnavailable)):
		b.failures++
		// Calls that were under way when it opened do not prolong the pause.
		if b.last == nil && (e.LoginLost || b.failures >= b.after) || probe {
			b.trip(e)
		}
	default:
		b.failures, b.trips, b.last = 0, 0, nil
	}
}

func (b *breaker) trip(e *Error) {
	pause := b.first
	for range min(b.trips, 32) {
		pause = min(2*pause, b.most)
	}
	if e.LoginLost && errors.Is(e.Kind, ErrRefused) {
		// Stores lock out who tries a wrong login often.
		pause = b.most
	}
	pause = pause/2 + time.Duration(b.random()*float64(pause/2))
	b.trips++
	b.until = time.Now().Add(max(pause, min(e.RetryAfter, b.most)))
	last := *e
	b.last = &last
}

// reset lets calls through again. The first that fails opens the breaker.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last, b.failures = nil, b.after-1
}

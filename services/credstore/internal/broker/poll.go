package broker

import (
	"context"
	"errors"
	"time"

	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// polled is what came of reading one secret.
type polled struct {
	err     error // of the store
	putErr  error // of the commit
	changed bool
	void    bool // the login was replaced, or the server stops
}

// poll reads a secret and commits what it brought.
func (l *loop) poll(g *login, s *secret) {
	s.busy, s.again = true, false
	s.reading, s.waiting = s.waiting, nil
	locator := s.want.Locator
	var p polled
	l.call(g, func(ctx context.Context) { p = l.read(ctx, g, locator) }, func() { l.polled(g, s, p) })
}

func (l *loop) read(ctx context.Context, g *login, locator core.Locator) polled {
	value, err := g.client.Fetch(ctx, provider.Ref{Path: locator.Path, Version: locator.Version})
	if ctx.Err() != nil {
		return polled{void: true}
	}
	p := polled{err: err}
	p.changed, p.putErr = l.store.PutValue(ctx, locator, updateOf(value, err))
	p.void = p.putErr != nil && ctx.Err() != nil
	return p
}

// updateOf returns what the domain is to know of an answer.
func updateOf(value provider.Secret, err error) core.ValueUpdate {
	if err == nil {
		return core.ValueUpdate{Data: value.Values, Version: value.Version, State: core.ValueOK}
	}
	u := core.ValueUpdate{State: core.ValueUnavailable, Message: err.Error()}
	for _, known := range []struct {
		kind  error
		state core.ValueState
	}{
		{provider.ErrRefused, core.ValueRefused},
		{provider.ErrMissing, core.ValueMissing},
		{provider.ErrDeleted, core.ValueDeleted},
		{provider.ErrDestroyed, core.ValueDestroyed},
	} {
		if errors.Is(err, known.kind) {
			u.State = known.state
		}
	}
	return u
}

// polled takes note of a read that has ended.
func (l *loop) polled(g *login, s *secret, p polled) {
	s.busy = false
	readers := s.reading
	s.reading = nil
	if p.void && !s.idle {
		// It is due at once with the new login; who waited goes on waiting.
		s.waiting = append(s.waiting, readers...)
		l.schedule.Set(&s.poll, time.Now())
		return
	}
	for _, r := range readers {
		r.counts.Polled++
		if p.changed {
			r.counts.Changed++
		}
		if p.err != nil || p.putErr != nil {
			r.counts.Failed++
		}
		r.settled()
	}
	if p.void {
		l.forget(s)
		return
	}
	l.tell(g, s, p)
	next := time.Now()
	if !s.again {
		next = next.Add(l.delay(s, p))
	}
	l.schedule.Set(&s.poll, next)
}

// delay returns how long to wait after a read.
func (l *loop) delay(s *secret, p polled) time.Duration {
	interval := s.want.Store.PollInterval
	// spread adds up to the part of d.
	spread := func(d time.Duration, part float64) time.Duration {
		return d + time.Duration(part*l.b.cfg.Random()*float64(d))
	}
	e, failed := errors.AsType[*provider.Error](p.err)
	switch {
	case failed && e.NotAsked && p.putErr == nil:
		// When the store is asked again; the one that comes first asks for all.
		return spread(e.RetryAfter, probeSpread)
	case p.putErr != nil, failed && errors.Is(e, provider.ErrUnavailable), p.err != nil && !failed:
		s.failures++
		retry := firstRetry
		for range min(s.failures-1, 32) {
			retry = min(2*retry, max(interval, minRetryCap))
		}
		retry = retry/2 + time.Duration(l.b.cfg.Random()*float64(retry/2))
		if failed {
			retry = max(retry, min(e.RetryAfter, max(interval, minRetryCap)))
		}
		return retry
	}
	s.failures = 0
	return spread(interval, stretch)
}

// tell counts and logs: a secret when it changes, and a store that cannot be
// reached once for all its secrets.
func (l *loop) tell(g *login, s *secret, p polled) {
	log := l.b.log.With("store", g.store.Name.String())
	unavailable := errors.Is(p.err, provider.ErrUnavailable)
	switch {
	case unavailable && !g.down:
		g.down = true
		log.Warn("a secret store is unavailable; what was fetched from it stays", "error", p.err)
	case p.err == nil && g.down:
		g.down = false
		log.Info("a secret store is available again")
	}
	log = log.With("path", s.want.Locator.Path, "version", s.want.Locator.Version)
	switch {
	case p.putErr != nil:
		l.b.metrics.polls.WithLabelValues("failed").Inc()
		log.Error("cannot store what an external store answered", "error", p.putErr)
	case p.err != nil:
		l.b.metrics.polls.WithLabelValues("failed").Inc()
		if p.changed && !unavailable {
			log.Warn("cannot fetch a secret", "error", p.err)
		}
	case p.changed:
		l.b.metrics.polls.WithLabelValues("changed").Inc()
		log.Info("a secret has changed")
	default:
		l.b.metrics.polls.WithLabelValues("same").Inc()
	}
}

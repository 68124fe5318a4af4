package issuer

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// flying stands for the time of the next call while one is under way.
const flying = math.MaxInt64

// usedStep is how exactly it is known when an entry was last asked for.
const usedStep = 100 * time.Millisecond

// cacheEntry is one token, the call for it, or why there is none.
type cacheEntry struct {
	key     cacheKey
	project string
	uids    []string // of the credentials that it is made with

	held atomic.Pointer[held]
	// used is when it was last asked for, and next when it is to be asked of the
	// vendor again, both in Unix nanoseconds.
	used, next atomic.Int64

	mu     sync.Mutex
	flight *flight // the call that is under way
	// failures are those in a row, and failure is the last of them.
	failures int
	failure  error
	// dropped: nobody finds it any more, and nothing is kept in it.
	dropped bool
}

// held is a token that can be handed out.
type held struct {
	token credential.Token
	life  life
}

// flight is one call for a token, for all who wait. It is not theirs: who gives up
// waiting does not end it.
type flight struct {
	done  chan struct{} // closed when token and err are set
	token credential.Token
	err   error
}

// fresh returns the token if nobody needs to wait for a better one.
func (e *cacheEntry) fresh(now time.Time) (credential.Token, bool) {
	h := e.held.Load()
	if h == nil || !now.Before(h.life.wait) {
		return credential.Token{}, false
	}
	if n := now.UnixNano(); n-e.used.Load() >= int64(usedStep) {
		e.used.Store(n)
	}
	return h.token, true
}

// usable returns the token unless it has ended.
func (e *cacheEntry) usable(now time.Time) (credential.Token, bool) {
	h := e.held.Load()
	if h == nil || !now.Before(h.life.end) {
		return credential.Token{}, false
	}
	return h.token, true
}

// due says whether the vendor is to be asked again. A time that is further away
// than any pause and life was set by a clock that has been set back since, maybe
// after the vendor refused what it made.
func (e *cacheEntry) due(now time.Time) bool {
	next := e.next.Load()
	return now.UnixNano() >= next || next != flying && e.held.Load() == nil && next-now.UnixNano() > int64(retryMost)
}

// useless says whether dropping the entry changes nothing for anybody.
func (e *cacheEntry) useless(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, usable := e.usable(now)
	return !usable && e.flight == nil && e.due(now)
}

// madeWith says whether the entry's login has that version of a credential.
func (e *cacheEntry) madeWith(uid string, version uint32) bool {
	for id := range strings.SplitSeq(e.key.login, " ") {
		if at, n := cutID(id); at == uid && n != version {
			return false
		}
	}
	return true
}

// empty lets go of the token.
func (e *cacheEntry) empty() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped = true
	e.held.Store(nil)
}

// join returns the call that is under way, or starts one; while the vendor is
// left alone, it returns what it answered last.
func (e *cacheEntry) join(c *cache, now time.Time, login credential.Login, request credential.TokenRequest) (*flight, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.flight != nil {
		return e.flight, nil
	}
	if !e.due(now) {
		return nil, e.failure // nil if somebody else has just fetched a token
	}
	f := &flight{done: make(chan struct{})}
	if !c.start(func() { e.fly(c, f, login, request) }) {
		return nil, errStopping
	}
	e.flight = f
	e.next.Store(flying)
	return f, nil
}

// start runs a flight, unless the cache is closed.
func (c *cache) start(fly func()) bool {
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.closed {
		return false
	}
	c.flights.Go(fly)
	return true
}

// fly makes the call and keeps what came of it.
func (e *cacheEntry) fly(c *cache, f *flight, login credential.Login, request credential.TokenRequest) {
	ctx, cancel := context.WithTimeout(c.ctx, flightTime)
	defer cancel()
	start := time.Now()
	token, retryAfter, err := c.ask(ctx, login, request)
	switch {
	case err == nil:
	case c.ctx.Err() != nil:
		err = errStopping
	case ctx.Err() != nil:
		err = errTooSlow
	}
	f.token, f.err = token, err
	if e.land(c, f, start, retryAfter) {
		c.mu.Lock()
		c.drop(e)
		c.mu.Unlock()
	}
	close(f.done)
}

// land ends a flight and says whether nothing of it is to be kept.
func (e *cacheEntry) land(c *cache, f *flight, start time.Time, retryAfter time.Duration) (drop bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flight = nil
	if f.err == nil {
		l, ends := lifeOf(f.token, start, c.random)
		e.failures, e.failure = 0, nil
		if e.dropped || !ends {
			e.next.Store(0) // who still has the entry asks anew
			return true
		}
		e.held.Store(&held{token: f.token, life: l})
		e.next.Store(l.refresh.UnixNano())
		return false
	}
	now := time.Now()
	e.failures++
	e.failure = f.err
	e.next.Store(now.Add(e.pause(c, now, f.err, retryAfter)).UnixNano())
	return e.dropped
}

// pause is how long the vendor is left alone after a failure.
func (e *cacheEntry) pause(c *cache, now time.Time, err error, retryAfter time.Duration) time.Duration {
	h := e.held.Load()
	var pause time.Duration
	switch {
	case h != nil && now.Before(h.life.end):
		// Once it has ended, callers wait for another one.
		pause = min(backoff(e.failures, retryFirst, retryMost, c.random), h.life.end.Sub(now))
	case errors.Is(err, core.ErrUnavailable):
		pause = backoff(e.failures, retryFirst, refusalTime, c.random)
	default:
		pause = refusalTime
	}
	return max(pause, min(retryAfter, retryMost))
}

package grpcapi

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRates is how many principals' rates are remembered; beyond it the one that
// called least recently starts afresh.
const maxRates = 10_000

// rates bounds how often each principal calls.
type rates struct {
	perSecond float64

	mu    sync.Mutex
	byKey map[string]*list.Element // of *rateEntry
	order *list.List               // the one that called last first
}

type rateEntry struct {
	key     string
	limiter *rate.Limiter
}

// newRates returns nil, which bounds nothing, for a rate below 0.
func newRates(perSecond float64) *rates {
	if perSecond < 0 {
		return nil
	}
	return &rates{perSecond: perSecond, byKey: make(map[string]*list.Element), order: list.New()}
}

// take counts a call. Its error is a *limitError.
func (r *rates) take(key string, now time.Time) error {
	if r == nil {
		return nil
	}
	limiter := r.of(key)
	if limiter.AllowN(now, 1) {
		return nil
	}
	wait := time.Duration((1 - limiter.TokensAt(now)) / r.perSecond * float64(time.Second))
	return &limitError{
		reason: ReasonRateLimited, message: "this token makes too many calls: slow down",
		after: max(wait, time.Millisecond),
	}
}

func (r *rates) of(key string) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.byKey[key]
	if !ok {
		if r.order.Len() >= maxRates {
			if oldest, ok := r.order.Remove(r.order.Back()).(*rateEntry); ok {
				delete(r.byKey, oldest.key)
			}
		}
		e = r.order.PushFront(&rateEntry{key: key, limiter: rate.NewLimiter(rate.Limit(r.perSecond), max(int(2*r.perSecond), 1))})
		r.byKey[key] = e
	}
	r.order.MoveToFront(e)
	entry, _ := e.Value.(*rateEntry)
	return entry.limiter
}

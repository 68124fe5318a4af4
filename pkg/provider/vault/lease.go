package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credstore/credstore/pkg/provider"
)

// The operations, as errors and metrics name them.
const (
	opLogin    = "login"
	opRead     = "read"
	opRenew    = "renew"
	opIdentify = "identify"
)

const (
	// doubtSpacing is the least time between a login and the next one when it is
	// not certain that the token has ended: a path that the policies exclude
	// looks the same if they also exclude looking the token up.
	doubtSpacing = time.Minute
	// soonest is the least time between two renewals.
	soonest = time.Second
)

// lease is a token with what is known of its life. All but renewTime, which the
// session's mutex guards, is immutable.
type lease struct {
	client  *api.Client
	own     bool   // given by a login, and no longer needed after it
	who     string // whose it is as far as the login's answer says
	since   time.Time
	expire  time.Time // zero: never, or nobody says
	granted time.Duration
	// renewable is false for a login that cannot be prolonged, and for one whose
	// renewals no longer bring the whole time that was granted at first.
	renewable bool
	renewTime time.Time
}

// forbidden says whether err is Vault's answer to a token that may not.
func forbidden(err error) bool {
	e, ok := errors.AsType[*provider.Error](err)
	return ok && e.Status == http.StatusForbidden
}

// ended says whether Vault says that the token itself is the problem.
func ended(err error) bool {
	e, ok := errors.AsType[*provider.Error](err)
	return ok && e.Status == http.StatusForbidden && strings.Contains(e.Text, "invalid token")
}

// lost marks an error as the end of the session.
func lost(err error) error {
	if e, ok := errors.AsType[*provider.Error](err); ok {
		out := *e
		out.LoginLost = true
		return &out
	}
	return err
}

// newLease starts a lease whose answer was asked for at since.
func (s *Session) newLease(token string, own bool, since time.Time, ttl time.Duration, renewable bool) *lease {
	l := &lease{client: s.with(token), own: own, since: since, granted: ttl, renewable: renewable}
	s.setLife(l, ttl)
	return l
}

// setLife computes when the lease ends, and when to do something about it: after
// two thirds of its time, or a little earlier.
func (s *Session) setLife(l *lease, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	l.expire = l.since.Add(ttl)
	if l.own || l.renewable {
		part := 2.0/3 - s.cfg.Random()/15
		l.renewTime = l.since.Add(max(soonest, time.Duration(part*float64(ttl))))
	}
}

// refusedUnlessUnavailable makes a missing method of login what it is: no secret
// is missing.
func refusedUnlessUnavailable(err error) error {
	e, ok := errors.AsType[*provider.Error](err)
	if !ok || errors.Is(e.Kind, provider.ErrUnavailable) {
		return err
	}
	out := *e
	out.Kind = provider.ErrRefused
	return &out
}

// current returns the lease to use: a new one if the old one is over.
func (s *Session) current(ctx context.Context) (*lease, error) {
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	if l == nil {
		return nil, provider.ErrClosed
	}
	if !l.own || l.expire.IsZero() || time.Now().Before(l.expire) {
		return l, nil
	}
	next, err := s.replace(ctx, l)
	return next, lost(err)
}

// replace logs in anew, unless somebody else has done so since old was current.
func (s *Session) replace(ctx context.Context, old *lease) (*lease, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	if l != old {
		if l == nil {
			return nil, provider.ErrClosed
		}
		return l, nil
	}
	next, err := s.logIn(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = next
	return next, nil
}

// revalidate finds out why a request was forbidden. It returns l when the token
// is valid, another lease when the request is worth another try, and an error
// when the login is lost.
func (s *Session) revalidate(ctx context.Context, l *lease) (*lease, error) {
	s.mu.Lock()
	current := s.lease
	s.mu.Unlock()
	if current != l && current != nil {
		return current, nil
	}
	_, err := s.lookUp(ctx, opLogin, l)
	switch {
	case err == nil:
		return l, nil
	case !forbidden(err):
		return nil, err
	case !l.own && !ended(err):
		return l, nil
	case !l.own:
		return nil, lost(err)
	case !ended(err) && time.Since(l.since) < doubtSpacing:
		return l, nil
	}
	next, err := s.replace(ctx, l)
	return next, lost(err)
}

// RenewTime implements provider.Renewer.
func (s *Session) RenewTime() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return time.Time{}
	}
	return s.lease.renewTime
}

// Renew implements provider.Renewer: it prolongs the token, or replaces one that
// cannot be prolonged if the method of login allows.
func (s *Session) Renew(ctx context.Context) error {
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	if l == nil {
		return provider.ErrClosed
	}
	var err error
	if l.renewable {
		if err = s.prolong(ctx, l); err == nil {
			return nil
		}
	}
	if l.own && (err == nil || forbidden(err)) {
		if _, err = s.replace(ctx, l); err == nil {
			return nil
		}
	}
	// The token goes on working until it expires.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l {
		l.renewTime = later(l.expire)
	}
	if ended(err) && !l.own {
		return lost(err)
	}
	return err
}

// later returns when to try again what has to be done before expire; the zero
// time when it is too late.
func later(expire time.Time) time.Time {
	left := time.Until(expire)
	if left < soonest {
		return time.Time{}
	}
	return time.Now().Add(max(soonest, left/3))
}

// prolong renews the token of l.
func (s *Session) prolong(ctx context.Context, l *lease) error {
	since := time.Now()
	answer, err := s.ask(ctx, opRenew, l, func(ctx context.Context) (*api.Secret, error) {
		return l.client.Logical().WriteWithContext(ctx, "auth/token/renew-self", nil)
	})
	if err != nil {
		return refusedUnlessUnavailable(err)
	}
	if answer == nil || answer.Auth == nil {
		return strange(opRenew)
	}
	ttl := time.Duration(answer.Auth.LeaseDuration) * time.Second
	next := &lease{client: l.client, own: l.own, who: l.who, since: since, granted: l.granted, renewable: answer.Auth.Renewable}
	// Vault grants less when the token's longest life comes near: what can log in
	// does so next time. Rounding down costs up to a second.
	if l.own && ttl < l.granted-2*time.Second {
		next.renewable = false
	}
	s.setLife(next, ttl)
	if !next.own && ttl < soonest {
		next.renewTime = time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l {
		s.lease = next
	}
	return nil
}

// lookUp asks what the token of l is.
func (s *Session) lookUp(ctx context.Context, op string, l *lease) (*api.Secret, error) {
	answer, err := s.ask(ctx, op, l, func(ctx context.Context) (*api.Secret, error) {
		return l.client.Logical().ReadWithContext(ctx, "auth/token/lookup-self")
	})
	if err != nil {
		return nil, refusedUnlessUnavailable(err)
	}
	if answer == nil || answer.Data == nil {
		return nil, strange(op)
	}
	return answer, nil
}

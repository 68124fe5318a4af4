package provider

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Policy says how a Client treats a store. The zero value of each field means
// what its comment says.
type Policy struct {
	// Provider is the vendor's name, for metrics.
	Provider string
	// Timeout bounds one call with its login and its retries; 10 s.
	Timeout time.Duration
	// Attempts is how often a call is made at most while the store is
	// unavailable; 2.
	Attempts int
	// Rate is the most calls per second, with bursts of as many; 100.
	Rate float64
	// BreakAfter is how many calls in a row must find the store unavailable before
	// it is left alone for a while; 3. A failed login counts for as many.
	BreakAfter int
	// MaxPause is the longest that it is left alone; 1 minute. The first pause is
	// a second, and each is twice the one before; a refused login is tried again
	// after MaxPause only. All are shortened at random, to half at most.
	MaxPause time.Duration
	// Metrics may be nil.
	Metrics *Metrics
	// Random returns numbers in [0, 1), to several callers at a time; math/rand's
	// when nil.
	Random func() float64
}

const (
	firstPause = time.Second
	// retryWait is between two attempts of one call, halved at most at random.
	retryWait = 400 * time.Millisecond
)

func (p Policy) normal() Policy {
	if p.Timeout <= 0 {
		p.Timeout = 10 * time.Second
	}
	if p.Attempts <= 0 {
		p.Attempts = 2
	}
	if p.Rate <= 0 {
		p.Rate = 100
	}
	if p.BreakAfter <= 0 {
		p.BreakAfter = 3
	}
	if p.MaxPause <= 0 {
		p.MaxPause = time.Minute
	}
	if p.Random == nil {
		p.Random = rand.Float64
	}
	return p
}

// Client keeps one session with a store: it opens it when it is first needed,
// and again when its login was lost, and applies a Policy to all calls. It is
// safe for concurrent use, and starts no goroutines. Its methods return an
// *[Error], the context's error or ErrClosed.
type Client struct {
	open    func(context.Context) (Session, error)
	policy  Policy
	limiter *rate.Limiter
	breaker *breaker

	// lock is held while session is looked at or opened. A channel, so that who
	// waits for a slow login can give up.
	lock    chan struct{}
	session Session
	closed  bool
	// failed is what the last login came to, nil when it was good, and logins how
	// many have failed, so that who waited for one does not try the same again.
	failed error
	logins atomic.Int64
}

// NewClient returns a client that opens its session with open, which is called
// by one caller at a time.
func NewClient(open func(context.Context) (Session, error), p Policy) *Client {
	p = p.normal()
	return &Client{
		open:    open,
		policy:  p,
		limiter: rate.NewLimiter(rate.Limit(p.Rate), max(1, int(p.Rate))),
		breaker: &breaker{after: p.BreakAfter, first: min(firstPause, p.MaxPause), most: p.MaxPause, random: p.Random},
		lock:    make(chan struct{}, 1),
	}
}

// Fetch reads one secret.
func (c *Client) Fetch(ctx context.Context, ref Ref) (secret Secret, err error) {
	err = c.call(ctx, "read", func(ctx context.Context, s Session) error {
		secret, err = s.Fetch(ctx, ref)
		return err
	})
	if err != nil {
		return Secret{}, err
	}
	return secret, nil
}

// Identify says whose login it is; "" when the vendor cannot tell.
func (c *Client) Identify(ctx context.Context) (identity string, err error) {
	err = c.call(ctx, "identify", func(ctx context.Context, s Session) error {
		if i, ok := s.(Identifier); ok {
			identity, err = i.Identify(ctx)
			return err
		}
		return nil
	})
	return identity, err
}

// RenewTime returns when Renew is due; the zero time when it is not, or while
// there is no session or one is being opened.
func (c *Client) RenewTime() time.Time {
	select {
	case c.lock <- struct{}{}:
	default:
		return time.Time{}
	}
	s := c.session
	<-c.lock
	if r, ok := s.(Renewer); ok {
		return r.RenewTime()
	}
	return time.Time{}
}

// Renew prolongs the login.
func (c *Client) Renew(ctx context.Context) error {
	return c.call(ctx, "renew", func(ctx context.Context, s Session) error {
		if r, ok := s.(Renewer); ok {
			return r.Renew(ctx)
		}
		return nil
	})
}

// Reset ends the pause of a store that is being left alone, because somebody
// says that it is in order. The next call that fails begins another one.
func (c *Client) Reset() { c.breaker.reset() }

// Close gives the session back. Calls under way should have ended: their login
// may end with it. A second call does nothing.
func (c *Client) Close(ctx context.Context) error {
	if err := c.hold(ctx); err != nil {
		return err
	}
	s := c.session
	c.session, c.closed = nil, true
	<-c.lock
	if closer, ok := s.(Closer); ok {
		return normal("close", closer.Close(ctx))
	}
	return nil
}

// hold takes the lock.
func (c *Client) hold(ctx context.Context) error {
	select {
	case c.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// admission is a call that the breaker has let through.
type admission struct {
	probe bool
	// logins is how many had failed before.
	logins int64
}

func (c *Client) call(ctx context.Context, op string, f func(context.Context, Session) error) error {
	start := time.Now()
	// Counted before the breaker is asked, which a failed login opens before it is
	// counted: so none is missed.
	a := &admission{logins: c.logins.Load()}
	var err error
	if a.probe, err = c.breaker.allow(); err == nil {
		err = c.attempts(ctx, a, op, f)
		c.breaker.done(a.probe, err)
	}
	c.policy.Metrics.count(c.policy.Provider, op, time.Since(start), err)
	return err
}

// attempts makes a call until it has an answer, time is up or it was made often
// enough.
func (c *Client) attempts(ctx context.Context, a *admission, op string, f func(context.Context, Session) error) error {
	if err := c.limiter.Wait(ctx); err != nil {
		// Only the caller's context ends it: a burst is at least one.
		return errors.Join(context.DeadlineExceeded, ctx.Err())
	}
	return repeat(ctx, attempts{op: op, timeout: c.policy.Timeout, most: c.policy.Attempts, random: c.policy.Random}, func(ctx context.Context) error {
		return c.once(ctx, a, op, f)
	})
}

func (c *Client) once(ctx context.Context, a *admission, op string, f func(context.Context, Session) error) error {
	s, err := c.acquire(ctx, a)
	if err != nil {
		return err
	}
	err = normal(op, f(ctx, s))
	if errors.Is(err, ErrClosed) {
		// Another call found the login lost while this one was under way.
		return &Error{Kind: ErrUnavailable, Op: op, Text: "the login has just ended"}
	}
	if e, ok := errors.AsType[*Error](err); ok && e.LoginLost {
		c.drop(ctx, s)
	}
	return err
}

// acquire returns the session, opened if there is none.
func (c *Client) acquire(ctx context.Context, a *admission) (Session, error) {
	if err := c.hold(ctx); err != nil {
		return nil, err
	}
	defer func() { <-c.lock }()
	if c.closed {
		return nil, ErrClosed
	}
	if c.session != nil {
		return c.session, nil
	}
	if c.failed != nil && c.logins.Load() != a.logins {
		return nil, c.failed
	}
	s, err := c.open(ctx)
	c.failed = nil
	if err == nil {
		c.session = s
		return s, nil
	}
	err = normal("login", err)
	if e, ok := errors.AsType[*Error](err); ok {
		e.LoginLost = true
		c.failed = e
		c.breaker.done(a.probe, e)
		a.probe = false
		a.logins = c.logins.Add(1)
	}
	return nil, err
}

// drop forgets a session whose login is lost. Others may still be using it, and
// find the same out.
func (c *Client) drop(ctx context.Context, s Session) {
	if c.hold(ctx) != nil {
		return
	}
	current := c.session == s
	if current {
		c.session = nil
	}
	<-c.lock
	if closer, ok := s.(Closer); ok && current {
		_ = closer.Close(ctx) // frees what is here; in the store nothing is left
	}
}

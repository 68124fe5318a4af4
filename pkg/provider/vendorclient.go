package provider

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/credstore/credstore/pkg/credential"
)

// VendorPolicy says how a VendorClient treats a vendor. The zero value of each
// field means what its comment says.
type VendorPolicy struct {
	// Kind is the kind of the credentials, for metrics and errors.
	Kind credential.Kind
	// Timeout bounds one call with its retry, and before that the wait for its
	// turn; 15 s.
	Timeout time.Duration
	// Attempts is how often a call is made at most while the vendor is
	// unavailable; 2.
	Attempts int
	// Concurrent is the most calls at a time; 32. One project has half of them and
	// one login an eighth, since their endpoints may be ones that hang. Sixteen
	// times as many wait at most.
	Concurrent int
	// Rate is the most calls per second, with bursts of as many; 50.
	Rate float64
	// Metrics may be nil.
	Metrics *VendorMetrics
	// Random returns numbers in [0, 1), to several callers at a time; math/rand's
	// when nil.
	Random func() float64
}

func (p VendorPolicy) normal() VendorPolicy {
	if p.Timeout <= 0 {
		p.Timeout = 15 * time.Second
	}
	if p.Attempts <= 0 {
		p.Attempts = 2
	}
	if p.Concurrent <= 0 {
		p.Concurrent = 32
	}
	if p.Rate <= 0 {
		p.Rate = 50
	}
	if p.Random == nil {
		p.Random = rand.Float64
	}
	return p
}

// VendorClient applies a VendorPolicy to the calls about the credentials of one
// kind. It holds no session and remembers no failure: endpoints come from the
// credentials, so what one of them answers says nothing about the others. It is
// safe for concurrent use and starts no goroutines. Its methods return an
// *[Error] or the context's error.
type VendorClient struct {
	verifier Verifier
	minter   Minter
	policy   VendorPolicy
	limiter  *rate.Limiter
	slots    chan struct{}
	projects turns
	logins   turns
}

// NewVendorClient returns a client of a vendor's code. Without a verifier, nobody
// can be asked about credentials of the kind; without a minter, it mints nothing.
func NewVendorClient(v Verifier, m Minter, p VendorPolicy) *VendorClient {
	p = p.normal()
	return &VendorClient{
		verifier: v, minter: m, policy: p,
		limiter:  rate.NewLimiter(rate.Limit(p.Rate), max(1, int(p.Rate))),
		slots:    make(chan struct{}, p.Concurrent),
		projects: turns{each: max(1, p.Concurrent/2), of: make(map[string]*turn)},
		logins:   turns{each: max(1, p.Concurrent/8), of: make(map[string]*turn)},
	}
}

// Verify asks whether a login works, as [Verifier] says.
func (c *VendorClient) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	if c.verifier == nil {
		return credential.Identity{}, &Error{Kind: ErrUnsupported, Op: "verify", Text: fmt.Sprintf(
			"nobody can be asked about a credential of kind %s: the kind does not say what it is for", c.policy.Kind)}
	}
	var identity credential.Identity
	err := c.call(ctx, "verify", login, func(ctx context.Context) (err error) {
		identity, err = c.verifier.Verify(ctx, login)
		return err
	})
	if err != nil {
		return credential.Identity{}, err
	}
	return identity, nil
}

// Mint makes a new token, as [Minter] says. One that has ended already is
// ErrUnavailable.
func (c *VendorClient) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	if c.minter == nil {
		return credential.Token{}, &Error{Kind: ErrUnsupported, Op: "mint", Text: fmt.Sprintf(
			"this server mints no tokens from credentials of kind %s", c.policy.Kind)}
	}
	var token credential.Token
	err := c.call(ctx, "mint", login, func(ctx context.Context) (err error) {
		token, err = c.minter.Mint(ctx, login, request)
		end, ends := token.ExpireTime()
		switch {
		case err != nil:
			return err
		case token.IsZero():
			return &Error{Kind: ErrUnavailable, Text: "the answer holds no token"}
		case ends && !time.Now().Before(end):
			return &Error{Kind: ErrUnavailable, Text: "the token had ended when it arrived: compare the server's clock with the vendor's"}
		}
		return nil
	})
	if err != nil {
		return credential.Token{}, err
	}
	return token, nil
}

func (c *VendorClient) call(ctx context.Context, op string, login credential.Login, f func(context.Context) error) error {
	start := time.Now()
	err := c.admit(ctx, op, login, func() error {
		return repeat(ctx, attempts{op: op, timeout: c.policy.Timeout, most: c.policy.Attempts, random: c.policy.Random}, func(ctx context.Context) error {
			return contained(op, func() error { return f(ctx) })
		})
	})
	c.policy.Metrics.count(string(c.policy.Kind), op, time.Since(start), err)
	return err
}

// admit calls f when it is the turn of the login, of its project and of the kind.
func (c *VendorClient) admit(ctx context.Context, op string, login credential.Login, f func() error) error {
	waiting, cancel := context.WithTimeout(ctx, c.policy.Timeout)
	defer cancel()
	leave, err := c.enter(waiting, login)
	switch {
	case err == nil:
		defer leave()
		return f()
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errQueueFull):
		return &Error{Kind: ErrUnavailable, Op: op, NotAsked: true, Text: "too many calls are under way and wait for their turn"}
	}
	return &Error{Kind: ErrUnavailable, Op: op, NotAsked: true, Text: "too many calls are under way: none of them ended in time"}
}

func (c *VendorClient) enter(ctx context.Context, login credential.Login) (leave func(), err error) {
	name := login.ID
	if name == "" {
		name = login.Name
	}
	leaveLogin, err := c.logins.take(ctx, name)
	if err != nil {
		return nil, err
	}
	leaveProject, err := c.projects.take(ctx, login.Project())
	if err != nil {
		leaveLogin()
		return nil, err
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		leaveProject()
		leaveLogin()
		return nil, ctx.Err()
	}
	leave = func() { <-c.slots; leaveProject(); leaveLogin() }
	if err := c.limiter.Wait(ctx); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// contained makes a panic of a vendor's code an error. What it parses comes from
// outside, and many of its callers are goroutines that nobody else guards. The
// panic's value is not repeated: it may hold what was parsed.
func contained(op string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Error{Kind: ErrUnavailable, Op: op, Text: fmt.Sprintf("the code for this vendor broke off with a %T", p)}
		}
	}()
	return normal(op, f())
}

// queuePerPlace bounds those who wait for their turn: who comes after so many would
// wait in vain as a rule, and hold what a caller holds meanwhile.
const queuePerPlace = 16

// errQueueFull says that too many wait already.
var errQueueFull = errors.New("too many wait for their turn")

// turns gives each name a few places at a time.
type turns struct {
	each int
	mu   sync.Mutex
	of   map[string]*turn // those that somebody has or waits for
}

type turn struct {
	places chan struct{}
	users  int
}

// take waits for a place. It is given back with done. Its error is errQueueFull or
// the context's.
func (t *turns) take(ctx context.Context, name string) (done func(), err error) {
	t.mu.Lock()
	at := t.of[name]
	if at == nil {
		at = &turn{places: make(chan struct{}, t.each)}
		t.of[name] = at
	}
	if at.users >= t.each*(1+queuePerPlace) {
		t.mu.Unlock()
		return nil, errQueueFull
	}
	at.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(t.of, name)
		}
	}
	select {
	case at.places <- struct{}{}:
		return func() { <-at.places; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// attempts bounds the repetitions of one call.
type attempts struct {
	op      string
	timeout time.Duration
	most    int
	random  func() float64
}

// repeat makes a call until it has an answer, time is up or it was made often
// enough.
func repeat(ctx context.Context, a attempts, once func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	for n := 1; ; n++ {
		err := once(bounded)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case bounded.Err() != nil:
			return &Error{Kind: ErrUnavailable, Op: a.op, Text: fmt.Sprintf("no answer within %s", a.timeout)}
		case n >= a.most || !errors.Is(err, ErrUnavailable):
			return err
		}
		wait := retryWait/2 + time.Duration(a.random()*float64(retryWait/2))
		if e, ok := errors.AsType[*Error](err); ok {
			wait = max(wait, e.RetryAfter)
		}
		if deadline, ok := bounded.Deadline(); ok && time.Until(deadline) <= wait {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

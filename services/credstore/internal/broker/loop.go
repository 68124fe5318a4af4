package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/schedule"
)

const (
	// stretch is the most that jitter adds to an interval, as a part of it. It
	// only adds: no secret is read twice within one interval. It is small, because
	// it is also what a change may arrive later than one interval.
	stretch = 0.02
	// probeSpread is the same for the time that a store is left alone.
	probeSpread = 0.1
	// firstRetry is the delay after the first failure; each is twice the one
	// before, up to the interval or minRetryCap, whichever is longer.
	firstRetry  = time.Second
	minRetryCap = time.Minute
	// closeTime bounds giving a login back.
	closeTime = 2 * time.Second
)

// loop is the schedule with what it is about. One goroutine owns all of it; the
// goroutines of calls get what they need when they start, and report to results.
type loop struct {
	b     *Broker
	store Store

	secrets  map[core.Locator]*secret
	logins   map[string]*login // by the store's uid; the current one of each
	schedule schedule.Queue
	retired  map[*login]bool // those whose last calls have not ended
	results  chan func()
	places   *schedule.Places // of calls to stores
	wg       sync.WaitGroup
}

// secret is one that is polled.
type secret struct {
	poll  schedule.Task
	want  core.Wanted
	login *login
	// queued: due, and waits in its login's queue. busy: being read.
	queued, busy bool
	// again: due at once when the read that is under way has ended.
	again bool
	// idle: no longer wanted; kept until it would be due, so that an injection
	// which comes back causes no extra read.
	idle     bool
	failures int
	waiting  []*refresh // for the next read that starts
	reading  []*refresh // for the one that is under way
}

// loginKey is what makes a login another one.
type loginKey struct {
	etag, login string
}

// login is a session with a store, from when it is first needed until the store
// or the credential changes.
type login struct {
	renewal schedule.Task
	key     loginKey
	store   *core.SecretStore
	client  *provider.Client
	// ctx is that of all calls with this login: when it ends, none of their answers
	// counts any more.
	ctx   context.Context //nolint:containedctx // it is the login's life, which spans many calls
	end   context.CancelFunc
	queue []*secret
	busy  int
	old   bool
	down  bool // what was logged last
	// renewing: a renewal is under way. After a failed one the next must not begin
	// before renewAfter, whatever the session says.
	renewing   bool
	renewAfter time.Time
}

// refresh is an operator's request.
type refresh struct {
	store   resourcename.SecretStore
	result  chan core.RefreshResult
	counts  core.RefreshResult
	pending int
}

func newLoop(b *Broker, store Store) *loop {
	return &loop{
		b: b, store: store, places: schedule.NewPlaces(b.cfg.MaxConcurrent),
		secrets: map[core.Locator]*secret{}, logins: map[string]*login{}, retired: map[*login]bool{}, results: make(chan func()),
	}
}

func (l *loop) run(ctx context.Context) error {
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	wanted, changed := l.store.Wanted()
	l.reconcile(calls, wanted)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.start()
		if due, ok := l.schedule.Next(); ok {
			timer.Reset(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return l.stop(cancel)
		case <-changed:
			wanted, changed = l.store.Wanted()
			l.reconcile(calls, wanted)
		case done := <-l.results:
			done()
		case r := <-l.b.requests:
			l.refresh(r)
		case <-timer.C:
		}
	}
}

// stop ends all calls and gives the logins back.
func (l *loop) stop(cancel context.CancelFunc) error {
	cancel()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		l.wg.Wait()
	}()
	// Calls that end now have nobody to report to but this loop.
	for waiting := true; waiting; {
		select {
		case <-l.results:
		case <-finished:
			waiting = false
		}
	}
	for _, g := range l.logins {
		l.retired[g] = true
	}
	for g := range l.retired {
		l.wg.Go(func() { l.giveBack(g) })
	}
	l.wg.Wait()
	return nil
}

// reconcile makes the schedule fit what is wanted.
func (l *loop) reconcile(ctx context.Context, wanted []core.Wanted) {
	now := time.Now()
	seen := make(map[core.Locator]bool, len(wanted))
	stores := make(map[string]bool, len(l.logins))
	for _, w := range wanted {
		seen[w.Locator], stores[w.Locator.StoreUID] = true, true
		g := l.loginFor(ctx, w)
		s := l.secrets[w.Locator]
		if s == nil {
			s = &secret{want: w, login: g}
			s.poll.Run = func() { l.enqueue(s) }
			l.secrets[w.Locator] = s
			l.schedule.Set(&s.poll, firstPoll(w, now))
			continue
		}
		back := s.idle
		s.want, s.idle = w, false
		switch {
		case s.login != g:
			l.move(s, g, now)
		case back && w.Have == nil:
			l.hurry(s, now) // what was stored went away meanwhile
		}
	}
	for locator, s := range l.secrets {
		if seen[locator] || s.idle {
			continue
		}
		s.idle = true
		s.settle()
		if !stores[locator.StoreUID] {
			l.forget(s)
		}
	}
	for uid, g := range l.logins {
		if !stores[uid] {
			delete(l.logins, uid)
			l.retire(g)
		}
	}
	l.b.metrics.secrets.Set(float64(len(wanted)))
	l.b.metrics.logins.Set(float64(len(l.logins)))
}

// firstPoll returns when to read a secret for the first time: at once, unless
// what is stored of it was read a moment ago.
func firstPoll(w core.Wanted, now time.Time) time.Time {
	if w.Have == nil || w.Have.State != core.ValueOK {
		return now
	}
	if due := w.Have.FetchTime.Add(w.Store.PollInterval); due.After(now) && due.Sub(now) <= w.Store.PollInterval {
		return due
	}
	return now
}

// loginFor returns the login to read a secret with, a new one if the store or its
// credential is not what it was.
func (l *loop) loginFor(ctx context.Context, w core.Wanted) *login {
	key := loginKey{etag: w.Store.Etag, login: w.Login}
	old := l.logins[w.Locator.StoreUID]
	if old != nil && old.key == key {
		return old
	}
	if old != nil {
		l.retire(old)
	}
	// The calls outlive this one; the loop's context ends them all.
	ctx, cancel := context.WithCancel(ctx)
	g := &login{key: key, store: w.Store, ctx: ctx, end: cancel}
	g.renewal.Run = func() { l.renew(g) }
	name := w.Store.Name
	g.client = provider.NewClient(func(ctx context.Context) (provider.Session, error) {
		return l.logIn(ctx, name)
	}, provider.Policy{
		Provider: providerOf(w.Store), MaxPause: max(minRetryCap, w.Store.PollInterval), Metrics: l.b.calls, Random: l.b.cfg.Random,
	})
	l.logins[w.Locator.StoreUID] = g
	return g
}

// logIn opens a session with what is current now.
func (l *loop) logIn(ctx context.Context, name resourcename.SecretStore) (provider.Session, error) {
	store, login, err := l.store.StoreLogin(ctx, name)
	if err == nil {
		return l.b.open(ctx, store, login)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	kind := provider.ErrRefused
	if errors.Is(err, core.ErrUnavailable) {
		kind = provider.ErrUnavailable
	}
	l.b.log.Warn("cannot use a secret store's credential", "store", name.String(), "error", err)
	return nil, &provider.Error{Kind: kind, Op: "login", Text: provider.Clean("the store's credential cannot be used: " + loginProblem(err))}
}

// loginProblem returns the domain's words, and none of others.
func loginProblem(err error) string {
	if e, ok := errors.AsType[*core.Error](err); ok {
		return e.Message
	}
	return "an internal error, which the server's log tells"
}

// move gives a secret to another login and makes it due.
func (l *loop) move(s *secret, g *login, now time.Time) {
	s.login, s.failures = g, 0
	l.hurry(s, now)
}

// hurry makes a secret due; if it is being read, for once more after that.
func (l *loop) hurry(s *secret, now time.Time) {
	switch {
	case s.busy:
		s.again = true
	case !s.queued:
		l.schedule.Set(&s.poll, now)
	}
}

// retire ends a login that is no longer the one to use.
func (l *loop) retire(g *login) {
	g.old = true
	g.end()
	l.schedule.Remove(&g.renewal)
	for _, s := range g.queue {
		s.queued = false
		l.schedule.Set(&s.poll, time.Now())
	}
	g.queue = nil
	if g.busy > 0 {
		l.retired[g] = true
		return
	}
	l.wg.Go(func() { l.giveBack(g) })
}

// giveBack closes a login that nobody uses. It may outlive the loop's context.
func (l *loop) giveBack(g *login) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.ctx), closeTime)
	defer cancel()
	if err := g.client.Close(ctx); err != nil {
		l.b.log.Debug("could not give a login back", "store", g.store.Name.String(), "error", err)
	}
}

// forget drops a secret that is not wanted.
func (l *loop) forget(s *secret) {
	l.schedule.Remove(&s.poll)
	if l.secrets[s.want.Locator] == s {
		delete(l.secrets, s.want.Locator)
	}
}

// start begins what is due, as far as the bounds allow.
func (l *loop) start() {
	now := time.Now()
	for due := l.schedule.Pop(now); due != nil; due = l.schedule.Pop(now) {
		due.Run()
	}
	for _, g := range l.logins {
		l.startQueued(g)
	}
}

// enqueue puts a secret that is due behind the others of its login.
func (l *loop) enqueue(s *secret) {
	if s.idle {
		l.forget(s)
		return
	}
	s.queued = true
	s.login.queue = append(s.login.queue, s)
}

func (l *loop) startQueued(g *login) {
	for len(g.queue) > 0 && l.places.Free(g.store.Name.Project, g.store.UID) {
		s := g.queue[0]
		g.queue[0] = nil
		g.queue = g.queue[1:]
		s.queued = false
		if s.idle {
			l.forget(s)
			continue
		}
		l.poll(g, s)
	}
}

// call runs f for a login in a goroutine, and done after it in the loop.
func (l *loop) call(g *login, f func(ctx context.Context), done func()) {
	g.busy++
	l.places.Take(g.store.Name.Project, g.store.UID)
	l.wg.Go(func() {
		f(g.ctx)
		l.results <- func() {
			g.busy--
			l.places.Leave(g.store.Name.Project, g.store.UID)
			done()
			if g.old && g.busy == 0 {
				delete(l.retired, g)
				l.wg.Go(func() { l.giveBack(g) })
				return
			}
			if at := g.client.RenewTime(); !g.old && !g.renewing && !at.IsZero() {
				if at.Before(g.renewAfter) {
					at = g.renewAfter
				}
				l.schedule.Set(&g.renewal, at)
			}
		}
	})
}

// renew prolongs a login.
func (l *loop) renew(g *login) {
	g.renewing = true
	var err error
	l.call(g, func(ctx context.Context) { err = g.client.Renew(ctx) }, func() {
		g.renewing = false
		if err == nil || g.ctx.Err() != nil {
			return
		}
		wait := firstRetry
		if e, ok := errors.AsType[*provider.Error](err); ok {
			wait = max(wait, min(e.RetryAfter, minRetryCap))
		}
		g.renewAfter = time.Now().Add(wait)
		l.b.log.Warn("cannot renew the login to a secret store", "store", g.store.Name.String(), "error", err)
	})
}

// refresh makes all secrets of a store due.
func (l *loop) refresh(r *refresh) {
	now := time.Now()
	for _, s := range l.secrets {
		if s.idle || s.want.Store.Name != r.store {
			continue
		}
		r.pending++
		s.waiting = append(s.waiting, r)
		s.login.client.Reset()
		l.hurry(s, now)
	}
	if r.pending == 0 {
		r.result <- r.counts
	}
}

// settle answers those who wait for a secret that will not be read.
func (s *secret) settle() {
	for _, r := range s.waiting {
		r.settled()
	}
	s.waiting = nil
}

func (r *refresh) settled() {
	if r.pending--; r.pending == 0 {
		r.result <- r.counts // has room for it
	}
}

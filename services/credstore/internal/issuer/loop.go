package issuer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/schedule"
)

const (
	// loopRetryFirst and loopRetryMost bound the pauses after a vendor gave no
	// answer, and refusedFirst and refusedMost those after it refused: then it helps
	// only if somebody changes something, and some vendors lock out who asks often.
	loopRetryFirst = time.Second
	loopRetryMost  = time.Minute
	refusedFirst   = 10 * time.Second
	refusedMost    = 5 * time.Minute
	// shortestRefresh keeps tokens that hardly live from being minted all the time.
	shortestRefresh = 5 * time.Second
	// putRetry is the pause after the storage failed.
	putRetry = time.Second
)

// Store is what Run uses of the domain's store.
type Store interface {
	WantedTokens() ([]core.WantedToken, <-chan struct{})
	TokenLogin(context.Context, core.WantedToken) (login credential.Login, version uint32, request credential.TokenRequest, err error)
	PutMinted(context.Context, core.WantedToken, core.MintedUpdate) (core.Revision, error)
}

// Run keeps the tokens that injections need minted until ctx ends, and returns
// when everything that it started has ended. It must be called once; Mint may be
// called meanwhile, before and after.
func (i *Issuer) Run(ctx context.Context, store Store) error {
	l := &loop{
		i: i, store: store, items: make(map[core.TokenLocator]*item), places: schedule.NewPlaces(i.maxConcurrent), results: make(chan func()),
	}
	l.run(ctx)
	return nil
}

// loop is the schedule with what it is about. One goroutine owns all of it; those
// of calls get what they need when they start, and report to results.
type loop struct {
	i        *Issuer
	store    Store
	items    map[core.TokenLocator]*item
	schedule schedule.Queue
	ready    []*item          // due, and waiting for a place
	places   *schedule.Places // of those that are being minted
	ended    []*item          // whose token has ended
	ending   int              // of those, being committed
	failing  int
	results  chan func()
	wg       sync.WaitGroup
}

// item is a token that is kept minted.
type item struct {
	want core.WantedToken
	// mint and end are when it is to be minted, and when the one that there is ends.
	mint, end schedule.Task
	// has: one is stored that has not ended. rev is when this loop last committed
	// one, 0 when it did not.
	has bool
	rev core.Revision
	// queued: in ready. cancel is set while it is being minted.
	queued bool
	cancel context.CancelFunc
	gone   bool
	// failures and others count, in a row, attempts that failed, and those that
	// minted with another login than the one that is wanted.
	failures, others int
	failing          bool
}

func (l *loop) run(ctx context.Context) {
	wanted, changed := l.store.WantedTokens()
	l.reconcile(wanted)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.start(ctx)
		if due, ok := l.schedule.Next(); ok {
			timer.Reset(sleep(due))
		}
		select {
		case <-ctx.Done():
			l.stop()
			return
		case <-changed:
			wanted, changed = l.store.WantedTokens()
			l.reconcile(wanted)
		case done := <-l.results:
			done()
		case <-timer.C:
		}
	}
}

// longestSleep bounds how late the loop notices that the wall clock went on without
// its timer, which stands still while the machine sleeps: tokens end by the wall
// clock.
const longestSleep = 30 * time.Second

// sleep returns how long to wait for what is due, or to look at the clock again.
func sleep(due time.Time) time.Duration { return min(time.Until(due), longestSleep) }

// stop waits for the calls, whose context has ended and who have nobody to report
// to but this loop.
func (l *loop) stop() {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		l.wg.Wait()
	}()
	for {
		select {
		case <-l.results:
		case <-finished:
			return
		}
	}
}

// reconcile makes the schedule fit what is wanted.
func (l *loop) reconcile(wanted []core.WantedToken) {
	now := time.Now()
	seen := make(map[core.TokenLocator]bool, len(wanted))
	for _, w := range wanted {
		seen[w.Locator] = true
		it := l.items[w.Locator]
		if it == nil {
			l.add(w, now)
			continue
		}
		was := it.want.Login
		it.want = w
		switch {
		case was != w.Login && it.cancel != nil:
			it.cancel() // what it would bring is of no use; it is minted anew after it
		case was != w.Login:
			it.failures, it.others = 0, 0
			l.hurry(it, now)
		case w.Have == nil && it.has && w.Revision >= it.rev && it.cancel == nil:
			it.has = false // what was stored went away
			l.hurry(it, now)
		}
	}
	for locator, it := range l.items {
		if !seen[locator] {
			l.remove(it)
		}
	}
	l.count()
}

// add takes a token up. One that is stored is used as long as it has most of its
// time.
func (l *loop) add(w core.WantedToken, now time.Time) {
	it := &item{want: w}
	it.mint.Run = func() {
		it.queued = true
		l.ready = append(l.ready, it)
	}
	it.end.Run = func() { l.ended = append(l.ended, it) }
	l.items[w.Locator] = it
	have := w.Have
	if have == nil || have.MintTime.IsZero() {
		l.hurry(it, now)
		return
	}
	it.has = have.ExpireTime.IsZero() || now.Before(have.ExpireTime)
	refresh := time.Time{}
	if !have.ExpireTime.IsZero() {
		refresh = span(have.MintTime, have.ExpireTime, l.i.random).refresh
		l.schedule.Set(&it.end, have.ExpireTime)
	}
	switch {
	case !it.has || !w.Current || have.State != core.ValueOK:
		l.hurry(it, now)
	case !refresh.IsZero():
		l.schedule.Set(&it.mint, refresh)
	}
}

// hurry makes an item due.
func (l *loop) hurry(it *item, now time.Time) {
	if it.cancel == nil && !it.queued {
		l.schedule.Set(&it.mint, now)
	}
}

// remove lets go of what is not wanted any more.
func (l *loop) remove(it *item) {
	delete(l.items, it.want.Locator)
	l.schedule.Remove(&it.mint)
	l.schedule.Remove(&it.end)
	if it.failing {
		l.failing--
	}
	it.gone = true
	if it.cancel != nil {
		it.cancel()
	}
}

// start begins what is due, as far as the bounds allow.
func (l *loop) start(ctx context.Context) {
	now := time.Now()
	for due := l.schedule.Pop(now); due != nil; due = l.schedule.Pop(now) {
		due.Run()
	}
	waiting := l.ready[:0]
	for _, it := range l.ready {
		switch at := it.want.Locator; {
		case it.gone:
		case !l.places.Free(at.Project, at.CredentialUID):
			waiting = append(waiting, it)
		default:
			it.queued = false
			l.attempt(ctx, it)
		}
	}
	clear(l.ready[len(waiting):])
	l.ready = waiting
	for len(l.ended) > 0 && l.ending < l.i.maxConcurrent {
		it := l.ended[0]
		l.ended = l.ended[1:]
		if !it.gone {
			l.expire(ctx, it)
		}
	}
}

// attempt is one try to mint a token.
type attempt struct {
	want       core.WantedToken
	login      string // what it was made with
	start      time.Time
	token      credential.Token
	rev        core.Revision
	err        error
	retryAfter time.Duration
}

// attempt mints a token in a goroutine, and commits what comes of it.
func (l *loop) attempt(ctx context.Context, it *item) {
	ctx, it.cancel = context.WithCancel(ctx)
	at := it.want.Locator
	l.places.Take(at.Project, at.CredentialUID)
	a := &attempt{want: it.want, login: it.want.Login, start: time.Now()}
	l.wg.Go(func() {
		l.mint(ctx, a)
		cancelled := ctx.Err() != nil
		l.results <- func() {
			it.cancel()
			it.cancel = nil
			l.places.Leave(at.Project, at.CredentialUID)
			if !it.gone {
				l.settle(it, a, cancelled)
			}
		}
	})
}

// mint makes a token and commits it, or why there is none.
func (l *loop) mint(ctx context.Context, a *attempt) {
	login, version, request, err := l.store.TokenLogin(ctx, a.want)
	if err == nil {
		a.login = login.Key()
		a.token, a.retryAfter, err = l.i.mintNow(ctx, login, request)
	}
	if err == nil {
		a.rev, err = l.store.PutMinted(ctx, a.want, core.MintedUpdate{
			Token: a.token, Version: version, Login: a.login, MintTime: a.start, State: core.ValueOK,
		})
	}
	if a.err = err; err == nil || ctx.Err() != nil {
		return
	}
	state, message := failure(err)
	if _, err := l.store.PutMinted(ctx, a.want, core.MintedUpdate{State: state, Message: message}); err != nil && ctx.Err() == nil {
		l.i.log.Warn("cannot commit that a token cannot be minted", "credential", a.want.Credential.String(), "error", err)
	}
}

// failure says what workloads are told of an error.
func failure(err error) (core.ValueState, string) {
	state := core.ValueRefused
	if errors.Is(err, core.ErrUnavailable) {
		state = core.ValueUnavailable
	}
	if e, ok := errors.AsType[*core.Error](err); ok {
		return state, e.Message
	}
	if e, ok := errors.AsType[*core.InvalidError](err); ok {
		var parts []string
		for _, v := range e.Violations {
			parts = append(parts, v.Description)
		}
		return state, strings.Join(parts, "; ")
	}
	// The words of a stranger's error are for the log alone.
	return core.ValueUnavailable, "an internal error, which the server's log tells"
}

// settle takes in what came of an attempt.
func (l *loop) settle(it *item, a *attempt, cancelled bool) {
	now := time.Now()
	if a.err == nil {
		it.has, it.failures = true, 0
		it.rev = max(it.rev, a.rev)
		l.setFailing(it, "")
		if end, ends := a.token.ExpireTime(); ends {
			l.schedule.Set(&it.end, end)
			// As long as it has: a vendor may hand out the same one again.
			l.schedule.Set(&it.mint, maxTime(span(a.start, end, l.i.random).refresh, now.Add(shortestRefresh)))
		} else {
			l.schedule.Remove(&it.end)
			l.schedule.Remove(&it.mint)
		}
	}
	switch {
	case a.login != it.want.Login:
		// The credential changed meanwhile. The second time in a row can only be that
		// the list does not know yet.
		l.schedule.Set(&it.mint, now.Add(time.Duration(it.others)*putRetry))
		it.others, it.failures = min(it.others+1, 60), 0
		return
	case a.err == nil:
		it.others = 0
		return
	case cancelled:
		l.schedule.Set(&it.mint, now)
		return
	}
	it.others = 0
	it.failures++
	state, message := failure(a.err)
	first, most := loopRetryFirst, loopRetryMost
	if state == core.ValueRefused {
		first, most = refusedFirst, refusedMost
	}
	pause := max(backoff(it.failures, first, most, l.i.random), min(a.retryAfter, refusedMost))
	l.schedule.Set(&it.mint, now.Add(pause))
	l.i.log.Debug("cannot mint a token for injections", "credential", it.want.Credential.String(), "error", a.err)
	l.setFailing(it, message)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expire commits in a goroutine that a token has ended, if it is still there.
func (l *loop) expire(ctx context.Context, it *item) {
	w, end := it.want, it.end.Due()
	l.ending++
	l.wg.Go(func() {
		_, err := l.store.PutMinted(ctx, w, core.MintedUpdate{})
		l.results <- func() {
			l.ending--
			switch {
			case it.gone || it.end.Scheduled():
				// There is another one.
			case err != nil:
				l.schedule.Set(&it.end, time.Now().Add(putRetry))
			case it.end.Due().Equal(end):
				it.has = false
			}
		}
	})
}

// setFailing keeps count, and logs what changes. An empty message is a token.
func (l *loop) setFailing(it *item, message string) {
	failing := message != ""
	if failing == it.failing {
		return
	}
	it.failing = failing
	name := it.want.Credential.String()
	if failing {
		l.failing++
		l.i.log.Warn("cannot mint a token for injections; the last one stays until it ends", "credential", name, "error", message)
	} else {
		l.failing--
		l.i.log.Info("no longer failing to mint a token for injections", "credential", name)
	}
	l.count()
}

func (l *loop) count() {
	l.i.metrics.items.WithLabelValues("ok").Set(float64(len(l.items) - l.failing))
	l.i.metrics.items.WithLabelValues("failing").Set(float64(l.failing))
}

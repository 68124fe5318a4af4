package issuer

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/credstore/credstore/pkg/credential"
)

const (
	// flightTime bounds one call for a token, with the wait for its turn.
	flightTime = 45 * time.Second
	// refusalTime is how long a refusal is remembered, and the longest pause after a
	// failure while there is no token.
	refusalTime = 5 * time.Second
	// retryFirst and retryMost bound the pauses between attempts to replace a token
	// that can still be handed out.
	retryFirst = time.Second
	retryMost  = time.Minute
	// forgetTime is how long it is remembered which versions are no longer active:
	// longer than any call that has opened one of them takes.
	forgetTime = 2 * time.Minute
	// sweepTime is how often at most tokens that have ended are looked for.
	sweepTime = time.Minute
)

// minter makes a new token. Its error is what callers get.
type minter func(context.Context, credential.Login, credential.TokenRequest) (token credential.Token, retryAfter time.Duration, err error)

// cacheKey is a token's: what it was minted with, and what was asked for.
type cacheKey struct{ login, request string }

// cache keeps tokens. Readers of a token that is there take no lock; what is
// rarer, as the making of an entry, takes mu, and a call for a token the lock of
// its entry alone.
type cache struct {
	ask     minter
	most    int
	random  func() float64
	metrics *metrics

	ctx     context.Context //nolint:containedctx // the life of calls that outlive the one that started them
	cancel  context.CancelFunc
	closing sync.Mutex // an entry's lock may be held before it
	closed  bool
	flights sync.WaitGroup

	entries sync.Map // cacheKey to *cacheEntry

	mu      sync.Mutex // taken before that of an entry
	count   int
	byUID   map[string]map[*cacheEntry]struct{}
	latest  map[string]forgotten
	cleaned time.Time
}

// forgotten says which version of a credential is active since a moment ago; 0 is
// none.
type forgotten struct {
	except uint32
	at     time.Time
}

func newCache(mint minter, most int, random func() float64, m *metrics) *cache {
	ctx, cancel := context.WithCancel(context.Background())
	return &cache{
		ask: mint, most: most, random: random, metrics: m, ctx: ctx, cancel: cancel,
		byUID: make(map[string]map[*cacheEntry]struct{}), latest: make(map[string]forgotten),
	}
}

// close ends all flights, waits for them and lets go of all tokens.
func (c *cache) close() {
	c.closing.Lock()
	c.closed = true // no flight starts behind the wait
	c.closing.Unlock()
	c.cancel()
	c.flights.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.all() {
		c.drop(e)
	}
}

// mint returns a token that is kept, or a new one.
func (c *cache) mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	requestKey, err := request.Key()
	if err != nil {
		return credential.Token{}, err
	}
	if !stored(login) {
		token, _, err := c.ask(ctx, login, request)
		return token, err
	}
	key := cacheKey{login.Key(), requestKey}
	e := c.find(key)
	if e != nil {
		now := time.Now()
		if token, ok := e.fresh(now); ok {
			if e.due(now) {
				_, _ = e.join(c, now, login, request) // goes on without this caller
			}
			c.metrics.kept.Inc()
			return token, nil
		}
	}
	token, err := c.wait(ctx, key, login, request)
	if err != nil {
		c.metrics.failed.Inc()
		return credential.Token{}, err
	}
	c.metrics.waited.Inc()
	return token, nil
}

// wait returns a new token, or as long as none can be had the last one.
func (c *cache) wait(ctx context.Context, key cacheKey, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	const rounds = 3
	for range rounds {
		e := c.make(key, login)
		f, err := e.join(c, time.Now(), login, request)
		if f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return credential.Token{}, ctx.Err()
			}
			if err = f.err; err == nil && !ended(f.token, time.Now()) {
				return f.token, nil
			}
		}
		if token, ok := e.usable(time.Now()); ok {
			return token, nil
		}
		if err != nil {
			return credential.Token{}, err
		}
		// It ended before this caller came to look at it, or was forgotten.
	}
	return credential.Token{}, errTooSlow
}

func ended(token credential.Token, now time.Time) bool {
	end, ends := token.ExpireTime()
	return ends && !now.Before(end)
}

func (c *cache) find(key cacheKey) *cacheEntry {
	v, ok := c.entries.Load(key)
	if !ok {
		return nil
	}
	e, _ := v.(*cacheEntry) // nothing else is stored
	return e
}

// make returns the entry of a key, a new one if there is none.
func (c *cache) make(key cacheKey, login credential.Login) *cacheEntry {
	if e := c.find(key); e != nil {
		return e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.find(key); e != nil {
		return e
	}
	now := time.Now()
	e := &cacheEntry{key: key, project: login.Project()}
	e.used.Store(now.UnixNano())
	for at := &login; at != nil; at = at.Source {
		uid, version := cutID(at.ID)
		e.uids = append(e.uids, uid)
		if f, ok := c.latest[uid]; ok && f.except != version && now.Sub(f.at) < forgetTime {
			e.dropped = true // its callers share one call, and nothing is kept
		}
		if c.byUID[uid] == nil {
			c.byUID[uid] = make(map[*cacheEntry]struct{})
		}
		c.byUID[uid][e] = struct{}{}
	}
	c.entries.Store(key, e)
	c.count++
	if c.count > c.most || now.Sub(c.cleaned) >= sweepTime {
		c.evict(now, e)
	}
	c.metrics.tokens.Set(float64(c.count))
	return e
}

// evict removes what is of no use any more and, if that is not enough, of those
// projects that have the most entries what was not asked for the longest; never
// the entry that is being made. So nobody who asks for much takes the tokens of
// those who ask for little. It makes some room at once, since it looks at all
// entries. The caller holds mu.
func (c *cache) evict(now time.Time, but *cacheEntry) {
	c.cleaned = now
	type aged struct {
		entry *cacheEntry
		used  int64 // as of now: it changes while they are sorted
	}
	left := make(map[string][]aged)
	for _, e := range c.all() {
		switch {
		case e == but:
		case e.useless(now):
			c.drop(e)
		default:
			left[e.project] = append(left[e.project], aged{e, e.used.Load()})
		}
	}
	if c.count <= c.most {
		return
	}
	sizes := make([]int, 0, len(left))
	for _, entries := range left {
		sizes = append(sizes, len(entries))
	}
	share := fairShare(sizes, c.most-c.most/16-1) // the one that is being made counts, too
	for _, entries := range left {
		if len(entries) <= share {
			continue
		}
		slices.SortFunc(entries, func(a, b aged) int { return cmp.Compare(a.used, b.used) })
		for _, a := range entries[:len(entries)-share] {
			c.drop(a.entry)
		}
	}
}

// fairShare returns how much each may have at most, so that all together have no
// more than total: who has less keeps it all.
func fairShare(sizes []int, total int) int {
	slices.Sort(sizes)
	for i, size := range sizes {
		others := len(sizes) - i
		if size*others > total {
			return max(0, total) / others
		}
		total -= size
	}
	return math.MaxInt
}

// all lists the entries; the caller holds mu.
func (c *cache) all() []*cacheEntry {
	out := make([]*cacheEntry, 0, c.count)
	c.entries.Range(func(_, v any) bool {
		if e, ok := v.(*cacheEntry); ok {
			out = append(out, e)
		}
		return true
	})
	return out
}

// drop takes an entry out, whose token is let go of now, and of whose flight
// nothing is kept. The caller holds mu.
func (c *cache) drop(e *cacheEntry) {
	e.empty()
	if !c.entries.CompareAndDelete(e.key, e) {
		return
	}
	c.count--
	for _, uid := range e.uids {
		delete(c.byUID[uid], e)
		if len(c.byUID[uid]) == 0 {
			delete(c.byUID, uid)
		}
	}
	c.metrics.tokens.Set(float64(c.count))
}

// forget drops what was made with other versions of a credential.
func (c *cache) forget(uid string, except uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for other, f := range c.latest {
		// Few are looked at: those in the way of the first that is still young. In the
		// random order of maps that keeps the list short.
		if now.Sub(f.at) < forgetTime {
			break
		}
		delete(c.latest, other)
	}
	c.latest[uid] = forgotten{except: except, at: now}
	var gone []*cacheEntry
	for e := range c.byUID[uid] {
		if !e.madeWith(uid, except) {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		c.drop(e)
	}
}

// stored says whether a login and all that it refers to have an id.
func stored(login credential.Login) bool {
	for at := &login; at != nil; at = at.Source {
		if at.ID == "" {
			return false
		}
	}
	return true
}

// cutID takes apart what the domain makes: the credential's uid, a slash, and the
// version. One of another form is a credential without versions.
func cutID(id string) (uid string, version uint32) {
	uid, digits, _ := strings.Cut(id, "/")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return id, 0
	}
	return uid, uint32(n)
}

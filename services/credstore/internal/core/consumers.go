package core

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
)

// consumers knows which live streams were sent which version of what. It lives
// in memory: a consumer that is still there after a restart says so by coming
// back.
type consumers struct {
	memory time.Duration

	mu   sync.Mutex
	byID map[string]*consumer
	// holders indexes consumers by credential.
	holders map[resourcename.Credential]map[*consumer]struct{}
}

// consumer is one stream.
type consumer struct {
	reg       *consumers
	id        string
	principal string
	workload  string
	named     bool
	minted    bool      // a caller that was handed tokens, and no stream
	gone      time.Time // zero while connected
	holds     map[resourcename.Credential]*holding
}

type holding struct {
	injection string
	version   uint32
	since     time.Time
	revision  Revision
	applied   uint32
}

func newConsumers(memory time.Duration) *consumers {
	return &consumers{
		memory: memory, byID: make(map[string]*consumer),
		holders: make(map[resourcename.Credential]map[*consumer]struct{}),
	}
}

// join registers a stream. A workload that comes back replaces what was
// remembered of it.
func (r *consumers) join(id, principal, workload string, named bool) *consumer {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.byID {
		if !c.gone.IsZero() && !c.minted && c.principal == principal && c.workload == workload && c.named == named {
			r.drop(c)
		}
	}
	c := &consumer{
		reg: r, id: id, principal: principal, workload: workload, named: named,
		holds: make(map[resourcename.Credential]*holding),
	}
	r.byID[id] = c
	return c
}

// drop forgets a consumer; the caller holds the lock.
func (r *consumers) drop(c *consumer) {
	for name := range c.holds {
		r.unhold(c, name)
	}
	delete(r.byID, c.id)
}

func (r *consumers) unhold(c *consumer, name resourcename.Credential) {
	delete(c.holds, name)
	delete(r.holders[name], c)
	if len(r.holders[name]) == 0 {
		delete(r.holders, name)
	}
}

// minted notes that the principal was handed a token of this version. It has no
// stream to say goodbye by, so it counts for the memory's length, from its last
// token on.
func (r *consumers) minted(principal string, name resourcename.Credential, version uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := "mint " + principal + " " + name.String()
	c := r.byID[id]
	if c == nil {
		c = &consumer{reg: r, id: id, principal: principal, named: true, minted: true, holds: make(map[resourcename.Credential]*holding)}
		r.byID[id] = c
	}
	c.gone = time.Now()
	r.hold(c, name, version, "", 0)
}

// sent notes that a version of the credential went to the stream.
func (c *consumer) sent(name resourcename.Credential, version uint32, injection string, rev Revision) {
	c.reg.mu.Lock()
	defer c.reg.mu.Unlock()
	c.reg.hold(c, name, version, injection, rev)
}

// hold notes what a consumer has; the caller holds the lock.
func (r *consumers) hold(c *consumer, name resourcename.Credential, version uint32, injection string, rev Revision) {
	h := c.holds[name]
	if h == nil {
		h = &holding{}
		c.holds[name] = h
		if r.holders[name] == nil {
			r.holders[name] = make(map[*consumer]struct{})
		}
		r.holders[name][c] = struct{}{}
	}
	if h.version != version {
		h.since = time.Now()
	}
	h.version, h.injection, h.revision = version, injection, rev
}

// applied notes that the stream's workload has what it was sent up to rev.
func (c *consumer) applied(rev Revision, failed map[resourcename.Credential]bool) {
	c.reg.mu.Lock()
	defer c.reg.mu.Unlock()
	for name, h := range c.holds {
		if h.revision <= rev && !failed[name] {
			h.applied = h.version
		}
	}
}

// released notes that the stream no longer has the credential.
func (c *consumer) released(name resourcename.Credential) {
	c.reg.mu.Lock()
	defer c.reg.mu.Unlock()
	c.reg.unhold(c, name)
}

// leave ends the stream: with a goodbye it counts no more, without one it
// counts for the memory's length.
func (c *consumer) leave(goodbye bool) {
	c.reg.mu.Lock()
	defer c.reg.mu.Unlock()
	if goodbye || len(c.holds) == 0 {
		c.reg.drop(c)
		return
	}
	c.gone = time.Now()
}

// of lists a credential's consumers, by workload.
func (r *consumers) of(name resourcename.Credential) []Consumer {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var out []Consumer
	for c := range r.holders[name] {
		if !c.gone.IsZero() && now.Sub(c.gone) >= r.memory {
			continue
		}
		h := c.holds[name]
		view := Consumer{
			Principal: c.principal, Workload: c.workload, Injection: h.injection, Version: h.version,
			Named: c.named, Connected: c.gone.IsZero(), Since: h.since, AppliedVersion: h.applied,
		}
		if !c.gone.IsZero() {
			view.Since = c.gone
		}
		out = append(out, view)
	}
	slices.SortFunc(out, func(a, b Consumer) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Principal, b.Principal), a.Since.Compare(b.Since))
	})
	return out
}

// named lists the consumers that asked for this credential.
func (r *consumers) named(name resourcename.Credential) []Consumer {
	return slices.DeleteFunc(r.of(name), func(c Consumer) bool { return !c.Named })
}

// expire forgets those that vanished long enough ago.
func (r *consumers) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.byID {
		if !c.gone.IsZero() && now.Sub(c.gone) >= r.memory {
			r.drop(c)
		}
	}
}

package inject

import (
	"fmt"
	"sync"
	"time"
)

// Status is how an engine stands. It holds no content.
type Status struct {
	// Ready says that a set was published in which every item had a content. It
	// never turns false again.
	Ready bool
	// Reasons say what keeps it from being ready; at most 20.
	Reasons []string
	// Connected says that a connection has delivered something and is not known
	// to have ended; Connections and Disconnections count.
	Connected                   bool
	Connections, Disconnections int
	// LastError is that of the last connection that ended or could not be made.
	LastError error
	// Revision is that of the set that was processed last.
	Revision uint64
	// Received is when the set that is published arrived, Applied when it was
	// last found to be what is on the disk; zero before.
	Received, Applied time.Time
	// Failures are those of the last report.
	Failures []Failure
	// Injections counts the items of each injection, by its full name.
	Injections map[string]Count
}

// Count is about the items of one injection.
type Count struct {
	Items, Failed int
}

// Status returns how the engine stands. It does not wait for the disk.
func (e *Engine) Status() Status { return e.status.get() }

// board holds the status apart from the engine's own lock, which is held while
// files are written.
type board struct {
	mu sync.Mutex
	s  Status
}

func (b *board) init() {
	b.s.Reasons = []string{"no set has arrived yet"}
}

// get returns a copy; what it points to is never changed.
func (b *board) get() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.s
	if !s.Ready && !s.Connected && s.LastError != nil {
		s.Reasons = append([]string{fmt.Sprintf("not connected: %v", s.LastError)}, s.Reasons...)
	}
	return s
}

func (b *board) connected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Connected = true
	b.s.Connections++
}

func (b *board) disconnected(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Connected = false
	b.s.Disconnections++
	b.s.LastError = err
}

func (b *board) applied(m *manifest, rep Report, r result, absent []string, complete bool, now, received time.Time) {
	counts := map[string]Count{}
	for id, e := range m.entries {
		c := counts[e.item.Injection]
		c.Items++
		if _, bad := r.plan.causes[id]; bad {
			c.Failed++
		}
		counts[e.item.Injection] = c
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Revision = rep.Revision
	b.s.Failures = rep.Failures
	b.s.Injections = counts
	if r.failed == nil && !r.plan.waits {
		b.s.Received, b.s.Applied = received, now
	}
	b.s.Ready = b.s.Ready || complete
	b.s.Reasons = nil
	if b.s.Ready {
		return
	}
	if r.failed != nil {
		b.s.Reasons = append(b.s.Reasons, "files cannot be written: "+r.failed.Error())
	}
	for _, injection := range absent[:min(len(absent), maxLogged)] {
		b.s.Reasons = append(b.s.Reasons, injection+" is not for this workload: it does not exist, or its selector does not match the token's attributes")
	}
	for _, id := range r.plan.incomplete {
		if len(b.s.Reasons) == maxLogged {
			break
		}
		b.s.Reasons = append(b.s.Reasons, fmt.Sprintf("item %q: %s", id, r.plan.causes[id].message))
	}
}

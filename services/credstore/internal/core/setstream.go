package core

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/fanout"
)

// SetEvent is one message of a set stream: a set or a heartbeat.
type SetEvent struct {
	Heartbeat bool
	Set       *SetUpdate
}

// SetStream keeps one workload's set current. Next is for one goroutine, Report
// for any; the caller closes it.
type SetStream struct {
	store     *Store
	id        string
	req       OpenSetRequest
	principal *Principal
	shared    *sharedSet
	since     Revision  // when it came to shared from another set, else 0
	sent      *builtSet // what Next returned last
	// reported is sent for Report, which another goroutine calls.
	reported atomic.Pointer[builtSet]
	// matches tells of changes of the project's injections.
	matches   *fanout.Subscription[*update]
	consumer  *consumer
	workload  *workload
	heartbeat *time.Timer
}

// workload is what is known of one stream, for the status of injections. Its
// fields are under sets.mu.
type workload struct {
	principal  string
	name       string
	injections []resourcename.Injection
	gone       time.Time
	sent       Revision
	applied    Revision
	reported   time.Time
	failures   []ItemReport
	goodbye    bool
}

// OpenSet opens the stream of a workload's set.
func (s *Store) OpenSet(ctx context.Context, r OpenSetRequest) (*SetStream, error) {
	if err := s.permit(ctx, SetsGet, r.Project, r.Project); err != nil {
		return nil, err
	}
	if r.Heartbeat == 0 {
		r.Heartbeat = DefaultHeartbeat
	}
	var bad invalid
	if r.Workload == "" {
		bad.add("open.workload", "is required: which of the workloads that share the token this is, as the pod's or host's name")
	}
	bad.checkWorkloadName("open.workload", r.Workload)
	bad.checkDuration("open.heartbeatInterval", r.Heartbeat, MinHeartbeat, MaxHeartbeat)
	if len(r.Have) > 10*MaxItems {
		bad.add("open.have", "has %d entries; at most %d", len(r.Have), 10*MaxItems)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	if err := checkOnly("open.injections", r.Project, r.Injections); err != nil {
		return nil, err
	}
	v := s.model.view()
	if _, err := project(v, r.Project); err != nil {
		return nil, err
	}
	who := PrincipalFrom(ctx)
	w := &SetStream{store: s, id: s.streamID("set-" + r.Workload), req: r, principal: who}
	w.consumer = s.consumers.join(w.id, who.Name, r.Workload, true)
	w.matches = s.hub.Subscribe("", uint64(v.rev), topicInjections(r.Project.ID))
	w.workload = s.sets.enroll(w.id, who.Name, r.Workload)
	w.rematch(v)
	w.heartbeat = time.NewTimer(r.Heartbeat)
	return w, nil
}

// rematch finds the shared set for the injections that match now.
func (w *SetStream) rematch(v view) {
	injections := matching(v, w.principal, w.req.Project, w.req.Injections)
	names := make([]resourcename.Injection, len(injections))
	for i, inj := range injections {
		names[i] = inj.Name
	}
	if w.shared != nil && !w.shared.isRetired() {
		if _, key := membersOf(injections); key == w.shared.key {
			return
		}
	}
	old := w.shared
	w.shared = w.store.sets.acquire(injections, v, w.id)
	if old != nil {
		w.since = v.rev
		w.store.sets.release(old, w.id)
	}
	w.store.sets.mu.Lock()
	w.workload.injections = names
	w.store.sets.mu.Unlock()
}

// Next returns the next event. The first is a whole set. Its error is ctx's, or
// an ErrUnavailable when the Store stops.
func (w *SetStream) Next(ctx context.Context) (SetEvent, error) {
	w.heartbeat.Reset(w.req.Heartbeat)
	for {
		if w.shared.isRetired() {
			w.rematch(w.store.model.view())
		}
		u, now, recorded, changed := w.shared.next(w.store, w.sent, w.req.Have, w.id, w.since)
		if u != nil {
			if payloads := u.payloads(); len(payloads) > 0 && !recorded {
				err := w.store.parkUntil(ctx, func() error {
					return w.store.release(ctx, SetsGet, w.req.Project.String(), payloads, w.id, u.Revision)
				})
				if err != nil {
					return SetEvent{}, err
				}
			}
			first := w.sent == nil
			w.sent, w.req.Have = now, nil
			w.reported.Store(now)
			if u.empty() && !first {
				continue
			}
			w.note(u)
			return SetEvent{Set: u}, nil
		}
		select {
		case <-changed:
		case <-w.matches.Ready():
			_, ok, err := w.matches.TryNext()
			switch {
			case errors.Is(err, fanout.ErrLagged):
				v := w.store.model.view()
				w.matches.Resume(uint64(v.rev))
				w.rematch(v)
			case err != nil:
				return SetEvent{}, errStopping
			case ok:
				w.rematch(w.store.model.view())
			}
		case <-w.heartbeat.C:
			w.heartbeat.Reset(w.req.Heartbeat)
			return SetEvent{Heartbeat: true}, nil
		case <-ctx.Done():
			return SetEvent{}, context.Cause(ctx)
		}
	}
}

// note keeps the register of consumers and the status current.
func (w *SetStream) note(u *SetUpdate) {
	for i := range u.Items {
		it := &u.Items[i]
		if it.source.credential.ID != "" && it.State != ItemFailed {
			w.consumer.sent(it.source.credential, it.source.version, it.Injection.String(), u.Revision)
		}
	}
	if u.Whole || len(u.Removed) > 0 {
		w.consumer.keepOnly(w.sent)
	}
	w.store.sets.mu.Lock()
	defer w.store.sets.mu.Unlock()
	w.workload.sent = u.Revision
}

// keepOnly lets go of the credentials that a set no longer has.
func (c *consumer) keepOnly(b *builtSet) {
	has := make(map[resourcename.Credential]bool)
	for i := range b.items {
		has[b.items[i].source.credential] = true
	}
	c.reg.mu.Lock()
	defer c.reg.mu.Unlock()
	for name := range c.holds {
		if !has[name] {
			c.reg.unhold(c, name)
		}
	}
}

// Report takes in what the injector says it has done. It informs the status
// and the list of consumers and grants nothing.
func (w *SetStream) Report(r SetReport) {
	const maxFailures = 100
	failures := r.Failures[:min(len(r.Failures), maxFailures)]
	x := w.store.sets
	x.mu.Lock()
	w.workload.applied, w.workload.reported = r.Revision, time.Now()
	w.workload.failures = failures
	w.workload.goodbye = w.workload.goodbye || r.Goodbye
	x.mu.Unlock()
	failed := make(map[resourcename.Credential]bool)
	if b := w.reported.Load(); b != nil {
		for _, f := range r.Failures {
			if it := b.byID[f.ID]; it != nil {
				failed[it.source.credential] = true
			}
		}
	}
	w.consumer.applied(r.Revision, failed)
}

// Close ends the stream. Without a goodbye before, the workload counts as a
// consumer for a while longer.
func (w *SetStream) Close() {
	w.heartbeat.Stop()
	w.matches.Close()
	x := w.store.sets
	x.release(w.shared, w.id)
	x.mu.Lock()
	goodbye := w.workload.goodbye
	w.workload.gone = time.Now()
	if goodbye {
		delete(x.workloads, w.id)
	}
	x.mu.Unlock()
	w.consumer.leave(goodbye)
}

// enroll registers a stream's workload and forgets its earlier streams.
func (x *sets) enroll(id, principal, name string) *workload {
	x.mu.Lock()
	defer x.mu.Unlock()
	for other, w := range x.workloads {
		if !w.gone.IsZero() && w.principal == principal && w.name == name {
			delete(x.workloads, other)
		}
	}
	w := &workload{principal: principal, name: name}
	x.workloads[id] = w
	return w
}

// expire forgets workloads that vanished long enough ago.
func (x *sets) expire(now time.Time, memory time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, w := range x.workloads {
		if !w.gone.IsZero() && now.Sub(w.gone) >= memory {
			delete(x.workloads, id)
		}
	}
}

// GetInjectionStatus tells how an injection's items stand and what its
// workloads have applied.
func (s *Store) GetInjectionStatus(ctx context.Context, name resourcename.Injection) (*InjectionStatus, error) {
	if err := s.permit(ctx, InjectionsGet, name.Parent(), name); err != nil {
		return nil, err
	}
	v := s.model.view()
	inj, _, ok := lookup[*Injection](v, keyInjection(name))
	if !ok {
		return nil, notFound(name)
	}
	built, _ := s.buildSet(v, []*Injection{inj}, nil)
	out := &InjectionStatus{Name: name, Items: built.items}
	s.sets.mu.Lock()
	defer s.sets.mu.Unlock()
	for _, w := range s.sets.workloads {
		if !slices.Contains(w.injections, name) {
			continue
		}
		out.Workloads = append(out.Workloads, WorkloadStatus{
			Principal: w.principal, Workload: w.name, Connected: w.gone.IsZero(),
			SentRevision: w.sent, AppliedRevision: w.applied, ReportTime: w.reported, Failures: w.failures,
		})
	}
	slices.SortFunc(out.Workloads, func(a, b WorkloadStatus) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Principal, b.Principal))
	})
	return out, nil
}

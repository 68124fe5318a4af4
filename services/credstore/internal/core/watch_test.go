package core_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
	"github.com/credstore/credstore/services/credstore/internal/fanout"
	"github.com/credstore/credstore/services/credstore/internal/storage/sqlite"
)

// The six promises of Watch, each as a test by its name. Four of them are held
// against the same storm: concurrent writers with random creates, updates,
// deletes and batches, watched by every kind of query, some of them slow. What
// each watcher saw is compared afterwards with a ledger of what was committed.

const stormNames = 12

// queries are the kinds of watchers, for views with and without payloads.
func queries() []query {
	all := func(*core.Credential) bool { return true }
	named := []resourcename.Credential{cred("c-1"), cred("c-5"), cred("never"), cred("c-1")}
	kinds := []query{
		{name: "all", match: all},
		{name: "team a", req: core.WatchRequest{Filter: "labels.team = a"}, match: func(c *core.Credential) bool { return c.Labels["team"] == "a" }},
		{
			name: "basic, not team a", req: core.WatchRequest{Filter: `kind = basic AND labels.team != "a"`},
			match: func(c *core.Credential) bool { return c.Kind == "basic" && c.Labels["team"] != "a" },
		},
		{name: "names", req: core.WatchRequest{Names: named}, match: func(c *core.Credential) bool { return slices.Contains(named, c.Name) }},
		{
			name: "names in team b", req: core.WatchRequest{Names: named, Filter: "labels.team=b"},
			match: func(c *core.Credential) bool { return slices.Contains(named, c.Name) && c.Labels["team"] == "b" },
		},
	}
	var out []query
	for _, q := range kinds {
		for _, view := range []core.View{core.ViewMetadata, core.ViewPayload} {
			for _, slow := range []bool{false, true} {
				q.req.View, q.req.Heartbeat, q.slow = view, time.Second, slow
				v := q
				v.name = fmt.Sprintf("%s, view %d, slow %v", q.name, view, slow)
				out = append(out, v)
			}
		}
	}
	return out
}

// storms are the conditions under which the promises must hold.
var storms = []struct {
	name    string
	file    sqlite.Options
	hub     fanout.Limits
	replica bool
	// lags: watchers lose events and get brackets.
	lags bool
}{
	{name: "room for everything"},
	{name: "a fan-out of 8 events", hub: fanout.Limits{Events: 8, Pending: 4}, lags: true},
	// The writers are at another server, and the feed of this one falls behind
	// and goes on from the log, which no longer has every value.
	{name: "another server", file: sqlite.Options{FeedBuffer: 1}, replica: true},
}

// storm runs the writers and returns what each watcher saw, and the ledger.
func storm(t *testing.T, file sqlite.Options, hub fanout.Limits, replica bool, seed uint64) (map[string][]core.WatchEvent, func() *replay) {
	t.Helper()
	l := &ledger{slow: replica}
	h := coretest.NewOn(t, file, l.keep, func(c *core.Config) { c.Fanout = hub })
	for i := range stormNames / 2 {
		create(t, h, cred(fmt.Sprintf("c-%d", i)), "before")
	}
	store := h.Store
	if replica {
		store = h.Replica(t, l.join)
	}
	var final atomic.Uint64
	var mu sync.Mutex
	seen := make(map[string][]core.WatchEvent)
	var watchers, writers sync.WaitGroup
	for i, q := range queries() {
		watchers.Go(func() {
			if i%3 == 0 {
				time.Sleep(20 * time.Millisecond) // some begin in the middle
			}
			events := follow(t, h, q, &final)
			mu.Lock()
			defer mu.Unlock()
			seen[q.name] = events
		})
	}
	synctest.Wait()
	for i := range 6 {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := range 30 {
				write(t, store, random, fmt.Sprintf("%d-%d", i, n))
				if random.IntN(6) == 0 {
					time.Sleep(10 * time.Millisecond) // lets the slow ones in
				}
			}
		})
	}
	writers.Wait()
	final.Store(uint64(revision(t, h)))
	watchers.Wait()
	return seen, func() *replay { return l.replay(t, h.Sealer) }
}

// follow reads a stream until it has reached the final revision.
func follow(t *testing.T, h *coretest.Harness, q query, final *atomic.Uint64) []core.WatchEvent {
	w, err := tryWatch(t, h, q.req)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer w.Close()
	var events []core.WatchEvent
	synced := false
	for {
		ev, err := w.Next(t.Context())
		if err != nil {
			t.Errorf("%s: %v", q.name, err)
			return events
		}
		events = append(events, ev)
		switch ev.Kind {
		case core.EventReset:
			synced = false
		case core.EventSynced:
			synced = true
		}
		if f := final.Load(); f > 0 && synced && uint64(ev.Revision) >= f {
			return events
		}
		if q.slow {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// write does one random thing; losing a race is part of it.
func write(t *testing.T, s *core.Store, random *rand.Rand, mark string) {
	ctx := coretest.AdminContext(t)
	name := cred(fmt.Sprintf("c-%d", random.IntN(stormNames)))
	var err error
	switch random.IntN(10) {
	case 0, 1:
		_, err = s.CreateCredential(ctx, *randomCreate(t, random, name, mark))
	case 2:
		err = s.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: name, Force: true})
	case 3:
		_, err = s.ActivateVersion(ctx, core.ChangeVersionRequest{Name: name.Version(1)})
	case 4, 5, 6:
		r := core.BatchWriteRequest{Project: demoProject}
		for _, n := range random.Perm(stormNames)[:2+random.IntN(4)] {
			r.Operations = append(r.Operations, randomOperation(t, s, random, cred(fmt.Sprintf("c-%d", n)), mark))
		}
		_, err = s.BatchWrite(ctx, r)
	default:
		_, err = s.UpdateCredential(ctx, *randomUpdate(t, random, name, mark))
	}
	switch {
	case err == nil, errors.Is(err, core.ErrNotFound), errors.Is(err, core.ErrAlreadyExists), errors.Is(err, core.ErrAborted), errors.Is(err, core.ErrInvalid):
	default:
		t.Errorf("write: %v", err)
	}
}

func randomOperation(t *testing.T, s *core.Store, random *rand.Rand, name resourcename.Credential, mark string) core.BatchOperation {
	switch _, err := s.GetCredential(coretest.AdminContext(t), name); {
	case err != nil:
		return core.BatchOperation{Create: randomCreate(t, random, name, mark)}
	case random.IntN(4) == 0:
		return core.BatchOperation{Delete: &core.DeleteCredentialRequest{Name: name, Force: true}}
	}
	return core.BatchOperation{Update: randomUpdate(t, random, name, mark)}
}

func randomCreate(t *testing.T, random *rand.Rand, name resourcename.Credential, mark string) *core.CreateCredentialRequest {
	r := &core.CreateCredentialRequest{Name: name, Description: mark, Labels: randomLabels(random), Payload: coretest.Basic(t, "bot", "secret of "+mark)}
	if random.IntN(3) == 0 {
		r.Payload = coretest.VaultToken(t, "secret-of-"+mark)
	}
	return r
}

func randomUpdate(t *testing.T, random *rand.Rand, name resourcename.Credential, mark string) *core.UpdateCredentialRequest {
	r := &core.UpdateCredentialRequest{Name: name, Description: &mark}
	if random.IntN(2) == 0 {
		r.Payload = new(coretest.Basic(t, "bot", "secret of "+mark))
	}
	if random.IntN(2) == 0 {
		r.Labels = new(randomLabels(random))
	}
	return r
}

func randomLabels(random *rand.Rand) map[string]string {
	if team := []string{"", "a", "b"}[random.IntN(3)]; team != "" {
		return map[string]string{"team": team}
	}
	return nil
}

// inStorms runs a check over what each watcher saw in each storm.
func inStorms(t *testing.T, check func(t *testing.T, q query, events []core.WatchEvent, lags bool, truth func() *replay)) {
	for i, s := range storms {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen, truth := storm(t, s.file, s.hub, s.replica, uint64(i))
				brackets := 0
				for _, q := range queries() {
					check(t, q, seen[q.name], s.lags, truth)
					for _, ev := range seen[q.name] {
						if ev.Kind == core.EventCommit && ev.ResumeToken != "" && ev.Revision > ev.FromRevision+1 {
							brackets++
						}
					}
				}
				if s.lags && brackets == 0 {
					t.Error("no watcher fell behind: the storm does not test what it should")
				}
			})
		})
	}
}

// Ordered: revisions only grow, commits strictly, each from where the stream
// was.
func TestWatchOrdered(t *testing.T) {
	inStorms(t, func(t *testing.T, q query, events []core.WatchEvent, _ bool, _ func() *replay) {
		var reached, bracket core.Revision
		synced := false
		for i, ev := range events {
			switch ev.Kind {
			case core.EventReset:
				if i != 0 {
					t.Errorf("%s: reset in the middle, though nothing was compacted", q.name)
				}
			case core.EventSynced:
				synced = true
			case core.EventCommit:
				if !synced {
					break
				}
				// The parts of one bracket share both ends.
				if part := ev.Revision == bracket && ev.FromRevision < reached; ev.Revision <= reached && !part {
					t.Errorf("%s: commit %d after %d", q.name, ev.Revision, reached)
				} else if (ev.FromRevision < reached || ev.FromRevision >= ev.Revision) && !part {
					t.Errorf("%s: commit %d says that it goes on from %d; the stream was at %d", q.name, ev.Revision, ev.FromRevision, reached)
				}
				bracket = ev.Revision
			}
			if ev.Revision < reached {
				t.Errorf("%s: event %d of revision %d after %d", q.name, i, ev.Revision, reached)
			}
			reached = ev.Revision
		}
		if len(events) == 0 || events[0].Kind != core.EventReset || !synced {
			t.Errorf("%s: the stream does not begin with reset and come to synced", q.name)
		}
	})
}

// Unique: no state of a credential comes twice on one stream, and nothing is
// taken away that is not there.
func TestWatchUnique(t *testing.T) {
	inStorms(t, func(t *testing.T, q query, events []core.WatchEvent, lags bool, _ func() *replay) {
		put := make(map[string]bool)
		has := folded{}
		for _, ev := range events {
			if ev.Kind == core.EventCommit {
				names := make(map[string]bool)
				for _, ch := range ev.Commit.Changes {
					name := ch.Credential.Name.String()
					if names[name] {
						t.Errorf("%s: %s twice in one message", q.name, name)
					}
					names[name] = true
					switch _, known := has[name]; {
					case ch.Type == core.ChangePut && put[name+ch.Credential.Etag]:
						t.Errorf("%s: %s with etag %s came twice", q.name, name, ch.Credential.Etag)
					case ch.Type == core.ChangePut:
						put[name+ch.Credential.Etag] = true
					case !known && !lags:
						t.Errorf("%s: %s was taken away, which the stream does not have", q.name, name)
					}
				}
			}
			has.apply(t, ev)
		}
	})
}

// Atomic: whenever the stream has reached a revision, what the watcher has is
// the store at that revision and no mixture; a watcher that keeps up gets every
// commit as one message.
func TestWatchAtomic(t *testing.T) {
	inStorms(t, func(t *testing.T, q query, events []core.WatchEvent, lags bool, truth func() *replay) {
		store, has := truth(), folded{}
		for _, ev := range events {
			has.apply(t, ev)
			if ev.ResumeToken == "" {
				continue // in the middle of the state, or of a bracket
			}
			store.to(ev.Revision)
			equal(t, fmt.Sprintf("%s at revision %d", q.name, ev.Revision), map[string]string(has), store.visible(q))
		}
	})
}

// Reliable: the last state of every credential arrives, at every watcher.
func TestWatchReliable(t *testing.T) {
	inStorms(t, func(t *testing.T, q query, events []core.WatchEvent, _ bool, truth func() *replay) {
		store, has := truth(), folded{}
		for _, ev := range events {
			has.apply(t, ev)
		}
		store.to(1 << 62)
		equal(t, q.name+" in the end", map[string]string(has), store.visible(q))
	})
}

// A watcher that keeps up gets every commit that concerns it in a message of
// its own.
func TestWatchOneMessagePerCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		h := coretest.New(t, l.keep)
		w := watch(t, h, core.WatchRequest{})
		untilSynced(t, w)
		random := rand.New(rand.NewPCG(7, 7))
		var got []core.Revision
		for n := range 60 {
			write(t, h.Store, random, fmt.Sprint(n))
			synctest.Wait()
			for { // what is there now
				ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
				ev, err := w.Next(ctx)
				cancel()
				if err != nil {
					break
				}
				got = append(got, ev.Revision)
			}
		}
		var want []core.Revision
		for store := l.replay(t, h.Sealer); len(store.rest) > 0; {
			if rev, changed := store.step(); len(changed) > 0 {
				want = append(want, rev)
			}
		}
		equal(t, "revisions of the messages", got, want)
	})
}

// The words of the contract, in order: a put, what leaves a filter, what comes
// back, a delete, and of what never matched nothing.
func TestWatchFilterChanges(t *testing.T) {
	h := coretest.New(t)
	in, out := map[string]string{"team": "a"}, map[string]string{"team": "b"}
	create(t, h, demo, "one")
	uid := label(t, h, demo, in).UID
	w := watch(t, h, core.WatchRequest{View: core.ViewPayload, Filter: "labels.team = a"})
	equal(t, "the state", brief(untilSynced(t, w)), []string{"reset", "commit: put demo", "synced"})

	create(t, h, cred("other"), "never seen")
	rotate(t, h, cred("other"), "never seen")
	label(t, h, demo, out)
	rotate(t, h, demo, "while outside")
	label(t, h, demo, in)
	remove(t, h, cred("other"))
	remove(t, h, demo)
	var got []core.WatchEvent
	for range 3 {
		got = append(got, next(t, w))
	}
	equal(t, "the changes", brief(got), []string{"commit: left demo", "commit: put demo", "commit: delete demo"})
	if s := secretOf(got[1].Commit.Changes[0].Payload); s != "while outside" {
		t.Errorf("the credential came back with %q", s)
	}
	for _, ev := range []core.WatchEvent{got[0], got[2]} {
		ch := ev.Commit.Changes[0]
		equal(t, "what goes has only name and uid", ch.Credential, &core.Credential{Name: demo, UID: uid})
		if !ch.Payload.IsZero() {
			t.Error("a payload came with what goes")
		}
	}
}

// The metadata view never has a payload.
func TestWatchMetadataHasNoPayload(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	w := watch(t, h, core.WatchRequest{})
	events := untilSynced(t, w)
	rotate(t, h, demo, "two")
	for _, ev := range append(events, next(t, w)) {
		if ev.Kind == core.EventCommit && !ev.Commit.Changes[0].Payload.IsZero() {
			t.Error("a payload in the metadata view")
		}
	}
	for _, e := range h.Audit.Entries() {
		if len(e.Payloads) > 0 {
			t.Errorf("a payload is on record: %+v", e)
		}
	}
}

// A state that is too large for one message comes in several, and is whole at
// synced.
func TestWatchLargeState(t *testing.T) {
	h := coretest.New(t)
	const n = 40
	want := map[string]string{}
	for i := range n {
		c := create(t, h, cred(fmt.Sprintf("c-%d", i)), randomText(t, 60_000))
		want[c.Name.String()] = identity(c, password(t, h, c.Name, 0))
	}
	w := watch(t, h, core.WatchRequest{View: core.ViewPayload})
	events := untilSynced(t, w)
	has, commits := folded{}, 0
	for _, ev := range events {
		has.apply(t, ev)
		if ev.Kind == core.EventCommit {
			commits++
			if ev.ResumeToken != "" {
				t.Error("a resume token before synced")
			}
		}
	}
	equal(t, "the state at synced", map[string]string(has), want)
	if commits < 3 {
		t.Errorf("2.4 MB came in %d messages", commits)
	}
}

func randomText(t *testing.T, n int) string {
	t.Helper()
	const letters = "abcdefghijklmnopqrstuvwxyz"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}

// Resumable: a stream that goes on with a token gets what it missed, and
// nothing else, also after a restart.
func TestWatchResumable(t *testing.T) {
	// start returns a store with a, b and c, a watcher that has them, and its
	// token.
	start := func(t *testing.T, r core.WatchRequest) (*coretest.Harness, string) {
		h := coretest.New(t)
		for _, id := range []string{"a", "b", "c"} {
			create(t, h, cred(id), "before")
		}
		w := watch(t, h, r)
		events := untilSynced(t, w)
		return h, events[len(events)-1].ResumeToken
	}
	change := func(t *testing.T, h *coretest.Harness) {
		rotate(t, h, cred("a"), "after")
		rotate(t, h, cred("a"), "after that")
		remove(t, h, cred("b"))
		create(t, h, cred("d"), "new")
		create(t, h, cred("e"), "came and went")
		remove(t, h, cred("e"))
	}
	missed := []string{"commit: delete b, delete e, put a, put d", "synced"}

	t.Run("what was missed", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{View: core.ViewPayload})
		change(t, h)
		events := untilSynced(t, watch(t, h, core.WatchRequest{View: core.ViewPayload, ResumeToken: token}))
		equal(t, "events", brief(events), missed)
		has := folded{}
		has.apply(t, events[0])
		if s := secretOf(events[0].Commit.Changes[0].Payload); s != "after that" && len(has) != 2 {
			t.Errorf("the state of a is %q", s)
		}
	})
	t.Run("a restart, and nothing changed", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{})
		h.Stop(t)
		h.Start(t)
		w := watch(t, h, core.WatchRequest{ResumeToken: token})
		equal(t, "events", brief(untilSynced(t, w)), []string{"synced"})
		rotate(t, h, cred("c"), "later")
		equal(t, "and then", brief([]core.WatchEvent{next(t, w)}), []string{"commit: put c"})
	})
	t.Run("changes before the restart", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{})
		b, err := h.Store.GetCredential(coretest.AdminContext(t), cred("b"))
		if err != nil {
			t.Fatal(err)
		}
		change(t, h)
		h.Stop(t)
		h.Start(t)
		events := untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))
		equal(t, "events", brief(events), missed)
		for _, ch := range events[0].Commit.Changes {
			if ch.Credential.UID == "" || ch.Credential.Name == b.Name && ch.Credential.UID != b.UID {
				t.Errorf("a change of %s with uid %q", ch.Credential.Name, ch.Credential.UID)
			}
		}
	})
	t.Run("changes after the restart", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{})
		h.Stop(t)
		h.Start(t)
		change(t, h)
		equal(t, "events", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))), missed)
	})
	t.Run("names and filter", func(t *testing.T) {
		r := core.WatchRequest{Names: []resourcename.Credential{cred("a"), cred("b"), cred("d")}, Filter: "labels.team != x"}
		h, r2 := (*coretest.Harness)(nil), r
		h, r2.ResumeToken = start(t, r)
		label(t, h, cred("a"), map[string]string{"team": "x"})
		rotate(t, h, cred("c"), "of no interest")
		remove(t, h, cred("b"))
		slices.Reverse(r2.Names) // the same query
		equal(t, "events", brief(untilSynced(t, watch(t, h, r2))), []string{"commit: delete b, left a", "synced"})
	})
	t.Run("again and again", func(t *testing.T) {
		synctest.Test(t, testResumeAgain)
	})

	// Everything else that decodes is answered with the whole state.
	whole := []string{"reset", "commit: put a, put b, put c", "synced"}
	t.Run("another store", func(t *testing.T) {
		_, token := start(t, core.WatchRequest{})
		h, _ := start(t, core.WatchRequest{})
		equal(t, "events", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))), whole)
	})
	t.Run("a restored backup", func(t *testing.T) {
		l := &ledger{}
		h := coretest.New(t, l.keep)
		create(t, h, cred("a"), "before")
		events := untilSynced(t, watch(t, h, core.WatchRequest{}))
		h.Stop(t)
		l.feedID = "a history of its own"
		h.Start(t)
		w := watch(t, h, core.WatchRequest{ResumeToken: events[len(events)-1].ResumeToken})
		equal(t, "events", brief(untilSynced(t, w)), []string{"reset", "commit: put a", "synced"})
	})
	t.Run("another query", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{})
		for what, r := range map[string]core.WatchRequest{
			"view":   {View: core.ViewPayload},
			"filter": {Filter: "kind = basic"},
			"names":  {Names: []resourcename.Credential{cred("a"), cred("b"), cred("c")}},
		} {
			r.ResumeToken = token
			equal(t, what, brief(untilSynced(t, watch(t, h, r))), whole)
		}
		if _, err := h.Store.CreateProject(coretest.AdminContext(t), core.CreateProjectRequest{Name: resourcename.Project{ID: "other"}}); err != nil {
			t.Fatal(err)
		}
		w := watch(t, h, core.WatchRequest{Project: resourcename.Project{ID: "other"}, ResumeToken: token})
		equal(t, "project", brief(untilSynced(t, w)), []string{"reset", "synced"})
	})
	t.Run("a copy put back", func(t *testing.T) {
		h, _ := start(t, core.WatchRequest{})
		h.Stop(t)
		copied := h.File() + ".copy"
		copyFile(t, h.File(), copied)
		h.Start(t)
		rotate(t, h, cred("a"), "lost")
		rotate(t, h, cred("b"), "lost too")
		w := watch(t, h, core.WatchRequest{})
		events := untilSynced(t, w)
		token := events[len(events)-1].ResumeToken
		h.Stop(t)
		copyFile(t, copied, h.File())
		h.Start(t)
		// The store is behind the token ...
		equal(t, "a token from the future", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))), whole)
		// ... and then at the same revision, by another way.
		rotate(t, h, cred("c"), "diverged")
		rotate(t, h, cred("c"), "diverged further")
		if got := revision(t, h); got != events[len(events)-1].Revision {
			t.Fatalf("the store is at %d, the token at %d", got, events[len(events)-1].Revision)
		}
		equal(t, "a token of another past", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))), whole)
	})
	t.Run("too old", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{})
		rotate(t, h, cred("a"), "after")
		w := watch(t, h, core.WatchRequest{})
		events := untilSynced(t, w)
		young := events[len(events)-1].ResumeToken
		if err := h.Storage.Compact(t.Context(), revision(t, h)); err != nil {
			t.Fatal(err)
		}
		h.Stop(t)
		h.Start(t)
		equal(t, "events", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))), whole)
		equal(t, "events of the newest token", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: young}))), []string{"synced"})
	})
	t.Run("too old, without a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, token := start(t, core.WatchRequest{})
			remove(t, h, cred("b"))
			create(t, h, cred("b"), "again")
			if err := h.Storage.Compact(t.Context(), revision(t, h)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			equal(t, "events", brief(untilSynced(t, watch(t, h, core.WatchRequest{ResumeToken: token}))), whole)
		})
	})
	t.Run("garbage", func(t *testing.T) {
		h, token := start(t, core.WatchRequest{})
		flipped := []byte(token)
		flipped[len(flipped)/2] ^= 1
		for what, bad := range map[string]string{
			"no token": "hello", "a space": " ", "cut off": token[:len(token)-1], "doubled": token + token, "one letter": string(flipped),
			"padded": token + "=", "a line break": token + "\n", "long": string(make([]byte, 1<<16)), "binary": "\xff\x00\xfe",
		} {
			_, err := tryWatch(t, h, core.WatchRequest{ResumeToken: bad})
			wantField(t, what, err, "resumeToken")
		}
	})
}

// A watcher that drops its stream at random places and resumes has, whenever it
// has a token, what the store had.
func testResumeAgain(t *testing.T) {
	l := &ledger{}
	h := coretest.New(t, l.keep)
	q := query{req: core.WatchRequest{View: core.ViewPayload, Filter: "labels.team != b", Heartbeat: time.Second}, match: func(c *core.Credential) bool { return c.Labels["team"] != "b" }}
	random := rand.New(rand.NewPCG(3, 3))
	has, saved, token := folded{}, folded{}, ""
	var at core.Revision
	for round := range 40 {
		q.req.ResumeToken = token
		w, err := tryWatch(t, h, q.req)
		if err != nil {
			t.Fatal(err)
		}
		clear(has)
		maps.Copy(has, saved)
		for range random.IntN(6) {
			write(t, h.Store, random, fmt.Sprint(round))
		}
		for range 1 + random.IntN(5) {
			ev := next(t, w)
			if ev.Kind == core.EventReset && token != "" {
				t.Fatal("reset on a good token")
			}
			has.apply(t, ev)
			if ev.ResumeToken == "" {
				continue
			}
			token, at = ev.ResumeToken, ev.Revision
			clear(saved)
			maps.Copy(saved, has)
		}
		w.Close()
		if round%8 == 7 {
			h.Stop(t)
			h.Start(t)
		}
		store := l.replay(t, h.Sealer)
		store.to(at)
		equal(t, fmt.Sprintf("round %d at revision %d", round, at), map[string]string(saved), store.visible(q))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// Bookmarkable: an idle stream gets tokens that resume, however long nothing
// happens, and that are beyond what does not concern it.
func TestWatchBookmarkable(t *testing.T) {
	heartbeat := func(t *testing.T, w *core.CredentialWatch) core.WatchEvent {
		t.Helper()
		ev := next(t, w)
		if ev.Kind != core.EventHeartbeat || ev.ResumeToken == "" {
			t.Fatalf("%v with token %q; want a heartbeat with one", brief([]core.WatchEvent{ev}), ev.ResumeToken)
		}
		return ev
	}
	t.Run("at the interval asked for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := coretest.New(t)
			w := watch(t, h, core.WatchRequest{Heartbeat: 7 * time.Second})
			untilSynced(t, w)
			for range 3 {
				begin := time.Now()
				heartbeat(t, w)
				if d := time.Since(begin); d != 7*time.Second {
					t.Errorf("a heartbeat after %s", d)
				}
			}
			for _, d := range []time.Duration{time.Second - 1, time.Hour + 1, -time.Second} {
				_, err := tryWatch(t, h, core.WatchRequest{Heartbeat: d})
				wantField(t, d.String(), err, "heartbeatInterval")
			}
		})
	})
	t.Run("beyond the changes of others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := coretest.New(t)
			r := core.WatchRequest{Names: []resourcename.Credential{cred("mine")}, Heartbeat: time.Second}
			w := watch(t, h, r)
			create(t, h, cred("mine"), "one")
			untilSynced(t, w)
			for i := range 5 {
				create(t, h, cred(fmt.Sprintf("other-%d", i)), "x")
			}
			var ev core.WatchEvent
			for ev.Kind != core.EventHeartbeat {
				ev = next(t, w)
			}
			if now := revision(t, h); ev.Revision != now {
				t.Errorf("the heartbeat is at %d, the store at %d", ev.Revision, now)
			}
			// History up to the bookmark goes; the bookmark holds.
			if err := h.Storage.Compact(t.Context(), ev.Revision); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			r.ResumeToken = ev.ResumeToken
			equal(t, "events", brief(untilSynced(t, watch(t, h, r))), []string{"synced"})
			rotate(t, h, cred("mine"), "two")
			equal(t, "events", brief(untilSynced(t, watch(t, h, r))), []string{"commit: put mine", "synced"})
		})
	})
	t.Run("when all history is too old", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := coretest.New(t)
			create(t, h, demo, "one")
			r := core.WatchRequest{Heartbeat: time.Hour}
			w := watch(t, h, r)
			untilSynced(t, w)
			for range 26 {
				r.ResumeToken = heartbeat(t, w).ResumeToken
			}
			info, err := h.Storage.Info(t.Context())
			if err != nil || info.Compacted != info.Revision {
				t.Fatalf("after 26 hours: %+v, %v; want all compacted", info, err)
			}
			equal(t, "events", brief(untilSynced(t, watch(t, h, r))), []string{"synced"})
			h.Stop(t)
			h.Start(t)
			w = watch(t, h, r)
			equal(t, "events after a restart", brief(untilSynced(t, w)), []string{"synced"})
			heartbeat(t, w)
		})
	})
}

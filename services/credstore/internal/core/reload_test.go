package core_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
	"github.com/credstore/credstore/services/credstore/internal/storage/sqlite"
)

// A Store whose feed was compacted under it takes a snapshot and goes on: its
// watchers, sets, sessions and callers get what they missed.
func TestFeedCompactedUnderTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{slow: true}
		h := coretest.NewOn(t, sqlite.Options{FeedBuffer: 1}, l.keep)
		writer := h.Replica(t, l.join)
		ctx := coretest.AdminContext(t)
		create(t, h, demo, "one")
		create(t, h, cred("doomed"), "x")
		inject(t, h, "web", "web", file("f", demo))
		tok, secret := issue(t, h, core.CreateTokenRequest{})
		p, err := h.Store.Authenticate(ctx, secret)
		if err != nil {
			t.Fatal(err)
		}
		session, done := h.Store.Session(ctx, p)
		defer done()
		q := query{req: core.WatchRequest{View: core.ViewPayload, Heartbeat: time.Second}, match: func(*core.Credential) bool { return true }}
		w := watch(t, h, q.req)
		has := folded{}
		var token string
		for _, ev := range untilSynced(t, w) {
			has.apply(t, ev)
			token = ev.ResumeToken
		}
		set, onDisk := openSet(t, h, "web", core.OpenSetRequest{Heartbeat: time.Hour}), newDisk()
		onDisk.apply(t, nextSet(t, set))

		// The other server writes while this one waits for its feed, and then all
		// history goes.
		for i := range 40 {
			if _, err := writer.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Payload: new(coretest.Basic(t, "a", fmt.Sprint("new ", i)))}); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: cred("doomed"), Force: true}); err != nil {
			t.Fatal(err)
		}
		if err := writer.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: tok.Name}); err != nil {
			t.Fatal(err)
		}
		if c, err := h.Store.GetCredential(ctx, demo); err != nil || c.ActiveVersion != 1 {
			t.Fatalf("this server is not behind: %+v, %v", c, err)
		}
		if err := h.Storage.Compact(ctx, revision(t, h)); err != nil {
			t.Fatal(err)
		}
		// A caller that waits for its own change gets through.
		create(t, h, cred("late"), "y")
		if c, err := h.Store.GetCredential(ctx, demo); err != nil || c.ActiveVersion != 41 {
			t.Errorf("after the reload: %+v, %v", c, err)
		}
		if cause := context.Cause(session); !errors.Is(cause, core.ErrUnauthenticated) {
			t.Errorf("the session of a token that is gone: %v", cause)
		}
		synctest.Wait() // callers hear of a reload before the streams do
		events := until(t, w, func(ev core.WatchEvent) bool { return ev.Kind == core.EventHeartbeat })
		for _, ev := range events {
			has.apply(t, ev)
		}
		store := l.replay(t, h.Sealer)
		store.to(1 << 62)
		equal(t, "what the watcher has", map[string]string(has), store.visible(q))
		if events[0].Kind != core.EventReset {
			t.Errorf("deletions are forgotten, and the stream goes on without a reset: %v", brief(events))
		}
		onDisk.apply(t, nextSet(t, set))
		equal(t, "what the workload has", onDisk.contents, map[string]string{"web/f": "new 39"})

		// Old tokens are too old, new ones good.
		q.req.ResumeToken = token
		if got := brief(untilSynced(t, watch(t, h, q.req))); got[0] != "reset" {
			t.Errorf("a token from before: %v", got)
		}
		q.req.ResumeToken = events[len(events)-1].ResumeToken
		equal(t, "a token from after", brief(untilSynced(t, watch(t, h, q.req))), []string{"synced"})
		rotate(t, h, demo, "last")
		equal(t, "and on", brief([]core.WatchEvent{next(t, w)}), []string{"commit: put demo"})
	})
}

// A compaction between the steps of loading means to begin again.
func TestLoadDuringCompaction(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	rotate(t, h, demo, "two")
	h.Stop(t)
	c := &compacting{}
	h.Start(t, func(cfg *core.Config) { c.Storage, cfg.Storage = cfg.Storage, c })
	if c.times != 1 {
		t.Errorf("compacted %d times", c.times)
	}
	if s := password(t, h, demo, 0); s != "two" {
		t.Errorf("%q", s)
	}
	rotate(t, h, demo, "three")
}

// compacting forgets all history just before the first feed.
type compacting struct {
	core.Storage

	once  sync.Once
	times int
}

func (c *compacting) Feed(ctx context.Context, after core.Revision) (core.Feed, error) {
	c.once.Do(func() {
		info, err := c.Info(ctx)
		if err != nil || c.Compact(ctx, info.Revision) != nil {
			return
		}
		c.times++
	})
	return c.Storage.Feed(ctx, after)
}

// A storage that fails is an answer, in plain words, and not the end.
func TestStorageFailure(t *testing.T) {
	f := &failing{}
	h := coretest.New(t, func(c *core.Config) { f.Storage, c.Storage = c.Storage, f })
	ctx := coretest.AdminContext(t)
	create(t, h, demo, "one")
	f.fail(errDisk)
	for _, mut := range mutations() {
		switch mut.method { // those that need nothing, or only demo
		case "CreateProject", "CreateToken", "UpdateCredential", "DeleteCredential", "DeclareUsage", "CreateInjection":
			_, err := mut.call(t, ctx, h.Store, core.Mutation{})
			wantReason(t, mut.method, err, core.ErrUnavailable, core.ReasonStorage)
			if err != nil && errors.Is(err, errDisk) {
				t.Errorf("%s tells what the disk said: %v", mut.method, err)
			}
		}
	}
	if s := password(t, h, demo, 0); s != "one" {
		t.Errorf("reads: %q", s)
	}
	f.fail(nil)
	rotate(t, h, demo, "two")

	// A call that is given up says so.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := h.Store.CreateCredential(gone, core.CreateCredentialRequest{Name: cred("x"), Payload: coretest.Basic(t, "a", "b")})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
}

// failing is a storage whose commits fail when told to.
type failing struct {
	core.Storage

	mu  sync.Mutex
	err error
}

func (f *failing) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) Commit(ctx context.Context, b core.Batch) (core.Revision, error) {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.Storage.Commit(ctx, b)
}

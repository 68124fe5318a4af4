package core_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
	"github.com/credstore/credstore/services/credstore/internal/fanout"
)

// Watchers that never read hold little memory and make nobody wait; when they
// begin to read they end with exactly the store's state.
func TestWatchersThatNeverRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			watchers = 40
			changes  = 400
			size     = 60_000
		)
		h := coretest.New(t, func(c *core.Config) { c.Fanout = fanout.Limits{Bytes: 1 << 20} })
		create(t, h, demo, "before")
		q := query{req: core.WatchRequest{View: core.ViewPayload}, match: func(*core.Credential) bool { return true }}
		var asleep []*core.CredentialWatch
		for i := range watchers {
			w := watch(t, h, q.req)
			if i%2 == 0 { // half of them have read the state
				untilSynced(t, w)
			}
			asleep = append(asleep, w)
		}
		awake := watch(t, h, q.req)
		untilSynced(t, awake)

		before, begin := heap(), time.Now()
		for i := range changes {
			name := cred(fmt.Sprintf("large-%d", i))
			create(t, h, name, randomText(t, size))
			remove(t, h, name)
			// Who reads gets each commit by itself, at once.
			got := brief([]core.WatchEvent{next(t, awake), next(t, awake)})
			equal(t, "what the one that reads gets", got, []string{"commit: put " + name.ID, "commit: delete " + name.ID})
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("somebody waited: %s passed", d)
		}
		// 24 MB of payloads went by; the fan-out may hold 1 MiB of it.
		if grown := int64(heap()) - int64(before); grown > 8<<20 {
			t.Errorf("the heap grew by %d KiB while %d watchers read nothing", grown>>10, watchers)
		}
		runtime.KeepAlive(asleep)

		rotate(t, h, demo, "after")
		create(t, h, cred("last"), "one")
		want := folded{}
		for _, id := range []string{"demo", "last"} {
			c, err := h.Store.GetCredential(coretest.AdminContext(t), cred(id))
			if err != nil {
				t.Fatal(err)
			}
			want[c.Name.String()] = identity(c, password(t, h, c.Name, 0))
		}
		for i, w := range asleep {
			has, from := folded{}, core.Revision(0)
			if i%2 == 0 {
				has["projects/default/credentials/demo"] = "before"
			}
			events := until(t, w, func(ev core.WatchEvent) bool { return ev.Kind == core.EventHeartbeat })
			for _, ev := range events {
				has.apply(t, ev)
				if ev.Kind == core.EventCommit && ev.ResumeToken != "" {
					from = ev.FromRevision
				}
			}
			equal(t, fmt.Sprintf("what watcher %d has", i), has, want)
			// One bracket, from where it was to now; not 800 commits.
			if n := len(events); n > 8 || from == 0 {
				t.Errorf("watcher %d caught up in %d events, the last from %d: %v", i, n, from, brief(events))
			}
		}
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one made weak
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// openSet opens a stream for a workload of an app; the test's cleanup closes
// it.
func openSet(t *testing.T, h *coretest.Harness, app string, r core.OpenSetRequest) *core.SetStream {
	t.Helper()
	r.Project = demoProject
	if r.Workload == "" {
		r.Workload = app + "-0"
	}
	s, err := h.Store.OpenSet(workload(t, app), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// nextSet returns the next set of a stream, past heartbeats.
func nextSet(t *testing.T, s *core.SetStream) *core.SetUpdate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	defer cancel()
	for {
		ev, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		if ev.Set != nil {
			return ev.Set
		}
	}
}

// nothing checks, in a bubble, that a stream has only a heartbeat to give.
func nothing(t *testing.T, what string, s *core.SetStream) {
	t.Helper()
	synctest.Wait()
	if ev, err := s.Next(t.Context()); err != nil || !ev.Heartbeat {
		t.Errorf("%s: %v, %v; want a heartbeat", what, ev.Set, err)
	}
}

// disk is what an injector has: it folds updates as one would.
type disk struct {
	digests, contents map[string]string
	states            map[string]core.ItemState
	messages          map[string]string
	revision          core.Revision
}

func newDisk() *disk {
	return &disk{digests: map[string]string{}, contents: map[string]string{}, states: map[string]core.ItemState{}, messages: map[string]string{}}
}

func (d *disk) apply(t *testing.T, u *core.SetUpdate) {
	t.Helper()
	if u.Revision < d.revision {
		t.Errorf("a set of revision %d after %d", u.Revision, d.revision)
	}
	d.revision = u.Revision
	if u.Whole {
		keep := make(map[string]bool)
		for _, it := range u.Items {
			keep[it.ID] = true
		}
		for id := range d.states {
			if !keep[id] {
				d.forget(id)
			}
		}
	}
	for _, id := range u.Removed {
		if _, ok := d.states[id]; !ok {
			t.Errorf("%s is removed, and was never there", id)
		}
		d.forget(id)
	}
	for _, it := range u.Items {
		d.states[it.ID], d.messages[it.ID] = it.State, it.Message
		content, sent := u.Contents[it.ID]
		switch {
		case sent:
			d.contents[it.ID] = string(content)
		case it.State != core.ItemFailed && d.digests[it.ID] != it.Digest:
			t.Errorf("%s is new and has no content", it.ID)
		}
		if it.State != core.ItemFailed {
			d.digests[it.ID] = it.Digest
		}
	}
	for id := range u.Contents {
		if _, ok := d.states[id]; !ok {
			t.Errorf("content of %s, which is no item", id)
		}
	}
}

func (d *disk) forget(id string) {
	for _, m := range []map[string]string{d.digests, d.contents, d.messages} {
		delete(m, id)
	}
	delete(d.states, id)
}

// ids shows what an update changes.
func ids(u *core.SetUpdate) []string {
	var out []string
	for _, it := range u.Items {
		s := it.ID
		if _, ok := u.Contents[it.ID]; ok {
			s += " with content"
		}
		out = append(out, s)
	}
	for _, id := range u.Removed {
		out = append(out, id+" removed")
	}
	slices.Sort(out)
	return out
}

func TestSetWholeThenDeltas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		create(t, h, demo, "one")
		create(t, h, cred("other"), "two")
		grouped := file("b", cred("other"))
		grouped.Group, grouped.File.Mode, grouped.File.UID = "db", 0o440, new(uint32(1000))
		inject(t, h, "web", "web", file("a", demo), grouped)
		s := openSet(t, h, "web", core.OpenSetRequest{})
		d := newDisk()
		u := nextSet(t, s)
		d.apply(t, u)
		if !u.Whole {
			t.Error("the first message is not whole")
		}
		equal(t, "the first message", ids(u), []string{"web/a with content", "web/b with content"})
		equal(t, "on disk", d.contents, map[string]string{"web/a": "one", "web/b": "two"})
		b := u.Items[1]
		equal(t, "an item", []any{b.Injection, b.File, b.Group, b.State, b.Version}, []any{
			injectionName("web"), core.FileTarget{Path: "b", Mode: 0o440, UID: new(uint32(1000))}, "db", core.ItemOK, "projects/default/credentials/other/versions/1",
		})
		if u.Items[0].File.Mode != 0o400 || u.Revision != revision(t, h) {
			t.Errorf("the default mode is %o; the set's revision %d of %d", u.Items[0].File.Mode, u.Revision, revision(t, h))
		}
		nothing(t, "idle", s)

		rotate(t, h, demo, "three")
		u = nextSet(t, s)
		d.apply(t, u)
		equal(t, "a new payload", ids(u), []string{"web/a with content"})
		if u.Whole || u.Revision != revision(t, h) {
			t.Errorf("whole %v, revision %d of %d", u.Whole, u.Revision, revision(t, h))
		}
		// What does not concern the set does not touch it.
		label(t, h, demo, map[string]string{"a": "b"})
		create(t, h, cred("unrelated"), "x")
		inject(t, h, "api", "api", file("a", cred("unrelated")))
		rotate(t, h, cred("unrelated"), "y")
		nothing(t, "changes of others", s)

		// A target moves, a group changes, an item goes and one comes, at once.
		grouped.Group = "cache"
		if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{grouped, file("c/d", demo)}}); err != nil {
			t.Fatal(err)
		}
		u = nextSet(t, s)
		d.apply(t, u)
		equal(t, "new items", ids(u), []string{"web/a removed", "web/b", "web/c/d with content"})
		equal(t, "on disk", d.contents, map[string]string{"web/b": "two", "web/c/d": "three"})
		grouped.File.Mode = 0o400
		if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{grouped, file("c/d", demo)}}); err != nil {
			t.Fatal(err)
		}
		u = nextSet(t, s)
		equal(t, "a new mode", ids(u), []string{"web/b with content"})
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
			t.Fatal(err)
		}
		u = nextSet(t, s)
		if got := string(u.Contents["web/c/d"]); got != "one" {
			t.Errorf("after the older version was activated: %q", got)
		}
	})
}

// What the injector has already is not sent again; a digest says nothing of
// the content and is the same after a restart.
func TestSetHave(t *testing.T) { synctest.Test(t, testSetHave) }

func testSetHave(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	create(t, h, cred("other"), "one")
	inject(t, h, "web", "web", file("a", demo), file("b", cred("other")))
	first := nextSet(t, openSet(t, h, "web", core.OpenSetRequest{}))
	have := map[string]string{"web/gone": "x"}
	for _, it := range first.Items {
		have[it.ID] = it.Digest
	}
	if have["web/a"] == have["web/b"] {
		t.Error("the same content in two items has the same digest")
	}
	h.Stop(t)
	h.Start(t)
	before := len(departures(h))
	u := nextSet(t, openSet(t, h, "web", core.OpenSetRequest{Have: have}))
	equal(t, "with all of it", ids(u), []string{"web/a", "web/b"})
	if !u.Whole || len(departures(h)) != before {
		t.Errorf("whole %v; %d lines for what did not leave", u.Whole, len(departures(h))-before)
	}
	rotate(t, h, demo, "two")
	synctest.Wait() // until the stream before is told
	before = len(departures(h))
	s := openSet(t, h, "web", core.OpenSetRequest{Have: have})
	u = nextSet(t, s)
	equal(t, "with some of it", ids(u), []string{"web/a with content", "web/b"})
	equal(t, "their line", lines(departures(h)[before:]), []string{"sets.get demo/versions/2 to 1"})
	// It is only where the stream begins.
	rotate(t, h, cred("other"), "two")
	equal(t, "later", ids(nextSet(t, s)), []string{"web/b with content"})
	// One who lies about what it has only gets more.
	u = nextSet(t, openSet(t, h, "web", core.OpenSetRequest{Have: map[string]string{"web/a": have["web/b"], "web/b": ""}}))
	equal(t, "with wrong digests", ids(u), []string{"web/a with content", "web/b with content"})
}

// put commits what a poll of an external store brought.
func put(t *testing.T, h *coretest.Harness, st *core.SecretStore, path string, u core.ValueUpdate) bool {
	t.Helper()
	changed, err := h.Store.PutValue(coretest.AdminContext(t), core.Locator{Project: st.Name.Project, StoreUID: st.UID, Path: path}, u)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func data(key, value string) map[string][]byte { return map[string][]byte{key: []byte(value)} }

// The states of an external secret, as a stream and a newcomer see them.
func TestSetOfValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		st := vaultStore(t, h, "team")
		inject(t, h, "web", "web", secretFile("key", "team", "app/db", "password"), secretFile("whole", "team", "app/db", ""))
		s, d := openSet(t, h, "web", core.OpenSetRequest{}), newDisk()
		d.apply(t, nextSet(t, s))
		const key, whole = "web/key", "web/whole"
		both := func(k, w string) map[string]string { return map[string]string{key: k, whole: w} }
		equal(t, "before the first poll", d.states, map[string]core.ItemState{key: core.ItemFailed, whole: core.ItemFailed})

		steps := []struct {
			what    string
			update  core.ValueUpdate
			state   core.ItemState
			message string
			content map[string]string // on the stream's disk
			// newcomer: it gets the content.
			newcomer bool
		}{
			{"first value", core.ValueUpdate{State: core.ValueOK, Version: "1", Data: data("password", "one")}, core.ItemOK, "", both("one", `{"password":"one"}`), true},
			{"unavailable", core.ValueUpdate{State: core.ValueUnavailable, Message: "sealed"}, core.ItemStale, "sealed", both("one", `{"password":"one"}`), true},
			{"refused", core.ValueUpdate{State: core.ValueRefused, Message: "permission denied"}, core.ItemStale, "permission denied", both("one", `{"password":"one"}`), true},
			{"back, unchanged", core.ValueUpdate{State: core.ValueOK, Version: "1", Data: data("password", "one")}, core.ItemOK, "", both("one", `{"password":"one"}`), true},
			{"changed", core.ValueUpdate{State: core.ValueOK, Version: "2", Data: data("password", "two")}, core.ItemOK, "", both("two", `{"password":"two"}`), true},
			{"deleted", core.ValueUpdate{State: core.ValueDeleted, Message: "version 2 is deleted"}, core.ItemFailed, "version 2 is deleted", both("two", `{"password":"two"}`), false},
			// What the store said is gone does not come back because it cannot be
			// asked any more.
			{"deleted, then unavailable", core.ValueUpdate{State: core.ValueUnavailable, Message: "timeout"}, core.ItemFailed, "timeout", both("two", `{"password":"two"}`), false},
			{"deleted, then refused", core.ValueUpdate{State: core.ValueRefused, Message: "denied"}, core.ItemFailed, "denied", both("two", `{"password":"two"}`), false},
			{"undeleted", core.ValueUpdate{State: core.ValueOK, Version: "2", Data: data("password", "two")}, core.ItemOK, "", both("two", `{"password":"two"}`), true},
			{"missing", core.ValueUpdate{State: core.ValueMissing, Message: "no such secret"}, core.ItemFailed, "no such secret", both("two", `{"password":"two"}`), false},
			{"destroyed", core.ValueUpdate{State: core.ValueDestroyed, Message: "destroyed"}, core.ItemFailed, "destroyed", both("two", `{"password":"two"}`), false},
			{"written again", core.ValueUpdate{State: core.ValueOK, Version: "1", Data: data("password", "new")}, core.ItemOK, "", both("new", `{"password":"new"}`), true},
		}
		for _, step := range steps {
			if !put(t, h, st, "app/db", step.update) {
				t.Errorf("%s: nothing changed", step.what)
			}
			if put(t, h, st, "app/db", step.update) {
				t.Errorf("%s: the same again is a change", step.what)
			}
			d.apply(t, nextSet(t, s))
			equal(t, step.what, d.states, map[string]core.ItemState{key: step.state, whole: step.state})
			equal(t, step.what, d.messages, both(step.message, step.message))
			equal(t, step.what+": on disk", d.contents, step.content)
			nothing(t, step.what, s)

			// A newcomer, also after a restart, while the store may be down.
			u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			if step.newcomer {
				want = step.content
			}
			got := map[string]string{}
			for id, c := range u.Contents {
				got[id] = string(c)
			}
			equal(t, step.what+": to a newcomer", got, want)
			status, err := h.Store.GetInjectionStatus(coretest.AdminContext(t), injectionName("web"))
			if err != nil || status.Items[0].State != step.state || status.Items[0].Message != step.message {
				t.Errorf("%s: the status is %+v, %v", step.what, status.Items[0], err)
			}
		}

		// A key that the secret does not have fails by itself.
		put(t, h, st, "app/db", core.ValueUpdate{State: core.ValueOK, Version: "9", Data: data("other", "x")})
		d.apply(t, nextSet(t, s))
		equal(t, "without the key", d.states, map[string]core.ItemState{key: core.ItemFailed, whole: core.ItemOK})
		equal(t, "without the key, on disk", d.contents, both("new", `{"other":"x"}`))

		// One that is too large is refused, and the last good one stays.
		put(t, h, st, "app/db", core.ValueUpdate{State: core.ValueOK, Version: "10", Data: data("password", strings.Repeat("x", core.MaxSecretValue))})
		d.apply(t, nextSet(t, s))
		equal(t, "too large", d.states, map[string]core.ItemState{key: core.ItemFailed, whole: core.ItemStale})

		// The last good value outlives a restart while the store is down.
		h.Stop(t)
		h.Start(t)
		u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
		if err != nil || string(u.Contents[whole]) != `{"other":"x"}` {
			t.Errorf("after a restart: %v, %v", ids(u), err)
		}
		// A value whose store is gone is dropped.
		if changed, err := h.Store.PutValue(t.Context(), core.Locator{Project: "default", StoreUID: "no such"}, core.ValueUpdate{State: core.ValueOK, Data: data("a", "b")}); changed || err != nil {
			t.Errorf("a value of no store: %v, %v", changed, err)
		}
	})
}

// The janitor lets go of values that no injection wants any more.
func TestValuesThatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		st := vaultStore(t, h, "team")
		inject(t, h, "web", "web", secretFile("a", "team", "app/a", "k"), secretFile("b", "team", "app/b", "k"))
		for _, p := range []string{"app/a", "app/b"} {
			put(t, h, st, p, core.ValueUpdate{State: core.ValueOK, Version: "1", Data: data("k", p)})
		}
		list, changed := h.Store.Wanted()
		if len(list) != 2 || list[0].Locator.Path != "app/a" || !strings.HasSuffix(list[0].Login, "/1") {
			t.Errorf("wanted: %+v", list)
		}
		if _, err := h.Store.UpdateInjection(coretest.AdminContext(t), core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{secretFile("b", "team", "app/b", "k")}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("the list changed and did not tell")
		}
		time.Sleep(2 * time.Minute)
		for p, want := range map[string]bool{"app/a": false, "app/b": true} {
			_, err := h.Storage.Get(t.Context(), core.KeyOfValue(core.Locator{Project: "default", StoreUID: st.UID, Path: p}))
			if (err == nil) != want {
				t.Errorf("the value of %s: %v", p, err)
			}
		}
		// A login of another version is news for the broker.
		_, changed = h.Store.Wanted()
		if _, err := h.Store.UpdateCredential(coretest.AdminContext(t), core.UpdateCredentialRequest{Name: st.Credential, Payload: new(coretest.VaultToken(t, "hvs.new"))}); err != nil {
			t.Fatal(err)
		}
		<-changed
		if list, _ := h.Store.Wanted(); len(list) != 1 || !strings.HasSuffix(list[0].Login, "/2") {
			t.Errorf("wanted: %+v", list)
		}
		// So is another version of what the login refers to, and of nothing else.
		key, other := cred("key"), cred("other")
		mustPut(t, h, key, coretest.AccessKey(t, "00000000"))
		mustPut(t, h, other, coretest.AccessKey(t, "00000000"))
		mustPut(t, h, st.Credential, coretest.VaultByAWS(t, key))
		synctest.Wait()
		list, changed = h.Store.Wanted()
		before := list[0].Login
		mustPut(t, h, other, coretest.AccessKey(t, "11111111"))
		synctest.Wait()
		select {
		case <-changed:
			t.Error("the list is told to have changed by a credential that it does not depend on")
		default:
		}
		mustPut(t, h, key, coretest.AccessKey(t, "11111111"))
		<-changed
		_, login, err := h.Store.StoreLogin(t.Context(), st.Name)
		if err != nil {
			t.Fatal(err)
		}
		if list, _ := h.Store.Wanted(); list[0].Login == before || list[0].Login != login.Key() {
			t.Errorf("wanted with login %q, was %q; the store logs in with %q", list[0].Login, before, login.Key())
		}
		// And so is another state of the store, and of no other one.
		idle := vaultStore(t, h, "idle")
		synctest.Wait()
		_, changed = h.Store.Wanted()
		setInterval := func(st *core.SecretStore, interval time.Duration) {
			t.Helper()
			if _, err := h.Store.UpdateSecretStore(coretest.AdminContext(t), core.UpdateSecretStoreRequest{Name: st.Name, PollInterval: new(interval)}); err != nil {
				t.Fatal(err)
			}
		}
		setInterval(idle, 7*time.Minute)
		synctest.Wait()
		select {
		case <-changed:
			t.Error("the list is told to have changed by a store of which nothing is wanted")
		default:
		}
		setInterval(st, 7*time.Minute)
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("the list changed with its store and did not tell")
		}
		if list, _ := h.Store.Wanted(); list[0].Store.PollInterval != 7*time.Minute {
			t.Errorf("wanted every %v", list[0].Store.PollInterval)
		}
	})
}

// Injections come, change what they select, and go while a stream is open.
func TestSetFollowsInjections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		for _, id := range []string{"a", "b", "c"} {
			create(t, h, cred(id), "of "+id)
		}
		s, d := openSet(t, h, "web", core.OpenSetRequest{}), newDisk()
		u := nextSet(t, s)
		if !u.Whole || len(u.Items) != 0 {
			t.Errorf("the set of nobody: %v", ids(u))
		}
		d.apply(t, u)
		step := func(what string, want []string) {
			t.Helper()
			u := nextSet(t, s)
			d.apply(t, u)
			equal(t, what, ids(u), want)
			if now := revision(t, h); u.Revision != now {
				t.Errorf("%s: the set is of revision %d, the change of %d", what, u.Revision, now)
			}
			nothing(t, what, s)
		}
		inject(t, h, "one", "web", file("a", cred("a")))
		step("an injection", []string{"one/a with content"})
		inject(t, h, "two", "web", file("b", cred("b")))
		step("a second one", []string{"two/b with content"})
		inject(t, h, "three", "api", file("c", cred("c")))
		nothing(t, "one for others", s)
		selects := func(id string, selector map[string]string) {
			t.Helper()
			if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName(id), Selector: &selector}); err != nil {
				t.Fatal(err)
			}
		}
		selects("three", map[string]string{"app": "web"})
		step("one that comes to select it", []string{"three/c with content"})
		selects("one", map[string]string{"app": "web", "zone": "eu"})
		step("one that selects it no more", []string{"one/a removed"})
		if err := h.Store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Name: injectionName("two")}); err != nil {
			t.Fatal(err)
		}
		step("a deleted one", []string{"two/b removed"})
		rotate(t, h, cred("c"), "new")
		step("and what is left is followed", []string{"three/c with content"})
		equal(t, "on disk", d.contents, map[string]string{"three/c": "new"})

		// The same selection, said otherwise, touches no file.
		wide := workload(t, "web")
		core.PrincipalFrom(wide).Attributes["zone"] = "eu"
		w, err := h.Store.OpenSet(wide, core.OpenSetRequest{Project: demoProject, Workload: "wide"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		wd := newDisk()
		wd.apply(t, nextSet(t, w))
		equal(t, "of the wide one", wd.contents, map[string]string{"one/a": "of a", "three/c": "new"})
		selects("one", map[string]string{"zone": "eu"})
		nothing(t, "another selector that it matches too", w)
		nothing(t, "another selector that it does not match either", s)
		rotate(t, h, cred("a"), "again")
		wd.apply(t, nextSet(t, w))
		equal(t, "and it is followed", wd.contents["one/a"], "again")

		// Only what it asked for by name.
		only := openSet(t, h, "web", core.OpenSetRequest{Workload: "picky", Injections: []resourcename.Injection{injectionName("one"), injectionName("none")}})
		if u := nextSet(t, only); len(u.Items) != 0 {
			t.Errorf("by name, without a match: %v", ids(u))
		}
		selects("one", map[string]string{"app": "web"})
		equal(t, "by name", ids(nextSet(t, only)), []string{"one/a with content"})
		equal(t, "all", ids(nextSet(t, s)), []string{"one/a with content"})
	})
}

// An injection that is pointed at other workloads and then at a secret of
// theirs never shows it to those that had it before, however late they read.
func TestSetOfFormerWorkload(t *testing.T) {
	for round := range 60 {
		synctest.Test(t, func(t *testing.T) {
			h := coretest.New(t)
			ctx := coretest.AdminContext(t)
			create(t, h, demo, "harmless")
			create(t, h, cred("root"), "root-password")
			inject(t, h, "moves", "web", file("f", demo))
			s := openSet(t, h, "web", core.OpenSetRequest{})
			nextSet(t, s)
			selector, items := map[string]string{"app": "admin"}, []core.Item{file("f", cred("root"))}
			var updates []core.UpdateInjectionRequest
			if round%2 == 0 {
				updates = []core.UpdateInjectionRequest{{Selector: &selector, Items: &items}}
			} else {
				updates = []core.UpdateInjectionRequest{{Selector: &selector}, {Items: &items}}
			}
			got := make(chan *core.SetUpdate, 8)
			ctxRead, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			if round%3 > 0 { // it reads at the same time, or late
				wg.Go(func() { read(ctxRead, s, got) })
			}
			for _, u := range updates {
				u.Name = injectionName("moves")
				if _, err := h.Store.UpdateInjection(ctx, u); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if round%3 == 0 {
				wg.Go(func() { read(ctxRead, s, got) })
			}
			synctest.Wait()
			cancel()
			wg.Wait()
			close(got)
			removed := false
			for u := range got {
				for id, c := range u.Contents {
					t.Errorf("the former workload got %s with %q", id, c)
				}
				removed = removed || slices.Contains(u.Removed, "moves/f")
			}
			if !removed {
				t.Error("the former workload keeps its file")
			}
		})
	}
}

func read(ctx context.Context, s *core.SetStream, got chan<- *core.SetUpdate) {
	for {
		ev, err := s.Next(ctx)
		if err != nil {
			return
		}
		if ev.Set != nil {
			got <- ev.Set
		}
	}
}

// Should two injections with overlapping paths meet in one set all the same,
// the first keeps the path, and the other's item says so.
func TestSetOverlap(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	create(t, h, cred("other"), "two")
	inject(t, h, "a", "web", file("dir/file", demo))
	// Saving refuses such a pair, so the second one's records are made while the
	// first is away, and put on disk beside it.
	h.Stop(t)
	saved := func() []core.Change {
		h.Start(t)
		defer h.Stop(t)
		if err := h.Store.DeleteInjection(coretest.AdminContext(t), core.DeleteRequest[resourcename.Injection]{Name: injectionName("a")}); err != nil {
			t.Fatal(err)
		}
		inject(t, h, "b", "web", file("dir", cred("other")), file("fine", cred("other")))
		var out []core.Change
		for key, value := range records(t, h) {
			if key == core.KeyOfInjection(injectionName("b")) || key == core.KeyOfUsage(usageOf(cred("other"), "injections.b")) {
				out = append(out, core.Change{Key: key, Value: value})
			}
		}
		if err := h.Store.DeleteInjection(coretest.AdminContext(t), core.DeleteRequest[resourcename.Injection]{Name: injectionName("b")}); err != nil {
			t.Fatal(err)
		}
		inject(t, h, "a", "web", file("dir/file", demo))
		return out
	}()
	tamper(t, h, saved...)
	h.Start(t)
	u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the set", ids(u), []string{"a/dir/file with content", "b/dir", "b/fine with content"})
	for _, it := range u.Items {
		if it.ID == "b/dir" && (it.State != core.ItemFailed || !strings.Contains(it.Message, "a/dir/file")) {
			t.Errorf("the item that came second: %+v", it)
		}
	}
}

// A set has at most 8 MiB; what does not fit fails by itself.
func TestSetIsBounded(t *testing.T) {
	h := coretest.New(t)
	st := vaultStore(t, h, "team")
	create(t, h, demo, "small")
	var items []core.Item
	for i := range 9 {
		items = append(items, secretFile(fmt.Sprintf("f-%d", i), "team", fmt.Sprintf("app/%d", i), "k"))
		put(t, h, st, fmt.Sprintf("app/%d", i), core.ValueUpdate{State: core.ValueOK, Version: "1", Data: data("k", strings.Repeat("x", core.MaxSecretValue-1))})
	}
	items = append(items, file("g", demo))
	inject(t, h, "web", "web", items...)
	u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, c := range u.Contents {
		size += len(c)
	}
	failed := slices.DeleteFunc(slices.Clone(u.Items), func(it core.SetItem) bool { return it.State == core.ItemOK })
	if size > core.MaxSetBytes || len(failed) != 1 || failed[0].ID != "web/f-8" || !strings.Contains(failed[0].Message, "8388608") {
		t.Errorf("%d bytes, and %d items failed: %+v", size, len(failed), failed)
	}
	if string(u.Contents["web/g"]) != "small" {
		t.Error("a small item behind the one that does not fit has no content")
	}
}

// counting counts how often payloads are opened.
type counting struct {
	core.Sealer

	mu       sync.Mutex
	payloads int
}

func (c *counting) Open(p core.Place, b []byte) ([]byte, error) {
	if strings.HasSuffix(p.Key, "#payload") {
		c.mu.Lock()
		c.payloads++
		c.mu.Unlock()
	}
	return c.Sealer.Open(p, b)
}

func (c *counting) opened() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.payloads
	c.payloads = 0
	return n
}

// One rebuild serves all streams with the same injections: the payload is
// opened once or twice and encoded once, not once for each stream; and one line
// of the log names them all.
func TestSetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50
		count := &counting{}
		h := coretest.New(t, func(c *core.Config) { count.Sealer, c.Sealer = c.Sealer, count })
		create(t, h, demo, "one")
		create(t, h, cred("other"), "two")
		inject(t, h, "web", "web", file("f", demo))
		inject(t, h, "api", "api", file("g", cred("other")))
		var streams []*core.SetStream
		var firsts []*core.SetUpdate
		for i := range n {
			s := openSet(t, h, "web", core.OpenSetRequest{Workload: fmt.Sprint("web-", i)})
			streams, firsts = append(streams, s), append(firsts, nextSet(t, s))
		}
		for _, u := range firsts {
			if u != firsts[0] {
				t.Fatal("newcomers do not share the whole set")
			}
		}
		other := openSet(t, h, "api", core.OpenSetRequest{})
		nextSet(t, other)
		count.opened()
		begin := len(departures(h))
		rotate(t, h, demo, "three")
		synctest.Wait()
		equal(t, "the line of the push", lines(departures(h)[begin:]), []string{fmt.Sprintf("credentials.watch demo/versions/2 to %d", n)})
		heap() // contents that nobody is sending are not kept
		encoded := 0
		var updates []*core.SetUpdate
		for _, s := range streams {
			u := nextSet(t, s)
			updates = append(updates, u)
			if _, err := u.Encoded(func(*core.SetUpdate) ([]byte, error) { encoded++; return nil, nil }); err != nil {
				t.Error(err)
			}
		}
		if opened := count.opened(); encoded != 1 || opened > 4 {
			t.Errorf("for %d streams the payload was opened %d times and the update encoded %d times", n, opened, encoded)
		}
		if len(departures(h)) != begin+1 || string(updates[n-1].Contents["web/f"]) != "three" {
			t.Errorf("lines: %v", lines(departures(h)[begin:]))
		}
		nothing(t, "the other set", other)
	})
}

// Reports show in the status and in the list of consumers.
func TestSetReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		create(t, h, demo, "one")
		create(t, h, cred("other"), "two")
		inject(t, h, "web", "web", file("a", demo), file("b", cred("other")))
		s := openSet(t, h, "web", core.OpenSetRequest{Workload: "pod-1"})
		consumers := func() []string {
			t.Helper()
			var out []string
			for _, c := range []resourcename.Credential{demo, cred("other")} {
				list, err := h.Store.ListConsumers(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				for _, c2 := range list {
					out = append(out, fmt.Sprintf("%s: %s %s v%d applied %d connected %v named %v", c.ID, c2.Workload, c2.Injection, c2.Version, c2.AppliedVersion, c2.Connected, c2.Named))
				}
			}
			return out
		}
		status := func() core.WorkloadStatus {
			t.Helper()
			st, err := h.Store.GetInjectionStatus(ctx, injectionName("web"))
			if err != nil || len(st.Workloads) != 1 {
				t.Fatalf("%+v, %v", st, err)
			}
			return st.Workloads[0]
		}
		if got := consumers(); len(got) != 0 {
			t.Errorf("before anything was sent: %v", got)
		}
		u := nextSet(t, s)
		const of = " projects/default/injections/web "
		equal(t, "sent", consumers(), []string{"demo: pod-1" + of + "v1 applied 0 connected true named true", "other: pod-1" + of + "v1 applied 0 connected true named true"})
		s.Report(core.SetReport{Revision: u.Revision, Failures: []core.ItemReport{{ID: "web/b", Message: "read-only file system"}}})
		equal(t, "reported", consumers(), []string{"demo: pod-1" + of + "v1 applied 1 connected true named true", "other: pod-1" + of + "v1 applied 0 connected true named true"})
		want := core.WorkloadStatus{
			Principal: "projects/default/tokens/web", Workload: "pod-1", Connected: true, SentRevision: u.Revision, AppliedRevision: u.Revision,
			ReportTime: time.Now(), Failures: []core.ItemReport{{ID: "web/b", Message: "read-only file system"}},
		}
		equal(t, "the status", status(), want)
		rotate(t, h, demo, "three")
		next := nextSet(t, s)
		equal(t, "a new version is sent and not applied", consumers()[0], "demo: pod-1"+of+"v2 applied 1 connected true named true")
		if st := status(); st.SentRevision != next.Revision || st.AppliedRevision != u.Revision {
			t.Errorf("sent %d and applied %d; want %d and %d", st.SentRevision, st.AppliedRevision, next.Revision, u.Revision)
		}
		s.Report(core.SetReport{Revision: u.Revision}) // late, about the one before
		equal(t, "a late report", consumers()[0], "demo: pod-1"+of+"v2 applied 1 connected true named true")
		s.Report(core.SetReport{Revision: next.Revision})
		equal(t, "all applied", consumers(), []string{"demo: pod-1" + of + "v2 applied 2 connected true named true", "other: pod-1" + of + "v1 applied 1 connected true named true"})

		// What leaves the set is held no more, and can be deleted.
		if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{file("a", demo)}}); err != nil {
			t.Fatal(err)
		}
		wantReason(t, "delete before the workload was told", tryDelete(t, h, cred("other"), false), core.ErrPrecondition, core.ReasonCredentialInUse)
		nextSet(t, s)
		if err := tryDelete(t, h, cred("other"), false); err != nil {
			t.Errorf("delete after the workload was told: %v", err)
		}
	})
}

// A workload that says goodbye is gone at once; one that vanishes counts for 15
// minutes more, unless it comes back.
func TestGoodbyeAndVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		create(t, h, demo, "one")
		create(t, h, cred("keep"), "two")
		inject(t, h, "web", "web", file("a", demo), file("b", cred("keep")))
		open := func(name string) *core.SetStream {
			t.Helper()
			s, err := h.Store.OpenSet(workload(t, "web"), core.OpenSetRequest{Project: demoProject, Workload: name})
			if err != nil {
				t.Fatal(err)
			}
			nextSet(t, s)
			return s
		}
		polite, crashed, steady := open("polite"), open("crashed"), open("steady")
		polite.Report(core.SetReport{Goodbye: true})
		polite.Close()
		crashed.Close()
		defer steady.Close()
		holders := func() []string {
			t.Helper()
			list, err := h.Store.ListConsumers(ctx, demo)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, c := range list {
				out = append(out, fmt.Sprintf("%s %v", c.Workload, c.Connected))
			}
			return out
		}
		workloads := func() []string {
			t.Helper()
			st, err := h.Store.GetInjectionStatus(ctx, injectionName("web"))
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, w := range st.Workloads {
				out = append(out, fmt.Sprintf("%s %v", w.Workload, w.Connected))
			}
			return out
		}
		both := []string{"crashed false", "steady true"}
		equal(t, "at once", holders(), both)
		equal(t, "in the status", workloads(), both)
		time.Sleep(15*time.Minute - time.Second)
		equal(t, "a second before 15 minutes", holders(), both)
		back := open("crashed")
		equal(t, "when it comes back", holders(), []string{"crashed true", "steady true"})
		equal(t, "in the status", workloads(), []string{"crashed true", "steady true"})
		back.Close()
		time.Sleep(15*time.Minute - time.Second)
		equal(t, "it vanished again", holders(), both)
		time.Sleep(time.Second)
		equal(t, "after 15 minutes", holders(), []string{"steady true"})
		time.Sleep(2 * time.Minute)
		equal(t, "in the status", workloads(), []string{"steady true"})

		// A watcher that named a credential and vanished stands in the way of a
		// delete for as long.
		w, err := tryWatch(t, h, core.WatchRequest{View: core.ViewPayload, Names: []resourcename.Credential{cred("watched")}, Consumer: "w"})
		if err != nil {
			t.Fatal(err)
		}
		create(t, h, cred("watched"), "x")
		untilSynced(t, w)
		until(t, w, func(ev core.WatchEvent) bool { return ev.Kind == core.EventCommit })
		w.Close()
		time.Sleep(15*time.Minute - time.Second)
		wantReason(t, "a second before", tryDelete(t, h, cred("watched"), false), core.ErrPrecondition, core.ReasonCredentialInUse)
		time.Sleep(time.Second)
		if err := tryDelete(t, h, cred("watched"), false); err != nil {
			t.Errorf("after 15 minutes: %v", err)
		}
	})
}

func TestOpenSetIsChecked(t *testing.T) {
	h := coretest.New(t)
	tooMany := make(map[string]string)
	for i := range 10*core.MaxItems + 1 {
		tooMany[fmt.Sprint(i)] = "x"
	}
	for what, tt := range map[string]struct {
		r     core.OpenSetRequest
		field string
	}{
		"no workload":            {core.OpenSetRequest{}, "open.workload"},
		"a workload with spaces": {core.OpenSetRequest{Workload: "a b"}, "open.workload"},
		"a long workload":        {core.OpenSetRequest{Workload: strings.Repeat("x", 254)}, "open.workload"},
		"a short heartbeat":      {core.OpenSetRequest{Workload: "w", Heartbeat: 1}, "open.heartbeatInterval"},
		"too much in have":       {core.OpenSetRequest{Workload: "w", Have: tooMany}, "open.have"},
		"another project's":      {core.OpenSetRequest{Workload: "w", Injections: []resourcename.Injection{{Project: "other", ID: "x"}}}, "open.injections[0]"},
	} {
		tt.r.Project = demoProject
		_, err := h.Store.OpenSet(workload(t, "web"), tt.r)
		wantField(t, what, err, tt.field)
	}
	_, err := h.Store.OpenSet(workload(t, "web"), core.OpenSetRequest{Project: resourcename.Project{ID: "none"}, Workload: "w"})
	wantReason(t, "no project", err, core.ErrNotFound, core.ReasonNotFound)
}

// When the Store stops every stream ends, and says what to do.
func TestStopEndsStreams(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	inject(t, h, "web", "web", file("f", demo))
	w := watch(t, h, core.WatchRequest{View: core.ViewPayload})
	untilSynced(t, w)
	s := openSet(t, h, "web", core.OpenSetRequest{})
	nextSet(t, s)
	ended := make(chan error, 2)
	go func() {
		_, err := w.Next(t.Context())
		ended <- err
	}()
	go func() {
		_, err := s.Next(t.Context())
		ended <- err
	}()
	h.Stop(t)
	for range 2 {
		if err := <-ended; !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("a stream ended with %v", err)
		}
	}
}

// Contents that a set carries are those of the field, or the whole payload as
// JSON; binary ones as they are.
func TestSetContents(t *testing.T) {
	h := coretest.New(t)
	binary := []byte{0, 1, 0xff, '\n', 0x80}
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Opaque{Opaque: &credentialv1.Opaque{Data: map[string][]byte{"blob": binary}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{Name: cred("blob"), Payload: p}); err != nil {
		t.Fatal(err)
	}
	create(t, h, demo, "one")
	item := func(path string, c resourcename.Credential, field string) core.Item {
		return core.Item{Credential: &core.CredentialSource{Name: c, Field: field}, File: core.FileTarget{Path: path}}
	}
	inject(t, h, "web", "web", item("blob", cred("blob"), "data.blob"), item("user", demo, "username"), item("all", demo, ""), item("missing", cred("blob"), "data.other"))
	u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := maps.Clone(u.Contents)
	if !bytes.Equal(got["web/blob"], binary) || string(got["web/user"]) != "bot" || string(got["web/all"]) != `{"password":"one","username":"bot"}` || len(got) != 3 {
		t.Errorf("contents of %v", slices.Sorted(maps.Keys(got)))
	}
	_, err = h.Store.CreateInjection(coretest.AdminContext(t), injectRequest("bad", "bad", item("f", demo, "pasword")))
	wantField(t, "a field that the kind does not have", err, "injection.items[0].credential.field")
}

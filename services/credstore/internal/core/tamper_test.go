package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
	"github.com/credstore/credstore/services/credstore/internal/storage/sqlite"
)

// tamper changes records below a Store that is stopped.
func tamper(t *testing.T, h *coretest.Harness, changes ...core.Change) {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: h.File()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), core.Batch{Changes: changes}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// records returns all that is stored.
func records(t *testing.T, h *coretest.Harness) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	if _, err := h.Storage.Snapshot(t.Context(), "", func(r core.Record) error {
		out[r.Key] = slices.Clone(r.Value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// everyKind fills a store with at least two records of every kind.
func everyKind(t *testing.T, h *coretest.Harness) {
	t.Helper()
	ctx := coretest.AdminContext(t)
	create(t, h, demo, "one")
	rotate(t, h, demo, "two")
	create(t, h, cred("other"), "another")
	for _, id := range []string{"s-1", "s-2"} {
		remove(t, h, create(t, h, cred("gone-"+id), "x").Name)
		st := vaultStore(t, h, id)
		inject(t, h, id, id, secretFile("f", id, "app", "key"), file("g", demo))
		if _, err := h.Store.PutValue(ctx, core.Locator{Project: "default", StoreUID: st.UID, Path: "app"}, core.ValueUpdate{State: core.ValueOK, Version: "1", Data: map[string][]byte{"key": []byte("value of " + id)}}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := h.Store.CreateToken(ctx, core.CreateTokenRequest{
			Mutation: core.Mutation{RequestID: id, Digest: digest(id)}, Role: core.Reader, Name: resourcename.Token{Project: demoProject.ID, ID: id},
		}); err != nil {
			t.Fatal(err)
		}
		makeProject(t, h, id)
	}
}

// A record that was altered on disk, or put in another one's place, does not
// open: the Store refuses to start and names it, or, for a payload, the access
// fails. Content never comes out.
func TestTampering(t *testing.T) {
	h := coretest.New(t)
	everyKind(t, h)
	good := records(t, h)
	uid := map[string]string{}
	for _, name := range []string{"demo", "other"} {
		c, err := h.Store.GetCredential(coretest.AdminContext(t), cred(name))
		if err != nil {
			t.Fatal(err)
		}
		uid[name] = c.UID
	}
	h.Stop(t)
	restore := func(keys ...string) {
		t.Helper()
		var changes []core.Change
		for _, k := range keys {
			changes = append(changes, core.Change{Key: k, Value: good[k], Delete: good[k] == nil})
		}
		tamper(t, h, changes...)
	}
	refused := func(what, key string) {
		t.Helper()
		err := h.TryStart(t)
		if err == nil {
			h.Stop(t)
			t.Errorf("%s: the Store starts", what)
			return
		}
		if !errors.Is(err, core.ErrSealBroken) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v; want ErrSealBroken naming %s", what, err, key)
		}
	}
	kinds := make(map[string][]string)
	for key := range good {
		kind, _, _ := strings.Cut(key, "/")
		if kind == "in" {
			kind = strings.Join(strings.Split(key, "/")[2:3], "")
		}
		kinds[kind] = append(kinds[kind], key)
	}
	for _, kind := range []string{"project", "credential", "injection", "store", "token", "version", "gone", "usage", "value", "request", "guard"} {
		if len(kinds[kind]) == 0 {
			t.Errorf("there is no record of kind %s: %v", kind, kinds)
			continue
		}
		slices.Sort(kinds[kind])
		key := kinds[kind][0]
		for _, at := range []int{0, 20, len(good[key]) / 4} {
			b := slices.Clone(good[key])
			b[at] ^= 1
			tamper(t, h, core.Change{Key: key, Value: b})
			refused(kind+" with a bit flipped", key)
		}
		tamper(t, h, core.Change{Key: key, Value: []byte{}})
		refused(kind+" emptied", key)
		if len(kinds[kind]) > 1 {
			second := kinds[kind][1]
			tamper(t, h, core.Change{Key: key, Value: good[second]}, core.Change{Key: second, Value: good[key]})
			refused("two of kind "+kind+" swapped", key)
			restore(second)
		}
		// A record under a name of the attacker's.
		restore(key)
		if moved := key + "x"; kind != "value" && kind != "request" && kind != "version" {
			tamper(t, h, core.Change{Key: moved, Value: good[key]})
			refused(kind+" copied", moved)
			restore(moved)
		}
	}

	// Payloads are opened when they are read.
	key := func(name string, n uint32) string { return core.KeyOfVersion(uid[name], n) }
	payload := func(name string, n uint32) []byte {
		t.Helper()
		b, err := core.SealedPayload(good[key(name, n)])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(b)
	}
	access := func(what string, version uint32, key string, value []byte) {
		t.Helper()
		tamper(t, h, core.Change{Key: key, Value: value, Delete: value == nil})
		defer restore(key)
		h.Start(t)
		defer h.Stop(t)
		_, p, err := h.Store.AccessCredential(coretest.AdminContext(t), demo, version)
		if !errors.Is(err, core.ErrSealBroken) || !p.IsZero() {
			t.Errorf("%s: %v, with a payload: %v", what, err, !p.IsZero())
		}
		if version != 0 {
			return
		}
		w := watch(t, h, core.WatchRequest{View: core.ViewPayload})
		for {
			ev, err := w.Next(t.Context())
			if errors.Is(err, core.ErrSealBroken) {
				return
			}
			if err != nil || ev.Kind == core.EventSynced {
				t.Errorf("%s: a watcher gets to %v with %v", what, brief([]core.WatchEvent{ev}), err)
				return
			}
		}
	}
	with := func(n uint32, payload []byte) []byte {
		t.Helper()
		b, err := core.WithPayload(good[key("demo", n)], payload)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	flipped := payload("demo", 2)
	flipped[len(flipped)-1] ^= 0x80
	access("a bit flipped", 0, key("demo", 2), with(2, flipped))
	access("the payload of the version before", 0, key("demo", 2), with(2, payload("demo", 1)))
	access("another credential's payload", 0, key("demo", 2), with(2, payload("other", 1)))
	access("no payload", 0, key("demo", 2), with(2, nil))
	access("no version", 0, key("demo", 2), nil)
	access("the newer payload in the older one's place", 1, key("demo", 1), with(1, payload("demo", 2)))
	for what, value := range map[string][]byte{
		"another version":               good[key("demo", 1)],
		"another credential's version":  good[key("other", 1)],
		"a payload for metadata":        append([]byte{byte(len(payload("demo", 2)))}, payload("demo", 2)...),
		"a length beyond the end":       {0xff, 0xff, 0x03, 1, 2},
		"a length that does not end":    {0xff},
		"a length of more than 64 bits": slices.Repeat([]byte{0xff}, 12),
	} {
		tamper(t, h, core.Change{Key: key("demo", 2), Value: value})
		refused(what, key("demo", 2))
	}
	restore(key("demo", 2))

	h.Start(t)
	if s := password(t, h, demo, 0); s != "two" {
		t.Errorf("with everything back in its place: %q", s)
	}
}

// An item whose payload was altered fails, and holds back no other item.
func TestTamperedItemOfASet(t *testing.T) {
	h := coretest.New(t)
	c := create(t, h, demo, "one")
	create(t, h, cred("fine"), "two")
	inject(t, h, "web", "web", file("broken", demo), file("fine", cred("fine")))
	all := records(t, h)
	h.Stop(t)
	key := core.KeyOfVersion(c.UID, 1)
	altered, err := core.WithPayload(all[key], []byte("altered"))
	if err != nil {
		t.Fatal(err)
	}
	tamper(t, h, core.Change{Key: key, Value: altered})
	h.Start(t)
	u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "states", []core.ItemState{u.Items[0].State, u.Items[1].State}, []core.ItemState{core.ItemFailed, core.ItemOK})
	if len(u.Contents) != 1 || string(u.Contents["web/fine"]) != "two" {
		t.Errorf("%d contents", len(u.Contents))
	}
}

// A record that is altered while the Store runs stops it: it does not go on
// with a state that it cannot trust.
func TestTamperingWhileRunning(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	key := core.KeyOfCredential(demo)
	rec, err := h.Storage.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(rec.Value)
	bad[len(bad)-1] ^= 1
	if _, err := h.Storage.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: key, Value: bad}}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(t); !errors.Is(err, core.ErrSealBroken) || !strings.Contains(err.Error(), key) {
		t.Errorf("Run ended with %v", err)
	}
	if h.Store.Ready() {
		t.Error("it says that it is ready")
	}
	// Reads go on with what was good; changes do not wait for ever.
	if s := password(t, h, demo, 0); s != "one" {
		t.Errorf("%q", s)
	}
	_, err = h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{Name: cred("late"), Payload: coretest.Basic(t, "a", "b")})
	if !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("a change after Run has ended: %v", err)
	}
}

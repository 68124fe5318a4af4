package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// versionsOf lists a credential's versions, oldest first.
func versionsOf(t *testing.T, h *coretest.Harness, name resourcename.Credential) []core.Version {
	t.Helper()
	out := everything(t, func(ctx context.Context, p core.Page) ([]core.Version, string, error) {
		return h.Store.ListVersions(ctx, name, p)
	})
	slices.Reverse(out)
	return out
}

// numbers shows a credential's versions: number, state, and which is active.
func numbers(t *testing.T, h *coretest.Harness, name resourcename.Credential) []string {
	t.Helper()
	c, err := h.Store.GetCredential(coretest.AdminContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range versionsOf(t, h, name) {
		s := fmt.Sprintf("%d %s", v.Number, v.State)
		if v.Active {
			s += " active"
		}
		if v.Active != (v.Number == c.ActiveVersion) || v.Name != name.Version(v.Number) {
			t.Errorf("version %+v of a credential whose active one is %d", v, c.ActiveVersion)
		}
		out = append(out, s)
	}
	return out
}

// sealedPayload returns what storage has of a version's payload, nil when
// nothing.
func sealedPayload(t *testing.T, h *coretest.Harness, uid string, n uint32) []byte {
	t.Helper()
	r, err := h.Storage.Get(t.Context(), core.KeyOfVersion(uid, n))
	if errors.Is(err, core.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := core.SealedPayload(r.Value)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVersionStates(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	create(t, h, demo, "one")
	rotate(t, h, demo, "two")
	etag := rotate(t, h, demo, "three").Etag
	uid := func() string {
		c, err := h.Store.GetCredential(ctx, demo)
		if err != nil {
			t.Fatal(err)
		}
		return c.UID
	}()
	change := func(what string, n uint32) error {
		r := core.ChangeVersionRequest{Name: demo.Version(n)}
		var v *core.Version
		var err error
		switch what {
		case "activate":
			_, err = h.Store.ActivateVersion(ctx, r)
		case "disable":
			v, err = h.Store.DisableVersion(ctx, r)
		case "enable":
			v, err = h.Store.EnableVersion(ctx, r)
		case "destroy":
			v, err = h.Store.DestroyVersion(ctx, r)
		}
		if err != nil {
			return err
		}
		c, err := h.Store.GetCredential(ctx, demo)
		if err != nil || c.Etag == etag {
			t.Errorf("%s %d left the etag: %v", what, n, err)
		}
		etag = c.Etag
		if v != nil {
			i := slices.IndexFunc(versionsOf(t, h, demo), func(v core.Version) bool { return v.Number == n })
			equal(t, what+" answers what is listed", *v, versionsOf(t, h, demo)[i])
		}
		return nil
	}
	steps := []struct {
		what   string
		n      uint32
		reason string // of the refusal, "" when it is allowed
		want   []string
	}{
		{"disable", 3, core.ReasonVersionActive, nil},
		{"destroy", 3, core.ReasonVersionActive, nil},
		{"disable", 1, "", []string{"1 DISABLED", "2 ENABLED", "3 ENABLED active"}},
		{"activate", 1, core.ReasonVersionNotEnabled, nil},
		{"enable", 1, "", []string{"1 ENABLED", "2 ENABLED", "3 ENABLED active"}},
		{"activate", 1, "", []string{"1 ENABLED active", "2 ENABLED", "3 ENABLED"}},
		{"disable", 1, core.ReasonVersionActive, nil},
		{"disable", 2, "", []string{"1 ENABLED active", "2 DISABLED", "3 ENABLED"}},
		{"destroy", 2, "", []string{"1 ENABLED active", "2 DESTROYED", "3 ENABLED"}},
		{"destroy", 2, "", []string{"1 ENABLED active", "2 DESTROYED", "3 ENABLED"}},
		{"enable", 2, core.ReasonVersionDestroyed, nil},
		{"disable", 2, core.ReasonVersionDestroyed, nil},
		{"activate", 2, core.ReasonVersionNotEnabled, nil},
	}
	for i, s := range steps {
		what := fmt.Sprintf("step %d, %s %d", i, s.what, s.n)
		err := change(s.what, s.n)
		if s.reason != "" {
			wantReason(t, what, err, core.ErrPrecondition, s.reason)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		equal(t, what, numbers(t, h, demo), s.want)
	}
	for _, n := range []uint32{4, 0} {
		wantReason(t, "a version that never was", change("activate", n), core.ErrNotFound, core.ReasonNotFound)
	}
	_, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: cred("none").Version(1)})
	wantReason(t, "a version of nothing", err, core.ErrNotFound, core.ReasonNotFound)

	// The active version is what is read and watched.
	if s := password(t, h, demo, 0); s != "one" {
		t.Errorf("the active payload is %q", s)
	}
	_, _, err = h.Store.AccessCredential(ctx, demo, 2)
	wantReason(t, "access of a destroyed version", err, core.ErrPrecondition, core.ReasonVersionNotEnabled)
	if err := change("disable", 3); err != nil {
		t.Fatal(err)
	}
	_, _, err = h.Store.AccessCredential(ctx, demo, 3)
	wantReason(t, "access of a disabled version", err, core.ErrPrecondition, core.ReasonVersionNotEnabled)
	_, _, err = h.Store.AccessCredential(ctx, demo, 9)
	wantReason(t, "access of no version", err, core.ErrNotFound, core.ReasonNotFound)

	// A destroyed payload is gone from storage, a disabled one is not.
	for n, want := range map[uint32]bool{1: true, 2: false, 3: true} {
		if got := len(sealedPayload(t, h, uid, n)) > 0; got != want {
			t.Errorf("storage has the payload of version %d: %v", n, got)
		}
	}
	if v := versionsOf(t, h, demo)[1]; v.DestroyTime.IsZero() || v.Facts["username"] != "bot" {
		t.Errorf("what is kept of a destroyed version: %+v", v)
	}
	consistent(t, h)
	equal(t, "after a restart", numbers(t, h, demo), []string{"1 ENABLED active", "2 DESTROYED", "3 DISABLED"})

	// A new payload gets a number that was never used.
	rotate(t, h, demo, "four")
	equal(t, "after the next payload", numbers(t, h, demo), []string{"1 ENABLED", "2 DESTROYED", "3 DISABLED", "4 ENABLED active"})
	// Nothing of a deleted credential is left in storage.
	remove(t, h, demo)
	for n := range uint32(5) {
		if _, err := h.Storage.Get(t.Context(), core.KeyOfVersion(uid, n)); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("version %d of the deleted credential: %v", n, err)
		}
	}
	if c := create(t, h, demo, "again"); c.ActiveVersion != 1 || c.UID == uid {
		t.Errorf("a namesake: %+v", c)
	}
}

// An activation is a change like any other: watchers get the older payload.
func TestActivateIsPushed(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	rotate(t, h, demo, "two")
	w := watch(t, h, core.WatchRequest{View: core.ViewPayload})
	untilSynced(t, w)
	if _, err := h.Store.ActivateVersion(coretest.AdminContext(t), core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
		t.Fatal(err)
	}
	ev := next(t, w)
	if s := secretOf(ev.Commit.Changes[0].Payload); s != "one" {
		t.Errorf("pushed %q", s)
	}
}

func TestListVersions(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	create(t, h, demo, "one")
	for range 6 {
		rotate(t, h, demo, "more")
	}
	create(t, h, cred("other"), "x")
	var got []uint32
	page := core.Page{Size: 3}
	for pages := 1; ; pages++ {
		versions, more, err := h.Store.ListVersions(ctx, demo, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions {
			got = append(got, v.Number)
		}
		if more == "" {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		_, _, err = h.Store.ListVersions(ctx, cred("other"), core.Page{Token: more})
		wantField(t, "another credential's token", err, "pageToken")
		if pages == 1 { // what comes between does not move the pages
			rotate(t, h, demo, "newest")
		}
		page.Token = more
	}
	equal(t, "numbers, newest first", got, []uint32{7, 6, 5, 4, 3, 2, 1})
}

// Retention keeps the last 10 versions, all younger than 30 days, and the
// active one.
func TestRetention(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		create(t, h, demo, "v1")
		for n := 2; n <= 12; n++ {
			time.Sleep(time.Second)
			rotate(t, h, demo, fmt.Sprint("v", n))
		}
		kept := func() (out []uint32) {
			t.Helper()
			for _, v := range versionsOf(t, h, demo) {
				out = append(out, v.Number)
			}
			return out
		}
		upTo := func(first, last uint32) (out []uint32) {
			for n := first; n <= last; n++ {
				out = append(out, n)
			}
			return out
		}
		uid := rotate(t, h, demo, "v13").UID
		equal(t, "more than 10, all young", kept(), upTo(1, 13))

		// Just short of 30 days, then just past.
		time.Sleep(30*day - time.Minute)
		rotate(t, h, demo, "v14")
		equal(t, "a minute before 30 days", kept(), upTo(1, 14))
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		// Only a new payload lets old ones go; a change of the description does
		// not, and never the active one.
		if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Description: new("d")}); err != nil {
			t.Fatal(err)
		}
		equal(t, "after a change of the description", kept(), upTo(1, 14))
		if s := password(t, h, demo, 0); s != "v1" {
			t.Errorf("the active payload is %q", s)
		}
		rotate(t, h, demo, "v15")
		equal(t, "past 30 days", kept(), upTo(6, 15))
		for n := uint32(1); n <= 15; n++ {
			if got := len(sealedPayload(t, h, uid, n)) > 0; got != slices.Contains(kept(), n) {
				t.Errorf("storage has the payload of version %d: %v", n, got)
			}
		}
		_, _, err := h.Store.AccessCredential(ctx, demo, 1)
		wantReason(t, "a version past its retention", err, core.ErrNotFound, core.ReasonNotFound)
		_, err = h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)})
		wantReason(t, "to activate it", err, core.ErrNotFound, core.ReasonNotFound)

		// Numbers go on, whatever is gone.
		for _, v := range kept() {
			if v != 15 {
				if _, err := h.Store.DestroyVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(v)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		h.Stop(t)
		h.Start(t)
		if c := rotate(t, h, demo, "v16"); c.ActiveVersion != 16 {
			t.Errorf("the next number is %d", c.ActiveVersion)
		}
		consistent(t, h)
	})
}

// Kinds are fixed, and what a payload says of itself is in the metadata.
func TestUpdateOfAnotherKind(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	create(t, h, demo, "one")
	_, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Payload: new(coretest.VaultToken(t, "x"))})
	wantField(t, "another kind", err, "credential.payload")
	_, err = h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Create: &core.CreateCredentialRequest{Name: cred("x"), Payload: coretest.Basic(t, "a", "b")}},
		{Update: &core.UpdateCredentialRequest{Name: demo, Payload: new(coretest.VaultToken(t, "x"))}},
	}})
	wantField(t, "another kind in a batch", err, "operations[1].update.credential.payload")
	if c, err := h.Store.GetCredential(ctx, demo); err != nil || c.ActiveVersion != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestBatchIsChecked(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	ok := core.BatchOperation{Create: &core.CreateCredentialRequest{Name: demo, Payload: coretest.Basic(t, "a", "b")}}
	elsewhere := core.BatchOperation{Delete: &core.DeleteCredentialRequest{Name: resourcename.Credential{Project: "other", ID: "x"}}}
	both := core.BatchOperation{Create: ok.Create, Delete: elsewhere.Delete}
	for what, tt := range map[string]struct {
		ops   []core.BatchOperation
		field string
	}{
		"none":              {nil, "operations"},
		"too many":          {slices.Repeat([]core.BatchOperation{ok}, core.MaxBatchOperations+1), "operations"},
		"one twice":         {[]core.BatchOperation{ok, ok}, "operations[1]"},
		"another project":   {[]core.BatchOperation{ok, elsewhere}, "operations[1]"},
		"two in one":        {[]core.BatchOperation{both}, "operations[0]"},
		"nothing in one":    {[]core.BatchOperation{ok, {}}, "operations[1]"},
		"without a payload": {[]core.BatchOperation{{Create: &core.CreateCredentialRequest{Name: demo}}}, "operations[0].create.credential.payload"},
		"a bad id":          {[]core.BatchOperation{{Create: &core.CreateCredentialRequest{Name: cred("-"), Payload: ok.Create.Payload}}}, "operations[0].create.credentialId"},
	} {
		_, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: tt.ops})
		wantField(t, what, err, tt.field)
	}
}

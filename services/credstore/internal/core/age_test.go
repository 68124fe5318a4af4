package core_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

const day = 24 * time.Hour

func get(t *testing.T, h *coretest.Harness, name resourcename.Credential) *core.Credential {
	t.Helper()
	c, err := h.Store.GetCredential(coretest.AdminContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The age is that of the secret: to store or activate the same payload again, or
// to change anything else, leaves it.
func TestRotateTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		begin := time.Now()
		create(t, h, demo, "one")
		moved := func(what string, want bool) {
			t.Helper()
			c := get(t, h, demo)
			if got := c.RotateTime.Equal(time.Now()); got != want {
				t.Errorf("%s: rotated at %s, which is now: %v", what, c.RotateTime.Sub(begin), got)
			}
			time.Sleep(time.Hour)
		}
		moved("created", true)
		c := rotate(t, h, demo, "one")
		if c.ActiveVersion != 2 || !c.UpdateTime.Equal(time.Now()) {
			t.Errorf("the same payload again: %+v", c)
		}
		moved("the same payload", false)
		label(t, h, demo, map[string]string{"a": "b"})
		moved("a label", false)
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
			t.Fatal(err)
		}
		moved("another version with the same payload", false)
		rotate(t, h, demo, "two")
		moved("another payload", true)
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
			t.Fatal(err)
		}
		moved("a roll-back", true)
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
			t.Fatal(err)
		}
		moved("what is active already", false)
		// What is only checked does not tell whether a guess is right.
		for _, guess := range []string{"one", "wrong"} {
			c, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{
				Mutation: core.Mutation{ValidateOnly: true}, Name: demo, Payload: new(coretest.Basic(t, "bot", guess)),
			})
			if err != nil || !c.RotateTime.Equal(time.Now()) {
				t.Errorf("a check of %q tells %v, %v", guess, c.RotateTime, err)
			}
		}
		moved("checks", false)
	})
}

func TestRotationPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		team := makeProject(t, h, "team")
		in := resourcename.Credential{Project: team.ID, ID: "key"}
		if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: in, Payload: coretest.AccessKey(t, "00000000")}); err != nil {
			t.Fatal(err)
		}
		state := func(what string, want core.AgeState) {
			t.Helper()
			if got := h.Store.AgeState(get(t, h, in)); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		set := func(period time.Duration) {
			t.Helper()
			c, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: in, RotationPeriod: &period})
			if err != nil || c.RotationPeriod != period {
				t.Fatal(c, err)
			}
		}
		setProject := func(period time.Duration) {
			t.Helper()
			p, err := h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: team, RotationPeriod: &period})
			if err != nil || p.RotationPeriod != period {
				t.Fatal(p, err)
			}
		}
		state("at first", core.AgeFresh)
		time.Sleep(90 * day)
		state("after 90 days", core.AgeFresh)
		time.Sleep(time.Second)
		state("after 90 days and a second", core.AgeDue)
		setProject(200 * day)
		state("with 200 days in the project", core.AgeFresh)
		set(30 * day)
		state("with 30 days of its own", core.AgeOverdue)
		set(0)
		state("with the project's again", core.AgeFresh)
		setProject(0)
		state("with the default again", core.AgeDue)
		time.Sleep(30*day - 2*time.Second)
		state("a second before 120 days", core.AgeDue)
		time.Sleep(time.Second)
		state("after 120 days", core.AgeOverdue)
		if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: in, Payload: new(coretest.AccessKey(t, "11111111"))}); err != nil {
			t.Fatal(err)
		}
		state("rotated", core.AgeFresh)
		h.Stop(t)
		h.Start(t)
		set(core.MinRotationPeriod)
		set(core.MaxRotationPeriod)
		for _, bad := range []time.Duration{-1, 1, day - 1, core.MaxRotationPeriod + 1} {
			_, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: in, RotationPeriod: &bad})
			wantField(t, bad.String(), err, "credential.rotationPeriod")
			_, err = h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: cred("x"), Payload: coretest.Basic(t, "a", "b"), RotationPeriod: bad})
			wantField(t, bad.String(), err, "credential.rotationPeriod")
			_, err = h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: team, RotationPeriod: &bad})
			wantField(t, bad.String(), err, "project.rotationPeriod")
			_, err = h.Store.CreateProject(ctx, core.CreateProjectRequest{Name: resourcename.Project{ID: "x"}, RotationPeriod: bad})
			wantField(t, bad.String(), err, "project.rotationPeriod")
		}
		p, err := h.Store.CreateProject(ctx, core.CreateProjectRequest{Name: resourcename.Project{ID: "y"}, RotationPeriod: 5 * day})
		if err != nil || p.RotationPeriod != 5*day {
			t.Error(p, err)
		}
		c, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: cred("y"), Payload: coretest.Basic(t, "a", "b"), RotationPeriod: 5 * day})
		if err != nil || get(t, h, cred("y")).RotationPeriod != 5*day {
			t.Error(c, err)
		}
	})
}

func TestAgeStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		now := time.Now()
		ago := func(d time.Duration) time.Time { return now.Add(-d) }
		for _, tt := range []struct {
			c    core.Credential
			want string
		}{
			{core.Credential{RotateTime: now}, "FRESH"},
			{core.Credential{RotateTime: ago(90 * day)}, "FRESH"},
			{core.Credential{RotateTime: ago(90*day + 1)}, "DUE"},
			{core.Credential{RotateTime: ago(120*day - 1)}, "DUE"},
			{core.Credential{RotateTime: ago(120 * day)}, "OVERDUE"},
			{core.Credential{RotateTime: ago(40 * day), RotationPeriod: 30 * day}, "OVERDUE"},
			{core.Credential{RotateTime: ago(39 * day), RotationPeriod: 30 * day}, "DUE"},
			{core.Credential{RotateTime: ago(10 * 365 * day), RotationPeriod: core.MaxRotationPeriod}, "FRESH"},
			{core.Credential{RotateTime: now, ExpireTime: now.Add(14*day + 1)}, "FRESH"},
			{core.Credential{RotateTime: now, ExpireTime: now.Add(14 * day)}, "EXPIRING"},
			{core.Credential{RotateTime: ago(400 * day), ExpireTime: now.Add(1)}, "EXPIRING"},
			{core.Credential{RotateTime: ago(400 * day), ExpireTime: now}, "EXPIRED"},
			{core.Credential{RotateTime: now, ExpireTime: ago(1)}, "EXPIRED"},
			{core.Credential{RotateTime: ago(400 * day), Ageless: true}, "AGE_STATE_UNSPECIFIED"},
			{core.Credential{RotateTime: ago(400 * day), Ageless: true, ExpireTime: now.Add(30 * day)}, "AGE_STATE_UNSPECIFIED"},
			{core.Credential{Ageless: true, ExpireTime: now.Add(day)}, "EXPIRING"},
			{core.Credential{Ageless: true, ExpireTime: ago(day)}, "EXPIRED"},
		} {
			tt.c.Name = demo
			if got := h.Store.AgeState(&tt.c).String(); got != tt.want {
				t.Errorf("age %s, end in %s, period %s: %s, want %s", now.Sub(tt.c.RotateTime), tt.c.ExpireTime.Sub(now), tt.c.RotationPeriod, got, tt.want)
			}
		}
	})
}

// A list by age pages like any other, with the token bound to the filter, and a
// watch refuses what time alone changes.
func TestListByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		for i := range 5 {
			create(t, h, cred(fmt.Sprint("old-", i)), "x")
		}
		mustPut(t, h, cred("old-key"), coretest.AccessKey(t, "00000000"))
		mustPut(t, h, cred("old-role"), coretest.AssumeRole(t, cred("old-key"), "r"))
		time.Sleep(100 * day)
		for i := range 5 {
			create(t, h, cred(fmt.Sprint("new-", i)), "x")
		}
		list := func(filter string, size int) []string {
			t.Helper()
			var out []string
			page := core.Page{Size: size}
			for {
				part, more, err := h.Store.ListCredentials(ctx, demoProject, filter, page)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range part {
					out = append(out, c.Name.ID)
				}
				if page.Token = more; more == "" {
					return out
				}
			}
		}
		old := []string{"old-0", "old-1", "old-2", "old-3", "old-4", "old-key"}
		for _, size := range []int{1, 2, 5, 6, 0} {
			equal(t, fmt.Sprint("pages of ", size), list("age > 90d", size), old)
		}
		equal(t, "due", list("ageState = DUE", 3), old)
		equal(t, "without an age", list("ageState = AGE_STATE_UNSPECIFIED", 3), []string{"old-role"})
		if _, err := h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: demoProject, RotationPeriod: new(50 * day)}); err != nil {
			t.Fatal(err)
		}
		equal(t, "overdue by the project's period", list("ageState = OVERDUE AND kind = basic", 3), old[:5])
		_, more, err := h.Store.ListCredentials(ctx, demoProject, "age > 90d", core.Page{Size: 2})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = h.Store.ListCredentials(ctx, demoProject, "age > 91d", core.Page{Token: more})
		wantField(t, "a token of another age", err, "pageToken")

		for _, filter := range []string{"age > 1d", "kind = basic AND expires < 14d", "ageState = DUE"} {
			_, err := tryWatch(t, h, core.WatchRequest{Filter: filter})
			wantField(t, "a watch by "+filter, err, "filter")
		}
		w := watch(t, h, core.WatchRequest{Filter: "verification != VERIFIED AND kind = awsAccessKey"})
		equal(t, "a watch by verification", brief(untilSynced(t, w)), []string{"reset", "commit: put old-key", "synced"})
	})
}

func TestAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		team := makeProject(t, h, "a-team")
		put := func(name resourcename.Credential, p credential.Payload) {
			t.Helper()
			if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: name, Payload: p}); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.Store.Ages(); len(got) != 0 {
			t.Errorf("of nothing: %v", got)
		}
		put(cred("a"), coretest.Basic(t, "a", "b"))
		put(cred("b"), coretest.Basic(t, "a", "b"))
		put(cred("key"), coretest.AccessKey(t, "00000000"))
		put(cred("role"), coretest.AssumeRole(t, cred("key"), "r"))
		time.Sleep(100 * day)
		put(cred("c"), coretest.Basic(t, "a", "b"))
		put(resourcename.Credential{Project: team.ID, ID: "a"}, coretest.Basic(t, "a", "b"))
		if _, err := h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: team, RotationPeriod: new(day)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day + time.Minute)
		never := [5]int{}
		count := func(n int) [5]int { never[0] = n; return never }
		equal(t, "ages", h.Store.Ages(), []core.Ages{
			{Project: team, Kind: "basic", States: [6]int{core.AgeDue: 1}, Verifications: count(1)},
			{Project: demoProject, Kind: "awsAccessKey", States: [6]int{core.AgeDue: 1}, Verifications: count(1)},
			{Project: demoProject, Kind: "awsAssumeRole", States: [6]int{core.AgeUnspecified: 1}, Verifications: count(1)},
			{Project: demoProject, Kind: "basic", States: [6]int{core.AgeDue: 2, core.AgeFresh: 1}, Verifications: count(3)},
		})
	})
}

// An update of a project changes what it names and nothing else.
func TestUpdateProject(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	name := makeProject(t, h, "team")
	was, err := h.Store.GetProject(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	same, err := h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: name, Etag: was.Etag})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "an update of nothing", same, was)
	now, err := h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: name, Etag: was.Etag, Description: new("d"), Labels: &map[string]string{"a": "b"}})
	if err != nil || now.UID != was.UID || now.Etag == was.Etag || now.Description != "d" || now.Labels["a"] != "b" || !now.CreateTime.Equal(was.CreateTime) || !now.UpdateTime.After(was.UpdateTime) {
		t.Errorf("%+v, %v", now, err)
	}
	if now, err = h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: name, RotationPeriod: new(5 * day)}); err != nil {
		t.Fatal(err)
	}
	h.Stop(t)
	h.Start(t)
	got, err := h.Store.GetProject(ctx, name)
	if err != nil || got.Description != "d" {
		t.Fatal(got, err)
	}
	equal(t, "after a restart", got, now)
	_, err = h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: name, Etag: was.Etag})
	wantReason(t, "an old etag, of nothing", err, core.ErrAborted, core.ReasonEtagMismatch)
	_, err = h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: name, Etag: was.Etag, Description: new("x")})
	wantReason(t, "an old etag", err, core.ErrAborted, core.ReasonEtagMismatch)
	_, err = h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: resourcename.Project{ID: "none"}, Description: new("x")})
	wantReason(t, "of no project", err, core.ErrNotFound, core.ReasonNotFound)
	_, err = h.Store.UpdateProject(ctx, core.UpdateProjectRequest{Name: name, Description: new("\x00"), Labels: &map[string]string{"A": "b"}, RotationPeriod: new(time.Second)})
	wantFields(t, "all at once", err, "project.description", "project.labels", "project.rotationPeriod")
	// Tokens of the project still hold, and it can go.
	if err := h.Store.DeleteProject(context.WithoutCancel(ctx), core.DeleteRequest[resourcename.Project]{Name: name, Etag: got.Etag}); err != nil {
		t.Error(err)
	}
}

package core_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// What the configuration makes is there after a start, once, in the projects
// that exist; then it is a credential like any other.
func TestReadyMade(t *testing.T) {
	var log bytes.Buffer
	role := core.ReadyMade{Name: cred("instance-role"), Description: "made by the server's configuration", Payload: coretest.InstanceRole(t)}
	elsewhere := role
	elsewhere.Name = resourcename.Credential{Project: "team", ID: "instance-role"}
	with := func(all ...core.ReadyMade) coretest.Option {
		return func(c *core.Config) {
			c.ReadyMade, c.Logger = all, slog.New(slog.NewTextHandler(&log, nil))
			c.Bound = func(credential.Payload, resourcename.Project) bool { return len(all) > 0 }
		}
	}
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, with(role, elsewhere), issuer.Use)
	ctx := coretest.AdminContext(t)
	wait := func() {
		t.Helper()
		create(t, h, cred("marker"), "x") // after which the Store has what New made
		remove(t, h, cred("marker"))
	}
	logged := func(what string, n int) {
		t.Helper()
		if got := strings.Count(log.String(), what); got != n {
			t.Errorf("%q is logged %d times, want %d:\n%s", what, got, n, log.String())
		}
	}
	wait()
	c := get(t, h, role.Name)
	if c.Kind != "awsRole" || c.Description != role.Description || c.ActiveVersion != 1 || !c.Ageless {
		t.Errorf("%+v", c)
	}
	if _, err := h.Store.VerifyCredential(ctx, role.Name, 0); err != nil {
		t.Error(err)
	}
	logged("made a credential of the configuration", 1)
	logged("its project does not exist", 1)
	made := func() (n int) {
		for _, e := range h.Audit.Entries() {
			if e.Principal == "system" && e.Permission == core.CredentialsCreate && e.Allowed {
				n++
			}
		}
		return n
	}
	if made() != 1 {
		t.Errorf("%d lines for one that was made", made())
	}

	// A second server, and the next start, find it there; with the project comes
	// the other one.
	h.Replica(t)
	makeProject(t, h, "team")
	if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: role.Name, Description: new("ours")}); err != nil {
		t.Fatal(err)
	}
	h.Stop(t)
	h.Start(t)
	wait()
	if c := get(t, h, role.Name); c.Description != "ours" || c.ActiveVersion != 1 {
		t.Errorf("it was made again: %+v", c)
	}
	if c := get(t, h, elsewhere.Name); c.Kind != "awsRole" {
		t.Errorf("%+v", c)
	}
	logged("made a credential of the configuration", 2)

	// One that was deleted is made again, with another uid.
	remove(t, h, role.Name)
	h.Stop(t)
	h.Start(t)
	wait()
	if again := get(t, h, role.Name); again.UID == c.UID {
		t.Error("the deleted one is back")
	}
	// Without the configuration it stays and does nothing.
	h.Stop(t)
	h.Start(t, with(), issuer.Use)
	get(t, h, role.Name)
	_, err := h.Store.VerifyCredential(ctx, role.Name, 0)
	wantReason(t, "no longer bound", err, core.ErrPrecondition, core.ReasonAmbientNotBound)
	// Another kind of that name is left alone.
	remove(t, h, role.Name)
	create(t, h, role.Name, "mine")
	h.Stop(t)
	h.Start(t, with(role), issuer.Use)
	if c := get(t, h, role.Name); c.Kind != "basic" {
		t.Errorf("%+v", c)
	}
	logged("another one has its name", 1)

	// What cannot be made keeps the server from starting, and so does an audit
	// log that cannot be written.
	remove(t, h, role.Name)
	h.Stop(t)
	h.Audit.Fail(errDisk)
	wantReason(t, "without an audit log", h.TryStart(t), core.ErrUnavailable, core.ReasonAuditUnavailable)
	h.Audit.Fail(nil)
	bad := role
	bad.Payload = coretest.AssumeRole(t, cred("x"), "r")
	if err := h.TryStart(t, with(bad)); err == nil || !strings.Contains(err.Error(), "refers to another") {
		t.Errorf("one with a reference: %v", err)
	}
	bad.Name, bad.Payload = cred("Not-An-Id"), role.Payload
	if err := h.TryStart(t, with(bad)); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("one with a bad id: %v", err)
	}
	h.Start(t, with(role))
	consistent(t, h)
}

// Two servers that start at once make one.
func TestReadyMadeRace(t *testing.T) {
	h := coretest.New(t)
	role := core.ReadyMade{Name: cred("instance-role"), Payload: coretest.InstanceRole(t)}
	late := &lateCommit{before: func() { mustPut(t, h, role.Name, role.Payload) }}
	h.Replica(t, func(c *core.Config) {
		c.ReadyMade = []core.ReadyMade{role}
		late.Storage, c.Storage = c.Storage, late
	})
	if late.commits != 1 {
		t.Errorf("%d commits at the start", late.commits)
	}
	if n := len(versionsOf(t, h, role.Name)); n != 1 {
		t.Errorf("%d versions", n)
	}
	consistent(t, h)
}

// lateCommit is a storage to which somebody else commits first.
type lateCommit struct {
	core.Storage

	before  func()
	commits int
}

func (l *lateCommit) Commit(ctx context.Context, b core.Batch) (core.Revision, error) {
	if l.commits++; l.commits == 1 {
		l.before()
	}
	return l.Storage.Commit(ctx, b)
}

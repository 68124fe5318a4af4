package core_test

import (
	"errors"
	"testing"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

var (
	demoProject = resourcename.Project{ID: "default"}
	demo        = resourcename.Credential{Project: "default", ID: "demo"}
)

func create(t *testing.T, h *coretest.Harness, name resourcename.Credential, password string) *core.Credential {
	t.Helper()
	c, err := h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{
		Name: name, Payload: coretest.Basic(t, "bot", password),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rotate(t *testing.T, h *coretest.Harness, name resourcename.Credential, password string) *core.Credential {
	t.Helper()
	p := coretest.Basic(t, "bot", password)
	c, err := h.Store.UpdateCredential(coretest.AdminContext(t), core.UpdateCredentialRequest{Name: name, Payload: &p})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func password(t *testing.T, h *coretest.Harness, name resourcename.Credential, version uint32) string {
	t.Helper()
	_, p, err := h.Store.AccessCredential(coretest.AdminContext(t), name, version)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Field("password")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCredentialLifecycle(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	c := create(t, h, demo, "one")
	if c.ActiveVersion != 1 || c.Kind != "basic" || c.Etag == "" || c.UID == "" {
		t.Errorf("created %+v", c)
	}
	got, err := h.Store.GetCredential(ctx, demo)
	if err != nil || got.Etag != c.Etag || got.UID != c.UID {
		t.Errorf("get after create: %+v, %v; the create answered etag %s", got, err, c.Etag)
	}
	if c2 := rotate(t, h, demo, "two"); c2.ActiveVersion != 2 || c2.Etag == c.Etag {
		t.Errorf("updated %+v", c2)
	}
	if a, b := password(t, h, demo, 0), password(t, h, demo, 1); a != "two" || b != "one" {
		t.Errorf("active is %q and version 1 is %q", a, b)
	}
	if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: demo, Payload: coretest.Basic(t, "a", "b")}); !errors.Is(err, core.ErrAlreadyExists) {
		t.Errorf("second create: %v", err)
	}
	if err := h.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: demo, Etag: c.Etag}); !errors.Is(err, core.ErrAborted) {
		t.Errorf("delete with an old etag: %v", err)
	}
	if err := h.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: demo}); err != nil {
		t.Error(err)
	}
	if _, err := h.Store.GetCredential(ctx, demo); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("get after delete: %v", err)
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	h := coretest.New(t)
	c := create(t, h, demo, "one")
	h.Stop(t)
	h.Start(t)
	got, err := h.Store.GetCredential(coretest.AdminContext(t), demo)
	if err != nil || got.Etag != c.Etag {
		t.Errorf("after restart: %+v, %v", got, err)
	}
	if p := password(t, h, demo, 0); p != "one" {
		t.Errorf("password after restart is %q", p)
	}
}

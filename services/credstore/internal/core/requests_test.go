package core_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// mutation is one change of the contract.
type mutation struct {
	method string
	// prepare makes what the change needs.
	prepare func(t *testing.T, h *coretest.Harness)
	// call makes the change and returns the answer.
	call func(t *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error)
}

// mutations are all changes that can carry a request_id.
func mutations() []mutation {
	nothing := func(*testing.T, *coretest.Harness) {}
	hasDemo := func(t *testing.T, h *coretest.Harness) { create(t, h, demo, "one") }
	twoVersions := func(t *testing.T, h *coretest.Harness) {
		create(t, h, demo, "one")
		rotate(t, h, demo, "two")
	}
	hasStore := func(t *testing.T, h *coretest.Harness) { vaultStore(t, h, "team") }
	hasInjection := func(t *testing.T, h *coretest.Harness) {
		create(t, h, demo, "one")
		inject(t, h, "web", "web", file("f", demo))
	}
	token := resourcename.Token{Project: demoProject.ID, ID: "ci"}
	project := resourcename.Project{ID: "team"}
	return []mutation{
		{"CreateProject", nothing, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.CreateProject(ctx, core.CreateProjectRequest{Mutation: m, Name: project, Description: "d", Labels: map[string]string{"a": "b"}})
		}},
		{"UpdateProject", func(t *testing.T, h *coretest.Harness) { makeProject(t, h, project.ID) }, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.UpdateProject(ctx, core.UpdateProjectRequest{Mutation: m, Name: project, Description: new("d"), RotationPeriod: new(48 * time.Hour)})
		}},
		{"DeleteProject", func(t *testing.T, h *coretest.Harness) { makeProject(t, h, project.ID) }, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return nil, s.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Mutation: m, Name: project})
		}},
		{"CreateToken", nothing, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			t, _, err := s.CreateToken(ctx, core.CreateTokenRequest{Mutation: m, Name: token, Role: core.Workload, Attributes: map[string]string{"app": "web"}, Credentials: []resourcename.Credential{demo}})
			if t != nil {
				t.Etag = "" // a repeated call gives the token a new secret
			}
			return t, err
		}},
		{"DeleteToken", func(t *testing.T, h *coretest.Harness) {
			if _, _, err := h.Store.CreateToken(coretest.AdminContext(t), core.CreateTokenRequest{Name: token, Role: core.Reader}); err != nil {
				t.Fatal(err)
			}
		}, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return nil, s.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Mutation: m, Name: token})
		}},
		{"CreateCredential", nothing, func(t *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.CreateCredential(ctx, core.CreateCredentialRequest{Mutation: m, Name: demo, Description: "d", Labels: map[string]string{"a": "b"}, Payload: coretest.Basic(t, "bot", "one")})
		}},
		{"UpdateCredential", hasDemo, func(t *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.UpdateCredential(ctx, core.UpdateCredentialRequest{Mutation: m, Name: demo, Payload: new(coretest.Basic(t, "bot", "two"))})
		}},
		{"DeleteCredential", hasDemo, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return nil, s.DeleteCredential(ctx, core.DeleteCredentialRequest{Mutation: m, Name: demo})
		}},
		{"BatchWrite", func(t *testing.T, h *coretest.Harness) {
			create(t, h, demo, "one")
			create(t, h, cred("old"), "one")
		}, func(t *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.BatchWrite(ctx, core.BatchWriteRequest{Mutation: m, Project: demoProject, Operations: []core.BatchOperation{
				{Create: &core.CreateCredentialRequest{Name: cred("new"), Payload: coretest.Basic(t, "bot", "one")}},
				{Update: &core.UpdateCredentialRequest{Name: demo, Payload: new(coretest.Basic(t, "bot", "two"))}},
				{Delete: &core.DeleteCredentialRequest{Name: cred("old")}},
			}})
		}},
		{"ActivateVersion", twoVersions, changeFirst((*core.Store).ActivateVersion)},
		{"DisableVersion", twoVersions, changeFirst((*core.Store).DisableVersion)},
		{"EnableVersion", twoVersions, changeFirst((*core.Store).EnableVersion)},
		{"DestroyVersion", twoVersions, changeFirst((*core.Store).DestroyVersion)},
		{"DeclareUsage", hasDemo, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.DeclareUsage(ctx, core.DeclareUsageRequest{Mutation: m, Name: usageOf(demo, "u"), Type: core.UsageDeployment, User: "service", Link: "https://example.com/u"})
		}},
		{"DeleteUsage", func(t *testing.T, h *coretest.Harness) {
			create(t, h, demo, "one")
			declare(t, h, demo, "u", 0)
		}, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return nil, s.DeleteUsage(ctx, core.DeleteRequest[resourcename.Usage]{Mutation: m, Name: usageOf(demo, "u")})
		}},
		{"CreateSecretStore", func(t *testing.T, h *coretest.Harness) {
			if _, err := h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{Name: demo, Payload: coretest.VaultToken(t, "x")}); err != nil {
				t.Fatal(err)
			}
		}, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			r := storeRequest("team", demo)
			r.Mutation = m
			return s.CreateSecretStore(ctx, r)
		}},
		{"UpdateSecretStore", hasStore, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Mutation: m, Name: storeName("team"), PollInterval: new(time.Minute)})
		}},
		{"DeleteSecretStore", hasStore, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return nil, s.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Mutation: m, Name: storeName("team")})
		}},
		{"CreateInjection", hasDemo, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			r := injectRequest("web", "web", core.Item{
				Credential: &core.CredentialSource{Name: demo, Field: "password"}, Group: "g",
				File: core.FileTarget{Path: "f", Mode: 0o440, UID: new(uint32(0)), GID: new(uint32(7))},
			})
			r.Mutation = m
			return s.CreateInjection(ctx, r)
		}},
		{"UpdateInjection", hasInjection, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return s.UpdateInjection(ctx, core.UpdateInjectionRequest{Mutation: m, Name: injectionName("web"), Selector: &map[string]string{"app": "api"}})
		}},
		{"DeleteInjection", hasInjection, func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
			return nil, s.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Mutation: m, Name: injectionName("web")})
		}},
	}
}

// changeFirst makes a mutation of what changes version 1 of the demo credential.
func changeFirst[R any](change func(*core.Store, context.Context, core.ChangeVersionRequest) (R, error)) func(*testing.T, context.Context, *core.Store, core.Mutation) (any, error) {
	return func(_ *testing.T, ctx context.Context, s *core.Store, m core.Mutation) (any, error) {
		return change(s, ctx, core.ChangeVersionRequest{Mutation: m, Name: demo.Version(1)})
	}
}

func digest(body string) [32]byte { return sha256.Sum256([]byte(body)) }

// A change that is repeated with its request_id happens once, and every call
// gets the same answer.
func TestRequestIDs(t *testing.T) {
	same := func(t *testing.T, what string, got, want any) {
		t.Helper()
		equal(t, what, got, want, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(core.Token{}))
	}
	for _, mut := range mutations() {
		t.Run(mut.method, func(t *testing.T) {
			h := coretest.New(t)
			mut.prepare(t, h)
			ctx := coretest.AdminContext(t)
			m := core.Mutation{RequestID: "try-1", Digest: digest("body")}
			before := revision(t, h)
			first, err := mut.call(t, ctx, h.Store, m)
			if err != nil {
				t.Fatal(err)
			}
			if n := revision(t, h) - before; n != 1 {
				t.Errorf("the change made %d commits", n)
			}
			again := func(what string) {
				t.Helper()
				before := revision(t, h)
				answer, err := mut.call(t, coretest.AdminContext(t), h.Store, m)
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				same(t, what, answer, first)
				if n := revision(t, h) - before; n != 0 && mut.method != "CreateToken" {
					t.Errorf("%s: %d commits", what, n)
				}
			}
			again("repeated")
			again("and once more")
			h.Stop(t)
			h.Start(t)
			again("after a restart")

			before = revision(t, h)
			other := core.Mutation{RequestID: m.RequestID, Digest: digest("another body")}
			_, err = mut.call(t, ctx, h.Store, other)
			wantReason(t, "another request with the id", err, core.ErrInvalid, core.ReasonRequestIDReused)
			if n := revision(t, h) - before; n != 0 {
				t.Errorf("another request with the id: %d commits", n)
			}

			// To another caller the id says nothing: its call is made afresh,
			// and so changes something or fails on what the first one did.
			someone := core.WithPrincipal(t.Context(), &core.Principal{Name: "projects/default/tokens/other", TokenUID: "u", Role: core.Admin, AllProjects: true})
			before = revision(t, h)
			if _, err := mut.call(t, someone, h.Store, other); err == nil && revision(t, h) == before {
				t.Error("another caller's call was taken for a repetition")
			} else if errors.Is(err, core.ErrInvalid) {
				t.Errorf("another caller with the same id: %v", err)
			}
			consistent(t, h)
		})
	}
}

// Eight calls with one request_id at once, at two servers: one change, one
// answer.
func TestRequestIDsAtOnce(t *testing.T) {
	for _, mut := range mutations() {
		t.Run(mut.method, func(t *testing.T) {
			h := coretest.New(t)
			replica := h.Replica(t)
			mut.prepare(t, h)
			before := revision(t, h)
			// The other server has to have seen what was prepared.
			synced := core.Mutation{RequestID: "sync", Digest: digest("")}
			for _, s := range []*core.Store{h.Store, replica} {
				if _, err := s.CreateProject(coretest.AdminContext(t), core.CreateProjectRequest{Mutation: synced, Name: resourcename.Project{ID: "sync"}}); err != nil {
					t.Fatal(err)
				}
			}
			if n := revision(t, h) - before; n != 1 {
				t.Fatalf("the same request at two servers made %d commits", n)
			}
			before = revision(t, h)
			m := core.Mutation{RequestID: "at-once", Digest: digest("body")}
			answers := make([]any, 8)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					answer, err := mut.call(t, coretest.AdminContext(t), []*core.Store{h.Store, replica}[i%2], m)
					if err != nil {
						t.Errorf("call %d: %v", i, err)
					}
					answers[i] = answer
				})
			}
			wg.Wait()
			for _, a := range answers[1:] {
				equal(t, "the answers", a, answers[0], cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(core.Token{}))
			}
			if n := revision(t, h) - before; n != 1 && mut.method != "CreateToken" {
				t.Errorf("8 calls made %d commits", n)
			}
			consistent(t, h)
		})
	}
}

// A refused change is not remembered: the same request may succeed later.
func TestRequestIDOfRefusedChange(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	r := core.DeleteCredentialRequest{Mutation: core.Mutation{RequestID: "r", Digest: digest("d")}, Name: demo}
	wantReason(t, "delete of nothing", h.Store.DeleteCredential(ctx, r), core.ErrNotFound, core.ReasonNotFound)
	create(t, h, demo, "one")
	if err := h.Store.DeleteCredential(ctx, r); err != nil {
		t.Errorf("the same delete when there is something: %v", err)
	}
	create(t, h, demo, "another")
	if err := h.Store.DeleteCredential(ctx, r); err != nil {
		t.Error(err)
	}
	if _, err := h.Store.GetCredential(ctx, demo); err != nil {
		t.Errorf("the repeated delete removed another credential: %v", err)
	}
	for what, id := range map[string]string{"long": strings.Repeat("x", 129), "a space": "a b", "a line break": "a\n", "not ASCII": "ä"} {
		r.RequestID = id
		wantField(t, what, h.Store.DeleteCredential(ctx, r), "requestId")
	}
}

func TestRequestIDIsForgottenAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		m := core.Mutation{RequestID: "r", Digest: digest("d")}
		set := func() *core.Credential {
			c, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Mutation: m, Name: demo, Description: new("d")})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		create(t, h, demo, "one")
		first := set()
		time.Sleep(24*time.Hour - time.Second)
		if again := set(); again.Etag != first.Etag {
			t.Error("within the day it was made twice")
		}
		time.Sleep(time.Second)
		if again := set(); again.Etag == first.Etag {
			t.Error("after a day it is still remembered")
		}
		time.Sleep(25 * time.Hour)
		keys := 0
		if _, err := h.Storage.Snapshot(t.Context(), "request/", func(core.Record) error { keys++; return nil }); err != nil || keys != 0 {
			t.Errorf("%d requests are left on disk: %v", keys, err)
		}
	})
}

// A token that is issued again with its request_id has a new secret; the one
// before, which never arrived, stops working.
func TestCreateTokenRepeated(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	r := core.CreateTokenRequest{
		Mutation: core.Mutation{RequestID: "r", Digest: digest("d")}, Name: resourcename.Token{Project: "default", ID: "ci"}, Role: core.Reader,
	}
	var secrets []string
	var uid string
	for i := range 3 {
		tok, secret, err := h.Store.CreateToken(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if uid == "" {
			uid = tok.UID
		}
		if tok.UID != uid {
			t.Errorf("call %d made another token", i)
		}
		for _, old := range secrets {
			if _, err := h.Store.Authenticate(ctx, old); !errors.Is(err, core.ErrUnauthenticated) {
				t.Errorf("an earlier secret works after call %d: %v", i, err)
			}
		}
		if p, err := h.Store.Authenticate(ctx, secret); err != nil || p.TokenUID != uid {
			t.Errorf("the secret of call %d: %+v, %v", i, p, err)
		}
		secrets = append(secrets, secret)
		if i == 1 {
			h.Stop(t)
			h.Start(t)
		}
	}

	// The request is about the token that it made, not about a later one of the
	// same name, which may be allowed more than the caller.
	if err := h.Store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: r.Name}); err != nil {
		t.Fatal(err)
	}
	_, secret, err := h.Store.CreateToken(ctx, r)
	wantReason(t, "repeated after the token was deleted", err, core.ErrNotFound, core.ReasonNotFound)
	if secret != "" {
		t.Error("a secret came with the error")
	}
	mighty, own, err := h.Store.CreateToken(ctx, core.CreateTokenRequest{Name: r.Name, Role: core.Admin, AllProjects: true})
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err = h.Store.CreateToken(ctx, r)
	wantReason(t, "repeated after another token took the name", err, core.ErrNotFound, core.ReasonNotFound)
	if secret != "" {
		t.Error("the request got a secret of another's token")
	}
	if p, err := h.Store.Authenticate(ctx, own); err != nil || p.TokenUID != mighty.UID {
		t.Errorf("the other token's own secret: %+v, %v", p, err)
	}
}

// validate_only checks everything, answers, and changes nothing.
func TestValidateOnly(t *testing.T) {
	for _, mut := range mutations() {
		t.Run(mut.method, func(t *testing.T) {
			h := coretest.New(t)
			mut.prepare(t, h)
			before := revision(t, h)
			m := core.Mutation{RequestID: "r", Digest: digest("d"), ValidateOnly: true}
			for i := range 2 {
				if _, err := mut.call(t, coretest.AdminContext(t), h.Store, m); err != nil {
					t.Errorf("call %d: %v", i, err)
				}
			}
			if now := revision(t, h); now != before {
				t.Errorf("%d commits", now-before)
			}
			// The id is still free.
			m.ValidateOnly = false
			if _, err := mut.call(t, coretest.AdminContext(t), h.Store, m); err != nil {
				t.Errorf("the change itself: %v", err)
			}
			if now := revision(t, h); now != before+1 {
				t.Errorf("the change itself made %d commits", now-before)
			}
		})
	}
}

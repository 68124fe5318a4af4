package core_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

func issue(t *testing.T, h *coretest.Harness, r core.CreateTokenRequest) (*core.Token, string) {
	t.Helper()
	if r.Name.ID == "" {
		r.Name = resourcename.Token{Project: demoProject.ID, ID: "ci"}
	}
	if r.Role == 0 {
		r.Role = core.Reader
	}
	tok, secret, err := h.Store.CreateToken(coretest.AdminContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	return tok, secret
}

func TestAuthenticate(t *testing.T) {
	h := coretest.New(t)
	attributes, names := map[string]string{"app": "web"}, []resourcename.Credential{demo}
	tok, secret := issue(t, h, core.CreateTokenRequest{Role: core.Workload, Attributes: attributes, Credentials: names})
	project, err := h.Store.GetProject(coretest.AdminContext(t), demoProject)
	if err != nil {
		t.Fatal(err)
	}
	want := core.Principal{
		Name: tok.Name.String(), TokenUID: tok.UID, Role: core.Workload, Project: demoProject, ProjectUID: project.UID,
		Attributes: attributes, Credentials: names,
	}
	check := func(what string) {
		t.Helper()
		p, err := h.Store.Authenticate(t.Context(), secret)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := *p
		equal(t, what, got.Name+got.TokenUID+got.ProjectUID+got.Role.String(), want.Name+want.TokenUID+want.ProjectUID+want.Role.String())
		equal(t, what, []any{got.Project, got.AllProjects, got.Attributes, got.Credentials, got.ExpireTime}, []any{want.Project, want.AllProjects, want.Attributes, want.Credentials, want.ExpireTime})
	}
	check("a good secret")
	h.Stop(t)
	h.Start(t)
	check("after a restart")

	// Whatever is wrong with a secret, the answer is the same.
	flip := func(i int) string {
		b := []byte(secret)
		if b[i]++; b[i] > 'z' || b[i] == '{' {
			b[i] = 'A'
		}
		return string(b)
	}
	_, other := issue(t, h, core.CreateTokenRequest{Name: resourcename.Token{Project: "default", ID: "other"}})
	bad := map[string]string{
		"empty": "", "a word": "secret", "the prefix": "credstore_", "cut off": secret[:len(secret)-1], "longer": secret + "A",
		"another uid": flip(12), "another end": flip(len(secret) - 2), "two halves": secret[:43] + other[43:],
		"upper case": strings.ToUpper(secret), "with a line break": secret + "\n", "doubled": secret + secret,
		"the uid alone": secret[:42] + "_" + strings.Repeat("A", 43),
	}
	var message string
	for what, s := range bad {
		p, err := h.Store.Authenticate(t.Context(), s)
		wantReason(t, what, err, core.ErrUnauthenticated, core.ReasonUnauthenticated)
		if p != nil {
			t.Errorf("%s: a principal came with the error", what)
		}
		if message == "" {
			message = err.Error()
		}
		if err.Error() != message {
			t.Errorf("%s: %q; the others say %q", what, err, message)
		}
		if len(s) > 12 && strings.Contains(err.Error(), s) {
			t.Errorf("%s: the error repeats the secret", what)
		}
	}
	if err := h.Store.DeleteToken(coretest.AdminContext(t), core.DeleteRequest[resourcename.Token]{Name: tok.Name}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Store.Authenticate(t.Context(), secret); err == nil || err.Error() != message {
		t.Errorf("a deleted token: %v", err)
	}
	// Nor does it work when another token takes the name.
	issue(t, h, core.CreateTokenRequest{Role: core.Admin})
	if _, err := h.Store.Authenticate(t.Context(), secret); err == nil || err.Error() != message {
		t.Errorf("a deleted token whose name is in use again: %v", err)
	}
	// The secret is nowhere in storage.
	if _, err := h.Storage.Snapshot(t.Context(), "", func(r core.Record) error {
		if strings.Contains(string(r.Value), other[43:]) {
			t.Errorf("%s holds the secret", r.Key)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestTokenOfARecreatedProject(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	name := resourcename.Token{Project: "team", ID: "ci"}
	recreate := func() {
		t.Helper()
		if err := h.Store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := h.Store.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Name: name.Parent()}); err != nil {
			t.Fatal(err)
		}
		makeProject(t, h, "team")
	}
	makeProject(t, h, "team")
	first, secret := issue(t, h, core.CreateTokenRequest{Name: name})
	recreate()
	second, _ := issue(t, h, core.CreateTokenRequest{Name: name})
	if first.ProjectUID == second.ProjectUID || first.ProjectUID == "" {
		t.Errorf("tokens of two projects hold in %q and %q", first.ProjectUID, second.ProjectUID)
	}
	if _, err := h.Store.Authenticate(ctx, secret); !errors.Is(err, core.ErrUnauthenticated) {
		t.Errorf("the token of the project before: %v", err)
	}

	// The first record put back on disk does not bring the token back: it is
	// bound to a project that is no more.
	recreate()
	rec := func() core.Record {
		_, secret = issue(t, h, core.CreateTokenRequest{Name: name})
		r, err := h.Storage.Get(ctx, core.KeyOfToken(name))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}()
	recreate()
	h.Stop(t)
	tamper(t, h, core.Change{Key: rec.Key, Value: rec.Value})
	h.Start(t)
	if _, err := h.Store.Authenticate(ctx, secret); !errors.Is(err, core.ErrUnauthenticated) {
		t.Errorf("a token whose record was put back: %v", err)
	}
}

func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		_, secret := issue(t, h, core.CreateTokenRequest{ExpireTime: time.Now().Add(time.Hour)})
		time.Sleep(time.Hour - time.Nanosecond)
		p, err := h.Store.Authenticate(t.Context(), secret)
		if err != nil {
			t.Fatalf("before it expires: %v", err)
		}
		session, done := h.Store.Session(t.Context(), p)
		defer done()
		if session.Err() != nil {
			t.Error("the session is over before the token")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if _, err := h.Store.Authenticate(t.Context(), secret); !errors.Is(err, core.ErrUnauthenticated) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after it expired: %v", err)
		}
		if cause := context.Cause(session); !errors.Is(cause, core.ErrUnauthenticated) || !strings.Contains(cause.Error(), "expired") {
			t.Errorf("the session ended with %v", cause)
		}
		_, _, err = h.Store.CreateToken(coretest.AdminContext(t), core.CreateTokenRequest{Name: resourcename.Token{Project: "default", ID: "late"}, Role: core.Reader, ExpireTime: time.Now()})
		wantField(t, "a token that has expired already", err, "token.expireTime")
	})
}

// A session ends when its token is deleted, and takes its streams with it.
func TestSession(t *testing.T) {
	h := coretest.New(t)
	tok, secret := issue(t, h, core.CreateTokenRequest{Role: core.Admin})
	_, other := issue(t, h, core.CreateTokenRequest{Name: resourcename.Token{Project: "default", ID: "other"}})
	p, err := h.Store.Authenticate(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	q, err := h.Store.Authenticate(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	session, done := h.Store.Session(core.WithPrincipal(t.Context(), p), p)
	defer done()
	unrelated, done := h.Store.Session(t.Context(), q)
	defer done()
	over, end := h.Store.Session(t.Context(), p)
	end()
	if !errors.Is(context.Cause(over), context.Canceled) {
		t.Errorf("a session that its caller ended: %v", context.Cause(over))
	}
	w, err := h.Store.Watch(session, core.WatchRequest{Project: demoProject})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	untilSynced(t, w)
	ended := make(chan error, 1)
	go func() {
		_, err := w.Next(session)
		ended <- err
	}()
	if err := h.Store.DeleteToken(coretest.AdminContext(t), core.DeleteRequest[resourcename.Token]{Name: tok.Name}); err != nil {
		t.Fatal(err)
	}
	// The delete has returned: the session is over, not merely about to be.
	cause := context.Cause(session)
	wantReason(t, "the session's cause", cause, core.ErrUnauthenticated, core.ReasonUnauthenticated)
	wantReason(t, "what the stream says", <-ended, core.ErrUnauthenticated, core.ReasonUnauthenticated)
	if unrelated.Err() != nil {
		t.Errorf("another token's session: %v", context.Cause(unrelated))
	}
	// A session that begins after its token is gone is over at once.
	late, done := h.Store.Session(t.Context(), p)
	defer done()
	if !errors.Is(context.Cause(late), core.ErrUnauthenticated) {
		t.Errorf("a session of a deleted token: %v", context.Cause(late))
	}
	// A caller without a token has a session without end.
	free, done := h.Store.Session(t.Context(), &core.Principal{Name: "somebody"})
	if free.Err() != nil {
		t.Error(free.Err())
	}
	done()
}

func TestCreateTokenIsChecked(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	name := resourcename.Token{Project: "default", ID: "t"}
	many := make([]resourcename.Credential, core.MaxTokenCredentials+1)
	for i := range many {
		many[i] = demo
	}
	for what, tt := range map[string]struct {
		r     core.CreateTokenRequest
		field string
	}{
		"no role":                     {core.CreateTokenRequest{}, "token.role"},
		"an unknown role":             {core.CreateTokenRequest{Role: 9}, "token.role"},
		"credentials of an admin":     {core.CreateTokenRequest{Role: core.Admin, Credentials: many[:1]}, "token.credentials"},
		"too many credentials":        {core.CreateTokenRequest{Role: core.Workload, Credentials: many}, "token.credentials"},
		"another project's":           {core.CreateTokenRequest{Role: core.Workload, Credentials: []resourcename.Credential{{Project: "other", ID: "x"}}}, "token.credentials[0]"},
		"a workload for all projects": {core.CreateTokenRequest{Role: core.Workload, AllProjects: true}, "token.allProjects"},
		"a bad attribute":             {core.CreateTokenRequest{Role: core.Workload, Attributes: map[string]string{"A": "b"}}, "token.attributes"},
		"a bad id":                    {core.CreateTokenRequest{Name: resourcename.Token{Project: "default", ID: "T"}, Role: core.Reader}, "tokenId"},
	} {
		if tt.r.Name.ID == "" {
			tt.r.Name = name
		}
		_, secret, err := h.Store.CreateToken(ctx, tt.r)
		wantField(t, what, err, tt.field)
		if secret != "" {
			t.Errorf("%s: a secret came with the error", what)
		}
	}
	tok, secret, err := h.Store.CreateToken(ctx, core.CreateTokenRequest{Mutation: core.Mutation{ValidateOnly: true}, Name: name, Role: core.Reader})
	if err != nil || secret != "" || tok == nil {
		t.Errorf("validate only: %v, a secret of %d characters", err, len(secret))
	}
	// Who is limited to a project cannot make a token that is not, and that it
	// was tried is on record.
	limited := core.WithPrincipal(t.Context(), &core.Principal{Name: "projects/default/tokens/admin", Role: core.Admin})
	_, _, err = h.Store.CreateToken(limited, core.CreateTokenRequest{Name: name, Role: core.Admin, AllProjects: true})
	wantReason(t, "a token for all projects", err, core.ErrPermissionDenied, core.ReasonPermissionDenied)
	entries := h.Audit.Entries()
	if e := entries[len(entries)-1]; e.Allowed || e.Permission != core.TokensCreate || e.Reason == "" || e.Resource != name.String() {
		t.Errorf("the last line of the audit log is %+v", e)
	}
}

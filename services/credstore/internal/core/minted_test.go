package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// mintFile is an item with a field of a token that is minted from a credential.
func mintFile(path string, c resourcename.Credential, m *credentialv1.TokenRequest, field string) core.Item {
	return core.Item{Mint: &core.MintSource{Credential: c, Request: m, Field: field}, File: core.FileTarget{Path: path}}
}

func awsSession(d time.Duration) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsSession_{AwsSession: &credentialv1.TokenRequest_AwsSession{Duration: durationpb.New(d)}}}
}

func assumeRole(arn string) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsAssumeRole{AwsAssumeRole: &credentialv1.TokenRequest_AwsRoleSession{RoleArn: arn}}}
}

// awsToken is a token that tests hand out.
func awsToken(t *testing.T, session string, life time.Duration) credential.Token {
	t.Helper()
	m := &credentialv1.Token{Kind: &credentialv1.Token_Aws{Aws: &credentialv1.Token_AwsCredentials{AccessKeyId: "ASIA", SecretAccessKey: "secret", SessionToken: session}}}
	if life != 0 {
		m.ExpireTime = timestamppb.New(time.Now().Add(life))
	}
	token, err := credential.NewToken(m)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func createPayload(t *testing.T, h *coretest.Harness, name resourcename.Credential, p credential.Payload) {
	t.Helper()
	if _, err := h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{Name: name, Payload: p}); err != nil {
		t.Fatal(err)
	}
}

// What a mint item may be, each mistake with its field, all in one answer.
func TestMintItemViolations(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	key, basic, elsewhere := cred("key"), cred("basic"), resourcename.Credential{Project: "elsewhere", ID: "key"}
	createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
	create(t, h, basic, "one")
	good := mintFile("good", key, nil, "sessionToken")
	for _, test := range []struct {
		name   string
		items  []core.Item
		fields []string
	}{
		{"another project", []core.Item{good, mintFile("a", elsewhere, nil, "")}, []string{"injection.items[1].mint.credential"}},
		{"a kind without tokens", []core.Item{mintFile("a", basic, nil, "")}, []string{"injection.items[0].mint.token"}},
		{"a request of another kind", []core.Item{mintFile("a", key, &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_IbmIamToken_{IbmIamToken: &credentialv1.TokenRequest_IbmIamToken{}}}, "")}, []string{"injection.items[0].mint.token.ibmIamToken"}},
		{"a request that is wrong", []core.Item{mintFile("a", key, awsSession(time.Second), "")}, []string{"injection.items[0].mint.token.awsSession.duration"}},
		{"no such field", []core.Item{mintFile("a", key, nil, "password")}, []string{"injection.items[0].mint.field"}},
		{
			"several",
			[]core.Item{mintFile("a", key, nil, "x"), good, mintFile("b", basic, nil, ""), mintFile("c", key, awsSession(time.Second), "y")},
			[]string{"injection.items[0].mint.field", "injection.items[2].mint.token", "injection.items[3].mint.token.awsSession.duration"},
		},
		{"no source", []core.Item{{File: core.FileTarget{Path: "a"}}}, []string{"injection.items[0]"}},
	} {
		r := injectRequest("web", "web", test.items...)
		_, err := h.Store.CreateInjection(ctx, r)
		wantFields(t, test.name, err, test.fields...)
	}
	_, err := h.Store.CreateInjection(ctx, injectRequest("web", "web", mintFile("a", cred("none"), nil, "")))
	wantReason(t, "a credential that does not exist", err, core.ErrNotFound, core.ReasonNotFound)

	inject(t, h, "web", "web", good)
	items := []core.Item{mintFile("a", key, nil, "password")}
	_, err = h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &items})
	wantField(t, "an update", err, "injection.items[0].mint.field")
	h.Stop(t)
	h.Start(t, func(c *core.Config) { c.Authorizer = denies{core.CredentialsUse} })
	_, err = h.Store.CreateInjection(ctx, injectRequest("other", "other", good))
	if !errors.Is(err, core.ErrPermissionDenied) {
		t.Errorf("without the permission to use the credential: %v", err)
	}
}

// The request is stored as it is understood, and the caller's is left alone; the
// credential is in use from then on.
func TestMintItemIsStored(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	key := cred("key")
	createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
	const role = "arn:aws:iam::123456789012:role/deploy"
	mine := assumeRole(` "` + role + `" `)
	before := proto.CloneOf(mine)
	got := inject(t, h, "web", "web", mintFile("a", key, mine, ""), mintFile("b", key, nil, "expireTime"))
	equal(t, "the caller's request", mine, before, protocmp.Transform())
	stored := got.Items[0].Mint.Request
	if stored.GetAwsAssumeRole().GetRoleArn() != role || got.Items[1].Mint.Request.GetAwsSession() == nil {
		t.Errorf("stored as %v and %v", stored, got.Items[1].Mint.Request)
	}
	held, err := h.Store.GetInjection(ctx, injectionName("web"))
	if err != nil {
		t.Fatal(err)
	}
	mint := held.Items[0].Mint
	description := "x"
	again, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Description: &description})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "after another change", again.Items, got.Items, protocmp.Transform())
	if held.Items[0].Mint != mint {
		t.Error("what others are reading was changed")
	}
	err = h.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: key})
	wantReason(t, "a delete", err, core.ErrPrecondition, core.ReasonCredentialInUse)
	usages, _, _, err := h.Store.ListUsages(ctx, resourcename.Usage{Project: key.Project, Collection: resourcename.Credentials, Resource: key.ID}, core.Page{})
	if err != nil || len(usages) != 1 || usages[0].User != injectionName("web").String() || usages[0].Type != core.UsageInjection {
		t.Errorf("usages: %v, %v", usages, err)
	}
	consistent(t, h)
	other := cred("other")
	create(t, h, other, "one")
	items := []core.Item{file("a", other)}
	if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &items}); err != nil {
		t.Fatal(err)
	}
	remove(t, h, key)
	consistent(t, h)
}

// wanted returns the tokens that injections need and fails unless there are so
// many.
func wantedTokens(t *testing.T, h *coretest.Harness, n int) []core.WantedToken {
	t.Helper()
	synctest.Wait() // what is committed is applied before the list is made
	list, _ := h.Store.WantedTokens()
	if len(list) != n {
		t.Fatalf("%d tokens are wanted, not %d: %+v", len(list), n, list)
	}
	return list
}

func TestWantedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		key, role := cred("key"), cred("role")
		createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
		createPayload(t, h, role, coretest.AssumeRole(t, key, "deploy"))
		wantedTokens(t, h, 0)
		_, changed := h.Store.WantedTokens()
		inject(t, h, "web", "web", mintFile("a", role, nil, "sessionToken"), mintFile("b", role, nil, ""))
		inject(t, h, "also", "web", mintFile("c", role, &credentialv1.TokenRequest{}, ""))
		w := wantedTokens(t, h, 1)[0]
		select {
		case <-changed:
		default:
			t.Error("the channel is still open")
		}
		if w.Have != nil || w.Current || w.Credential != role {
			t.Errorf("%+v", w)
		}
		inject(t, h, "more", "web", mintFile("d", role, assumeRole("arn:aws:iam::123456789012:role/other"), ""), mintFile("e", key, nil, ""))
		wantedTokens(t, h, 3)

		login, version, request, err := h.Store.TokenLogin(t.Context(), w)
		if err != nil || version != 1 || request.Kind() != "awsAssumeRole" || login.Source == nil {
			t.Fatalf("TokenLogin: %v, %d, %s, %v", login, version, request.Kind(), err)
		}
		if login.Key() != w.Login {
			t.Errorf("the list has the login %q, and it is %q", w.Login, login.Key())
		}
		last := h.Audit.Entries()[len(h.Audit.Entries())-1]
		equal(t, "the line", []any{last.Principal, last.Permission, last.Resource, last.Allowed, last.Payloads, last.Minted}, []any{
			"system", core.CredentialsMint, role.String(), true, []string{role.Version(1).String(), key.Version(1).String()}, role.Version(1).String() + " awsAssumeRole",
		})

		rev, err := h.Store.PutMinted(t.Context(), w, core.MintedUpdate{
			Token: awsToken(t, "one", time.Hour), Version: version, Login: login.Key(), MintTime: time.Now(), State: core.ValueOK,
		})
		if err != nil || rev == 0 || rev != revision(t, h) {
			t.Errorf("PutMinted: %d, %v", rev, err)
		}
		find := func() core.WantedToken {
			t.Helper()
			list := wantedTokens(t, h, 3)
			return list[slices.IndexFunc(list, func(x core.WantedToken) bool { return x.Locator == w.Locator })]
		}
		h.Stop(t)
		h.Start(t)
		if got := find(); !got.Current || got.Have == nil || got.Have.State != core.ValueOK || got.Have.Version != 1 || !got.Have.ExpireTime.Equal(time.Now().Add(time.Hour)) || got.Revision < rev {
			t.Errorf("%+v of %+v", got.Have, got)
		}
		p := coretest.AccessKey(t, "OTHERKEY")
		if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: key, Payload: &p}); err != nil {
			t.Fatal(err)
		}
		if got := find(); got.Current || got.Login == w.Login || got.Have == nil {
			t.Errorf("after the source changed: %+v", got)
		}
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: key.Version(1)}); err != nil {
			t.Fatal(err)
		}
		if got := find(); !got.Current || got.Login != w.Login {
			t.Errorf("after the source's first version is active again: %+v", got)
		}
		// That a record goes is told.
		_, changed = h.Store.WantedTokens()
		var stored string
		if _, err := h.Storage.Snapshot(t.Context(), "minted/", func(r core.Record) error { stored = r.Key; return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Storage.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: stored, Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		if got := find(); got.Have != nil || got.Current {
			t.Errorf("after the record was removed: %+v", got)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told that a record went")
		}
	})
}

// Where a token is stored is part of the format: a locator that changes means that
// all tokens are minted anew.
func TestTokenLocator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		key := cred("key")
		createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
		inject(t, h, "web", "web", mintFile("a", key, awsSession(2*time.Hour), ""))
		w := wantedTokens(t, h, 1)[0]
		if want := "b3d3722037e4b9c997b8da26cc31c567"; w.Locator.Request != want {
			t.Errorf("the request's digest is %q, want %q", w.Locator.Request, want)
		}
	})
}

// Only what differs is committed.
func TestPutMinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		key := cred("key")
		createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
		inject(t, h, "web", "web", mintFile("a", key, nil, "sessionToken"))
		w := wantedTokens(t, h, 1)[0]
		s, d := openSet(t, h, "web", core.OpenSetRequest{}), newDisk()
		d.apply(t, nextSet(t, s))
		const id = "web/a"
		if d.states[id] != core.ItemFailed || !strings.Contains(d.messages[id], "no token has been minted from "+key.String()+" yet") {
			t.Errorf("before the first token: %v, %q", d.states[id], d.messages[id])
		}
		one, two := awsToken(t, "one", time.Hour), awsToken(t, "two", 2*time.Hour)
		update := func(token credential.Token, login string) core.MintedUpdate {
			return core.MintedUpdate{Token: token, Version: 1, Login: login, MintTime: time.Now(), State: core.ValueOK}
		}
		for _, step := range []struct {
			name    string
			wait    time.Duration
			update  core.MintedUpdate
			commit  bool
			content string
			state   core.ItemState
			message string
		}{
			{"a token", 0, update(one, w.Login), true, "one", core.ItemOK, ""},
			{"the same again", time.Minute, update(one, w.Login), false, "one", core.ItemOK, ""},
			{"the vendor is away", 0, core.MintedUpdate{State: core.ValueUnavailable, Message: "503"}, true, "one", core.ItemStale, "503"},
			{"still", time.Minute, core.MintedUpdate{State: core.ValueUnavailable, Message: "503"}, false, "one", core.ItemStale, "503"},
			{"it refuses", 0, core.MintedUpdate{State: core.ValueRefused, Message: "403"}, true, "one", core.ItemStale, "403"},
			{"has it ended?", 57*time.Minute + 59*time.Second, core.MintedUpdate{}, false, "one", core.ItemStale, "403"},
			{"it has", time.Second, core.MintedUpdate{}, true, "one", core.ItemFailed, "there is no token that has not ended: 403"},
			{"once", 0, core.MintedUpdate{}, false, "one", core.ItemFailed, "there is no token that has not ended: 403"},
			{"another", 0, update(two, w.Login), true, "two", core.ItemOK, ""},
			{"of a login that is none now", time.Second, update(one, "x/1"), false, "two", core.ItemOK, ""},
			{"an end without a reason", 2 * time.Hour, core.MintedUpdate{}, true, "two", core.ItemFailed, "the token has ended"},
			{"one without an end", 0, update(awsToken(t, "for ever", 0), w.Login), true, "for ever", core.ItemOK, ""},
			{"it does not end", 1000 * time.Hour, core.MintedUpdate{}, false, "for ever", core.ItemOK, ""},
		} {
			time.Sleep(step.wait)
			before := revision(t, h)
			rev, err := h.Store.PutMinted(t.Context(), w, step.update)
			switch {
			case err != nil:
				t.Fatalf("%s: %v", step.name, err)
			case !step.commit && (rev != 0 || revision(t, h) != before):
				t.Errorf("%s: committed at %d", step.name, rev)
			case step.commit && rev != before+1:
				t.Errorf("%s: revision %d after %d", step.name, rev, before)
			case step.commit:
				d.apply(t, nextSet(t, s))
			}
			equal(t, step.name, []any{d.contents[id], d.states[id], d.messages[id]}, []any{step.content, step.state, step.message})
		}
		_, err := h.Store.PutMinted(t.Context(), w, update(awsToken(t, strings.Repeat("x", core.MaxSecretValue), time.Hour), w.Login))
		wantReason(t, "a token that is too large", err, core.ErrPrecondition, core.ReasonMintRefused)

		// Nothing is stored of a credential that is gone, nor of its namesake.
		if err := h.Store.DeleteInjection(coretest.AdminContext(t), core.DeleteRequest[resourcename.Injection]{Name: injectionName("web")}); err != nil {
			t.Fatal(err)
		}
		if err := h.Store.DeleteCredential(coretest.AdminContext(t), core.DeleteCredentialRequest{Name: key, Force: true}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if rev, err := h.Store.PutMinted(t.Context(), w, update(two, w.Login)); rev != 0 || err != nil {
				t.Errorf("a token of a credential that is gone: %d, %v", rev, err)
			}
			createIfAbsent(t, h, key)
		}
		if _, err := h.Storage.Snapshot(t.Context(), "minted/", func(r core.Record) error { return fmt.Errorf("%s is there", r.Key) }); err != nil {
			t.Error(err)
		}
	})
}

// mintedFrom puts a token without an end that was made from the active version.
func mintedFrom(t *testing.T, h *coretest.Harness, name string) {
	t.Helper()
	w := wantedTokens(t, h, 1)[0]
	login, version, _, err := h.Store.TokenLogin(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := h.Store.PutMinted(t.Context(), w, core.MintedUpdate{
		Token: awsToken(t, name, 0), Version: version, Login: login.Key(), MintTime: time.Now(), State: core.ValueOK,
	}); rev == 0 || err != nil {
		t.Fatalf("PutMinted: %d, %v", rev, err)
	}
}

// A token may be a copy of what its version holds, and have no end. It goes when
// that version is destroyed or beyond the retention, and not with another.
func TestTokensGoWithTheirVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		key := cred("key")
		createPayload(t, h, key, coretest.AccessKey(t, "VERSION1"))
		inject(t, h, "web", "web", mintFile("a", key, nil, "sessionToken"))
		content := func() string {
			t.Helper()
			synctest.Wait()
			set, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
			if err != nil {
				t.Fatal(err)
			}
			return string(set.Contents["web/a"])
		}
		mintedFrom(t, h, "of 1")
		mustPut(t, h, key, coretest.AccessKey(t, "VERSION2"))
		if got := content(); got != "of 1" {
			t.Errorf("while version 1 is there and there is nothing newer: %q", got)
		}
		destroy := func(version uint32) {
			t.Helper()
			if _, err := h.Store.DestroyVersion(coretest.AdminContext(t), core.ChangeVersionRequest{Name: key.Version(version)}); err != nil {
				t.Fatal(err)
			}
		}
		destroy(1)
		if got := content(); got != "" {
			t.Errorf("after version 1 was destroyed a new workload gets %q", got)
		}
		if w := wantedTokens(t, h, 1)[0]; w.Have != nil {
			t.Errorf("still stored: %+v", w.Have)
		}
		mintedFrom(t, h, "of 2")
		destroy(1)
		if got := content(); got != "of 2" {
			t.Errorf("after version 1 was destroyed again: %q", got)
		}
		// The retention: the last ten, and all younger than 30 days.
		time.Sleep(31 * 24 * time.Hour)
		for i := range 10 {
			if got := content(); got != "of 2" {
				t.Errorf("with %d newer versions: %q", i, got)
			}
			mustPut(t, h, key, coretest.AccessKey(t, fmt.Sprint("VERSIO", 10+i)))
		}
		if got := content(); got != "" {
			t.Errorf("beyond the retention: %q", got)
		}
	})
}

// A token whose end nobody has committed yet, since the issuer is late or the
// storage refuses, is delivered to no newcomer, and taken from those who have it.
func TestTokenThatEndedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		key := cred("key")
		createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
		inject(t, h, "web", "web", mintFile("a", key, nil, "sessionToken"))
		w := wantedTokens(t, h, 1)[0]
		if _, err := h.Store.PutMinted(t.Context(), w, core.MintedUpdate{
			Token: awsToken(t, "short", time.Hour), Version: 1, Login: w.Login, MintTime: time.Now(), State: core.ValueOK,
		}); err != nil {
			t.Fatal(err)
		}
		const id = "web/a"
		first, d := openSet(t, h, "web", core.OpenSetRequest{}), newDisk()
		d.apply(t, nextSet(t, first))
		time.Sleep(time.Hour - time.Second)
		early, e := openSet(t, h, "web", core.OpenSetRequest{}), newDisk()
		e.apply(t, nextSet(t, early))
		equal(t, "a second before its end", []any{d.states[id], e.states[id], e.contents[id]}, []any{core.ItemOK, core.ItemOK, "short"})
		time.Sleep(time.Second)
		late, l := openSet(t, h, "web", core.OpenSetRequest{}), newDisk()
		l.apply(t, nextSet(t, late))
		equal(t, "at its end, a newcomer", []any{l.states[id], l.contents[id]}, []any{core.ItemFailed, ""})
		d.apply(t, nextSet(t, first))
		e.apply(t, nextSet(t, early))
		equal(t, "and the others", []any{d.states[id], e.states[id], e.messages[id]}, []any{core.ItemFailed, core.ItemFailed, "the token has ended"})
		// All of them get the next one, once.
		if _, err := h.Store.PutMinted(t.Context(), w, core.MintedUpdate{
			Token: awsToken(t, "next", time.Hour), Version: 1, Login: w.Login, MintTime: time.Now(), State: core.ValueOK,
		}); err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct {
			stream *core.SetStream
			disk   *disk
		}{{first, d}, {early, e}, {late, l}} {
			s.disk.apply(t, nextSet(t, s.stream))
			equal(t, "the next one", s.disk.contents[id], "next")
		}
	})
}

// A token that arrives after its version was replaced and destroyed is dropped:
// also when that happens while it is being committed, and to the credential that
// its own refers to.
func TestTokenThatArrivesTooLate(t *testing.T) {
	for _, source := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := coretest.New(t)
			key, minted := cred("key"), cred("key")
			createPayload(t, h, key, coretest.AccessKey(t, "VERSION1"))
			if source {
				minted = cred("role")
				createPayload(t, h, minted, coretest.AssumeRole(t, key, "deploy"))
			}
			inject(t, h, "web", "web", mintFile("a", minted, nil, "sessionToken"))
			late := &lateCommit{before: func() {}, commits: 1}
			replica := h.Replica(t, func(c *core.Config) { late.Storage, c.Storage = c.Storage, late })
			w := wantedTokens(t, h, 1)[0]
			login, version, _, err := h.Store.TokenLogin(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			update := core.MintedUpdate{Token: awsToken(t, "late", 0), Version: version, Login: login.Key(), MintTime: time.Now(), State: core.ValueOK}
			late.commits, late.before = 0, func() {
				mustPut(t, h, key, coretest.AccessKey(t, "VERSION2"))
				if _, err := h.Store.DestroyVersion(coretest.AdminContext(t), core.ChangeVersionRequest{Name: key.Version(1)}); err != nil {
					t.Error(err)
				}
			}
			for _, when := range []string{"while it is committed", "before"} {
				if rev, err := replica.PutMinted(t.Context(), w, update); rev != 0 || err != nil {
					t.Errorf("source %t, destroyed %s: revision %d, %v", source, when, rev, err)
				}
			}
			if late.commits != 1 {
				t.Errorf("source %t: %d commits were tried", source, late.commits)
			}
			if w := wantedTokens(t, h, 1)[0]; w.Have != nil {
				t.Errorf("source %t: stored %+v", source, w.Have)
			}
		})
	}
}

func createIfAbsent(t *testing.T, h *coretest.Harness, name resourcename.Credential) {
	t.Helper()
	_, err := h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{Name: name, Payload: coretest.AccessKey(t, "AMPLEKEY")})
	if err != nil && !errors.Is(err, core.ErrAlreadyExists) {
		t.Fatal(err)
	}
}

// No payload leaves when the audit log cannot be written.
func TestTokenLoginRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		key, role := cred("key"), cred("role")
		createPayload(t, h, key, coretest.AccessKey(t, "AMPLEKEY"))
		createPayload(t, h, role, coretest.AssumeRole(t, key, "deploy"))
		inject(t, h, "web", "web", mintFile("a", role, nil, ""))
		w := wantedTokens(t, h, 1)[0]
		h.Audit.Fail(errors.New("full"))
		login, _, _, err := h.Store.TokenLogin(t.Context(), w)
		wantReason(t, "without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
		if !login.Payload.IsZero() {
			t.Error("the payload left")
		}
		h.Audit.Fail(nil)
		w.Credential = cred("none")
		_, _, _, err = h.Store.TokenLogin(t.Context(), w)
		wantReason(t, "a credential that is gone", err, core.ErrNotFound, core.ReasonNotFound)
	})
}

// The issuer is told at once which versions are active no more.
func TestTokensAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := coretest.NewIssuer(t)
		h := coretest.New(t, issuer.Use)
		ctx := coretest.AdminContext(t)
		c := create(t, h, demo, "one")
		label(t, h, demo, map[string]string{"a": "b"})
		rotate(t, h, demo, "two")
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
			t.Fatal(err)
		}
		remove(t, h, demo)
		next := create(t, h, demo, "three")
		synctest.Wait()
		before := issuer.Forgotten()
		equal(t, "forgotten", before, []string{c.UID + "/2", c.UID + "/1", c.UID + "/0"})

		// Also when the history that tells so is gone: the state is compared.
		l := &lostHistory{}
		h.Stop(t)
		h.Start(t, issuer.Use, func(cfg *core.Config) { l.Storage, cfg.Storage = cfg.Storage, l })
		other := h.Replica(t, func(cfg *core.Config) { cfg.Issuer, cfg.Storage = nil, l.Storage })
		synctest.Wait()
		l.hold()
		p := coretest.Basic(t, "bot", "four")
		if _, err := other.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Payload: &p}); err != nil {
			t.Fatal(err)
		}
		l.lose()
		synctest.Wait()
		equal(t, "after a reload", issuer.Forgotten()[len(before):], []string{next.UID + "/2"})
	})
}

// lostHistory is a storage whose first feed can be held up and then lost.
type lostHistory struct {
	core.Storage

	feed *heldFeed
}

func (l *lostHistory) Feed(ctx context.Context, after core.Revision) (core.Feed, error) {
	f, err := l.Storage.Feed(ctx, after)
	if err != nil || l.feed != nil {
		return f, err
	}
	l.feed = &heldFeed{Feed: f, held: make(chan struct{}), lost: make(chan struct{})}
	return l.feed, nil
}

func (l *lostHistory) hold() { close(l.feed.held) }
func (l *lostHistory) lose() { close(l.feed.lost) }

type heldFeed struct {
	core.Feed

	held, lost chan struct{}
}

func (f *heldFeed) Next(ctx context.Context) (core.Commit, error) {
	c, err := f.Feed.Next(ctx)
	select {
	case <-f.held:
		<-f.lost
		return core.Commit{}, core.ErrCompacted
	default:
		return c, err
	}
}

package core_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

func usageOf(c resourcename.Credential, id string) resourcename.Usage {
	return resourcename.Usage{Project: c.Project, Collection: resourcename.Credentials, Resource: c.ID, ID: id}
}

func declare(t *testing.T, h *coretest.Harness, c resourcename.Credential, id string, ttl time.Duration) *core.Usage {
	t.Helper()
	u, err := h.Store.DeclareUsage(coretest.AdminContext(t), core.DeclareUsageRequest{Name: usageOf(c, id), User: "service " + id, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tryDelete(t *testing.T, h *coretest.Harness, c resourcename.Credential, force bool) error {
	t.Helper()
	return h.Store.DeleteCredential(coretest.AdminContext(t), core.DeleteCredentialRequest{Name: c, Force: force})
}

// users lists who stands in the way of a delete, as its refusal says.
func users(t *testing.T, err error) []string {
	t.Helper()
	var e *core.Error
	if !errors.As(err, &e) || e.InUse == nil {
		t.Fatalf("%v; want a list of uses", err)
	}
	var out []string
	for _, u := range e.InUse.Usages {
		out = append(out, u.User)
	}
	for _, c := range e.InUse.Consumers {
		out = append(out, "consumer "+c.Workload)
	}
	if e.InUse.TotalUsages+e.InUse.TotalConsumers != len(out) {
		t.Errorf("%d usages and %d consumers in all; %d are listed", e.InUse.TotalUsages, e.InUse.TotalConsumers, len(out))
	}
	slices.Sort(out)
	return out
}

func TestDeleteRefusedWithEveryUse(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	st := vaultStore(t, h, "team")
	login := st.Credential
	inject(t, h, "web", "web", core.Item{Credential: &core.CredentialSource{Name: login}, File: core.FileTarget{Path: "a"}}, secretFile("b", "team", "app/db", "password"))
	declare(t, h, login, "billing", 0)
	w := watch(t, h, core.WatchRequest{View: core.ViewPayload, Names: []resourcename.Credential{login}, Consumer: "reader-1"})
	untilSynced(t, w)
	everyone := watch(t, h, core.WatchRequest{View: core.ViewPayload, Consumer: "watches-all"})
	untilSynced(t, everyone)

	usages, consumers, _, err := h.Store.ListUsages(ctx, usageOf(login, ""), core.Page{})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, u := range usages {
		listed = append(listed, fmt.Sprintf("%s %d %s", u.Name.ID, u.Source, u.User))
	}
	equal(t, "durable usages", listed, []string{
		"billing 2 service billing", "injections.web 1 projects/default/injections/web", "secretStores.team 1 projects/default/secretStores/team",
	})
	var live []string
	for _, c := range consumers {
		live = append(live, fmt.Sprintf("%s v%d named %v", c.Workload, c.Version, c.Named))
	}
	equal(t, "consumers", live, []string{"reader-1 v1 named true", "watches-all v1 named false"})

	durable := []string{"projects/default/injections/web", "projects/default/secretStores/team", "service billing"}
	err = tryDelete(t, h, login, false)
	wantReason(t, "delete", err, core.ErrPrecondition, core.ReasonCredentialInUse)
	equal(t, "refused for", users(t, err), append([]string{"consumer reader-1"}, durable...))
	err = tryDelete(t, h, login, true)
	wantReason(t, "forced delete", err, core.ErrPrecondition, core.ReasonCredentialInUse)
	equal(t, "refused for, though forced", users(t, err), durable)
	_, err = h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Create: &core.CreateCredentialRequest{Name: cred("beside"), Payload: coretest.Basic(t, "a", "b")}},
		{Delete: &core.DeleteCredentialRequest{Name: login, Force: true}},
	}})
	wantReason(t, "delete in a batch", err, core.ErrPrecondition, core.ReasonCredentialInUse)
	if _, err := h.Store.GetCredential(ctx, cred("beside")); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("half of a batch was done: %v", err)
	}

	// The store goes after the injection, the credential after all of them.
	err = h.Store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: st.Name})
	wantReason(t, "delete of the store", err, core.ErrPrecondition, core.ReasonSecretStoreInUse)
	equal(t, "the store is refused for", users(t, err), []string{"projects/default/injections/web"})
	err = h.Store.DeleteUsage(ctx, core.DeleteRequest[resourcename.Usage]{Name: usageOf(login, "injections.web")})
	wantReason(t, "delete of a derived usage", err, core.ErrPrecondition, core.ReasonUsageDerived)
	for _, step := range []func() error{
		func() error {
			return h.Store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Name: injectionName("web")})
		},
		func() error {
			return h.Store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: st.Name})
		},
		func() error {
			return h.Store.DeleteUsage(ctx, core.DeleteRequest[resourcename.Usage]{Name: usageOf(login, "billing")})
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	err = tryDelete(t, h, login, false)
	equal(t, "what is left", users(t, err), []string{"consumer reader-1"})
	if err := tryDelete(t, h, login, true); err != nil {
		t.Errorf("forced delete of what only live consumers hold: %v", err)
	}
	consistent(t, h)
}

// An update takes back the usages of what a resource no longer names.
func TestUsagesFollowUpdates(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	for _, id := range []string{"a", "b"} {
		create(t, h, cred(id), "x")
	}
	st := vaultStore(t, h, "team")
	if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: cred("next-login"), Payload: coretest.VaultToken(t, "hvs.next")}); err != nil {
		t.Fatal(err)
	}
	inject(t, h, "web", "web", file("one", cred("a")), file("two", cred("a")))
	if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{file("one", cred("b")), secretFile("s", "team", "p", "k")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: st.Name, Credential: new(cred("next-login"))}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"a": true, "b": false, "team-login": true, "next-login": false} {
		if err := tryDelete(t, h, cred(id), false); (err == nil) != want {
			t.Errorf("delete of %s: %v", id, err)
		}
	}
	// What does not exist cannot be named, nor what lies in another project.
	_, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{file("one", cred("a"))}})
	wantReason(t, "an injection of a deleted credential", err, core.ErrNotFound, core.ReasonNotFound)
	_, err = h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: st.Name, Credential: new(cred("team-login"))})
	wantReason(t, "a store of a deleted credential", err, core.ErrNotFound, core.ReasonNotFound)
	makeProject(t, h, "other")
	elsewhere := resourcename.Credential{Project: "other", ID: "a"}
	if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: elsewhere, Payload: coretest.Basic(t, "a", "b")}); err != nil {
		t.Fatal(err)
	}
	_, err = h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &[]core.Item{file("one", elsewhere)}})
	wantField(t, "an injection of another project's credential", err, "injection.items[0].credential.name")
	_, err = h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: st.Name, Credential: new(cred("b"))})
	wantField(t, "a store with a credential of another kind", err, "secretStore.credential")
	consistent(t, h)
}

// A declared usage says what for, with a type of those that programs may say;
// the derived ones have theirs.
func TestUsageTypes(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	st := vaultStore(t, h, "team")
	login := st.Credential
	inject(t, h, "web", "web", core.Item{Credential: &core.CredentialSource{Name: login}, File: core.FileTarget{Path: "a"}}, secretFile("b", "team", "p", "k"))
	say := func(id string, typ core.UsageType) (*core.Usage, error) {
		return h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: usageOf(login, id), User: "somebody", Type: typ})
	}
	for typ, want := range map[core.UsageType]core.UsageType{
		0: core.UsageOther, core.UsageOther: core.UsageOther, core.UsageRegistryScan: core.UsageRegistryScan, core.UsageServerlessScan: core.UsageServerlessScan,
		core.UsageCloudScan: core.UsageCloudScan, core.UsageAlertChannel: core.UsageAlertChannel, core.UsageDeployment: core.UsageDeployment,
	} {
		u, err := say(fmt.Sprint("u-", typ), typ)
		if err != nil || u.Type != want {
			t.Errorf("type %d: %+v, %v", typ, u, err)
		}
	}
	for _, typ := range []core.UsageType{core.UsageSecretStore, core.UsageInjection, core.UsageCredential, core.UsageCredential + 1, 1 << 31} {
		_, err := say("bad", typ)
		wantField(t, fmt.Sprint("type ", typ), err, "usage.type")
	}
	// Renewing it may change the type.
	if u, err := say("u-3", core.UsageDeployment); err != nil || u.Type != core.UsageDeployment {
		t.Errorf("%+v, %v", u, err)
	}
	h.Stop(t)
	h.Start(t)
	equal(t, "usages", usersOf(t, h, login), []string{
		"injections.web 8", "secretStores.team 7", "u-0 1", "u-1 1", "u-2 2", "u-3 6", "u-4 4", "u-5 5", "u-6 6",
	})
	usages, _, _, err := h.Store.ListUsages(ctx, resourcename.Usage{Project: demoProject.ID, Collection: resourcename.SecretStores, Resource: "team"}, core.Page{})
	if err != nil || len(usages) != 1 || usages[0].Type != core.UsageInjection {
		t.Errorf("usages of the store: %+v, %v", usages, err)
	}
}

func TestDeclaredUsageLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		create(t, h, demo, "one")
		first := declare(t, h, demo, "billing", time.Hour)
		time.Sleep(time.Hour - time.Second)
		if err := tryDelete(t, h, demo, true); !errors.Is(err, core.ErrPrecondition) {
			t.Fatalf("a second before it lapses: %v", err)
		}
		renewed := declare(t, h, demo, "billing", time.Hour)
		if !renewed.CreateTime.Equal(first.CreateTime) || !renewed.ExpireTime.Equal(first.ExpireTime.Add(time.Hour-time.Second)) {
			t.Errorf("renewed %+v", renewed)
		}
		time.Sleep(time.Hour - time.Second)
		if err := tryDelete(t, h, demo, true); !errors.Is(err, core.ErrPrecondition) {
			t.Fatalf("a second before the renewed one lapses: %v", err)
		}
		time.Sleep(time.Second)
		usages, _, _, err := h.Store.ListUsages(ctx, usageOf(demo, ""), core.Page{})
		if err != nil || len(usages) != 0 {
			t.Errorf("lapsed usages are listed: %+v, %v", usages, err)
		}
		// A batch that is only checked leaves the storage as it is.
		before := revision(t, h)
		if _, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{
			Mutation: core.Mutation{ValidateOnly: true}, Project: demoProject,
			Operations: []core.BatchOperation{{Delete: &core.DeleteCredentialRequest{Name: demo}}},
		}); err != nil {
			t.Error(err)
		}
		if now := revision(t, h); now != before {
			t.Errorf("checking a delete committed %d revisions", now-before)
		}
		if err := tryDelete(t, h, demo, false); err != nil {
			t.Errorf("delete after the usage lapsed: %v", err)
		}

		// The janitor removes what nobody deletes.
		create(t, h, demo, "again")
		declare(t, h, demo, "short", time.Minute)
		time.Sleep(3 * time.Minute)
		if _, err := h.Storage.Get(t.Context(), core.KeyOfUsage(usageOf(demo, "short"))); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("the lapsed usage's record: %v", err)
		}
		for _, ttl := range []time.Duration{time.Minute - 1, 90*24*time.Hour + 1, -1} {
			_, err := h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: usageOf(demo, "x"), User: "x", TTL: ttl})
			wantField(t, ttl.String(), err, "usage.ttl")
		}
		derived := usageOf(demo, "injections.web")
		for _, user := range []string{"", strings.Repeat("x", 257), "x\nprojects/default/credentials/demo was deleted", "x\ty", "x\u202ey", "x\xff"} {
			_, err := h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: usageOf(demo, "x"), User: user})
			wantField(t, fmt.Sprintf("user %q", user), err, "usage.user")
		}
		_, err = h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: derived, User: "x"})
		wantField(t, "an id in the form of a derived usage's", err, "usageId")
		ofStore := resourcename.Usage{Project: demo.Project, Collection: resourcename.SecretStores, Resource: demo.ID, ID: "x"}
		_, err = h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: ofStore, User: "x"})
		wantField(t, "a usage of a store", err, "parent")
		consistent(t, h)
	})
}

func TestEtags(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	old := create(t, h, demo, "one").Etag
	label(t, h, demo, map[string]string{"a": "b"})
	st := vaultStore(t, h, "team")
	inj := inject(t, h, "web", "web", file("f", demo))
	p := makeProject(t, h, "p")
	tok, _, err := h.Store.CreateToken(ctx, core.CreateTokenRequest{Name: resourcename.Token{Project: "default", ID: "t"}, Role: core.Reader})
	if err != nil {
		t.Fatal(err)
	}
	d := "changed"
	for name, call := range map[string]func(etag string) error{
		"update": func(e string) error {
			_, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Etag: cmp.Or(e, old), Description: &d})
			return err
		},
		"update of nothing": func(e string) error {
			_, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Etag: cmp.Or(e, old)})
			return err
		},
		"activate": func(e string) error {
			_, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1), Etag: cmp.Or(e, old)})
			return err
		},
		"delete": func(e string) error {
			return h.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: demo, Etag: cmp.Or(e, old), Force: true})
		},
		"update of a store": func(e string) error {
			_, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: st.Name, Etag: cmp.Or(e, "1-x"), Description: &d})
			return err
		},
		"delete of a store": func(e string) error {
			return h.Store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: st.Name, Etag: cmp.Or(e, "1-x")})
		},
		"update of an injection": func(e string) error {
			_, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: inj.Name, Etag: cmp.Or(e, "1-x"), Description: &d})
			return err
		},
		"delete of an injection": func(e string) error {
			return h.Store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Name: inj.Name, Etag: cmp.Or(e, "1-x")})
		},
		"delete of a project": func(e string) error {
			return h.Store.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Name: p, Etag: cmp.Or(e, "1-x")})
		},
		"delete of a token": func(e string) error {
			return h.Store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: tok.Name, Etag: cmp.Or(e, "1-x")})
		},
	} {
		wantReason(t, name, call(""), core.ErrAborted, core.ReasonEtagMismatch)
	}
	got, err := h.Store.GetCredential(ctx, demo)
	if err != nil || got.Description != "" {
		t.Errorf("after refused changes: %+v, %v", got, err)
	}
	// With the right one each of them goes.
	if got, err = h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Etag: got.Etag, Description: &d}); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		h.Store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Name: inj.Name, Etag: inj.Etag}),
		h.Store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: st.Name, Etag: st.Etag}),
		h.Store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: tok.Name, Etag: tok.Etag}),
		h.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: demo, Etag: got.Etag}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	// A namesake has another.
	if again := create(t, h, demo, "one"); again.Etag == old || again.UID == got.UID {
		t.Errorf("a namesake has etag %s and uid %s", again.Etag, again.UID)
	}
}

// A project that holds anything stays.
func TestDeleteProjectThatHoldsAnything(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	p := makeProject(t, h, "team")
	in := func(id string) resourcename.Credential { return resourcename.Credential{Project: p.ID, ID: id} }
	del := func() error {
		return h.Store.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Name: p})
	}
	steps := []struct {
		what           string
		create, remove func() error
	}{
		{
			"a credential",
			func() error {
				_, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: in("login"), Payload: coretest.VaultToken(t, "x")})
				return err
			},
			func() error { return h.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: in("login")}) },
		},
		{
			"a secret store",
			func() error {
				r := storeRequest("s", in("login"))
				r.Name.Project = p.ID
				_, err := h.Store.CreateSecretStore(ctx, r)
				return err
			},
			func() error {
				return h.Store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: resourcename.SecretStore{Project: p.ID, ID: "s"}})
			},
		},
		{
			"an injection",
			func() error {
				r := injectRequest("i", "web", core.Item{Secret: &core.SecretSource{Store: resourcename.SecretStore{Project: p.ID, ID: "s"}, Path: "p"}, File: core.FileTarget{Path: "f"}})
				r.Name.Project = p.ID
				_, err := h.Store.CreateInjection(ctx, r)
				return err
			},
			func() error {
				return h.Store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Name: resourcename.Injection{Project: p.ID, ID: "i"}})
			},
		},
		{
			"a token",
			func() error {
				_, _, err := h.Store.CreateToken(ctx, core.CreateTokenRequest{Name: resourcename.Token{Project: p.ID, ID: "t"}, Role: core.Reader})
				return err
			},
			func() error {
				return h.Store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: resourcename.Token{Project: p.ID, ID: "t"}})
			},
		},
	}
	for _, s := range steps {
		if err := s.create(); err != nil {
			t.Fatal(err)
		}
		wantReason(t, "delete of a project with "+s.what, del(), core.ErrPrecondition, core.ReasonProjectNotEmpty)
	}
	for _, s := range slices.Backward(steps) {
		if err := del(); !errors.Is(err, core.ErrPrecondition) {
			t.Errorf("%s is there, and the project is deleted: %v", s.what, err)
		}
		if err := s.remove(); err != nil {
			t.Fatal(err)
		}
	}
	if err := del(); err != nil {
		t.Errorf("delete of the empty project: %v", err)
	}
	_, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: in("late"), Payload: coretest.Basic(t, "a", "b")})
	wantReason(t, "create in the deleted project", err, core.ErrNotFound, core.ReasonNotFound)
	err = h.Store.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Name: demoProject})
	wantReason(t, "delete of the default project", err, core.ErrPrecondition, core.ReasonProjectProtected)
	consistent(t, h)
}

// raceRounds is how often two clients race; lanes of them at the same time.
const (
	raceRounds = 600
	lanes      = 12
)

// race runs pairs of calls against each other, at two servers with one storage,
// and counts who won. Each side must win some rounds, or nothing was raced.
func race(t *testing.T, h *coretest.Harness, round func(ctx context.Context, n int, a, b *core.Store) (refer, remove error)) {
	t.Helper()
	replica := h.Replica(t)
	ctx := coretest.AdminContext(t)
	var referred, removed atomic.Int32
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for n := lane; n < raceRounds; n += lanes {
				refer, remove := round(ctx, n, h.Store, replica)
				if refer == nil {
					referred.Add(1)
				}
				if remove == nil {
					removed.Add(1)
				}
				if refer == nil && remove == nil || refer != nil && remove != nil || !notFoundOrInUse(refer, remove) {
					t.Errorf("round %d: to refer: %v; to delete: %v", n, refer, remove)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d references won and %d deletes", referred.Load(), removed.Load())
	if referred.Load() == 0 || removed.Load() == 0 {
		t.Errorf("%d references and %d deletes won: this was no race", referred.Load(), removed.Load())
	}
	consistent(t, h)
}

// sometimesTogether is together, but for two rounds of twenty, which a and b win for
// certain: who wins the others is up to the scheduler, and where one of them waits
// for its turn it may be always the other.
func sometimesTogether(round int, a, b func() error) (errA, errB error) {
	switch round % 20 {
	case 0:
		errA = a()
		return errA, b()
	case 1:
		errB = b()
		return a(), errB
	}
	return together(a, b)
}

// together runs two calls at the same time, either first.
func together(a, b func() error) (errA, errB error) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	run := func(f func() error, err *error) {
		wg.Go(func() {
			<-begin
			*err = f()
		})
	}
	if rand.IntN(2) == 0 {
		run(a, &errA)
		run(b, &errB)
	} else {
		run(b, &errB)
		run(a, &errA)
	}
	close(begin)
	wg.Wait()
	return errA, errB
}

func notFoundOrInUse(refer, remove error) bool {
	return (refer == nil || errors.Is(refer, core.ErrNotFound)) && (remove == nil || errors.Is(remove, core.ErrPrecondition))
}

func TestRaceReferenceAndDeleteOfCredential(t *testing.T) {
	h := coretest.New(t)
	race(t, h, func(ctx context.Context, n int, a, b *core.Store) (error, error) {
		c := cred(fmt.Sprintf("c-%d", n))
		if _, err := b.CreateCredential(ctx, core.CreateCredentialRequest{Name: c, Payload: coretest.VaultToken(t, "x")}); err != nil {
			return err, err
		}
		refer := func() error {
			switch n % 3 {
			case 0:
				_, err := b.CreateSecretStore(ctx, storeRequest(c.ID, c))
				return err
			case 1:
				_, err := b.DeclareUsage(ctx, core.DeclareUsageRequest{Name: usageOf(c, "u"), User: "somebody"})
				return err
			}
			_, err := b.CreateInjection(ctx, injectRequest(c.ID, c.ID, core.Item{Credential: &core.CredentialSource{Name: c}, File: core.FileTarget{Path: "f"}}))
			return err
		}
		// The delete goes to the other server, which may not have seen the
		// credential yet.
		remove := func() error {
			for {
				err := a.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: c, Force: true})
				if !errors.Is(err, core.ErrNotFound) {
					return err
				}
			}
		}
		ref, rem := together(refer, remove)
		return ref, rem
	})
}

func TestRaceInjectionAndDeleteOfStore(t *testing.T) {
	h := coretest.New(t)
	login := vaultStore(t, h, "first").Credential
	race(t, h, func(ctx context.Context, n int, _, b *core.Store) (error, error) {
		id := fmt.Sprintf("s-%d", n)
		for { // the other server may not have the credential yet
			_, err := b.CreateSecretStore(ctx, storeRequest(id, login))
			if err == nil {
				break
			}
			if !errors.Is(err, core.ErrNotFound) {
				return err, err
			}
		}
		ref, rem := together(func() error {
			_, err := b.CreateInjection(ctx, injectRequest(id, id, secretFile("f", id, "app/db", "k")))
			return err
		}, func() error {
			return b.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: storeName(id)})
		})
		return ref, rem
	})
}

func TestRaceCreateInProjectAndDeleteOfProject(t *testing.T) {
	h := coretest.New(t)
	race(t, h, func(ctx context.Context, n int, a, b *core.Store) (error, error) {
		p := resourcename.Project{ID: fmt.Sprintf("p-%d", n)}
		if _, err := a.CreateProject(ctx, core.CreateProjectRequest{Name: p}); err != nil {
			return err, err
		}
		ref, rem := together(func() error {
			switch n % 2 {
			case 0:
				_, err := a.CreateCredential(ctx, core.CreateCredentialRequest{Name: resourcename.Credential{Project: p.ID, ID: "c"}, Payload: coretest.Basic(t, "a", "b")})
				return err
			}
			_, _, err := a.CreateToken(ctx, core.CreateTokenRequest{Name: resourcename.Token{Project: p.ID, ID: "t"}, Role: core.Reader})
			return err
		}, func() error {
			for { // the other server may not have the project yet
				err := b.DeleteProject(ctx, core.DeleteRequest[resourcename.Project]{Name: p})
				if !errors.Is(err, core.ErrNotFound) {
					return err
				}
			}
		})
		return ref, rem
	})
}

// A usage whose time is over holds again when it is renewed before the delete.
func TestRaceRenewalAndDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		ctx := coretest.AdminContext(t)
		for n := range 100 {
			c := create(t, h, cred(fmt.Sprintf("c-%d", n)), "x").Name
			declare(t, h, c, "u", time.Minute)
			time.Sleep(time.Minute)
			renew, remove := together(func() error {
				_, err := h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: usageOf(c, "u"), User: "service"})
				return err
			}, func() error { return tryDelete(t, h, c, false) })
			if (renew == nil) == (remove == nil) || !notFoundOrInUse(renew, remove) {
				t.Errorf("round %d: to renew: %v; to delete: %v", n, renew, remove)
			}
		}
		consistent(t, h)
	})
}

// Of two overlapping injections that are saved at once, one loses.
func TestRaceOverlappingInjections(t *testing.T) {
	h := coretest.New(t)
	replica := h.Replica(t)
	create(t, h, demo, "one")
	ctx := coretest.AdminContext(t)
	for n := range 100 {
		app := fmt.Sprintf("app-%d", n)
		save := func(s *core.Store, id, path string) func() error {
			return func() error {
				for {
					_, err := s.CreateInjection(ctx, injectRequest(fmt.Sprintf("%s-%d", id, n), app, file(path, demo)))
					if !errors.Is(err, core.ErrNotFound) { // until it has the credential
						return err
					}
				}
			}
		}
		paths := [][2]string{{"same", "same"}, {"dir", "dir/file"}, {"a/b/c", "a/b"}}[n%3]
		a, b := together(save(h.Store, "a", paths[0]), save(replica, "b", paths[1]))
		if (a == nil) == (b == nil) {
			t.Fatalf("round %d: %v and %v", n, a, b)
		}
		wantReason(t, "the loser", cmp.Or(a, b), core.ErrPrecondition, core.ReasonPathConflict)
	}
	consistent(t, h)
}

func TestPathConflicts(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	ctx := coretest.AdminContext(t)
	inject(t, h, "first", "web", file("etc/app/password", demo))
	tests := []struct {
		name     string
		selector map[string]string
		path     string
		conflict bool
	}{
		{"the same path", map[string]string{"app": "web"}, "etc/app/password", true},
		{"a file where a directory is", map[string]string{"app": "web"}, "etc/app", true},
		{"a directory where a file is", map[string]string{"app": "web"}, "etc/app/password/x", true},
		{"a sibling", map[string]string{"app": "web"}, "etc/app/passwordx", false},
		{"no workload matches both", map[string]string{"app": "api"}, "etc/app/password", false},
		{"a workload could match both", map[string]string{"zone": "eu"}, "etc/app/password", true},
		{"a narrower selector", map[string]string{"app": "web", "zone": "eu"}, "etc/app/password", true},
		{"a narrower selector of another app", map[string]string{"app": "api", "zone": "eu"}, "etc/app/password", false},
	}
	for _, tt := range tests {
		for _, validate := range []bool{true, false} {
			i, err := h.Store.CreateInjection(ctx, core.CreateInjectionRequest{
				Mutation: core.Mutation{ValidateOnly: validate}, Name: injectionName("second"), Selector: tt.selector, Items: []core.Item{file(tt.path, demo)},
			})
			if tt.conflict {
				wantReason(t, tt.name, err, core.ErrPrecondition, core.ReasonPathConflict)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if validate {
				continue
			}
			// It conflicts when it comes to select the first one's workloads.
			if tt.path == "etc/app/password" {
				_, err = h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: i.Name, Selector: new(map[string]string{"app": "web"})})
				wantReason(t, tt.name+", then selected", err, core.ErrPrecondition, core.ReasonPathConflict)
			}
			if err := h.Store.DeleteInjection(ctx, core.DeleteRequest[resourcename.Injection]{Name: i.Name}); err != nil {
				t.Error(err)
			}
		}
	}
	// An injection does not conflict with itself.
	if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("first"), Items: &[]core.Item{file("etc/app", demo)}}); err != nil {
		t.Error(err)
	}
}

package core_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// departures are the lines of the audit log that name payloads.
func departures(h *coretest.Harness) []core.AuditEntry {
	return slices.DeleteFunc(h.Audit.Entries(), func(e core.AuditEntry) bool { return len(e.Payloads) == 0 })
}

// lines shows departures: what left, and to how many streams.
func lines(entries []core.AuditEntry) []string {
	var out []string
	for _, e := range entries {
		var names []string
		for _, p := range e.Payloads {
			names = append(names, strings.TrimPrefix(p, "projects/default/credentials/"))
		}
		slices.Sort(names)
		out = append(out, fmt.Sprintf("%s %s to %d", e.Permission, strings.Join(names, " "), len(e.Subscriptions)))
	}
	return out
}

var errDisk = errors.New("no space left on device")

// An access is on record before its payload leaves, in exactly one line, and
// does not happen when it cannot be.
func TestAuditOfAccess(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	rotate(t, h, demo, "two")
	ctx := core.WithCallID(core.WithPrincipal(t.Context(), &core.Principal{Name: "projects/default/tokens/a", Role: core.Admin, AllProjects: true, Remote: "192.0.2.1:5"}), "call-7")
	if _, _, err := h.Store.AccessCredential(ctx, demo, 1); err != nil {
		t.Fatal(err)
	}
	got := departures(h)
	if len(got) != 1 {
		t.Fatalf("%d lines for one access: %v", len(got), lines(got))
	}
	e := got[0]
	if time.Since(e.Time) > time.Minute || e.Time.IsZero() {
		t.Errorf("the line's time is %s", e.Time)
	}
	e.Time = time.Time{}
	equal(t, "the line", e, core.AuditEntry{
		Principal: "projects/default/tokens/a", Remote: "192.0.2.1:5", RequestID: "call-7", Permission: core.CredentialsAccess,
		Resource: demo.String(), Allowed: true, Payloads: []string{"projects/default/credentials/demo/versions/1"},
	})

	// What fails leaves no such line.
	if err := func() error { _, _, err := h.Store.AccessCredential(ctx, demo, 9); return err }(); !errors.Is(err, core.ErrNotFound) {
		t.Fatal(err)
	}
	if n := len(departures(h)); n != 1 {
		t.Errorf("%d lines after a failed access", n)
	}
	h.Audit.Fail(errDisk)
	name, p, err := h.Store.AccessCredential(ctx, demo, 0)
	wantReason(t, "access without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
	if !p.IsZero() || name.Number != 0 || strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("with it came %v and a payload: %v", name, !p.IsZero())
	}
	inject(t, func() *coretest.Harness { h.Audit.Fail(nil); return h }(), "web", "web", file("f", demo))
	st := vaultStore(t, h, "team")
	h.Audit.Fail(errDisk)
	u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
	wantReason(t, "a set without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
	if u != nil {
		t.Error("a set came with the error")
	}
	asked, login, err := h.Store.StoreLogin(t.Context(), st.Name)
	wantReason(t, "a login without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
	if !login.Payload.IsZero() || asked != nil {
		t.Error("a login's payload came with the error")
	}
	// Changes are on record as well, or do not happen.
	before := revision(t, h)
	for _, mut := range mutations() {
		_, err := mut.call(t, coretest.AdminContext(t), h.Store, core.Mutation{})
		wantReason(t, mut.method+" without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
	}
	if now := revision(t, h); now != before {
		t.Errorf("%d changes happened", now-before)
	}
	h.Audit.Fail(nil)
	if _, _, err := h.Store.StoreLogin(t.Context(), st.Name); err != nil {
		t.Fatal(err)
	}
	got = departures(h)
	equal(t, "the line of a login", lines(got[len(got)-1:]), []string{"credentials.use team-login/versions/1 to 0"})
}

// A push to many watchers is one line that names them all; who may not have all
// of it has lines of its own, and who gets no payload none.
func TestAuditOfPush(t *testing.T) { synctest.Test(t, testAuditOfPush) }

func testAuditOfPush(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	var all []*core.CredentialWatch
	for range 20 {
		all = append(all, watch(t, h, core.WatchRequest{View: core.ViewPayload}))
	}
	filtered := watch(t, h, core.WatchRequest{View: core.ViewPayload, Filter: "labels.team = a"})
	named := watch(t, h, core.WatchRequest{View: core.ViewPayload, Names: []resourcename.Credential{cred("other")}})
	metadata := watch(t, h, core.WatchRequest{})
	for _, w := range append(slices.Clone(all), filtered, named, metadata) {
		untilSynced(t, w)
	}
	if got := lines(departures(h)); len(got) != 20 || got[0] != "credentials.watch demo/versions/1 to 1" {
		t.Errorf("lines for the state of 20 watchers: %v", got)
	}

	begin := len(departures(h))
	if _, err := h.Store.BatchWrite(coretest.AdminContext(t), core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Create: &core.CreateCredentialRequest{Name: cred("other"), Labels: map[string]string{"team": "a"}, Payload: coretest.Basic(t, "a", "b")}},
		{Update: &core.UpdateCredentialRequest{Name: demo, Payload: new(coretest.Basic(t, "a", "two"))}},
	}}); err != nil {
		t.Fatal(err)
	}
	// The line is there before anybody has read.
	synctest.Wait()
	got := departures(h)[begin:]
	equal(t, "lines of the push", lines(got), []string{"credentials.watch demo/versions/2 other/versions/1 to 20"})
	if seen := slices.Compact(slices.Sorted(slices.Values(got[0].Subscriptions))); len(seen) != 20 || got[0].Revision != revision(t, h) {
		t.Errorf("the line names %d streams at revision %d", len(seen), got[0].Revision)
	}
	for _, w := range append(slices.Clone(all), metadata) {
		equal(t, "the push", brief([]core.WatchEvent{next(t, w)}), []string{"commit: put demo, put other"})
	}
	if n := len(departures(h)); n != begin+1 {
		t.Errorf("%d lines after all have read", n-begin)
	}
	for _, w := range []*core.CredentialWatch{filtered, named} {
		equal(t, "the push", brief([]core.WatchEvent{next(t, w)}), []string{"commit: put other"})
	}
	equal(t, "their lines", lines(departures(h)[begin+1:]), []string{
		"credentials.watch other/versions/1 to 1", "credentials.watch other/versions/1 to 1",
	})

	// What carries no payload has no line.
	begin = len(departures(h))
	if err := tryDelete(t, h, cred("other"), true); err != nil {
		t.Fatal(err)
	}
	for _, w := range append(slices.Clone(all), filtered, named, metadata) {
		equal(t, "the push", brief([]core.WatchEvent{next(t, w)}), []string{"commit: delete other"})
	}
	if n := len(departures(h)); n != begin {
		t.Errorf("%d lines for a delete", n-begin)
	}
}

// While the log cannot be written, streams with payloads are parked and not
// cut, nobody else waits, and afterwards they go on with nothing lost.
func TestAuditFailureParksStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := coretest.New(t)
		create(t, h, demo, "one")
		inject(t, h, "web", "web", file("f", demo))
		plain := watch(t, h, core.WatchRequest{View: core.ViewPayload, Heartbeat: time.Second})
		filtered := watch(t, h, core.WatchRequest{View: core.ViewPayload, Heartbeat: time.Second, Filter: "kind = basic"})
		metadata := watch(t, h, core.WatchRequest{Heartbeat: time.Hour})
		for _, w := range []*core.CredentialWatch{plain, filtered, metadata} {
			untilSynced(t, w)
		}
		set := openSet(t, h, "web", core.OpenSetRequest{Heartbeat: time.Hour})
		nextSet(t, set)
		begin := len(departures(h))

		// A change of a description that no payload leaves with would be refused:
		// the log is down for the writer too. So another server writes.
		writer := h.Replica(t, func(c *core.Config) { c.Auditor = &coretest.Audit{} })
		h.Audit.Fail(errDisk)
		type answer struct {
			what   string
			at     time.Duration
			events []core.WatchEvent
			set    *core.SetUpdate
		}
		start := time.Now()
		answers := make(chan answer, 4)
		var wg sync.WaitGroup
		for what, w := range map[string]*core.CredentialWatch{"plain": plain, "filtered": filtered, "metadata": metadata} {
			wg.Go(func() {
				events := until(t, w, func(ev core.WatchEvent) bool { return ev.Kind == core.EventCommit })
				answers <- answer{what: what, at: time.Since(start), events: events}
			})
		}
		wg.Go(func() {
			u := nextSet(t, set)
			answers <- answer{what: "set", at: time.Since(start), set: u}
		})
		for i := range 3 {
			if _, err := writer.UpdateCredential(coretest.AdminContext(t), core.UpdateCredentialRequest{Name: demo, Payload: new(coretest.Basic(t, "a", fmt.Sprint("new ", i)))}); err != nil {
				t.Error(err)
			}
			if i == 0 {
				synctest.Wait()
				if a := <-answers; a.what != "metadata" || a.at != 0 {
					t.Errorf("%s answers after %s; want metadata at once", a.what, a.at)
				}
			}
		}
		synctest.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("the writer waited %s", d)
		}
		time.Sleep(time.Minute)
		select {
		case a := <-answers:
			t.Errorf("%s got %v without a record", a.what, brief(a.events))
		default:
		}
		if n := len(departures(h)); n != begin {
			t.Errorf("%d lines were written to a broken log", n-begin)
		}
		h.Audit.Fail(nil)
		wg.Wait()
		for range 3 {
			a := <-answers
			if a.at > time.Minute+2*time.Second {
				t.Errorf("%s goes on %s after the log works", a.what, a.at-time.Minute)
			}
			switch {
			case a.what == "set":
				// It may begin with what it was parked with.
				for a.set != nil && string(a.set.Contents["web/f"]) != "new 2" {
					a.set = nextSet(t, set)
				}
			case len(a.events) > 0:
				last := a.events[len(a.events)-1]
				w := map[string]*core.CredentialWatch{"plain": plain, "filtered": filtered}[a.what]
				for secretOf(last.Commit.Changes[0].Payload) != "new 2" {
					last = until(t, w, func(ev core.WatchEvent) bool { return ev.Kind == core.EventCommit })[0]
				}
			}
		}
		if n := len(departures(h)); n < begin+3 {
			t.Errorf("%d lines for three streams that went on", n-begin)
		}
	})
}

// A payload never arrives before its line: the auditor looks over the shoulder
// of every stream.
func TestAuditIsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &sync.Map{} // version name of what has a line
		h := coretest.New(t, func(c *core.Config) { c.Auditor = lineFirst{c.Auditor, seen} })
		inWorkload := workload(t, "web")
		create(t, h, demo, "v1")
		inject(t, h, "web", "web", file("f", demo))
		var wg sync.WaitGroup
		check := func(what, version string) {
			if _, ok := seen.Load(version); !ok {
				t.Errorf("%s: %s left before its line", what, version)
			}
		}
		stop, cancel := context.WithCancel(t.Context())
		for i, r := range []core.WatchRequest{
			{View: core.ViewPayload}, {View: core.ViewPayload, Filter: "kind=basic"}, {View: core.ViewPayload, Names: []resourcename.Credential{demo}},
		} {
			w := watch(t, h, r)
			wg.Go(func() {
				for {
					ev, err := w.Next(stop)
					if err != nil {
						return
					}
					if ev.Kind != core.EventCommit {
						continue
					}
					for _, ch := range ev.Commit.Changes {
						check(fmt.Sprint("watcher ", i), ch.Credential.Name.Version(ch.Credential.ActiveVersion).String())
					}
				}
			})
		}
		for range 3 {
			s, err := h.Store.OpenSet(inWorkload, core.OpenSetRequest{Project: demoProject, Workload: "w"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			wg.Go(func() {
				for {
					ev, err := s.Next(stop)
					if err != nil {
						return
					}
					if ev.Set != nil && len(ev.Set.Contents) > 0 {
						check("set", ev.Set.Items[0].Version)
					}
				}
			})
		}
		for i := range 50 {
			rotate(t, h, demo, fmt.Sprint("v", i+2))
			if i%10 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

// lineFirst marks what has a line once the line is written.
type lineFirst struct {
	core.Auditor

	seen *sync.Map
}

func (l lineFirst) Record(ctx context.Context, e core.AuditEntry) error {
	err := l.Auditor.Record(ctx, e)
	for _, p := range e.Payloads {
		l.seen.Store(p, true)
	}
	return err
}

// recorder is an Authorizer that answers with err and remembers the questions.
type recorder struct {
	mu    sync.Mutex
	err   error
	asked []core.Access
}

func (r *recorder) Authorize(a core.Access) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, a)
	return r.err
}

func (r *recorder) questions() []core.Access {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.asked
	r.asked = nil
	return out
}

// call is one method of the Store, for a resource that exists (it), one that
// does not (no), and garbage.
type call struct {
	permission core.Permission
	do         func(ctx context.Context, s *core.Store, id string) error
}

// methods are all methods of the Store that a caller reaches. Those not in here
// must be in internalMethods.
func methods() map[string]call {
	p := func(id string) resourcename.Project { return resourcename.Project{ID: id} }
	c := func(id string) resourcename.Credential { return resourcename.Credential{Project: id, ID: id} }
	st := func(id string) resourcename.SecretStore { return resourcename.SecretStore{Project: id, ID: id} }
	i := func(id string) resourcename.Injection { return resourcename.Injection{Project: id, ID: id} }
	tk := func(id string) resourcename.Token { return resourcename.Token{Project: id, ID: id} }
	u := func(id string) resourcename.Usage {
		return resourcename.Usage{Project: id, Collection: resourcename.Credentials, Resource: id, ID: id}
	}
	page := core.Page{Size: -1, Token: "garbage"}
	type X = context.Context
	type S = *core.Store
	return map[string]call{
		"CreateProject": {core.ProjectsCreate, func(x X, s S, id string) error {
			_, err := s.CreateProject(x, core.CreateProjectRequest{Name: p(id)})
			return err
		}},
		"GetProject":   {core.ProjectsGet, func(x X, s S, id string) error { _, err := s.GetProject(x, p(id)); return err }},
		"ListProjects": {core.ProjectsList, func(x X, s S, _ string) error { _, _, err := s.ListProjects(x, page); return err }},
		"UpdateProject": {core.ProjectsUpdate, func(x X, s S, id string) error {
			_, err := s.UpdateProject(x, core.UpdateProjectRequest{Name: p(id), RotationPeriod: new(time.Duration(-1))})
			return err
		}},
		"DeleteProject": {core.ProjectsDelete, func(x X, s S, id string) error {
			return s.DeleteProject(x, core.DeleteRequest[resourcename.Project]{Name: p(id), Etag: "x"})
		}},
		"CreateToken": {core.TokensCreate, func(x X, s S, id string) error {
			_, _, err := s.CreateToken(x, core.CreateTokenRequest{Name: tk(id), AllProjects: true})
			return err
		}},
		"GetToken":   {core.TokensGet, func(x X, s S, id string) error { _, err := s.GetToken(x, tk(id)); return err }},
		"ListTokens": {core.TokensList, func(x X, s S, id string) error { _, _, err := s.ListTokens(x, p(id), page); return err }},
		"DeleteToken": {core.TokensDelete, func(x X, s S, id string) error {
			return s.DeleteToken(x, core.DeleteRequest[resourcename.Token]{Name: tk(id)})
		}},
		"CreateCredential": {core.CredentialsCreate, func(x X, s S, id string) error {
			_, err := s.CreateCredential(x, core.CreateCredentialRequest{Name: c(id)})
			return err
		}},
		"GetCredential":   {core.CredentialsGet, func(x X, s S, id string) error { _, err := s.GetCredential(x, c(id)); return err }},
		"ListCredentials": {core.CredentialsList, func(x X, s S, id string) error { _, _, err := s.ListCredentials(x, p(id), "=(", page); return err }},
		"UpdateCredential": {core.CredentialsUpdate, func(x X, s S, id string) error {
			_, err := s.UpdateCredential(x, core.UpdateCredentialRequest{Name: c(id), Etag: "x"})
			return err
		}},
		"DeleteCredential": {core.CredentialsDelete, func(x X, s S, id string) error {
			return s.DeleteCredential(x, core.DeleteCredentialRequest{Name: c(id)})
		}},
		"BatchWrite": {core.CredentialsUpdate, func(x X, s S, id string) error {
			_, err := s.BatchWrite(x, core.BatchWriteRequest{Project: p(id)})
			return err
		}},
		"AccessCredential": {core.CredentialsAccess, func(x X, s S, id string) error {
			_, payload, err := s.AccessCredential(x, c(id), 0)
			if !payload.IsZero() {
				return errors.New("a payload came with it")
			}
			return err
		}},
		"VerifyCredential": {core.CredentialsVerify, func(x X, s S, id string) error {
			_, err := s.VerifyCredential(x, c(id), 9)
			return err
		}},
		"MintToken": {core.CredentialsMint, func(x X, s S, id string) error {
			_, token, err := s.MintToken(x, c(id), nil)
			if !token.IsZero() {
				return errors.New("a token came with it")
			}
			return err
		}},
		"ListVersions": {core.CredentialsGet, func(x X, s S, id string) error { _, _, err := s.ListVersions(x, c(id), page); return err }},
		"ActivateVersion": {core.CredentialsUpdate, func(x X, s S, id string) error {
			_, err := s.ActivateVersion(x, core.ChangeVersionRequest{Name: c(id).Version(1)})
			return err
		}},
		"DisableVersion": {core.CredentialsUpdate, func(x X, s S, id string) error {
			_, err := s.DisableVersion(x, core.ChangeVersionRequest{Name: c(id).Version(1)})
			return err
		}},
		"EnableVersion": {core.CredentialsUpdate, func(x X, s S, id string) error {
			_, err := s.EnableVersion(x, core.ChangeVersionRequest{Name: c(id).Version(1)})
			return err
		}},
		"DestroyVersion": {core.CredentialsUpdate, func(x X, s S, id string) error {
			_, err := s.DestroyVersion(x, core.ChangeVersionRequest{Name: c(id).Version(1)})
			return err
		}},
		"Watch": {core.CredentialsWatch, func(x X, s S, id string) error {
			_, err := s.Watch(x, core.WatchRequest{Project: p(id), View: core.ViewPayload, Filter: "=(", ResumeToken: "garbage"})
			return err
		}},
		"ListUsages":    {core.UsagesList, func(x X, s S, id string) error { _, _, _, err := s.ListUsages(x, u(id), page); return err }},
		"ListConsumers": {core.UsagesList, func(x X, s S, id string) error { _, err := s.ListConsumers(x, c(id)); return err }},
		"DeclareUsage": {core.UsagesDeclare, func(x X, s S, id string) error {
			_, err := s.DeclareUsage(x, core.DeclareUsageRequest{Name: u(id), TTL: -1})
			return err
		}},
		"DeleteUsage": {core.UsagesDeclare, func(x X, s S, id string) error {
			return s.DeleteUsage(x, core.DeleteRequest[resourcename.Usage]{Name: u(id)})
		}},
		"CreateSecretStore": {core.SecretStoresCreate, func(x X, s S, id string) error {
			_, err := s.CreateSecretStore(x, core.CreateSecretStoreRequest{Name: st(id)})
			return err
		}},
		"GetSecretStore":   {core.SecretStoresGet, func(x X, s S, id string) error { _, err := s.GetSecretStore(x, st(id)); return err }},
		"ListSecretStores": {core.SecretStoresList, func(x X, s S, id string) error { _, _, err := s.ListSecretStores(x, p(id), page); return err }},
		"UpdateSecretStore": {core.SecretStoresUpdate, func(x X, s S, id string) error {
			_, err := s.UpdateSecretStore(x, core.UpdateSecretStoreRequest{Name: st(id), Vault: &core.VaultProvider{}})
			return err
		}},
		"DeleteSecretStore": {core.SecretStoresDelete, func(x X, s S, id string) error {
			return s.DeleteSecretStore(x, core.DeleteRequest[resourcename.SecretStore]{Name: st(id)})
		}},
		"TestSecretStore":    {core.SecretStoresUpdate, func(x X, s S, id string) error { _, err := s.TestSecretStore(x, st(id)); return err }},
		"RefreshSecretStore": {core.SecretStoresUpdate, func(x X, s S, id string) error { _, err := s.RefreshSecretStore(x, st(id)); return err }},
		"CreateInjection": {core.InjectionsCreate, func(x X, s S, id string) error {
			_, err := s.CreateInjection(x, core.CreateInjectionRequest{Name: i(id)})
			return err
		}},
		"GetInjection":   {core.InjectionsGet, func(x X, s S, id string) error { _, err := s.GetInjection(x, i(id)); return err }},
		"ListInjections": {core.InjectionsList, func(x X, s S, id string) error { _, _, err := s.ListInjections(x, p(id), page); return err }},
		"UpdateInjection": {core.InjectionsUpdate, func(x X, s S, id string) error {
			_, err := s.UpdateInjection(x, core.UpdateInjectionRequest{Name: i(id), Selector: &map[string]string{}})
			return err
		}},
		"DeleteInjection": {core.InjectionsDelete, func(x X, s S, id string) error {
			return s.DeleteInjection(x, core.DeleteRequest[resourcename.Injection]{Name: i(id)})
		}},
		"GetInjectionStatus": {core.InjectionsGet, func(x X, s S, id string) error { _, err := s.GetInjectionStatus(x, i(id)); return err }},
		"GetSet": {core.SetsGet, func(x X, s S, id string) error {
			_, err := s.GetSet(x, p(id), []resourcename.Injection{{Project: "x"}})
			return err
		}},
		"OpenSet": {core.SetsGet, func(x X, s S, id string) error {
			_, err := s.OpenSet(x, core.OpenSetRequest{Project: p(id)})
			return err
		}},
	}
}

// internalMethods are for the server itself and reached by no caller.
var internalMethods = map[string]string{
	"Run":               "the life of the Store",
	"Ready":             "a health check: one bit",
	"Authenticate":      "it makes the principal that all others ask about",
	"Session":           "it ends a stream of a principal that was asked about",
	"Wanted":            "for the broker: names and metadata",
	"StoreLogin":        "for the broker, on record as the server's own access",
	"PutValue":          "for the broker",
	"WantedTokens":      "for the issuer: names and metadata",
	"TokenLogin":        "for the issuer, on record as the server's own access",
	"PutMinted":         "for the issuer",
	"AgeState":          "it tells the age of a credential that the caller has",
	"Ages":              "for metrics: numbers",
	"HoldReferenceTurn": "for tests",
}

// Every method asks the Authorizer before it looks at anything, and what it
// denies says nothing: the answer is the same whether or not there is such a
// resource, or even could be. Each denial is on record.
func TestEveryMethodAsksFirst(t *testing.T) {
	asked := &recorder{}
	h := coretest.New(t, func(c *core.Config) { c.Authorizer = asked })
	ctx := coretest.AdminContext(t)
	makeProject(t, h, "it")
	it := resourcename.Credential{Project: "it", ID: "it"}
	if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: it, Payload: coretest.VaultToken(t, "x")}); err != nil {
		t.Fatal(err)
	}
	r := storeRequest("it", it)
	r.Name.Project = "it"
	if _, err := h.Store.CreateSecretStore(ctx, r); err != nil {
		t.Fatal(err)
	}
	ir := injectRequest("it", "web", core.Item{Credential: &core.CredentialSource{Name: it}, File: core.FileTarget{Path: "f"}})
	ir.Name.Project = "it"
	if _, err := h.Store.CreateInjection(ctx, ir); err != nil {
		t.Fatal(err)
	}
	issue(t, h, core.CreateTokenRequest{Name: resourcename.Token{Project: "it", ID: "it"}})
	if _, err := h.Store.DeclareUsage(ctx, core.DeclareUsageRequest{Name: usageOf(it, "it"), User: "x"}); err != nil {
		t.Fatal(err)
	}

	known := methods()
	s := reflect.TypeFor[*core.Store]()
	for method := range s.Methods() {
		name := method.Name
		_, isKnown := known[name]
		_, isInternal := internalMethods[name]
		if isKnown == isInternal {
			t.Errorf("%s is in %v of the two lists of methods", name, isKnown)
		}
	}
	denied := errors.New("denied by the test")
	asked.err = denied
	asked.questions()
	before := revision(t, h)
	for name, c := range known {
		for _, id := range []string{"it", "no", "", "../garbage\x00", strings.Repeat("x", 10_000)} {
			lines := len(h.Audit.Entries())
			err := c.do(ctx, h.Store, id)
			if !errors.Is(err, core.ErrPermissionDenied) || !errors.Is(err, denied) || strings.Contains(err.Error(), "exist") {
				t.Errorf("%s of %.20q: %v; want what the Authorizer says", name, id, err)
			}
			if err != nil && err.Error() != core.ErrPermissionDenied.Error()+": "+denied.Error() {
				t.Errorf("%s of %.20q adds to the denial: %v", name, id, err)
			}
			q := asked.questions()
			if len(q) != 1 || q[0].Permission != c.permission {
				t.Errorf("%s of %.20q asked for %+v; want one question, %s", name, id, q, c.permission)
			}
			entries := h.Audit.Entries()[lines:]
			if len(entries) != 1 || entries[0].Allowed || entries[0].Reason != denied.Error() || entries[0].Permission != c.permission || len(entries[0].Payloads) > 0 {
				t.Errorf("%s of %.20q left %+v in the log; want one denial", name, id, entries)
			}
		}
		// Without an identity there is not even a question.
		for _, id := range []string{"it", "no"} {
			err := c.do(t.Context(), h.Store, id)
			wantReason(t, name+" by nobody", err, core.ErrUnauthenticated, core.ReasonUnauthenticated)
			if q := asked.questions(); len(q) > 0 {
				t.Errorf("%s by nobody asked %+v", name, q)
			}
		}
	}
	if now := revision(t, h); now != before {
		t.Errorf("denied calls made %d commits", now-before)
	}
}

// A workload watches what its token names and nothing else; what names nothing
// is denied, on record.
func TestWorkloadWatches(t *testing.T) {
	h := coretest.New(t)
	create(t, h, demo, "one")
	create(t, h, cred("other"), "two")
	ctx := workload(t, "web", demo)
	w, err := h.Store.Watch(ctx, core.WatchRequest{Project: demoProject, View: core.ViewPayload})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	equal(t, "the state", brief(untilSynced(t, w)), []string{"reset", "commit: put demo", "synced"})
	rotate(t, h, cred("other"), "three")
	rotate(t, h, demo, "four")
	equal(t, "the change", brief([]core.WatchEvent{next(t, w)}), []string{"commit: put demo"})
	begin := len(h.Audit.Entries())
	_, err = h.Store.Watch(workload(t, "none"), core.WatchRequest{Project: demoProject})
	wantReason(t, "a token that names nothing", err, core.ErrPermissionDenied, core.ReasonPermissionDenied)
	entries := h.Audit.Entries()[begin:]
	if len(entries) != 1 || entries[0].Allowed || entries[0].Permission != core.CredentialsWatch {
		t.Errorf("the log has %+v", entries)
	}
}

// Using a credential or store needs a permission of its own, for each of them.
func TestUseIsAsked(t *testing.T) {
	asked := &recorder{}
	h := coretest.New(t, func(c *core.Config) { c.Authorizer = asked })
	ctx := coretest.AdminContext(t)
	st := vaultStore(t, h, "team")
	create(t, h, demo, "one")
	inject(t, h, "web", "web", file("f", demo))
	asked.questions()
	used := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, q := range asked.questions() {
			if strings.HasSuffix(string(q.Permission), ".use") {
				got = append(got, string(q.Permission)+" "+q.Resource)
			}
		}
		equal(t, what, got, want)
	}
	items := []core.Item{file("f", demo), file("g", demo), secretFile("s", "team", "p", "k")}
	if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &items}); err != nil {
		t.Fatal(err)
	}
	used("items", "credentials.use "+demo.String(), "secretStores.use "+st.Name.String())
	if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Selector: &map[string]string{"app": "api"}}); err != nil {
		t.Fatal(err)
	}
	used("a selector hands the same to others", "credentials.use "+demo.String(), "secretStores.use "+st.Name.String())
	if _, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Description: new("d")}); err != nil {
		t.Fatal(err)
	}
	used("a description")
	if _, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: st.Name, Vault: &core.VaultProvider{Address: "https://elsewhere.example.com"}}); err != nil {
		t.Fatal(err)
	}
	used("an address sends the credential elsewhere", "credentials.use "+st.Credential.String())
	if _, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: st.Name, PollInterval: new(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	used("an interval")
}

// Nothing that can be printed of what holds payloads shows them.
func TestRedaction(t *testing.T) {
	const secret = "correct-horse-battery"
	h := coretest.New(t)
	create(t, h, demo, secret)
	inject(t, h, "web", "web", file("f", demo), core.Item{Credential: &core.CredentialSource{Name: demo}, File: core.FileTarget{Path: "g"}})
	u, err := h.Store.GetSet(workload(t, "web"), demoProject, nil)
	if err != nil || len(u.Contents) != 2 {
		t.Fatal(u, err)
	}
	events := untilSynced(t, watch(t, h, core.WatchRequest{View: core.ViewPayload}))
	var p credential.Payload
	for _, ev := range events {
		if ev.Kind == core.EventCommit {
			p = ev.Commit.Changes[0].Payload
		}
	}
	if secretOf(p) != secret {
		t.Fatal("the test watches the wrong thing")
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("", "set", u, "payload", p, "event", events[1])
	slog.New(slog.NewTextHandler(&log, nil)).Info("", "set", u, "payload", p, "event", events[1])
	inJSON, err := json.Marshal([]any{u, p, events[1]})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{log.String(), string(inJSON), u.String(), u.GoString()} {
		if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
			t.Errorf("the secret is in %s", text)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for what, v := range map[string]any{"set": u, "payload": p, "event": events[1], "commit": events[1].Commit, "changes": events[1].Commit.Changes} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, secret) || strings.Contains(s, fmt.Sprintf("%x", secret)) {
				t.Errorf("%s shows the secret of a %s", verb, what)
			}
		}
	}
}

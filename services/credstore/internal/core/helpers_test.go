package core_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

func cred(id string) resourcename.Credential {
	return resourcename.Credential{Project: demoProject.ID, ID: id}
}

func equal(t *testing.T, what string, got, want any, opts ...gocmp.Option) {
	t.Helper()
	if diff := gocmp.Diff(want, got, opts...); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantReason checks an error's kind and machine-readable reason.
func wantReason(t *testing.T, what string, err, kind error, reason string) {
	t.Helper()
	if got := reasonOf(err); !errors.Is(err, kind) || got != reason {
		t.Errorf("%s: %v, with reason %q; want %v with reason %s", what, err, got, kind, reason)
	}
}

func reasonOf(err error) string {
	var e *core.Error
	var i *core.InvalidError
	switch {
	case errors.As(err, &e):
		return e.Reason
	case errors.As(err, &i):
		return cmp.Or(i.Reason, core.ReasonInvalidField)
	}
	return ""
}

// wantField checks that an error is about exactly one field.
func wantField(t *testing.T, what string, err error, field string) {
	t.Helper()
	var i *core.InvalidError
	if !errors.As(err, &i) || !errors.Is(err, core.ErrInvalid) || len(i.Violations) != 1 || i.Violations[0].Field != field {
		t.Errorf("%s: %v; want ErrInvalid for the field %s", what, err, field)
	}
}

// revision is the newest of the storage.
func revision(t *testing.T, h *coretest.Harness) core.Revision {
	t.Helper()
	info, err := h.Storage.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.Revision
}

// secretOf returns the secret part of a payload of the kinds that tests use.
func secretOf(p credential.Payload) string {
	if p.IsZero() {
		return ""
	}
	field := map[credential.Kind]string{"basic": "password", "vault": "token"}[p.Kind()]
	b, err := p.Field(field)
	if err != nil {
		return "no secret: " + err.Error()
	}
	return string(b)
}

// ledger is a storage that remembers every commit that was acknowledged: the
// truth that watchers are held against.
type ledger struct {
	core.Storage

	// slow makes the feed wait for everybody else before each commit; feedID
	// replaces that of the storage.
	slow   bool
	feedID string

	mu      sync.Mutex
	commits []entry
}

type entry struct {
	rev     core.Revision
	changes []core.Change
}

// keep puts the ledger under a Store.
func (l *ledger) keep(c *core.Config) { l.Storage, c.Storage = c.Storage, l }

// join puts the ledger under another Store on the same storage, whose feed is
// not slow.
func (l *ledger) join(c *core.Config) { c.Storage = joined{l} }

type joined struct{ *ledger }

func (j joined) Feed(ctx context.Context, after core.Revision) (core.Feed, error) {
	return j.Storage.Feed(ctx, after)
}

func (l *ledger) Commit(ctx context.Context, b core.Batch) (core.Revision, error) {
	rev, err := l.Storage.Commit(ctx, b)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.commits = append(l.commits, entry{rev, slices.Clone(b.Changes)})
	}
	return rev, err
}

func (l *ledger) Info(ctx context.Context) (core.StorageInfo, error) {
	info, err := l.Storage.Info(ctx)
	info.FeedID = cmp.Or(l.feedID, info.FeedID)
	return info, err
}

func (l *ledger) Feed(ctx context.Context, after core.Revision) (core.Feed, error) {
	f, err := l.Storage.Feed(ctx, after)
	if err != nil || !l.slow {
		return f, err
	}
	return slowFeed{f}, nil
}

// slowFeed is for bubbles: it goes on when all others wait.
type slowFeed struct{ core.Feed }

func (f slowFeed) Next(ctx context.Context) (core.Commit, error) {
	time.Sleep(time.Millisecond)
	return f.Feed.Next(ctx)
}

// replay walks over the ledger from the beginning.
func (l *ledger) replay(t *testing.T, sealer core.Sealer) *replay {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := slices.Clone(l.commits)
	slices.SortFunc(rest, func(a, b entry) int { return cmp.Compare(a.rev, b.rev) })
	return &replay{t: t, sealer: sealer, rest: rest, credentials: make(map[string]*core.Credential), payloads: make(map[string][]byte), secrets: make(map[string]string)}
}

// replay is the state as of one revision after another.
type replay struct {
	t           *testing.T
	sealer      core.Sealer
	rest        []entry
	credentials map[string]*core.Credential // by key
	payloads    map[string][]byte           // by key, sealed
	secrets     map[string]string           // by payload key
}

// to applies the commits through the revision.
func (r *replay) to(rev core.Revision) {
	r.t.Helper()
	for len(r.rest) > 0 && r.rest[0].rev <= rev {
		r.step()
	}
}

// step applies one commit and tells which credentials it changed.
func (r *replay) step() (rev core.Revision, changed []string) {
	r.t.Helper()
	e := r.rest[0]
	r.rest = r.rest[1:]
	for _, ch := range e.changes {
		if strings.HasPrefix(ch.Key, core.PrefixVersion) {
			if r.payloads[ch.Key] = ch.Value; ch.Delete {
				delete(r.payloads, ch.Key)
			}
			continue
		}
		if ch.Delete {
			if r.credentials[ch.Key] != nil {
				changed = append(changed, ch.Key)
			}
			delete(r.credentials, ch.Key)
			continue
		}
		c, ok, err := core.CredentialRecord(r.sealer, ch.Key, ch.Value, e.rev)
		if err != nil {
			r.t.Fatal(err)
		}
		if ok {
			r.credentials[ch.Key] = c
			changed = append(changed, ch.Key)
		}
	}
	return e.rev, changed
}

// visible is what a watcher must have of the state: name to what identifies the
// credential's state, with the secret for a payload view.
func (r *replay) visible(q query) map[string]string {
	r.t.Helper()
	out := make(map[string]string)
	for _, c := range r.credentials {
		if !q.match(c) {
			continue
		}
		secret := ""
		if q.req.View == core.ViewPayload {
			secret = r.secret(c)
		}
		out[c.Name.String()] = identity(c, secret)
	}
	return out
}

func (r *replay) secret(c *core.Credential) string {
	r.t.Helper()
	key := core.KeyOfVersion(c.UID, c.ActiveVersion)
	if s, ok := r.secrets[key]; ok {
		return s
	}
	plain, err := core.OpenPayload(r.sealer, c.UID, c.ActiveVersion, r.payloads[key])
	if err != nil {
		r.t.Fatalf("%s: %v", c.Name, err)
	}
	p, err := credential.Unmarshal(plain)
	if err != nil {
		r.t.Fatal(err)
	}
	r.secrets[key] = secretOf(p)
	return r.secrets[key]
}

func identity(c *core.Credential, secret string) string {
	return fmt.Sprintf("%s v%d %s %s", c.Etag, c.ActiveVersion, c.Description, secret)
}

// query is what a watcher asks for, and by itself which credentials that means.
type query struct {
	name  string
	req   core.WatchRequest
	match func(*core.Credential) bool
	// slow: it sleeps between messages, so that it falls behind.
	slow bool
}

// folded is what a watcher has after some events.
type folded map[string]string

func (f folded) apply(t *testing.T, ev core.WatchEvent) {
	t.Helper()
	switch ev.Kind {
	case core.EventReset:
		clear(f)
	case core.EventCommit:
		for _, ch := range ev.Commit.Changes {
			name := ch.Credential.Name.String()
			switch ch.Type {
			case core.ChangePut:
				f[name] = identity(ch.Credential, secretOf(ch.Payload))
			case core.ChangeDelete, core.ChangeLeftFilter:
				delete(f, name)
			default:
				t.Errorf("change of type %d", ch.Type)
			}
		}
	}
}

// watch opens a stream as admin; the test's cleanup closes it.
func watch(t *testing.T, h *coretest.Harness, r core.WatchRequest) *core.CredentialWatch {
	t.Helper()
	w, err := tryWatch(t, h, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func tryWatch(t *testing.T, h *coretest.Harness, r core.WatchRequest) (*core.CredentialWatch, error) {
	t.Helper()
	if r.Project.ID == "" {
		r.Project = demoProject
	}
	return h.Store.Watch(coretest.AdminContext(t), r)
}

// next returns one event, or fails. The limit is for bubbles, where it costs
// nothing to wait.
func next(t *testing.T, w *core.CredentialWatch) core.WatchEvent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	defer cancel()
	ev, err := w.Next(ctx)
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return ev
}

// untilSynced reads up to and including synced.
func untilSynced(t *testing.T, w *core.CredentialWatch) []core.WatchEvent {
	t.Helper()
	return until(t, w, func(ev core.WatchEvent) bool { return ev.Kind == core.EventSynced })
}

func until(t *testing.T, w *core.CredentialWatch, last func(core.WatchEvent) bool) []core.WatchEvent {
	t.Helper()
	var out []core.WatchEvent
	for range 100_000 {
		ev := next(t, w)
		out = append(out, ev)
		if last(ev) {
			return out
		}
	}
	t.Fatal("no end after 100,000 events")
	return nil
}

// brief shows events for comparison: kinds, and of commits the changes.
func brief(events []core.WatchEvent) []string {
	kinds := map[core.EventKind]string{core.EventReset: "reset", core.EventCommit: "commit", core.EventSynced: "synced", core.EventHeartbeat: "heartbeat"}
	types := map[core.ChangeType]string{core.ChangePut: "put", core.ChangeDelete: "delete", core.ChangeLeftFilter: "left"}
	var out []string
	for _, ev := range events {
		s := kinds[ev.Kind]
		if ev.Kind == core.EventCommit {
			var changes []string
			for _, ch := range ev.Commit.Changes {
				changes = append(changes, types[ch.Type]+" "+ch.Credential.Name.ID)
			}
			slices.Sort(changes)
			s += ": " + strings.Join(changes, ", ")
		}
		out = append(out, s)
	}
	return out
}

// remove deletes a credential.
func remove(t *testing.T, h *coretest.Harness, name resourcename.Credential) {
	t.Helper()
	if err := h.Store.DeleteCredential(coretest.AdminContext(t), core.DeleteCredentialRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
}

// label replaces a credential's labels.
func label(t *testing.T, h *coretest.Harness, name resourcename.Credential, labels map[string]string) *core.Credential {
	t.Helper()
	c, err := h.Store.UpdateCredential(coretest.AdminContext(t), core.UpdateCredentialRequest{Name: name, Labels: &labels})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func makeProject(t *testing.T, h *coretest.Harness, id string) resourcename.Project {
	t.Helper()
	name := resourcename.Project{ID: id}
	if _, err := h.Store.CreateProject(coretest.AdminContext(t), core.CreateProjectRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	return name
}

// vaultStore makes a secret store with a credential of its own, "{id}-login".
func vaultStore(t *testing.T, h *coretest.Harness, id string) *core.SecretStore {
	t.Helper()
	ctx := coretest.AdminContext(t)
	login := cred(id + "-login")
	if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: login, Payload: coretest.VaultToken(t, "hvs.login")}); err != nil {
		t.Fatal(err)
	}
	st, err := h.Store.CreateSecretStore(ctx, storeRequest(id, login))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func storeName(id string) resourcename.SecretStore {
	return resourcename.SecretStore{Project: demoProject.ID, ID: id}
}

func storeRequest(id string, login resourcename.Credential) core.CreateSecretStoreRequest {
	return core.CreateSecretStoreRequest{Name: storeName(id), Credential: login, Vault: &core.VaultProvider{Address: "https://vault.example.com:8200"}}
}

func injectionName(id string) resourcename.Injection {
	return resourcename.Injection{Project: demoProject.ID, ID: id}
}

// inject makes an injection for the workloads of an app.
func inject(t *testing.T, h *coretest.Harness, id, app string, items ...core.Item) *core.Injection {
	t.Helper()
	i, err := h.Store.CreateInjection(coretest.AdminContext(t), injectRequest(id, app, items...))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func injectRequest(id, app string, items ...core.Item) core.CreateInjectionRequest {
	return core.CreateInjectionRequest{Name: injectionName(id), Selector: map[string]string{"app": app}, Items: items}
}

// file is an item with the password of a credential.
func file(path string, c resourcename.Credential) core.Item {
	return core.Item{Credential: &core.CredentialSource{Name: c, Field: "password"}, File: core.FileTarget{Path: path}}
}

// secretFile is an item with a key of an external secret.
func secretFile(path, store, at, key string) core.Item {
	return core.Item{Secret: &core.SecretSource{Store: storeName(store), Path: at, Key: key}, File: core.FileTarget{Path: path}}
}

// workload returns the context of a workload of an app.
func workload(t *testing.T, app string, names ...resourcename.Credential) context.Context {
	t.Helper()
	return core.WithPrincipal(t.Context(), &core.Principal{
		Name: "projects/default/tokens/" + app, Role: core.Workload, Project: demoProject,
		Attributes: map[string]string{"app": app}, Credentials: names,
	})
}

// consistent checks the storage itself: nothing refers to what is not there,
// and nothing is left of what is gone. It restarts the Store, so that what is
// read comes from the disk.
func consistent(t *testing.T, h *coretest.Harness) {
	t.Helper()
	h.Stop(t)
	h.Start(t)
	keys := make(map[string]bool)
	if _, err := h.Storage.Snapshot(t.Context(), "", func(r core.Record) error {
		keys[r.Key] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	must := func(key, why string) {
		t.Helper()
		if !keys[key] {
			t.Errorf("%s is missing: %s", key, why)
		}
	}
	owners, payloads := make(map[string]bool), make(map[string]bool)
	projects := everything(t, func(ctx context.Context, p core.Page) ([]*core.Project, string, error) {
		return h.Store.ListProjects(ctx, p)
	})
	for _, p := range projects {
		usedBy := func(target resourcename.Usage, id, user string) {
			target.ID = id
			must(core.TargetKey(target), user+" uses it")
			must(core.KeyOfUsage(target), user+" is to be listed by it")
			owners[core.KeyOfUsage(target)] = true
		}
		for _, st := range everything(t, func(ctx context.Context, page core.Page) ([]*core.SecretStore, string, error) {
			return h.Store.ListSecretStores(ctx, p.Name, page)
		}) {
			usedBy(resourcename.Usage{Project: p.Name.ID, Collection: resourcename.Credentials, Resource: st.Credential.ID}, "secretStores."+st.Name.ID, st.Name.String())
		}
		for _, i := range everything(t, func(ctx context.Context, page core.Page) ([]*core.Injection, string, error) {
			return h.Store.ListInjections(ctx, p.Name, page)
		}) {
			for _, it := range i.Items {
				target := resourcename.Usage{Project: p.Name.ID, Collection: resourcename.Credentials}
				switch {
				case it.Secret != nil:
					target.Collection, target.Resource = resourcename.SecretStores, it.Secret.Store.ID
				case it.Mint != nil:
					target.Resource = it.Mint.Credential.ID
				default:
					target.Resource = it.Credential.Name.ID
				}
				usedBy(target, "injections."+i.Name.ID, i.Name.String())
			}
		}
		for _, c := range everything(t, func(ctx context.Context, page core.Page) ([]*core.Credential, string, error) {
			return h.Store.ListCredentials(ctx, p.Name, "", page)
		}) {
			for _, ref := range c.References {
				source, err := resourcename.ParseCredential(ref)
				if err != nil {
					t.Errorf("%s refers to %s: %v", c.Name, ref, err)
				}
				usedBy(usageOf(source, ""), "credentials."+c.Name.ID, c.Name.String())
			}
			for _, v := range everything(t, func(ctx context.Context, page core.Page) ([]core.Version, string, error) {
				return h.Store.ListVersions(ctx, c.Name, page)
			}) {
				key := core.KeyOfVersion(c.UID, v.Number)
				payloads[key] = true
				must(key, c.Name.String()+" has the version")
			}
		}
	}
	for key := range keys {
		switch u, isUsage := core.UsageOfKey(key); {
		case strings.HasPrefix(key, core.PrefixUsage):
			if !isUsage {
				t.Errorf("%s is no usage", key)
			}
			must(core.TargetKey(u), key+" is of it")
			if strings.Contains(u.ID, ".") && !owners[key] {
				t.Errorf("%s is derived from nothing that is there", key)
			}
		case strings.HasPrefix(key, core.PrefixVersion):
			if !payloads[key] {
				t.Errorf("%s belongs to no version", key)
			}
		case strings.HasPrefix(key, core.PrefixIn):
			project, _, _ := strings.Cut(strings.TrimPrefix(key, core.PrefixIn), "/")
			must(core.KeyOfProject(resourcename.Project{ID: project}), key+" is in it")
		}
	}
}

// everything reads all pages of a list.
func everything[R any](t *testing.T, list func(context.Context, core.Page) ([]R, string, error)) []R {
	t.Helper()
	var out []R
	page := core.Page{Size: core.MaxPageSize}
	for {
		part, more, err := list(coretest.AdminContext(t), page)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, part...)
		if page.Token = more; more == "" {
			return out
		}
	}
}

package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// world is the domain with an Issuer that keeps its tokens, as the product runs
// them, and one workload.
type world struct {
	*coretest.Harness
	*rig
	endRun func()
}

// inWorld runs a test in a bubble, with a credential "aws".
func inWorld(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{rig: newRig(t)}
		w.Harness = coretest.New(t, func(c *core.Config) { c.Issuer = w.rig })
		w.create(t, "aws", accessKey(t, goodKey))
		w.run(t)
		test(t, w)
	})
}

func (w *world) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	store := w.Store
	go func() { done <- w.rig.Run(ctx, store) }()
	w.endRun = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.endRun)
}

// restart ends the server and starts another on the same folder, after a while.
func (w *world) restart(t *testing.T, after time.Duration) {
	t.Helper()
	w.endRun()
	w.Stop(t)
	v := w.vendor
	w.rig = newRig(t, func(c *Config) { c.Vendors = map[credential.Kind]Vendor{"awsAccessKey": {v, v}} })
	w.vendor = v
	pass(after)
	w.Start(t, func(c *core.Config) { c.Issuer = w.rig })
	w.run(t)
	synctest.Wait()
}

func credentialName(id string) resourcename.Credential {
	return resourcename.Credential{Project: core.DefaultProject, ID: id}
}

func (w *world) create(t *testing.T, id string, p credential.Payload) {
	t.Helper()
	if _, err := w.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{Name: credentialName(id), Payload: p}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) update(t *testing.T, id string, p credential.Payload) {
	t.Helper()
	if _, err := w.Store.UpdateCredential(coretest.AdminContext(t), core.UpdateCredentialRequest{Name: credentialName(id), Payload: &p}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// inject makes an injection with these fields of a token, each at a path that is
// its name; the whole token is at "whole".
func (w *world) inject(t *testing.T, id, from string, fields ...string) {
	t.Helper()
	var items []core.Item
	for _, field := range fields {
		path := field
		if field == "" {
			path = "whole"
		}
		items = append(items, core.Item{Mint: &core.MintSource{Credential: credentialName(from), Field: field}, File: core.FileTarget{Path: id + "/" + path}})
	}
	if _, err := w.Store.CreateInjection(coretest.AdminContext(t), core.CreateInjectionRequest{
		Name: resourcename.Injection{Project: core.DefaultProject, ID: id}, Selector: map[string]string{"app": "web"}, Items: items,
	}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) uninject(t *testing.T, id string) {
	t.Helper()
	if err := w.Store.DeleteInjection(coretest.AdminContext(t), core.DeleteRequest[resourcename.Injection]{
		Name: resourcename.Injection{Project: core.DefaultProject, ID: id},
	}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// records counts the stored tokens.
func (w *world) records(t *testing.T) (n int) {
	t.Helper()
	if _, err := w.Storage.Snapshot(t.Context(), "minted/", func(core.Record) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// workload is what an injector has, as it is told.
type workload struct {
	mu       sync.Mutex
	items    map[string]core.SetItem
	contents map[string]string
	messages int
}

func (w *world) connect(t *testing.T) *workload {
	t.Helper()
	ctx, cancel := context.WithCancel(core.WithPrincipal(context.Background(), &core.Principal{
		Name: "projects/default/tokens/web", Role: core.Workload, AllProjects: true, Attributes: map[string]string{"app": "web"},
	}))
	s, err := w.Store.OpenSet(ctx, core.OpenSetRequest{Project: resourcename.Project{ID: core.DefaultProject}, Workload: "w", Heartbeat: time.Hour})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c := &workload{items: map[string]core.SetItem{}, contents: map[string]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			e, err := s.Next(ctx)
			if err != nil {
				return
			}
			if e.Set != nil {
				c.apply(e.Set)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; s.Close() })
	synctest.Wait()
	return c
}

func (c *workload) apply(u *core.SetUpdate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages++
	for _, it := range u.Items {
		c.items[it.ID] = it
	}
	for id, content := range u.Contents {
		c.contents[id] = string(content)
	}
}

func (c *workload) item(id string) core.SetItem {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.items[id]
}

func (c *workload) content(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contents[id]
}

// told counts the messages.
func (c *workload) told() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages
}

// wants checks an item's content and state, and that its message has the text.
func (c *workload) wants(t *testing.T, id, content string, state core.ItemState, text string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.items[id]
	if c.contents[id] != content || it.State != state || !strings.Contains(it.Message, text) || (text == "") != (it.Message == "") {
		t.Errorf("%s is %q in state %d, %q; want %q in %d, %q", id, c.contents[id], it.State, it.Message, content, state, text)
	}
	noSecret(t, it.Message+it.Version+it.Digest)
}

const tokenFile = "web/web/sessionToken"

// The whole token and each of its fields arrive, of the same token, with its end
// and where it came from; and a call of Mint gets another one.
func TestMintedItem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.connect(t)
		fields := []string{"", "accessKeyId", "secretAccessKey", "sessionToken", "account", "expireTime", "arn"}
		w.inject(t, "web", "aws", fields...)
		end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		want := map[string]string{
			"web/web/accessKeyId": tokenID, "web/web/secretAccessKey": goodKey, tokenFile: "session-1", "web/web/account": "123456789012",
			"web/web/expireTime": end,
		}
		for id, content := range want {
			c.wants(t, id, content, core.ItemOK, "")
		}
		c.wants(t, "web/web/arn", "", core.ItemFailed, `"arn"`) // the vendor did not say
		var whole map[string]string
		if err := json.Unmarshal([]byte(c.content("web/web/whole")), &whole); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{
			"accessKeyId": tokenID, "secretAccessKey": goodKey, "sessionToken": "session-1", "account": "123456789012", "expireTime": end,
		}, whole); diff != "" {
			t.Errorf("the whole token (-want +got):\n%s", diff)
		}
		it := c.item(tokenFile)
		if !strings.HasPrefix(it.Version, "projects/default/credentials/aws/versions/1@") || !it.RefreshTime.Equal(time.Now()) {
			t.Errorf("version %q of %s", it.Version, it.RefreshTime)
		}
		if n := w.vendor.count(); n != 1 {
			t.Errorf("%d calls for one token", n)
		}
		if _, token, err := w.Store.MintToken(coretest.AdminContext(t), credentialName("aws"), nil); err != nil || session(t, token) != "session-2" {
			t.Errorf("a call got %v, %v", token, err)
		}
		// That the secret left for the vendor, and the token for the workload, is on
		// record.
		var left, pushed bool
		for _, e := range w.Audit.Entries() {
			if e.Principal == "system" && e.Permission == core.CredentialsMint && e.Minted == "projects/default/credentials/aws/versions/1 awsSession" {
				left = slices.Equal(e.Payloads, []string{"projects/default/credentials/aws/versions/1"})
			}
			pushed = pushed || slices.ContainsFunc(e.Payloads, func(p string) bool { return strings.HasPrefix(p, "minted/default/") })
			noSecret(t, fmt.Sprintf("%+v", e))
		}
		if !left || !pushed {
			t.Errorf("on record: left for the vendor %v, for the workload %v", left, pushed)
		}
	})
}

// For hours, the file never holds a token that has ended, or that is about to, and
// each is pushed once.
func TestMintedItemIsRefreshed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.inject(t, "web", "aws", "sessionToken", "expireTime")
		w.inject(t, "also", "aws", "sessionToken") // the same token
		c := w.connect(t)
		seen := make(map[string]bool)
		for range 12 * 60 {
			pass(time.Minute)
			end, err := time.Parse(time.RFC3339, c.content("web/web/expireTime"))
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(end); left < 14*time.Minute {
				t.Errorf("the file's token has %s left", left)
			}
			if c.content(tokenFile) != c.content("also/also/sessionToken") {
				t.Error("two injections have two tokens")
			}
			c.wants(t, tokenFile, c.content(tokenFile), core.ItemOK, "")
			seen[c.content(tokenFile)] = true
		}
		if n := w.vendor.count(); n < 16 || n > 19 || len(seen) != n {
			t.Errorf("%d calls and %d tokens in 12 hours", n, len(seen))
		}
		if n := w.vendor.count(); c.told() != n+1 && c.told() != n {
			t.Errorf("%d messages for %d tokens", c.told(), n)
		}
		if n := w.records(t); n != 1 {
			t.Errorf("%d records", n)
		}
	})
}

// Another version of the credential, or of its source, means another token, at
// once; also while the vendor is slow to answer for the one before.
func TestMintedItemFollowsCredential(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(t, "role", coretest.AssumeRole(t, credentialName("aws"), "deploy"))
		w.inject(t, "web", "role", "sessionToken")
		c := w.connect(t)
		c.wants(t, tokenFile, "session-1", core.ItemOK, "")
		w.update(t, "aws", region(t, "eu-west-2"))
		c.wants(t, tokenFile, "session-2", core.ItemOK, "")
		w.update(t, "role", coretest.AssumeRole(t, credentialName("aws"), "other"))
		c.wants(t, tokenFile, "session-3", core.ItemOK, "")
		if v := c.item(tokenFile).Version; !strings.HasPrefix(v, "projects/default/credentials/role/versions/2@") {
			t.Errorf("version %q", v)
		}
		if _, err := w.Store.ActivateVersion(coretest.AdminContext(t), core.ChangeVersionRequest{Name: credentialName("aws").Version(1)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.wants(t, tokenFile, "session-4", core.ItemOK, "")

		// A call for the version before is given up.
		w.vendor.set(func(v *vendor) { v.slow = 10 * time.Second })
		w.update(t, "aws", region(t, "eu-west-3"))
		pass(time.Second)
		c.wants(t, tokenFile, "session-4", core.ItemOK, "")
		w.vendor.set(func(v *vendor) { v.slow = 0 })
		w.update(t, "aws", region(t, "eu-central-1"))
		last := w.vendor.seen()
		if got := last[len(last)-1].login; len(last) != 6 || !strings.HasSuffix(got, "/4") {
			t.Errorf("%d calls, the last with %s", len(last), got)
		}
		c.wants(t, tokenFile, "session-6", core.ItemOK, "")
		// What changes nothing of the login mints nothing.
		description := "x"
		if _, err := w.Store.UpdateCredential(coretest.AdminContext(t), core.UpdateCredentialRequest{Name: credentialName("aws"), Description: &description}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if n := w.vendor.count(); n != len(last) {
			t.Errorf("%d calls after a description was written", n-len(last))
		}
	})
}

func region(t *testing.T, region string) credential.Payload {
	t.Helper()
	m := accessKey(t, goodKey).Message()
	m.GetAwsAccessKey().Region = region
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// While the vendor is away the last token stays, as stale, until it ends; that it
// has ended is told, too, and the file stays. Then all comes back by itself.
func TestMintedItemVendorAway(t *testing.T) {
	for _, test := range []struct {
		name  string
		err   error
		text  string
		calls int // at most, until the end
		back  time.Duration
	}{
		{"away", away, "503 busy", 80, loopRetryMost},
		{"refused", refused, "403 SignatureDoesNotMatch", 12, refusedMost},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.inject(t, "web", "aws", "sessionToken")
				c := w.connect(t)
				w.vendor.set(func(v *vendor) { v.err = test.err })
				pass(39 * time.Minute)
				c.wants(t, tokenFile, "session-1", core.ItemOK, "")
				pass(8 * time.Minute)
				c.wants(t, tokenFile, "session-1", core.ItemStale, test.text)
				digest := c.item(tokenFile).Digest
				pass(13*time.Minute - time.Millisecond)
				c.wants(t, tokenFile, "session-1", core.ItemStale, test.text)
				messages := c.told()
				pass(time.Millisecond)
				c.wants(t, tokenFile, "session-1", core.ItemFailed, test.text)
				if c.told() != messages+1 {
					t.Errorf("%d messages say that it has ended", c.told()-messages)
				}
				if n := w.vendor.count(); n > test.calls {
					t.Errorf("%d calls", n)
				}
				w.restart(t, time.Minute)
				c = w.connect(t)
				c.wants(t, tokenFile, "", core.ItemFailed, test.text)
				w.vendor.set(func(v *vendor) { v.err = nil })
				pass(test.back)
				c.wants(t, tokenFile, fmt.Sprintf("session-%d", w.vendor.count()), core.ItemOK, "")
				if c.item(tokenFile).Digest == digest {
					t.Error("two tokens have the same digest")
				}
			})
		})
	}
}

// A vendor that hangs when a token ends does not hide that it has.
func TestMintedItemEndsWhileVendorHangs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.inject(t, "web", "aws", "sessionToken")
		c := w.connect(t)
		w.vendor.set(func(v *vendor) { v.slow = time.Hour })
		pass(time.Hour - time.Millisecond)
		c.wants(t, tokenFile, "session-1", core.ItemStale, "no answer within 15s")
		pass(time.Millisecond)
		c.wants(t, tokenFile, "session-1", core.ItemFailed, "no answer within 15s")

		w.vendor.set(func(v *vendor) { v.slow = 0 })
		pass(2 * time.Minute)
		last := fmt.Sprintf("session-%d", w.vendor.count())
		c.wants(t, tokenFile, last, core.ItemOK, "")
		w.vendor.set(func(v *vendor) { v.slow = time.Hour })
		w.restart(t, 30*time.Minute)
		c = w.connect(t)
		end := c.item(tokenFile).RefreshTime.Add(time.Hour)
		pass(time.Until(end) - time.Millisecond)
		c.wants(t, tokenFile, last, core.ItemStale, "no answer within 15s")
		pass(time.Millisecond)
		c.wants(t, tokenFile, last, core.ItemFailed, "no answer within 15s")
	})
}

// A restart uses what is stored, as long as it has most of its time.
func TestMintedItemRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.inject(t, "web", "aws", "sessionToken")
		w.restart(t, 20*time.Minute)
		c := w.connect(t)
		c.wants(t, tokenFile, "session-1", core.ItemOK, "")
		pass(19 * time.Minute)
		if n := w.vendor.count(); n != 1 {
			t.Errorf("%d calls before the token is nearly over", n)
		}
		pass(7 * time.Minute)
		c.wants(t, tokenFile, "session-2", core.ItemOK, "")
		w.restart(t, 50*time.Minute)
		c = w.connect(t)
		c.wants(t, tokenFile, "session-3", core.ItemOK, "")
		w.restart(t, 2*time.Hour)
		c = w.connect(t)
		c.wants(t, tokenFile, "session-4", core.ItemOK, "")
		// One that was changed while the server was away, by another.
		w.endRun()
		w.update(t, "aws", region(t, "eu-west-2"))
		c.wants(t, tokenFile, "session-4", core.ItemOK, "")
		w.restart(t, 0)
		if n := w.vendor.count(); n != 5 {
			t.Errorf("%d calls", n)
		}
	})
}

// The records go with the credential at once, and with the last injection soon;
// what is wanted again is there again.
func TestMintedRecordsGo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := coretest.AdminContext(t)
		w.inject(t, "web", "aws", "sessionToken")
		if err := w.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: credentialName("aws")}); !errors.Is(err, core.ErrPrecondition) {
			t.Fatalf("a credential with a mint item was deleted: %v", err)
		}
		w.uninject(t, "web")
		if err := w.Store.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: credentialName("aws")}); err != nil {
			t.Fatal(err)
		}
		if n := w.records(t); n != 0 {
			t.Errorf("%d records of a credential that is gone", n)
		}
		w.create(t, "aws", accessKey(t, goodKey))
		w.inject(t, "web", "aws", "sessionToken")
		w.inject(t, "other", "aws", "sessionToken")
		c := w.connect(t)
		c.wants(t, tokenFile, "session-2", core.ItemOK, "")
		w.uninject(t, "web")
		pass(3 * time.Minute)
		if n := w.records(t); n != 1 {
			t.Errorf("%d records of a token that one of two injections wants", n)
		}
		w.uninject(t, "other")
		pass(3 * time.Minute)
		if n := w.records(t); n != 0 {
			t.Errorf("%d records of a token that nobody wants", n)
		}
		pass(2 * time.Hour)
		if n := w.vendor.count(); n != 2 {
			t.Errorf("%d calls, though nobody wants a token", n)
		}
		w.inject(t, "web", "aws", "sessionToken")
		c.wants(t, tokenFile, "session-3", core.ItemOK, "")
	})
}

// A token that does not end is minted again only when the credential changes. One
// that the vendor hands out again is not pushed again.
func TestMintedItemStaysTheSame(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.vendor.set(func(v *vendor) { v.life = 0 })
		w.inject(t, "web", "aws", "sessionToken")
		pass(48 * time.Hour)
		w.restart(t, time.Hour)
		pass(time.Hour)
		if n := w.vendor.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
		w.update(t, "aws", region(t, "eu-west-2"))
		if n := w.vendor.count(); n != 2 {
			t.Errorf("%d calls", n)
		}
		same, err := sessionToken(9, 6*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		w.vendor.set(func(v *vendor) { v.same = same })
		w.update(t, "aws", region(t, "eu-west-3"))
		c := w.connect(t)
		c.wants(t, tokenFile, "session-9", core.ItemOK, "")
		calls, messages := w.vendor.count(), c.told()
		pass(5*time.Hour + 50*time.Minute)
		if n := w.vendor.count() - calls; n < 2 || n > 4 {
			t.Errorf("%d calls", n)
		}
		if n := c.told() - messages; n != 0 {
			t.Errorf("the same token was pushed %d times more", n)
		}
	})
}

// The server stops at once while the vendor hangs.
func TestRunEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.vendor.slow = time.Hour
		w.inject(t, "web", "aws", "sessionToken")
		start := time.Now()
		w.endRun()
		if time.Since(start) != 0 {
			t.Errorf("it took %s", time.Since(start))
		}
	})
}

// domain stands for the store in what it answers badly.
type domain struct {
	mu      sync.Mutex
	list    []core.WantedToken
	changed chan struct{}
	login   func(core.WantedToken) (credential.Login, error)
	putErr  error
	onPut   func() // called in PutMinted
	puts    []core.MintedUpdate
	request credential.TokenRequest
	end     func() // ends Run
}

func (d *domain) WantedTokens() ([]core.WantedToken, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list, d.changed
}

func (d *domain) TokenLogin(_ context.Context, w core.WantedToken) (credential.Login, uint32, credential.TokenRequest, error) {
	d.mu.Lock()
	f := d.login
	d.mu.Unlock()
	l, err := f(w)
	return l, 1, d.request, err
}

func (d *domain) PutMinted(_ context.Context, _ core.WantedToken, u core.MintedUpdate) (core.Revision, error) {
	d.mu.Lock()
	d.puts = append(d.puts, u)
	rev, err, onPut := core.Revision(len(d.puts)), d.putErr, d.onPut
	d.mu.Unlock()
	if onPut != nil {
		onPut()
	}
	return rev, err
}

// publish changes the first token of the list.
func (d *domain) publish(change func(*core.WantedToken)) {
	d.mu.Lock()
	d.list = slices.Clone(d.list)
	change(&d.list[0])
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	time.Sleep(time.Millisecond) // in a bubble; nobody waits for less
}

func (d *domain) seen() []core.MintedUpdate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.puts)
}

// runOn starts an Issuer on a domain that wants tokens, so many by the credential's
// uid, or by its project and uid as in "p:uid".
func runOn(t *testing.T, r *rig, tokens map[string]int, change ...func(*core.WantedToken)) *domain {
	t.Helper()
	d := &domain{changed: make(chan struct{}), request: request(t, 0), login: func(w core.WantedToken) (credential.Login, error) {
		l := login(t, w.Locator.CredentialUID, 1)
		if w.Locator.CredentialUID == "other" {
			l.ID = "other/2" // not what the list says
		}
		return l, nil
	}}
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		project, uid, ok := strings.Cut(name, ":")
		if !ok {
			project, uid = "p", name
		}
		for i := range tokens[name] {
			d.list = append(d.list, core.WantedToken{
				Locator: core.TokenLocator{Project: project, CredentialUID: uid, Request: fmt.Sprint(i)}, Login: uid + "/1",
				Credential: resourcename.Credential{Project: project, ID: uid}, Request: &credentialv1.TokenRequest{},
			})
		}
	}
	for _, c := range change {
		c(&d.list[0])
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, d) }()
	d.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(d.end)
	synctest.Wait()
	return d
}

// What is stored decides when a token is minted first.
func TestRunFirst(t *testing.T) {
	for _, test := range []struct {
		name     string
		have     *core.Minted
		current  bool
		from, to time.Duration // when it is minted; to is 0 for never
	}{
		{"nothing", nil, false, 0, 1},
		{"none was ever minted", &core.Minted{State: core.ValueRefused}, false, 0, 1},
		{"good", &core.Minted{MintTime: ago(30), ExpireTime: ago(-30), State: core.ValueOK}, true, 10 * time.Minute, 15*time.Minute + 1},
		{"most of its time is over", &core.Minted{MintTime: ago(50), ExpireTime: ago(-10), State: core.ValueOK}, true, 0, 1},
		{"ended", &core.Minted{MintTime: ago(70), ExpireTime: ago(10), State: core.ValueOK}, true, 0, 1},
		{"of another login", &core.Minted{MintTime: ago(30), ExpireTime: ago(-30), State: core.ValueOK}, false, 0, 1},
		{"failing", &core.Minted{MintTime: ago(30), ExpireTime: ago(-30), State: core.ValueRefused}, true, 0, 1},
		{"without an end", &core.Minted{MintTime: ago(30), State: core.ValueOK}, true, 0, 0},
		{"without an end, of another login", &core.Minted{MintTime: ago(30), State: core.ValueOK}, false, 0, 1},
		{"minted in the future, by a clock that was wrong", &core.Minted{MintTime: ago(-600), ExpireTime: ago(-660), State: core.ValueOK}, true, 640 * time.Minute, 645*time.Minute + 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				start := time.Now()
				runOn(t, r, map[string]int{"a": 1}, func(w *core.WantedToken) { w.Have, w.Current = test.have, test.current })
				pass(24 * time.Hour)
				calls := r.vendor.seen()
				if test.to == 0 {
					if len(calls) != 0 {
						t.Errorf("%d calls", len(calls))
					}
					return
				}
				if len(calls) == 0 {
					t.Fatal("no call in a day")
				}
				if at := calls[0].at.Sub(start); at < test.from || at >= test.to {
					t.Errorf("it was minted after %s", at)
				}
			})
		})
	}
}

// ago is a time as many minutes before bubbles begin.
func ago(minutes int) time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Duration(minutes) * time.Minute)
}

// A record that goes is made anew, but a list from before it was made means
// nothing.
func TestRunRecordGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		d := runOn(t, r, map[string]int{"a": 1})
		for _, step := range []struct {
			rev  core.Revision
			have *core.Minted
			want int
		}{{0, nil, 1}, {1, &core.Minted{MintTime: time.Now()}, 1}, {1, nil, 2}, {1, nil, 2}, {2, nil, 3}, {9, &core.Minted{}, 3}} {
			d.publish(func(w *core.WantedToken) { w.Revision, w.Have = step.rev, step.have })
			if n := r.vendor.count(); n != step.want {
				t.Errorf("%d calls after a list of revision %d, want %d", n, step.rev, step.want)
			}
		}
	})
}

// A change that comes while the token of the version before is being committed is
// not overlooked.
func TestRunChangeDuringPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		version := 1
		d := runOn(t, r, map[string]int{"a": 1})
		d.mu.Lock()
		d.login = func(core.WantedToken) (credential.Login, error) { return login(t, "a", version), nil }
		d.onPut = sync.OnceFunc(func() {
			version = 3
			d.publish(func(w *core.WantedToken) { w.Login = "a/3" })
		})
		d.mu.Unlock()
		version = 2
		d.publish(func(w *core.WantedToken) { w.Login = "a/2" })
		pass(time.Second)
		puts := d.seen()
		if last := puts[len(puts)-1]; len(puts) != 3 || last.Login != "a/3" {
			t.Errorf("%d commits, the last of %s", len(puts), last.Login)
		}
	})
}

// What is under way when the server stops is no failure.
func TestRunEndsWithoutTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.slow = 10 * time.Second
		d := runOn(t, r, map[string]int{"a": 1})
		pass(time.Second)
		d.end()
		if puts := d.seen(); len(puts) != 0 {
			t.Errorf("commits: %+v", puts)
		}
	})
}

// One credential whose vendor hangs holds up no other, a project full of them holds
// up no other project, and the calls are bounded.
func TestRunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, hanging := 0, 0, 0
		r := newRig(t, func(c *Config) { c.MaxConcurrent, c.Policy.Rate, c.Policy.Concurrent = 16, 1e6, 64 })
		r.vendor.answer = func(ctx context.Context, l credential.Login) (credential.Token, error) {
			mu.Lock()
			now++
			most = max(most, now)
			hang := strings.HasPrefix(l.ID, "hangs")
			if hang {
				hanging++
			}
			mu.Unlock()
			defer func() { mu.Lock(); now--; mu.Unlock() }()
			if hang {
				<-ctx.Done()
				return credential.Token{}, ctx.Err()
			}
			time.Sleep(time.Second)
			return sessionToken(1, time.Hour)
		}
		d := runOn(t, r, map[string]int{"a": 6, "b": 6, "c": 6, "d": 6, "e": 6, "hangs": 30, "q:hangs1": 9, "q:hangs2": 9, "q:hangs3": 9, "q:hangs4": 9, "q:hangs5": 9})
		pass(14 * time.Second)
		if n := len(d.seen()); n != 30 {
			t.Errorf("%d of 30 tokens are there, which take a second each", n)
		}
		if most != 16 || hanging != 2+8 {
			t.Errorf("%d calls at a time, %d of them of those that hang", most, hanging)
		}
	})
}

// A storage that cannot write is tried again, and nobody's words but the domain's
// are passed on.
func TestRunPutsAndLoginsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		d := runOn(t, r, map[string]int{"a": 1})
		if got := d.seen(); len(got) != 1 || got[0].State != core.ValueOK || got[0].Login != "a/1" || got[0].Version != 1 {
			t.Fatalf("%+v", got)
		}
		d.mu.Lock()
		d.putErr = &core.Error{Kind: core.ErrUnavailable, Message: "the store cannot write now"}
		d.mu.Unlock()
		pass(time.Hour + 10*time.Second)
		failed := d.seen()
		// It has ended, and that could not be written either.
		ends := 0
		for _, u := range failed {
			if u.State == 0 && u.Token.IsZero() {
				ends++
			}
		}
		if ends < 8 {
			t.Errorf("in ten seconds it was tried %d times to commit that the token has ended", ends)
		}
		if n := len(failed); n < 10 || n > 200 {
			t.Errorf("%d attempts to write", n)
		}
		d.mu.Lock()
		d.putErr = nil
		d.login = func(core.WantedToken) (credential.Login, error) {
			return credential.Login{}, errors.New("the words of a stranger, with " + goodKey)
		}
		d.mu.Unlock()
		pass(2 * time.Minute)
		all := d.seen()
		last := all[len(all)-1]
		noSecret(t, last.Message)
		if last.State != core.ValueUnavailable || !strings.Contains(last.Message, "internal error") {
			t.Errorf("%+v", last)
		}
		d.mu.Lock()
		d.login = func(core.WantedToken) (credential.Login, error) {
			return credential.Login{}, &core.Error{Kind: core.ErrPrecondition, Message: "version 1 is DISABLED"}
		}
		d.mu.Unlock()
		pass(2 * time.Minute)
		all = d.seen()
		if last := all[len(all)-1]; last.State != core.ValueRefused || last.Message != "version 1 is DISABLED" {
			t.Errorf("%+v", last)
		}
	})
}

// A list that goes on saying something else than the login does not make the
// vendor be asked all the time.
func TestRunListDisagrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runOn(t, r, map[string]int{"other": 1})
		pass(time.Hour)
		if n := r.vendor.count(); n > 120 {
			t.Errorf("%d calls in an hour", n)
		}
	})
}

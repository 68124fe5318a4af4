//go:build conformance

package broker_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/vault"
	"github.com/credstore/credstore/pkg/provider/vault/vaulttest"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/broker"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

const pollInterval = 2 * time.Second

var (
	projectName    = resourcename.Project{ID: core.DefaultProject}
	storeName      = resourcename.SecretStore{Project: core.DefaultProject, ID: "vault"}
	credentialName = resourcename.Credential{Project: core.DefaultProject, ID: "vault-login"}
)

// server is the domain with its broker, as the product runs them.
type server struct {
	*coretest.Harness
	stopBroker func()
}

// serve starts a server on a new folder.
func serve(t *testing.T) *server {
	t.Helper()
	s := &server{}
	b := newBroker(t)
	s.Harness = coretest.New(t, func(c *core.Config) { c.Brokerage = b })
	s.run(t, b)
	return s
}

// restart ends the server and starts it again on the same folder.
func (s *server) restart(t *testing.T) {
	t.Helper()
	s.stopBroker()
	s.Stop(t)
	b := newBroker(t)
	s.Start(t, func(c *core.Config) { c.Brokerage = b })
	s.run(t, b)
}

func newBroker(t *testing.T) *broker.Broker {
	t.Helper()
	loopback := provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	b, err := broker.New(broker.Config{Open: map[string]broker.Opener{
		"vault": func(ctx context.Context, st *core.SecretStore, login credential.Login) (provider.Session, error) {
			s, err := vault.Open(ctx, vault.Config{Address: st.Vault.Address, Mount: st.Vault.Mount, Egress: loopback}, login)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *server) run(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, s.Store) }()
	s.stopBroker = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(s.stopBroker)
}

func appRole(t *testing.T, roleID, secretID string) credential.Payload {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
		Method: &credentialv1.Vault_AppRole_{AppRole: &credentialv1.Vault_AppRole{RoleId: roleID, SecretId: secretID}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// setUp makes the store, with the login of an AppRole.
func (s *server) setUp(t *testing.T, v *vaulttest.Server, interval time.Duration, role map[string]any) {
	t.Helper()
	v.Policy(t, "app", "app/")
	role["token_policies"] = "app"
	roleID, secretID := v.AppRole(t, "credstore", role)
	ctx := coretest.AdminContext(t)
	if _, err := s.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: credentialName, Payload: appRole(t, roleID, secretID)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.CreateSecretStore(ctx, core.CreateSecretStoreRequest{
		Name: storeName, Credential: credentialName, Vault: &core.VaultProvider{Address: v.Address}, PollInterval: interval,
	}); err != nil {
		t.Fatal(err)
	}
}

func (s *server) inject(t *testing.T, id string, secrets ...string) {
	t.Helper()
	var items []core.Item
	for _, path := range secrets {
		items = append(items, core.Item{
			Secret: &core.SecretSource{Store: storeName, Path: path, Key: "k"},
			File:   core.FileTarget{Path: id + "/" + path},
		})
	}
	if _, err := s.Store.CreateInjection(coretest.AdminContext(t), core.CreateInjectionRequest{
		Name: resourcename.Injection{Project: core.DefaultProject, ID: id}, Selector: map[string]string{"app": id}, Items: items,
	}); err != nil {
		t.Fatal(err)
	}
}

// workload is an injector's end of a stream: what it has, by the secret's path.
type workload struct {
	mu       sync.Mutex
	paths    map[string]string // by item
	contents map[string]string
	items    map[string]core.SetItem
}

// connect opens the stream of a workload that matches one injection.
func (s *server) connect(t *testing.T, injection, name string) *workload {
	t.Helper()
	w := &workload{paths: map[string]string{}, contents: map[string]string{}, items: map[string]core.SetItem{}}
	ctx, cancel := context.WithCancel(core.WithPrincipal(context.Background(), &core.Principal{
		Name: "projects/default/tokens/" + name, Role: core.Workload, AllProjects: true, Attributes: map[string]string{"app": injection},
	}))
	stream, err := s.Store.OpenSet(ctx, core.OpenSetRequest{Project: projectName, Workload: name})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			e, err := stream.Next(ctx)
			if err != nil {
				return
			}
			if e.Set != nil {
				w.apply(e.Set)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; stream.Close() })
	return w
}

func (w *workload) apply(u *core.SetUpdate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range u.Items {
		_, path, _ := strings.Cut(it.File.Path, "/")
		w.paths[it.ID], w.items[path] = path, it
	}
	for id, content := range u.Contents {
		w.contents[w.paths[id]] = string(content)
	}
}

// has says whether the item of a path is in a state with a content, and with a
// message that contains the text.
func (w *workload) has(path string, state core.ItemState, content, text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	it := w.items[path]
	return it.State == state && w.contents[path] == content && strings.Contains(it.Message, text)
}

func (w *workload) describe(path string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%q in state %d, %q", w.contents[path], w.items[path].State, w.items[path].Message)
}

// eventually waits for an item to become as has wants it, and returns how long
// that took.
func eventually(t *testing.T, w *workload, limit time.Duration, path string, state core.ItemState, content, text string) time.Duration {
	t.Helper()
	start := time.Now()
	for !w.has(path, state, content, text) {
		if time.Since(start) > limit {
			t.Fatalf("%s after %s is %s; want %q in state %d, %q", path, limit, w.describe(path), content, state, text)
		}
		time.Sleep(2 * time.Millisecond) // the other end is a real server
	}
	return time.Since(start)
}

func secretPath(i int) string { return fmt.Sprintf("app/secret-%d", i) }

// 50 workloads with 10 secrets, and 50 over overlapping, differently permitted
// ones, cause one read per secret and interval, counted at Vault. A value changed
// in Vault arrives within one interval.
func TestConformanceOneReadPerSecret(t *testing.T) {
	v := vaulttest.New(t)
	s := serve(t)
	s.setUp(t, v, pollInterval, map[string]any{"token_ttl": "1h"})
	const secrets, workloads = 10, 50
	var all []string
	for i := range secrets {
		v.Put(t, secretPath(i), map[string]string{"k": "first"})
		all = append(all, secretPath(i))
	}
	s.inject(t, "same", all...)
	var connected []*workload
	for i := range workloads {
		// Each sees four of the ten, and no two neighbours the same.
		own := []string{all[i%10], all[(i+1)%10], all[(i+i/10+2)%10], all[(i+7)%10]}
		slices.Sort(own)
		id := fmt.Sprintf("own-%d", i)
		s.inject(t, id, slices.Compact(own)...)
		s.connect(t, id, id)
		connected = append(connected, s.connect(t, "same", fmt.Sprintf("same-%d", i)))
	}
	for _, w := range connected {
		for _, path := range all {
			eventually(t, w, time.Minute, path, core.ItemOK, "first", "")
		}
	}
	sum := 0
	for range 5 {
		start := time.Now()
		v.Reads(t)
		time.Sleep(pollInterval - 50*time.Millisecond) // counting takes time, too
		reads := v.Reads(t)
		most := 1 + int(time.Since(start)/pollInterval) // of each, however slow the machine is
		total := 0
		for path, n := range reads {
			total += n
			if n > most {
				t.Errorf("%s was read %d times in %d intervals", path, n, most)
			}
		}
		if total > most*secrets {
			t.Errorf("%d reads of %d secrets in %d intervals: %v", total, secrets, most, reads)
		}
		sum += total
	}
	if sum < secrets {
		t.Errorf("%d reads of %d secrets in five intervals", sum, secrets)
	}
	t.Logf("%d reads of %d secrets in five intervals, for %d workloads", sum, secrets, 2*workloads)
	for i := range 3 {
		content := fmt.Sprintf("changed-%d", i)
		start := time.Now()
		v.Put(t, secretPath(i), map[string]string{"k": content})
		for _, w := range connected {
			eventually(t, w, time.Minute, secretPath(i), core.ItemOK, content, "")
		}
		// Jitter adds up to a fiftieth to the interval; the rest is the machine's.
		t.Logf("a change arrived at all workloads after %s; the interval is %s", time.Since(start), pollInterval)
	}
}

// Vault away: what was fetched stays, also for a workload that comes then and
// after credstore was restarted; it recovers by itself.
func TestConformanceVaultAway(t *testing.T) {
	v := vaulttest.New(t)
	s := serve(t)
	s.setUp(t, v, time.Second, map[string]any{"token_ttl": "1h"})
	v.Put(t, "app/db", map[string]string{"k": "first"})
	s.inject(t, "web", "app/db", "app/none")
	w := s.connect(t, "web", "w1")
	eventually(t, w, 5*time.Second, "app/db", core.ItemOK, "first", "")
	eventually(t, w, 5*time.Second, "app/none", core.ItemFailed, "", "404 there is nothing at this path")

	v.Stop(t)
	eventually(t, w, 5*time.Second, "app/db", core.ItemStale, "first", "connection refused")
	newcomer := s.connect(t, "web", "w2")
	eventually(t, newcomer, 5*time.Second, "app/db", core.ItemStale, "first", "connection refused")
	s.restart(t)
	later := s.connect(t, "web", "w3")
	eventually(t, later, 5*time.Second, "app/db", core.ItemStale, "first", "connection refused")

	v.Start(t)
	eventually(t, later, 20*time.Second, "app/db", core.ItemOK, "first", "")
	v.Put(t, "app/db", map[string]string{"k": "second"})
	eventually(t, later, 3*time.Second, "app/db", core.ItemOK, "second", "")

	v.Seal(t)
	eventually(t, later, 5*time.Second, "app/db", core.ItemStale, "second", "503 Vault is sealed")
	v.Unseal(t)
	eventually(t, later, 20*time.Second, "app/db", core.ItemOK, "second", "")
}

// Tokens that expire or are revoked are replaced, and no workload notices.
func TestConformanceTokenEnds(t *testing.T) {
	v := vaulttest.New(t)
	s := serve(t)
	s.setUp(t, v, time.Second, map[string]any{"token_ttl": "2s", "token_max_ttl": "3s"})
	v.Put(t, "app/db", map[string]string{"k": "0"})
	s.inject(t, "web", "app/db")
	w := s.connect(t, "web", "w1")
	eventually(t, w, 5*time.Second, "app/db", core.ItemOK, "0", "")
	for i := range 6 {
		if i >= 3 {
			v.EndLogins(t)
		}
		content := fmt.Sprint(i + 1)
		v.Put(t, "app/db", map[string]string{"k": content})
		eventually(t, w, 3*time.Second, "app/db", core.ItemOK, content, "")
	}
}

// Deleted, undeleted, destroyed, written anew: the status says which, and the
// workload keeps what it has.
func TestConformanceSecretDeleted(t *testing.T) {
	v := vaulttest.New(t)
	s := serve(t)
	s.setUp(t, v, time.Second, map[string]any{"token_ttl": "1h"})
	n := v.Put(t, "app/db", map[string]string{"k": "first"})
	s.inject(t, "web", "app/db")
	w := s.connect(t, "web", "w1")
	eventually(t, w, 5*time.Second, "app/db", core.ItemOK, "first", "")
	v.Delete(t, "app/db", n)
	eventually(t, w, 3*time.Second, "app/db", core.ItemFailed, "first", "version 1 was deleted")
	v.Undelete(t, "app/db", n)
	eventually(t, w, 3*time.Second, "app/db", core.ItemOK, "first", "")
	v.Destroy(t, "app/db", n)
	eventually(t, w, 3*time.Second, "app/db", core.ItemFailed, "first", "version 1 was destroyed")
	v.Put(t, "app/db", map[string]string{"k": "second"})
	eventually(t, w, 3*time.Second, "app/db", core.ItemOK, "second", "")
}

// The login's rotation in credstore is used at once, however long the interval;
// Test and Refresh tell what Vault says.
func TestConformanceLoginRotates(t *testing.T) {
	v := vaulttest.New(t)
	s := serve(t)
	s.setUp(t, v, time.Hour, map[string]any{"token_ttl": "1h"})
	v.Put(t, "app/db", map[string]string{"k": "first"})
	s.inject(t, "web", "app/db")
	w := s.connect(t, "web", "w1")
	eventually(t, w, 5*time.Second, "app/db", core.ItemOK, "first", "")
	ctx := coretest.AdminContext(t)

	if got, err := s.Store.TestSecretStore(ctx, storeName); err != nil || !got.OK || !strings.HasPrefix(got.Identity, "approle role credstore (entity ") {
		t.Errorf("TestSecretStore: %+v, %v", got, err)
	}
	v.Put(t, "app/db", map[string]string{"k": "second"})
	if got, err := s.Store.RefreshSecretStore(ctx, storeName); err != nil || got != (core.RefreshResult{Polled: 1, Changed: 1}) {
		t.Errorf("RefreshSecretStore: %+v, %v", got, err)
	}
	eventually(t, w, time.Second, "app/db", core.ItemOK, "second", "")

	roleID, secretID := v.AppRole(t, "other", map[string]any{"token_policies": "app", "token_ttl": "1h"})
	wrong, right := appRole(t, roleID, "wrong"), appRole(t, roleID, secretID)
	if _, err := s.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: credentialName, Payload: &wrong}); err != nil {
		t.Fatal(err)
	}
	eventually(t, w, 5*time.Second, "app/db", core.ItemStale, "second", "400 invalid role or secret ID")
	if got, err := s.Store.TestSecretStore(ctx, storeName); err != nil || got.OK || got.Message != "login: refused: 400 invalid role or secret ID" {
		t.Errorf("TestSecretStore: %+v, %v", got, err)
	}
	v.Put(t, "app/db", map[string]string{"k": "third"})
	if _, err := s.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: credentialName, Payload: &right}); err != nil {
		t.Fatal(err)
	}
	eventually(t, w, 5*time.Second, "app/db", core.ItemOK, "third", "")
}

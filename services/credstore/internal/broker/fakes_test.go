package broker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

const project = "p"

// domain is the domain's store as far as the broker uses it. It commits a value
// only if it differs, as the real one does.
type domain struct {
	mu      sync.Mutex
	wanted  []core.Wanted
	changed chan struct{}
	logins  map[resourcename.SecretStore]string // the token in the store's credential
	values  map[core.Locator]core.ValueUpdate
	commits []core.ValueUpdate
	opened  int   // calls of StoreLogin
	puts    int   // calls of PutValue
	putErr  error // what PutValue answers
	loginEr error // what StoreLogin answers
}

func newDomain() *domain {
	return &domain{changed: make(chan struct{}), logins: map[resourcename.SecretStore]string{}, values: map[core.Locator]core.ValueUpdate{}}
}

func (d *domain) Wanted() ([]core.Wanted, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted, d.changed
}

func (d *domain) StoreLogin(_ context.Context, name resourcename.SecretStore) (*core.SecretStore, credential.Login, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	if d.loginEr != nil {
		return nil, credential.Login{}, d.loginEr
	}
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Vault{
		Vault: &credentialv1.Vault{Method: &credentialv1.Vault_Token{Token: d.logins[name]}},
	}})
	return &core.SecretStore{Name: name, Vault: &core.VaultProvider{}}, credential.Login{Name: "projects/p/credentials/c", ID: d.logins[name], Payload: p}, err
}

func (d *domain) PutValue(_ context.Context, l core.Locator, u core.ValueUpdate) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.puts++
	if d.putErr != nil {
		return false, d.putErr
	}
	old, known := d.values[l]
	if u.Data == nil {
		u.Data, u.Version = old.Data, old.Version
	}
	if known && cmp.Equal(old, u) {
		return false, nil
	}
	d.values[l] = u
	d.commits = append(d.commits, u)
	return true, nil
}

// want replaces the list of what is wanted.
func (d *domain) want(wanted ...core.Wanted) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = slices.Clone(wanted)
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *domain) value(w core.Wanted) core.ValueUpdate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.values[w.Locator]
}

// seen returns the commits so far, and how often a commit was asked for and a
// login taken.
func (d *domain) seen() (commits []core.ValueUpdate, puts, opened int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.commits), d.puts, d.opened
}

// stored returns the values.
func (d *domain) stored() map[core.Locator]core.ValueUpdate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.values)
}

func (d *domain) set(change func(*domain)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func storeName(store string) resourcename.SecretStore {
	return resourcename.SecretStore{Project: project, ID: store}
}

// wantedSecret is a secret of a store whose credential has the given version.
func wantedSecret(store, path string, interval time.Duration, version uint32) core.Wanted {
	return core.Wanted{
		Locator: core.Locator{Project: project, StoreUID: store + "-uid", Path: path},
		Store: &core.SecretStore{
			Name: storeName(store), UID: store + "-uid", Vault: &core.VaultProvider{}, PollInterval: interval, Etag: "etag-1",
		},
		Login: fmt.Sprint("credential-uid/", version),
	}
}

// rig is a broker between a domain and an external store, in a bubble of
// synctest.
type rig struct {
	*domain
	t        *testing.T
	external *providertest.Store
	broker   *Broker
	cfg      Config
	log      *bytes.Buffer
	random   float64
}

const firstLogin, secondLogin = "login-canary-1-77ab", "login-canary-2-77ab"

func newRig(t *testing.T) *rig {
	r := &rig{domain: newDomain(), t: t, external: providertest.NewStore(firstLogin), log: &bytes.Buffer{}}
	r.logins[storeName("a")], r.logins[storeName("b")] = firstLogin, firstLogin
	r.cfg = Config{
		Open: map[string]Opener{"vault": func(ctx context.Context, _ *core.SecretStore, login credential.Login) (provider.Session, error) {
			return r.external.Open(ctx, login.Payload.Message().GetVault().GetToken())
		}},
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Random: func() float64 { return r.random },
	}
	return r
}

// run starts the broker, and stops it when the test ends.
func (r *rig) run() (stop func()) {
	r.t.Helper()
	b, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.broker = b
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx, r.domain) }()
	synctest.Wait()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// reads returns when a path was read, since start.
func (r *rig) reads(path string, start time.Time) []time.Duration {
	var at []time.Duration
	for _, c := range r.external.Calls("read") {
		if c.Ref.Path == path {
			at = append(at, c.Time.Sub(start))
		}
	}
	return at
}

func (r *rig) wantValue(w core.Wanted, state core.ValueState, content, message string) {
	r.t.Helper()
	got := r.value(w)
	if got.State != state || string(got.Data["k"]) != content || got.Message != message {
		r.t.Errorf("value of %s is %q in state %d, %q; want %q in %d, %q",
			w.Locator.Path, got.Data["k"], got.State, got.Message, content, state, message)
	}
}

// wait lets time pass, and what is due happen.
func wait(d time.Duration) {
	time.Sleep(d) // in a bubble of synctest: no time passes outside
	synctest.Wait()
}

func content(v string) map[string]string { return maps.Clone(map[string]string{"k": v}) }

func path(i int) string { return fmt.Sprintf("path/%d", i) }

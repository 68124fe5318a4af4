package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/schedule"
)

// Opener logs in to a secret store. Its error is a *provider.Error or the
// context's.
type Opener func(ctx context.Context, store *core.SecretStore, login credential.Login) (provider.Session, error)

// Store is what a Broker uses of the domain's store.
type Store interface {
	Wanted() ([]core.Wanted, <-chan struct{})
	StoreLogin(context.Context, resourcename.SecretStore) (*core.SecretStore, credential.Login, error)
	PutValue(context.Context, core.Locator, core.ValueUpdate) (changed bool, err error)
}

// Config is what New needs. All but Open may be left at its zero value.
type Config struct {
	// Open has an Opener for each provider, by its name in the contract: "vault".
	Open map[string]Opener
	// Logger gets no secret material; nothing is logged when it is nil.
	Logger *slog.Logger
	// Metrics is where metrics are registered; nowhere when nil.
	Metrics prometheus.Registerer
	// MaxConcurrent bounds the calls to all stores at a time; 32. One store has
	// an eighth of them and one project half, so that one which hangs does not hold
	// up the others.
	MaxConcurrent int
	// Random returns numbers in [0, 1), to several callers at a time; math/rand's
	// when nil.
	Random func() float64
}

// Broker reaches external stores. It implements core.Brokerage.
type Broker struct {
	cfg      Config
	log      *slog.Logger
	calls    *provider.Metrics
	metrics  *metrics
	requests chan *refresh
	done     chan struct{}

	testing sync.Mutex
	tests   *schedule.Places // of calls of Test, whose stores may never answer
}

var _ core.Brokerage = (*Broker)(nil)

// New returns a Broker that does nothing yet, see Run.
func New(cfg Config) (*Broker, error) {
	if cfg.MaxConcurrent <= 0 {
		cfg.MaxConcurrent = 32
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	calls, err := provider.NewMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics of providers: %w", err)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics of the broker: %w", err)
	}
	return &Broker{
		cfg: cfg, log: cfg.Logger, calls: calls, metrics: m,
		requests: make(chan *refresh), done: make(chan struct{}), tests: schedule.NewPlaces(cfg.MaxConcurrent),
	}, nil
}

// Run polls until ctx ends, and returns when everything that it started has
// ended. It must be called once.
func (b *Broker) Run(ctx context.Context, store Store) error {
	defer close(b.done)
	return newLoop(b, store).run(ctx)
}

// errNotRunning is what Refresh answers while the server starts or stops.
var errNotRunning = &core.Error{Kind: core.ErrUnavailable, Reason: "NO_BROKER", Message: "this server is not reaching external stores at the moment"}

// Refresh implements core.Brokerage. A read that is under way when it is called
// may have been answered with what was there before, so the secret is read once
// more after it.
func (b *Broker) Refresh(ctx context.Context, name resourcename.SecretStore) (core.RefreshResult, error) {
	r := &refresh{store: name, result: make(chan core.RefreshResult, 1)}
	select {
	case b.requests <- r:
	case <-b.done:
		return core.RefreshResult{}, errNotRunning
	case <-ctx.Done():
		return core.RefreshResult{}, ctx.Err()
	}
	select {
	case result := <-r.result:
		return result, nil
	case <-b.done:
		return core.RefreshResult{}, errNotRunning
	case <-ctx.Done():
		return core.RefreshResult{}, ctx.Err()
	}
}

// errManyTests is what Test answers while too many of one store or project are
// under way.
var errManyTests = &core.Error{Kind: core.ErrUnavailable, Reason: "OVERLOADED", Message: "too many tests of this project's stores are under way: try again later"}

// startTest takes a place for a test, or says that there is none.
func (b *Broker) startTest(store *core.SecretStore) (leave func(), ok bool) {
	b.testing.Lock()
	defer b.testing.Unlock()
	if !b.tests.Free(store.Name.Project, store.Name.ID) {
		return nil, false
	}
	b.tests.Take(store.Name.Project, store.Name.ID)
	return func() {
		b.testing.Lock()
		defer b.testing.Unlock()
		b.tests.Leave(store.Name.Project, store.Name.ID)
	}, true
}

// Test implements core.Brokerage, with a session of its own.
func (b *Broker) Test(ctx context.Context, store *core.SecretStore, login credential.Login) (core.TestResult, error) {
	leave, ok := b.startTest(store)
	if !ok {
		return core.TestResult{}, errManyTests
	}
	defer leave()
	start := time.Now()
	client := provider.NewClient(func(ctx context.Context) (provider.Session, error) {
		return b.open(ctx, store, login)
	}, provider.Policy{Provider: providerOf(store), Attempts: 1, Metrics: b.calls, Random: b.cfg.Random})
	identity, err := client.Identify(ctx)
	result := core.TestResult{OK: err == nil, Identity: identity, Latency: time.Since(start)}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if closeErr := client.Close(closing); closeErr != nil {
		b.log.Debug("could not give a test's login back", "store", store.Name.String(), "error", closeErr)
	}
	e, ok := errors.AsType[*provider.Error](err)
	if err != nil && !ok {
		return core.TestResult{}, err
	}
	if ok {
		result.Message = e.Error()
	}
	return result, nil
}

// open logs in with the vendor's code.
func (b *Broker) open(ctx context.Context, store *core.SecretStore, login credential.Login) (provider.Session, error) {
	name := providerOf(store)
	open, ok := b.cfg.Open[name]
	if !ok {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "login", Text: fmt.Sprintf("this server has no provider %q", name)}
	}
	return open(ctx, store, login)
}

// providerOf returns the provider's name in the contract.
func providerOf(store *core.SecretStore) string {
	if store.Vault != nil {
		return "vault"
	}
	return ""
}

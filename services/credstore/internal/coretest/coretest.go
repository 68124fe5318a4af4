// Package coretest owns a running core.Store for tests: real SQLite in a
// temporary folder, real sealing, a recording auditor. It is linked into no
// binary.
package coretest

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/seal"
	"github.com/credstore/credstore/services/credstore/internal/storage/sqlite"
)

// Harness is a Store with what it stands on.
type Harness struct {
	Store   *core.Store
	Storage core.Storage
	Sealer  *seal.Sealer
	Audit   *Audit
	Dir     string

	cfg    core.Config
	opts   []Option
	file   sqlite.Options
	cancel context.CancelFunc
	done   chan error
	// replicas end the other Stores on the storage.
	replicas []func()
}

// Option changes the configuration before the Store is made.
type Option func(*core.Config)

// New returns a running Store in a new folder; the test's cleanup stops it.
func New(t testing.TB, opts ...Option) *Harness {
	t.Helper()
	return NewOn(t, sqlite.Options{}, opts...)
}

// NewOn is New on a file with options of its own; their Path is not used.
func NewOn(t testing.TB, file sqlite.Options, opts ...Option) *Harness {
	t.Helper()
	h := &Harness{Dir: t.TempDir(), Audit: &Audit{}, file: file}
	h.Start(t, opts...)
	t.Cleanup(func() { h.Stop(t) })
	return h
}

// File returns the path of the database.
func (h *Harness) File() string { return filepath.Join(h.Dir, "store.db") }

// Start opens the folder, as after Stop. Without options it uses those of the
// time before.
func (h *Harness) Start(t testing.TB, opts ...Option) {
	t.Helper()
	if err := h.TryStart(t, opts...); err != nil {
		t.Fatal(err)
	}
}

// TryStart is Start for a folder that the Store may refuse: it returns the
// error of core.New. Everything is closed then.
func (h *Harness) TryStart(t testing.TB, opts ...Option) error {
	t.Helper()
	if len(opts) > 0 {
		h.opts = opts
	}
	ctx := context.Background()
	file := h.file
	file.Path = h.File()
	storage, err := sqlite.Open(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(h.Dir, "root.key")
	key, err := seal.LoadRootKeyFile(root)
	if err != nil {
		if key, err = seal.CreateRootKeyFile(root); err != nil {
			t.Fatal(err)
		}
	}
	sealer, err := seal.Open(ctx, key, core.NewStorageSealKeys(storage), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h.Storage, h.Sealer = storage, sealer
	h.cfg = core.Config{Storage: storage, Sealer: sealer, Authorizer: AllowAll{}, Auditor: h.Audit, Derive: sealer.Derive}
	for _, o := range h.opts {
		o(&h.cfg)
	}
	store, err := core.New(ctx, h.cfg)
	if err != nil {
		if err := storage.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		return err
	}
	h.Store = store
	run, cancel := context.WithCancel(ctx)
	h.cancel, h.done = cancel, make(chan error, 1)
	done := h.done
	go func() { done <- store.Run(run) }()
	return nil
}

// Stop ends the Store and its replicas and closes the storage; a second call does nothing.
func (h *Harness) Stop(t testing.TB) {
	t.Helper()
	if h.cancel == nil {
		return
	}
	for _, end := range h.replicas {
		end()
	}
	h.replicas = nil
	h.cancel()
	if err := <-h.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := h.Storage.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	h.cancel = nil
}

// Wait returns what Run returns, for a Store that is expected to end by itself.
// The storage stays open until Stop.
func (h *Harness) Wait(t testing.TB) error {
	t.Helper()
	err := <-h.done
	h.done <- nil
	return err
}

// Replica returns another running Store on the same storage, as another server
// would be. Stop ends it too.
func (h *Harness) Replica(t testing.TB, opts ...Option) *core.Store {
	t.Helper()
	cfg := h.cfg
	cfg.Storage = h.Storage
	for _, o := range opts {
		o(&cfg)
	}
	store, err := core.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(run) }()
	h.replicas = append(h.replicas, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run of a replica: %v", err)
		}
	})
	return store
}

// AllowAll is an Authorizer that allows everything.
type AllowAll struct{}

// Authorize returns nil.
func (AllowAll) Authorize(core.Access) error { return nil }

// Audit records entries and fails when told to.
type Audit struct {
	mu      sync.Mutex
	entries []core.AuditEntry
	err     error
}

// Record keeps the entry, or returns the error that was set.
func (a *Audit) Record(_ context.Context, e core.AuditEntry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	a.entries = append(a.entries, e)
	return nil
}

// Fail makes Record return err from now on; nil makes it work again.
func (a *Audit) Fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// Entries returns what was recorded so far.
func (a *Audit) Entries() []core.AuditEntry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.entries)
}

// AdminContext returns a context with an administrator of all projects.
func AdminContext(t testing.TB) context.Context {
	return core.WithPrincipal(t.Context(), &core.Principal{Name: "projects/default/tokens/admin", Role: core.Admin, AllProjects: true})
}

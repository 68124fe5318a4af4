package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func TestOldEpochsOpen(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	now := fixedNow()
	s, err := Open(t.Context(), root, store.handle(), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	var records [][]byte
	for range 4 {
		records = append(records, mustSeal(t, s, payloadPlace, []byte(canary)))
		now = now.Add(time.Hour + time.Nanosecond)
		if err := s.RotateEpoch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	records = append(records, mustSeal(t, s, payloadPlace, []byte(canary)))

	var want []Epoch
	for i := range 5 {
		want = append(want, Epoch{ID: uint32(i + 1), Created: fixedNow().Add(time.Duration(i) * time.Hour)})
	}
	for name, s := range map[string]*Sealer{"rotated": s, "reopened": mustOpen(t, root, store)} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, s.Epochs()); diff != "" {
				t.Errorf("epochs (-want +got):\n%s", diff)
			}
			for i, sealed := range records {
				wantOpens(t, s, payloadPlace, sealed, []byte(canary))
				if got, want := s.NeedsReseal(sealed), i < 4; got != want {
					t.Errorf("record of epoch %d: NeedsReseal is %t, want %t", i+1, got, want)
				}
			}
		})
	}

	// The epoch in the header is authenticated: a record cannot be passed off
	// as one of another epoch that exists.
	moved := bytes.Clone(records[0])
	moved[5] = 2
	wantBroken(t, s, payloadPlace, moved)
}

func TestNeedsResealOfGarbage(t *testing.T) {
	s := newSealer(t)
	if err := s.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, []byte("{}"), make([]byte, 100)} {
		if s.NeedsReseal(b) {
			t.Errorf("%q needs no reseal", b)
		}
	}
}

// Of two processes that make a key set at once, one wins; the other is told,
// and on its next try opens with the winner's.
func TestCreateRace(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	loser := store.handle()
	var winner *Sealer
	loser.beforeStore = func() { winner = mustOpen(t, root, store) }

	_, err := Open(t.Context(), root, loser, Options{})
	if failed := new(core.PreconditionError); !errors.As(err, &failed) {
		t.Fatalf("the loser got %v, want the store's PreconditionError", err)
	}
	second := mustOpen(t, root, store)
	if second.ID() != winner.ID() {
		t.Errorf("seal ids %s and %s, want one", second.ID(), winner.ID())
	}
	wantOpens(t, second, payloadPlace, mustSeal(t, winner, payloadPlace, []byte(canary)), []byte(canary))
}

// Two replicas that rotate in turn never lose each other's epochs, and one that
// lost a race has changed nothing.
func TestRotateAndReloadAcrossReplicas(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	a := mustOpen(t, root, store)
	handle := store.handle()
	b, err := Open(t.Context(), root, handle, Options{Now: fixedNow})
	if err != nil {
		t.Fatal(err)
	}

	if err := a.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	fromA := mustSeal(t, a, payloadPlace, []byte(canary))
	if _, err := b.Open(payloadPlace, fromA); !errors.Is(err, ErrUnknownEpoch) {
		t.Fatalf("before Reload: %v, want ErrUnknownEpoch", err)
	}
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, b, payloadPlace, fromA, []byte(canary))

	// b loads, a stores, b stores: b is refused and stays at epoch 2.
	handle.beforeStore = func() {
		handle.beforeStore = nil
		if err := a.RotateEpoch(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err, failed := b.RotateEpoch(t.Context()), new(core.PreconditionError); !errors.As(err, &failed) {
		t.Fatalf("got %v, want the store's PreconditionError", err)
	}
	if got := len(b.Epochs()); got != 2 {
		t.Errorf("after a failed rotation there are %d epochs, want 2", got)
	}
	if b.NeedsReseal(mustSeal(t, b, payloadPlace, nil)) {
		t.Error("a failed rotation changed the active epoch")
	}
	// Without a Reload, the next rotation still starts from what is stored.
	if err := b.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(b.Epochs()); got != 4 {
		t.Errorf("%d epochs, want 4: one of each rotation and the first", got)
	}
	wantOpens(t, b, payloadPlace, mustSeal(t, a, payloadPlace, []byte(canary)), []byte(canary))
}

// A key set that was set back to an older one is not taken by a process that
// uses the epochs it lacks.
func TestKeySetSetBack(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	s := mustOpen(t, root, store)
	old := bytes.Clone(store.wrapped)
	if err := s.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, s, payloadPlace, []byte(canary))
	store.wrapped = old
	for name, change := range map[string]func() error{
		"Reload":      func() error { return s.Reload(t.Context()) },
		"RotateEpoch": func() error { return s.RotateEpoch(t.Context()) },
	} {
		if err := change(); !errors.Is(err, core.ErrSealBroken) || !strings.Contains(err.Error(), "lacks epoch key 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantOpens(t, s, payloadPlace, sealed, []byte(canary))
}

func TestTooManyEpochs(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	mustOpen(t, root, store)
	id, set, err := unwrapKeySet(t.Context(), root, store.wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for len(set.epochs) < MaxEpochs {
		if err := set.addEpoch(strings.NewReader(strings.Repeat("k", keySize)), fixedNow()); err != nil {
			t.Fatal(err)
		}
	}
	if store.wrapped, err = wrapKeySet(t.Context(), root, id, set); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, root, store)
	if err := s.RotateEpoch(t.Context()); !errors.Is(err, ErrTooManyEpochs) {
		t.Errorf("got %v, want ErrTooManyEpochs", err)
	}
	if got := len(s.Epochs()); got != MaxEpochs {
		t.Errorf("%d epochs, want %d", got, MaxEpochs)
	}
}

func TestEpochNumbersUsedUp(t *testing.T) {
	set := &keySet{secret: newKey(testRootBytes), epochs: []epochKey{{Epoch: Epoch{ID: 1<<32 - 1}, key: newKey(testRootBytes)}}}
	if err := set.addEpoch(strings.NewReader(strings.Repeat("k", keySize)), fixedNow()); !errors.Is(err, ErrTooManyEpochs) {
		t.Errorf("got %v, want ErrTooManyEpochs", err)
	}
}

func TestStoreAndRootFailures(t *testing.T) {
	broken := errors.New("disk on fire")
	root := testRoot(t)

	t.Run("store fails on create", func(t *testing.T) {
		h := new(keyStore).handle()
		h.failStore = broken
		if _, err := Open(t.Context(), root, h, Options{}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no key set where one must be", func(t *testing.T) {
		store := new(keyStore)
		_, err := Open(t.Context(), root, store.handle(), Options{MustExist: true})
		if !errors.Is(err, core.ErrNotFound) || store.wrapped != nil {
			t.Errorf("got %v, want ErrNotFound and nothing stored", err)
		}
	})
	t.Run("root key service away", func(t *testing.T) {
		store := new(keyStore)
		away := &awayRoot{RootKey: root}
		s := mustOpen(t, away, store)
		away.err = context.DeadlineExceeded
		for name, err := range map[string]error{
			"RotateEpoch": s.RotateEpoch(t.Context()),
			"Reload":      s.Reload(t.Context()),
		} {
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, core.ErrSealBroken) {
				t.Errorf("%s: %v, want the service's error and no accusation", name, err)
			}
		}
		// Records need no root key.
		wantOpens(t, s, payloadPlace, mustSeal(t, s, payloadPlace, []byte(canary)), []byte(canary))
	})
	t.Run("root key without an id", func(t *testing.T) {
		for _, id := range []string{"", strings.Repeat("i", maxRootID+1)} {
			if _, err := Open(t.Context(), &awayRoot{RootKey: root, id: &id}, new(keyStore).handle(), Options{}); err == nil {
				t.Errorf("an id of %d bytes was accepted", len(id))
			}
		}
	})
	t.Run("no randomness", func(t *testing.T) {
		for n := range sealIDSize + keySize + keySize {
			store := new(keyStore)
			_, err := Open(t.Context(), root, store.handle(), Options{random: strings.NewReader(strings.Repeat("r", n))})
			if err == nil || store.wrapped != nil {
				t.Fatalf("with %d random bytes: %v, and a key set was stored: %t", n, err, store.wrapped != nil)
			}
		}
		s := newSealer(t)
		s.random = strings.NewReader("short")
		if sealed, err := s.Seal(payloadPlace, []byte(canary)); err == nil || sealed != nil {
			t.Errorf("sealed %d bytes without a whole nonce, %v", len(sealed), err)
		}
	})
}

// awayRoot is a root key that can be made to fail, or to have another id.
type awayRoot struct {
	RootKey
	err error
	id  *string
}

func (r *awayRoot) ID() string {
	if r.id != nil {
		return *r.id
	}
	return r.RootKey.ID()
}

func (r *awayRoot) Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.RootKey.Wrap(ctx, plaintext, aad)
}

func (r *awayRoot) Unwrap(ctx context.Context, ciphertext, aad []byte) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.RootKey.Unwrap(ctx, ciphertext, aad)
}

// Rotations of one process take turns: each starts from what the one before
// stored, so that none is lost.
func TestConcurrentRotations(t *testing.T) {
	const goroutines, each = 4, 25
	root, store := testRoot(t), new(keyStore)
	handle := store.handle()
	handle.beforeStore = runtime.Gosched // let the others in between loading and storing
	s, err := Open(t.Context(), root, handle, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var workers sync.WaitGroup
	for range goroutines {
		workers.Go(func() {
			for range each {
				if err := errors.Join(s.RotateEpoch(t.Context()), s.Reload(t.Context())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	for name, s := range map[string]*Sealer{"in use": s, "stored": mustOpen(t, root, store)} {
		if got, want := len(s.Epochs()), goroutines*each+1; got != want {
			t.Errorf("%s: %d epochs, want %d", name, got, want)
		}
	}
}

// Sealing and opening go on while epochs are rotated and reloaded; run it with
// the race detector.
func TestConcurrent(t *testing.T) {
	const writers, rotations, least = 4, 20, 50
	s := newSealer(t)
	first := mustSeal(t, s, payloadPlace, []byte(canary))
	done := make(chan struct{})
	var workers sync.WaitGroup
	for w := range writers {
		workers.Go(func() {
			place := core.Place{Key: fmt.Sprintf("k/%d", w), Version: uint64(w)}
			for n := 0; ; n++ {
				select {
				case <-done:
					if n >= least {
						return
					}
				default:
				}
				plaintext := fmt.Appendf(nil, "%s %d %d", canary, w, n)
				sealed, err := s.Seal(place, plaintext)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := s.Open(place, sealed)
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("opened to %q, %v", got, err)
					return
				}
				if _, err := s.Open(payloadPlace, first); err != nil {
					t.Error(err)
					return
				}
				s.NeedsReseal(sealed)
				s.Derive("x")
				s.Epochs()
			}
		})
	}
	for range rotations {
		if err := errors.Join(s.RotateEpoch(t.Context()), s.Reload(t.Context())); err != nil {
			t.Error(err)
		}
	}
	close(done)
	workers.Wait()
	if got := len(s.Epochs()); got != rotations+1 {
		t.Errorf("%d epochs, want %d", got, rotations+1)
	}
}

package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// keyStore holds a wrapped key set as a store would; each process has a handle
// of its own.
type keyStore struct {
	mu       sync.Mutex
	wrapped  []byte
	revision core.Revision
	loads    int
}

// keyHandle implements core.SealKeys: a store succeeds only over what this
// handle loaded last, as the wiring's precondition has it.
type keyHandle struct {
	store  *keyStore
	loaded core.Revision

	beforeStore func() // when set, called before each store
	failStore   error  // when set, what each store answers
}

func (h *keyHandle) LoadSealKeys(context.Context) ([]byte, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	h.store.loads++
	h.loaded = h.store.revision
	if h.store.wrapped == nil {
		return nil, core.ErrNotFound
	}
	return bytes.Clone(h.store.wrapped), nil
}

func (h *keyHandle) StoreSealKeys(_ context.Context, wrapped []byte) error {
	if h.beforeStore != nil {
		h.beforeStore()
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if h.failStore != nil {
		return h.failStore
	}
	if h.loaded != h.store.revision {
		return &core.PreconditionError{Failed: []core.Precondition{{Condition: core.AtRevision, Key: "seal", Revision: h.loaded}}}
	}
	h.store.revision++
	h.loaded = h.store.revision
	h.store.wrapped = bytes.Clone(wrapped)
	return nil
}

func (s *keyStore) handle() *keyHandle { return &keyHandle{store: s} }

// testRootBytes are the key of testRoot.
var testRootBytes = bytes.Repeat([]byte{0x5A}, keySize)

func testRoot(t testing.TB) *FileRootKey {
	t.Helper()
	root, err := newFileRootKey(testRootBytes, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func fixedNow() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func mustOpen(t testing.TB, root RootKey, store *keyStore) *Sealer {
	t.Helper()
	s, err := Open(t.Context(), root, store.handle(), Options{Now: fixedNow})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newSealer(t testing.TB) *Sealer {
	t.Helper()
	return mustOpen(t, testRoot(t), new(keyStore))
}

func mustSeal(t testing.TB, s *Sealer, place core.Place, plaintext []byte) []byte {
	t.Helper()
	sealed, err := s.Seal(place, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// wantOpens fails unless the record opens at place to plaintext.
func wantOpens(t testing.TB, s *Sealer, place core.Place, sealed, plaintext []byte) {
	t.Helper()
	got, err := s.Open(place, sealed)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if !bytes.Equal(got, plaintext) {
		t.Fatalf("Open returned %d bytes that differ from the %d that were sealed", len(got), len(plaintext))
	}
}

// fixedRandom is the same stream every time. It is for one goroutine.
func fixedRandom() io.Reader {
	var seed [32]byte
	copy(seed[:], "credstore golden vectors")
	return mathrand.NewChaCha8(seed)
}

// fixedSealer has the same keys every time, as fuzzing needs: each of its
// processes makes one, and they hand each other their inputs.
func fixedSealer(t testing.TB, store *keyStore) *Sealer {
	t.Helper()
	root, err := newFileRootKey(testRootBytes, fixedRandom())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), root, store.handle(), Options{Now: fixedNow, random: fixedRandom()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// full tells whether the long checks run at full length.
func full() bool { return os.Getenv("CREDSTORE_FAULTS") == "full" }

func writeFile(t testing.TB, content []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask took some away
		t.Fatal(err)
	}
	return path
}

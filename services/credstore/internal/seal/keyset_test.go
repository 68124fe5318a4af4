package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func TestWrongRootKey(t *testing.T) {
	store := new(keyStore)
	right := testRoot(t)
	mustOpen(t, right, store)
	wrongBytes := bytes.Repeat([]byte{0xA5}, keySize)
	wrong, err := newFileRootKey(wrongBytes, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	_, err = Open(t.Context(), wrong, store.handle(), Options{})
	if !errors.Is(err, ErrWrongRootKey) {
		t.Fatalf("got %v, want ErrWrongRootKey", err)
	}
	var typed *WrongRootKeyError
	if !errors.As(err, &typed) {
		t.Fatalf("got %T, want a *WrongRootKeyError", err)
	}
	if diff := cmp.Diff(&WrongRootKeyError{Sealed: right.ID(), Given: wrong.ID()}, typed); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, id := range []string{right.ID(), wrong.ID()} {
		if !strings.Contains(err.Error(), id) {
			t.Errorf("the error does not name %s: %v", id, err)
		}
	}
	for _, key := range [][]byte{testRootBytes, wrongBytes} {
		for _, text := range []string{string(key[:8]), hex.EncodeToString(key[:4]), base64.StdEncoding.EncodeToString(key[:6])} {
			if strings.Contains(err.Error(), text) {
				t.Errorf("the error holds key bytes: %v", err)
			}
		}
	}

	// Putting the other id into the stored set does not make the key fit.
	forged := bytes.Replace(store.wrapped, []byte(right.ID()), []byte(wrong.ID()), 1)
	if _, err := Open(t.Context(), wrong, (&keyStore{wrapped: forged}).handle(), Options{}); !errors.Is(err, core.ErrSealBroken) {
		t.Errorf("forged id: %v, want ErrSealBroken", err)
	}
}

// A stored key set with any bit changed, or cut anywhere, is refused, and
// nothing new is made in its place.
func TestAlteredKeySet(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	s := mustOpen(t, root, store)
	whole := bytes.Clone(store.wrapped)
	try := func(name string, at int, stored []byte) {
		t.Helper()
		altered := &keyStore{wrapped: stored, revision: 1}
		_, err := Open(t.Context(), root, altered.handle(), Options{})
		if !errors.Is(err, core.ErrSealBroken) && !errors.Is(err, ErrWrongRootKey) {
			t.Fatalf("%s at %d: %v", name, at, err)
		}
		if altered.revision != 1 {
			t.Fatalf("%s at %d: a new key set was stored over the old one", name, at)
		}
	}
	for bit := range 8 * len(whole) {
		flipped := bytes.Clone(whole)
		flipped[bit/8] ^= 1 << (bit % 8)
		try("bit flipped", bit, flipped)
	}
	for n := range whole {
		try("cut", n, whole[:n:n])
	}
	try("extended", len(whole), append(bytes.Clone(whole), 0))
	try("endless", maxWrappedSet, append(bytes.Clone(whole), make([]byte, maxWrappedSet)...))

	store.wrapped = whole
	if again := mustOpen(t, root, store); again.ID() != s.ID() {
		t.Error("the unaltered key set does not open to the same seal")
	}
}

func TestDecodeKeySet(t *testing.T) {
	_, set, err := newKeySet(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := set.addEpoch(rand.Reader, fixedNow()); err != nil {
			t.Fatal(err)
		}
	}
	good := set.encode()
	got, err := decodeKeySet(good)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.encode(), good) {
		t.Error("decoding and encoding again changed the key set")
	}

	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	for name, b := range map[string][]byte{
		"empty":            nil,
		"secret only":      good[:keySize],
		"no epoch":         change(keySize, 0, 0, 0, 0)[:keySetPrelude],
		"count too small":  change(keySize, 0, 0, 0, 2),
		"count too large":  change(keySize, 0, 0, 0, 4),
		"count enormous":   change(keySize, 0xFF, 0xFF, 0xFF, 0xFF),
		"cut":              good[:len(good)-1],
		"extended":         append(bytes.Clone(good), 0),
		"epoch zero":       change(keySetPrelude, 0, 0, 0, 0),
		"epoch repeated":   change(keySetPrelude+epochSize, 0, 0, 0, 1),
		"epochs backwards": change(keySetPrelude+epochSize, 0, 0, 0, 9),
	} {
		if _, err := decodeKeySet(b); !errors.Is(err, errKeySetMalformed) {
			t.Errorf("%s: %v, want errKeySetMalformed", name, err)
		}
	}
}

func TestNewerKeySetFormat(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	mustOpen(t, root, store)
	store.wrapped[1] = keySetFormat + 1
	if _, err := Open(t.Context(), root, store.handle(), Options{}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v, want an error that names the fix", err)
	}
}

func TestKeySetIsErased(t *testing.T) {
	_, set, err := newKeySet(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.addEpoch(rand.Reader, fixedNow()); err != nil {
		t.Fatal(err)
	}
	ring, err := newKeyring(set)
	if err != nil {
		t.Fatal(err)
	}
	set.erase()
	if zero := make([]byte, keySize); !bytes.Equal(set.secret(), zero) || !bytes.Equal(set.epochs[0].key(), zero) {
		t.Error("key bytes are left after erase")
	}
	if bytes.Equal(ring.secret(), make([]byte, keySize)) {
		t.Error("the keyring shares memory with the key set it was made from")
	}
}

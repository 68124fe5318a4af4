package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

var payloadPlace = core.Place{Key: "p/7/c/bot/v/3", UID: "uid-of-bot", Version: 3}

const canary = "CANARY-correct-horse-battery-staple"

func TestRoundTrip(t *testing.T) {
	s := newSealer(t)
	for _, size := range []int{0, 1, 15, 16, 17, 1000, 256 << 10, 8 << 20} {
		plaintext := bytes.Repeat([]byte{0xA7}, size)
		sealed := mustSeal(t, s, payloadPlace, plaintext)
		if len(sealed) != size+Overhead {
			t.Errorf("%d bytes sealed to %d, want %d", size, len(sealed), size+Overhead)
		}
		wantOpens(t, s, payloadPlace, sealed, plaintext)
	}
}

func TestSealIsNeverTheSameTwice(t *testing.T) {
	s := newSealer(t)
	seen := map[string]bool{}
	for range 1000 {
		sealed := mustSeal(t, s, payloadPlace, []byte(canary))
		nonce := string(sealed[headerSize : headerSize+nonceSize])
		if seen[nonce] {
			t.Fatal("a nonce was used twice")
		}
		seen[nonce] = true
	}
}

func TestArgumentsAreNotKept(t *testing.T) {
	s := newSealer(t)
	plaintext := []byte(canary)
	sealed := mustSeal(t, s, payloadPlace, plaintext)
	clear(plaintext)
	before := bytes.Clone(sealed)
	got, err := s.Open(payloadPlace, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sealed, before) {
		t.Error("Open changed the sealed bytes")
	}
	clear(sealed)
	if string(got) != canary {
		t.Error("the plaintext shares memory with an argument")
	}
}

// A record opens at its own place and at no other.
func TestBoundToPlace(t *testing.T) {
	s := newSealer(t)
	at := func(key, uid string, version uint64) core.Place {
		return core.Place{Key: key, UID: uid, Version: version}
	}
	for _, tt := range []struct {
		name          string
		sealed, tried core.Place
	}{
		{"another key", at("a", "u", 1), at("b", "u", 1)},
		{"another uid", at("a", "u", 1), at("a", "w", 1)},
		{"no uid", at("a", "u", 1), at("a", "", 1)},
		{"a uid where none was", at("a", "", 1), at("a", "u", 1)},
		{"another version", at("a", "u", 1), at("a", "u", 2)},
		{"no version", at("a", "u", 1), at("a", "u", 0)},
		{"version beyond 32 bits", at("a", "u", 1), at("a", "u", 1<<32+1)},
		{"key and uid swapped", at("a", "u", 1), at("u", "a", 1)},
		{"border of key and uid moved right", at("ab", "c", 1), at("abc", "", 1)},
		{"border of key and uid moved left", at("ab", "c", 1), at("a", "bc", 1)},
		{"length of the uid inside the key", at("a\x00\x00\x00\x01u", "", 1), at("a", "u", 1)},
		{"prefix", at("p/1/c/bot", "", 0), at("p/1/c/bo", "", 0)},
		{"trailing zero byte", at("a", "u", 1), at("a\x00", "u", 1)},
		{"case", at("a", "u", 1), at("A", "u", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sealed := mustSeal(t, s, tt.sealed, []byte(canary))
			wantOpens(t, s, tt.sealed, sealed, []byte(canary))
			wantBroken(t, s, tt.tried, sealed)
		})
	}
}

// wantBroken fails unless the record does not open, with the right error, that
// says nothing about the content.
func wantBroken(t testing.TB, s *Sealer, place core.Place, sealed []byte) {
	t.Helper()
	got, err := s.Open(place, sealed)
	if got != nil {
		t.Fatalf("Open returned %d bytes beside the error %v", len(got), err)
	}
	if !errors.Is(err, core.ErrSealBroken) {
		t.Fatalf("Open: %v, want an error that wraps ErrSealBroken", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("%q", place.Key)) {
		t.Fatalf("the error does not name the place: %v", err)
	}
	wantNoContent(t, err, sealed)
}

// wantNoContent fails when the error holds the canary or a piece of the sealed
// bytes, raw or encoded.
func wantNoContent(t testing.TB, err error, sealed []byte) {
	t.Helper()
	texts := map[string]string{"the plaintext": canary}
	if n := len(sealed); n >= Overhead {
		piece := sealed[n-tagSize:]
		texts["sealed bytes"] = string(piece)
		texts["sealed bytes in hex"] = hex.EncodeToString(piece[:8])
		texts["sealed bytes in base64"] = base64.RawStdEncoding.EncodeToString(piece[:9])
	}
	for what, text := range texts {
		if strings.Contains(err.Error(), text) {
			t.Fatalf("the error holds %s: %v", what, err)
		}
	}
}

// Every bit of an envelope matters.
func TestEveryBitFlipped(t *testing.T) {
	s := newSealer(t)
	for _, tt := range []struct{ size, stride int }{
		{0, 1},
		{len(canary), 1},
		{64 << 10, 4099}, // a prime, so that every bit position and offset class is met
	} {
		t.Run(fmt.Sprint(tt.size), func(t *testing.T) {
			stride := tt.stride
			if full() {
				stride = 1
			}
			plaintext := bytes.Repeat([]byte(canary), tt.size/len(canary)+1)[:tt.size]
			sealed := mustSeal(t, s, payloadPlace, plaintext)
			for bit := 0; bit < 8*len(sealed); bit += stride {
				sealed[bit/8] ^= 1 << (bit % 8)
				if _, err := s.Open(payloadPlace, sealed); !errors.Is(err, core.ErrSealBroken) {
					t.Fatalf("bit %d of byte %d flipped: %v", bit%8, bit/8, err)
				} else if bit < 8*(Overhead+8) {
					wantNoContent(t, err, sealed)
				}
				sealed[bit/8] ^= 1 << (bit % 8)
			}
			wantOpens(t, s, payloadPlace, sealed, plaintext)
		})
	}
}

func TestTruncatedAndExtended(t *testing.T) {
	s := newSealer(t)
	sealed := mustSeal(t, s, payloadPlace, []byte(canary))
	for n := range len(sealed) {
		wantBroken(t, s, payloadPlace, sealed[:n])
		wantBroken(t, s, payloadPlace, sealed[len(sealed)-n:])
	}
	for n := 1; n <= 2*tagSize; n++ {
		wantBroken(t, s, payloadPlace, append(bytes.Clone(sealed), make([]byte, n)...))
	}
	wantBroken(t, s, payloadPlace, append(bytes.Clone(sealed), sealed...))
	wantBroken(t, s, payloadPlace, nil)
}

func TestReasons(t *testing.T) {
	s := newSealer(t)
	sealed := mustSeal(t, s, payloadPlace, []byte(canary))
	change := func(at int, to byte) []byte {
		b := bytes.Clone(sealed)
		b[at] = to
		return b
	}
	for _, tt := range []struct {
		name   string
		sealed []byte
		want   error
	}{
		{"empty", nil, errTooShort},
		{"not sealed", change(0, '{'), errNotSealed},
		{"newer format", change(1, envelopeFormat+1), errUnknownFormat},
		{"unknown epoch", change(5, 9), ErrUnknownEpoch},
		{"too long", append(bytes.Clone(sealed), make([]byte, MaxPlaintext)...), errTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.Open(payloadPlace, tt.sealed); !errors.Is(err, tt.want) || !errors.Is(err, core.ErrSealBroken) {
				t.Errorf("got %v, want %v and ErrSealBroken", err, tt.want)
			}
		})
	}
}

func TestBadArguments(t *testing.T) {
	s := newSealer(t)
	long := strings.Repeat("k", maxPart+1)
	for _, place := range []core.Place{{UID: "u"}, {Key: long}, {Key: "k", UID: long}} {
		if _, err := s.Seal(place, nil); err == nil || !strings.Contains(err.Error(), "place.") {
			t.Errorf("Seal: %v, want an error that names the field", err)
		}
		if _, err := s.Open(place, nil); err == nil || errors.Is(err, core.ErrSealBroken) {
			t.Errorf("Open: %v, want an error that is not ErrSealBroken", err)
		}
	}
	if _, err := s.Seal(payloadPlace, make([]byte, MaxPlaintext+1)); err == nil {
		t.Error("a plaintext beyond MaxPlaintext was sealed")
	}
	if _, err := s.Seal(core.Place{Key: long[1:], UID: long[1:]}, nil); err != nil {
		t.Errorf("the longest parts were refused: %v", err)
	}
}

// A record under the same keys but another seal id does not open: a copied key
// set is not enough to move records between stores.
func TestForeignSealID(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	ours := mustOpen(t, root, store)
	sealed := mustSeal(t, ours, payloadPlace, []byte(canary))

	id, set, err := unwrapKeySet(t.Context(), root, store.wrapped)
	if err != nil {
		t.Fatal(err)
	}
	id[0] ^= 1
	wrapped, err := wrapKeySet(t.Context(), root, id, set)
	if err != nil {
		t.Fatal(err)
	}
	theirs := mustOpen(t, root, &keyStore{wrapped: wrapped})
	if ours.ID() == theirs.ID() {
		t.Fatal("both have one seal id")
	}
	wantBroken(t, theirs, payloadPlace, sealed)

	// The running sealer does not take the foreign set either.
	store.wrapped = wrapped
	for name, change := range map[string]func() error{
		"Reload":      func() error { return ours.Reload(t.Context()) },
		"RotateEpoch": func() error { return ours.RotateEpoch(t.Context()) },
	} {
		if err := change(); !errors.Is(err, core.ErrSealBroken) || !strings.Contains(err.Error(), "seal id") {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantOpens(t, ours, payloadPlace, sealed, []byte(canary))
}

// Two stores share nothing, not even under one root key.
func TestStoresAreUnrelated(t *testing.T) {
	root := testRoot(t)
	a, b := mustOpen(t, root, new(keyStore)), mustOpen(t, root, new(keyStore))
	wantBroken(t, b, payloadPlace, mustSeal(t, a, payloadPlace, []byte(canary)))
	if a.ID() == b.ID() {
		t.Error("two stores have one seal id")
	}
	if bytes.Equal(a.Derive("x"), b.Derive("x")) {
		t.Error("two stores derive the same key")
	}
}

// Neither plaintext nor any key is in what is stored.
func TestStoredBytesHideEverything(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	s := mustOpen(t, root, store)
	if err := s.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	plaintext := bytes.Repeat([]byte(canary), 100)
	stored := append(mustSeal(t, s, payloadPlace, plaintext), store.wrapped...)

	_, set, err := unwrapKeySet(t.Context(), root, store.wrapped)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"the plaintext":         []byte(canary),
		"the derivation secret": set.secret(),
		"a derived key":         s.Derive("x"),
		"the root key":          testRootBytes,
	}
	for _, e := range set.epochs {
		secrets[fmt.Sprintf("epoch key %d", e.ID)] = e.key()
	}
	if len(secrets) != 6 {
		t.Fatalf("%d secrets to look for, want 6", len(secrets))
	}
	// Eight bytes of a secret are enough to be no accident.
	for what, secret := range secrets {
		for i := 0; i+8 <= len(secret); i++ {
			if bytes.Contains(stored, secret[i:i+8]) {
				t.Errorf("the stored bytes hold %s from byte %d", what, i)
				break
			}
		}
	}
	if err := errors.Join(checkAbsent(stored, payloadPlace.Key), checkAbsent(stored, payloadPlace.UID)); err != nil {
		t.Error(err)
	}
}

func checkAbsent(stored []byte, text string) error {
	if bytes.Contains(stored, []byte(text)) {
		return fmt.Errorf("the stored bytes hold %q", text)
	}
	return nil
}

// What Open allocates is bounded by what it is given, whatever that says.
func TestOpenAllocatesByInputOnly(t *testing.T) {
	s := newSealer(t)
	const rounds, fixed = 50, 4 << 10
	for _, size := range []int{0, Overhead - 1, Overhead, 1 << 10, 1 << 20} {
		garbage := append(appendHeader(nil, 1), bytes.Repeat([]byte{0xFF}, size)...)[:size]
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			if _, err := s.Open(payloadPlace, garbage); err == nil {
				t.Fatal("garbage opened")
			}
		}
		runtime.ReadMemStats(&after)
		if got, most := (after.TotalAlloc-before.TotalAlloc)/rounds, uint64(size+size/8+fixed); got > most {
			t.Errorf("%d bytes made Open allocate %d, want at most %d", size, got, most)
		}
	}
}

func TestDerive(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	s := mustOpen(t, root, store)
	digests, pages := s.Derive("item digests"), s.Derive("page tokens")
	if len(digests) != 32 || bytes.Equal(digests, pages) {
		t.Error("two purposes need two keys of 32 bytes")
	}
	if bytes.Equal(s.Derive(""), s.Derive("x")) {
		t.Error("the empty purpose has the key of another")
	}

	// It is HKDF as the standard library has it.
	_, set, err := unwrapKeySet(t.Context(), root, store.wrapped)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hkdf.Expand(sha256.New, set.secret(), derivePurpose+"item digests", 32)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, digests); diff != "" {
		t.Errorf("not HKDF-Expand (-want +got):\n%s", diff)
	}

	// It survives rotation, a restart, and a caller that changes its copy.
	clear(s.Derive("item digests"))
	if err := s.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, again := range map[string]*Sealer{"rotated": s, "reopened": mustOpen(t, root, store)} {
		if !bytes.Equal(again.Derive("item digests"), digests) {
			t.Errorf("%s: the key has changed", name)
		}
	}
}

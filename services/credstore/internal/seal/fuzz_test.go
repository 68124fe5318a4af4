package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// No bytes but those that Seal returned open, and none make Open panic.
func FuzzOpen(f *testing.F) {
	s := fixedSealer(f, new(keyStore))
	if err := s.RotateEpoch(f.Context()); err != nil {
		f.Fatal(err)
	}
	sealed := mustSeal(f, s, payloadPlace, []byte(canary))
	f.Add(sealed, payloadPlace.Key, payloadPlace.UID, payloadPlace.Version)
	f.Add(sealed[:Overhead], "k", "", uint64(0))
	f.Add(sealed[:headerSize], "", "", uint64(0))
	f.Add([]byte{}, "k", "u", uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, k, uid string, version uint64) {
		place := core.Place{Key: k, UID: uid, Version: version}
		plaintext, err := s.Open(place, b)
		switch {
		case err == nil:
			if place != payloadPlace || !bytes.Equal(b, sealed) {
				t.Fatal("bytes that were never sealed for this place opened")
			}
		case plaintext != nil:
			t.Fatal("a plaintext came with an error")
		case place.Key != "" && len(k) <= maxPart && len(uid) <= maxPart && !errors.Is(err, core.ErrSealBroken):
			t.Fatalf("not ErrSealBroken: %v", err)
		case !repeats(place, b):
			wantNoContent(t, err, b)
		}
		s.NeedsReseal(b)

		// The same bytes under a right header, so that the tag is reached.
		headed := append(appendHeader(nil, 2), b...)
		if _, err := s.Open(payloadPlace, headed); err == nil && !bytes.Equal(headed, sealed) {
			t.Fatal("bytes that were never sealed opened")
		}
	})
}

// repeats says whether the place, which errors quote, holds a part of what was
// sealed, as only a fuzzer makes it.
func repeats(place core.Place, sealed []byte) bool {
	const part = 8
	quoted := fmt.Sprintf("%q %q", place.Key, place.UID)
	if strings.Contains(quoted, canary) {
		return true
	}
	if len(sealed) >= Overhead { // in the forms that wantNoContent looks for
		tag := sealed[len(sealed)-tagSize:]
		if strings.Contains(quoted, hex.EncodeToString(tag[:8])) || strings.Contains(quoted, base64.RawStdEncoding.EncodeToString(tag[:9])) {
			return true
		}
	}
	for i := 0; i+part <= len(sealed); i++ {
		if strings.Contains(quoted, string(sealed[i:i+part])) {
			return true
		}
	}
	return false
}

// Whatever is sealed opens again, to the same, at its place.
func FuzzRoundTrip(f *testing.F) {
	s := newSealer(f)
	f.Add([]byte(canary), "k", "u", uint64(1), "k", "", uint64(1))
	f.Add([]byte{}, "ab", "c", uint64(0), "a", "bc", uint64(0))
	f.Fuzz(func(t *testing.T, plaintext []byte, k, uid string, version uint64, k2, uid2 string, version2 uint64) {
		here, there := core.Place{Key: k, UID: uid, Version: version}, core.Place{Key: k2, UID: uid2, Version: version2}
		if checkPlace(here) != nil || checkPlace(there) != nil {
			return
		}
		sealed := mustSeal(t, s, here, plaintext)
		wantOpens(t, s, here, sealed, plaintext)
		if _, err := s.Open(there, sealed); (err == nil) != (here == there) {
			t.Fatalf("sealed for %+v, tried at %+v: %v", here, there, err)
		}
	})
}

// Only what formatRootKey writes is accepted, with or without its last line
// end.
func FuzzParseRootKey(f *testing.F) {
	good := formatRootKey(testRootBytes)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")))
	f.Add([]byte(rootFileHeader))
	f.Add([]byte(rootFileHeader + "\nid: \nkey: \nchecksum: "))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseRootKey(text)
		if err != nil {
			if !errors.Is(err, ErrRootKeyFile) || k != nil {
				t.Fatalf("%v, want ErrRootKeyFile", err)
			}
			return
		}
		want := formatRootKey(k)
		if !bytes.Equal(text, want) && !bytes.Equal(text, want[:len(want)-1]) {
			t.Fatal("a text was accepted that is never written")
		}
	})
}

// The lines of a root key file under a right checksum, where the fuzzer could
// not get by itself.
func FuzzParseRootKeyLines(f *testing.F) {
	good := formatRootKey(testRootBytes)
	body := good[len(rootFileHeader)+1 : bytes.Index(good, []byte("checksum: "))]
	f.Add(body)
	f.Add([]byte("id: \nkey: \n"))
	f.Add([]byte("id: x\nid: x\nkey: AAAA\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		text := append([]byte(rootFileHeader+"\n"), body...)
		text = append(text, "checksum: "+rootFileChecksum(text)+"\n"...)
		k, err := parseRootKey(text)
		if err != nil {
			if !errors.Is(err, ErrRootKeyFile) || k != nil {
				t.Fatalf("%v, want ErrRootKeyFile", err)
			}
			return
		}
		if !bytes.Equal(text, formatRootKey(k)) {
			t.Fatal("a text was accepted that is never written")
		}
	})
}

// A stored key set and its plaintext, as far as they are read before and after
// the root key has said that they are genuine.
func FuzzParseKeySet(f *testing.F) {
	store := new(keyStore)
	s := fixedSealer(f, store)
	_, set, err := unwrapKeySet(f.Context(), s.root, store.wrapped)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(store.wrapped)
	f.Add(set.encode())
	f.Add([]byte{keySetMagic, keySetFormat, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStoredKeySet(b); err == nil {
			if !bytes.Equal(append(bytes.Clone(s.header), s.wrapped...), b) {
				t.Fatal("a part of the stored key set was lost")
			}
			if s.rootID == "" {
				t.Fatal("a stored key set without a root key id was accepted")
			}
		}
		if set, err := decodeKeySet(b); err == nil && !bytes.Equal(set.encode(), b) {
			t.Fatal("a key set was accepted that is never written")
		}
	})
}

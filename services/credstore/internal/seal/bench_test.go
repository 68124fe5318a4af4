package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

var benchSizes = []struct {
	name string
	size int
}{{"64B", 64}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}}

var benchPlace = core.Place{
	Key:     "v/0f8fad5b-d9cb-469f-a165-70867728950e/credentials/registry-bot/3",
	UID:     "7c9e6679-7425-40de-944b-e07fc1f90ae7",
	Version: 3,
}

// An envelope beside its floor and the envelope that was not chosen:
//
//   - bare: AES-256-GCM with one cipher object, one buffer, a counted nonce
//   - wrapped: a random data key per record, itself wrapped by AES-256-GCM
func BenchmarkSeal(b *testing.B) {
	s, gcm := newSealer(b), bareGCM(b)
	for _, bs := range benchSizes {
		plaintext := make([]byte, bs.size)
		b.Run(bs.name+"/bare", func(b *testing.B) {
			out, nonce, aad := make([]byte, 0, bs.size+tagSize), make([]byte, 12), recordAAD(make([]byte, headerSize), s.id, benchPlace)
			start(b, bs.size)
			for n := uint64(0); b.Loop(); n++ {
				binary.BigEndian.PutUint64(nonce, n)
				gcm.Seal(out, nonce, plaintext, aad)
			}
		})
		b.Run(bs.name+"/envelope", func(b *testing.B) {
			start(b, bs.size)
			for b.Loop() {
				mustSeal(b, s, benchPlace, plaintext)
			}
		})
		b.Run(bs.name+"/wrapped", func(b *testing.B) {
			start(b, bs.size)
			for b.Loop() {
				sealWrapped(b, gcm, s.id, plaintext)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	s, gcm := newSealer(b), bareGCM(b)
	for _, bs := range benchSizes {
		plaintext := make([]byte, bs.size)
		b.Run(bs.name+"/bare", func(b *testing.B) {
			out, nonce, aad := make([]byte, 0, bs.size), make([]byte, 12), recordAAD(make([]byte, headerSize), s.id, benchPlace)
			box := gcm.Seal(nil, nonce, plaintext, aad)
			start(b, bs.size)
			for b.Loop() {
				if _, err := gcm.Open(out, nonce, box, aad); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bs.name+"/envelope", func(b *testing.B) {
			sealed := mustSeal(b, s, benchPlace, plaintext)
			start(b, bs.size)
			for b.Loop() {
				if _, err := s.Open(benchPlace, sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bs.name+"/wrapped", func(b *testing.B) {
			sealed := sealWrapped(b, gcm, s.id, plaintext)
			start(b, bs.size)
			for b.Loop() {
				openWrapped(b, gcm, s.id, sealed)
			}
		})
	}
}

// All processors seal and open 1 KiB with one Sealer.
func BenchmarkParallel(b *testing.B) {
	s := newSealer(b)
	plaintext := make([]byte, 1<<10)
	sealed := mustSeal(b, s, benchPlace, plaintext)
	b.Run("Seal", func(b *testing.B) {
		start(b, len(plaintext))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Seal(benchPlace, plaintext); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("Open", func(b *testing.B) {
		start(b, len(plaintext))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Open(benchPlace, sealed); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func start(b *testing.B, size int) {
	b.Helper()
	b.SetBytes(int64(size))
	b.ReportAllocs()
}

func bareGCM(b *testing.B) cipher.AEAD {
	b.Helper()
	return gcmOf(b, testRootBytes)
}

func gcmOf(b *testing.B, k []byte) cipher.AEAD {
	b.Helper()
	block, err := aes.NewCipher(k)
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return gcm
}

// wrappedPrefix is header ‖ nonce ‖ wrapped data key with its tag. The data key
// is used once, so its own nonce is zero.
const wrappedPrefix = headerSize + 12 + keySize + tagSize

func sealWrapped(b *testing.B, epoch cipher.AEAD, id sealID, plaintext []byte) []byte {
	b.Helper()
	out := appendHeader(make([]byte, 0, wrappedPrefix+len(plaintext)+tagSize), 1)[:headerSize+12]
	random := make([]byte, keySize+12)
	if _, err := rand.Read(random); err != nil {
		b.Fatal(err)
	}
	copy(out[headerSize:], random[keySize:])
	header := out[:headerSize]
	out = epoch.Seal(out, out[headerSize:], random[:keySize], header)
	return gcmOf(b, random[:keySize]).Seal(out, make([]byte, 12), plaintext, recordAAD(header, id, benchPlace))
}

func openWrapped(b *testing.B, epoch cipher.AEAD, id sealID, sealed []byte) {
	b.Helper()
	header := sealed[:headerSize]
	k, err := epoch.Open(nil, sealed[headerSize:headerSize+12], sealed[headerSize+12:wrappedPrefix], header)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := gcmOf(b, k).Open(nil, make([]byte, 12), sealed[wrappedPrefix:], recordAAD(header, id, benchPlace)); err != nil {
		b.Fatal(err)
	}
}

package seal

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

var writeGolden = flag.Bool("write-golden", false, "write the golden vectors of the current format, where there are none yet")

// golden is one file of vectors: a whole store, with everything that made it.
type golden struct {
	RootKeyFile string            `json:"rootKeyFile"`
	RootKeyID   string            `json:"rootKeyId"`
	SealID      string            `json:"sealId"`
	KeySet      string            `json:"keySet"` // hex
	Epochs      []Epoch           `json:"epochs"`
	Derived     map[string]string `json:"derived"` // purpose to hex
	Records     []goldenRecord    `json:"records"`
}

type goldenRecord struct {
	Key       string `json:"key"`
	UID       string `json:"uid"`
	Version   uint64 `json:"version"`
	Plaintext string `json:"plaintext"` // hex
	Sealed    string `json:"sealed"`    // hex
}

// makeGolden seals a small store with fixed keys, randomness and time.
func makeGolden(t *testing.T) golden {
	t.Helper()
	random := fixedRandom()

	path := filepath.Join(t.TempDir(), "root.key")
	root, err := createRootKeyFile(path, random)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	now, store := fixedNow(), new(keyStore)
	s, err := Open(t.Context(), root, store.handle(), Options{Now: func() time.Time { return now }, random: random})
	if err != nil {
		t.Fatal(err)
	}
	g := golden{RootKeyFile: string(text), RootKeyID: root.ID(), SealID: s.ID(), Derived: map[string]string{}}
	for range 2 {
		for i, place := range []core.Place{
			{Key: "p/1"},
			{Key: "c/1/registry-bot", UID: "0f8fad5b-d9cb-469f-a165-70867728950e"},
			{Key: "v/1/registry-bot/2", UID: "0f8fad5b-d9cb-469f-a165-70867728950e", Version: 2},
			{Key: "kéy \x00\xff", UID: "uid\n", Version: 1<<64 - 1},
		} {
			plaintext := []byte(fmt.Sprintf("record %d of the golden vectors", i))[:10*i]
			g.Records = append(g.Records, goldenRecord{
				// JSON has no bytes that are not UTF-8: keys and uids are in hex too.
				Key: hex.EncodeToString([]byte(place.Key)), UID: hex.EncodeToString([]byte(place.UID)), Version: place.Version,
				Plaintext: hex.EncodeToString(plaintext),
				Sealed:    hex.EncodeToString(mustSeal(t, s, place, plaintext)),
			})
		}
		now = now.Add(24 * time.Hour)
		if err := s.RotateEpoch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, purpose := range []string{"", "item digests", "page tokens"} {
		g.Derived[purpose] = hex.EncodeToString(s.Derive(purpose))
	}
	g.KeySet, g.Epochs = hex.EncodeToString(store.wrapped), s.Epochs()
	return g
}

// What the current code writes is what it wrote when the format was made. When
// this fails, existing stores are at risk: a change of format needs a new
// format number and a new file of vectors, and the code that opens the old one
// stays.
func TestGoldenVectorsAreReproduced(t *testing.T) {
	path := filepath.Join("testdata", fmt.Sprintf("format-%d.json", envelopeFormat))
	got := makeGolden(t)
	if *writeGolden {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			t.Fatalf("vectors are written once and never again: %v", err)
		}
		if _, err := f.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(readGolden(t, path), got); diff != "" {
		t.Errorf("the format has changed (-vectors +code):\n%s", diff)
	}
}

func readGolden(t *testing.T, path string) golden {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return g
}

// Every format that was ever written opens.
func TestGoldenVectorsOpen(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "format-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != envelopeFormat {
		t.Fatalf("%d files of vectors, want one of each of %d formats", len(paths), envelopeFormat)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			g := readGolden(t, path)
			root, err := LoadRootKeyFile(writeFile(t, []byte(g.RootKeyFile), 0o600))
			if err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, root, &keyStore{wrapped: unhex(t, g.KeySet)})
			if root.ID() != g.RootKeyID || s.ID() != g.SealID {
				t.Errorf("root key %s and seal %s, want %s and %s", root.ID(), s.ID(), g.RootKeyID, g.SealID)
			}
			if diff := cmp.Diff(g.Epochs, s.Epochs()); diff != "" {
				t.Errorf("epochs (-want +got):\n%s", diff)
			}
			for purpose, want := range g.Derived {
				if got := hex.EncodeToString(s.Derive(purpose)); got != want {
					t.Errorf("Derive(%q) is %s, want %s", purpose, got, want)
				}
			}
			for _, r := range g.Records {
				place := core.Place{Key: string(unhex(t, r.Key)), UID: string(unhex(t, r.UID)), Version: r.Version}
				wantOpens(t, s, place, unhex(t, r.Sealed), unhex(t, r.Plaintext))
			}
			if len(g.Records) == 0 || len(g.Derived) == 0 || len(g.Epochs) == 0 {
				t.Error("the file has no vectors")
			}
		})
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

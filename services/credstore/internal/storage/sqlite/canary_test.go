package sqlite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

var canary = regexp.MustCompile(`CANARY\d{8}END`)

// TestNothingLingers overwrites and deletes thousands of values of all sizes,
// each full of its own mark. After Close no file of the store holds a mark of a
// value that is no more. An ordinary table with secure_delete=ON leaves some,
// which is why records live in slots.
func TestNothingLingers(t *testing.T) {
	seeds := uint64(3)
	if full() {
		seeds = 30
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { nothingLingers(t, seed) })
	}
}

func nothingLingers(t *testing.T, seed uint64) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "credstore.db")
	live := map[string]bool{}
	// Without syncing, which changes nothing of what is written, and with
	// checkpoints often.
	store := fresh(t, Options{Path: path, HistoryCommits: 1000}, knobs{walPages: 500, synchronous: "OFF"})
	commit := func(c core.Change) error {
		_, err := store.Commit(t.Context(), core.Batch{Changes: []core.Change{c}})
		return err
	}
	traffic(12_000, seed, live,
		func(key string, value []byte) error { return commit(core.Change{Key: key, Value: value}) },
		func(key string) error { return commit(core.Change{Key: key, Delete: true}) },
		func(err error) { t.Fatal(err) })
	open := scanFiles(t, dir)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	closed := scanFiles(t, dir)
	for mark := range live {
		if !closed[mark] {
			t.Fatalf("%s is live and not in the file: the search finds nothing", mark)
		}
	}
	if n := len(closed) - len(live); n != 0 {
		t.Errorf("%d values that were overwritten or deleted are still in the file", n)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "credstore.db" && e.Name() != "credstore.db.lock" {
			t.Errorf("%s is left after Close", e.Name())
		}
	}
	checkIntegrity(t, path)
	t.Logf("%d live, %d more while the store was open", len(live), len(open)-len(live))
}

// TestCanarySeesWhatSecureDeleteLeaves is the negative control: the search
// finds what tables whose rows move leave behind, in spite of secure_delete.
func TestCanarySeesWhatSecureDeleteLeaves(t *testing.T) {
	lingering, written := 0, 0
	for seed := uint64(0); seed < 20 && lingering == 0; seed++ {
		live := map[string]bool{}
		for mark := range plainTable(t, seed, live) {
			if !live[mark] {
				lingering++
			}
		}
		written += 12_000
	}
	if lingering == 0 {
		t.Fatal("secure_delete alone left nothing: the slots could be given up, or this test sees nothing")
	}
	t.Logf("secure_delete alone leaves %d in about %d operations", lingering, written)
}

// plainTable sends the traffic to an ordinary table and returns the marks that
// are in its file afterwards.
func plainTable(t *testing.T, seed uint64, live map[string]bool) map[string]bool {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "plain.db")
	if err := createFile(path); err != nil {
		t.Fatal(err)
	}
	c, err := dial(dsn(path, writing, 0, "OFF"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec(`CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	put, err := c.prepare(`INSERT INTO kv VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`)
	if err != nil {
		t.Fatal(err)
	}
	del, err := c.prepare(`DELETE FROM kv WHERE key = ?`)
	if err != nil {
		t.Fatal(err)
	}
	traffic(12_000, seed, live,
		func(key string, value []byte) error { return put.run([]byte(key), value) },
		func(key string) error { return del.run([]byte(key)) },
		func(err error) { t.Fatal(err) })
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	return scanFiles(t, dir)
}

// traffic makes new keys, overwrites and deletes them, and keeps in live the
// marks of what is there.
func traffic(steps int, seed uint64, live map[string]bool, put func(string, []byte) error, del func(string) error, fatal func(error)) {
	r := rand.New(rand.NewPCG(seed, 2))
	var keys []string
	marks := map[string]string{}
	for i := range steps {
		var at int
		if len(keys) > 0 {
			at = r.IntN(len(keys))
		}
		// More is made than deleted until half-time, then the other way round.
		what := []int{0, 0, 1, 2}[r.IntN(4)]
		if i > steps/2 {
			what = []int{0, 1, 2, 2}[r.IntN(4)]
		}
		if len(keys) == 0 {
			what = 0
		}
		if what == 2 {
			key := keys[at]
			if err := del(key); err != nil {
				fatal(err)
			}
			delete(live, marks[key])
			delete(marks, key)
			keys[at] = keys[len(keys)-1]
			keys = keys[:len(keys)-1]
			continue
		}
		if what == 0 {
			keys = append(keys, fmt.Sprintf("key/%08x", r.Uint32()))
			at = len(keys) - 1
		}
		key := keys[at]
		mark := fmt.Sprintf("CANARY%08dEND", i)
		size := 1 + min(r.IntN(60), r.IntN(60))
		if r.IntN(50) == 0 {
			size = 1 + r.IntN(1500)
		}
		if err := put(key, bytes.Repeat([]byte(mark), size)); err != nil {
			fatal(err)
		}
		delete(live, marks[key])
		marks[key] = mark
		live[mark] = true
	}
}

// scanFiles returns the marks in all files of a directory.
func scanFiles(t *testing.T, dir string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range canary.FindAll(b, -1) {
			found[string(m)] = true
		}
	}
	return found
}

// TestWALIsTruncated: while the store is open, what was deleted goes with the
// next maintenance.
func TestWALIsTruncated(t *testing.T) {
	tick := make(chan timeTick)
	dir := t.TempDir()
	s := fresh(t, Options{Path: filepath.Join(dir, "credstore.db")}, knobs{tick: tick})
	mark := "CANARY00000001END"
	for _, c := range []core.Change{{Key: "k", Value: []byte(mark)}, {Key: "k", Delete: true}} {
		if _, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{c}}); err != nil {
			t.Fatal(err)
		}
	}
	if !scanFiles(t, dir)[mark] {
		t.Fatal("the log does not hold what was written: the test shows nothing")
	}
	tick <- timeTick{}
	tick <- timeTick{} // taken after the first was served
	if scanFiles(t, dir)[mark] {
		t.Fatal("the deleted value is still there after maintenance")
	}
}

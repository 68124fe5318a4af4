package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

type timeTick = time.Time

func TestDSN(t *testing.T) {
	for _, c := range []struct {
		name string
		path string
		role role
		want string
	}{
		{
			"writing", "/var/lib/credstore.db", writing,
			"file:/var/lib/credstore.db?_pragma=busy_timeout%285000%29&_pragma=trusted_schema%28OFF%29&_pragma=journal_mode%28WAL%29" +
				"&_pragma=synchronous%28FULL%29&_pragma=secure_delete%28ON%29&_pragma=temp_store%28MEMORY%29" +
				"&_pragma=cache_size%28-16384%29&_pragma=wal_autocheckpoint%280%29&_pragma=journal_size_limit%2867108864%29&mode=rw",
		},
		{
			"reading", "/a?b#c%d e.db", reading,
			"file:/a%3fb%23c%25d e.db?_pragma=busy_timeout%285000%29&_pragma=trusted_schema%28OFF%29&_pragma=query_only%28ON%29" +
				"&_pragma=temp_store%28MEMORY%29&_pragma=cache_size%28-4096%29&mode=ro",
		},
		{
			"probing", "/x.db", probing,
			"file:/x.db?_pragma=busy_timeout%285000%29&_pragma=trusted_schema%28OFF%29&_pragma=query_only%28ON%29&mode=ro",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, dsn(c.path, c.role, 5*time.Second, "FULL")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestSettings asks SQLite itself, for it ignores settings it does not know.
func TestSettings(t *testing.T) {
	s := fresh(t, Options{BusyTimeout: 1234 * time.Millisecond}, knobs{setup: func(c *conn) error {
		for pragma, want := range map[string]int64{
			"synchronous": 2, "secure_delete": 1, "temp_store": 2, "busy_timeout": 1234, "cache_size": -16384,
			"wal_autocheckpoint": 0, "trusted_schema": 0, "query_only": 0,
			"application_id": applicationID, "user_version": 1,
		} {
			var got int64
			if err := c.one("PRAGMA "+pragma, &got); err != nil || got != want {
				t.Errorf("PRAGMA %s = %d, %v, want %d", pragma, got, err, want)
			}
		}
		return nil
	}})
	r := <-s.readers
	defer s.release(r)
	if err := r.c.exec(`DELETE FROM slot`); err == nil {
		t.Error("a reader can write")
	}
}

func TestFileModes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "credstore.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := fresh(t, Options{Path: path}, knobs{})
	put(t, s, "k", "v")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name())
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", e.Name(), info.Mode())
		}
	}
	if d := cmp.Diff([]string{"credstore.db", "credstore.db-shm", "credstore.db-wal", "credstore.db.lock"}, names); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

func put(t testing.TB, s core.Storage, key, value string) core.Revision {
	t.Helper()
	rev, err := s.Commit(t.Context(), core.Batch{Changes: []core.Change{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return rev
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "credstore.db")
	s := fresh(t, Options{Path: path}, knobs{})
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		_, err := Open(t.Context(), Options{Path: p})
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v, want ErrLocked with the path", p, err)
		}
	}
	put(t, s, "k", "v") // the first is not disturbed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fresh(t, Options{Path: link}, knobs{})
}

func TestOpenRefuses(t *testing.T) {
	if s, err := Open(t.Context(), Options{}); err == nil {
		t.Errorf("no path: %v", s.Close())
	}
	if s, err := Open(t.Context(), Options{Path: "x", MaxBatch: -1}); err == nil {
		t.Errorf("negative option: %v", s.Close())
	}
	_, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "no", "such.db")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "directory") {
		t.Errorf("missing directory: %v", err)
	}
	dir := t.TempDir()
	if _, err := Open(t.Context(), Options{Path: dir}); err == nil {
		t.Error("a directory was opened")
	}

	sqliteFile := func(setup ...string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := createFile(path); err != nil {
				t.Fatal(err)
			}
			c, err := dial("file:" + path)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range setup {
				if err := c.exec(q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"text", func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrNotStore},
		{"short", func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte("SQLite format 3\x00"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrNotStore},
		{"another application's", sqliteFile(`PRAGMA application_id = 7`, `PRAGMA user_version = 1`, `CREATE TABLE t (a)`), ErrNotStore},
		{"unmarked with tables", sqliteFile(`CREATE TABLE t (a)`), ErrNotStore},
		{"unmarked with a version", sqliteFile(`PRAGMA user_version = 1`, `CREATE TABLE t (a)`), ErrNotStore},
		{"ours without a version", sqliteFile(fmt.Sprintf(`PRAGMA application_id = %d`, applicationID), `CREATE TABLE t (a)`), ErrNotStore},
		{"newer", func(t *testing.T, path string) {
			t.Helper()
			writeNewer(t, path, false)
		}, core.ErrSchemaNewer},
		{"newer, in the log only", func(t *testing.T, path string) {
			t.Helper()
			writeNewer(t, path, true)
		}, core.ErrSchemaNewer},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "credstore.db")
			c.make(t, path)
			before := contents(t, path)
			s, err := Open(t.Context(), Options{Path: path})
			if err == nil {
				t.Fatalf("Open succeeded: %v", s.Close())
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open = %v, want %v with the path", err, c.want)
			}
			if !bytes.Equal(before, contents(t, path)) {
				t.Error("the file was changed")
			}
		})
	}
}

// contents returns the database followed by its write-ahead log.
func contents(t *testing.T, path string) []byte {
	t.Helper()
	db, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return append(db, wal...)
}

// writeNewer leaves a store of the next schema version, as a program that ended
// properly would, or as one that was killed with the version in the log.
func writeNewer(t *testing.T, path string, crashed bool) {
	t.Helper()
	s := fresh(t, Options{Path: path}, knobs{})
	put(t, s, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	next := append(schemaSteps(), func(c *conn) error { return c.exec(`CREATE TABLE next (a)`) })
	if !crashed {
		if err := fresh(t, Options{Path: path}, knobs{steps: next}).Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	other := path + ".original"
	if err := os.Rename(path, other); err != nil {
		t.Fatal(err)
	}
	s = fresh(t, Options{Path: other}, knobs{steps: next})
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(other + suffix)
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %d bytes, %v", suffix, len(b), err)
		}
		if err := os.WriteFile(path+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

package sqlite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// TestMigration brings a file of version 1 to version 3 by two steps that
// belong to this test, keeping what is in it.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credstore.db")
	old := fresh(t, Options{Path: path}, knobs{})
	rev := put(t, old, "k", "v")
	before, err := old.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	var ran []int
	steps := append(schemaSteps(),
		func(c *conn) error { ran = append(ran, 2); return c.exec(`ALTER TABLE meta ADD COLUMN note TEXT`) },
		func(c *conn) error { ran = append(ran, 3); return c.exec(`UPDATE meta SET note = 'three'`) },
	)
	for range 2 { // the second time there is nothing to do
		s := fresh(t, Options{Path: path}, knobs{steps: steps, setup: func(c *conn) error {
			var note string
			if err := c.one(`SELECT note FROM meta`, &note); err != nil || note != "three" {
				t.Errorf("note %q, %v", note, err)
			}
			return nil
		}})
		after, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after.SchemaVersion != 3 || after.FeedID != before.FeedID || after.Revision != rev {
			t.Errorf("Info = %+v after %+v", after, before)
		}
		if r, err := s.Get(t.Context(), "k"); err != nil || string(r.Value) != "v" {
			t.Errorf("Get = %v, %v", r, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(ran) != 2 || ran[0] != 2 || ran[1] != 3 {
		t.Errorf("steps run: %v, want 2 and 3 once", ran)
	}
	// The program before the migration refuses the file now.
	if _, err := Open(t.Context(), Options{Path: path}); !errors.Is(err, core.ErrSchemaNewer) {
		t.Errorf("Open = %v, want ErrSchemaNewer", err)
	}
}

// TestMigrationFails: a step that fails undoes those before it.
func TestMigrationFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credstore.db")
	s := fresh(t, Options{Path: path}, knobs{})
	put(t, s, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("step failed")
	_, err = open(t.Context(), Options{Path: path}, knobs{steps: append(schemaSteps(),
		func(c *conn) error { return c.exec(`CREATE TABLE half (a)`) },
		func(*conn) error { return failed },
	)})
	if !errors.Is(err, failed) {
		t.Fatalf("open = %v, want the step's error", err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
	fresh(t, Options{Path: path}, knobs{})
}

// TestDamaged opens files that contradict themselves.
func TestDamaged(t *testing.T) {
	for name, damage := range map[string]string{
		"key twice":               `INSERT INTO slot (data) SELECT data FROM slot LIMIT 1`,
		"slot too short":          `UPDATE slot SET data = x'0001'`,
		"slot longer than itself": `UPDATE slot SET data = x'0000000000000001000100ffffff61'`,
		"revision of the future":  `UPDATE slot SET data = x'0000000000ffffff00010000000061'`,
		"log cut short":           `UPDATE log SET block = substr(block, 1, length(block) - 1)`,
		"log behind compaction":   `UPDATE meta SET compacted = 99`,
		"wrong type":              `UPDATE meta SET feed_id = x'00'`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "credstore.db")
			s := fresh(t, Options{Path: path}, knobs{})
			put(t, s, "k", "v")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			c, err := dial(dsn(path, writing, 0, "FULL"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.exec(damage), c.close()); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(t.Context(), Options{Path: path}); !errors.Is(err, ErrCorrupt) {
				if err == nil {
					err = s.Close()
				}
				t.Errorf("Open = %v, want ErrCorrupt", err)
			}
		})
	}
}

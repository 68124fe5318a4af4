package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/storage/storagetest"
)

// fresh opens a store in a directory of its own and closes it with the test.
func fresh(t testing.TB, o Options, k knobs) *Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "credstore.db")
	}
	s, err := open(t.Context(), o, k)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestStorage(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) core.Storage {
		return fresh(t, Options{}, knobs{})
	}, storagetest.Options{
		Reopen: func(t *testing.T, s core.Storage) core.Storage {
			t.Helper()
			old, ok := s.(*Store)
			if !ok {
				t.Fatalf("%T is not a Store", s)
			}
			if err := old.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return fresh(t, Options{Path: old.path}, knobs{})
		},
	})
}

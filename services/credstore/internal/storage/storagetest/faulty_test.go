package storagetest_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/storage/sqlite"
	"github.com/credstore/credstore/services/credstore/internal/storage/storagetest"
)

func open(t *testing.T, path string) core.Storage {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// TestFaultyWithoutFaults: the decorator without hooks passes the suite.
func TestFaultyWithoutFaults(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) core.Storage {
		t.Helper()
		return storagetest.Faulty(open(t, filepath.Join(t.TempDir(), "credstore.db")), storagetest.Hooks{})
	}, storagetest.Options{Rounds: 20})
}

func TestFaulty(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "credstore.db"))
	fault := errors.New("fault")
	batch := func(key string) core.Batch { return core.Batch{Changes: []core.Change{{Key: key}}} }
	for _, op := range []storagetest.Op{
		storagetest.OpGet, storagetest.OpSnapshot, storagetest.OpCommit, storagetest.OpFeed,
		storagetest.OpNext, storagetest.OpCompact, storagetest.OpInfo,
	} {
		for _, when := range []string{"before", "after"} {
			t.Run(string(op)+"/"+when, func(t *testing.T) {
				key := string(op) + when
				if _, err := s.Commit(t.Context(), batch("k")); err != nil {
					t.Fatal(err)
				}
				info, err := s.Info(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				hook := func(_ context.Context, got storagetest.Op) error {
					if got == op {
						return fault
					}
					return nil
				}
				h := storagetest.Hooks{Before: hook}
				if when == "after" {
					h = storagetest.Hooks{After: hook}
				}
				f := storagetest.Faulty(s, h)
				errs := map[storagetest.Op]error{}
				_, errs[storagetest.OpGet] = f.Get(t.Context(), "k")
				_, errs[storagetest.OpSnapshot] = f.Snapshot(t.Context(), "", func(core.Record) error { return nil })
				_, errs[storagetest.OpCommit] = f.Commit(t.Context(), batch(key))
				errs[storagetest.OpCompact] = f.Compact(t.Context(), info.Compacted)
				_, errs[storagetest.OpInfo] = f.Info(t.Context())
				var feed core.Feed
				if feed, errs[storagetest.OpFeed] = f.Feed(t.Context(), info.Revision-1); feed != nil {
					defer feed.Close()
					_, errs[storagetest.OpNext] = feed.Next(t.Context())
				}
				for at, err := range errs {
					if errors.Is(err, fault) != (at == op) || err != nil && at != op {
						t.Errorf("%s: %v", at, err)
					}
				}
				// A commit that failed before has no effect, one that failed
				// after has.
				_, err = s.Get(t.Context(), key)
				if want := op != storagetest.OpCommit || when == "after"; (err == nil) != want {
					t.Errorf("Get of what was committed: %v, want it there: %v", err, want)
				}
			})
		}
	}
}

package sqlite

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// A commit in the benchmarks puts two records of these sizes; a bare row has
// the bytes of both.
const (
	benchMetadata = 300
	benchPayload  = 400
)

// randomBytes returns bytes that nothing on the way could compress or share.
func randomBytes(tb testing.TB, n int) []byte {
	tb.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		tb.Fatal(err)
	}
	return b
}

// BenchmarkCommit measures commits of two records by that many writers at the
// same time. "update" replaces the records of one credential per writer, of one
// in a thousand and of one in twenty thousand; "create" makes new ones.
// BenchmarkBareSQLite is its floor.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name string
		pool int // credentials; 0: as many as writers; -1: a new one for each commit
	}{{"update", 0}, {"update_of_1000", 1000}, {"update_of_20000", 20_000}, {"create", -1}} {
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", c.name, writers), func(b *testing.B) {
				benchmarkCommit(b, writers, c.pool)
			})
		}
	}
}

func benchmarkCommit(b *testing.B, writers, pool int) {
	s := fresh(b, Options{HistoryCommits: 1 << 40}, knobs{})
	metadata, payload := randomBytes(b, benchMetadata), randomBytes(b, benchPayload)
	if pool == 0 {
		pool = writers
	}
	// Names in no order, as people choose them.
	name := func(i int64) string {
		h := uint64(i) * 0x9E3779B97F4A7C15
		return fmt.Sprintf("credentials/%016x", h)
	}
	put := func(i int64) {
		key := name(i)
		_, err := s.Commit(b.Context(), core.Batch{Changes: []core.Change{
			{Key: key, Value: metadata},
			{Key: key + "/versions/1", Value: payload},
		}})
		if err != nil {
			b.Error(err)
		}
	}
	var fill core.Batch
	for i := range max(0, pool) {
		fill.Changes = append(fill.Changes,
			core.Change{Key: name(int64(i)), Value: metadata},
			core.Change{Key: name(int64(i)) + "/versions/1", Value: payload})
	}
	if len(fill.Changes) > 0 {
		if _, err := s.Commit(b.Context(), fill); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for { // ends after b.N
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				if pool > 0 {
					n = n * 7919 % int64(pool)
				}
				put(n)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/float64(logRows(b, s)), "commits/tx")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

// BenchmarkBareSQLite inserts rows of the same bytes into a table with an
// integer key, that many in one transaction, with the same driver and the same
// durability: what a group commit costs at least.
func BenchmarkBareSQLite(b *testing.B) {
	for _, rows := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			benchmarkBare(b, rows)
		})
	}
}

func benchmarkBare(b *testing.B, rows int) {
	path := filepath.Join(b.TempDir(), "bare.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(b.Context(), `CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	insert, err := db.PrepareContext(b.Context(), `INSERT INTO t (v) VALUES (?)`)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = insert.Close() }()
	value := randomBytes(b, benchMetadata+benchPayload)
	b.ResetTimer()
	for done := 0; done < b.N; {
		tx, err := db.BeginTx(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		in := tx.Stmt(insert) //nolint:sqlclosecheck // its transaction closes it
		for range rows {
			if _, err := in.Exec(value); err != nil {
				b.Fatal(err)
			}
			done++
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

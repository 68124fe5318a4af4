package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// The child's roles.
const (
	roleWriters = "writers" // commit without end
	roleFew     = "few"     // commit a few times and end without Close
	roleDisk    = "disk"    // commit with a file size limit
)

// Its other settings.
const (
	childPath        = "CREDSTORE_SQLITE_TEST_PATH"
	childSynchronous = "CREDSTORE_SQLITE_TEST_SYNCHRONOUS"
	childCycle       = "CREDSTORE_SQLITE_TEST_CYCLE"
)

// child is the process that gets killed or traced. It prints "ack REVISION KEY"
// after each Commit that returned, with one write.
func child(role string) int {
	if err := childMain(role); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func childMain(role string) error {
	ctx := context.Background()
	s, err := open(ctx, Options{Path: os.Getenv(childPath), HistoryCommits: 500},
		knobs{synchronous: os.Getenv(childSynchronous), walPages: 64})
	if err != nil {
		return err
	}
	cycle := os.Getenv(childCycle)
	switch role {
	case roleFew:
		for i := range 20 {
			if err := childCommit(ctx, s, fmt.Sprintf("k/%s/%d", cycle, i)); err != nil {
				return err
			}
		}
		return nil
	case roleDisk:
		return childDisk(ctx, s)
	}
	errs := make(chan error)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				if err := childCommit(ctx, s, fmt.Sprintf("k/%s/%d/%d", cycle, w, i)); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// childCommit puts the key, a second one beside it, and one that all fight
// over, so that slots are overwritten, grow and shrink.
func childCommit(ctx context.Context, s core.Storage, key string) error {
	value := strings.Repeat(key+" ", 1+rand.IntN(60))
	rev, err := s.Commit(ctx, core.Batch{Changes: []core.Change{
		{Key: key, Value: []byte(value)},
		{Key: "twin/" + key, Value: []byte(value)},
		{Key: fmt.Sprintf("hot/%d", rand.IntN(5)), Value: []byte(value), Delete: rand.IntN(4) == 0},
	}})
	if err != nil {
		return err
	}
	_, err = fmt.Printf("ack %d %s\n", rev, key)
	return err
}

// startChild runs this binary again in a role.
func startChild(t *testing.T, wrap []string, env ...string) (*exec.Cmd, io.ReadCloser) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(append([]string{}, wrap...), exe)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// TestKill kills a process under eight writers again and again: what it had
// acknowledged is there, no revision is used twice, and the file is sound.
func TestKill(t *testing.T) {
	cycles := 20
	if full() {
		cycles = 200
	}
	path := filepath.Join(t.TempDir(), "credstore.db")
	acked := map[string]core.Revision{}
	used := map[core.Revision]string{}
	var newest core.Revision
	for cycle := range cycles {
		cmd, out := startChild(t, nil,
			childEnv+"="+roleWriters, childPath+"="+path, childCycle+"="+strconv.Itoa(cycle))
		// Killed after some acknowledgements, each time after another number.
		enough := 1 + rand.IntN(300)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var rev core.Revision
			var key string
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %s", &rev, &key); err != nil {
				t.Fatalf("child said %q: %v", lines.Text(), err)
			}
			if other, twice := used[rev]; twice {
				t.Fatalf("cycle %d: revision %d for %s and for %s", cycle, rev, key, other)
			}
			if rev <= newest {
				t.Fatalf("cycle %d: revision %d, %d was there at its start", cycle, rev, newest)
			}
			used[rev], acked[key] = key, rev
			if n == enough {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("cycle %d: child ended by itself: %v", cycle, err)
		}
		newest = afterKill(t, path, acked, newest)
	}
	t.Logf("%d cycles, %d acknowledged, newest revision %d", cycles, len(acked), newest)
}

// afterKill opens what the child left and checks it. It returns the newest
// revision.
func afterKill(t *testing.T, path string, acked map[string]core.Revision, before core.Revision) core.Revision {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path, HistoryCommits: 500})
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	found := map[string]core.Revision{}
	rev, err := s.Snapshot(t.Context(), "", func(r core.Record) error {
		found[r.Key] = r.Revision
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if rev < before {
		t.Fatalf("newest revision %d, before it was %d", rev, before)
	}
	for key, want := range acked {
		if found[key] != want || found["twin/"+key] != want {
			t.Fatalf("%s was acknowledged at %d, found at %d, its twin at %d", key, want, found[key], found["twin/"+key])
		}
	}
	for key, at := range found { // what was not acknowledged is whole as well
		if strings.HasPrefix(key, "k/") && found["twin/"+key] != at {
			t.Fatalf("%s at %d has no twin of the same commit", key, at)
		}
	}
	checkHistory(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkIntegrity(t, path)
	return rev
}

// checkHistory replays what history there is: every revision once, each record
// of the snapshot told by the commit that it names.
func checkHistory(t *testing.T, s *Store) {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Feed(t.Context(), info.Compacted)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for want := info.Compacted + 1; want <= info.Revision; want++ {
		c, err := f.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.Revision != want || c.Nonce == 0 || len(c.Changes) == 0 {
			t.Fatalf("commit %+v, want revision %d", c, want)
		}
	}
}

func checkIntegrity(t *testing.T, path string) {
	t.Helper()
	c, err := dial(dsn(path, probing, time.Second, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.close() }()
	var verdict string
	if err := c.one(`PRAGMA integrity_check`, &verdict); err != nil || verdict != "ok" {
		t.Fatalf("integrity_check: %q, %v", verdict, err)
	}
}

// TestSyncBeforeAcknowledgement traces a child's system calls: no
// acknowledgement may be written before an fsync that follows the last write
// to the write-ahead log. Killing a process cannot show that, for the kernel
// keeps what was written. With synchronous=OFF the same check must find it
// missing.
func TestSyncBeforeAcknowledgement(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		if full() {
			t.Fatal("CREDSTORE_FAULTS=full needs strace")
		}
		t.Skip("strace is not installed")
	}
	for _, c := range []struct {
		synchronous string
		synced      bool
	}{{"FULL", true}, {"OFF", false}, {"NORMAL", false}} {
		t.Run("synchronous="+c.synchronous, func(t *testing.T) {
			dir := t.TempDir()
			path, trace := filepath.Join(dir, "credstore.db"), filepath.Join(dir, "trace")
			cmd, out := startChild(t,
				[]string{strace, "-f", "-qq", "-y", "-s", "16", "-o", trace, "-e", "trace=pwrite64,fsync,fdatasync,write"},
				childEnv+"="+roleFew, childPath+"="+path, childCycle+"=0", childSynchronous+"="+c.synchronous)
			if _, err := io.Copy(io.Discard, out); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				if full() {
					t.Fatalf("strace: %v", err)
				}
				t.Skipf("strace does not work here: %v", err)
			}
			log, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			acks, early := checkTrace(t, log)
			if acks != 20 {
				t.Fatalf("%d acknowledgements in the trace, want 20:\n%s", acks, log)
			}
			if c.synced && early != 0 {
				t.Fatalf("%d of %d acknowledged before the sync:\n%s", early, acks, log)
			}
			if !c.synced && early == 0 {
				t.Fatal("this check would not see a missing sync")
			}
			t.Logf("%d of %d acknowledged without a sync", early, acks)
		})
	}
}

var (
	traceWrite = regexp.MustCompile(`pwrite64\(\d+<[^>]*-wal>`)
	traceSync  = regexp.MustCompile(`(?:fsync|fdatasync)\(\d+<[^>]*-wal>`)
	traceAck   = regexp.MustCompile(`write\(1<[^>]*>, "ack `)
	traceEnd   = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>`)
)

// checkTrace counts the acknowledgements, and those that came before a sync of
// the write-ahead log had ended that began after the last write to it. There is
// one writer: the acknowledgements and writes of the trace follow each other.
func checkTrace(t *testing.T, log []byte) (acks, early int) {
	t.Helper()
	dirty := true // nothing is proven before the first sync
	wrote := false
	syncing := map[string]bool{} // by thread: an fsync that strace shows in two parts
	lines := bufio.NewScanner(bytes.NewReader(log))
	for lines.Scan() {
		line := lines.Text()
		thread, _, _ := strings.Cut(line, " ")
		switch {
		case traceWrite.MatchString(line):
			dirty, wrote = true, true
			clear(syncing) // a sync under way may have missed it
		case traceSync.MatchString(line) && strings.Contains(line, "unfinished"):
			syncing[thread] = true
		case traceSync.MatchString(line):
			dirty = false
		case traceEnd.MatchString(line) && strings.Contains(line, "sync resumed"):
			if syncing[thread] {
				dirty = false
			}
		case traceAck.MatchString(line):
			acks++
			if dirty || !wrote {
				early++
			}
			wrote = false // the next needs its own
		}
	}
	return acks, early
}

// TestDiskFull gives a child a limit on the size of its files, so that writing
// the log fails for real in the middle: the store fails closed and, opened
// again, has all that was acknowledged and nothing half-done.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credstore.db")
	cmd, out := startChild(t, nil, childEnv+"="+roleDisk, childPath+"="+path, childCycle+"=0")
	acked := map[string]core.Revision{}
	failed := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "failed closed" {
			failed = true
			continue
		}
		var rev core.Revision
		var key string
		if _, err := fmt.Sscanf(lines.Text(), "ack %d %s", &rev, &key); err != nil {
			t.Fatalf("child said %q: %v", lines.Text(), err)
		}
		acked[key] = rev
	}
	if err := cmd.Wait(); err != nil || !failed {
		t.Fatalf("child: %v, failed closed: %v", err, failed)
	}
	if len(acked) == 0 {
		t.Fatal("the limit was too low to show anything")
	}
	t.Logf("%d acknowledged before the disk was full", len(acked))
	afterKill(t, path, acked, core.Revision(len(acked)))
}

// childDisk commits until a write fails, and once more with space again.
func childDisk(ctx context.Context, s *Store) error {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	low := old
	low.Cur = 300 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &low); err != nil {
		return err
	}
	var err error
	for i := 0; i < 100_000 && err == nil; i++ {
		err = childCommit(ctx, s, fmt.Sprintf("k/0/%d", i))
	}
	if !errors.Is(err, ErrFailed) {
		return fmt.Errorf("the full disk was told as: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if err := childCommit(ctx, s, "k/late"); !errors.Is(err, ErrFailed) {
		return fmt.Errorf("a commit after the failure: %w", err)
	}
	// Reading goes on.
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Get(ctx, "k/0/0") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = fmt.Println("failed closed")
	return errors.Join(err, s.Close())
}

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// TestFaultDiskFull lets a server run out of disk, in the two ways that can be
// had: a full file system, and a file that may not grow. Writes are refused
// with an error that says so, reads go on, nothing that was acknowledged is
// lost, and with room again, and a restart, the server goes on.
func TestFaultDiskFull(t *testing.T) {
	t.Run("file system", func(t *testing.T) {
		base := t.TempDir()
		data := mkdir(t, base, "data")
		const size = 24 << 20
		if err := unix.Mount("none", data, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
			if full() && os.Geteuid() == 0 && !errors.Is(err, syscall.EPERM) {
				t.Fatal(err)
			}
			t.Skipf("a file system cannot be mounted here: %v", err)
		}
		defer func() {
			if err := unix.Unmount(data, 0); err != nil {
				t.Error(err)
			}
		}()
		s := newServer(t, base)
		// Every access is on record before it is answered, so the record needs
		// a disk of its own to go on when this one is full.
		s.args = []string{"--audit-log", filepath.Join(base, "audit.jsonl")}
		ballast := filepath.Join(data, "ballast")
		runsOut(t, s,
			func() error { return fill(ballast, size) },
			func() error { return os.Remove(ballast) })
	})
	t.Run("file size", func(t *testing.T) {
		s := newServer(t, t.TempDir())
		runsOut(t, s,
			func() error {
				// The log is at its beginning; the other files are smaller.
				limit := unix.Rlimit{Cur: 1 << 20, Max: unix.RLIM_INFINITY}
				return unix.Prlimit(s.process.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil)
			},
			func() error { return nil })
	})
}

// fill writes a file until there is no room any more, and then leaves a little.
func fill(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for range size/int64(len(block)) + 1 {
		if _, err = f.Write(block); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the file system does not get full: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return f.Truncate(max(0, info.Size()-1<<20))
}

// runsOut takes the room away from a server that is being written to, looks at
// what it does then, and gives the room back.
func runsOut(t *testing.T, s *server, take, giveBack func() error) {
	t.Helper()
	s.start()
	s.ready()
	c := s.client()
	h := newHistory()
	w := &watcher{name: "watcher", options: s.options(), payload: true, h: h}
	watchCtx, stopWatching := context.WithCancel(t.Context())
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		w.run(watchCtx)
	}()
	defer func() {
		stopWatching()
		<-watching
	}()

	acknowledged := map[string]string{}
	create := func(n int) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		id := fmt.Sprintf("full-%05d", n)
		secret := fmt.Sprintf("%s %s", id, strings.Repeat("0123456789abcdef", 1<<10))
		_, err := c.Credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
			Parent: project, CredentialId: id, Credential: &credstorev1.Credential{Payload: basic("bot", secret)},
		})
		if err == nil {
			acknowledged[credentialName(id)] = secret
		}
		return err
	}
	n := 0
	for ; n < 10; n++ {
		if err := create(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(); err != nil {
		t.Fatal(err)
	}
	var refused error
	for ; n < 2000 && refused == nil; n++ {
		refused = create(n)
	}
	if refused == nil {
		t.Fatalf("%d writes of 16 KiB each found room", n)
	}
	t.Logf("write %d is refused: %v", n, refused)
	var e *client.Error
	if !errors.As(refused, &e) || e.Code != codes.Unavailable || e.Reason == "" || strings.Contains(e.Message, "0123456789abcdef") {
		t.Errorf("a write without room is answered with %#v, want UNAVAILABLE and a reason", refused)
	}
	// The next ones too, at once, and reads go on.
	for range 5 {
		if err := create(n); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("another write without room: %v", err)
		}
		n++
	}
	checkSecrets(t, "without room", contents(t, c), acknowledged)
	eventually(t, "the watcher", func() error {
		if got := len(w.all()); got != len(acknowledged) {
			return fmt.Errorf("has %d credentials, %d were acknowledged; %v", got, len(acknowledged), h.all())
		}
		return nil
	})
	if s.process.ended() {
		t.Fatalf("the server ended: %v\n%s", s.process.err, tail(s.log))
	}

	if err := giveBack(); err != nil {
		t.Fatal(err)
	}
	// It need not end well: its log may be out of order. It must end.
	_ = s.process.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.process.done:
	case <-time.After(patience):
		t.Fatalf("the server goes on %s after a SIGTERM\n%s", patience, tail(s.log))
	}
	s.start()
	s.ready()
	checkSecrets(t, "after the restart", contents(t, c), acknowledged)
	for range 10 {
		if err := create(n); err != nil {
			t.Fatalf("with room again: %v", err)
		}
		n++
	}
	store := contents(t, c)
	checkSecrets(t, "at the end", store, acknowledged)
	eventually(t, "the watcher", func() error {
		if got := len(w.all()); got != len(store) {
			return fmt.Errorf("has %d credentials of %d; %v", got, len(store), h.all())
		}
		return nil
	})
	compare(t, "the watcher", true, w.all(), store)
	stopWatching()
	<-watching
	for _, f := range h.all() {
		t.Error(f)
	}
	s.process.stop(t)
}

// checkSecrets wants the store to hold exactly what was acknowledged.
func checkSecrets(t *testing.T, when string, store map[string]seen, acknowledged map[string]string) {
	t.Helper()
	for name, secret := range acknowledged {
		if store[name].secret != secret {
			t.Errorf("%s: %s is not what was acknowledged", when, name)
		}
	}
	if len(store) != len(acknowledged) {
		t.Errorf("%s: the store has %d credentials, %d were acknowledged", when, len(store), len(acknowledged))
	}
}

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// TestTracedServer traces the system calls of a server while a client makes one
// update after the other and a watcher is told of each. Before anything of an
// update leaves on a socket, whatever was written to the database's log was
// synced. A SIGKILL cannot show that: what the kernel has survives it.
func TestTracedServer(t *testing.T) {
	needLinux(t)
	strace := needTool(t, "strace")
	updates := cycles(20, 200)
	s := newServer(t, t.TempDir())
	s.insecure = true // so that the trace shows what is on the sockets
	trace := filepath.Join(s.base, "trace")
	// -D leaves the server to be our child, and strace its observer.
	s.process = start(t, s.log, s.env(), strace, append([]string{
		"-D", "-f", "-y", "-s", "65536", "-o", trace,
		"-e", "trace=read,recvfrom,recvmsg,write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,sync_file_range,msync,exit_group",
		s.bin.credstore,
	}, s.serveArgs()...)...)
	s.ready()
	ctx := t.Context()
	c := s.client()
	name := credentialName("traced")
	if _, err := c.Credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: project, CredentialId: "traced", Credential: &credstorev1.Credential{Payload: basic("bot", "secret")},
	}); err != nil {
		t.Fatal(err)
	}
	// The watcher's messages carry the mark of each update as well.
	watch, err := s.client().Credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: project, View: credstorev1.WatchRequest_PAYLOAD})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, updates)
	go func() {
		for {
			m, err := watch.Recv()
			if err != nil {
				close(received)
				return
			}
			for _, change := range m.GetCommit().GetChanges() {
				if mark := change.GetCredential().GetLabels()["mark"]; mark != "" {
					received <- mark
				}
			}
		}
	}()
	var marks []string
	for n := range updates {
		mark := fmt.Sprintf("traced-%04d-end", n)
		marks = append(marks, mark)
		if _, err := c.Credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: name, Labels: map[string]string{"mark": mark}, Payload: basic("bot", "secret of "+mark)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels", "payload"}},
		}); err != nil {
			t.Fatal(err)
		}
		if got := <-received; got != mark {
			t.Fatalf("the watcher got %q after %q", got, mark)
		}
	}
	s.process.stop(t)
	var lines []string
	eventually(t, "the trace's end", func() error {
		b, err := os.ReadFile(trace)
		if err != nil {
			return err
		}
		lines = strings.Split(strings.TrimSpace(string(b)), "\n")
		if !strings.Contains(lines[len(lines)-1], "+++ exited with 0 +++") {
			return errors.New("strace has not written it yet")
		}
		return nil
	})

	seen, err := checkTrace(lines, marks)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d updates, %d lines of trace: %d writes to the log and %d syncs of it, %d messages with a mark",
		updates, len(lines), seen.writes, seen.syncs, seen.messages)
	if seen.messages < 2*updates {
		t.Errorf("%d messages on sockets carried a mark: an answer and a watcher's message for each update were expected", seen.messages)
	}

	// The checker fails for every trace that must fail.
	isSync := regexp.MustCompile(`\b(fsync|fdatasync)\(\d+<[^>]*-wal>`)
	isWrite := regexp.MustCompile(`\b(write|pwrite64)\(\d+<[^>]*-wal>`)
	for what, doctored := range map[string][]string{
		"without syncs":                 without(lines, isSync),
		"with syncs at the end":         atEnd(lines, isSync),
		"without writes":                without(lines, isWrite),
		"without answers":               without(lines, regexp.MustCompile(`write\(\d+<socket:.*traced-0003-end`)),
		"with the sync of another file": rename(lines, isSync),
		"with syncs that never return":  unfinished(lines, isSync),
	} {
		if _, err := checkTrace(doctored, marks); err == nil {
			t.Errorf("the checker accepts a trace %s", what)
		} else {
			t.Logf("a trace %s: %v", what, err)
		}
	}
}

// traced counts what a trace showed.
type traced struct{ writes, syncs, messages int }

var (
	// pid, the call's name, and its first argument: a file descriptor with what
	// it is of.
	traceCall    = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(\d+<([^>]*)>`)
	traceResumed = regexp.MustCompile(`^(\d+) +<\.\.\. ([a-z0-9_]+) resumed>`)
)

// checkTrace goes through the system calls in their order. Whenever a mark
// leaves on a socket, the database's log must have been written after the mark
// came in, and a sync that began after its last write must have returned.
func checkTrace(lines, marks []string) (traced, error) {
	var seen traced
	came := map[string]bool{}    // marks that came in on a socket
	wrote := map[string]int{}    // and how many writes there had been by then
	left := map[string]bool{}    // marks that left again
	dirty := false               // the log holds what no completed sync covers
	covers := map[string]int{}   // thread in a sync → the writes before it
	reading := map[string]bool{} // threads in a read of a socket
	last := -1                   // number of the last write that is synced
	marker := markIn(marks)
	for n, line := range lines {
		thread, name, file := "", "", ""
		resumed := false
		if m := traceResumed.FindStringSubmatch(line); m != nil {
			thread, name, resumed = m[1], m[2], true
		} else if m := traceCall.FindStringSubmatch(line); m != nil {
			thread, name, file = m[1], m[2], m[3]
		} else {
			continue
		}
		wal, socket := strings.HasSuffix(file, "-wal"), strings.HasPrefix(file, "socket:") || strings.HasPrefix(file, "TCP")
		pending := strings.HasSuffix(line, "<unfinished ...>")
		switch name {
		case "write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg":
			switch {
			case wal:
				// From its beginning it may be on the disk in part.
				seen.writes++
				dirty = true
			case socket:
				for _, mark := range marker(line) {
					if !came[mark] {
						return seen, fmt.Errorf("line %d: %s leaves and has not come", n+1, mark)
					}
					if seen.writes == wrote[mark] {
						return seen, fmt.Errorf("line %d: %s leaves and nothing was written to the log", n+1, mark)
					}
					if dirty {
						return seen, fmt.Errorf("line %d: %s leaves and the log is not synced (%d writes, the last synced is %d)", n+1, mark, seen.writes, last+1)
					}
					left[mark] = true
					seen.messages++
				}
			}
		case "fsync", "fdatasync":
			if !resumed && !wal {
				continue
			}
			if !resumed {
				covers[thread] = seen.writes
			}
			upTo, ours := covers[thread]
			if pending || !ours {
				continue
			}
			delete(covers, thread)
			if !strings.HasSuffix(line, "= 0") {
				return seen, fmt.Errorf("line %d: a sync of the log failed: %s", n+1, line)
			}
			seen.syncs++
			last = upTo - 1
			if upTo == seen.writes {
				dirty = false
			}
		case "read", "recvfrom", "recvmsg":
			if pending {
				reading[thread] = socket
				continue
			}
			if resumed {
				socket = reading[thread]
				delete(reading, thread)
			}
			if !socket {
				continue
			}
			for _, mark := range marker(line) {
				if !came[mark] {
					came[mark], wrote[mark] = true, seen.writes
				}
			}
		}
	}
	for _, mark := range marks {
		if !came[mark] || !left[mark] {
			return seen, fmt.Errorf("%s was not seen to come (%t) and leave (%t)", mark, came[mark], left[mark])
		}
	}
	return seen, nil
}

// markIn returns a function that finds the marks in a line.
func markIn(marks []string) func(string) []string {
	known := make(map[string]bool, len(marks))
	for _, m := range marks {
		known[m] = true
	}
	pattern := regexp.MustCompile(`traced-\d{4}-end`)
	return func(line string) []string {
		var out []string
		for _, m := range pattern.FindAllString(line, -1) {
			if known[m] {
				out = append(out, m)
			}
		}
		return out
	}
}

// without leaves out the lines that match; a call that was split over two lines
// loses only its beginning, which is the half that says what it is about.
func without(lines []string, pattern *regexp.Regexp) []string {
	var out []string
	for _, l := range lines {
		if !pattern.MatchString(l) {
			out = append(out, l)
		}
	}
	return out
}

func atEnd(lines []string, pattern *regexp.Regexp) []string {
	out := without(lines, pattern)
	for _, l := range lines {
		if pattern.MatchString(l) {
			out = append(out, l)
		}
	}
	return out
}

func rename(lines []string, pattern *regexp.Regexp) []string {
	var out []string
	for _, l := range lines {
		if pattern.MatchString(l) {
			l = strings.Replace(l, "-wal>", ">", 1)
		}
		out = append(out, l)
	}
	return out
}

func unfinished(lines []string, pattern *regexp.Regexp) []string {
	var out []string
	for _, l := range without(lines, regexp.MustCompile(`<\.\.\. (fsync|fdatasync) resumed>`)) {
		if pattern.MatchString(l) && !strings.HasSuffix(l, "<unfinished ...>") {
			call, _, _ := strings.Cut(l, ")")
			l = call + " <unfinished ...>"
		}
		out = append(out, l)
	}
	return out
}

// TestTracedChecker holds the checker to small traces by hand.
func TestTracedChecker(t *testing.T) {
	const (
		in   = `7 read(9<socket:[1]>, "..traced-0000-end..", 99) = 19`
		put  = `8 pwrite64(5</d/store.db-wal>, "..", 24, 0) = 24`
		sync = `8 fdatasync(5</d/store.db-wal>) = 0`
		out  = `7 write(9<socket:[1]>, "..traced-0000-end..", 19) = 19`
	)
	for _, tt := range []struct {
		name  string
		lines []string
		ok    bool
	}{
		{"in order", []string{in, put, sync, out}, true},
		{"write calls", []string{in, `8 write(5</d/store.db-wal>, "..", 24) = 24`, sync, out}, true},
		{"split calls", []string{
			`7 read(9<socket:[1]>, <unfinished ...>`, `7 <... read resumed>"..traced-0000-end..", 99) = 19`,
			put, `8 fsync(5</d/store.db-wal> <unfinished ...>`, `8 <... fsync resumed>) = 0`, out,
		}, true},
		{"synced too late", []string{in, put, out, sync}, false},
		{"written after the sync", []string{in, put, sync, put, out}, false},
		{"written while it syncs", []string{
			in, put, `8 fsync(5</d/store.db-wal> <unfinished ...>`, strings.Replace(put, "8", "6", 1), `8 <... fsync resumed>) = 0`, out,
		}, false},
		{"still syncing", []string{in, put, `8 fsync(5</d/store.db-wal> <unfinished ...>`, out, `8 <... fsync resumed>) = 0`}, false},
		{"sync failed", []string{in, put, `8 fsync(5</d/store.db-wal>) = -1 EIO (Input/output error)`, out}, false},
		{"another file synced", []string{in, put, `8 fsync(6</d/store.db>) = 0`, out}, false},
		{"nothing written", []string{put, sync, in, out}, false},
		{"no answer", []string{in, put, sync}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := checkTrace(tt.lines, []string{"traced-0000-end"}); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/audit"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

var moment = time.Date(2026, 1, 2, 3, 4, 5, 60, time.FixedZone("somewhere", 7200))

func access() core.AuditEntry {
	return core.AuditEntry{
		Time: moment, Principal: "projects/default/tokens/web", Remote: "192.0.2.7:4711", RequestID: "0123456789abcdef",
		Permission: core.CredentialsAccess, Resource: "projects/default/credentials/bot", Allowed: true,
		Payloads: []string{"projects/default/credentials/bot/versions/2"},
	}
}

func TestGoldenLines(t *testing.T) {
	for name, test := range map[string]struct {
		entry core.AuditEntry
		want  string
	}{
		"access": {
			access(),
			`{"time":"2026-01-02T01:04:05.00000006Z","principal":"projects/default/tokens/web","remote":"192.0.2.7:4711","callId":"0123456789abcdef","permission":"credentials.access","resource":"projects/default/credentials/bot","allowed":true,"payloads":["projects/default/credentials/bot/versions/2"]}`,
		},
		"push": {
			core.AuditEntry{
				Time: moment, Principal: "system", Permission: core.CredentialsWatch, Allowed: true,
				Payloads: []string{"a/versions/1", "b/versions/2"}, Subscriptions: []string{"watch-1", "watch-2"}, Revision: 18446744073709551615,
			},
			`{"time":"2026-01-02T01:04:05.00000006Z","principal":"system","permission":"credentials.watch","allowed":true,"payloads":["a/versions/1","b/versions/2"],"subscriptions":["watch-1","watch-2"],"revision":"18446744073709551615"}`,
		},
		"mint": {
			core.AuditEntry{
				Time: moment, Principal: "projects/default/tokens/web", Permission: core.CredentialsMint, Resource: "projects/default/credentials/role", Allowed: true,
				Payloads: []string{"a/versions/1"}, Minted: "projects/default/credentials/role/versions/3 awsAssumeRole",
			},
			`{"time":"2026-01-02T01:04:05.00000006Z","principal":"projects/default/tokens/web","permission":"credentials.mint","resource":"projects/default/credentials/role","allowed":true,"payloads":["a/versions/1"],"minted":"projects/default/credentials/role/versions/3 awsAssumeRole"}`,
		},
		"denial": {
			core.AuditEntry{Time: moment, Permission: core.TokensCreate, Resource: "projects/default", Reason: `no "tokens.create"`},
			`{"time":"2026-01-02T01:04:05.00000006Z","permission":"tokens.create","resource":"projects/default","allowed":false,"reason":"no \"tokens.create\""}`,
		},
		"hostile": {
			core.AuditEntry{Time: moment, Resource: "a\nb\x00\x1b[2J\\\u2028\u009b\u007f\xff é 😀"},
			`{"time":"2026-01-02T01:04:05.00000006Z","resource":"a\u000ab\u0000\u001b[2J\\\u2028\u009b\u007f\ufffd é 😀","allowed":false}`,
		},
		"empty": {core.AuditEntry{}, `{"time":"0001-01-01T00:00:00Z","allowed":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := audit.New(&b, audit.Options{}).Record(t.Context(), test.entry); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want+"\n", b.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// FuzzLine holds that every entry is one line of JSON with nothing added.
func FuzzLine(f *testing.F) {
	f.Add("projects/p", "why")
	f.Add("a\nb\"\\\x00\x7f\u2028", "\xff\xfe\u0085")
	f.Fuzz(func(t *testing.T, resource, reason string) {
		var b bytes.Buffer
		e := core.AuditEntry{Time: moment, Resource: resource, Reason: reason, Payloads: []string{resource, reason}, Minted: resource}
		if err := audit.New(&b, audit.Options{}).Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), "\n"); n != 1 {
			t.Fatalf("%d line ends in %q", n, b.String())
		}
		var got struct {
			Time             time.Time
			Resource, Reason string
			Allowed          bool
			Payloads         []string
			Minted           string
		}
		d := json.NewDecoder(&b)
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		clean := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
		if count := func(s string) int { return len([]rune(s)) }; count(got.Resource) != count(resource) || !sameText(got.Resource, clean(resource)) {
			t.Errorf("resource is %q, was %q", got.Resource, resource)
		}
	})
}

// sameText compares with every invalid byte as one U+FFFD: ToValidUTF8 joins
// runs of them.
func sameText(got, want string) bool {
	squeeze := func(s string) string {
		var b strings.Builder
		var last rune
		for _, r := range s {
			if r != '\ufffd' || last != r {
				b.WriteRune(r)
			}
			last = r
		}
		return b.String()
	}
	return squeeze(got) == squeeze(want)
}

func TestOpenAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for range 2 {
		l, err := audit.Open(path, audit.Options{Sync: true})
		if err != nil {
			t.Fatal(err)
		}
		record(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if err := l.Record(t.Context(), access()); !errors.Is(err, audit.ErrClosed) {
			t.Errorf("Record after Close: %v", err)
		}
	}
	if n := len(lines(t, path)); n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "world-readable")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("elsewhere", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{open, pipe, link, dir, filepath.Join(dir, "absent", "audit")} {
		if l, err := audit.Open(path, audit.Options{}); err == nil {
			t.Errorf("%s was opened", path)
			l.Close()
		}
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	path, rotated := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "audit.jsonl.1")
	l, err := audit.Open(path, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	record(t, l)
	if err := os.Rename(path, rotated); err != nil {
		t.Fatal(err)
	}
	record(t, l) // goes on in the moved file
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record(t, l)
	if a, b := len(lines(t, rotated)), len(lines(t, path)); a != 2 || b != 1 {
		t.Errorf("%d lines in the rotated file and %d in the new one, want 2 and 1", a, b)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("Reopen took a directory")
	}
	record(t, l) // still has the file that it had
}

func TestTornLineOfACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(`{"time":"20`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(path, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	record(t, l)
	record(t, l)
	got := lines(t, path)
	if len(got) != 3 || got[0] != `{"time":"20` || !json.Valid([]byte(got[1])) || !json.Valid([]byte(got[2])) {
		t.Errorf("got %q", got)
	}
}

// flaky writes only a part of some lines.
type flaky struct {
	bytes.Buffer
	writes int
	give   func(n, length int) (int, error)
}

func (f *flaky) Write(b []byte) (int, error) {
	f.writes++
	n, err := f.give(f.writes, len(b))
	f.Buffer.Write(b[:n])
	return n, err
}

func TestFailedWrites(t *testing.T) {
	full := errors.New("disk is full")
	for name, test := range map[string]struct {
		give func(n, length int) (int, error)
		want error
	}{
		"short without error": {func(_, length int) (int, error) { return length / 2, nil }, io.ErrShortWrite},
		"short with error":    {func(_, length int) (int, error) { return length / 2, full }, full},
		"nothing written":     {func(_, _ int) (int, error) { return 0, full }, full},
	} {
		t.Run(name, func(t *testing.T) {
			w := &flaky{}
			w.give = func(n, length int) (int, error) {
				if n == 2 {
					return test.give(n, length)
				}
				return length, nil
			}
			l := audit.New(w, audit.Options{})
			record(t, l)
			if err := l.Record(t.Context(), access()); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			record(t, l)
			whole := 0
			for line := range strings.Lines(w.String()) {
				if json.Valid([]byte(line)) {
					whole++
				}
			}
			if whole != 2 || w.writes != 3 {
				t.Errorf("%d whole lines in %d writes, want 2 in 3:\n%s", whole, w.writes, w.String())
			}
		})
	}
}

// stuck is a disk that hangs.
type stuck struct {
	entered, leave chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	close(s.entered)
	<-s.leave
	return len(b), nil
}

func TestWaitingEndsWithTheCall(t *testing.T) {
	w := stuck{make(chan struct{}), make(chan struct{})}
	l := audit.New(w, audit.Options{})
	first := make(chan error)
	go func() { first <- l.Record(context.Background(), access()) }()
	<-w.entered
	reason := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if err := l.Record(ctx, access()); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	close(w.leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestConcurrentLinesAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(path, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := access()
				e.RequestID = fmt.Sprintf("%d-%d", w, i)
				e.Reason = strings.Repeat("x", i*7)
				if err := l.Record(t.Context(), e); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					if err := l.Reopen(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, line := range lines(t, path) {
		var e struct{ CallID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		seen[e.CallID] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d entries, want %d", len(seen), writers*each)
	}
}

func record(t *testing.T, l *audit.Log) {
	t.Helper()
	if err := l.Record(t.Context(), access()); err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// BenchmarkRecord is what every access pays; aim: at most 3 µs.
func BenchmarkRecord(b *testing.B) {
	l, err := audit.Open(filepath.Join(b.TempDir(), "audit.jsonl"), audit.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	e := access()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Record(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode is the part of it that is ours.
func BenchmarkEncode(b *testing.B) {
	l := audit.New(io.Discard, audit.Options{})
	e := access()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Record(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
}

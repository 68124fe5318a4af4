package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/test/heldport"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"injector": main})
}

// deadline bounds how long a script waits for the injector.
const deadline = 30 * time.Second

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			s, options := clienttest.StartTLS(t)
			b := &backend{reports: make(chan *credstorev1.WatchSetRequest_Report, 256)}
			done := make(chan struct{})
			go b.serve(s, done)
			e.Defer(func() {
				s.Stop()
				close(done)
				b.wait.Wait()
			})
			e.Values[backendKey{}] = b
			// The script's injectors come and go while other scripts open ports.
			e.Setenv("HTTP", heldport.Reserve(t))
			e.Setenv("CREDSTORE_ADDR", options.Address)
			e.Setenv("CREDSTORE_CA", filepath.Join(e.WorkDir, "ca.pem"))
			e.Setenv("CREDSTORE_TOKEN_FILE", filepath.Join(e.WorkDir, "token"))
			if err := os.WriteFile(filepath.Join(e.WorkDir, "token"), []byte(clienttest.Token+"\n"), 0o600); err != nil {
				return err
			}
			_, other := clienttest.StartTLS(t)
			if err := os.WriteFile(filepath.Join(e.WorkDir, "other.pem"), other.CAPEM, 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), options.CAPEM, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// reported REVISION waits for the report of a set.
			"reported": func(ts *testscript.TestScript, _ bool, args []string) {
				revision, err := strconv.ParseUint(args[0], 10, 64)
				ts.Check(err)
				ts.Check(value(ts).await(func(r *credstorev1.WatchSetRequest_Report) bool { return r.GetRevision() == revision }))
			},
			// goodbye waits for a goodbye.
			"goodbye": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(value(ts).await((*credstorev1.WatchSetRequest_Report).GetGoodbye))
			},
			// terminate sends a SIGTERM to what runs in the background.
			"terminate": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, cmd := range ts.BackgroundCmds() {
					ts.Check(cmd.Process.Signal(syscall.SIGTERM))
				}
			},
			// change CONTENT gives the item db/password another content.
			"change": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(value(ts).change(args[0]))
			},
		},
	})
}

type backendKey struct{}

func value(ts *testscript.TestScript) *backend {
	b, ok := ts.Value(backendKey{}).(*backend)
	if !ok {
		ts.Fatalf("no backend")
	}
	return b
}

// backend is a credstore with two items in every project, one of which has no
// value in the project "failing".
type backend struct {
	reports chan *credstorev1.WatchSetRequest_Report
	wait    sync.WaitGroup

	mu       sync.Mutex
	stream   *clienttest.SetStream
	revision uint64
}

func (b *backend) serve(s *clienttest.Server, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case st := <-s.Sets:
			items := []*credstorev1.SetItem{item("db/password", "hunter2"), item("db/user", "app")}
			if st.Open.GetParent() == "projects/failing" {
				items[1].State, items[1].Message, items[1].Content = credstorev1.SetItem_FAILED, "vault is sealed", nil
			}
			b.mu.Lock()
			b.stream, b.revision = st, b.revision+1
			// A client that left already is no failure of the server.
			_ = st.Send(&credstorev1.Set{Revision: b.revision, Whole: true, Items: items})
			b.mu.Unlock()
			b.wait.Go(func() {
				for r := range st.Reports {
					b.reports <- r
				}
			})
		}
	}
}

func item(path, content string) *credstorev1.SetItem {
	return &credstorev1.SetItem{
		Id: "web/" + path, Injection: "projects/default/injections/web", Digest: "digest of " + content,
		File: &credstorev1.FileTarget{Path: path}, State: credstorev1.SetItem_OK, Content: []byte(content),
	}
}

func (b *backend) change(content string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revision++
	return b.stream.Send(&credstorev1.Set{Revision: b.revision, Items: []*credstorev1.SetItem{item("db/password", content)}})
}

func (b *backend) await(is func(*credstorev1.WatchSetRequest_Report) bool) error {
	timeout := time.After(deadline)
	for {
		select {
		case r := <-b.reports:
			if is(r) {
				return nil
			}
		case <-timeout:
			return fmt.Errorf("no such report within %s", deadline)
		}
	}
}

package inject_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/credstore/credstore/pkg/inject"
	"github.com/credstore/credstore/pkg/inject/fileset"
)

const (
	webInjection = "projects/default/injections/web"
	jobInjection = "projects/default/injections/job"
)

// source is a scripted inject.Source. It keeps what it is told.
type source struct {
	in chan func(context.Context, inject.Consumer)
	// told is called with each report, unless nil; it is set before the first set.
	told func(inject.Report)

	mu         sync.Mutex
	reports    []inject.Report
	reconnects int
	goodbye    bool
}

func newSource() *source {
	return &source{in: make(chan func(context.Context, inject.Consumer))}
}

func (s *source) Run(ctx context.Context, c inject.Consumer) error {
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.goodbye = true
			s.mu.Unlock()
			return nil
		case do := <-s.in:
			do(ctx, c)
		}
	}
}

func (s *source) Report(r inject.Report) {
	if s.told != nil {
		s.told(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, r)
}

func (s *source) Reconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reconnects++
}

func (s *source) last() (inject.Report, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reports) == 0 {
		return inject.Report{}, 0
	}
	return s.reports[len(s.reports)-1], len(s.reports)
}

func (s *source) reconnected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reconnects
}

// rig is an engine that runs over a source that the test drives. It lives in a
// synctest bubble.
type rig struct {
	t      *testing.T
	root   string
	dir    *fileset.Dir
	source *source
	engine *inject.Engine
	log    *bytes.Buffer
	stop   context.CancelFunc
	done   chan error
}

// start opens root and runs an engine on it. wrap, if not nil, stands between
// engine and files.
func start(t *testing.T, root string, wrap func(inject.Files) inject.Files) *rig {
	t.Helper()
	dir, err := fileset.Open(root, fileset.Options{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, root: root, dir: dir, source: newSource(), log: &bytes.Buffer{}, done: make(chan error, 1)}
	files := inject.Files(dir)
	if wrap != nil {
		files = wrap(dir)
	}
	r.engine, err = inject.New(inject.Options{Source: r.source, Files: files, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- r.engine.Run(ctx) }()
	return r
}

// end stops the engine as SIGTERM does.
func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	if err := r.dir.Close(); err != nil {
		r.t.Error(err)
	}
}

// give delivers a set and returns when all has come to rest.
func (r *rig) give(s inject.Set) {
	r.t.Helper()
	r.source.in <- func(ctx context.Context, c inject.Consumer) { c.Set(ctx, s) }
	synctest.Wait()
}

func (r *rig) have() map[string]string {
	r.t.Helper()
	have := make(chan map[string]string, 1)
	r.source.in <- func(_ context.Context, c inject.Consumer) { have <- c.Have() }
	return <-have
}

// wantFiles compares all files below root, by path: "content mode".
func (r *rig) wantFiles(want map[string]string) {
	r.t.Helper()
	if diff := cmp.Diff(want, readAll(r.t, r.root), cmpopts.EquateEmpty()); diff != "" {
		r.t.Errorf("files (-want +got):\n%s", diff)
	}
}

// readAll reads what an application would see.
func readAll(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	at := filepath.Join(root, "..data")
	resolved, err := filepath.EvalSymlinks(at)
	if os.IsNotExist(err) {
		return files
	}
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(resolved, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(resolved, p)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(root, strings.Split(rel, "/")[0])); err != nil {
			return err
		}
		files[rel] = fmt.Sprintf("%s %04o", content, info.Mode().Perm())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wantReport checks the last report: its revision and failures by id. The
// wanted messages need only be contained.
func (r *rig) wantReport(revision uint64, failures map[string]string) {
	r.t.Helper()
	got, n := r.source.last()
	if n == 0 {
		r.t.Fatal("no report was sent")
	}
	if got.Revision != revision {
		r.t.Errorf("reported revision %d, want %d", got.Revision, revision)
	}
	var ids, wanted []string
	for _, f := range got.Failures {
		ids = append(ids, f.ID)
		if want, ok := failures[f.ID]; ok && !strings.Contains(f.Message, want) {
			r.t.Errorf("failure of %s: %q, want it to contain %q", f.ID, f.Message, want)
		}
	}
	for id := range failures {
		wanted = append(wanted, id)
	}
	if diff := cmp.Diff(wanted, ids, cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		r.t.Errorf("reported failures (-want +got):\n%s\n%+v", diff, got.Failures)
	}
}

// item makes an item that was delivered; its id is "web/<path>" and its digest
// changes with the content.
func item(path, content string, change ...func(*inject.Item)) inject.Item {
	it := inject.Item{
		ID: "web/" + path, Injection: webInjection, Path: path,
		Digest: "d:" + content, HasContent: true, Content: []byte(content),
	}
	for _, c := range change {
		c(&it)
	}
	return it
}

func group(name string) func(*inject.Item) { return func(it *inject.Item) { it.Group = name } }
func mode(m string) func(*inject.Item)     { return func(it *inject.Item) { it.Mode = m } }

// failed makes the item one that the server has no value for.
func failed(it *inject.Item) {
	it.State, it.Message, it.HasContent, it.Content = inject.Failed, "store refused", false, nil
}

// known makes the item one whose content the server does not send again.
func known(it *inject.Item) { it.HasContent, it.Content = false, nil }

// of moves the item to another injection.
func of(injection string) func(*inject.Item) {
	return func(it *inject.Item) {
		it.Injection = injection
		it.ID = injection[strings.LastIndex(injection, "/")+1:] + "/" + it.Path
	}
}

func whole(revision uint64, items ...inject.Item) inject.Set {
	return inject.Set{Revision: revision, Whole: true, Items: items}
}

func delta(revision uint64, items ...inject.Item) inject.Set {
	return inject.Set{Revision: revision, Items: items}
}

func ready(e *inject.Engine) bool { return e.Status().Ready }

// wait lets an hour pass, so that every retry had its turn.
func wait() {
	time.Sleep(time.Hour) // of the bubble's clock
	synctest.Wait()
}

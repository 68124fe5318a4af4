package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// TestCrashServer kills a server again and again under concurrent writers and
// watchers. In the end every acknowledged write is there, nothing is half
// there, no revision was used for two things, and every watcher, each of which
// resumed after every crash, has exactly what the store has.
func TestCrashServer(t *testing.T) {
	const nWriters, nWatchers = 4, 4
	kills := cycles(10, 200)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Minute, fmt.Errorf("the test took too long"))
	defer cancel()
	s := newServer(t, t.TempDir())
	h := newHistory()

	// Writers and watchers are there from the first moment to the last.
	var writing, watching sync.WaitGroup
	acked := make(chan struct{})
	stop := make(chan struct{})
	writers := make([]*writer, nWriters)
	for i := range writers {
		writers[i] = &writer{id: fmt.Sprintf("w%d", i), c: s.client(), h: h, acked: acked, rand: rand.New(rand.NewPCG(uint64(i), rand.Uint64()))}
	}
	watchCtx, stopWatching := context.WithCancel(ctx)
	defer watching.Wait()
	defer stopWatching()
	watchers := make([]*watcher, nWatchers)
	for i := range watchers {
		w := &watcher{name: fmt.Sprintf("watcher-%d", i), options: s.options(), payload: i%2 == 0, h: h, whole: batchesWhole(writers)}
		watchers[i] = w
		watching.Go(func() { w.run(watchCtx) })
	}
	kept, err := s.client().WatchCredentials(client.WatchOptions{Parent: project, Payload: true, Consumer: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for _, w := range writers {
		writing.Go(func() { w.run(ctx, stop) })
	}

	began := time.Now()
	for i := range kills {
		before := make([]int, len(watchers))
		for n, w := range watchers {
			before[n] = w.streams()
		}
		s.start()
		// Some starts are killed too.
		switch {
		case i%5 == 4:
			pause(ctx, 60*time.Millisecond)
		case !await(ctx, acked, 1+rand.IntN(150)):
			t.Errorf("no writes are acknowledged in cycle %d\n%s", i, tail(s.log))
		case i%5 < 3:
			// The watchers get the time to resume, and something to watch.
			for n, w := range watchers {
				eventually(t, w.name, func() error {
					if w.streams() == before[n] {
						return fmt.Errorf("is not synced in cycle %d; %v", i, h.all())
					}
					return nil
				})
			}
			await(ctx, acked, rand.IntN(100))
		}
		if t.Failed() {
			break
		}
		s.process.kill()
	}
	took := time.Since(began)
	began = time.Now()
	s.start()
	s.ready()
	loading := time.Since(began)
	await(ctx, acked, 2*nWriters)
	close(stop)
	writing.Wait()
	for _, f := range h.all() {
		t.Error(f)
	}
	if t.Failed() {
		t.Fatalf("the server's log:\n%s", tail(s.log))
	}

	// A last credential shows that a watcher has seen everything before it.
	last := credentialName("last")
	c := s.client()
	if _, err := c.Credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: project, CredentialId: "last", Credential: &credstorev1.Credential{Payload: basic("bot", "last")},
	}); err != nil {
		t.Fatal(err)
	}
	store := contents(t, c)
	checkAcknowledged(t, c, writers, store)
	resumes := 0
	for _, w := range watchers {
		eventually(t, w.name, func() error {
			if _, ok := w.all()[last]; !ok {
				return fmt.Errorf("does not see the last credential; %v", h.all())
			}
			return nil
		})
		compare(t, w.name, w.payload, w.all(), store)
		resumes += w.resumed()
		if w.resumed() < kills/2 {
			t.Errorf("%s resumed %d times in %d crashes: too little to say anything", w.name, w.resumed(), kills)
		}
	}
	eventually(t, "the client's watcher", func() error {
		if _, ok := kept.Get(last); !ok {
			return fmt.Errorf("does not see the last credential: %w", kept.Err())
		}
		return nil
	})
	fromClient := map[string]seen{}
	for name, c := range kept.All() {
		fromClient[name] = seen{meta: c.Metadata, secret: secretOf(c.Payload)}
	}
	compare(t, "the client's watcher", true, fromClient, store)
	stopWatching()
	watching.Wait()
	for _, f := range h.all() {
		t.Error(f)
	}
	s.process.stop(t)

	var acks, retried, cut, happened int
	for _, w := range writers {
		acks, retried, cut, happened = acks+w.acks, retried+w.retried, cut+w.cut, happened+w.halves
	}
	if acks < 10*kills || retried+cut == 0 || h.commits == 0 {
		t.Errorf("%d writes, %d of them repeated and %d given up, %d commits seen alone: too little to say anything", acks, retried, cut, h.commits)
	}
	t.Logf("%d kills in %s: %d writes, %d repeated with their request id, %d given up (%d of these had happened); "+
		"%d resumed streams; %d revisions seen alone, by %.1f watchers on average; the last start took %s",
		kills, took.Round(time.Millisecond), acks, retried, cut, happened, resumes, h.commits, float64(h.sightings)/float64(max(1, h.commits)), loading.Round(time.Millisecond))
}

// TestCrashResumedDelete holds a resumed watcher's message of a delete to what
// an uninterrupted one is told: the name and the uid, also when the server that
// deleted has crashed in between.
func TestCrashResumedDelete(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	s := newServer(t, t.TempDir())
	s.start()
	s.ready()
	c := s.client()
	made, err := c.Credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: project, CredentialId: "gone", Credential: &credstorev1.Credential{Payload: basic("bot", "secret")},
	})
	if err != nil {
		t.Fatal(err)
	}
	// watch returns the changes up to synced, and where to go on from there.
	watch := func(token string) (changes []*credstorev1.Change, next string) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := s.client().Credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: project, ResumeToken: token})
		for err == nil {
			var m *credstorev1.WatchResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			if m.GetReset_() != nil && token != "" {
				t.Fatal("a reset in place of what was missed")
			}
			changes = append(changes, m.GetCommit().GetChanges()...)
			if m.GetSynced() != nil {
				return changes, m.GetResumeToken()
			}
		}
		t.Fatal(err)
		return nil, ""
	}
	_, token := watch("")
	if _, err := c.Credentials.DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: made.GetName()}); err != nil {
		t.Fatal(err)
	}
	for _, crashed := range []bool{false, true} {
		if crashed {
			s.process.kill()
			s.start()
			s.ready()
		}
		changes, _ := watch(token)
		var got []string
		for _, change := range changes {
			got = append(got, fmt.Sprintf("%s %s %q", change.GetType(), change.GetCredential().GetName(), change.GetCredential().GetUid()))
		}
		if want := []string{fmt.Sprintf("DELETE %s %q", made.GetName(), made.GetUid())}; !slices.Equal(got, want) {
			t.Errorf("resumed after a delete (crashed in between: %t): got %s, want %s", crashed, got, want)
		}
	}
	s.process.stop(t)
}

// await takes n values; false when ctx ended or nothing came for too long.
func await(ctx context.Context, c <-chan struct{}, n int) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for range n {
		select {
		case <-c:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// contents reads the whole store: what list and access say, as a watch tells it.
func contents(t *testing.T, c *client.Client) map[string]seen {
	t.Helper()
	out := map[string]seen{}
	token := ""
	for range 1000 {
		page, err := c.Credentials.ListCredentials(t.Context(), &credstorev1.ListCredentialsRequest{Parent: project, PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.GetCredentials() {
			answer, err := c.Credentials.AccessCredential(t.Context(), &credstorev1.AccessCredentialRequest{Name: m.GetName()})
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("%s/versions/%d", m.GetName(), m.GetActiveVersion()); answer.GetName() != want {
				t.Fatalf("access of %s answers with %s", want, answer.GetName())
			}
			m.AgeState = 0 // changes with time alone, so no watch tells it
			out[m.GetName()] = seen{meta: m, secret: secretOf(answer.GetPayload())}
		}
		if token = page.GetNextPageToken(); token == "" {
			return out
		}
	}
	t.Fatal("the list does not end")
	return nil
}

// checkAcknowledged compares the store with what its writers know of it, all
// versions included.
func checkAcknowledged(t *testing.T, c *client.Client, writers []*writer, store map[string]seen) {
	t.Helper()
	total := 1 // the last one
	for _, w := range writers {
		total += len(w.model)
		for name, k := range w.model {
			is, ok := store[name]
			if !ok {
				t.Errorf("%s is gone", name)
				continue
			}
			if err := k.fits(is.meta); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			answer, err := c.Credentials.ListCredentialVersions(t.Context(), &credstorev1.ListCredentialVersionsRequest{Parent: name, PageSize: 1000})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(answer.GetVersions()); n != len(k.versions) {
				t.Errorf("%s has %d versions and got %d", name, n, len(k.versions))
			}
			for n, secret := range k.versions {
				v, err := c.Credentials.AccessCredential(t.Context(), &credstorev1.AccessCredentialRequest{Name: fmt.Sprintf("%s/versions/%d", name, n)})
				if err != nil || secretOf(v.GetPayload()) != secret {
					t.Errorf("%s version %d is %q, %v; it was written as %q", name, n, secretOf(v.GetPayload()), err, secret)
				}
			}
		}
	}
	if len(store) != total {
		t.Errorf("the store has %d credentials, its writers know of %d", len(store), total)
	}
}

// compare says how a watcher's state differs from the store.
func compare(t *testing.T, who string, payload bool, got, want map[string]seen) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		switch {
		case !ok:
			t.Errorf("%s lacks %s", who, name)
		case !proto.Equal(g.meta, w.meta):
			t.Errorf("%s has\n%s, the store\n%s", who, describe(g.meta), describe(w.meta))
		case payload && g.secret != w.secret:
			t.Errorf("%s has of %s %q, the store %q", who, name, g.secret, w.secret)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s still has %s", who, name)
		}
	}
}

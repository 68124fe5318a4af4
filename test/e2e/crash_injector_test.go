package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// matchingItems are the files of one group: fields of three credentials that
// one batch always changes together.
func matchingItems() []*credstorev1.Item {
	var items []*credstorev1.Item
	for _, i := range []struct{ path, id, field string }{
		{"db/username", "match-a", "username"},
		{"db/password", "match-a", "password"},
		{"token", "match-b", "token"},
		{"deep/er/data", "match-c", "data.key"},
		{"whole.json", "match-c", ""},
	} {
		items = append(items, &credstorev1.Item{
			Source: &credstorev1.Item_Credential{Credential: &credstorev1.CredentialSource{Name: credentialName(i.id), Field: i.field}},
			Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: i.path}},
			Group:  "match",
		})
	}
	return items
}

// matchingPaths are the files of matchingItems.
var matchingPaths = []string{"db/username", "db/password", "token", "deep/er/data", "whole.json"}

// stretch makes a content that tells its generation at both ends, and is long
// enough to be seen in part.
func stretch(gen, length int) string {
	return fmt.Sprintf("%d:%s:%d", gen, strings.Repeat("x", length), gen)
}

// generationOf reads what stretch made, whole.
func generationOf(content string) (int, error) {
	var gen int
	if _, err := fmt.Sscanf(content, "%d:", &gen); err != nil || content != stretch(gen, strings.Count(content, "x")) || !strings.Contains(content, "xx") {
		return 0, fmt.Errorf("partial content of %d bytes: %.30q", len(content), content)
	}
	return gen, nil
}

func matchingPayloads(gen int) map[string]*credentialv1.Payload {
	return map[string]*credentialv1.Payload{
		"match-a": basic(strings.ReplaceAll(stretch(gen, 200), ":", "_"), stretch(gen, 9000)),
		"match-b": apiToken(stretch(gen, 5000)),
		"match-c": opaque("key", stretch(gen, 20_000)),
	}
}

// TestCrashInjector kills an injector again and again while all credentials of
// a group change. A reader in a tight loop never sees files of two generations,
// a part of one, or a file missing.
func TestCrashInjector(t *testing.T) {
	kills := cycles(10, 200)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Minute, errors.New("the test took too long"))
	defer cancel()
	s := newServer(t, t.TempDir())
	s.start()
	s.ready()
	c := s.client()
	gen := 1
	if err := writeMatching(ctx, c, gen); err != nil {
		t.Fatal(err)
	}
	selector := map[string]string{"app": "match"}
	if _, err := c.Injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
		Parent: project, InjectionId: "match", Injection: &credstorev1.Injection{Selector: selector, Items: matchingItems()},
	}); err != nil {
		t.Fatal(err)
	}
	i := newInjector(s, "match", selector)
	i.start()
	eventually(t, "first set", func() error {
		_, err := (&setReader{root: i.root}).readSet()
		return err
	})

	// The writer, and two readers of the two kinds.
	failed := make(chan error, 3)
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := writeMatching(ctx, c, gen+1); err != nil {
				failed <- fmt.Errorf("writer: %w", err)
				return
			}
			gen++
			pause(ctx, 20*time.Millisecond)
		}
	})
	sets, files := &setReader{root: i.root, fresh: make(chan struct{}, 1)}, &setReader{root: i.root}
	running.Go(func() { failed <- sets.loop(stop, sets.readSet) })
	running.Go(func() { failed <- files.loop(stop, files.readFiles) })

	began := time.Now()
	for n := range kills {
		if n%5 == 4 {
			pause(ctx, 60*time.Millisecond) // some starts are killed too
		} else {
			if !await(ctx, sets.fresh, 1+rand.IntN(4)) {
				t.Errorf("no new set arrives in cycle %d\n%s", n, tail(i.log))
				break
			}
			pause(ctx, 3*time.Millisecond)
		}
		i.process.kill()
		i.start()
	}
	took := time.Since(began)
	close(stop)
	running.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}

	// When it is ready after the last start, the files are what the store has, and
	// nothing else is there.
	i.process.kill()
	i.start()
	i.ready()
	if got, err := (&setReader{root: i.root}).readSet(); err != nil || got != gen {
		t.Errorf("generation %d is there, %d was written last: %v", got, gen, err)
	}
	for id, want := range matchingPayloads(gen) {
		answer, err := c.Credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: credentialName(id)})
		if err != nil || secretOf(answer.GetPayload()) != secretOf(want) {
			t.Errorf("the store has another %s than was written last: %v", id, err)
		}
	}
	i.process.stop(t)
	checkNoLeftovers(t, i)
	s.process.stop(t)
	if sets.reads < kills || sets.generations < kills/2 {
		t.Errorf("%d sets of %d generations were read: too little to say anything", sets.reads, sets.generations)
	}
	t.Logf("%d kills in %s: %d generations written, %d of them seen; %d sets and %d files read; overtaken %d and %d times",
		kills, took.Round(time.Millisecond), gen, sets.generations, sets.reads, files.reads, sets.overtaken, files.overtaken)
}

// writeMatching writes a generation in one commit; the first one creates.
func writeMatching(ctx context.Context, c *client.Client, gen int) error {
	var ops []*credstorev1.BatchWriteCredentialsRequest_Operation
	for id, payload := range matchingPayloads(gen) {
		op := &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Create{
			Create: &credstorev1.BatchWriteCredentialsRequest_Create{CredentialId: id, Credential: &credstorev1.Credential{Payload: payload}},
		}}
		if gen > 1 {
			op.Operation = &credstorev1.BatchWriteCredentialsRequest_Operation_Update{Update: &credstorev1.BatchWriteCredentialsRequest_Update{
				Credential: &credstorev1.Credential{Name: credentialName(id), Payload: payload}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
			}}
		}
		ops = append(ops, op)
	}
	_, err := c.Credentials.BatchWriteCredentials(ctx, &credstorev1.BatchWriteCredentialsRequest{Parent: project, Operations: ops})
	return err
}

// setReader reads the files of a group in the two ways that are promised to work.
type setReader struct {
	root                          string
	fresh                         chan struct{} // gets a value with each new generation, if somebody takes it
	reads, generations, overtaken int
}

// loop reads until stop is closed; its error is a broken promise.
func (r *setReader) loop(stop <-chan struct{}, read func() (int, error)) error {
	last := 0
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		before := r.published()
		gen, err := read()
		switch {
		case errors.Is(err, fs.ErrNotExist) && before != r.published():
			// The set was replaced, and its lingering time is over: the reader
			// was too slow and has to start again.
			r.overtaken++
			continue
		case err != nil:
			return fmt.Errorf("after %d reads, in %s: %w", r.reads, before, err)
		case gen < last:
			return fmt.Errorf("generation %d after %d", gen, last)
		}
		r.reads++
		if gen == last {
			continue
		}
		last = gen
		r.generations++
		select {
		case r.fresh <- struct{}{}:
		default:
		}
	}
}

func (r *setReader) published() string {
	to, err := os.Readlink(filepath.Join(r.root, "..data"))
	if err != nil {
		return err.Error()
	}
	return to
}

// readSet opens ..data once and reads all files beneath it.
func (r *setReader) readSet() (int, error) {
	data, err := os.OpenRoot(filepath.Join(r.root, "..data"))
	if err != nil {
		return 0, err
	}
	defer data.Close()
	gens := make([]int, len(matchingPaths))
	for i, path := range matchingPaths {
		b, err := data.ReadFile(path)
		if err != nil {
			return 0, err
		}
		if gens[i], err = parseMatching(path, b); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	if len(slices.Compact(slices.Clone(gens))) != 1 {
		return 0, fmt.Errorf("mixed set: generations %v", gens)
	}
	return gens[0], nil
}

// readFiles reads one file after the other by its plain name; each is whole.
func (r *setReader) readFiles() (int, error) {
	gen := 0
	for _, path := range matchingPaths {
		b, err := os.ReadFile(filepath.Join(r.root, path))
		if err != nil {
			return 0, err
		}
		n, err := parseMatching(path, b)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		gen = max(gen, n)
	}
	return gen, nil
}

func parseMatching(path string, content []byte) (int, error) {
	switch path {
	case "db/username":
		return generationOf(strings.ReplaceAll(string(content), "_", ":"))
	case "whole.json":
		var whole struct{ Data map[string][]byte }
		if err := json.Unmarshal(content, &whole); err != nil {
			return 0, err
		}
		return generationOf(string(whole.Data["key"]))
	}
	return generationOf(string(content))
}

// checkNoLeftovers wants to see one set with its links and nothing else.
func checkNoLeftovers(t *testing.T, i *injector) {
	t.Helper()
	entries, err := os.ReadDir(i.root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "..2") {
			names = append(names, "a set")
			continue
		}
		names = append(names, e.Name())
	}
	slices.Sort(names)
	if want := []string{"..data", "a set", "db", "deep", "token", "whole.json"}; !slices.Equal(names, want) {
		t.Errorf("the root holds %q, want %q", names, want)
	}
	temp, err := os.ReadDir(i.temp)
	if err != nil {
		t.Fatal(err)
	}
	if len(temp) > 0 {
		t.Errorf("the temporary folder holds %v", temp)
	}
}

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// TestWatcherThatNeverReads opens a payload stream, reads nothing of it, and
// makes 20,000 changes. The server's memory stays bounded, a watcher beside it
// gets everything as it happens, and when the stream is read at last it ends
// with what the store has.
func TestWatcherThatNeverReads(t *testing.T) {
	needLinux(t)
	if raceDetector {
		t.Skip("the memory of the race detector hides the memory that this is about")
	}
	const (
		credentials = 100
		changes     = 20_000
		atOnce      = 10 // changes of one commit
		payload     = 8 << 10
		// What one watcher of all this is sent is changes × payload = 156 MiB.
		allowed = 80 << 20
	)
	s := newServer(t, t.TempDir())
	s.start()
	s.ready()
	c := s.client()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*patience, errors.New("the test took too long"))
	defer cancel()
	secret := strings.Repeat("x", payload)
	var ops []*credstorev1.BatchWriteCredentialsRequest_Operation
	for n := range credentials {
		ops = append(ops, &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Create{
			Create: &credstorev1.BatchWriteCredentialsRequest_Create{
				CredentialId: fmt.Sprintf("c-%03d", n), Credential: &credstorev1.Credential{Payload: basic("bot", secret)},
			},
		}})
	}
	if _, err := c.Credentials.BatchWriteCredentials(ctx, &credstorev1.BatchWriteCredentialsRequest{Parent: project, Operations: ops}); err != nil {
		t.Fatal(err)
	}

	open := func() credstorev1.CredentialService_WatchClient {
		stream, err := s.client().Credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: project, View: credstorev1.WatchRequest_PAYLOAD})
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stuck, neighbour := open(), open()
	// What is changed before its stream has begun would be part of its first state.
	for synced := false; !synced; {
		m, err := neighbour.Recv()
		if err != nil {
			t.Fatal(err)
		}
		synced = m.GetSynced() != nil
	}
	// Whoever the neighbour is told of goes into updates.
	told := make(chan string, changes)
	var running errgroup.Group
	running.Go(func() error {
		for n := 0; n < changes; {
			m, err := neighbour.Recv()
			if err != nil {
				return fmt.Errorf("neighbour: %w", err)
			}
			if commit := m.GetCommit(); commit != nil && m.GetResumeToken() != "" {
				for _, change := range commit.GetChanges() {
					told <- change.GetCredential().GetLabels()["n"]
					n++
				}
			}
		}
		return nil
	})

	before := s.process.resident(t)
	peak := before
	began := time.Now()
	for first := 0; first < changes; first += atOnce {
		// One commit at a time, and the neighbour sees each change of it before
		// the next one is made: it is not slowed down, let alone parked.
		ops = ops[:0]
		for n := first; n < first+atOnce; n++ {
			ops = append(ops, &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Update{
				Update: &credstorev1.BatchWriteCredentialsRequest_Update{
					Credential: &credstorev1.Credential{
						Name: credentialName(fmt.Sprintf("c-%03d", n%credentials)), Labels: map[string]string{"n": strconv.Itoa(n)},
					},
					UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
				},
			}})
		}
		if _, err := c.Credentials.BatchWriteCredentials(ctx, &credstorev1.BatchWriteCredentialsRequest{Parent: project, Operations: ops}); err != nil {
			t.Fatal(err)
		}
		for n := first; n < first+atOnce; n++ {
			select {
			case got := <-told:
				if want := strconv.Itoa(n); got != want {
					t.Fatalf("the neighbour is told of change %s, want %s", got, want)
				}
			case <-ctx.Done():
				t.Fatalf("the neighbour is not told of change %d: %v", n, context.Cause(ctx))
			}
		}
		if first%(100*atOnce) == 0 {
			peak = max(peak, s.process.resident(t))
		}
	}
	peak = max(peak, s.process.resident(t))
	took := time.Since(began)
	if err := running.Wait(); err != nil {
		t.Fatal(err)
	}
	if grown := peak - before; grown > allowed {
		t.Errorf("the server grew by %d MiB for a watcher that never reads", grown>>20)
	}

	// Now it reads. What it was sent before it fell behind comes first.
	last := credentialName("last")
	if _, err := c.Credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: project, CredentialId: "last", Credential: &credstorev1.Credential{Payload: basic("bot", "last")},
	}); err != nil {
		t.Fatal(err)
	}
	state := map[string]seen{}
	messages, received, revision := 0, 0, uint64(0)
	for state[last].meta == nil {
		m, err := stuck.Recv()
		if err != nil {
			t.Fatalf("after %d messages: %v", messages, err)
		}
		messages++
		if m.GetReset_() != nil {
			clear(state)
		}
		if m.GetRevision() < revision {
			t.Fatalf("revision %d after %d", m.GetRevision(), revision)
		}
		revision = m.GetRevision()
		for _, change := range m.GetCommit().GetChanges() {
			received++
			state[change.GetCredential().GetName()] = seen{meta: change.GetCredential(), secret: secretOf(change.GetPayload())}
		}
	}
	compare(t, "the watcher that did not read", true, state, contents(t, c))
	if received > changes/4 {
		t.Errorf("the watcher that did not read was sent %d changes: it was not parked, somebody kept them for it", received)
	}
	s.process.stop(t)
	t.Logf("%d changes in %s; resident memory %d MiB, at most %d MiB more; then %d messages with %d changes",
		changes, took.Round(time.Millisecond), before>>20, (peak-before)>>20, messages, received)
}

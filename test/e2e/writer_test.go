package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

const (
	singles = 4 // credentials that a writer writes one by one
	members = 3 // credentials that it only writes all at once, in a batch
)

// generation is the label that says which write of its writer a credential is
// from; the members of a batch always have the same.
const generation = "generation"

// known is what a writer knows a credential to be.
type known struct {
	uid      string
	version  uint32
	gen      string
	versions map[uint32]string // the secrets
}

// writer changes credentials that nobody else changes, so that it knows at any
// time exactly what must be in the store.
type writer struct {
	id    string
	c     *client.Client
	h     *history
	acked chan<- struct{}
	rand  *rand.Rand

	model                      map[string]known // by name
	gen                        int
	acks, retried, cut, halves int
}

// run writes until stop is closed, and returns when the outcome of the last
// write is known.
func (w *writer) run(ctx context.Context, stop <-chan struct{}) {
	w.model = map[string]known{}
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			w.h.fail("writer %s: %v", w.id, context.Cause(ctx))
			return
		default:
		}
		if err := w.write(ctx); err != nil {
			w.h.fail("writer %s: %v", w.id, err)
			return
		}
		w.acks++
		select {
		case w.acked <- struct{}{}:
		case <-stop:
		case <-ctx.Done():
		}
	}
}

// write does one write, chosen at random.
func (w *writer) write(ctx context.Context) error {
	w.gen++
	names := []string{credentialName(fmt.Sprintf("%s-single-%d", w.id, w.rand.IntN(singles)))}
	batch := w.rand.IntN(3) == 0
	if batch {
		names = w.batchNames()
	}
	_, exists := w.model[names[0]]
	kind := "create"
	if exists {
		kind = []string{"payload", "payload", "payload", "labels", "delete"}[w.rand.IntN(5)]
	}
	ops := make([]*credstorev1.BatchWriteCredentialsRequest_Operation, len(names))
	after := maps.Clone(w.model)
	for i, name := range names {
		ops[i] = w.operation(kind, name, after)
	}
	requestID := fmt.Sprintf("%s-%d", w.id, w.gen)
	answers, err := w.call(ctx, batch, ops, requestID)
	if !unavailable(err) {
		if err != nil {
			return fmt.Errorf("%s %v: %w", kind, names, err)
		}
		return w.accept(after, names, answers)
	}
	// Whether it happened is not known. Often the call is repeated with its
	// request_id until it is; else the writer looks.
	if w.rand.IntN(4) > 0 {
		w.retried++
		err := until(ctx, func() (err error) {
			if answers, err = w.call(ctx, batch, ops, requestID); err != nil && !unavailable(err) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s %v again, with its request id: %w", kind, names, err)
		}
		return w.accept(after, names, answers)
	}
	w.cut++
	return w.look(ctx, kind, names, after)
}

func (w *writer) batchNames() []string {
	names := make([]string, members)
	for i := range names {
		names[i] = credentialName(fmt.Sprintf("%s-member-%d", w.id, i))
	}
	return names
}

// operation makes one operation and what is to be known once it is done.
func (w *writer) operation(kind, name string, after map[string]known) *credstorev1.BatchWriteCredentialsRequest_Operation {
	gen := strconv.Itoa(w.gen)
	k := after[name]
	secret := fmt.Sprintf("%s of generation %s", name, gen)
	labels := map[string]string{generation: gen}
	create := &credstorev1.BatchWriteCredentialsRequest_Create{
		CredentialId: idOf(name), Credential: &credstorev1.Credential{Labels: labels, Payload: basic("bot", secret)},
	}
	update := &credstorev1.BatchWriteCredentialsRequest_Update{
		Credential: &credstorev1.Credential{Name: name, Labels: labels}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
	}
	versions := maps.Clone(k.versions)
	switch kind {
	case "create":
		after[name] = known{version: 1, gen: gen, versions: map[uint32]string{1: secret}}
		return &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Create{Create: create}}
	case "delete":
		delete(after, name)
		return &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Delete{
			Delete: &credstorev1.BatchWriteCredentialsRequest_Delete{Name: name},
		}}
	case "payload":
		update.Credential.Payload = basic("bot", secret)
		update.UpdateMask.Paths = append(update.UpdateMask.Paths, "payload")
		k.version++
		versions[k.version] = secret
	}
	after[name] = known{uid: k.uid, version: k.version, gen: gen, versions: versions}
	return &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Update{Update: update}}
}

// call makes the call: a batch, or what a single operation is by itself. The
// answer of a delete is its name.
func (w *writer) call(ctx context.Context, batch bool, ops []*credstorev1.BatchWriteCredentialsRequest_Operation, requestID string) ([]*credstorev1.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w.hurry()
	if batch {
		answer, err := w.c.Credentials.BatchWriteCredentials(ctx, &credstorev1.BatchWriteCredentialsRequest{Parent: project, Operations: ops, RequestId: requestID})
		return answer.GetCredentials(), err
	}
	var answer *credstorev1.Credential
	var err error
	switch op := ops[0].GetOperation().(type) {
	case *credstorev1.BatchWriteCredentialsRequest_Operation_Create:
		answer, err = w.c.Credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
			Parent: project, CredentialId: op.Create.GetCredentialId(), Credential: op.Create.GetCredential(), RequestId: requestID,
		})
	case *credstorev1.BatchWriteCredentialsRequest_Operation_Update:
		answer, err = w.c.Credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
			Credential: op.Update.GetCredential(), UpdateMask: op.Update.GetUpdateMask(), RequestId: requestID,
		})
	case *credstorev1.BatchWriteCredentialsRequest_Operation_Delete:
		answer = &credstorev1.Credential{Name: op.Delete.GetName()}
		_, err = w.c.Credentials.DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: op.Delete.GetName(), RequestId: requestID})
	}
	return []*credstorev1.Credential{answer}, err
}

// hurry makes the client try to connect at once, if it is waiting to: it backs
// off more with every crash that it meets.
func (w *writer) hurry() {
	if conn, ok := w.c.Conn().(*grpc.ClientConn); ok {
		conn.ResetConnectBackoff()
	}
}

// unavailable says that the outcome of a call is not known, or that it did not
// happen and may be repeated.
func unavailable(err error) bool {
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrExhausted)
}

// accept compares an acknowledged write with what it had to be.
func (w *writer) accept(after map[string]known, names []string, answers []*credstorev1.Credential) error {
	if len(answers) != len(names) {
		return fmt.Errorf("%d answers for %d operations", len(answers), len(names))
	}
	for i, name := range names {
		k, exists := after[name]
		a := answers[i]
		if a.GetName() != name {
			return fmt.Errorf("the answer for %s is about %s", name, a.GetName())
		}
		if !exists {
			continue
		}
		if err := k.fits(a); err != nil {
			return fmt.Errorf("acknowledged write of %s: %w", name, err)
		}
		w.h.metadata("writer "+w.id, a)
		w.h.secret("writer "+w.id, a.GetUid(), k.version, k.versions[k.version])
		k.uid = a.GetUid()
		after[name] = k
	}
	w.model = after
	return nil
}

// fits says whether the store's metadata is that of k.
func (k known) fits(c *credstorev1.Credential) error {
	if c.GetActiveVersion() != k.version || c.GetLabels()[generation] != k.gen || k.uid != "" && k.uid != c.GetUid() {
		return fmt.Errorf("it is version %d of generation %s (%s), and must be version %d of generation %s (%s)",
			c.GetActiveVersion(), c.GetLabels()[generation], c.GetUid(), k.version, k.gen, k.uid)
	}
	return nil
}

// look finds out whether a write that was cut off happened: all of it or nothing.
func (w *writer) look(ctx context.Context, kind string, names []string, after map[string]known) error {
	found := map[string]*credstorev1.Credential{}
	for _, name := range names {
		err := until(ctx, func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			w.hurry()
			c, err := w.c.Credentials.GetCredential(ctx, &credstorev1.GetCredentialRequest{Name: name})
			if err == nil {
				found[name] = c
			}
			if errors.Is(err, client.ErrNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("look for %s: %w", name, err)
		}
	}
	is := func(model map[string]known) error {
		for _, name := range names {
			k, want := model[name]
			c, have := found[name]
			if want != have {
				return fmt.Errorf("%s exists: %t", name, have)
			}
			if !have {
				continue
			}
			if err := k.fits(c); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	before, done := is(w.model), is(after)
	switch {
	case before != nil && done != nil:
		return fmt.Errorf("%s %v was cut off and is half there: neither as before (%w) nor as after it (%w)", kind, names, before, done)
	case done == nil:
		w.halves++
		for name, c := range found {
			k := after[name]
			k.uid = c.GetUid()
			after[name] = k
		}
		w.model = after
	}
	return nil
}

// batchesWhole returns the check that no batch of the writers is ever seen in
// part: its members exist all or not at all, and are of one generation.
func batchesWhole(writers []*writer) func(map[string]seen) error {
	var groups [][]string
	for _, w := range writers {
		groups = append(groups, w.batchNames())
	}
	return func(state map[string]seen) error {
		for _, names := range groups {
			gens := make([]string, len(names))
			for i, name := range names {
				gens[i] = state[name].meta.GetLabels()[generation]
			}
			if len(slices.Compact(gens)) != 1 {
				return fmt.Errorf("part of a batch: %v", gens)
			}
		}
		return nil
	}
}

// pause returns after at most d, at random.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(rand.N(d) + 1)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

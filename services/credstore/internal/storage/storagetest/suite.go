package storagetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Options adapts the suite to a backend.
type Options struct {
	// Reopen closes the Storage and opens it again on the same data. Nil skips
	// what is about persistence.
	Reopen func(t *testing.T, s core.Storage) core.Storage
	// Rounds is how many times a race is tried. 0 means 1,000.
	Rounds int
	// Patience bounds each test of the suite. 0 means five minutes.
	Patience time.Duration
}

// Run checks every sentence of core.Storage's contract against the Storages
// that open returns: a fresh and empty one for each call, closed by open's
// cleanup if the test has not done so.
func Run(t *testing.T, open func(t *testing.T) core.Storage, opts Options) {
	t.Helper()
	if opts.Rounds == 0 {
		opts.Rounds = 1000
	}
	if opts.Patience == 0 {
		opts.Patience = 5 * time.Minute
	}
	for _, c := range []struct {
		name string
		test func(*env)
	}{
		{"Get/returns_the_record_last_put", testGet},
		{"Get/absent_is_ErrNotFound", testGetAbsent},
		{"Get/values_are_the_callers_own", testValueOwnership},
		{"Get/values_and_keys_of_all_sizes", testSizes},
		{"Snapshot/keys_with_the_prefix_in_bytewise_order", testSnapshotOrder},
		{"Snapshot/revision_is_that_of_the_whole_store", testSnapshotRevision},
		{"Snapshot/stops_at_yields_first_error_and_returns_it_as_it_is", testSnapshotYieldError},
		{"Snapshot/is_one_state_under_concurrent_commits", testSnapshotConsistent},
		{"Commit/revision_starts_at_1_and_grows", testRevisions},
		{"Commit/is_applied_whole_or_not_at_all", testAtomic},
		{"Commit/deleting_an_absent_key_is_a_change_like_any_other", testDeleteAbsent},
		{"Commit/bad_batches", testBadBatches},
		{"Commit/an_ended_context_is_told", testCommitContext},
		{"Commit/a_batch_left_by_its_caller_is_applied_whole_or_not_at_all", testCommitAbandoned},
		{"Precondition/each_of_the_four", testPreconditions},
		{"Precondition/all_that_failed_are_listed", testPreconditionsListed},
		{"Precondition/neighbours_are_not_disturbed", testNeighbours},
		{"Precondition/reference_and_delete_race", testReferenceRace},
		{"Precondition/concurrent_increments_lose_nothing", testIncrements},
		{"Precondition/one_creator_wins", testOneCreator},
		{"Feed/tells_the_past_and_then_what_comes", testFeedPastAndLive},
		{"Feed/past_values_that_were_replaced_are_superseded", testFeedSuperseded},
		{"Feed/exactly_once_in_order_under_load", testFeedUnderLoad},
		{"Feed/a_slow_reader_gets_everything_and_delays_nobody", testFeedSlow},
		{"Feed/replayed_state_equals_the_snapshot", testFeedState},
		{"Feed/a_future_revision_is_ErrFutureRevision", testFeedFuture},
		{"Feed/Next_ends_with_its_context_and_loses_nothing", testNextContext},
		{"Feed/nonce_and_time_are_told", testNonceAndTime},
		{"Feed/Close_ends_it_twice_does_nothing", testFeedClose},
		{"Compact/history_goes_records_stay", testCompact},
		{"Compact/twice_is_nothing_the_future_is_an_error", testCompactBounds},
		{"Compact/a_feed_that_is_overtaken_is_told", testCompactOvertakes},
		{"Compact/everything_and_revisions_go_on", testCompactAll},
		{"Info/describes_the_store", testInfo},
		{"Context/an_ended_one_is_told_by_every_method", testEndedContext},
		{"Close/every_method_returns_ErrClosed", testClosed},
		{"Close/waits_for_commits_under_way", testCloseWaits},
		{"Close/ends_a_waiting_Next", testCloseEndsNext},
		{"Reopen/keeps_records_revision_history_and_feed_id", testReopen},
		{"Reopen/a_feed_goes_on_across_it", testReopenFeed},
		{"Reopen/after_compacting_everything_no_revision_is_reused", testReopenCompacted},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), opts.Patience)
			defer cancel()
			c.test(&env{T: t, ctx: ctx, Storage: open(t), opts: opts})
		})
	}
}

// env is one test with its Storage.
type env struct {
	*testing.T
	core.Storage

	ctx  context.Context //nolint:containedctx // the test's own
	opts Options
}

// reopen replaces the Storage by the same one opened again.
func (e *env) reopen() {
	e.Helper()
	if e.opts.Reopen == nil {
		e.Skip("this backend's suite was given no Reopen")
	}
	e.Storage = e.opts.Reopen(e.T, e.Storage)
}

func (e *env) commit(b core.Batch) core.Revision {
	e.Helper()
	rev, err := e.Commit(e.ctx, b)
	if err != nil {
		e.Fatalf("Commit(%v): %v", b, err)
	}
	return rev
}

func (e *env) put(key, value string) core.Revision {
	e.Helper()
	return e.commit(puts(key, value))
}

func (e *env) delete(keys ...string) core.Revision {
	e.Helper()
	return e.commit(core.Batch{Changes: deletes(keys...)})
}

// puts returns a batch that puts each key with the value after it.
func puts(keysAndValues ...string) core.Batch {
	var b core.Batch
	for i := 0; i < len(keysAndValues); i += 2 {
		b.Changes = append(b.Changes, core.Change{Key: keysAndValues[i], Value: []byte(keysAndValues[i+1])})
	}
	return b
}

func deletes(keys ...string) (out []core.Change) {
	for _, k := range keys {
		out = append(out, core.Change{Key: k, Delete: true})
	}
	return out
}

func (e *env) get(key string) core.Record {
	e.Helper()
	r, err := e.Get(e.ctx, key)
	if err != nil {
		e.Fatalf("Get(%q): %v", key, err)
	}
	return r
}

func (e *env) wantAbsent(key string) {
	e.Helper()
	if r, err := e.Get(e.ctx, key); !errors.Is(err, core.ErrNotFound) {
		e.Fatalf("Get(%q) = %v, %v, want ErrNotFound", key, r, err)
	}
}

// snapshot returns the records under the prefix as "key=value@revision" would
// be too loose: it returns them whole.
func (e *env) snapshot(prefix string) ([]core.Record, core.Revision) {
	e.Helper()
	var out []core.Record
	rev, err := e.Snapshot(e.ctx, prefix, func(r core.Record) error {
		out = append(out, r)
		return nil
	})
	if err != nil {
		e.Fatalf("Snapshot(%q): %v", prefix, err)
	}
	return out, rev
}

func (e *env) feed(after core.Revision) core.Feed {
	e.Helper()
	f, err := e.Feed(e.ctx, after)
	if err != nil {
		e.Fatalf("Feed(%d): %v", after, err)
	}
	e.Cleanup(f.Close)
	return f
}

func (e *env) next(f core.Feed) core.Commit {
	e.Helper()
	c, err := f.Next(e.ctx)
	if err != nil {
		e.Fatalf("Next: %v", err)
	}
	return c
}

func (e *env) info() core.StorageInfo {
	e.Helper()
	i, err := e.Info(e.ctx)
	if err != nil {
		e.Fatalf("Info: %v", err)
	}
	return i
}

func (e *env) wantDiff(what string, want, got any) {
	e.Helper()
	if d := cmp.Diff(want, got); d != "" {
		e.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func (e *env) wantErr(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// failed returns the preconditions that the error lists.
func (e *env) failed(err error) []core.Precondition {
	e.Helper()
	var p *core.PreconditionError
	if !errors.As(err, &p) {
		e.Fatalf("Commit: %v, want a *PreconditionError", err)
	}
	return p.Failed
}

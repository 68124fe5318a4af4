package storagetest

import (
	"context"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Op names an operation of a Storage or its Feeds.
type Op string

// The operations that Hooks see.
const (
	OpGet      Op = "Get"
	OpSnapshot Op = "Snapshot"
	OpCommit   Op = "Commit"
	OpFeed     Op = "Feed"
	OpNext     Op = "Feed.Next"
	OpCompact  Op = "Compact"
	OpInfo     Op = "Info"
)

// Hooks decide what goes wrong. Either may be nil. They are called by the
// goroutine that calls the Storage, so several calls can be in them at the same
// time; to delay an operation, wait in the hook (and give up when ctx ends).
type Hooks struct {
	// Before is called before an operation; its error is returned in place of
	// the operation, which then has no effect.
	Before func(ctx context.Context, op Op) error
	// After is called after an operation that succeeded; its error is returned
	// in place of the result. A Commit that fails so was applied: its outcome
	// is unknown to the caller, as when an answer is lost. A commit that
	// Feed.Next loses so is lost, which ends the feed for a reader.
	After func(ctx context.Context, op Op) error
}

// Faulty returns a Storage that does what s does, except where the hooks have
// it otherwise. Close is not hooked.
func Faulty(s core.Storage, h Hooks) core.Storage {
	return &faulty{Storage: s, h: h}
}

type faulty struct {
	core.Storage

	h Hooks
}

// hooked runs an operation between the hooks.
func hooked[T any](ctx context.Context, h Hooks, op Op, do func() (T, error)) (T, error) {
	var none T
	if h.Before != nil {
		if err := h.Before(ctx, op); err != nil {
			return none, err
		}
	}
	out, err := do()
	if err != nil {
		return out, err
	}
	if h.After != nil {
		if err := h.After(ctx, op); err != nil {
			return none, err
		}
	}
	return out, nil
}

func (f *faulty) Get(ctx context.Context, key string) (core.Record, error) {
	return hooked(ctx, f.h, OpGet, func() (core.Record, error) { return f.Storage.Get(ctx, key) })
}

func (f *faulty) Snapshot(ctx context.Context, prefix string, yield func(core.Record) error) (core.Revision, error) {
	return hooked(ctx, f.h, OpSnapshot, func() (core.Revision, error) { return f.Storage.Snapshot(ctx, prefix, yield) })
}

func (f *faulty) Commit(ctx context.Context, batch core.Batch) (core.Revision, error) {
	return hooked(ctx, f.h, OpCommit, func() (core.Revision, error) { return f.Storage.Commit(ctx, batch) })
}

func (f *faulty) Compact(ctx context.Context, through core.Revision) error {
	_, err := hooked(ctx, f.h, OpCompact, func() (struct{}, error) { return struct{}{}, f.Storage.Compact(ctx, through) })
	return err
}

func (f *faulty) Info(ctx context.Context) (core.StorageInfo, error) {
	return hooked(ctx, f.h, OpInfo, func() (core.StorageInfo, error) { return f.Storage.Info(ctx) })
}

func (f *faulty) Feed(ctx context.Context, after core.Revision) (core.Feed, error) {
	var opened core.Feed
	out, err := hooked(ctx, f.h, OpFeed, func() (core.Feed, error) {
		var err error
		opened, err = f.Storage.Feed(ctx, after)
		return opened, err
	})
	if err != nil {
		if opened != nil { // After failed: nobody else can close it
			opened.Close()
		}
		return nil, err
	}
	return &faultyFeed{Feed: out, h: f.h}, nil
}

type faultyFeed struct {
	core.Feed

	h Hooks
}

func (f *faultyFeed) Next(ctx context.Context) (core.Commit, error) {
	return hooked(ctx, f.h, OpNext, func() (core.Commit, error) { return f.Feed.Next(ctx) })
}

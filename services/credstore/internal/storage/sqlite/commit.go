package sqlite

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// request is what the writer is asked: to commit a batch, or to compact.
type request struct {
	batch   core.Batch // without changes for a compaction
	bytes   int        // of keys and values
	through core.Revision
	state   atomic.Int32 // waiting, taken or left
	answer  chan answer  // for one answer
}

// The states of a request. The writer takes it or its caller leaves it,
// whoever is first.
const (
	waiting int32 = iota
	taken
	left
)

type answer struct {
	rev core.Revision
	err error
}

// Commit implements core.Storage. It copies what it keeps of the batch. Keys
// of more than 65,535 bytes and values of more than 256 MiB are ErrBadBatch. An
// error that wraps ErrFailed leaves open whether the batch was applied; after
// any other error, except those the contract names, it was not.
func (s *Store) Commit(ctx context.Context, batch core.Batch) (core.Revision, error) {
	bytes, err := checkBatch(batch)
	if err != nil {
		return 0, err
	}
	return s.ask(ctx, &request{batch: copyBatch(batch, bytes), bytes: bytes})
}

// Compact implements core.Storage. It works in small steps between commits; when
// ctx ends it goes on without the caller.
func (s *Store) Compact(ctx context.Context, through core.Revision) error {
	_, err := s.ask(ctx, &request{through: through})
	return err
}

// ask sends the request to the writer and waits for its answer.
func (s *Store) ask(ctx context.Context, r *request) (core.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r.answer = make(chan answer, 1)
	if err := s.send(ctx, r); err != nil {
		return 0, err
	}
	select {
	case a := <-r.answer:
		return a.rev, a.err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(waiting, left) {
		return 0, fmt.Errorf("sqlite: not written: %w", ctx.Err())
	}
	select {
	case a := <-r.answer: // known after all
		return a.rev, a.err
	default:
		return 0, fmt.Errorf("sqlite: outcome unknown: %w", ctx.Err())
	}
}

func (s *Store) send(ctx context.Context, r *request) error {
	s.sendMu.RLock()
	defer s.sendMu.RUnlock()
	if s.sendOver {
		return core.ErrClosed
	}
	select {
	case s.requests <- r:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sqlite: not written: %w", ctx.Err())
	}
}

// checkBatch returns how many bytes the batch holds, or what is wrong with it.
// It names keys by position and never shows a value.
func checkBatch(b core.Batch) (bytes int, err error) {
	if len(b.Changes) == 0 {
		return 0, fmt.Errorf("%w: no changes", core.ErrBadBatch)
	}
	for i, p := range b.If {
		switch p.Condition {
		case core.Absent, core.Present, core.AtRevision:
			if p.Key == "" {
				return 0, fmt.Errorf("%w: If[%d] has an empty key", core.ErrBadBatch, i)
			}
		case core.PrefixEmpty: // an empty prefix asks for an empty store
		default:
			return 0, fmt.Errorf("%w: If[%d] has an unknown condition %d", core.ErrBadBatch, i, int(p.Condition))
		}
	}
	for i, c := range b.Changes {
		switch {
		case c.Key == "":
			return 0, fmt.Errorf("%w: Changes[%d] has an empty key", core.ErrBadBatch, i)
		case len(c.Key) > maxKeyBytes:
			return 0, fmt.Errorf("%w: Changes[%d] has a key of %d bytes, at most %d are allowed", core.ErrBadBatch, i, len(c.Key), maxKeyBytes)
		case !c.Delete && len(c.Value) > maxValueBytes:
			return 0, fmt.Errorf("%w: Changes[%d] has a value of %d bytes, at most %d are allowed", core.ErrBadBatch, i, len(c.Value), maxValueBytes)
		}
		bytes += len(c.Key)
		if !c.Delete {
			bytes += len(c.Value)
		}
	}
	if key, twice := repeated(b.Changes); twice {
		return 0, fmt.Errorf("%w: %q is changed twice", core.ErrBadBatch, key)
	}
	return bytes, nil
}

func repeated(changes []core.Change) (string, bool) {
	if len(changes) <= 16 {
		for i, c := range changes {
			for _, d := range changes[:i] {
				if c.Key == d.Key {
					return c.Key, true
				}
			}
		}
		return "", false
	}
	seen := make(map[string]struct{}, len(changes))
	for _, c := range changes {
		if _, twice := seen[c.Key]; twice {
			return c.Key, true
		}
		seen[c.Key] = struct{}{}
	}
	return "", false
}

// copyBatch takes the batch over: the caller may use its slices again when
// Commit returns, even though feeds hand out the values later on.
func copyBatch(b core.Batch, bytes int) core.Batch {
	out := core.Batch{If: slices.Clone(b.If), Changes: make([]core.Change, 0, len(b.Changes))}
	arena := make([]byte, 0, bytes)
	for _, c := range b.Changes {
		change := core.Change{Key: c.Key, Delete: c.Delete}
		if !c.Delete {
			start := len(arena)
			arena = append(arena, c.Value...)
			change.Value = arena[start:len(arena):len(arena)]
		}
		out.Changes = append(out.Changes, change)
	}
	return out
}

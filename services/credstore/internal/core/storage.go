package core

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Revision numbers the commits of one store. It is assigned inside the write
// transaction, starts at 1, only ever grows, and is never used twice, not even
// across a crash or for a name that was deleted and created again. Zero means
// "before the first commit". Nothing may be inferred from a gap.
type Revision uint64

// Storage is the seam to a durable, ordered key-value store. It sees keys in
// clear and values only as sealed bytes. All methods are safe for concurrent
// use. After Close every method returns ErrClosed. The suite in
// storage/storagetest is the contract in executable form.
type Storage interface {
	// Get returns the record at key, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)

	// Snapshot calls yield for every record whose key starts with prefix, in
	// ascending key order (bytewise), all as of the one revision that it
	// returns, and stops at yield's first error, which it returns as it is.
	// The revision is that of the whole store, not of the newest record. The
	// record's Value may be kept. yield must not call the Storage.
	Snapshot(ctx context.Context, prefix string, yield func(Record) error) (Revision, error)

	// Commit applies the batch as one transaction, or nothing of it, and
	// returns its revision once it is durable: the data has reached the disk.
	// A failed precondition is a *PreconditionError that lists every one that
	// failed. A batch without changes, one that names a key twice, or an
	// empty key is ErrBadBatch. When ctx ends before the outcome is known the
	// error wraps ctx.Err(), and the batch may or may not have been applied.
	Commit(ctx context.Context, batch Batch) (Revision, error)

	// Feed returns every commit after the given revision, in order and exactly
	// once, first those of the past and then those to come. It returns
	// ErrCompacted when the history no longer reaches back so far (take a
	// Snapshot instead) and ErrFutureRevision for a revision that this store
	// has not reached. The caller closes the Feed.
	Feed(ctx context.Context, after Revision) (Feed, error)

	// Compact forgets the history up to and including the revision; records
	// are not touched. Compacting what is compacted already does nothing; a
	// revision beyond the newest is ErrFutureRevision.
	Compact(ctx context.Context, through Revision) error

	// Info tells what this store is.
	Info(ctx context.Context) (StorageInfo, error)

	// Close waits for commits under way, then releases the store. A second
	// Close does nothing.
	Close() error
}

// Feed is an ordered stream of commits. It is for one goroutine.
type Feed interface {
	// Next waits for the next commit. It returns ErrCompacted when the reader
	// was too slow and the history was compacted under it (take a Snapshot and
	// open a new Feed), ErrClosed after Close of the feed or the store, or
	// ctx.Err().
	Next(ctx context.Context) (Commit, error)
	// Close ends the feed; a second call does nothing.
	Close()
}

// Record is one stored key.
type Record struct {
	Key string
	// Value is sealed. The receiver may keep it and must not change it.
	Value []byte
	// Revision is that of the commit that last put this key.
	Revision Revision
}

// Batch is what one Commit does.
type Batch struct {
	// If lists what must hold, checked inside the transaction.
	If []Precondition
	// Changes are applied together; a key may be named once.
	Changes []Change
}

// Change puts or deletes one key. Deleting a key that is absent is allowed and
// is part of the commit like any other change.
type Change struct {
	Key    string
	Value  []byte // nil and ignored when Delete is set
	Delete bool
	// Superseded is set only by a Feed that replays the past: a later commit
	// changed this key again, and the value as of this commit is no longer
	// kept. The later commit is in the feed too.
	Superseded bool
}

// Commit is one transaction as the feed tells it.
type Commit struct {
	Revision Revision
	// Nonce is 8 random bytes made for this commit. It tells apart two
	// histories that share a revision number, as after a restored backup.
	Nonce uint64
	// Time is when the store committed, by the store's clock.
	Time    time.Time
	Changes []Change
}

// StorageInfo describes a store.
type StorageInfo struct {
	// FeedID names this history. It is made when the store is created and
	// changed by a restore; resume tokens hold it.
	FeedID string
	// Revision is the newest; Compacted is the last one whose history is gone.
	Revision, Compacted Revision
	// Nonce is that of the newest commit, 0 when there is none.
	Nonce uint64
	// SchemaVersion is that of the file or cluster layout.
	SchemaVersion int
}

// Condition is one of the four things that a Commit can require.
type Condition int

// The four preconditions.
const (
	// Absent: the key does not exist.
	Absent Condition = iota + 1
	// Present: the key exists.
	Present
	// AtRevision: the key exists and was last put at Precondition.Revision.
	AtRevision
	// PrefixEmpty: no key starts with Precondition.Key.
	PrefixEmpty
)

// String returns the condition's name.
func (c Condition) String() string {
	switch c {
	case Absent:
		return "absent"
	case Present:
		return "present"
	case AtRevision:
		return "at revision"
	case PrefixEmpty:
		return "prefix empty"
	}
	return fmt.Sprintf("Condition(%d)", int(c))
}

// Precondition is something that must hold for a Commit to be applied.
type Precondition struct {
	Condition Condition
	Key       string // a prefix for PrefixEmpty
	Revision  Revision
}

// PreconditionError says which preconditions of a Commit did not hold; nothing
// was applied.
type PreconditionError struct {
	Failed []Precondition
}

func (e *PreconditionError) Error() string {
	if len(e.Failed) == 0 {
		return "precondition failed"
	}
	f := e.Failed[0]
	if len(e.Failed) == 1 {
		return fmt.Sprintf("precondition failed: %s %q", f.Condition, f.Key)
	}
	return fmt.Sprintf("%d preconditions failed, the first: %s %q", len(e.Failed), f.Condition, f.Key)
}

// What a Storage answers besides PreconditionError.
var (
	ErrNotFound       = errors.New("not found")
	ErrCompacted      = errors.New("history is compacted")
	ErrFutureRevision = errors.New("revision is in the future")
	ErrBadBatch       = errors.New("batch is malformed")
	ErrClosed         = errors.New("closed")
	// ErrSchemaNewer: the store was written by a newer program and is left
	// untouched.
	ErrSchemaNewer = errors.New("store was written by a newer version")
)

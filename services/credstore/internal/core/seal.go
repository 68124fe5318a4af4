package core

import (
	"context"
	"errors"
)

// Place binds a sealed record to where it belongs; a record that is moved,
// renamed or replayed elsewhere does not open.
type Place struct {
	// Key is the storage key.
	Key string
	// UID is the permanent id of the resource that the record belongs to, where
	// the reader knows it beforehand: a payload is read by way of its
	// credential, so that the payload of a namesake that was deleted earlier
	// does not open. It is empty for a record that is itself the first thing
	// read of its resource: an older copy of such a record, put back at the same
	// key, cannot be told.
	UID string
	// Version is the payload's version number, or 0 for other records.
	Version uint64
}

// Sealer encrypts every record above storage. Both methods are safe for
// concurrent use, keep no reference to their arguments, and call no network.
type Sealer interface {
	// Seal returns the record encrypted and bound to its place.
	Seal(place Place, plaintext []byte) ([]byte, error)
	// Open returns the plaintext, or an error that wraps ErrSealBroken when
	// the record was altered, moved or sealed with another key. The error
	// names the place and never the content.
	Open(place Place, sealed []byte) ([]byte, error)
}

// SealKeys holds a sealer's wrapped epoch keys; the sealer stores them through
// this port, beside the records they protect. It is safe for concurrent use.
type SealKeys interface {
	// LoadSealKeys returns what is stored, or ErrNotFound in a new store.
	LoadSealKeys(ctx context.Context) ([]byte, error)
	// StoreSealKeys replaces what this handle loaded or stored last, and fails
	// with a *PreconditionError when something else is there by now. It returns
	// when the keys are durable.
	StoreSealKeys(ctx context.Context, wrapped []byte) error
}

// ErrSealBroken: a record cannot be trusted.
var ErrSealBroken = errors.New("sealed record does not open: altered, moved, or sealed with another key")

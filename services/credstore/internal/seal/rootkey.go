package seal

import (
	"context"
	"errors"
	"fmt"
)

// RootKey protects a store's key set. It is called when a Sealer is opened,
// reloaded or rotated, with at most a few hundred KiB, and never for a record.
// Implementations are safe for concurrent use, keep no reference to their
// arguments, and never put key material or plaintext in an error.
type RootKey interface {
	// Wrap encrypts the plaintext and authenticates it together with aad.
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unwrap returns what Wrap was given. When the ciphertext or aad was
	// altered the error wraps core.ErrSealBroken; other errors, such as a
	// service that does not answer, do not. The caller erases the result.
	Unwrap(ctx context.Context, ciphertext, aad []byte) ([]byte, error)
	// ID names the key, in 1 to 255 bytes. It is public, stored beside the key
	// set, and stays the same for as long as the key can unwrap what it
	// wrapped.
	ID() string
}

// ErrWrongRootKey: the store's key set was wrapped with another root key.
var ErrWrongRootKey = errors.New("wrong root key")

// ErrTooManyEpochs: there is no room for another epoch key.
var ErrTooManyEpochs = errors.New("too many epoch keys")

// ErrUnknownEpoch: a record names an epoch key that this Sealer does not have.
// It comes together with core.ErrSealBroken. Another replica may have rotated:
// Reload, then open the record again.
var ErrUnknownEpoch = errors.New("sealed under an unknown epoch key")

// WrongRootKeyError says which root key is needed. It wraps ErrWrongRootKey.
// Both ids are public.
type WrongRootKeyError struct {
	// Sealed is the id of the root key that wrapped the store's key set.
	Sealed string
	// Given is the id of the root key that was tried.
	Given string
}

func (e *WrongRootKeyError) Error() string {
	return fmt.Sprintf("%v: this store was sealed with root key %q and was given %q: give it the root key with the first id",
		ErrWrongRootKey, e.Sealed, e.Given)
}

// Unwrap returns ErrWrongRootKey.
func (e *WrongRootKeyError) Unwrap() error { return ErrWrongRootKey }

package core

import (
	"context"
	"errors"
	"sync"
)

// StorageSealKeys keeps a sealer's wrapped keys in a storage, under KeySeal. It
// stores only over what it has loaded, so that of two servers that rotate at
// once one gets a *PreconditionError.
type StorageSealKeys struct {
	storage Storage

	mu  sync.Mutex
	rev Revision // of what was loaded or stored last; 0 when there was none
}

// NewStorageSealKeys returns the keys of one storage.
func NewStorageSealKeys(s Storage) *StorageSealKeys { return &StorageSealKeys{storage: s} }

// LoadSealKeys returns the wrapped keys, or ErrNotFound.
func (k *StorageSealKeys) LoadSealKeys(ctx context.Context) ([]byte, error) {
	r, err := k.storage.Get(ctx, KeySeal)
	k.mu.Lock()
	defer k.mu.Unlock()
	if errors.Is(err, ErrNotFound) {
		k.rev = 0
	}
	if err != nil {
		return nil, err
	}
	k.rev = r.Revision
	return r.Value, nil
}

// StoreSealKeys replaces the wrapped keys that were loaded last and returns
// when they are durable.
func (k *StorageSealKeys) StoreSealKeys(ctx context.Context, wrapped []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := Precondition{Condition: Absent, Key: KeySeal}
	if k.rev != 0 {
		p = Precondition{Condition: AtRevision, Key: KeySeal, Revision: k.rev}
	}
	rev, err := k.storage.Commit(ctx, Batch{If: []Precondition{p}, Changes: []Change{{Key: KeySeal, Value: wrapped}}})
	if err == nil {
		k.rev = rev
	}
	return err
}

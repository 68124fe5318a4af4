package seal

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

const (
	keySetMagic   = 0xC6
	keySetFormat  = 1
	keySetPurpose = "credstore/seal/key-set"

	sealIDSize = 16

	// MaxEpochs is how many epoch keys a store can have: one a day for eleven
	// years.
	MaxEpochs = 4096

	maxRootID     = 255
	epochSize     = 4 + 8 + keySize
	keySetPrelude = keySize + 4
	maxWrappedSet = 1 << 20
)

// sealID is the permanent, public identity of a store's seal.
type sealID [sealIDSize]byte

func (id sealID) String() string { return hex.EncodeToString(id[:]) }

// keySet is the key material of one store in clear. It is short-lived: it is
// made, wrapped or turned into a keyring, and erased.
//
// Plaintext layout: derivation secret (32) ‖ count (4) ‖ count × { id (4) ‖
// created, Unix seconds (8) ‖ key (32) }, big-endian, ids ascending from 1 or
// more. The last epoch is the active one.
type keySet struct {
	secret secretKey
	epochs []epochKey
}

type epochKey struct {
	Epoch
	key secretKey
}

// Epoch describes an epoch key without its key.
type Epoch struct {
	// ID numbers the epochs of one store, from 1.
	ID uint32
	// Created is when the key was made, in whole seconds, by the clock of the
	// process that made it.
	Created time.Time
}

func (s *keySet) erase() {
	s.secret.erase()
	for _, e := range s.epochs {
		e.key.erase()
	}
}

// newKeySet makes the key set of a new store, still without an epoch.
func newKeySet(random io.Reader) (sealID, *keySet, error) {
	var id sealID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return id, nil, fmt.Errorf("read random bytes for the seal id: %w", err)
	}
	secret, err := randomKey(random)
	if err != nil {
		return id, nil, fmt.Errorf("read random bytes for the derivation secret: %w", err)
	}
	return id, &keySet{secret: secret}, nil
}

// addEpoch makes the next epoch key, which becomes the active one.
func (s *keySet) addEpoch(random io.Reader, now time.Time) error {
	if len(s.epochs) >= MaxEpochs {
		return fmt.Errorf("the key set holds %d epoch keys, the most it can: %w", MaxEpochs, ErrTooManyEpochs)
	}
	e := epochKey{Epoch: Epoch{ID: 1, Created: time.Unix(now.Unix(), 0).UTC()}}
	if n := len(s.epochs); n > 0 {
		e.ID = s.epochs[n-1].ID + 1
	}
	if e.ID == 0 {
		return fmt.Errorf("the epoch numbers are used up: %w", ErrTooManyEpochs)
	}
	var err error
	if e.key, err = randomKey(random); err != nil {
		return fmt.Errorf("read random bytes for an epoch key: %w", err)
	}
	s.epochs = append(s.epochs, e)
	return nil
}

func (s *keySet) encode() []byte {
	b := make([]byte, 0, keySetPrelude+len(s.epochs)*epochSize)
	b = append(b, s.secret()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.epochs)))
	for _, e := range s.epochs {
		b = binary.BigEndian.AppendUint32(b, e.ID)
		b = binary.BigEndian.AppendUint64(b, uint64(e.Created.Unix()))
		b = append(b, e.key()...)
	}
	return b
}

var errKeySetMalformed = errors.New("key set is malformed")

// decodeKeySet copies what it needs out of b. It allocates in proportion to
// b's length, never to a number written in it.
func decodeKeySet(b []byte) (*keySet, error) {
	if len(b) < keySetPrelude {
		return nil, fmt.Errorf("%w: %d bytes are too few", errKeySetMalformed, len(b))
	}
	count := binary.BigEndian.Uint32(b[keySize:keySetPrelude])
	rest := b[keySetPrelude:]
	if count == 0 || count > MaxEpochs || len(rest) != int(count)*epochSize {
		return nil, fmt.Errorf("%w: %d epoch keys do not fit %d bytes", errKeySetMalformed, count, len(b))
	}
	set := &keySet{
		secret: newKey(b[:keySize]),
		epochs: make([]epochKey, 0, count),
	}
	var last uint32
	for ; len(rest) > 0; rest = rest[epochSize:] {
		e := epochKey{
			Epoch: Epoch{
				ID:      binary.BigEndian.Uint32(rest),
				Created: time.Unix(int64(binary.BigEndian.Uint64(rest[4:])), 0).UTC(),
			},
			key: newKey(rest[12:epochSize]),
		}
		set.epochs = append(set.epochs, e)
		if e.ID <= last {
			set.erase()
			return nil, fmt.Errorf("%w: epoch %d follows epoch %d", errKeySetMalformed, e.ID, last)
		}
		last = e.ID
	}
	return set, nil
}

// A stored key set is magic ‖ format ‖ length of root key id (1) ‖ root key id
// ‖ seal id ‖ what the root key made of the plaintext. All that stands before
// the last part is public, and authenticated by the root key.
type storedKeySet struct {
	header  []byte
	rootID  string
	id      sealID
	wrapped []byte
}

func parseStoredKeySet(b []byte) (storedKeySet, error) {
	switch {
	case len(b) > maxWrappedSet:
		return storedKeySet{}, fmt.Errorf("%w: %d bytes are too many", errKeySetMalformed, len(b))
	case len(b) < 3:
		return storedKeySet{}, fmt.Errorf("%w: %d bytes are too few", errKeySetMalformed, len(b))
	case b[0] != keySetMagic:
		return storedKeySet{}, fmt.Errorf("%w: its first byte is another", errKeySetMalformed)
	case b[1] != keySetFormat:
		return storedKeySet{}, errors.New("key set has a format that this version does not know: use the version that wrote it, or a newer one")
	}
	end := 3 + int(b[2]) + sealIDSize
	if b[2] == 0 || len(b) < end {
		return storedKeySet{}, fmt.Errorf("%w: its header does not fit", errKeySetMalformed)
	}
	s := storedKeySet{header: b[:end], rootID: string(b[3 : 3+int(b[2])]), wrapped: b[end:]}
	copy(s.id[:], b[end-sealIDSize:end])
	return s, nil
}

func keySetAAD(header []byte) []byte {
	return append(appendSized(nil, keySetPurpose), header...)
}

// wrapKeySet returns the set as it is stored.
func wrapKeySet(ctx context.Context, root RootKey, id sealID, set *keySet) ([]byte, error) {
	rootID := root.ID()
	if rootID == "" || len(rootID) > maxRootID {
		return nil, fmt.Errorf("root key id has %d bytes, want 1 to %d", len(rootID), maxRootID)
	}
	header := []byte{keySetMagic, keySetFormat, byte(len(rootID))}
	header = append(header, rootID...)
	header = append(header, id[:]...)

	plaintext := set.encode()
	defer clear(plaintext)
	wrapped, err := root.Wrap(ctx, plaintext, keySetAAD(header))
	if err != nil {
		return nil, fmt.Errorf("wrap the key set with root key %q: %w", rootID, err)
	}
	if n := len(header) + len(wrapped); n > maxWrappedSet {
		return nil, fmt.Errorf("wrapped key set has %d bytes, at most %d can be stored", n, maxWrappedSet)
	}
	return append(header, wrapped...), nil
}

// unwrapKeySet is the reverse of wrapKeySet. An altered set is an error that
// wraps core.ErrSealBroken; one under another root key is a
// *WrongRootKeyError.
func unwrapKeySet(ctx context.Context, root RootKey, stored []byte) (sealID, *keySet, error) {
	s, err := parseStoredKeySet(stored)
	if err != nil {
		return sealID{}, nil, fmt.Errorf("%w: %w", err, core.ErrSealBroken)
	}
	if given := root.ID(); given != s.rootID {
		return sealID{}, nil, &WrongRootKeyError{Sealed: s.rootID, Given: given}
	}
	plaintext, err := root.Unwrap(ctx, s.wrapped, keySetAAD(s.header))
	if err != nil {
		return sealID{}, nil, fmt.Errorf("unwrap the key set with root key %q: %w", s.rootID, err)
	}
	defer clear(plaintext)
	set, err := decodeKeySet(plaintext)
	if err != nil {
		return sealID{}, nil, fmt.Errorf("%w: %w", err, core.ErrSealBroken)
	}
	return s.id, set, nil
}

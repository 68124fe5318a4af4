package seal

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Options are for Open. The zero value is right for a program.
type Options struct {
	// MustExist refuses to make a key set where none is stored: Open then
	// returns an error that wraps core.ErrNotFound. Set it for a store that has
	// been written to, whose records a new key set could not open.
	MustExist bool
	// Now dates new epoch keys; nil means time.Now.
	Now func() time.Time

	// random replaces the system's random source, for golden vectors.
	random io.Reader
}

// Sealer implements core.Sealer. All its methods are safe for concurrent use.
// It prints as its seal id only.
type Sealer struct {
	id     sealID
	root   RootKey
	keys   core.SealKeys
	now    func() time.Time
	random io.Reader

	ring atomic.Pointer[keyring]
	// changing is held from loading a key set to having it in the ring.
	changing sync.Mutex
}

var _ core.Sealer = (*Sealer)(nil)

// keyring is a key set ready for use. It is never changed, only replaced.
type keyring struct {
	secret  secretKey
	active  uint32
	epochs  []Epoch
	ciphers map[uint32]xaes
}

func newKeyring(set *keySet) (*keyring, error) {
	ring := &keyring{
		secret:  newKey(set.secret()),
		epochs:  make([]Epoch, 0, len(set.epochs)),
		ciphers: make(map[uint32]xaes, len(set.epochs)),
	}
	for _, e := range set.epochs {
		c, err := newXAES(e.key())
		if err != nil {
			return nil, fmt.Errorf("epoch key %d: %w", e.ID, err)
		}
		ring.ciphers[e.ID] = c
		ring.epochs = append(ring.epochs, e.Epoch)
		ring.active = e.ID
	}
	return ring, nil
}

// Open loads the key set that keys holds and unwraps it with root. Where keys
// holds none, it makes the seal id and the first epoch key and stores them; when
// another process did so first, the error of keys' StoreSealKeys is returned
// and Open may be called again. A key set that another root key wrapped is a
// *WrongRootKeyError; an altered one wraps core.ErrSealBroken.
func Open(ctx context.Context, root RootKey, keys core.SealKeys, opts Options) (*Sealer, error) {
	s := &Sealer{root: root, keys: keys, now: opts.Now, random: opts.random}
	if s.now == nil {
		s.now = time.Now
	}
	if s.random == nil {
		s.random = rand.Reader
	}
	stored, err := keys.LoadSealKeys(ctx)
	switch {
	case err == nil:
		err = s.adopt(ctx, stored)
	case errors.Is(err, core.ErrNotFound) && !opts.MustExist:
		err = s.create(ctx)
	case errors.Is(err, core.ErrNotFound):
		err = fmt.Errorf("the store has records and no key set to open them with: restore it from a backup: %w", err)
	default:
		err = fmt.Errorf("load the key set: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the seal: %w", err)
	}
	return s, nil
}

func (s *Sealer) adopt(ctx context.Context, stored []byte) error {
	id, set, err := unwrapKeySet(ctx, s.root, stored)
	if err != nil {
		return err
	}
	defer set.erase()
	s.id = id
	return s.use(set)
}

func (s *Sealer) create(ctx context.Context) error {
	id, set, err := newKeySet(s.random)
	if err != nil {
		return err
	}
	defer set.erase()
	s.id = id
	return s.extend(ctx, set)
}

// extend adds an epoch to set, stores it, and only then uses it.
func (s *Sealer) extend(ctx context.Context, set *keySet) error {
	if err := set.addEpoch(s.random, s.now()); err != nil {
		return err
	}
	wrapped, err := wrapKeySet(ctx, s.root, s.id, set)
	if err != nil {
		return err
	}
	if err := s.keys.StoreSealKeys(ctx, wrapped); err != nil {
		return fmt.Errorf("store the key set: %w", err)
	}
	return s.use(set)
}

func (s *Sealer) use(set *keySet) error {
	ring, err := newKeyring(set)
	if err != nil {
		return err
	}
	s.ring.Store(ring)
	return nil
}

// ID returns the seal id, 32 hexadecimal digits. It is public and permanent.
func (s *Sealer) ID() string { return s.id.String() }

// Seal returns the plaintext encrypted under the active epoch and bound to its
// place, Overhead bytes longer. An empty plaintext is sealed like any other.
// Errors: place.Key is empty or a part of the place is longer than 1 MiB, the
// plaintext is longer than MaxPlaintext.
func (s *Sealer) Seal(place core.Place, plaintext []byte) ([]byte, error) {
	if err := checkPlace(place); err != nil {
		return nil, fmt.Errorf("seal a record: %w", err)
	}
	if len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("seal %s: the record has %d bytes, at most %d can be sealed", describe(place), len(plaintext), MaxPlaintext)
	}
	ring := s.ring.Load()
	const prefix = headerSize + nonceSize
	out := appendHeader(make([]byte, 0, Overhead+len(plaintext)), ring.active)[:prefix]
	header, nonce := out[:headerSize], out[headerSize:]
	if _, err := io.ReadFull(s.random, nonce); err != nil {
		return nil, fmt.Errorf("seal %s: read random bytes for a nonce: %w", describe(place), err)
	}
	out, err := ring.ciphers[ring.active].seal(out, nonce, plaintext, recordAAD(header, s.id, place))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", describe(place), err)
	}
	return out, nil
}

// Open returns the plaintext in a buffer of its own. Whatever is wrong with
// sealed is an error that wraps core.ErrSealBroken and names the place; a
// record of an epoch that this Sealer does not have also wraps
// ErrUnknownEpoch. A place that Seal would refuse is refused here too, by an
// error that does not wrap it: that is the caller's mistake.
func (s *Sealer) Open(place core.Place, sealed []byte) ([]byte, error) {
	if err := checkPlace(place); err != nil {
		return nil, fmt.Errorf("open a record: %w", err)
	}
	plaintext, err := s.open(place, sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", describe(place), err, core.ErrSealBroken)
	}
	return plaintext, nil
}

func (s *Sealer) open(place core.Place, sealed []byte) ([]byte, error) {
	e, err := parseEnvelope(sealed)
	if err != nil {
		return nil, err
	}
	cipher, ok := s.ring.Load().ciphers[e.epoch]
	if !ok {
		return nil, fmt.Errorf("epoch key %d: %w", e.epoch, ErrUnknownEpoch)
	}
	return cipher.open(e.nonce, e.box, recordAAD(e.header, s.id, place))
}

// NeedsReseal tells that a record is under an older epoch than the active one
// and should be opened, sealed again and stored. It reads only the envelope's
// header, which Open authenticates; it is false for bytes that are no
// envelope.
func (s *Sealer) NeedsReseal(sealed []byte) bool {
	e, err := parseEnvelope(sealed)
	return err == nil && e.epoch < s.ring.Load().active
}

// Epochs describes the epoch keys, oldest first. The last one is active.
func (s *Sealer) Epochs() []Epoch {
	return append([]Epoch(nil), s.ring.Load().epochs...)
}

// RotateEpoch adds an epoch key, stores the key set, and seals with the new key
// from then on. Records under older epochs still open. It starts from the key
// set as it is stored now; when another process changes that meanwhile, the
// error of StoreSealKeys is returned and nothing has changed. ErrTooManyEpochs
// when there are MaxEpochs already. After an error that leaves open whether the
// set was stored, such as an ended ctx, Reload finds out.
func (s *Sealer) RotateEpoch(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	set, err := s.loadAgain(ctx)
	if err != nil {
		return fmt.Errorf("rotate the epoch key: %w", err)
	}
	defer set.erase()
	if err := s.extend(ctx, set); err != nil {
		return fmt.Errorf("rotate the epoch key: %w", err)
	}
	return nil
}

// Reload loads the key set again, after another process has rotated it. Until
// then this Sealer seals under its own newest epoch, which every process can
// open. On an error the keys stay as they were.
func (s *Sealer) Reload(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	set, err := s.loadAgain(ctx)
	if err != nil {
		return fmt.Errorf("reload the key set: %w", err)
	}
	defer set.erase()
	if err := s.use(set); err != nil {
		return fmt.Errorf("reload the key set: %w", err)
	}
	return nil
}

// loadAgain returns the stored key set, which must be this seal's and must have
// every epoch that is in use: one that was set back would have records sealed
// that nobody opens.
func (s *Sealer) loadAgain(ctx context.Context) (*keySet, error) {
	stored, err := s.keys.LoadSealKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the key set: %w", err)
	}
	id, set, err := unwrapKeySet(ctx, s.root, stored)
	if err != nil {
		return nil, err
	}
	if id != s.id {
		set.erase()
		return nil, fmt.Errorf("the stored key set has seal id %s, this store's is %s: %w", id, s.id, core.ErrSealBroken)
	}
	used := s.ring.Load().epochs
	for i, e := range used {
		if i >= len(set.epochs) || set.epochs[i].Epoch != e {
			set.erase()
			return nil, fmt.Errorf("the stored key set lacks epoch key %d, which is in use: %w", e.ID, core.ErrSealBroken)
		}
	}
	return set, nil
}

// derivePurpose keeps derived keys apart from anything else that the
// derivation secret might be used for.
const derivePurpose = "credstore/seal/derive/"

// Derive returns a 32-byte key for the purpose: the same for as long as the
// store lives, over restarts, epochs and replicas, and unrelated to the key of
// any other purpose and to the epoch keys. The caller may change it.
func (s *Sealer) Derive(purpose string) []byte {
	// HKDF-Expand (RFC 5869 §2.3) with SHA-256 for exactly one block, written
	// out because that has no error to return. The secret is uniformly random,
	// so there is nothing to extract.
	mac := hmac.New(sha256.New, s.ring.Load().secret())
	mac.Write([]byte(derivePurpose + purpose))
	mac.Write([]byte{1})
	return mac.Sum(nil)
}

package seal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

const (
	envelopeMagic  = 0xC5
	envelopeFormat = 1

	headerSize = 1 + 1 + 4 // magic, format, epoch key id

	// Overhead is how many bytes a sealed record is longer than its plaintext.
	Overhead = headerSize + nonceSize + tagSize

	// MaxPlaintext is the longest plaintext in bytes that is sealed: eight
	// times the largest thing that is stored, and far below what AES-GCM
	// allows under one key.
	MaxPlaintext = 64 << 20

	recordPurpose = "credstore/seal/record"
)

// envelope is a sealed record taken apart. Its slices point into the record;
// nothing in it is authenticated yet.
type envelope struct {
	header []byte
	epoch  uint32
	nonce  []byte
	box    []byte // ciphertext and tag
}

// The ways in which bytes are not an envelope. They are reasons for people;
// programs ask for core.ErrSealBroken.
var (
	errTooShort      = errors.New("shorter than any sealed record")
	errTooLong       = errors.New("longer than any sealed record")
	errNotSealed     = errors.New("not a sealed record: its first byte is another")
	errUnknownFormat = errors.New("sealed in a format that this version does not know")
)

// parseEnvelope takes a record apart without copying it.
func parseEnvelope(sealed []byte) (envelope, error) {
	switch {
	case len(sealed) < Overhead:
		return envelope{}, errTooShort
	case sealed[0] != envelopeMagic:
		return envelope{}, errNotSealed
	case sealed[1] != envelopeFormat:
		return envelope{}, errUnknownFormat
	case len(sealed) > Overhead+MaxPlaintext:
		return envelope{}, errTooLong
	}
	return envelope{
		header: sealed[:headerSize],
		epoch:  binary.BigEndian.Uint32(sealed[2:headerSize]),
		nonce:  sealed[headerSize : headerSize+nonceSize],
		box:    sealed[headerSize+nonceSize:],
	}, nil
}

// appendHeader starts an envelope of the current format.
func appendHeader(dst []byte, epoch uint32) []byte {
	dst = append(dst, envelopeMagic, envelopeFormat)
	return binary.BigEndian.AppendUint32(dst, epoch)
}

// recordAAD encodes what a record is bound to. Every part is either of a fixed
// length or preceded by its length, so two bindings never share an encoding.
func recordAAD(header []byte, id sealID, place core.Place) []byte {
	n := 4 + len(recordPurpose) + headerSize + sealIDSize + 4 + len(place.Key) + 4 + len(place.UID) + 8
	aad := make([]byte, 0, n)
	aad = appendSized(aad, recordPurpose)
	aad = append(aad, header...)
	aad = append(aad, id[:]...)
	aad = appendSized(aad, place.Key)
	aad = appendSized(aad, place.UID)
	return binary.BigEndian.AppendUint64(aad, place.Version)
}

// maxPart bounds each text of a Place in bytes, so that its length always fits
// the encoding.
const maxPart = 1 << 20

func checkPlace(place core.Place) error {
	switch {
	case place.Key == "":
		return errors.New("place.Key is empty: name the storage key that the record is stored at")
	case len(place.Key) > maxPart:
		return fmt.Errorf("place.Key has %d bytes, at most %d are allowed", len(place.Key), maxPart)
	case len(place.UID) > maxPart:
		return fmt.Errorf("place.UID has %d bytes, at most %d are allowed", len(place.UID), maxPart)
	}
	return nil
}

func appendSized(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}

// describe names a place in an error. Keys and uids are public.
func describe(place core.Place) string {
	return fmt.Sprintf("%q (uid %q, version %d)", place.Key, place.UID, place.Version)
}

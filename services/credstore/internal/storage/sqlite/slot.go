package sqlite

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// A slot is the data of one row of table slot:
//
//	revision     8 bytes, big endian; 0 when the slot is free
//	key length   2 bytes
//	value length 4 bytes
//	key, value
//	zeros to the slot's length
//
// A free slot is all zeros. A slot never changes its length, so SQLite
// overwrites it in place and never moves or copies it (see doc.go).
const slotHeader = 8 + 2 + 4

// slotSize returns the length of a new slot for n bytes: n rounded up by an
// eighth at most, and to no less than 64, so that slots of few lengths serve
// records of many.
func slotSize(n int) int {
	step := max(64, 1<<bits.Len(uint(max(n-1, 0)))>>4)
	return (n + step - 1) / step * step
}

// slotFits tells whether a record of n bytes belongs into a slot of that size
// rather than into another one: it must fit and not waste more than half.
func slotFits(size, n int) bool {
	return n <= size && size <= 2*slotSize(n)
}

// slotNeed is how many bytes a record takes.
func slotNeed(key string, value []byte) int {
	return slotHeader + len(key) + len(value)
}

// encodeSlot returns the record as a slot of the given size, which it fits.
func encodeSlot(size int, rev core.Revision, key string, value []byte) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint64(b, uint64(rev))
	binary.BigEndian.PutUint16(b[8:], uint16(len(key)))
	binary.BigEndian.PutUint32(b[10:], uint32(len(value)))
	copy(b[slotHeader:], key)
	copy(b[slotHeader+len(key):], value)
	return b
}

// decodeSlot returns the slot's record, with a Value of its own, or a Revision
// of 0 for a free slot.
func decodeSlot(b []byte) (core.Record, error) {
	key, value, rev, err := splitSlot(b)
	if err != nil || rev == 0 {
		return core.Record{}, err
	}
	return core.Record{Key: string(key), Value: append(make([]byte, 0, len(value)), value...), Revision: rev}, nil
}

func splitSlot(b []byte) (key, value []byte, rev core.Revision, err error) {
	if len(b) < slotHeader {
		return nil, nil, 0, fmt.Errorf("slot of %d bytes: %w", len(b), ErrCorrupt)
	}
	rev = core.Revision(binary.BigEndian.Uint64(b))
	if rev == 0 {
		return nil, nil, 0, nil
	}
	keyLen := int(binary.BigEndian.Uint16(b[8:]))
	valueLen := int(binary.BigEndian.Uint32(b[10:]))
	if keyLen == 0 || valueLen > len(b)-slotHeader-keyLen {
		return nil, nil, 0, fmt.Errorf("slot of %d bytes with a key of %d and a value of %d: %w", len(b), keyLen, valueLen, ErrCorrupt)
	}
	b = b[slotHeader:]
	return b[:keyLen], b[keyLen : keyLen+valueLen], rev, nil
}

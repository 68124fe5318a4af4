package sqlite

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// A block is the row of table log for one SQLite transaction: the commits of a
// group, which have consecutive revisions. The row's key is the last of them.
//
//	format           1 byte, 1
//	first revision   uvarint
//	commits          uvarint, at least 1
//	for each commit
//	  nonce          8 bytes, big endian
//	  time           8 bytes, big endian, Unix nanoseconds
//	  changes        uvarint, at least 1
//	  for each change
//	    key length   uvarint, times 2, plus 1 for a delete
//	    key
//
// Values are not kept. One row for a group rather than one per commit spares
// a fifth of the time of a large group.
const blockFormat = 1

func encodeBlock(commits []core.Commit) []byte {
	size := 1 + 2*binary.MaxVarintLen64
	for _, c := range commits {
		size += 16 + binary.MaxVarintLen64
		for _, ch := range c.Changes {
			size += binary.MaxVarintLen32 + len(ch.Key)
		}
	}
	b := append(make([]byte, 0, size), blockFormat)
	b = binary.AppendUvarint(b, uint64(commits[0].Revision))
	b = binary.AppendUvarint(b, uint64(len(commits)))
	for _, c := range commits {
		b = binary.BigEndian.AppendUint64(b, c.Nonce)
		b = binary.BigEndian.AppendUint64(b, uint64(c.Time.UnixNano()))
		b = binary.AppendUvarint(b, uint64(len(c.Changes)))
		for _, ch := range c.Changes {
			n := uint64(len(ch.Key)) << 1
			if ch.Delete {
				n |= 1
			}
			b = binary.AppendUvarint(b, n)
			b = append(b, ch.Key...)
		}
	}
	return b
}

// decodeBlock returns the commits of the block whose last revision is given.
// Their changes have no values.
func decodeBlock(b []byte, last core.Revision) ([]core.Commit, error) {
	d := decoder{b: b}
	if format := d.take(1); len(format) == 1 && format[0] != blockFormat {
		return nil, fmt.Errorf("log block %d has format %d, want %d: %w", last, format[0], blockFormat, ErrCorrupt)
	}
	first, n := d.uvarint(), d.uvarint()
	if n == 0 || first == 0 || n > uint64(len(d.b)) || first > uint64(last) || uint64(last)-first != n-1 {
		return nil, fmt.Errorf("log block %d holds %d commits from %d: %w", last, n, first, ErrCorrupt)
	}
	commits := make([]core.Commit, 0, n)
	for i := range n {
		c := core.Commit{Revision: core.Revision(first + i), Nonce: d.uint64()}
		c.Time = time.Unix(0, int64(d.uint64())).UTC()
		changes := d.uvarint()
		if changes == 0 || changes > uint64(len(d.b)) {
			return nil, fmt.Errorf("log block %d is cut short or holds an empty commit: %w", last, ErrCorrupt)
		}
		c.Changes = make([]core.Change, 0, changes)
		for range changes {
			l := d.uvarint()
			key := d.take(l >> 1)
			if len(key) == 0 {
				return nil, fmt.Errorf("log block %d is cut short or holds an empty key: %w", last, ErrCorrupt)
			}
			c.Changes = append(c.Changes, core.Change{Key: string(key), Delete: l&1 == 1})
		}
		commits = append(commits, c)
	}
	if d.short || len(d.b) != 0 {
		return nil, fmt.Errorf("log block %d is not as long as it says: %w", last, ErrCorrupt)
	}
	return commits, nil
}

// decoder reads from b. Past the end it sets short and returns zeros.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.b, d.short = nil, true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.short = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint64() uint64 {
	b := d.take(8)
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

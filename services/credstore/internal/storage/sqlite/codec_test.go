package sqlite

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func sampleBlock() []core.Commit {
	at := time.Unix(1_700_000_000, 123).UTC()
	return []core.Commit{
		{Revision: 41, Nonce: 1, Time: at, Changes: []core.Change{{Key: "a"}}},
		{Revision: 42, Nonce: 1<<64 - 1, Time: at.Add(time.Second), Changes: []core.Change{
			{Key: strings.Repeat("long", 100)}, {Key: "\x00\xff", Delete: true},
		}},
		{Revision: 43, Nonce: 7, Time: time.Unix(0, -5).UTC(), Changes: []core.Change{{Key: "b", Delete: true}}},
	}
}

func TestBlock(t *testing.T) {
	want := sampleBlock()
	b := encodeBlock(want)
	got, err := decodeBlock(b, 43)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for n := range b {
		if _, err := decodeBlock(b[:n], 43); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v, want ErrCorrupt", n, len(b), err)
		}
	}
	if _, err := decodeBlock(append(b, 0), 43); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := decodeBlock(b, 42); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another row's block: %v", err)
	}
	if _, err := decodeBlock(append([]byte{2}, b[1:]...), 43); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("another format: %v", err)
	}
}

// TestBlockFormat pins the bytes on disk.
func TestBlockFormat(t *testing.T) {
	got := encodeBlock([]core.Commit{{
		Revision: 300, Nonce: 0x0102030405060708, Time: time.Unix(0, 0x1112131415161718),
		Changes: []core.Change{{Key: "ab"}, {Key: "c", Delete: true}},
	}})
	want := "\x01" + "\xac\x02" + "\x01" + "\x01\x02\x03\x04\x05\x06\x07\x08" + "\x11\x12\x13\x14\x15\x16\x17\x18" + "\x02" + "\x04ab" + "\x03c"
	if d := cmp.Diff([]byte(want), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	slot := encodeSlot(64, 0x0102, "key", []byte("value"))
	wantSlot := "\x00\x00\x00\x00\x00\x00\x01\x02" + "\x00\x03" + "\x00\x00\x00\x05" + "keyvalue"
	if d := cmp.Diff([]byte(wantSlot+strings.Repeat("\x00", 64-len(wantSlot))), slot); d != "" {
		t.Errorf("slot (-want +got):\n%s", d)
	}
}

// FuzzBlock: what decodes is what encodes to the same commits, and nothing
// makes the decoder allocate more than the input justifies or go astray.
func FuzzBlock(f *testing.F) {
	f.Add(encodeBlock(sampleBlock()), uint64(43))
	f.Add([]byte{1, 1, 1}, uint64(1))
	f.Add([]byte("\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), uint64(1<<63))
	f.Fuzz(func(t *testing.T, b []byte, last uint64) {
		commits, err := decodeBlock(b, core.Revision(last))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v does not wrap ErrCorrupt", err)
			}
			return
		}
		if got := commits[len(commits)-1].Revision; got != core.Revision(last) {
			t.Fatalf("last revision %d, want %d", got, last)
		}
		again, err := decodeBlock(encodeBlock(commits), core.Revision(last))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(commits, again); d != "" {
			t.Fatalf("(-first +again):\n%s", d)
		}
	})
}

// FuzzSlot: what decodes fits its slot and encodes to the same record.
func FuzzSlot(f *testing.F) {
	f.Add(encodeSlot(64, 7, "key", []byte("value")))
	f.Add(make([]byte, 64))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decodeSlot(b)
		if err != nil || rec.Revision == 0 {
			return
		}
		need := slotNeed(rec.Key, rec.Value)
		if need > len(b) {
			t.Fatalf("record of %d bytes from a slot of %d", need, len(b))
		}
		if !bytes.Equal(encodeSlot(len(b), rec.Revision, rec.Key, rec.Value)[:need], b[:need]) {
			t.Fatal("encodes differently")
		}
	})
}

func TestSlotSize(t *testing.T) {
	for n := 1; n < 3_000_000; n += 1 + n/97 {
		size := slotSize(n)
		if size < n || size > max(n+63, n+n/8) || slotSize(size) != size {
			t.Fatalf("slotSize(%d) = %d, slotSize of that %d", n, size, slotSize(size))
		}
		if !slotFits(size, n) || slotFits(n-1, n) {
			t.Fatalf("slotFits is wrong at %d", n)
		}
	}
}

func TestSlotsTake(t *testing.T) {
	s := slots{next: 10, free: map[int][]int64{}}
	s.give(1, slotSize(100)) // 128
	s.give(2, slotSize(1000))
	for _, c := range []struct {
		n        int
		id       int64
		size     int
		appended bool
		why      string
	}{
		{600, 2, 1024, false, "a larger one that is not wasted"},
		{600, 10, 640, true, "no other"},
		{70, 1, 128, false, "its own size"},
		{70, 11, 128, true, "none left"},
	} {
		id, size, appended := s.take(c.n)
		if id != c.id || size != c.size || appended != c.appended {
			t.Errorf("take(%d) = %d, %d, %v, want %d, %d, %v: %s", c.n, id, size, appended, c.id, c.size, c.appended, c.why)
		}
	}
}

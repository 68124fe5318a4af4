package inject

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/credstore/credstore/pkg/inject/fileset"
	"github.com/credstore/credstore/pkg/targetpath"
)

// memory is a disk that never fails.
type memory struct{ files map[string]fileset.File }

func (m *memory) Publish(_ context.Context, files []fileset.File) (fileset.Change, error) {
	paths := make([]string, len(files))
	next := map[string]fileset.File{}
	for i, f := range files {
		paths[i] = f.Path
		f.Content = slices.Clone(f.Content)
		next[f.Path] = f
	}
	if err := targetpath.ValidateAll(paths); err != nil {
		return fileset.Change{}, err
	}
	m.files = next
	return fileset.Change{}, nil
}

func (m *memory) Current() (map[string]fileset.File, error) {
	files := maps.Clone(m.files)
	for p, f := range files {
		f.Content = slices.Clone(f.Content)
		files[p] = f
	}
	return files, nil
}

// mute is a source that only counts.
type mute struct{ reconnects int }

func (m *mute) Run(ctx context.Context, _ Consumer) error { <-ctx.Done(); return nil }
func (m *mute) Report(Report)                             {}
func (m *mute) Reconnect()                                { m.reconnects++ }

// serverModel is what a server that keeps the contract knows, and what the files must
// therefore be.
type serverModel struct {
	items map[string]*modelItem
	// sent is the digest of each content that the stream has delivered or that
	// Have named.
	sent    map[string]string
	version int
	started bool
}

type modelItem struct {
	group  string
	value  string // the current one
	last   string // the last one delivered to the engine; empty for none
	failed bool
	file   string // what must be on the disk; empty for nothing
}

// groups says which group each item belongs to.
var groups = map[string]string{"a": "", "b": "", "c": "g", "d": "g", "e": "h", "f": "h"}

// message describes the items named as the contract says.
func (m *serverModel) message(ids []string) []Item {
	var items []Item
	for _, id := range ids {
		it := m.items[id]
		out := Item{ID: id, Path: id, Injection: "i", Group: it.group, Digest: "digest of " + it.value}
		switch {
		case it.failed:
			out.State = Failed
		case m.sent[id] != out.Digest:
			out.HasContent, out.Content = true, []byte(it.value)
			m.sent[id] = out.Digest
			it.last = it.value
		default:
			it.last = it.value
		}
		items = append(items, out)
	}
	return items
}

// settle works out what must be on the disk now.
func (m *serverModel) settle() {
	bad := map[string]bool{}
	for _, it := range m.items {
		if it.failed && it.group != "" {
			bad[it.group] = true
		}
		if !m.started && it.failed && (it.group != "" || it.last == "") {
			return // the first start waits
		}
	}
	m.started = true
	for _, it := range m.items {
		switch {
		case it.group == "":
			it.file = it.last
		case !bad[it.group]:
			it.file = it.value
		}
	}
}

// FuzzMerge plays a server that keeps the contract, and reconnects at will,
// and compares the files with what they must be after each message.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0x80})
	f.Add([]byte{0x00, 0x02, 0x03, 0x43, 0x03, 0x80, 0x43, 0x82, 0x20, 0xc0})
	f.Add([]byte{0x40, 0x41, 0x42, 0x00, 0x80, 0x01, 0x02, 0xc3, 0x05, 0x45, 0x04})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		disk, src := &memory{}, &mute{}
		e, err := New(Options{Source: src, Files: disk})
		if err != nil {
			t.Fatal(err)
		}
		defer e.retryTimer.Stop()
		to := consumer{e}
		m := &serverModel{items: map[string]*modelItem{}, sent: map[string]string{}}
		connected := false
		for i, b := range script {
			id := string("abcdef"[int(b&7)%6])
			it, there := m.items[id]
			s := Set{Revision: uint64(i)}
			switch b >> 6 {
			case 0: // a new value
				if !there {
					it = &modelItem{group: groups[id]}
					m.items[id] = it
				}
				m.version++
				it.value, it.failed = fmt.Sprint("value ", m.version), false
			case 1: // failed, or back with the value from before
				if !there {
					it = &modelItem{group: groups[id], failed: true, value: "never"}
					m.items[id] = it
					break
				}
				it.failed = !it.failed
			case 2: // removed
				delete(m.items, id)
				delete(m.sent, id)
				s.Removed = []string{id}
			case 3: // the connection is lost
				connected = false
			}
			ids := []string{id}
			if m.items[id] == nil {
				ids = nil
			}
			if !connected {
				connected = true
				s.Whole, s.Removed = true, nil
				m.sent = to.Have()
				ids = slices.Sorted(maps.Keys(m.items))
			}
			s.Items = m.message(ids)
			to.Set(t.Context(), s)
			m.settle()

			want, got := map[string]string{}, map[string]string{}
			for id, it := range m.items {
				if it.file != "" {
					want[id] = it.file
				}
			}
			for p, f := range disk.files {
				got[p] = string(f.Content)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("after step %d of %x (-want +got):\n%s", i+1, script, diff)
			}
			if e.wanting {
				t.Fatalf("after step %d of %x: a content is missing that the server sent", i+1, script)
			}
		}
	})
}

package inject

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/credstore/credstore/pkg/inject/fileset"
	"github.com/credstore/credstore/pkg/targetpath"
)

// manifest is what the server wants, and what is known of each item's content.
type manifest struct {
	revision uint64
	entries  map[string]*entry
	// gone are the items whose removal is not published yet: id to injection.
	gone map[string]string
	// found are files that were on the disk when the engine started. The first
	// whole set claims them.
	found map[string]*onDisk
}

// entry is one item of the manifest.
type entry struct {
	item Item // without content
	// target is the item's file without content; refused says why there can be
	// none.
	target  fileset.File
	refused string
	// pending is a content that was delivered and is not on the disk.
	pending *content
	// applied is what is on the disk; nil if nothing is.
	applied *onDisk
}

type content struct {
	digest string // the item's, when this was delivered
	bytes  []byte
}

// onDisk says what is known of a published file.
type onDisk struct {
	// digest is the item's at the time of writing; empty if it is not known, or
	// if somebody else changed the file.
	digest string
	sum    [sha256.Size]byte
	// kept is the file where this process cannot read back what it wrote, as
	// it gave it to another user.
	kept *fileset.File
}

func newManifest(found map[string]fileset.File) *manifest {
	m := &manifest{entries: map[string]*entry{}, gone: map[string]string{}, found: map[string]*onDisk{}}
	for p, f := range found {
		m.found[p] = &onDisk{sum: sha256.Sum256(f.Content)}
		clear(f.Content)
	}
	return m
}

// merge brings the manifest up to date with one message.
func (m *manifest) merge(s Set) {
	m.revision = s.Revision
	removed := s.Removed
	if s.Whole {
		stays := make(map[string]bool, len(s.Items))
		for _, it := range s.Items {
			stays[it.ID] = true
		}
		removed = nil
		for id := range m.entries {
			if !stays[id] {
				removed = append(removed, id)
			}
		}
	}
	for _, id := range removed {
		if e, ok := m.entries[id]; ok {
			m.gone[id] = e.item.Injection
			e.drop()
			delete(m.entries, id)
		}
	}
	for _, it := range s.Items {
		m.put(it)
	}
	if s.Whole {
		// What nobody claimed is no part of the set any more.
		clear(m.found)
	}
}

func (m *manifest) put(it Item) {
	e, ok := m.entries[it.ID]
	if !ok || e.item.Path != it.Path {
		if ok {
			e.drop()
		}
		e = &entry{applied: m.found[it.Path]}
		m.entries[it.ID] = e
	}
	delete(m.gone, it.ID)
	switch {
	case it.HasContent:
		e.drop()
		e.pending = &content{digest: it.Digest, bytes: it.Content}
	case it.State != Failed && e.pending != nil && e.pending.digest != it.Digest:
		e.drop() // superseded by what is on the disk
	}
	it.Content = nil
	e.item = it
	e.target, e.refused = target(it)
}

// drop forgets a pending content.
func (e *entry) drop() {
	if e.pending != nil {
		clear(e.pending.bytes)
		e.pending = nil
	}
}

// have returns the digests of contents that need not be sent again.
func (m *manifest) have() map[string]string {
	have := make(map[string]string, len(m.entries))
	for id, e := range m.entries {
		digest := ""
		switch {
		case e.pending != nil:
			digest = e.pending.digest
		case e.applied != nil:
			digest = e.applied.digest
		}
		if digest != "" {
			have[id] = digest
		}
	}
	return have
}

// ids returns the ids of all items, in order.
func (m *manifest) ids() []string { return slices.Sorted(maps.Keys(m.entries)) }

// target returns the file that an item wants, or why it cannot have it.
func target(it Item) (fileset.File, string) {
	if err := targetpath.Validate(it.Path); err != nil {
		return fileset.File{}, err.Error()
	}
	f := fileset.File{Path: it.Path, Mode: fileset.DefaultMode}
	if it.Mode != "" {
		mode, err := strconv.ParseUint(it.Mode, 8, 32)
		if err != nil || fs.FileMode(mode)&^fs.ModePerm != 0 {
			return fileset.File{}, fmt.Sprintf("mode %.16q is not octal permission bits, as 0400", it.Mode)
		}
		f.Mode = fs.FileMode(mode)
	}
	for _, o := range []struct {
		name string
		from *uint32
		to   **int
	}{{"uid", it.UID, &f.UID}, {"gid", it.GID, &f.GID}} {
		if o.from == nil {
			continue
		}
		// The largest number means "leave it alone" to the system call.
		if *o.from == math.MaxUint32 {
			return fileset.File{}, fmt.Sprintf("%s %d does not exist", o.name, *o.from)
		}
		id := int(*o.from)
		*o.to = &id
	}
	return f, ""
}

// absent returns those of the injections that have no item here.
func (m *manifest) absent(injections []string) []string {
	present := make(map[string]bool)
	for _, e := range m.entries {
		present[e.item.Injection] = true
	}
	return slices.DeleteFunc(slices.Clone(injections), func(name string) bool { return present[name] })
}

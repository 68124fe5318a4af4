package fileset

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"github.com/credstore/credstore/pkg/targetpath"
)

// Change tells how a published set differs from the one before it: paths, in
// the order of names.
type Change struct {
	Added   []string
	Changed []string // another content, mode or owner
	Removed []string
}

// Empty says whether no file differs.
func (c Change) Empty() bool {
	return len(c.Added)+len(c.Changed)+len(c.Removed) == 0
}

// Publish makes files the whole set: those that are not among them are
// removed. Order does not matter; no files at all is a set too. It compares
// with the disk and writes nothing when nothing changed; missing or foreign
// links are put right even then, which is no Change.
//
// When it returns an error, the set from before stays exactly as it was and
// nothing of the new one remains, with one exception: a *[SettleError] comes
// with a Change, and says that the new set is the published one. Errors of the
// request are *[targetpath.Error], *[targetpath.OverlapError] and *[FileError]; of root,
// *[ConflictError]; of privileges, *[OwnerError]; others wrap the system's
// error. Cancelling ctx counts until the switch.
func (d *Dir) Publish(ctx context.Context, files []File) (Change, error) {
	// 1. Refuse what cannot be a set before the disk is touched.
	want, err := checkFiles(files)
	if err != nil {
		return Change{}, fmt.Errorf("publish: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()

	// 2. Compare with what is there; stop if it is the same.
	s, err := d.lookOpen()
	if err != nil {
		return Change{}, fmt.Errorf("publish: look at root: %w", err)
	}
	names := make(map[string]bool)
	for _, f := range want {
		names[firstElement(f.Path)] = true
	}
	if err := checkConflicts(s, names); err != nil {
		return Change{}, fmt.Errorf("publish: %w", err)
	}
	change, unchanged := d.compare(s, want)
	rebuild := s.data == "" || !s.sound || !change.Empty()
	links := missingLinks(s, names)
	if !rebuild && len(links) == 0 && len(staleLinks(s, names)) == 0 && len(s.litter) == 0 && !d.unsettled {
		return Change{}, nil
	}
	d.unsettled = true

	// 3, 4, 5. Write the new set where nobody looks.
	data, wrote := s.data, d.written
	if rebuild {
		if data, wrote, err = d.build(ctx, s, want, unchanged); err != nil {
			return Change{}, fmt.Errorf("publish: %w", err)
		}
	}
	// 6, 7. Make it the published one.
	if err := d.switchTo(ctx, s, data, links); err != nil {
		return Change{}, fmt.Errorf("publish: %w", err)
	}
	d.written = wrote
	// 8, 9, 10. Make that last, and clear up.
	replaced := ""
	if rebuild {
		replaced = s.data
	}
	if err := d.settle(s, names, replaced); err != nil {
		return change, fmt.Errorf("publish: %w", &SettleError{Err: err})
	}
	return change, nil
}

// compare returns what differs from the published set, and the files that do not.
func (d *Dir) compare(s *state, want []File) (Change, map[string]bool) {
	var change Change
	unchanged := make(map[string]bool)
	wanted := make(map[string]bool, len(want))
	for _, f := range want {
		wanted[f.Path] = true
		info, there := s.files[f.Path]
		switch {
		case !there:
			change.Added = append(change.Added, f.Path)
		case d.same(path.Join(s.data, f.Path), info, f, s.gid):
			unchanged[f.Path] = true
		default:
			change.Changed = append(change.Changed, f.Path)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(s.files)) {
		if !wanted[p] {
			change.Removed = append(change.Removed, p)
		}
	}
	return change, unchanged
}

// checkConflicts finds what is in the way of a link and must not be replaced.
func checkConflicts(s *state, names map[string]bool) error {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if isSymlink, there := s.others[name]; there && !isSymlink {
			return &ConflictError{Name: name}
		}
	}
	return nil
}

// missingLinks returns the names that need a link in root and have none, or a
// symlink to elsewhere.
func missingLinks(s *state, names map[string]bool) []string {
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if isSymlink, there := s.others[name]; !s.links[name] && (!there || isSymlink) {
			missing = append(missing, name)
		}
	}
	return missing
}

// staleLinks returns the links in root that lead to nothing in the set.
func staleLinks(s *state, names map[string]bool) []string {
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(s.links)) {
		if !names[name] {
			stale = append(stale, name)
		}
	}
	return stale
}

// build writes a set into a new data directory, which it removes again if it
// fails. It returns its name and what is known about its files.
func (d *Dir) build(ctx context.Context, s *state, want []File, unchanged map[string]bool) (_ string, _ map[string]written, err error) {
	// 3. A new directory that only this process may enter.
	name := newDataName()
	defer func() {
		if err != nil {
			err = errors.Join(err, d.disk.removeAll(name))
		}
	}()
	if err := d.disk.mkdir(name); err != nil {
		return "", nil, err
	}
	dir, err := d.openNew(name)
	if err != nil {
		return "", nil, err
	}
	defer dir.root.Close() //nolint:errcheck // a directory handle
	batch := syncBatch{disk: dir}
	defer batch.close()

	// 4. Each file with content, mode and owner. An unchanged one is a second
	// name of the file that is there: it was synced when it was written, keeps
	// its time stamps, and no mode or owner of it is ever changed.
	wrote := make(map[string]written, len(want))
	made, dirs := make(map[string]bool), []string{"."}
	for _, f := range want {
		if err := ctx.Err(); err != nil {
			return "", nil, err
		}
		if err := dir.mkdirAll(path.Dir(f.Path), made, &dirs); err != nil {
			return "", nil, err
		}
		if unchanged[f.Path] {
			reused, err := d.reuse(s, f, name)
			if err != nil {
				return "", nil, err
			}
			if reused {
				if w, ok := d.written[f.Path]; ok {
					wrote[f.Path] = w
				}
				continue
			}
		}
		h, info, err := dir.create(f)
		if err != nil {
			return "", nil, err
		}
		wrote[f.Path] = written{info: info, sum: sha256.Sum256(f.Content)}
		if err := batch.add(h); err != nil {
			return "", nil, err
		}
	}

	// 5. The final mode of each directory, innermost first, and everything
	// synced: after the switch no power cut may find a name without a content.
	for _, p := range slices.Backward(dirs) {
		h, err := dir.openDir(p, d.opts.DirMode)
		if err != nil {
			return "", nil, err
		}
		if err := batch.add(h); err != nil {
			return "", nil, err
		}
	}
	return name, wrote, batch.flush()
}

// reuse gives an unchanged file of the published set a second name in the new
// data directory. It looks again at what it got, where nobody else can change
// names: the file may have been replaced since it was compared.
func (d *Dir) reuse(s *state, f File, data string) (bool, error) {
	name := path.Join(data, f.Path)
	linked, err := d.disk.link(path.Join(s.data, f.Path), name)
	if err != nil || !linked {
		return false, err
	}
	if info, err := d.disk.root.Lstat(name); err == nil && d.same(name, info, f, s.gid) {
		return true, nil
	}
	return false, d.disk.remove(name)
}

// openNew opens a directory that was just made, and makes sure that it is that
// one: somebody else who may write to root could have put another in its place.
func (d *Dir) openNew(name string) (disk, error) {
	made, err := d.disk.root.Lstat(name)
	if err != nil {
		return disk{}, err
	}
	root, err := d.disk.root.OpenRoot(name)
	if err != nil {
		return disk{}, err
	}
	opened, err := root.Stat(".")
	if err == nil && !(made.IsDir() && os.SameFile(made, opened) && ownedByUs(opened)) {
		err = fmt.Errorf("%s was replaced while it was made: others must not be allowed to write to root", targetpath.Quote(name))
	}
	if err != nil {
		_ = root.Close()
		return disk{}, err
	}
	return disk{root: root, at: name, before: d.disk.before}, nil
}

// switchTo makes data the published data directory, if it is not already, and
// gives root the links that it lacks. If it fails, it takes back what it did
// and removes data.
func (d *Dir) switchTo(ctx context.Context, s *state, data string, links []string) (err error) {
	stays := s.names()
	var made []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range made {
			if !stays[name] {
				err = errors.Join(err, d.disk.remove(name))
			}
		}
		if data != s.data {
			err = errors.Join(err, d.disk.removeAll(data))
		}
	}()

	// 6. Links of names that are new. Until the switch they lead nowhere, as
	// if they were not there, and with it all of them work at the same time.
	for _, name := range links {
		if err := d.disk.symlink(dataLink+"/"+name, name, newTempName()); err != nil {
			return err
		}
		made = append(made, name)
	}
	if data == s.data {
		return nil
	}
	if s.blocked {
		if err := d.disk.removeAll(dataLink); err != nil {
			return err
		}
	}

	// 7. The switch: one rename. From here on there is no way back.
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.disk.symlink(data, dataLink, newTempName())
}

// settle makes the published set last and removes what is no part of it.
func (d *Dir) settle(s *state, names map[string]bool, replaced string) error {
	// 8. Sync root, before anything of the old set goes: a power cut must not
	// find the old set published and its files removed.
	if d.unsettled {
		if err := d.disk.announce(opSync, "."); err != nil {
			return err
		}
		if err := syncFile(d.self); err != nil {
			return err
		}
		d.unsettled = false
	}

	// 9. Links of names that are gone.
	var failed error
	for _, name := range staleLinks(s, names) {
		failed = errors.Join(failed, d.disk.remove(name))
	}

	// 10. The replaced data directory, once its readers are done, and
	// leftovers. A power cut may bring them back; then Open removes them.
	for _, name := range s.litter {
		failed = errors.Join(failed, d.disk.removeAll(name))
	}
	if replaced != "" {
		failed = errors.Join(failed, d.retire(replaced))
	}
	return failed
}

// retire removes a replaced data directory after the time that it lingers.
func (d *Dir) retire(name string) error {
	if d.opts.Linger < 0 {
		return d.disk.removeAll(name)
	}
	err := d.removeLingering(maxLingering - 1)
	l := &lingerer{name: name}
	d.timers.Add(1)
	l.timer = time.AfterFunc(d.opts.Linger, func() {
		defer d.timers.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		if i := slices.Index(d.lingering, l); i >= 0 {
			d.lingering = slices.Delete(d.lingering, i, i+1)
			// If this fails, the next Publish finds it as litter, and reports it.
			_ = d.disk.removeAll(l.name)
		}
	})
	d.lingering = append(d.lingering, l)
	return err
}

// removeLingering removes the oldest replaced data directories until at most
// most are left.
func (d *Dir) removeLingering(most int) error {
	var failed error
	for len(d.lingering) > most {
		l := d.lingering[0]
		d.lingering = d.lingering[1:]
		if l.timer.Stop() {
			d.timers.Done()
		}
		failed = errors.Join(failed, d.disk.removeAll(l.name))
	}
	return failed
}

// newDataName returns a name for a data directory: the time for people, the
// random part so that nobody can have it already.
func newDataName() string {
	return ".." + time.Now().UTC().Format("2006_01_02_15_04_05") + "." + random()
}

func newTempName() string { return "..link." + random() }

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return hex.EncodeToString(b[:])
}

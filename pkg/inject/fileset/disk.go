package fileset

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// op names one kind of change to the disk.
type op string

const (
	opMkdir   op = "mkdir"
	opCreate  op = "create"
	opWrite   op = "write"
	opChmod   op = "chmod"
	opChown   op = "chown"
	opLink    op = "link"
	opSymlink op = "symlink"
	opRename  op = "rename"
	opRemove  op = "remove"
	opSync    op = "sync"
)

// disk makes all changes beneath one directory, and nowhere else. Nothing in
// this package changes a file system but through it.
type disk struct {
	root *os.Root
	at   string // the directory's path relative to the root of the set
	// before, if set, is told of each change before it is made, in the
	// goroutine that called, and may refuse it. Tests crash and fail there.
	before func(what op, name string) error
}

func (d disk) announce(what op, name string) error {
	if d.before == nil {
		return nil
	}
	return d.before(what, path.Join(d.at, name))
}

// mkdir makes a directory that only its owner may enter, whatever the umask,
// and with the set-group-id bit if its parent hands that down.
func (d disk) mkdir(name string) error {
	if err := d.announce(opMkdir, name); err != nil {
		return err
	}
	if err := d.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	info, err := d.root.Lstat(name)
	if err != nil || info.Mode().Perm() == 0o700 {
		return err
	}
	if err := d.announce(opChmod, name); err != nil {
		return err
	}
	return d.root.Chmod(name, info.Mode()&fs.ModeSetgid|0o700)
}

// mkdirAll makes the directories above a file that are missing, and adds them
// to made in the order of their making.
func (d disk) mkdirAll(name string, made map[string]bool, order *[]string) error {
	if name == "." || made[name] {
		return nil
	}
	if err := d.mkdirAll(path.Dir(name), made, order); err != nil { // bounded by targetpath.MaxElements
		return err
	}
	if err := d.mkdir(name); err != nil {
		return err
	}
	made[name] = true
	*order = append(*order, name)
	return nil
}

// create writes a file that must not exist, with its mode and owner. It
// returns it open, to be synced, and as it is now.
func (d disk) create(f File) (_ *os.File, _ fs.FileInfo, err error) {
	if err := d.announce(opCreate, f.Path); err != nil {
		return nil, nil, err
	}
	h, err := d.root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = h.Close()
		}
	}()
	if err := d.announce(opWrite, f.Path); err != nil {
		return nil, nil, err
	}
	if _, err := h.Write(f.Content); err != nil {
		return nil, nil, err
	}
	// The mode comes before the owner: a process that may give files away
	// need not have the right to change those of others.
	if err := d.announce(opChmod, f.Path); err != nil {
		return nil, nil, err
	}
	if err := h.Chmod(f.Mode); err != nil {
		return nil, nil, err
	}
	if err := d.chown(h, f); err != nil {
		return nil, nil, err
	}
	info, err := h.Stat()
	return h, info, err
}

// chown gives an open file its owner. What is already right is not asked for:
// it would need a privilege that nobody needs.
func (d disk) chown(h *os.File, f File) error {
	info, err := h.Stat()
	if err != nil {
		return err
	}
	uid, gid := owner(info)
	want := OwnerError{Path: f.Path, UID: -1, GID: -1}
	if f.UID != nil && *f.UID != uid {
		want.UID = *f.UID
	}
	if f.GID != nil && *f.GID != gid {
		want.GID = *f.GID
	}
	if want.UID < 0 && want.GID < 0 {
		return nil
	}
	if want.Err = d.announce(opChown, f.Path); want.Err == nil {
		want.Err = h.Chown(want.UID, want.GID)
	}
	if want.Err != nil {
		return &want
	}
	return nil
}

// openDir opens a directory to be synced, after giving it its final mode.
func (d disk) openDir(name string, mode fs.FileMode) (_ *os.File, err error) {
	h, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = h.Close()
		}
	}()
	info, err := h.Stat()
	if err != nil || info.Mode().Perm() == mode {
		return h, err
	}
	if err := d.announce(opChmod, name); err != nil {
		return nil, err
	}
	return h, h.Chmod(info.Mode()&fs.ModeSetgid | mode)
}

// link gives the file at from a second name. It reports false, without an
// error, where that is not possible: on a file system without hard links, or
// for a file of somebody else.
func (d disk) link(from, to string) (bool, error) {
	if err := d.announce(opLink, to); err != nil {
		return false, err
	}
	if err := d.root.Link(from, to); err != nil {
		return false, nil //nolint:nilerr // the caller writes a new file instead
	}
	return true, nil
}

// symlink makes name a symlink to target. Anything but a directory that is in
// the way is replaced in one step, so that name leads somewhere all the time.
func (d disk) symlink(target, name, temp string) error {
	if err := d.announce(opSymlink, temp); err != nil {
		return err
	}
	if err := d.root.Symlink(target, temp); err != nil {
		return err
	}
	err := d.announce(opRename, name)
	if err == nil {
		err = d.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, d.remove(temp))
	}
	return nil
}

// remove removes a file, a link or an empty directory; it may be gone already.
func (d disk) remove(name string) error {
	if err := d.announce(opRemove, name); err != nil {
		return err
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll removes name and all beneath it, following no links.
func (d disk) removeAll(name string) error {
	if err := d.announce(opRemove, name); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

// owner returns the user and the group that own what info describes.
func owner(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

// ownedByUs says whether the user of this process owns what info describes.
func ownedByUs(info fs.FileInfo) bool {
	uid, _ := owner(info)
	return uid == os.Geteuid()
}

package fileset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("changes users and owners, which only root may")
	}
}

// worldDir is a directory that every user may work in.
func worldDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var modeSet = []File{
	{Path: "default", Content: []byte("1")},
	{Path: "all", Content: []byte("2"), Mode: 0o777},
	{Path: "dir/deep/group", Content: []byte("3"), Mode: 0o440},
	{Path: "dir/write", Content: []byte("4"), Mode: 0o620},
}

func publishModes(root string) error {
	for range 2 {
		d, err := Open(root, atOnce)
		if err != nil {
			return err
		}
		for _, files := range [][]File{set("dir/deep/group", "0"), modeSet} {
			if _, err := d.Publish(context.Background(), files); err != nil {
				return err
			}
		}
		if err := d.Close(); err != nil {
			return err
		}
	}
	return nil
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	for _, umask := range []string{"0", "022", "077", "0777"} {
		for _, uid := range []string{"", "nobody"} {
			t.Run(fmt.Sprintf("umask %s as %q", umask, uid), func(t *testing.T) {
				root := filepath.Join(worldDir(t), "root")
				if complaint := runChild(t, "publish modes", root, "FILESET_TEST_UMASK="+umask, "FILESET_TEST_UID="+uid); complaint != "" {
					t.Fatal(complaint)
				}
				// Only the owner, or root, can read all of them.
				checkView(t, root, modeSet)
				checkTidy(t, root, modeSet)
				for _, dir := range []string{"", dataLink + "/", "dir", "dir/deep"} {
					info, err := os.Stat(filepath.Join(root, dir))
					if err != nil || info.Mode().Perm() != DefaultDirMode {
						t.Errorf("directory %q has mode %v (%v)", dir, info.Mode(), err)
					}
				}
			})
		}
	}
}

func TestDirModeApplies(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	for _, mode := range []fs.FileMode{0o700, 0o711, 0o750} {
		d := mustOpen(t, root, Options{DirMode: mode, Linger: -1})
		mustPublish(t, d, set("db/a", "1"))
		for _, dir := range []string{dataLink + "/", "db/"} {
			if info, err := os.Stat(filepath.Join(root, dir)); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s has mode %v (%v), want %v", dir, info.Mode(), err, mode)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOwners(t *testing.T) {
	requireRoot(t)
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	owned := func(uid, gid *int) []File { return []File{{Path: "db/a", Content: []byte("1"), UID: uid, GID: gid}} }
	changed := Change{Changed: []string{"db/a"}}
	tests := []struct {
		name     string
		uid, gid *int
		want     string
		change   Change
	}{
		{"left alone", nil, nil, "0:0", Change{Added: []string{"db/a"}}},
		{"said, and the same", new(0), new(0), "0:0", Change{}},
		{"both", new(1000), new(2000), "1000:2000", changed},
		{"again", new(1000), new(2000), "1000:2000", Change{}},
		{"user alone", new(1001), new(2000), "1001:2000", changed},
		{"group alone", new(1001), new(2001), "1001:2001", changed},
		{"group left alone", new(1001), nil, "1001:0", changed},
		{"user left alone", nil, new(7), "0:7", changed},
		{"largest", new(1<<32 - 2), new(1<<32 - 2), "4294967294:4294967294", changed},
	}
	for _, tt := range tests {
		d.disk.before = func(what op, name string) error {
			// Before it is visible, it must be right.
			if what == opRename && name == dataLink {
				for _, data := range listing(t, root) {
					info, err := os.Stat(filepath.Join(root, data, "db/a"))
					if published, _ := os.Readlink(filepath.Join(root, dataLink)); err == nil && dataName.MatchString(data) && data != published {
						if uid, gid := owner(info); fmt.Sprintf("%d:%d", uid, gid) != tt.want {
							t.Errorf("%s: owner before the switch is %d:%d", tt.name, uid, gid)
						}
					}
				}
			}
			return nil
		}
		if diff := cmp.Diff(tt.change, mustPublish(t, d, owned(tt.uid, tt.gid))); diff != "" {
			t.Errorf("%s: change (-want +got):\n%s", tt.name, diff)
		}
		info, err := os.Stat(filepath.Join(root, "db/a"))
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := owner(info); fmt.Sprintf("%d:%d", uid, gid) != tt.want {
			t.Errorf("%s: owner is %d:%d, want %s", tt.name, uid, gid, tt.want)
		}
	}
}

func publishForRoot(root string) error {
	d, err := Open(root, atOnce)
	if err != nil {
		return err
	}
	if _, err := d.Publish(context.Background(), set("a", "old")); err != nil {
		return err
	}
	_, err = d.Publish(context.Background(), []File{{Path: "a", Content: []byte("new")}, {Path: "b/c", UID: new(0), GID: new(0)}})
	var refused *OwnerError
	if !errors.As(err, &refused) || refused.Path != "b/c" || refused.UID != 0 || refused.GID != 0 || !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("publish for root as user %d: %w", os.Geteuid(), err)
	}
	if text := err.Error(); !strings.Contains(text, `"b/c"`) || !strings.Contains(text, "0:0") || !strings.Contains(text, "CAP_CHOWN") {
		return fmt.Errorf("unhelpful: %w", err)
	}
	return nil
}

func TestOwnerWithoutPrivilegeIsRefused(t *testing.T) {
	root := filepath.Join(worldDir(t), "root")
	if complaint := runChild(t, "publish for root", root, "FILESET_TEST_UID=nobody"); complaint != "" {
		t.Fatal(complaint)
	}
	checkView(t, root, set("a", "old"))
	checkTidy(t, root, set("a", "old"))
}

// publishForGroup gives a file to a second group of an unprivileged user.
func publishForGroup(root string) error {
	d, err := Open(root, atOnce)
	if err != nil {
		return err
	}
	files := []File{{Path: "a", Mode: 0o440, UID: new(nobody), GID: new(others)}}
	if _, err := d.Publish(context.Background(), files); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(root, "a"))
	if uid, gid := owner(info); err != nil || uid != nobody || gid != others {
		return fmt.Errorf("owner is %d:%d, %w", uid, gid, err)
	}
	return nil
}

func TestMemberMayGiveToItsGroup(t *testing.T) {
	requireRoot(t)
	if complaint := runChild(t, "publish for group", filepath.Join(worldDir(t), "root"), "FILESET_TEST_UID=member"); complaint != "" {
		t.Fatal(complaint)
	}
}

// publishTwice publishes files that name no group, and complains about a
// group other than that of the root, or a second publish that is a change.
func publishTwice(root string) error {
	above, err := os.Stat(root)
	if err != nil {
		return err
	}
	_, want := owner(above)
	files := set("a", "1", "db/deep/b", "2")
	for i := range 3 {
		d, err := Open(root, atOnce)
		if err != nil {
			return err
		}
		change, err := d.Publish(context.Background(), files)
		if err != nil || i > 0 && !change.Empty() {
			return fmt.Errorf("publish %d: %+v %w", i, change, err)
		}
		for _, f := range files {
			info, err := os.Stat(filepath.Join(root, f.Path))
			if err != nil {
				return err
			}
			if _, gid := owner(info); gid != want {
				return fmt.Errorf("%s has group %d, root has %d", f.Path, gid, want)
			}
		}
		if err := d.Close(); err != nil {
			return err
		}
	}
	return nil
}

// TestGroupOfASetGroupIDRoot is the volume of a pod that has an fsGroup.
func TestGroupOfASetGroupIDRoot(t *testing.T) {
	requireRoot(t)
	for _, uid := range []string{"member", "nobody", ""} {
		for _, umask := range []string{"022", "0777"} {
			if uid == "nobody" && umask == "0777" {
				continue // the kernel lets only members keep the bit through a chmod
			}
			t.Run(fmt.Sprintf("as %q, umask %s", uid, umask), func(t *testing.T) {
				root := worldDir(t)
				if err := errors.Join(os.Chown(root, 0, others), os.Chmod(root, 0o777|fs.ModeSetgid)); err != nil {
					t.Fatal(err)
				}
				if complaint := runChild(t, "publish twice", root, "FILESET_TEST_UID="+uid, "FILESET_TEST_UMASK="+umask); complaint != "" {
					t.Error(complaint)
				}
			})
		}
	}
}

// publishForNobody gives files away that this process may not read then.
func publishForNobody(root string) error {
	d, err := Open(root, atOnce)
	if err != nil {
		return err
	}
	defer d.Close()
	files := []File{{Path: "a", Content: []byte("1"), UID: new(nobody), GID: new(nobody)}, {Path: "b", Content: []byte("1"), UID: new(nobody)}}
	if _, err := d.Publish(context.Background(), files); err != nil {
		return err
	}
	if _, err := d.Read("a"); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("this process can read what it gave away, so nothing is shown: %w", err)
	}
	before, err := os.Readlink(filepath.Join(root, dataLink))
	if err != nil {
		return err
	}
	if change, err := d.Publish(context.Background(), files); err != nil || !change.Empty() {
		return fmt.Errorf("the same again: %+v %w", change, err)
	}
	if after, err := os.Readlink(filepath.Join(root, dataLink)); err != nil || after != before {
		return fmt.Errorf("the same again is written: %w", err)
	}
	files[0].Content = []byte("2")
	change, err := d.Publish(context.Background(), files)
	if diff := cmp.Diff(Change{Changed: []string{"a"}}, change); err != nil || diff != "" {
		return fmt.Errorf("one content changed: %s %w", diff, err)
	}
	if change, err := d.Publish(context.Background(), files); err != nil || !change.Empty() {
		return fmt.Errorf("the same after a change: %+v %w", change, err)
	}
	return nil
}

func openOnly(root string) error {
	d, err := Open(root, atOnce)
	if err != nil {
		return err
	}
	return d.Close()
}

func TestOpenWithoutPermissionSaysSo(t *testing.T) {
	requireRoot(t)
	root := worldDir(t)
	d := mustOpen(t, root, atOnce)
	mustPublish(t, d, set("a", "1"))
	if err := errors.Join(d.Close(), os.Chmod(root, 0o700)); err != nil {
		t.Fatal(err)
	}
	complaint := runChild(t, "open", root, "FILESET_TEST_UID=nobody")
	if !strings.Contains(complaint, root) || !strings.Contains(complaint, syscall.EACCES.Error()) {
		t.Errorf("complaint: %q", complaint)
	}
	checkView(t, root, set("a", "1"))
}

package fileset

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestChownIsTheOnlyPrivilegeNeeded runs as a sidecar that dropped all
// capabilities but the one to give files away.
func TestChownIsTheOnlyPrivilegeNeeded(t *testing.T) {
	requireRoot(t)
	dir := worldDir(t)
	// Another user must be able to start this binary.
	self := filepath.Join(dir, "self")
	if err := copyFile(os.Args[0], self); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(root, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	cmd := child(t, "publish for nobody", root)
	cmd.Path, cmd.Dir = self, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 1000, Gid: 1000},
		AmbientCaps: []uintptr{unix.CAP_CHOWN},
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, complaint.String())
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

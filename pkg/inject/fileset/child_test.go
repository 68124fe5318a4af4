package fileset

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// childEnv names what this binary does instead of running tests, when a test
// starts it again as another process.
const childEnv = "FILESET_TEST_CHILD"

// children is what such processes do, in the root that their argument names.
var children = map[string]func(root string) error{
	"publish generations": publishGenerations,
	"publish modes":       publishModes,
	"publish for root":    publishForRoot,
	"publish for group":   publishForGroup,
	"publish for nobody":  publishForNobody,
	"publish twice":       publishTwice,
	"open":                openOnly,
}

func TestMain(m *testing.M) {
	name := os.Getenv(childEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := become(os.Getenv("FILESET_TEST_UMASK"), os.Getenv("FILESET_TEST_UID")); err != nil {
		fmt.Fprintln(os.Stderr, "become:", err)
		os.Exit(3)
	}
	if err := children[name](os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Who the children are that run without privileges: a user, a group, and a
// second group.
const nobody, others = 65534, 4242

// become takes the umask, and the user nobody if uid is not empty.
func become(umask, uid string) error {
	if umask != "" {
		var mask int
		if _, err := fmt.Sscanf(umask, "%o", &mask); err != nil {
			return err
		}
		syscall.Umask(mask)
	}
	if uid == "" || os.Geteuid() != 0 {
		return nil
	}
	groups := []int{nobody}
	if uid == "member" {
		groups = append(groups, others)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setgid(nobody); err != nil {
		return err
	}
	return syscall.Setuid(nobody)
}

// child prepares a process that does what children say.
func child(t *testing.T, name, root string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, root)
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+name)...)
	return cmd
}

// runChild runs such a process to its end and returns what it complains about.
func runChild(t *testing.T, name, root string, env ...string) string {
	t.Helper()
	cmd := child(t, name, root, env...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return strings.TrimSpace(fmt.Sprintf("%v: %s", err, complaint.String()))
	}
	return "" // what else it wrote is the coverage tool's complaint
}

// publishGenerations publishes one generation after the other until it is
// killed, or until its standard input ends. It writes one byte to its standard
// output before each change that it makes to the disk.
func publishGenerations(root string) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	d := &Dir{disk: disk{before: func(op, string) error {
		_, err := os.Stdout.Write([]byte("."))
		return err
	}}}
	if err := d.open(root); err != nil {
		return err
	}
	current, err := d.Current()
	if err != nil {
		return err
	}
	last := 0
	if len(current) > 0 {
		if _, err := fmt.Sscan(string(current["gen"].Content), &last); err != nil {
			return fmt.Errorf("generation: %w", err)
		}
		if len(current) != len(generation(last)) {
			return fmt.Errorf("generation %d has %d files", last, len(current))
		}
	}
	for n := last + 1; n < last+1_000_000; n++ {
		change, err := d.Publish(context.Background(), generation(n))
		if err != nil {
			return err
		}
		if change.Empty() {
			return fmt.Errorf("generation %d is no change", n)
		}
	}
	return nil
}

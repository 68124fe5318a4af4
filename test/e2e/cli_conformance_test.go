//go:build conformance

package e2e_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// site is a server that may reach this machine, where the real counterparts are,
// and the command line of its administrator.
type site struct {
	*server
	dir string // for what the test writes
}

// newSite starts a server, with more arguments if need be; it ends with the test.
func newSite(t *testing.T, args ...string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{server: newServer(t, dir), dir: mkdir(t, dir, "files")}
	s.args = append([]string{"--allow-target", "127.0.0.0/8"}, args...)
	s.start()
	s.ready()
	return s
}

// reach is what the command's environment says of the server.
func (s *site) reach(tokenFile string) []string {
	return []string{"CREDSTORE_ADDR=" + s.grpc, "CREDSTORE_CA=" + s.ca(), "CREDSTORE_TOKEN_FILE=" + tokenFile}
}

// answered is how a program ended, and what it wrote.
type answered struct {
	out, err string
	code     int
}

// call runs a program to its end with the environment of the command line and
// more.
func (s *site) call(t *testing.T, env []string, stdin, program string, args ...string) answered {
	t.Helper()
	out, complaint, err := command(t, slices.Concat(s.env(), env), stdin, program, args...)
	ended, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return answered{out: out, err: complaint}
	case failed && ended.Exited():
		return answered{out: out, err: complaint, code: ended.ExitCode()}
	}
	t.Fatalf("%s %q: %v\n%s", program, args, err, complaint)
	return answered{}
}

// try runs a command of the administrator, whatever comes of it.
func (s *site) try(t *testing.T, args ...string) answered {
	t.Helper()
	return s.call(t, s.reach(s.adminToken()), "", s.bin.credstore, args...)
}

// do runs a command of the administrator that has to succeed.
func (s *site) do(t *testing.T, args ...string) string {
	t.Helper()
	a := s.try(t, args...)
	if a.code != 0 {
		t.Fatalf("credstore %q ended with %d\n%s", args, a.code, a.err)
	}
	return a.out
}

// verify is `credstore credential verify`: its answer and its exit code.
func (s *site) verify(t *testing.T, name string) (*credstorev1.Verification, int) {
	t.Helper()
	a := s.try(t, "credential", "verify", name, "--output", "json")
	var out credstorev1.Verification
	if err := protojson.Unmarshal([]byte(a.out), &out); err != nil {
		t.Fatalf("verify %s ended with %d: %v\n%s%s", name, a.code, err, a.out, a.err)
	}
	return &out, a.code
}

// workload issues a token that may do nothing but use the credentials named, and
// returns what a program needs in its environment to use it.
func (s *site) workload(t *testing.T, id string, credentials ...string) []string {
	t.Helper()
	file := filepath.Join(s.dir, id+".token")
	args := []string{"token", "create", id, "--role", "workload", "--out-file", file}
	for _, name := range credentials {
		args = append(args, "--credential", name)
	}
	s.do(t, args...)
	return s.reach(file)
}

// file writes what a person would have in a file, and returns its path.
func (s *site) file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// counterpart returns the path of a program that a variable of the environment
// names.
func counterpart(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set: run make conformance", variable)
	}
	return path
}

// read decodes JSON.
func read[T any](t *testing.T, text string) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// full says whether the tests run at full length.
func full() bool { return os.Getenv("CREDSTORE_FAULTS") == "full" }

// cycles returns how often something is done: rarely, or as a release needs it.
func cycles(short, long int) int {
	switch {
	case full():
		return long
	case testing.Short() || raceDetector:
		return max(1, short/3)
	}
	return short
}

// programs are the two programs, built when a test first needs them.
type programs struct {
	credstore, injector string
}

// binDir is where the programs are built; TestMain sets and removes it.
var binDir string

var build = sync.OnceValues(func() (programs, error) {
	cmd := exec.Command("go", "build", "-o", binDir+string(filepath.Separator), "./services/credstore", "./services/injector")
	cgo := "CGO_ENABLED=0"
	if raceDetector {
		cgo = "CGO_ENABLED=1"
		cmd.Args = append(cmd.Args[:2:2], append([]string{"-race"}, cmd.Args[2:]...)...)
	}
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), cgo)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return programs{}, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	fmt.Fprintf(os.Stderr, "the programs were built in %s\n", time.Since(began).Round(time.Millisecond))
	return programs{
		credstore: filepath.Join(binDir, "credstore"),
		injector:  filepath.Join(binDir, "injector"),
	}, nil
})

func mustBuild(t *testing.T) programs {
	t.Helper()
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMain(m *testing.M) {
	var err error
	if binDir, err = os.MkdirTemp("", "credstore-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(binDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

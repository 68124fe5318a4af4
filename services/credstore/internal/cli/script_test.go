package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run the command as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"credstore": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := Run(ctx, os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv})
		stop()
		os.Exit(code)
	}})
}

const (
	// patience bounds how long a script waits, and glance is between two looks.
	patience = 30 * time.Second
	glance   = 10 * time.Millisecond
)

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// await FILE REGEXP waits until the file is there and matches.
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				_ = awaited(ts, ts.MkAbs(args[0]), regexp.MustCompile("(?m)"+args[1]))
			},
			// serving LOG waits until the server is, and sets where.
			"serving": func(ts *testscript.TestScript, _ bool, args []string) {
				var line struct{ GRPC, REST string }
				text := awaited(ts, ts.MkAbs(args[0]), regexp.MustCompile(`(?m)^.*"msg":"serving".*$`))
				ts.Check(json.Unmarshal([]byte(text), &line))
				ts.Setenv("CREDSTORE_ADDR", line.GRPC)
				ts.Setenv("CREDSTORE_URL", line.REST)
			},
			// sourced FILE sets what a shell does that reads the file.
			"sourced": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Exec("sh", "-c", `unset CREDSTORE_ADDR; . "$1" && env`, "sh", args[0]))
				for line := range strings.Lines(ts.ReadFile("stdout")) {
					if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && strings.HasPrefix(name, "CREDSTORE_") {
						ts.Setenv(name, value)
					}
				}
			},
			// exits CODE COMMAND... holds that the command ends with the code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got, err := 0, ts.Exec(args[1], args[2:]...)
				if ended, ok := errors.AsType[*exec.ExitError](err); ok {
					got, err = ended.ExitCode(), nil
				}
				ts.Check(err)
				if got != want {
					ts.Fatalf("it ended with %d, want %d", got, want)
				}
			},
			// mode MODE FILE... holds who may do what with files.
			"mode": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, name := range args[1:] {
					info, err := os.Stat(ts.MkAbs(name))
					ts.Check(err)
					if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
						ts.Fatalf("%s has mode %s, want %s", name, got, args[0])
					}
				}
			},
			// capture VARIABLE REGEXP sets a variable to the group in the output.
			"capture": func(ts *testscript.TestScript, _ bool, args []string) {
				found := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
				if len(found) != 2 {
					ts.Fatalf("the output does not match %s", args[1])
				}
				ts.Setenv(args[0], found[1])
			},
			// hangup sends a SIGHUP to what runs in the background.
			"hangup": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, cmd := range ts.BackgroundCmds() {
					ts.Check(cmd.Process.Signal(syscall.SIGHUP))
				}
			},
		},
	})
}

// awaited polls a file until it matches, and returns the match.
func awaited(ts *testscript.TestScript, path string, re *regexp.Regexp) string {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(glance)
	defer look.Stop()
	for {
		content, err := os.ReadFile(path)
		if err == nil && re.Match(content) {
			return string(re.Find(content))
		}
		select {
		case <-look.C:
		case <-deadline.C:
			ts.Fatalf("%s does not match %s within %s: %v\n%s", path, re, patience, err, content)
		}
	}
}

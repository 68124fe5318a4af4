// Package cli owns the injector's command line: flags, environment, messages and
// exit codes. It does not know how an injector works; package app wires it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake of whoever typed the command.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Run runs one command with its arguments, environment and streams, and returns
// the exit code: 0 for success, 1 for a failure, 2 for a mistake in the command.
// It returns when ctx ends.
func Run(ctx context.Context, args []string, env func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(env, stderr)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "injector: %v\nSee: injector --help\n", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintf(stderr, "injector: %v\n", err)
		return exitFailed
	}
}

func newRoot(env func(string) string, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "injector",
		Short: "Keep the files of a workload equal to what credstore says",
		Long: `The injector holds one stream to credstore and keeps the files below a root
directory equal to the set of this workload. A change arrives by itself. When
credstore is away, the files stay as they are.

The API token comes from a file (--token-file, CREDSTORE_TOKEN_FILE), which is
read again when it changes, or else from CREDSTORE_TOKEN: the environment of a
process is easier to read for others than a file. There is no flag for it.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("name a command: run, once, health or version")}
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newRun(env, stderr), newOnce(env, stderr), newHealth(), newVersion())
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "injector %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// version is what the Go tool put into the binary: the module's version, or the
// commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

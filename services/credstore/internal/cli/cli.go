package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// The exit codes of the command.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Streams are what the command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv looks up an environment variable; "" means that it is not set.
	Getenv func(string) string
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// Run executes the command line, without the program's name, and returns the
// exit code: 0, 1 when the command failed, 2 when it was not understood.
func Run(ctx context.Context, args []string, s Streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(s.Err, "credstore: %s\n", describe(err))
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitError
}

// describe says what went wrong as a person wants to read it.
func describe(err error) string {
	if inUse, ok := errors.AsType[*client.InUseError](err); ok {
		return describeUse(inUse, err.Error())
	}
	var invalid *client.InvalidError
	if errors.As(err, &invalid) && len(invalid.Violations) > 0 {
		var text strings.Builder
		text.WriteString("the server refuses the request:")
		for _, v := range invalid.Violations {
			_, _ = fmt.Fprintf(&text, "\n  %s: %s", v.Field, v.Description)
		}
		return text.String()
	}
	return err.Error() + remedy(err)
}

// describeUse lists who uses what was to be deleted, with what each needs to go.
func describeUse(inUse *client.InUseError, message string) string {
	var text strings.Builder
	// The server speaks of its field.
	text.WriteString(strings.Replace(message, "set force to delete", "give --force to delete", 1))
	for _, u := range inUse.Usages {
		_, _ = fmt.Fprintf(&text, "\n  %-7s  %s", u.GetSource(), u.GetUser())
		if of, id, ok := strings.Cut(u.GetName(), "/usages/"); ok && u.GetSource() == credstorev1.Usage_DECLARED {
			_, _ = fmt.Fprintf(&text, " (credstore usage delete %s %s)", of, id)
		}
	}
	for _, x := range inUse.Consumers {
		who := x.GetPrincipal()
		if x.GetWorkload() != "" {
			who = fmt.Sprintf("%s (%s)", x.GetWorkload(), who)
		}
		_, _ = fmt.Fprintf(&text, "\n  %-7s  %s holds version %d", consumerState(x), who, x.GetVersion())
	}
	return text.String()
}

// remedy ends an error with the flags that mend it: the server and the library
// below know none.
func remedy(err error) string {
	if failed, ok := errors.AsType[*client.Error](err); ok && failed.Reason == "TOKEN_MISSING" {
		return "; name a file with a token by --token-file or CREDSTORE_TOKEN_FILE, or set CREDSTORE_TOKEN"
	}
	// gRPC makes a text of it.
	if strings.Contains(err.Error(), "certificate signed by unknown authority") {
		return "; name the file of the server's authority, its ca.pem, by --ca or CREDSTORE_CA"
	}
	return ""
}

func newRoot(s Streams) *cobra.Command {
	c := &connection{streams: s}
	root := &cobra.Command{
		Use:           "credstore",
		Short:         "One encrypted home for the credentials that services use",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Annotations[plainOutput] != "" && c.output != "table" {
			return usageError{fmt.Errorf("%q prints nothing as %s: leave out --output", cmd.CommandPath(), c.output)}
		}
		return nil
	}
	f := root.PersistentFlags()
	f.StringVar(&c.address, "address", s.Getenv("CREDSTORE_ADDR"), "gRPC address of the server, host:port (CREDSTORE_ADDR)")
	f.StringVar(&c.ca, "ca", s.Getenv("CREDSTORE_CA"), "PEM file that the server's certificate is checked against (CREDSTORE_CA)")
	f.StringVar(&c.tokenFile, "token-file", s.Getenv("CREDSTORE_TOKEN_FILE"), "file that holds the API token (CREDSTORE_TOKEN_FILE; or the token itself in CREDSTORE_TOKEN)")
	f.StringVar(&c.project, "project", either(s.Getenv("CREDSTORE_PROJECT"), "default"), "project of names that do not say theirs (CREDSTORE_PROJECT)")
	f.BoolVar(&c.insecure, "insecure", false, "talk to a server on this machine without TLS")
	c.timeout = 30 * time.Second
	f.Var((*days)(&c.timeout), "timeout", "how long one call may take")
	f.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	root.AddGroup(&cobra.Group{ID: "server", Title: "Run a server:"}, &cobra.Group{ID: "client", Title: "Work with a server:"})
	for _, cmd := range []*cobra.Command{newServe(s), newDev(s), newInit(s), newHealth(s)} {
		cmd.GroupID = "server"
		cmd.Annotations = plain()
		root.AddCommand(cmd)
	}
	for _, cmd := range []*cobra.Command{
		newCredential(c), newStore(c), newInjection(c), newUsage(c), newWatch(c), newToken(c), newProject(c),
		newMint(c), newKubeToken(c), newDockerCredential(c),
	} {
		cmd.GroupID = "client"
		root.AddCommand(cmd)
	}
	version := newVersion(s)
	version.Annotations = plain()
	root.AddCommand(version)
	root.InitDefaultCompletionCmd()
	refuseUnknown(root)
	return root
}

// refuseUnknown makes a word that is no command a mistake: cobra alone shows the
// help of the group, and success, to a script that has a name wrong.
func refuseUnknown(group *cobra.Command) {
	group.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		cmd.SuggestionsMinimumDistance = 2
		text := fmt.Sprintf("there is no command %q; see %s --help", cmd.CommandPath()+" "+args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += ", or did you mean " + strings.Join(near, " or ") + "?"
		}
		return usageError{errors.New(text)}
	}
	group.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	for _, cmd := range group.Commands() {
		if cmd.HasSubCommands() {
			refuseUnknown(cmd)
		}
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// exactArgs is cobra.ExactArgs with the right exit code.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%q takes %d argument(s), not %d; see %s --help", cmd.CommandPath(), n, len(args), cmd.CommandPath())}
		}
		return nil
	}
}

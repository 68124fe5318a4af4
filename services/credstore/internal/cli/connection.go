package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/credstore/credstore/pkg/client"
)

// connection is where the server is, as flags and environment tell.
type connection struct {
	streams   Streams
	address   string
	ca        string
	tokenFile string
	project   string
	insecure  bool
	timeout   time.Duration
	output    string
}

func (c *connection) dial() (*client.Client, error) {
	if c.address == "" {
		return nil, usageError{errors.New("where is the server? Set --address or CREDSTORE_ADDR; `credstore dev` starts one and writes both into its env file")}
	}
	o := client.Options{Address: c.address, CAFile: c.ca, Insecure: c.insecure, TokenFile: c.tokenFile, UserAgent: "credstore-cli/" + buildVersion()}
	if c.ca == "" && !c.insecure {
		o.SystemRoots = true
	}
	if token := c.streams.Getenv("CREDSTORE_TOKEN"); c.tokenFile == "" && token != "" {
		o.Token = func(context.Context) (string, error) { return strings.TrimSpace(token), nil }
	}
	if c.tokenFile != "" {
		// Here the flag is known; the client says the same of its option.
		if _, err := os.Stat(c.tokenFile); err != nil {
			return nil, fileError("--token-file (CREDSTORE_TOKEN_FILE)", c.tokenFile, err)
		}
	}
	cl, err := client.Dial(o)
	if err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok && failed.Path == c.ca {
			return nil, fileError("--ca (CREDSTORE_CA)", c.ca, err)
		}
		return nil, fmt.Errorf("connect to %s: %w", c.address, err)
	}
	return cl, nil
}

// call runs f with a connection and the time that one call may take.
func (c *connection) call(cmd *cobra.Command, f func(context.Context, grpc.ClientConnInterface) error) error {
	if err := c.checkOutput(); err != nil {
		return err
	}
	cl, err := c.dial()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	return errors.Join(f(ctx, cl.Conn()), cl.Close())
}

// parent is the project that a command is about.
func (c *connection) parent() string { return "projects/" + c.project }

// name completes an id to a full name; a full name stays as it is.
func (c *connection) name(collection, id string) string {
	if strings.HasPrefix(id, "projects/") {
		return id
	}
	return c.parent() + "/" + collection + "/" + id
}

// split takes the parent off what is to be created, which may be an id or a
// full name.
func (c *connection) split(collection, id string) (parent, short string) {
	if i := strings.LastIndex(id, "/"+collection+"/"); i > 0 {
		return id[:i], id[i+len(collection)+2:]
	}
	return c.parent(), id
}

// Command credstore is the server of credentials and its command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/credstore/credstore/services/credstore/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, cli.Args(os.Args), cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv})
	stop()
	os.Exit(code)
}

// Command injector keeps the files of a workload equal to what credstore says
// they should be.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/credstore/credstore/services/injector/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := cli.Run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

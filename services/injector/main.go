// Command injector keeps the files of a workload equal to what credstore says
// they should be.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/credstore/credstore/services/injector/internal/cli"
)

// gcPercent makes the collector run early: with a heap of 2 MiB the time it
// takes does not matter, and it saves a quarter of the process's own memory after
// some hundred changes. GOGC in the environment overrides it.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := cli.Run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

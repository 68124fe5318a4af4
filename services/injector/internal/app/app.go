// Package app owns the wiring of the injector: source, engine, files and the
// little web server beside them. It holds no logic of its own about sets.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/setsource"
	"github.com/credstore/credstore/pkg/inject"
	"github.com/credstore/credstore/pkg/inject/fileset"
)

// Config is everything that an injector is told.
type Config struct {
	// Server says where credstore is, Set whose set it is.
	Server client.Options
	Set    setsource.Options
	// Root is the directory of the files.
	Root string
	// Listen is the address of the web server; empty for none. It is for this
	// machine only unless Public.
	Listen string
	Public bool
	Log    *slog.Logger
}

// Run keeps the files current until ctx ends, and leaves them.
func Run(ctx context.Context, c Config) error {
	registry := prometheus.NewRegistry()
	engine, files, err := build(c, registry)
	if err != nil {
		return err
	}
	web, err := listen(c, engine, registry)
	if err != nil {
		return errors.Join(err, files.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(ctx) })
	group.Go(func() error { return web.serve(ctx) })
	err = group.Wait()
	c.Log.Info("stopped; the files stay")
	return errors.Join(err, files.Close())
}

// Once publishes one complete set, or fails when timeout is over. Zero means
// that it waits for as long as ctx lets it.
func Once(ctx context.Context, c Config, timeout time.Duration) error {
	engine, files, err := build(c, nil)
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w of %s", errTimeout, timeout))
		defer cancel()
	}
	return errors.Join(engine.Once(ctx), files.Close())
}

var errTimeout = errors.New("not complete within the timeout")

func build(c Config, registry prometheus.Registerer) (*inject.Engine, *fileset.Dir, error) {
	source, err := setsource.New(c.Server, c.Set)
	if err != nil {
		return nil, nil, err
	}
	files, err := fileset.Open(c.Root, fileset.Options{})
	if err != nil {
		return nil, nil, err
	}
	engine, err := inject.New(inject.Options{Source: source, Files: files, Expect: c.Set.Injections, Log: c.Log, Metrics: registry})
	if err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	return engine, files, nil
}

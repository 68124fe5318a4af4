package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// clients is how many callers there are at once in the measurement of access,
// and connections over how many connections they spread.
const (
	clients     = 64
	connections = 8
)

// throughput calls f from n goroutines for the window and returns calls per
// second.
func throughput(ctx context.Context, n int, window time.Duration, f func(ctx context.Context, worker, call int) error) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for w := range n {
		wg.Go(func() {
			for call := 0; time.Since(start) < window && ctx.Err() == nil; call++ {
				if err := f(ctx, w, call); err != nil {
					failed.CompareAndSwap(nil, &err)
					cancel()
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(calls.Load()) / time.Since(start).Seconds(), ctx.Err()
}

// measureAccess compares AccessCredential - TLS, authenticated, on record in the
// audit log - with a bare gRPC call that answers the same message.
func measureAccess(ctx context.Context, r *report, window time.Duration) error {
	p, err := startProduct(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = p.close() }()
	var cs []*client.Client
	var apis []credstorev1.CredentialServiceClient
	for range connections {
		c, err := p.dial()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		cs, apis = append(cs, c), append(apis, credstorev1.NewCredentialServiceClient(c.Conn()))
	}
	if err := p.create(ctx, cs[0], 1); err != nil {
		return err
	}
	limit, err := startBare(p.server)
	if err != nil {
		return err
	}
	defer limit.close()
	var echoes []credstorev1.CredentialServiceClient
	for range connections {
		conn, err := limit.dial()
		if err != nil {
			return err
		}
		echoes = append(echoes, credstorev1.NewCredentialServiceClient(conn))
	}
	request := &credstorev1.AccessCredentialRequest{Name: credentialName(0)}
	access := func() (float64, error) {
		return throughput(ctx, clients, window, func(ctx context.Context, w, _ int) error {
			_, err := apis[w%connections].AccessCredential(ctx, request)
			return err
		})
	}
	echo := func() (float64, error) {
		return throughput(ctx, clients, window, func(ctx context.Context, w, _ int) error {
			_, err := echoes[w%connections].AccessCredential(ctx, request)
			return err
		})
	}
	got, least, err := inTurn(access, echo)
	if err != nil {
		return err
	}
	r.row("access of 1 KiB, 64 callers, TLS", "credstore", "bare gRPC echo", "ratio", "aim")
	r.row("", perSecond(got), perSecond(least), ratio(got, least), "≥ 0.50")
	return nil
}

// measureUpdate compares UpdateCredential with a payload, over TLS and durable,
// with bare SQLite that commits the same bytes in groups.
func measureUpdate(ctx context.Context, r *report, window time.Duration) error {
	r.row("durable update of 1 KiB", "credstore", "bare SQLite, group commit", "ratio", "aim")
	for _, writers := range []int{1, 16, 64} {
		got, least, err := updatePair(ctx, writers, window)
		if err != nil {
			return err
		}
		aim := "-"
		if writers == 64 {
			aim = "≥ 0.40"
		}
		r.row(fmt.Sprintf("  %d writers", writers), perSecond(got), perSecond(least), ratio(got, least), aim)
	}
	return nil
}

func updatePair(ctx context.Context, writers int, window time.Duration) (got, least float64, err error) {
	p, err := startProduct(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = p.close() }()
	var apis []credstorev1.CredentialServiceClient
	for i := range min(writers, connections) {
		c, err := p.dial()
		if err != nil {
			return 0, 0, err
		}
		defer func() { _ = c.Close() }()
		apis = append(apis, credstorev1.NewCredentialServiceClient(c.Conn()))
		if i == 0 {
			if err := p.create(ctx, c, writers); err != nil {
				return 0, 0, err
			}
		}
	}
	dir, err := os.MkdirTemp("", "credstore-bench-")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bare, err := openBareSQLite(ctx, dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = bare.close() }()
	return inTurn(
		func() (float64, error) {
			return throughput(ctx, writers, window, func(ctx context.Context, w, n int) error {
				return update(ctx, apis[w%len(apis)], w, n)
			})
		},
		func() (float64, error) {
			return throughput(ctx, writers, window, func(ctx context.Context, w, n int) error {
				return bare.write(ctx, w, n)
			})
		})
}

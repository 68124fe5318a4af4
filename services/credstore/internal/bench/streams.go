package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"google.golang.org/grpc"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client/setsource"
	"github.com/credstore/credstore/pkg/inject"
	"github.com/credstore/credstore/pkg/inject/fileset"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/floor"
)

// changes is how many are timed in one round.
const changes = 20

// watchers is many streams with a connection each.
type watchers struct {
	arrived chan struct{}
	closers []func() error
	n       int
}

// open starts n watches and waits until each is synced.
func openWatchers(ctx context.Context, n int, dial func() (grpc.ClientConnInterface, func() error, error)) (*watchers, error) {
	w := &watchers{arrived: make(chan struct{}, n), n: n}
	for range n {
		conn, closer, err := dial()
		if err != nil {
			return nil, err
		}
		w.closers = append(w.closers, closer)
		stream, err := credstorev1.NewCredentialServiceClient(conn).Watch(ctx, &credstorev1.WatchRequest{
			Parent: "projects/default", View: credstorev1.WatchRequest_PAYLOAD,
		})
		if err != nil {
			return nil, err
		}
		for synced := false; !synced; {
			m, err := stream.Recv()
			if err != nil {
				return nil, err
			}
			synced = m.GetSynced() != nil
		}
		go func() {
			for {
				m, err := stream.Recv()
				if err != nil {
					return
				}
				if m.GetCommit() != nil {
					w.arrived <- struct{}{}
				}
			}
		}()
	}
	return w, nil
}

func (w *watchers) close() {
	for _, c := range w.closers {
		_ = c()
	}
}

// last returns the seconds until every watcher has the change that trigger
// makes, counted from when the change is committed.
func (w *watchers) last(ctx context.Context, trigger func() (time.Time, error)) (float64, error) {
	var times []float64
	for range changes {
		started, err := trigger()
		if err != nil {
			return 0, err
		}
		for range w.n {
			select {
			case <-w.arrived:
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(30 * time.Second):
				return 0, errors.New("a change did not reach every watcher within 30 s")
			}
		}
		times = append(times, time.Since(started).Seconds())
	}
	return median(times), nil
}

// measureFanout compares the time from a commit to the last of n payload
// watchers with that of a bare gRPC server passing the same message to as many
// streams. The product's clock starts when its commit is durable, which is when
// its auditor is told of the push.
func measureFanout(ctx context.Context, r *report, _ time.Duration) error {
	r.row("commit to the last of n payload watchers, TLS", "credstore", "bare gRPC fan-out", "ratio", "aim")
	for _, n := range []int{1, 100, 1000} {
		got, least, err := fanoutPair(ctx, n)
		if err != nil {
			return err
		}
		r.row(fmt.Sprintf("  %d", n), millis(got), millis(least), ratio(got, least), "≤ 1.50")
	}
	return nil
}

func fanoutPair(ctx context.Context, n int) (got, least float64, err error) {
	p, err := startProduct(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = p.close() }()
	c, err := p.dial()
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = c.Close() }()
	if err := p.create(ctx, c, 1); err != nil {
		return 0, 0, err
	}
	ws, err := openWatchers(ctx, n, func() (grpc.ClientConnInterface, func() error, error) {
		c, err := p.dial()
		if err != nil {
			return nil, nil, err
		}
		return c.Conn(), c.Close, nil
	})
	if err != nil {
		return 0, 0, err
	}
	defer ws.close()
	bare, err := startBare(p.server)
	if err != nil {
		return 0, 0, err
	}
	defer bare.close()
	bs, err := openWatchers(ctx, n, func() (grpc.ClientConnInterface, func() error, error) {
		conn, err := bare.dial()
		return conn, func() error { return nil }, err
	})
	if err != nil {
		return 0, 0, err
	}
	message := &credstorev1.WatchResponse{
		Revision: 1 << 20, ResumeToken: "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		Event: &credstorev1.WatchResponse_Commit_{Commit: &credstorev1.WatchResponse_Commit{
			Changes: []*credstorev1.Change{{
				Type: credstorev1.Change_PUT, Payload: payload(1),
				Credential: &credstorev1.Credential{Name: credentialName(0), Uid: "00000000-0000-0000-0000-000000000000", Kind: "basic", ActiveVersion: 1, Etag: "aa-00000000", Facts: map[string]string{"username": "bench"}},
			}},
		}},
	}
	api := p.server.Store()
	number := 0
	return inTurn(
		func() (float64, error) {
			return ws.last(ctx, func() (time.Time, error) {
				number++
				return committed(ctx, api, number)
			})
		},
		func() (float64, error) {
			return bs.last(ctx, func() (time.Time, error) {
				at := time.Now()
				bare.send(message)
				return at, nil
			})
		})
}

// committed makes a change and returns when the store had it. The call returns
// when the change is committed and visible, while the fan-out is under way; the
// commit's own time, stamped by the storage before its disk write, would count
// the disk.
func committed(ctx context.Context, store *core.Store, n int) (time.Time, error) {
	pl, err := corePayload(n)
	if err != nil {
		return time.Time{}, err
	}
	_, err = store.UpdateCredential(core.AsSystem(ctx), core.UpdateCredentialRequest{
		Name: resourcename.Credential{Project: core.DefaultProject, ID: "bench-0"}, Payload: &pl,
	})
	return time.Now(), err
}

// measureFiles measures from the call that changes a credential to the moment
// when the last of n injectors has its two files on disk, beside the least that
// this takes: n times the durable writes of one set, one after the other on the
// one disk, after one commit and one hop.
func measureFiles(ctx context.Context, r *report, _ time.Duration) error {
	r.row("change to the last of n injectors' files", "credstore", "floor: 1 commit, 1 hop, n durable writes", "ratio", "aim")
	for _, n := range []int{1, 10, 100} {
		got, least, err := filesPair(ctx, n)
		if err != nil {
			return err
		}
		r.row(fmt.Sprintf("  %d", n), millis(got), millis(least), ratio(got, least), "-")
	}
	return nil
}

func filesPair(ctx context.Context, n int) (got, least float64, err error) {
	p, err := startProduct(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = p.close() }()
	c, err := p.dial()
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = c.Close() }()
	if err := p.create(ctx, c, 1); err != nil {
		return 0, 0, err
	}
	name := resourcename.Credential{Project: core.DefaultProject, ID: "bench-0"}
	_, err = p.server.Store().CreateInjection(core.AsSystem(ctx), core.CreateInjectionRequest{
		Name: resourcename.Injection{Project: core.DefaultProject, ID: "bench"}, Selector: map[string]string{"app": "bench"},
		Items: []core.Item{
			{Credential: &core.CredentialSource{Name: name, Field: "username"}, File: core.FileTarget{Path: "username"}},
			{Credential: &core.CredentialSource{Name: name, Field: "password"}, File: core.FileTarget{Path: "password"}},
		},
	})
	if err != nil {
		return 0, 0, err
	}
	run, cancel := context.WithCancel(ctx)
	var engines []chan error
	defer func() {
		cancel()
		for _, e := range engines {
			err = errors.Join(err, <-e)
		}
	}()
	applied := make(chan struct{}, n*changes)
	for i := range n {
		done, err := p.startEngine(run, i, applied)
		if err != nil {
			return 0, 0, err
		}
		engines = append(engines, done)
	}
	for range n {
		<-applied // the first set
	}
	disk, err := floor.OpenDisk(p.dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = disk.Close() }()
	cert, roots := p.server.Certificate()
	hop, err := floor.NewHop(cert, roots, "localhost")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = hop.Close() }()
	number := 0
	return inTurn(
		func() (float64, error) {
			var times []float64
			for range changes {
				number++
				start := time.Now()
				if _, err := committed(ctx, p.server.Store(), number); err != nil {
					return 0, err
				}
				for range n {
					select {
					case <-applied:
					case <-time.After(30 * time.Second):
						return 0, errors.New("a change did not reach every injector's files within 30 s")
					}
				}
				times = append(times, time.Since(start).Seconds())
			}
			return median(times), nil
		},
		func() (float64, error) {
			var times []float64
			for range changes {
				var sum time.Duration
				took, err := hop.Send(payloadBytes)
				sum += took
				for range 1 + n {
					var w time.Duration
					if err == nil {
						w, err = disk.Write(payloadBytes)
					}
					sum += w
				}
				if err != nil {
					return 0, err
				}
				times = append(times, sum.Seconds())
			}
			return median(times), nil
		})
}

// publishing tells when a set was published.
type publishing struct {
	*fileset.Dir
	applied chan<- struct{}
}

func (f publishing) Publish(ctx context.Context, files []fileset.File) (fileset.Change, error) {
	change, err := f.Dir.Publish(ctx, files)
	if err == nil && len(files) > 0 {
		f.applied <- struct{}{}
	}
	return change, err
}

func (p *product) startEngine(ctx context.Context, i int, applied chan<- struct{}) (chan error, error) {
	dir, err := fileset.Open(filepath.Join(p.dir, fmt.Sprintf("files-%d", i)), fileset.Options{})
	if err != nil {
		return nil, err
	}
	source, err := setsource.New(p.options("workload"), setsource.Options{Parent: "projects/default", Workload: fmt.Sprintf("bench-%d", i)})
	if err != nil {
		return nil, err
	}
	engine, err := inject.New(inject.Options{Source: source, Files: publishing{dir, applied}})
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(engine.Run(ctx), dir.Close()) }()
	return done, nil
}

// measureMemory compares what an idle watch costs, server and client together,
// with a bare gRPC stream on a TLS connection of its own.
func measureMemory(ctx context.Context, r *report, _ time.Duration) error {
	const n = 1000
	p, err := startProduct(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = p.close() }()
	before := inUse()
	ws, err := openWatchers(ctx, n, func() (grpc.ClientConnInterface, func() error, error) {
		c, err := p.dial()
		if err != nil {
			return nil, nil, err
		}
		return c.Conn(), c.Close, nil
	})
	if err != nil {
		return err
	}
	got := (inUse() - before) / n
	ws.close()
	bare, err := startBare(p.server)
	if err != nil {
		return err
	}
	defer bare.close()
	before = inUse()
	if _, err := openWatchers(ctx, n, func() (grpc.ClientConnInterface, func() error, error) {
		conn, err := bare.dial()
		return conn, func() error { return nil }, err
	}); err != nil {
		return err
	}
	least := (inUse() - before) / n
	r.row("memory of an idle stream, both ends, TLS", "credstore", "bare gRPC", "ratio", "aim")
	r.row("", fmt.Sprintf("%.0f KiB", got/1024), fmt.Sprintf("%.0f KiB", least/1024), ratio(got, least), "-")
	return nil
}

// inUse is the memory of heap and stacks, after a collection.
func inUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/app"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// measureInjector builds the injector, lets it hold a set, and reads what it
// occupies.
func measureInjector(ctx context.Context, r *report, _ time.Duration) error {
	p, err := startProduct(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = p.close() }()
	binary := filepath.Join(p.dir, "injector")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags=-s -w", "-o", binary, "github.com/credstore/credstore/services/injector") //nolint:gosec // our own
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := p.create(ctx, c, 1); err != nil {
		return err
	}
	_, err = p.server.Store().CreateInjection(core.AsSystem(ctx), core.CreateInjectionRequest{
		Name: resourcename.Injection{Project: core.DefaultProject, ID: "bench"}, Selector: map[string]string{"app": "bench"},
		Items: []core.Item{{
			Credential: &core.CredentialSource{Name: resourcename.Credential{Project: core.DefaultProject, ID: "bench-0"}, Field: "password"},
			File:       core.FileTarget{Path: "password"},
		}},
	})
	if err != nil {
		return err
	}
	root := filepath.Join(p.dir, "injected")
	run, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(run, binary, "run", "--address", p.server.GRPCAddr(), "--ca", app.Dir(p.dir).CA(), //nolint:gosec // our own
		"--token-file", p.tokenFile("workload"), "--root", root, "--http-listen", "127.0.0.1:0", "--workload", "bench")
	if err := cmd.Start(); err != nil {
		stop()
		return err
	}
	defer func() {
		stop()
		_ = cmd.Wait()
	}()
	if err := awaitPath(ctx, filepath.Join(root, "password")); err != nil {
		return err
	}
	for n := range 50 {
		if _, err := committed(ctx, p.server.Store(), n); err != nil {
			return err
		}
	}
	time.Sleep(2 * time.Second) // idle, as it is most of its life
	rss, err := residentKiB(cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.row("injector", "resident when idle", "binary", "", "floor")
	r.row("", fmt.Sprintf("%.1f MiB", float64(rss)/1024), fmt.Sprintf("%.1f MiB", float64(info.Size())/(1<<20)), "", "10.5 MiB and 11 MiB: a Go gRPC client on an idle stream")
	return nil
}

func awaitPath(ctx context.Context, path string) error {
	for range 1000 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s did not appear within 10 s", path)
}

// residentKiB reads VmRSS; Linux only.
func residentKiB(pid int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	return 0, errors.New("no VmRSS")
}

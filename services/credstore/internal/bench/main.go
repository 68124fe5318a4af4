// Command bench owns the measurements that `make bench` prints: each of the
// product beside the limit that it is compared with, in turn in the same run,
// with the same TLS, flow-control windows, codec and message size. It decides
// nothing: no figure makes it fail.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// rounds is how often each pair is measured; medians are reported.
const rounds = 5

func main() {
	only := flag.String("only", "", "comma-separated list of access, update, fanout, files, memory, injector; empty means all")
	window := flag.Duration("window", 1500*time.Millisecond, "how long a throughput is measured")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	stopProfile, err := startProfile(*profile)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err = run(ctx, os.Stdout, *only, *window)
	stop()
	stopProfile()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// startProfile profiles until the returned function is called, if a file is
// named.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// measurement is one section of the report.
type measurement struct {
	name string
	run  func(context.Context, *report, time.Duration) error
}

func run(ctx context.Context, out io.Writer, only string, window time.Duration) error {
	all := []measurement{
		{"access", measureAccess},
		{"update", measureUpdate},
		{"fanout", measureFanout},
		{"files", measureFiles},
		{"memory", measureMemory},
		{"injector", measureInjector},
	}
	for _, m := range all {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		r := newReport(out)
		if err := m.run(ctx, r, window); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if err := r.flush(); err != nil {
			return err
		}
	}
	return nil
}

// report is a table.
type report struct {
	w *tabwriter.Writer
}

func newReport(out io.Writer) *report {
	return &report{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
}

func (r *report) row(cells ...string) { _, _ = fmt.Fprintln(r.w, strings.Join(cells, "\t")) }

func (r *report) flush() error {
	r.row("")
	return r.w.Flush()
}

// inTurn measures product and limit A B A B … and returns both medians.
func inTurn(product, limit func() (float64, error)) (p, l float64, err error) {
	var ps, ls []float64
	for range rounds {
		a, err := product()
		if err != nil {
			return 0, 0, err
		}
		b, err := limit()
		if err != nil {
			return 0, 0, err
		}
		ps, ls = append(ps, a), append(ls, b)
	}
	return median(ps), median(ls), nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func ratio(p, l float64) string {
	if l == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", p/l)
}

func perSecond(v float64) string { return fmt.Sprintf("%.0f/s", v) }

func millis(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1000) }

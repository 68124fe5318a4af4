package inject

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The delays of retries grow from the first to the second, and each is drawn
// from zero to that.
const (
	retryBase = 100 * time.Millisecond
	retryMax  = 30 * time.Second
)

// Options are what an [Engine] works with.
type Options struct {
	// Source and Files are required.
	Source Source
	Files  Files
	// Expect are the full names of injections without which no set is complete:
	// one that is misspelt would pass for a set without files otherwise.
	Expect []string
	// Log gets what happens; nil means nobody.
	Log *slog.Logger
	// Metrics gets the engine's metrics; nil means nobody.
	Metrics prometheus.Registerer
}

// Engine keeps files equal to what a source says they should be.
type Engine struct {
	source Source
	files  Files
	expect []string
	log    *slog.Logger
	euid   int // the user that this process is

	latency         metric // of sets that changed files, in seconds
	publishFailures metric
	retryTimer      *time.Timer
	completed       chan struct{} // closed when a complete set is safely published

	mu       sync.Mutex // guards what follows; held while files are written
	manifest *manifest
	started  bool // files were published before
	// blind is why what is on the disk is not fully known.
	blind    error
	received time.Time // of the set that the latency was not measured for yet
	attempt  int       // of retries since the last success
	wanting  bool      // the next retry asks for contents
	reported Report
	isDone   bool // completed is closed

	status board
}

// New returns an engine that does nothing until [Engine.Run] or [Engine.Once].
// It reads what is published already, and fails where metrics are registered
// twice.
func New(o Options) (*Engine, error) {
	if o.Source == nil || o.Files == nil {
		return nil, errors.New("inject: options need a Source and Files")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	found, err := o.Files.Current()
	e := &Engine{
		source:     o.Source,
		files:      o.Files,
		expect:     o.Expect,
		log:        o.Log,
		euid:       os.Geteuid(),
		retryTimer: time.NewTimer(time.Hour),
		completed:  make(chan struct{}),
		manifest:   newManifest(found),
		started:    len(found) > 0 || err != nil,
		blind:      err,
	}
	e.retryTimer.Stop()
	e.status.init()
	if err != nil {
		o.Log.Warn("some published files cannot be read back; they stay until the server has delivered their contents", "error", err)
	}
	if err := e.register(o.Metrics); err != nil {
		return nil, fmt.Errorf("inject: register metrics: %w", err)
	}
	return e, nil
}

// Run keeps the files current until ctx ends, and leaves them there. It returns
// nil then, after the source has said goodbye, and an error only if the source
// can never work. It is called once.
func (e *Engine) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	defer e.retryTimer.Stop()
	ended := make(chan error, 1)
	go func() { ended <- e.source.Run(run, consumer{e}) }()
	for {
		select {
		case <-e.retryTimer.C:
			e.retry(run)
		case err := <-ended:
			switch {
			case err != nil:
				return fmt.Errorf("source of sets: %w", err)
			case ctx.Err() == nil:
				return errors.New("source of sets ended by itself")
			}
			return nil
		}
	}
}

// Completed returns a channel that is closed when a complete set was published
// for the first time, by this run.
func (e *Engine) Completed() <-chan struct{} { return e.completed }

// Once publishes one complete set, says goodbye and returns. If ctx ends first,
// the error is an *[IncompleteError] that wraps its cause. It is called once,
// and instead of Run.
func (e *Engine) Once(ctx context.Context) error {
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(run) }()
	var err error
	select {
	case <-e.completed:
		cancel()
		err = <-ended
	case err = <-ended:
	}
	select {
	case <-e.completed:
		return nil
	default:
	}
	if err != nil {
		return err
	}
	s := e.Status()
	return &IncompleteError{Reasons: s.Reasons, Cause: context.Cause(ctx)}
}

// IncompleteError says that no complete set was published in time.
type IncompleteError struct {
	// Reasons are what [Status.Reasons] was at the end.
	Reasons []string
	Cause   error
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("no complete set was applied: %s: %v", strings.Join(e.Reasons, "; "), e.Cause)
}

// Unwrap returns why there was no more time.
func (e *IncompleteError) Unwrap() error { return e.Cause }

// consumer is the side of an engine that its source sees.
type consumer struct{ e *Engine }

func (c consumer) Have() map[string]string {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return c.e.manifest.have()
}

func (c consumer) Connected() {
	c.e.log.Info("connected")
	c.e.status.connected()
}

func (c consumer) Disconnected(err error) {
	c.e.log.Warn("disconnected; files stay as they are", "error", err)
	c.e.status.disconnected(err)
}

func (c consumer) Set(ctx context.Context, s Set) {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.received = s.Received
	if e.received.IsZero() {
		e.received = time.Now()
	}
	e.manifest.merge(s)
	if len(e.manifest.entries) == 0 {
		e.log.Warn("the set is empty: no injection matches this workload, or none of those asked for")
	}
	e.update(ctx, true)
}

// retry does again what could not be done.
func (e *Engine) retry(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.wanting {
		e.source.Reconnect()
	}
	e.update(ctx, false)
}

// update brings the files up to date and tells everybody. fresh says that it is
// for a new set. The caller holds e.mu.
func (e *Engine) update(ctx context.Context, fresh bool) {
	r := e.apply(ctx)
	if r.failed != nil && ctx.Err() != nil {
		return // stopped on the way: nothing failed
	}
	e.report(r, fresh)
}

// schedule sets the timer for what could not be done, if anything.
func (e *Engine) schedule(again, wanting bool) {
	e.wanting = wanting
	if !again && !wanting {
		e.attempt = 0
		e.retryTimer.Stop()
		return
	}
	e.retryTimer.Reset(retryDelay(e.attempt))
	e.attempt++
}

// retryDelay draws the delay before a retry; attempt counts from 0.
func retryDelay(attempt int) time.Duration {
	most := retryMax
	if attempt < 10 {
		most = min(retryMax, retryBase<<attempt)
	}
	return rand.N(most) + 1 //nolint:gosec // spreads load, hides nothing
}

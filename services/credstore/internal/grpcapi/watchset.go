package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

type setStreamServer = grpc.BidiStreamingServer[credstorev1.WatchSetRequest, credstorev1.WatchSetResponse]

func (s injectionService) WatchSet(stream setStreamServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	request, err := openSet(first)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	set, err := s.store.OpenSet(ctx, request)
	if err != nil {
		return err
	}
	reports := &reportSink{set: set}
	defer reports.close()
	// It ends when the stream does: gRPC's Recv returns as soon as this handler
	// has.
	go func() { cancel(readReports(ctx, stream, reports)) }()
	for {
		event, err := set.Next(ctx)
		switch {
		case errors.Is(err, errGoodbye):
			return nil
		case err != nil:
			return err
		}
		message, err := encodeSetEvent(event)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

// reportSink passes reports on until the handler has returned: one that is read
// in that moment must not reach a stream that is closed.
type reportSink struct {
	mu  sync.Mutex
	set interface {
		Report(core.SetReport)
		Close()
	}
	closed bool
}

func (r *reportSink) report(report core.SetReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.set.Report(report)
	}
}

func (r *reportSink) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.set.Close()
}

// errGoodbye ends a stream as its client asked for: an injector that stops waits
// for that, so that its goodbye is known to have arrived.
var errGoodbye = errors.New("the client said goodbye")

// readReports reads until the client sends no more, which ends nothing without a
// goodbye before it, or the stream ends. It returns why the stream is to end.
func readReports(ctx context.Context, stream setStreamServer, reports *reportSink) error {
	limiter := rate.NewLimiter(reportsPerSecond, reportBurst)
	goodbye := false
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && goodbye:
			return errGoodbye
		case errors.Is(err, io.EOF):
			<-ctx.Done()
			return nil
		case err != nil:
			return err
		}
		goodbye = m.GetReport().GetGoodbye()
		report, err := setReport(m)
		if err != nil {
			return err
		}
		reports.report(report)
		if err := limiter.Wait(ctx); err != nil {
			return context.Cause(ctx)
		}
	}
}

func openSet(m *credstorev1.WatchSetRequest) (core.OpenSetRequest, error) {
	var p parser
	o := m.GetOpen()
	if o == nil {
		p.add("open", "is required in the first message of the stream")
		return core.OpenSetRequest{}, p.err()
	}
	out := core.OpenSetRequest{
		Project:    name(&p, "open.parent", o.GetParent(), resourcename.ParseProject),
		Workload:   o.GetWorkload(),
		Injections: p.injections("open.injections", o.GetInjections()),
		Have:       o.GetHave(),
		Heartbeat:  p.duration("open.heartbeatInterval", o.GetHeartbeatInterval()),
	}
	return out, p.err()
}

const (
	// maxFailures and maxFailureText bound what a report may say.
	maxFailures    = core.MaxItems
	maxFailureText = 1024
)

func setReport(m *credstorev1.WatchSetRequest) (core.SetReport, error) {
	var p parser
	r := m.GetReport()
	switch {
	case r == nil:
		p.add("report", "is required in every message of the stream but the first")
		return core.SetReport{}, p.err()
	case len(r.GetFailures()) > maxFailures:
		p.add("report.failures", fmt.Sprintf("has %d entries; at most %d", len(r.GetFailures()), maxFailures))
		return core.SetReport{}, p.err()
	}
	out := core.SetReport{Revision: core.Revision(r.GetRevision()), Goodbye: r.GetGoodbye()}
	for i, f := range r.GetFailures() {
		if n := len([]rune(f.GetMessage())); n > maxFailureText {
			p.add(fmt.Sprintf("report.failures[%d].message", i), fmt.Sprintf("has %d characters; at most %d", n, maxFailureText))
		}
		out.Failures = append(out.Failures, core.ItemReport{ID: f.GetId(), Message: f.GetMessage()})
	}
	return out, p.err()
}

// encodeSetEvent returns a WatchSetResponse; a set is encoded once for all
// streams that share it.
func encodeSetEvent(e core.SetEvent) (*encoded, error) {
	var b []byte
	var err error
	if e.Heartbeat {
		b, err = encode(&credstorev1.WatchSetResponse{Event: &credstorev1.WatchSetResponse_Heartbeat_{
			Heartbeat: &credstorev1.WatchSetResponse_Heartbeat{},
		}})
	} else {
		b, err = e.Set.Encoded(func(u *core.SetUpdate) ([]byte, error) {
			return encode(&credstorev1.WatchSetResponse{Event: &credstorev1.WatchSetResponse_Set{Set: setMessage(u)}})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("encode set: %w", err)
	}
	return &encoded{b}, nil
}

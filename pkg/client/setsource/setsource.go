// Package setsource owns the injector's side of WatchSet: it keeps a stream to
// credstore, hands sets to an engine of package inject, and carries its reports
// back. It does not know what becomes of a set.
package setsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/internal/redial"
	"github.com/credstore/credstore/pkg/inject"
)

// goodbyeTimeout bounds how long a graceful end waits for the server.
const goodbyeTimeout = 2 * time.Second

// Options say whose set it is.
type Options struct {
	// Parent is required: "projects/{project}".
	Parent string
	// Workload is required: which of the workloads that share a token this is, 1
	// to 253 characters of [-._a-zA-Z0-9]. It informs only.
	Workload string
	// Injections are full names; empty means all that match.
	Injections []string
	// Heartbeat is how often an idle server says that it is there, 1 s to 1 h;
	// zero means client.DefaultHeartbeat.
	Heartbeat time.Duration
}

var workloadForm = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// Source is an [inject.Source] over gRPC.
type Source struct {
	server  client.Options
	options Options

	wake      chan struct{} // a report is waiting
	reconnect chan struct{}

	mu sync.Mutex
	// report is the last one, for the set of the connection that there is;
	// sent says that it was sent.
	report *inject.Report
	sent   bool
	live   bool // the connection has delivered a set
}

var _ inject.Source = (*Source)(nil)

// New checks the options. Each connection is dialled anew with those of server,
// so that changed certificates and tokens are picked up.
func New(server client.Options, o Options) (*Source, error) {
	if o.Heartbeat == 0 {
		o.Heartbeat = client.DefaultHeartbeat
	}
	switch {
	case !strings.HasPrefix(o.Parent, "projects/"):
		return nil, fmt.Errorf("parent %q: name a project, as projects/default", o.Parent)
	case !workloadForm.MatchString(o.Workload):
		return nil, fmt.Errorf("workload %q: want 1 to 253 characters of [-._a-zA-Z0-9]", o.Workload)
	case o.Heartbeat < time.Second || o.Heartbeat > time.Hour:
		return nil, fmt.Errorf("heartbeat: %s is not within 1s and 1h", o.Heartbeat)
	}
	for _, name := range o.Injections {
		if !strings.HasPrefix(name, o.Parent+"/injections/") {
			return nil, fmt.Errorf("injection %q: want a full name in %s, as %s/injections/web", name, o.Parent, o.Parent)
		}
	}
	c, err := client.Dial(server)
	if err != nil {
		return nil, err
	}
	if err := c.Close(); err != nil {
		return nil, err
	}
	return &Source{server: server, options: o, wake: make(chan struct{}, 1), reconnect: make(chan struct{}, 1)}, nil
}

// Run implements [inject.Source].
func (s *Source) Run(ctx context.Context, c inject.Consumer) error {
	redial.Run(ctx, func(ctx context.Context, up func()) error { return s.connect(ctx, c, up) }, c.Disconnected)
	return nil
}

// Report implements [inject.Source].
func (s *Source) Report(r inject.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		s.report, s.sent = &r, false
		signal(s.wake)
	}
}

// Reconnect implements [inject.Source].
func (s *Source) Reconnect() { signal(s.reconnect) }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

var (
	errReconnect = errors.New("a whole set is needed")
	errGoodbye   = errors.New("the server did not answer to the goodbye")
)

type stream = grpc.BidiStreamingClient[credstorev1.WatchSetRequest, credstorev1.WatchSetResponse]

// connect is one stream, from its beginning to its end. The stream outlives ctx
// for as long as the goodbye takes.
func (s *Source) connect(ctx context.Context, c inject.Consumer, up func()) error {
	conn, err := client.Dial(s.server)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing to lose
	s.begin()
	streaming, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	watchdog := redial.NewWatchdog(cancel, s.options.Heartbeat)
	defer watchdog.Stop()

	hurry := context.AfterFunc(ctx, func() { cancel(ctx.Err()) })
	st, err := conn.Injections.WatchSet(streaming)
	if err == nil {
		err = st.Send(s.open(c.Have()))
	}
	if !hurry() {
		return ctx.Err()
	}
	// A failed Send says nothing but EOF; Recv tells why.
	if err != nil && !errors.Is(err, io.EOF) {
		return cause(streaming, err)
	}

	deadline := time.AfterFunc(time.Hour, func() { cancel(errGoodbye) })
	deadline.Stop()
	defer deadline.Stop()
	defer context.AfterFunc(ctx, func() { deadline.Reset(goodbyeTimeout) })()

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.send(ctx, streaming, cancel, st)
	}()
	err = s.receive(ctx, st, c, watchdog, up)
	err = cause(streaming, err)
	cancel(nil)
	<-sent
	return err
}

func (s *Source) open(have map[string]string) *credstorev1.WatchSetRequest {
	return &credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Open_{Open: &credstorev1.WatchSetRequest_Open{
		Parent: s.options.Parent, Workload: s.options.Workload, Injections: s.options.Injections,
		Have: have, HeartbeatInterval: durationpb.New(s.options.Heartbeat),
	}}}
}

// begin forgets what was meant for the connection before.
func (s *Source) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report, s.sent, s.live = nil, false, false
	for _, ch := range []chan struct{}{s.wake, s.reconnect} {
		select {
		case <-ch:
		default:
		}
	}
}

// receive hands sets over until the stream ends.
func (s *Source) receive(ctx context.Context, st stream, c inject.Consumer, watchdog *redial.Watchdog, up func()) error {
	first, whole := true, false
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		received := time.Now()
		watchdog.Stop() // while files are written nobody listens
		if first && ctx.Err() == nil {
			first = false
			up()
			c.Connected()
		}
		if set := m.GetSet(); set != nil && ctx.Err() == nil {
			whole = whole || set.GetWhole()
			if !whole {
				return errors.New("the server began with a set that is not whole")
			}
			s.mu.Lock()
			s.live = true
			s.mu.Unlock()
			c.Set(ctx, fromProto(set, received))
		}
		watchdog.Reset()
	}
}

// send sends reports until the stream ends, and the goodbye when ctx does.
func (s *Source) send(ctx, streaming context.Context, cancel context.CancelCauseFunc, st stream) {
	for {
		select {
		case <-streaming.Done():
			return
		case <-s.reconnect:
			cancel(errReconnect)
			return
		case <-ctx.Done():
			// The server ends the stream when it has read these.
			_ = st.Send(s.next(true))
			_ = st.CloseSend()
			return
		case <-s.wake:
			if m := s.next(false); m != nil {
				if err := st.Send(m); err != nil {
					return // Recv tells why
				}
			}
		}
	}
}

// next returns the message to send now; nil for none. A goodbye repeats the last
// report.
func (s *Source) next(goodbye bool) *credstorev1.WatchSetRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !goodbye && (s.report == nil || s.sent) {
		return nil
	}
	r := &credstorev1.WatchSetRequest_Report{Goodbye: goodbye}
	if s.report != nil {
		s.sent = true
		r.Revision = s.report.Revision
		for _, f := range s.report.Failures {
			r.Failures = append(r.Failures, &credstorev1.ItemReport{Id: strings.ToValidUTF8(f.ID, "?"), Message: strings.ToValidUTF8(f.Message, "?")})
		}
	}
	return &credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Report_{Report: r}}
}

// cause prefers why a stream was ended here over what gRPC makes of that.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the server ended the stream")
	}
	return err
}

func fromProto(set *credstorev1.Set, received time.Time) inject.Set {
	s := inject.Set{Revision: set.GetRevision(), Whole: set.GetWhole(), Removed: set.GetRemoved(), Received: received}
	s.Items = make([]inject.Item, len(set.GetItems()))
	for i, it := range set.GetItems() {
		s.Items[i] = inject.Item{
			ID: it.GetId(), Injection: it.GetInjection(), Group: it.GetGroup(), Digest: it.GetDigest(),
			Path: it.GetFile().GetPath(), Mode: it.GetFile().GetMode(),
			State: stateFrom(it.GetState()), Message: it.GetMessage(), Version: it.GetVersion(),
			HasContent: it.Content != nil, Content: it.GetContent(),
		}
		if f := it.GetFile(); f != nil {
			s.Items[i].UID, s.Items[i].GID = f.Uid, f.Gid
		}
	}
	return s
}

// stateFrom takes what it does not know for OK: whether there is a content is
// what counts.
func stateFrom(s credstorev1.SetItem_State) inject.State {
	switch s {
	case credstorev1.SetItem_FAILED:
		return inject.Failed
	case credstorev1.SetItem_STALE:
		return inject.Stale
	default:
		return inject.OK
	}
}

package grpcapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// method is what is known of an RPC from the start.
type method struct {
	// name is the full name without the leading slash.
	name string
	// stream says that it is a stream to its clients too.
	stream bool
	// open says that it needs no authentication.
	open    bool
	metrics *methodMetrics
	// run receives, serves and answers. It may use the stream's context, which
	// is the one that the steps made.
	run func(impl any, ss *serverStream) error
}

// call is one RPC on its way through the steps.
type call struct {
	method  *method
	impl    any
	stream  *serverStream
	arrival arrival
	// principal is who is calling, once that is known, for the log.
	principal string
}

type handler func(ctx context.Context, c *call) error

// steps returns what every call and every stream passes, the outermost first.
func (s *Server) steps() []func(next handler) handler {
	return []func(handler) handler{
		s.identify,     // a call id; metrics and the access log see the final answer
		s.translate,    // errors become statuses
		s.contain,      // panics become errors
		s.admit,        // not while shutting down, and not too many at once
		s.authenticate, // the principal
		s.throttle,     // not too many by one principal, nor at once by one project
		s.hold,         // streams end with their token and with the server
	}
}

// chain puts the steps around the handler.
func (s *Server) chain() handler {
	h := handler(func(ctx context.Context, c *call) error {
		c.stream.ctx = ctx
		return c.method.run(c.impl, c.stream)
	})
	for _, step := range slices.Backward(s.steps()) {
		h = step(h)
	}
	return h
}

func newCallID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// identify gives the call its id and, when it has ended, counts and logs it:
// what was served at debug level, what was refused at info, what failed at
// error, and streams at info. No message and no name of a resource is logged;
// the audit log has those.
func (s *Server) identify(next handler) handler {
	return func(ctx context.Context, c *call) error {
		ctx = core.WithCallID(ctx, newCallID())
		began := time.Now()
		c.method.metrics.begin()
		err := next(ctx, c)
		code := status.Code(err)
		took := time.Since(began)
		c.method.metrics.end(code, took)
		level := levelOf(code, c.method.stream)
		if s.log.Enabled(ctx, level) {
			s.log.LogAttrs(ctx, level, "call",
				slog.String("method", c.method.name), slog.String("code", code.String()), slog.Duration("took", took),
				slog.String("principal", c.principal), slog.String("remote", s.cfg.Remote(ctx)), slog.String("callId", core.CallID(ctx)))
		}
		return err
	}
}

func levelOf(code codes.Code, stream bool) slog.Level {
	switch code {
	case codes.OK:
		if !stream {
			return slog.LevelDebug
		}
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// translate answers errors with statuses. When a context was ended by us, its
// cause says more than the error of whatever noticed first.
func (s *Server) translate(next handler) handler {
	return func(ctx context.Context, c *call) error {
		err := next(ctx, c)
		if err == nil {
			return nil
		}
		return StatusError(ctx, s.log, err)
	}
}

// contain turns a panic into an error. Its value is not logged: it may hold what
// was being handled. The stack has no values.
func (s *Server) contain(next handler) handler {
	return func(ctx context.Context, c *call) (err error) {
		defer func() {
			if p := recover(); p != nil {
				s.metrics.panics.Inc()
				s.log.LogAttrs(ctx, slog.LevelError, "panic in a call", slog.String("method", c.method.name),
					slog.String("callId", core.CallID(ctx)), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
				err = errPanic
			}
		}()
		return next(ctx, c)
	}
}

// admit bounds what runs at once.
func (s *Server) admit(next handler) handler {
	return func(ctx context.Context, c *call) error {
		if s.draining.Load() && !c.method.open {
			return errShuttingDown
		}
		slots, most := &s.calls, s.cfg.Limits.Calls
		if c.method.stream {
			slots, most = &s.streams, s.cfg.Limits.Streams
		}
		defer slots.Add(-1)
		if slots.Add(1) > int64(most) {
			return errOverloaded
		}
		return next(ctx, c)
	}
}

// authenticate puts the principal into the context.
func (s *Server) authenticate(next handler) handler {
	return func(ctx context.Context, c *call) error {
		if c.method.open {
			return next(ctx, c)
		}
		ctx, err := s.cfg.Authenticate(ctx)
		if err != nil {
			return err
		}
		p := core.PrincipalFrom(ctx)
		if p == nil {
			return errNobody
		}
		c.principal = p.Name
		return next(ctx, c)
	}
}

// throttle bounds how often one principal calls, and how many calls of its project
// run at once.
func (s *Server) throttle(next handler) handler {
	return func(ctx context.Context, c *call) error {
		p := core.PrincipalFrom(ctx)
		if p == nil {
			return next(ctx, c)
		}
		if err := s.rates.take(p.TokenUID, time.Now()); err != nil {
			return err
		}
		if !c.method.stream {
			release, err := s.shares.take(p)
			if err != nil {
				return err
			}
			defer release()
		}
		return next(ctx, c)
	}
}

// linger is how long a stream that is to end may take to say so to its client.
const linger = time.Second

// hold ends a stream when its token is deleted or expires, and when the server
// stops: first its context, and with it what waits in the domain; a second later
// what still waits for a client that neither reads nor sends. Calls end by their
// deadline, which is set when they arrive.
func (s *Server) hold(next handler) handler {
	return func(ctx context.Context, c *call) error {
		p := core.PrincipalFrom(ctx)
		if !c.method.stream || p == nil {
			return next(ctx, c)
		}
		ctx, endSession := s.cfg.Session(ctx, p)
		defer endSession()
		ctx, release, err := s.open.add(ctx)
		if err != nil {
			return err
		}
		defer release()
		returned := make(chan struct{})
		defer close(returned)
		defer context.AfterFunc(ctx, func() {
			t := time.NewTimer(linger)
			defer t.Stop()
			select {
			case <-t.C:
				c.arrival.cut()
			case <-returned:
			}
		})()
		err = next(ctx, c)
		// Whatever noticed the end first, the reason for it is the answer.
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
}

// serverStream is a stream with the context that the steps made, which bounds
// and translates what is received.
type serverStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // that is what a ServerStream is
	// opened is called when the first message has come.
	opened func()
}

// Context returns the context that the steps made.
func (s *serverStream) Context() context.Context { return s.ctx }

// RecvMsg receives a message; its errors for a bad one are the domain's.
func (s *serverStream) RecvMsg(m any) error {
	r := received{message: m}
	if err := s.ServerStream.RecvMsg(&r); err != nil {
		return err
	}
	if s.opened != nil {
		s.opened()
		s.opened = nil
	}
	return r.err
}

package grpcapi

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// registrar registers services on a gRPC server so that every method passes the
// steps. It is a grpc.ServiceRegistrar, for generated code, and what the
// reflection service asks which services there are.
type registrar struct {
	*grpc.Server

	server *Server
}

// RegisterService registers every method of the service as a stream that passes
// the steps.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	wrapped := *desc
	wrapped.Methods = nil
	wrapped.Streams = make([]grpc.StreamDesc, 0, len(desc.Methods)+len(desc.Streams))
	for _, m := range desc.Methods {
		r.server.addMethod(desc.ServiceName, m.MethodName, false, unary(m))
		wrapped.Streams = append(wrapped.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: r.server.handle})
	}
	for _, d := range desc.Streams {
		generated := d.Handler
		r.server.addMethod(desc.ServiceName, d.StreamName, true, func(impl any, ss *serverStream) error { return generated(impl, ss) })
		d.Handler = r.server.handle
		wrapped.Streams = append(wrapped.Streams, d)
	}
	r.Server.RegisterService(&wrapped, impl)
}

// unary serves a call on a stream.
func unary(m grpc.MethodDesc) func(any, *serverStream) error {
	return func(impl any, ss *serverStream) error {
		answer, err := m.Handler(impl, ss.Context(), ss.RecvMsg, nil)
		if err != nil {
			return err
		}
		return ss.SendMsg(answer)
	}
}

func (s *Server) addMethod(service, name string, stream bool, run func(any, *serverStream) error) {
	full := "/" + service + "/" + name
	if _, known := s.methods[full]; known {
		return // the second of the two servers
	}
	s.methods[full] = &method{
		name: full[1:], stream: stream, metrics: s.metrics.of(full[1:], stream), run: run,
		open: full == grpc_health_v1.Health_Check_FullMethodName,
	}
}

// handle serves every RPC of every service.
func (s *Server) handle(impl any, stream grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(stream)
	m, ok := s.methods[full]
	if !ok {
		m = s.unknown
	}
	ctx := stream.Context()
	a, _ := ctx.Value(arrivalKey{}).(arrival)
	if a.over != nil {
		defer a.over()
	}
	return s.serve(ctx, &call{method: m, impl: impl, arrival: a, stream: &serverStream{ServerStream: stream, opened: a.opened}})
}

// unknownMethod is what a call of something else is answered, after the steps.
func unknownMethod(any, *serverStream) error {
	return status.Error(codes.Unimplemented, "the contract has no such method")
}

// arrival is what arrive started.
type arrival struct {
	opened func() // to be called when the first message has come, unless nil
	over   func() // to be called when the handler has returned, unless nil
	cut    func() // ends a stream at the transport
}

type arrivalKey struct{}

// arrive is called when the header of a call has come, before its message. It
// sets the deadline of a call - the client's if it is shorter than ours - and
// that of a stream's first message: the transport waits for messages with the
// context returned here, so nothing that never comes is waited for. It must not
// refuse: gRPC would keep a refused call's context until the connection ends.
func (s *Server) arrive(ctx context.Context, info *tap.Info) (context.Context, error) {
	var a arrival
	if m, ok := s.methods[info.FullMethodName]; ok && m.stream {
		bounded, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(s.cfg.Limits.OpenTimeout, func() { cancel(errNotOpened) })
		cut := func() { timer.Stop(); cancel(nil) }
		a = arrival{opened: func() { timer.Stop() }, over: cut, cut: cut}
		return context.WithValue(bounded, arrivalKey{}, a), nil
	}
	most := defaultDeadline
	if theirs, ok := ctx.Deadline(); ok {
		if most = maxDeadline; time.Until(theirs) <= most {
			return ctx, nil
		}
	}
	bounded, cancel := context.WithTimeout(ctx, most)
	a.over = cancel
	return context.WithValue(bounded, arrivalKey{}, a), nil
}

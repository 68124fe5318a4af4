package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

var (
	errPanic        = errors.New("panic")
	errNobody       = errors.New("authentication returned no principal")
	errShuttingDown = unavailable(ReasonShuttingDown, "the server is stopping: connect again, to another one if there is one")
	errOverloaded   = unavailable(ReasonOverloaded, "the server has too much to do: try again later")
	errShareTaken   = unavailable(ReasonOverloaded, "this project has too many calls under way: try again later")
	errNotOpened    = &core.Error{
		Kind: core.ErrInvalid, Reason: ReasonStreamNotOpened, Message: "the stream's first message did not come in time",
	}
)

// Config is what a Server needs.
type Config struct {
	// Store is the domain. Required.
	Store *core.Store
	// Authenticate returns the context of an incoming call with its principal.
	// Its errors are the domain's, or say when to try again. Required.
	Authenticate func(context.Context) (context.Context, error)
	// Remote returns the network address behind a call, for the access log; nil
	// means that it is not logged.
	Remote func(context.Context) string
	// Session returns a context that ends when the principal's token does; nil
	// means that of the Store.
	Session func(context.Context, *core.Principal) (context.Context, context.CancelFunc)
	// Creds secure the listeners given to Serve; nil means no TLS.
	Creds  credentials.TransportCredentials
	Limits Limits
	// Logger gets the access log, panics and unknown errors; nil discards.
	Logger *slog.Logger
	// Metrics is where the server's are registered; nil means nowhere.
	Metrics prometheus.Registerer
}

// Server serves the contract over gRPC: on the listeners given to Serve, and
// inside the process for the REST gateway. Both pass the same steps.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	rates   *rates
	shares  *shares
	methods map[string]*method
	unknown *method
	serve   handler

	draining       atomic.Bool
	calls, streams atomic.Int64
	open           *openStreams

	// outside serves Serve's listeners; inside, without TLS and without a bound
	// per connection, the one in memory.
	outside, inside *grpc.Server
	memory          *bufconn.Listener
	dial            sync.Once
	running         sync.WaitGroup
}

// NewServer returns a Server that serves once Serve or Dial is called. It fails
// for a contract of which a method names no permission. The caller calls Stop.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Authenticate == nil {
		return nil, errors.New("grpcapi: Store and Authenticate are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Remote == nil {
		cfg.Remote = func(context.Context) string { return "" }
	}
	if cfg.Session == nil {
		cfg.Session = cfg.Store.Session
	}
	if cfg.Creds == nil {
		cfg.Creds = insecure.NewCredentials()
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if _, err := permissionTable(contract()); err != nil {
		return nil, fmt.Errorf("grpcapi: %w", err)
	}
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("grpcapi: %w", err)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("grpcapi: %w", err)
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, metrics: m, rates: newRates(cfg.Limits.PrincipalRate), shares: newShares(cfg.Limits.Calls),
		methods: make(map[string]*method), open: newOpenStreams(), memory: bufconn.Listen(window),
	}
	s.unknown = &method{name: "unknown", metrics: m.of("unknown", false), run: unknownMethod}
	s.serve = s.chain()
	s.outside = grpc.NewServer(append(s.options(c), grpc.Creds(cfg.Creds),
		grpc.MaxConcurrentStreams(uint32(cfg.Limits.ConnectionStreams)))...)
	s.inside = grpc.NewServer(s.options(c)...)
	for _, g := range []*grpc.Server{s.outside, s.inside} {
		s.register(registrar{Server: g, server: s})
	}
	return s, nil
}

// options are those of both servers.
func (s *Server) options(c codec) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(c),
		grpc.InTapHandle(s.arrive),
		grpc.UnknownServiceHandler(s.handle),
		grpc.MaxRecvMsgSize(2 * maxReceive),
		grpc.MaxSendMsgSize(maxSend),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(window),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true), // the caller closes the Store behind us
		// A client that vanished is noticed within 40 s.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// register registers every service, and nothing else does.
func (s *Server) register(r registrar) {
	credstorev1.RegisterProjectServiceServer(r, projectService{store: s.cfg.Store})
	credstorev1.RegisterTokenServiceServer(r, tokenService{store: s.cfg.Store})
	credstorev1.RegisterCredentialServiceServer(r, credentialService{store: s.cfg.Store})
	credstorev1.RegisterSecretStoreServiceServer(r, secretStoreService{store: s.cfg.Store})
	credstorev1.RegisterInjectionServiceServer(r, injectionService{store: s.cfg.Store})
	grpc_health_v1.RegisterHealthServer(r, healthService{server: s, services: r.Server})
	reflection.Register(r)
}

// Serve accepts connections on l until Stop, and returns nil then. It may be
// called for several listeners, which it closes.
func (s *Server) Serve(l net.Listener) error {
	if err := s.outside.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// Dial returns a connection to the server inside the process, for the gateway.
// The caller closes it.
func (s *Server) Dial() (*grpc.ClientConn, error) {
	s.dial.Do(func() {
		s.running.Go(func() {
			if err := s.inside.Serve(s.memory); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				s.log.Error("in-process listener failed", "error", err)
			}
		})
	})
	conn, err := grpc.NewClient("passthrough:///credstore",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.memory.DialContext(ctx) }),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxSend), grpc.MaxCallSendMsgSize(maxSend)),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, fmt.Errorf("dial in process: %w", err)
	}
	return conn, nil
}

// InProcess says whether a peer's address is that of a connection made by Dial.
// No listener of the network has such addresses.
func InProcess(from net.Addr) bool { return from != nil && from.Network() == "bufconn" }

// Stop ends the server: it accepts nothing new, lets calls finish, and ends
// streams, spread over the first half of the time, with UNAVAILABLE and reason
// SHUTTING_DOWN. What has not ended when the time is over is cut. Stop returns
// when all is over.
func (s *Server) Stop(within time.Duration) {
	s.draining.Store(true)
	s.open.drain(within / 2)
	cut := time.AfterFunc(within, func() {
		s.outside.Stop()
		s.inside.Stop()
	})
	defer cut.Stop()
	var both sync.WaitGroup
	both.Go(s.inside.GracefulStop)
	both.Go(s.outside.GracefulStop)
	both.Wait()
	s.running.Wait()
}

package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/credstore/credstore/gen/openapi"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/audit"
	"github.com/credstore/credstore/services/credstore/internal/authn"
	"github.com/credstore/credstore/services/credstore/internal/authz"
	"github.com/credstore/credstore/services/credstore/internal/broker"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/gateway"
	"github.com/credstore/credstore/services/credstore/internal/grpcapi"
	"github.com/credstore/credstore/services/credstore/internal/issuer"
)

// drainTime is how long calls and streams get to end when the server stops.
const drainTime = 5 * time.Second

// ServerConfig is what a server needs. Dir, GRPCListen and RESTListen are
// required.
type ServerConfig struct {
	Dir Dir
	// Create makes what the data folder lacks; without it a folder without a
	// store is refused.
	Create bool
	// RootKey is the root key's file; empty means the data folder's.
	RootKey string
	// GRPCListen and RESTListen are host:port; port 0 lets the kernel choose.
	GRPCListen, RESTListen string
	// MetricsListen is where /metrics is served, without TLS, so at a loopback
	// address only; empty means nowhere.
	MetricsListen string
	// Hosts are further names and addresses for the server's certificate.
	Hosts []string
	// CertFile and KeyFile are a certificate of the operator's in place of one
	// by the data folder's own authority.
	CertFile, KeyFile string
	// Insecure does without TLS, at loopback addresses only.
	Insecure bool
	// AllowTargets are the private networks that external stores may be in.
	AllowTargets []netip.Prefix
	// Vendors says where the vendors of credentials are asked.
	Vendors VendorConfig
	// Ambient says which kinds of credentials act as the server itself, and where.
	Ambient Ambient
	// AuditLog is the audit log's file; empty means the data folder's.
	AuditLog string
	// AuditSync waits for the disk after every line of it.
	AuditSync bool
	Limits    grpcapi.Limits
	Logger    *slog.Logger
}

// Server is a credstore server: opened, it listens; Run serves and closes it.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	state   *state
	store   *core.Store
	broker  *broker.Broker
	issuer  *issuer.Issuer
	outside reached
	audit   *audit.Log
	metrics *prometheus.Registry

	certificate *tls.Certificate // nil when insecure
	roots       *x509.CertPool

	grpc     *grpcapi.Server
	rest     *http.Server
	inside   *grpc.ClientConn
	grpcLis  net.Listener
	restLis  net.Listener
	observer *http.Server // nil without MetricsListen
	obsLis   net.Listener
}

// OpenServer opens everything in order: certificates, storage and keys, audit
// log, broker, issuer, domain, servers, listeners. What it opened is closed again when
// a later step fails.
func OpenServer(ctx context.Context, cfg ServerConfig) (_ *Server, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, metrics: prometheus.NewRegistry()}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := checkListeners(cfg); err != nil {
		return nil, err
	}
	if cfg.Create {
		if err := cfg.Dir.make(); err != nil {
			return nil, err
		}
	}
	if s.state, err = openState(ctx, cfg.Dir, rootKeyPath(cfg.Dir, cfg.RootKey), cfg.Create); err != nil {
		return nil, err
	}
	if err := s.openCertificate(); err != nil {
		return nil, err
	}
	auditPath := cfg.AuditLog
	if auditPath == "" {
		auditPath = cfg.Dir.AuditLog()
	}
	if s.audit, err = audit.Open(auditPath, audit.Options{Sync: cfg.AuditSync}); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	if s.outside, err = reach(provider.Egress{Allow: cfg.AllowTargets}, cfg.Vendors); err != nil {
		return nil, err
	}
	if s.broker, err = broker.New(broker.Config{Open: s.outside.stores, Logger: s.log, Metrics: s.metrics}); err != nil {
		return nil, err
	}
	if s.issuer, err = issuer.New(issuer.Config{Vendors: s.outside.vendors, Logger: s.log, Metrics: s.metrics}); err != nil {
		return nil, err
	}
	ready, err := cfg.Ambient.readyMade()
	if err != nil {
		return nil, err
	}
	if s.store, err = core.New(ctx, core.Config{
		Storage: s.state.storage, Sealer: s.state.sealer, Derive: s.state.sealer.Derive,
		Authorizer: authz.New(), Auditor: s.audit, Brokerage: s.broker, Issuer: s.issuer,
		Bound: cfg.Ambient.allows, ReadyMade: ready, Logger: s.log,
	}); err != nil {
		return nil, fmt.Errorf("load the store: %w", err)
	}
	if err := s.metrics.Register(ages(s.store.Ages)); err != nil {
		return nil, err
	}
	if err := s.openServers(ctx); err != nil {
		return nil, err
	}
	return s, s.listen(ctx)
}

// checkListeners refuses to serve in clear where others could listen.
func checkListeners(cfg ServerConfig) error {
	local := []string{cfg.MetricsListen}
	if cfg.Insecure {
		local = append(local, cfg.GRPCListen, cfg.RESTListen)
	}
	for _, address := range local {
		if address == "" {
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("listen address %q: %w", address, err)
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return fmt.Errorf("listen address %q is served without TLS, so it must be a loopback address", address)
		}
	}
	return nil
}

func (s *Server) openCertificate() error {
	if s.cfg.Insecure {
		return nil
	}
	if s.cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(s.cfg.CertFile, s.cfg.KeyFile)
		if err != nil {
			return fmt.Errorf("server certificate: %w", err)
		}
		s.certificate = &cert
		return nil
	}
	cert, err := ensureCertificates(s.cfg.Dir, withLocalHosts(s.cfg.Hosts), time.Now())
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(s.cfg.Dir.CA())
	if err != nil {
		return err
	}
	s.certificate, s.roots = &cert, x509.NewCertPool()
	s.roots.AppendCertsFromPEM(ca)
	return nil
}

func (s *Server) openServers(ctx context.Context) (err error) {
	who := authn.New(authn.Config{
		Lookup: s.store.Authenticate,
		Forwarded: func(from net.Addr, md metadata.MD) (string, bool) {
			if !grpcapi.InProcess(from) {
				return "", false
			}
			return gateway.Remote(md)
		},
	})
	var creds credentials.TransportCredentials
	if s.certificate != nil {
		creds = credentials.NewTLS(s.tlsConfig())
	}
	if s.grpc, err = grpcapi.NewServer(grpcapi.Config{
		Store: s.store, Authenticate: who.Call, Remote: who.Remote, Creds: creds,
		Limits: s.cfg.Limits, Logger: s.log, Metrics: s.metrics,
	}); err != nil {
		return err
	}
	if s.inside, err = s.grpc.Dial(); err != nil {
		return err
	}
	rest, err := gateway.New(ctx, gateway.Config{
		Conn: s.inside,
		Authenticate: func(ctx context.Context, remote string, authorization []string) error {
			if _, err := who.Header(ctx, remote, authorization); err != nil {
				return grpcapi.StatusError(ctx, s.log, err)
			}
			return nil
		},
		Ready: s.store.Ready, OpenAPI: openapi.JSON, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.rest = &http.Server{
		Handler:           rest,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      90 * time.Second, // above the greatest deadline of a call; streams lift it
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if s.cfg.MetricsListen != "" {
		s.observer = newObserver(s.metrics)
	}
	return nil
}

func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*s.certificate}}
}

func (s *Server) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if s.grpcLis, err = lc.Listen(ctx, "tcp", s.cfg.GRPCListen); err != nil {
		return err
	}
	if s.restLis, err = lc.Listen(ctx, "tcp", s.cfg.RESTListen); err != nil {
		return err
	}
	if s.observer != nil {
		s.obsLis, err = lc.Listen(ctx, "tcp", s.cfg.MetricsListen)
	}
	return err
}

// Run serves until ctx ends, then drains and closes everything.
func (s *Server) Run(ctx context.Context) error {
	// The domain outlives the servers: what they still answer needs it.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	domain, servers := make(chan error, 3), make(chan error, 3)
	go func() { domain <- s.store.Run(inner) }()
	go func() { domain <- s.broker.Run(inner, s.store) }()
	go func() { domain <- s.issuer.Run(inner, s.store) }()
	go func() { servers <- s.grpc.Serve(s.grpcLis) }()
	go func() { servers <- s.serveREST() }()
	started := 2
	if s.observer != nil {
		started++
		go func() { servers <- ignoreClosed(s.observer.Serve(s.obsLis)) }()
	}
	s.log.Info("serving", "grpc", s.GRPCAddr(), "rest", s.URL())

	var err error
	left := 3 // of the domain
	select {
	case <-ctx.Done():
	case err = <-servers:
		started--
	case err = <-domain:
		left--
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	s.grpc.Stop(drainTime)
	err = errors.Join(err, s.rest.Shutdown(stop))
	if s.observer != nil {
		err = errors.Join(err, s.observer.Shutdown(stop))
	}
	for range started {
		err = errors.Join(err, <-servers)
	}
	stopInner()
	for range left {
		err = errors.Join(err, <-domain)
	}
	return errors.Join(err, s.close())
}

func (s *Server) serveREST() error {
	if s.certificate == nil {
		return ignoreClosed(s.rest.Serve(s.restLis))
	}
	config := s.tlsConfig()
	config.NextProtos = []string{"h2", "http/1.1"}
	s.rest.TLSConfig = config
	return ignoreClosed(s.rest.ServeTLS(s.restLis, "", ""))
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// close closes what is open, the newest first.
func (s *Server) close() error {
	var errs []error
	for _, l := range []net.Listener{s.obsLis, s.restLis, s.grpcLis} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if s.inside != nil {
		errs = append(errs, s.inside.Close())
	}
	if s.grpc != nil {
		s.grpc.Stop(0)
	}
	if s.issuer != nil {
		s.issuer.Close()
	}
	if s.outside.close != nil {
		s.outside.close()
	}
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	if s.state != nil {
		errs = append(errs, s.state.storage.Close())
	}
	return errors.Join(errs...)
}

// Store is the domain, for whoever holds the data folder.
func (s *Server) Store() *core.Store { return s.store }

// GRPCAddr is where gRPC is served, host:port.
func (s *Server) GRPCAddr() string { return s.grpcLis.Addr().String() }

// URL is where REST is served.
func (s *Server) URL() string {
	if s.certificate == nil {
		return "http://" + s.restLis.Addr().String()
	}
	return "https://" + s.restLis.Addr().String()
}

// Certificate is the server's, with the authority that signed it where that is
// the data folder's own; both are nil when insecure.
func (s *Server) Certificate() (*tls.Certificate, *x509.CertPool) { return s.certificate, s.roots }

// ReopenLogs opens the audit log anew, after it was rotated.
func (s *Server) ReopenLogs() error { return s.audit.Reopen() }

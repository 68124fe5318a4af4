package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// MaxMessageBytes bounds one message in either direction: a whole set with
	// its manifest fits.
	MaxMessageBytes = 16 << 20
	// windowBytes fixes the flow-control windows. grpc-go's estimator, which
	// this switches off, costs more than it gains on streams of small messages.
	windowBytes = 1 << 20
	// connectTimeout bounds one attempt to connect, TLS included.
	connectTimeout = 10 * time.Second
)

// Options say where credstore is and who asks.
type Options struct {
	// Address is required: "host:port", or "unix:///path" for a socket.
	Address string

	// CAPEM or the file CAFile holds the certificates that the server's must be
	// signed by. No others are trusted, those of the system only if SystemRoots
	// says so. One of the three is required unless Insecure.
	CAPEM       []byte
	CAFile      string
	SystemRoots bool
	// ServerName is what the server's certificate must be for; empty means the
	// host of Address.
	ServerName string
	// Insecure does without TLS. It is refused unless the server is on this
	// machine: at a loopback address or a unix socket.
	Insecure bool

	// TokenFile holds the API token; it is read again when it changes, so that
	// a token can be replaced under a running program. Token is asked before
	// each call instead. With neither, calls carry no token.
	TokenFile string
	Token     func(context.Context) (string, error)

	// UserAgent precedes that of gRPC; optional.
	UserAgent string
	// Keepalive is how long a connection is idle before it is probed; zero means
	// never. A server may end connections that probe often (5 minutes is safe).
	// Watches do not need it: heartbeats tell them whether the server is there.
	Keepalive time.Duration
	// DialContext makes connections in place of the network; for servers in the
	// same process. With it, Insecure also accepts connections that are no
	// network's.
	DialContext func(ctx context.Context, address string) (net.Conn, error)
}

// dial returns a connection, which is made when it is first used.
func (o Options) dial() (*grpc.ClientConn, error) {
	if err := o.checkAddress(); err != nil {
		return nil, err
	}
	transport, err := o.transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithStaticStreamWindowSize(windowBytes),
		grpc.WithStaticConnWindowSize(windowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 15 * time.Second},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithChainUnaryInterceptor(unaryErrors),
		grpc.WithChainStreamInterceptor(streamErrors),
		grpc.WithDisableServiceConfig(),
	}
	if t := o.tokens(); t != nil {
		options = append(options, grpc.WithPerRPCCredentials(t))
	}
	if o.UserAgent != "" {
		options = append(options, grpc.WithUserAgent(o.UserAgent))
	}
	if o.Keepalive > 0 {
		options = append(options, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: o.Keepalive, Timeout: connectTimeout}))
	}
	target := o.Address
	if o.DialContext != nil {
		options = append(options, grpc.WithContextDialer(o.DialContext))
		target = "passthrough:///" + o.Address
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", o.Address, err)
	}
	return conn, nil
}

func (o Options) checkAddress() error {
	if path, ok := strings.CutPrefix(o.Address, "unix://"); ok {
		if !strings.HasPrefix(path, "/") || path == "/" {
			return fmt.Errorf("address %q: a socket needs an absolute path, as unix:///run/credstore.sock", o.Address)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(o.Address, "/@") {
		return fmt.Errorf("address %q: want host:port, without a scheme, or unix:///path", o.Address)
	}
	if o.Insecure && o.DialContext == nil && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("address %q: insecure is for loopback addresses and unix sockets: use TLS", o.Address)
	}
	return nil
}

// transport returns how connections are secured.
func (o Options) transport() (credentials.TransportCredentials, error) {
	if o.Insecure {
		return newLocalOnly(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	pem := o.CAPEM
	if o.CAFile != "" {
		if len(pem) > 0 {
			return nil, errors.New("certificate authority: give a file or its content, not both")
		}
		var err error
		if pem, err = os.ReadFile(o.CAFile); err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
	}
	if len(pem) == 0 && !o.SystemRoots {
		return nil, errors.New("certificate authority: none is given: name the file of credstore's, or ask for the system's")
	}
	if o.SystemRoots {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("certificate authority: the system's: %w", err)
		}
		config.RootCAs = roots
	} else {
		config.RootCAs = x509.NewCertPool()
	}
	if len(pem) > 0 && !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("certificate authority: no certificate in PEM form is in it")
	}
	return credentials.NewTLS(config), nil
}

// Package clienttest owns a scripted credstore server for tests of its clients:
// it checks tokens and opens, and hands each stream to the test. It holds no
// credentials and no logic of the real one.
package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/protoadapt"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// Token is the one that the server accepts, unless SetToken says another.
const Token = "credstore_test"

// Server is a credstore whose answers the test gives.
type Server struct {
	credstorev1.UnimplementedCredentialServiceServer
	credstorev1.UnimplementedInjectionServiceServer

	// Sets and Watches get every stream that was opened with the right token.
	Sets    chan *SetStream
	Watches chan *WatchStream
	// Unary, if set before the first call, answers GetCredential and
	// DeleteCredential with an error or nil.
	Unary func(name string) error
	// Mint, if set before the first call, answers MintToken.
	Mint func(*credstorev1.MintTokenRequest) (*credstorev1.MintTokenResponse, error)

	server *grpc.Server
	mu     sync.Mutex
	token  string
	agent  string
}

func newServer(options ...grpc.ServerOption) *Server {
	s := &Server{Sets: make(chan *SetStream, 64), Watches: make(chan *WatchStream, 64), token: Token, server: grpc.NewServer(options...)}
	credstorev1.RegisterCredentialServiceServer(s.server, s)
	credstorev1.RegisterInjectionServiceServer(s.server, s)
	return s
}

// StartMemory returns a server in memory, which works in a synctest bubble, and
// how to reach it. Connections to it can be cut. The test stops it.
func StartMemory(t testing.TB) (*Server, client.Options, *Network) {
	t.Helper()
	s := newServer()
	network := &Network{}
	network.Listen(s)
	return s, client.Options{
		Address: "memory:1", Insecure: true, DialContext: network.dial,
		Token: func(context.Context) (string, error) { return Token, nil },
	}, network
}

// StartTLS returns a server on a loopback port with a fresh certificate, and
// how to reach it. It stops with the test.
func StartTLS(t testing.TB) (*Server, client.Options) {
	t.Helper()
	certificate, ca := newCertificate(t)
	s := newServer(grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, l)
	return s, client.Options{
		Address: l.Addr().String(), CAPEM: ca,
		Token: func(context.Context) (string, error) { return Token, nil },
	}
}

// StartPlain returns a server on l without TLS. It stops with the test.
func StartPlain(t testing.TB, l net.Listener) *Server {
	t.Helper()
	s := newServer()
	s.serve(t, l)
	return s
}

func (s *Server) serve(t testing.TB, l net.Listener) {
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(l) }()
	t.Cleanup(func() {
		s.server.Stop()
		// A short test stops the server before it has begun to serve.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("fake server: %v", err)
		}
	})
}

// Stop ends the server and all its streams.
func (s *Server) Stop() { s.server.Stop() }

// SetToken makes another token the accepted one.
func (s *Server) SetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// UserAgent returns that of the last call.
func (s *Server) UserAgent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// Network is a cable that can be cut without either end noticing.
type Network struct {
	mu       sync.Mutex
	listener *bufconn.Listener
	cut      bool
	silent   []*silentConn
	dials    int
}

// Listen makes s the server that dials reach.
func (n *Network) Listen(s *Server) {
	l := bufconn.Listen(1 << 20)
	n.mu.Lock()
	n.listener = l
	n.mu.Unlock()
	go func() { _ = s.server.Serve(l) }()
}

// Replace starts a new server in the place of one that stopped.
func (n *Network) Replace() *Server {
	s := newServer()
	n.Listen(s)
	return s
}

// Cut makes existing connections swallow everything, as a network does that
// lost its route, and refuses new ones until Mend.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for _, c := range n.silent {
		c.silence()
	}
}

// Mend lets new connections through.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = false
}

// Dials counts the attempts to connect.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

func (n *Network) dial(ctx context.Context, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	l, cut := n.listener, n.cut
	n.mu.Unlock()
	if cut {
		return nil, io.ErrClosedPipe
	}
	conn, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	c := &silentConn{Conn: conn, mute: make(chan struct{}), closed: make(chan struct{})}
	n.mu.Lock()
	n.silent = append(n.silent, c)
	n.mu.Unlock()
	return c, nil
}

// silentConn can stop to deliver without being closed.
type silentConn struct {
	net.Conn
	once, end    sync.Once
	mute, closed chan struct{}
}

func (c *silentConn) silence() { c.once.Do(func() { close(c.mute) }) }

func (c *silentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.mute:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *silentConn) Write(p []byte) (int, error) {
	select {
	case <-c.mute:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

func (c *silentConn) Close() error {
	c.end.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// check answers calls with another token as the real server does.
func (s *Server) check(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	if agent := md.Get("user-agent"); len(agent) > 0 {
		s.agent = agent[0]
	}
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+s.token {
		return Failure(codes.Unauthenticated, "UNAUTHENTICATED", "the token is not valid")
	}
	return nil
}

// Failure is an error as the real server answers it.
func Failure(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	st := status.New(code, message)
	all := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "credstore"}}, details...)
	if with, err := st.WithDetails(all...); err == nil {
		st = with
	}
	return st.Err()
}

// SetStream is one WatchSet stream, from the server's side.
type SetStream struct {
	// Open is what the client sent first.
	Open *credstorev1.WatchSetRequest_Open
	// Reports gets the others, and is closed when the client has sent its last.
	Reports chan *credstorev1.WatchSetRequest_Report

	stream grpc.BidiStreamingServer[credstorev1.WatchSetRequest, credstorev1.WatchSetResponse]
	end    chan error
}

// Send sends a set.
func (s *SetStream) Send(set *credstorev1.Set) error {
	return s.stream.Send(&credstorev1.WatchSetResponse{Event: &credstorev1.WatchSetResponse_Set{Set: set}})
}

// Heartbeat sends a heartbeat.
func (s *SetStream) Heartbeat() error {
	return s.stream.Send(&credstorev1.WatchSetResponse{Event: &credstorev1.WatchSetResponse_Heartbeat_{Heartbeat: &credstorev1.WatchSetResponse_Heartbeat{}}})
}

// End ends the stream with err.
func (s *SetStream) End(err error) { s.end <- err }

// WatchSet implements the service.
func (s *Server) WatchSet(stream grpc.BidiStreamingServer[credstorev1.WatchSetRequest, credstorev1.WatchSetResponse]) error {
	if err := s.check(stream.Context()); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetOpen() == nil {
		return Failure(codes.InvalidArgument, "INVALID_FIELD", "open: required first")
	}
	st := &SetStream{Open: first.GetOpen(), Reports: make(chan *credstorev1.WatchSetRequest_Report, 64), stream: stream, end: make(chan error, 1)}
	s.Sets <- st
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer close(st.Reports)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			st.Reports <- m.GetReport()
		}
	}()
	select {
	case err := <-st.end:
		return err
	case <-gone:
		return nil
	}
}

// WatchStream is one Watch stream, from the server's side.
type WatchStream struct {
	Request *credstorev1.WatchRequest
	stream  grpc.ServerStreamingServer[credstorev1.WatchResponse]
	end     chan error
}

// Send sends one message.
func (s *WatchStream) Send(m *credstorev1.WatchResponse) error { return s.stream.Send(m) }

// End ends the stream with err.
func (s *WatchStream) End(err error) { s.end <- err }

// Watch implements the service.
func (s *Server) Watch(req *credstorev1.WatchRequest, stream grpc.ServerStreamingServer[credstorev1.WatchResponse]) error {
	if err := s.check(stream.Context()); err != nil {
		return err
	}
	st := &WatchStream{Request: req, stream: stream, end: make(chan error, 1)}
	s.Watches <- st
	select {
	case err := <-st.end:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

// GetCredential implements the service.
func (s *Server) GetCredential(ctx context.Context, req *credstorev1.GetCredentialRequest) (*credstorev1.Credential, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if s.Unary != nil {
		if err := s.Unary(req.GetName()); err != nil {
			return nil, err
		}
	}
	return &credstorev1.Credential{Name: req.GetName()}, nil
}

// MintToken implements the service.
func (s *Server) MintToken(ctx context.Context, req *credstorev1.MintTokenRequest) (*credstorev1.MintTokenResponse, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if s.Mint == nil {
		return nil, Failure(codes.Unavailable, "NO_ISSUER", "this server does not reach the vendors of credentials")
	}
	return s.Mint(req)
}

// newCertificate makes a certificate for loopback addresses that is its own
// authority.
func newCertificate(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "credstore test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Package floor owns the physical limits that the product's speed is compared
// with: what the same disk, network stack and cipher need for the least that
// the work must do. It is linked into the server for `credstore dev --once`; it
// uses nothing of the product.
package floor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Disk measures durable writes in one folder.
type Disk struct {
	f *os.File
}

// OpenDisk makes a file of its own in the folder; Close removes it.
func OpenDisk(dir string) (*Disk, error) {
	f, err := os.CreateTemp(dir, ".floor-*")
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	return &Disk{f: f}, nil
}

// Write appends n bytes and returns how long it took until the disk had them.
func (d *Disk) Write(n int) (time.Duration, error) {
	b := make([]byte, n)
	start := time.Now()
	if _, err := d.f.Write(b); err != nil {
		return 0, err
	}
	if err := datasync(d.f); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// Close removes the file.
func (d *Disk) Close() error {
	return errors.Join(d.f.Close(), os.Remove(filepath.Clean(d.f.Name())))
}

// Hop measures how long one message takes from a bare gRPC server to its client
// over a stream on loopback.
type Hop struct {
	server   *grpc.Server
	conn     *grpc.ClientConn
	stream   grpc.ClientStream
	messages chan []byte
	stopped  chan struct{}
	cancel   context.CancelFunc
}

// window is that of the product, so that the two are comparable.
const window = 1 << 20

// NewHop starts the server on a port of the kernel's choice. With a certificate
// the connection is TLS; roots must verify it for serverName.
func NewHop(cert *tls.Certificate, roots *x509.CertPool, serverName string) (*Hop, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	h := &Hop{messages: make(chan []byte), stopped: make(chan struct{})}
	serverOpts := []grpc.ServerOption{grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window)}
	clientCreds := insecure.NewCredentials()
	if cert != nil {
		serverOpts = append(serverOpts, grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}})))
		clientCreds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: serverName})
	}
	h.server = grpc.NewServer(serverOpts...)
	h.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "floor.Hop",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: h.serve}},
	}, nil)
	go func() {
		defer close(h.stopped)
		_ = h.server.Serve(lis) // what it says is said by the calls that fail
	}()
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	if err := h.open(ctx, lis.Addr().String(), clientCreds); err != nil {
		return nil, errors.Join(fmt.Errorf("floor: %w", err), h.Close())
	}
	return h, nil
}

func (h *Hop) open(ctx context.Context, address string, creds credentials.TransportCredentials) error {
	var err error
	h.conn, err = grpc.NewClient(address, grpc.WithTransportCredentials(creds),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	if err != nil {
		return err
	}
	h.stream, err = h.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/floor.Hop/Stream")
	if err != nil {
		return err
	}
	if err := h.stream.SendMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	if err := h.stream.CloseSend(); err != nil {
		return err
	}
	_, err = h.Send(1) // the connection is made with the first message
	return err
}

func (h *Hop) serve(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	for {
		select {
		case b := <-h.messages:
			if err := stream.SendMsg(wrapperspb.Bytes(b)); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// Send passes n bytes through the stream and returns how long they took.
func (h *Hop) Send(n int) (time.Duration, error) {
	b := make([]byte, n)
	start := time.Now()
	select {
	case h.messages <- b:
	case <-h.stopped:
		return 0, errors.New("floor: the server has stopped")
	case <-time.After(10 * time.Second):
		return 0, errors.New("floor: the stream was not opened within 10 s")
	}
	if err := h.stream.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// Close ends the stream, the connection and the server.
func (h *Hop) Close() error {
	h.cancel()
	var err error
	if h.conn != nil {
		err = h.conn.Close()
	}
	h.server.Stop()
	return err
}

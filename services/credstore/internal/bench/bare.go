package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "modernc.org/sqlite" // the driver of the limit

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/app"
)

// window of the product, so that the two are comparable.
const flowWindow = 1 << 20

// bareServer is gRPC with nothing behind it: it answers access with a message of
// the same size, and Watch with what it is told to send.
type bareServer struct {
	credstorev1.UnimplementedCredentialServiceServer
	server  *grpc.Server
	address string
	roots   *x509.CertPool
	conns   []*grpc.ClientConn

	mu      sync.Mutex
	streams map[chan *credstorev1.WatchResponse]struct{}
}

func startBare(from *app.Server) (*bareServer, error) {
	cert, roots := from.Certificate()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &bareServer{
		server: grpc.NewServer(
			grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*cert}})),
			grpc.InitialWindowSize(flowWindow), grpc.InitialConnWindowSize(flowWindow),
		),
		address: lis.Addr().String(), roots: roots, streams: make(map[chan *credstorev1.WatchResponse]struct{}),
	}
	credstorev1.RegisterCredentialServiceServer(b.server, b)
	go func() { _ = b.server.Serve(lis) }()
	return b, nil
}

func (b *bareServer) close() {
	for _, c := range b.conns {
		_ = c.Close()
	}
	b.server.Stop()
}

// dial returns a connection of its own, which close closes.
func (b *bareServer) dial() (*grpc.ClientConn, error) {
	c, err := grpc.NewClient(b.address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: b.roots})),
		grpc.WithInitialWindowSize(flowWindow), grpc.WithInitialConnWindowSize(flowWindow))
	if err == nil {
		b.conns = append(b.conns, c)
	}
	return c, err
}

// AccessCredential answers a payload at once.
func (b *bareServer) AccessCredential(context.Context, *credstorev1.AccessCredentialRequest) (*credstorev1.AccessCredentialResponse, error) {
	return &credstorev1.AccessCredentialResponse{Name: credentialName(0) + "/versions/1", Payload: payload(0)}, nil
}

// Watch sends what send is given.
func (b *bareServer) Watch(_ *credstorev1.WatchRequest, stream grpc.ServerStreamingServer[credstorev1.WatchResponse]) error {
	ch := make(chan *credstorev1.WatchResponse, 16)
	b.mu.Lock()
	b.streams[ch] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.streams, ch)
		b.mu.Unlock()
	}()
	if err := stream.Send(&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Synced_{Synced: &credstorev1.WatchResponse_Synced{}}}); err != nil {
		return err
	}
	for {
		select {
		case m := <-ch:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// send passes one message to every stream.
func (b *bareServer) send(m *credstorev1.WatchResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.streams {
		ch <- m
	}
}

// bareSQLite is one table of rows, written in groups of up to 64 with one
// transaction each, as durable as the product.
type bareSQLite struct {
	db    *sql.DB
	queue chan bareWrite
	ended chan struct{}
}

type bareWrite struct {
	key  string
	blob []byte
	done chan error
}

func openBareSQLite(ctx context.Context, dir string) (*bareSQLite, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bare.db")+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"); err != nil {
		return nil, err
	}
	insert, err := db.PrepareContext(ctx, "INSERT INTO kv VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
	if err != nil {
		return nil, err
	}
	b := &bareSQLite{db: db, queue: make(chan bareWrite, 1024), ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		defer func() { _ = insert.Close() }()
		for first := range b.queue {
			group := []bareWrite{first}
			for len(group) < 64 && len(b.queue) > 0 {
				group = append(group, <-b.queue)
			}
			err := b.commit(ctx, insert, group)
			for _, w := range group {
				w.done <- err
			}
		}
	}()
	return b, nil
}

func (b *bareSQLite) commit(ctx context.Context, insert *sql.Stmt, group []bareWrite) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	stmt := tx.StmtContext(ctx, insert)
	defer func() { _ = stmt.Close() }()
	for _, w := range group {
		if _, err := stmt.ExecContext(ctx, w.key, w.blob); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (b *bareSQLite) write(_ context.Context, writer, n int) error {
	w := bareWrite{key: fmt.Sprintf("%d/%d", writer, n), blob: make([]byte, payloadBytes), done: make(chan error, 1)}
	b.queue <- w
	return <-w.done
}

func (b *bareSQLite) close() error {
	close(b.queue)
	<-b.ended
	return b.db.Close()
}

package grpcapi_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/grpcapi"
)

type echo struct {
	credstorev1.UnimplementedCredentialServiceServer
	answer *credstorev1.AccessCredentialResponse
}

func (e echo) AccessCredential(context.Context, *credstorev1.AccessCredentialRequest) (*credstorev1.AccessCredentialResponse, error) {
	return e.answer, nil
}

func hammer(b *testing.B, call func() error) {
	b.ReportAllocs()
	b.ResetTimer()
	var u0, u1 syscall.Rusage
	syscall.Getrusage(0, &u0)
	defer func() {
		syscall.Getrusage(0, &u1)
		cpu := u1.Utime.Nano() + u1.Stime.Nano() - u0.Utime.Nano() - u0.Stime.Nano()
		b.ReportMetric(float64(cpu)/float64(b.N)/1000, "cpu-us/op")
	}()
	var wg sync.WaitGroup
	n := make(chan struct{}, 1000)
	for range 64 {
		wg.Go(func() {
			for range n {
				if err := call(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		n <- struct{}{}
	}
	close(n)
	wg.Wait()
}

func BenchmarkAccess(b *testing.B) {
	f := newFixture(b, func(c *grpcapi.Config) { c.Limits.PrincipalRate = 1e9; c.Logger = slog.New(slog.DiscardHandler) })
	f.create(b, "bot", "s3cret")
	ctx := as(b, "admin")
	r := &credstorev1.AccessCredentialRequest{Name: "projects/default/credentials/bot"}
	hammer(b, func() error { _, err := f.credentials.AccessCredential(ctx, r); return err })
}

func BenchmarkGet(b *testing.B) {
	f := newFixture(b, func(c *grpcapi.Config) { c.Limits.PrincipalRate = 1e9; c.Logger = slog.New(slog.DiscardHandler) })
	ctx := as(b, "admin")
	r := &credstorev1.GetProjectRequest{Name: "projects/default"}
	hammer(b, func() error { _, err := f.projects.GetProject(ctx, r); return err })
}

func BenchmarkBareEcho(b *testing.B) {
	s := grpc.NewServer(grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	credstorev1.RegisterCredentialServiceServer(s, echo{answer: &credstorev1.AccessCredentialResponse{Name: "projects/default/credentials/bot/versions/1", Payload: basic("bot", "s3cret")}})
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go s.Serve(l)
	defer s.Stop()
	conn, _ := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	defer conn.Close()
	c := credstorev1.NewCredentialServiceClient(conn)
	r := &credstorev1.AccessCredentialRequest{Name: "projects/default/credentials/bot"}
	ctx := as(b, "admin")
	hammer(b, func() error { _, err := c.AccessCredential(ctx, r); return err })
}

func BenchmarkStreamEcho(b *testing.B) {
	s := grpc.NewServer(grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	d := credstorev1.CredentialService_ServiceDesc
	for _, m := range d.Methods {
		d.Streams = append(d.Streams[:len(d.Streams):len(d.Streams)], grpc.StreamDesc{StreamName: m.MethodName, Handler: func(srv any, ss grpc.ServerStream) error {
			out, err := m.Handler(srv, ss.Context(), ss.RecvMsg, nil)
			if err != nil {
				return err
			}
			return ss.SendMsg(out)
		}})
	}
	d.Methods = nil
	s.RegisterService(&d, echo{answer: &credstorev1.AccessCredentialResponse{Name: "projects/default/credentials/bot/versions/1", Payload: basic("bot", "s3cret")}})
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go s.Serve(l)
	defer s.Stop()
	conn, _ := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	defer conn.Close()
	c := credstorev1.NewCredentialServiceClient(conn)
	r := &credstorev1.AccessCredentialRequest{Name: "projects/default/credentials/bot"}
	ctx := as(b, "admin")
	hammer(b, func() error { _, err := c.AccessCredential(ctx, r); return err })
}

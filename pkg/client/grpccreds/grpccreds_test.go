package grpccreds_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/grpccreds"
	"github.com/credstore/credstore/pkg/client/tokens/tokenstest"
)

// service is a gRPC service in memory that keeps the authorization of its calls.
type service struct {
	calls    [][]string
	listener *bufconn.Listener
	client   credentials.TransportCredentials
}

// startService starts one; it ends with the test.
func startService(t *testing.T, secure bool) *service {
	t.Helper()
	s := &service{listener: bufconn.Listen(1 << 16), client: insecure.NewCredentials()}
	options := []grpc.ServerOption{grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		s.calls = append(s.calls, md.Get("authorization"))
		return next(ctx, req)
	})}
	if secure {
		// Its certificate is for example.com.
		certified := httptest.NewUnstartedServer(nil)
		certified.StartTLS()
		defer certified.Close()
		roots := x509.NewCertPool()
		roots.AddCert(certified.Certificate())
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0])))
		s.client = credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12})
	}
	server := grpc.NewServer(options...)
	healthv1.RegisterHealthServer(server, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	return s
}

// call makes one call with the credentials.
func (s *service) call(t *testing.T, with credentials.PerRPCCredentials, options ...grpc.DialOption) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:example.com", append(options, grpc.WithTransportCredentials(s.client),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }))...)
	if err != nil {
		return err
	}
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.PerRPCCredentials(with))
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	return err
}

func TestSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		s := startService(t, true)
		const audience = "https://service.example.com"
		c := grpccreds.New(r.Source, &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_GcpIdToken_{
			GcpIdToken: &credentialv1.TokenRequest_GcpIdToken{Audience: audience},
		}})
		for version := range 2 {
			if err := s.call(t, c); err != nil {
				t.Fatal(err)
			}
			if got, want := s.calls[version], fmt.Sprintf("Bearer v%d-%d", version+1, version+1); len(got) != 1 || got[0] != want {
				t.Errorf("sent %q, want %q", got, want)
			}
			r.Rotate(2)
		}
		if asked := r.Asked()[0].GetGcpIdToken().GetAudience(); asked != audience {
			t.Errorf("asked for %q", asked)
		}
	})
}

// Without TLS nothing is sent, and no token is asked for, however the credentials
// are given.
func TestOnlyOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		s := startService(t, false)
		c := grpccreds.New(r.Source, nil)
		if err := s.call(t, c); err == nil {
			t.Error("sent with a call")
		}
		if err := s.call(t, nil, grpc.WithPerRPCCredentials(c)); err == nil {
			t.Error("sent with a connection")
		}
		if !c.RequireTransportSecurity() {
			t.Error("gRPC learns only at the first call that it lacks TLS")
		}
		// What gRPC checks, it could be told not to.
		if got, err := c.GetRequestMetadata(t.Context(), "https://service.example.com"); err == nil || got != nil {
			t.Errorf("metadata %v outside of a call, error %v", got, err)
		}
		plain := credentials.NewContextWithRequestInfo(t.Context(), credentials.RequestInfo{AuthInfo: authInfo{
			credentials.CommonAuthInfo{SecurityLevel: credentials.IntegrityOnly},
		}})
		if got, err := c.GetRequestMetadata(plain, "https://service.example.com"); err == nil || got != nil {
			t.Errorf("metadata %v on a connection that others can read, error %v", got, err)
		}
		if len(s.calls) != 0 || r.Calls() != 0 {
			t.Errorf("%d calls arrived, %d tokens were minted", len(s.calls), r.Calls())
		}
	})
}

type authInfo struct{ credentials.CommonAuthInfo }

func (authInfo) AuthType() string { return "test" }

// A call that cannot be made says why, with a code that its caller can act on.
func TestErrorsPassThrough(t *testing.T) {
	for name, test := range map[string]struct {
		arrange func(*tokenstest.Rig)
		code    codes.Code
		text    string
	}{
		"away": {func(r *tokenstest.Rig) {
			r.Fail(clienttest.Failure(codes.Unavailable, "VENDOR_UNAVAILABLE", "no answer"))
		}, codes.Unavailable, "no answer"},
		"refused": {func(r *tokenstest.Rig) {
			r.Fail(clienttest.Failure(codes.PermissionDenied, "PERMISSION_DENIED", "not for you"))
		}, codes.PermissionDenied, "not for you"},
		// gRPC lets no code through that would seem to be the service's own.
		"not found": {func(r *tokenstest.Rig) {
			r.Fail(clienttest.Failure(codes.NotFound, "NOT_FOUND", "no such credential"))
		}, codes.Internal, "no such credential"},
		"AWS": {func(r *tokenstest.Rig) { r.Make(tokenstest.AWS) }, codes.Internal, "bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				s := startService(t, true)
				test.arrange(r)
				err := s.call(t, grpccreds.New(r.Source, nil))
				if status.Code(err) != test.code || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "v1-1") {
					t.Errorf("error is %v", err)
				}
				if len(s.calls) != 0 {
					t.Errorf("%d calls arrived", len(s.calls))
				}
			})
		})
	}
}

func TestPrintsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		c := grpccreds.New(r.Source, nil)
		if err := startService(t, true).call(t, c); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%s"} {
			if text := fmt.Sprintf(verb, c); strings.Contains(text, "v1-1") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	})
}

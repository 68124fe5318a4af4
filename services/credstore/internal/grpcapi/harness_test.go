package grpcapi_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
	"github.com/credstore/credstore/services/credstore/internal/grpcapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// principals are who the tests' bearer tokens are.
func principals() map[string]*core.Principal {
	return map[string]*core.Principal{
		"admin": {Name: "projects/default/tokens/admin", Role: core.Admin, AllProjects: true},
		"web": {
			Name: "projects/default/tokens/web", Role: core.Workload, Project: resourcename.Project{ID: "default"},
			Attributes:  map[string]string{"app": "web"},
			Credentials: []resourcename.Credential{{Project: "default", ID: "bot"}},
		},
	}
}

// authenticate takes the token for the name of a principal, and real tokens for
// what they are.
func authenticate(store *core.Store) func(context.Context) (context.Context, error) {
	return func(ctx context.Context) (context.Context, error) {
		token := metadata.ValueFromIncomingContext(ctx, "authorization")
		if len(token) != 1 {
			return nil, &core.Error{Kind: core.ErrUnauthenticated, Reason: "TOKEN_MISSING", Message: "no token"}
		}
		if p, ok := principals()[token[0]]; ok {
			return core.WithPrincipal(ctx, p), nil
		}
		p, err := store.Authenticate(ctx, token[0])
		if err != nil {
			return nil, err
		}
		return core.WithPrincipal(ctx, p), nil
	}
}

// fixture is a server on a real store, with a connection over TCP.
type fixture struct {
	*coretest.Harness

	server  *grpcapi.Server
	conn    *grpc.ClientConn
	metrics *prometheus.Registry
	log     *logs

	projects    credstorev1.ProjectServiceClient
	tokens      credstorev1.TokenServiceClient
	credentials credstorev1.CredentialServiceClient
	stores      credstorev1.SecretStoreServiceClient
	injections  credstorev1.InjectionServiceClient
}

func newFixture(t testing.TB, change func(*grpcapi.Config), opts ...coretest.Option) *fixture {
	t.Helper()
	f := &fixture{Harness: coretest.New(t, opts...), metrics: prometheus.NewRegistry(), log: &logs{}}
	cfg := grpcapi.Config{
		Store: f.Store, Authenticate: authenticate(f.Store), Metrics: f.metrics, Logger: slog.New(f.log),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if f.server, err = grpcapi.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.server.Serve(l) }()
	f.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.conn.Close()
		f.server.Stop(time.Second)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	f.projects = credstorev1.NewProjectServiceClient(f.conn)
	f.tokens = credstorev1.NewTokenServiceClient(f.conn)
	f.credentials = credstorev1.NewCredentialServiceClient(f.conn)
	f.stores = credstorev1.NewSecretStoreServiceClient(f.conn)
	f.injections = credstorev1.NewInjectionServiceClient(f.conn)
	return f
}

// as returns a context with a bearer token.
func as(t testing.TB, token string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", token)
}

func basic(username, password string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: username, Password: password}}}
}

// create makes a credential of the project default.
func (f *fixture) create(t testing.TB, id, password string) *credstorev1.Credential {
	t.Helper()
	c, err := f.credentials.CreateCredential(as(t, "admin"), &credstorev1.CreateCredentialRequest{
		Parent: "projects/default", CredentialId: id, Credential: &credstorev1.Credential{Payload: basic("bot", password)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// logs keeps what is logged.
type logs struct {
	mu      sync.Mutex
	records []slog.Record
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logs) WithGroup(string) slog.Handler            { return l }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// text returns everything that was logged.
func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b []byte
	for _, r := range l.records {
		b = append(b, r.Level.String()+" "+r.Message...)
		r.Attrs(func(a slog.Attr) bool {
			b = append(b, " "+a.String()...)
			return true
		})
		b = append(b, '\n')
	}
	return string(b)
}

// detail returns the first detail of a type, the zero value for none.
func detail[D proto.Message](err error) D {
	var found D
	st := status.Convert(err)
	i := slices.IndexFunc(st.Details(), func(d any) bool { _, ok := d.(D); return ok })
	if i >= 0 {
		found, _ = st.Details()[i].(D)
	}
	return found
}

// refused fails the test unless err has the code and reason, and names the
// field, if one is given, among its violations.
func refused(t *testing.T, err error, code codes.Code, reason, field string) {
	t.Helper()
	info := detail[*errdetails.ErrorInfo](err)
	if status.Code(err) != code || info.GetReason() != reason || info.GetDomain() != "credstore" {
		t.Errorf("got %v, reason %q of domain %q: %v; want %v, %q", status.Code(err), info.GetReason(), info.GetDomain(), err, code, reason)
	}
	var fields []string
	for _, v := range detail[*errdetails.BadRequest](err).GetFieldViolations() {
		fields = append(fields, v.GetField())
		if v.GetDescription() == "" {
			t.Errorf("violation of %s says nothing", v.GetField())
		}
	}
	if field != "" && !slices.Contains(fields, field) {
		t.Errorf("fields %q, want %s: %v", fields, field, err)
	}
}

package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
)

func dial(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func get(t *testing.T, c *client.Client) error {
	t.Helper()
	_, err := c.Credentials.GetCredential(t.Context(), &credstorev1.GetCredentialRequest{Name: "projects/default/credentials/a"})
	return err
}

func TestErrors(t *testing.T) {
	server, options := clienttest.StartTLS(t)
	var answer error
	server.Unary = func(string) error { return answer }
	c := dial(t, options)
	all := []error{
		client.ErrInvalid, client.ErrNotFound, client.ErrAlreadyExists, client.ErrUnauthenticated, client.ErrPermissionDenied, client.ErrPrecondition,
		client.ErrAborted, client.ErrExhausted, client.ErrUnavailable, client.ErrInUse, client.ErrEtagMismatch, client.ErrVersionNotEnabled, client.ErrPathConflict,
	}
	for _, test := range []struct {
		code   codes.Code
		reason string
		is     []error
	}{
		{codes.NotFound, "NOT_FOUND", []error{client.ErrNotFound}},
		{codes.AlreadyExists, "ALREADY_EXISTS", []error{client.ErrAlreadyExists}},
		{codes.FailedPrecondition, "CREDENTIAL_IN_USE", []error{client.ErrPrecondition, client.ErrInUse}},
		{codes.FailedPrecondition, "SECRET_STORE_IN_USE", []error{client.ErrPrecondition, client.ErrInUse}},
		{codes.FailedPrecondition, "VERSION_NOT_ENABLED", []error{client.ErrPrecondition, client.ErrVersionNotEnabled}},
		{codes.FailedPrecondition, "PATH_CONFLICT", []error{client.ErrPrecondition, client.ErrPathConflict}},
		{codes.Aborted, "ETAG_MISMATCH", []error{client.ErrAborted, client.ErrEtagMismatch}},
		{codes.PermissionDenied, "PERMISSION_DENIED", []error{client.ErrPermissionDenied}},
		{codes.Unauthenticated, "UNAUTHENTICATED", []error{client.ErrUnauthenticated}},
		{codes.ResourceExhausted, "", []error{client.ErrExhausted}},
		{codes.Unavailable, "STORAGE_UNAVAILABLE", []error{client.ErrUnavailable}},
		{codes.InvalidArgument, "INVALID_FIELD", []error{client.ErrInvalid}},
		{codes.Internal, "", nil},
	} {
		answer = clienttest.Failure(test.code, test.reason, "said the server")
		err := get(t, c)
		var is []error
		for _, target := range all {
			if errors.Is(err, target) {
				is = append(is, target)
			}
		}
		if !cmp.Equal(test.is, is, cmp.Comparer(func(a, b error) bool { return a == b })) { //nolint:errorlint // identity is meant
			t.Errorf("%s %s is %v, want %v", test.code, test.reason, is, test.is)
		}
		var e *client.Error
		if !errors.As(err, &e) || e.Code != test.code || e.Reason != test.reason || e.Message != "said the server" || status.Code(err) != test.code {
			t.Errorf("%s %s: %#v", test.code, test.reason, err)
		}
	}

	answer = clienttest.Failure(codes.FailedPrecondition, "CREDENTIAL_IN_USE", "in use", &credstorev1.UsagesDetail{
		Usages: []*credstorev1.Usage{{User: "projects/default/injections/web"}}, Consumers: []*credstorev1.Consumer{{Workload: "pod"}}, TotalUsages: 12, TotalConsumers: 3,
	})
	var inUse *client.InUseError
	if err := get(t, c); !errors.As(err, &inUse) || len(inUse.Usages) != 1 || len(inUse.Consumers) != 1 || inUse.TotalUsages != 12 || inUse.TotalConsumers != 3 {
		t.Errorf("in use: %#v", err)
	}
	answer = clienttest.Failure(codes.InvalidArgument, "INVALID_FIELD", "invalid argument", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "payload.basic.username", Description: "is required"}, {Field: "labels", Description: "too many"},
	}})
	var invalid *client.InvalidError
	err := get(t, c)
	want := []client.Violation{{Field: "payload.basic.username", Description: "is required"}, {Field: "labels", Description: "too many"}}
	if !errors.As(err, &invalid) || !cmp.Equal(want, invalid.Violations) || !errors.Is(err, client.ErrInvalid) {
		t.Errorf("invalid: %#v", err)
	}
	if got := err.Error(); got != "invalid argument: payload.basic.username: is required; labels: too many" {
		t.Errorf("text %q", got)
	}

	// A reason of somebody else's domain is not ours.
	st, err := status.New(codes.Internal, "x").WithDetails(&errdetails.ErrorInfo{Reason: "ETAG_MISMATCH", Domain: "proxy"})
	if err != nil {
		t.Fatal(err)
	}
	answer = st.Err()
	if err := get(t, c); errors.Is(err, client.ErrEtagMismatch) {
		t.Error("took a foreign reason for credstore's")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Credentials.GetCredential(ctx, &credstorev1.GetCredentialRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOnlyTheConfiguredAuthorityIsTrusted(t *testing.T) {
	server, options := clienttest.StartTLS(t)
	options.UserAgent = "agent/1"
	if err := get(t, dial(t, options)); err != nil {
		t.Error(err)
	}
	if got := server.UserAgent(); !strings.HasPrefix(got, "agent/1 ") {
		t.Errorf("user agent %q", got)
	}
	_, other := clienttest.StartTLS(t)
	options.CAPEM = other.CAPEM
	if err := get(t, dial(t, options)); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another authority: %v", err)
	}
	options.CAPEM, options.SystemRoots = nil, true
	if err := get(t, dial(t, options)); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("the system's authorities: %v", err)
	}
}

func TestTokenFileIsReadAgain(t *testing.T) {
	server, options := clienttest.StartTLS(t)
	file := filepath.Join(t.TempDir(), "token")
	options.Token, options.TokenFile = nil, file
	c := dial(t, options)
	if err := get(t, c); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	write := func(text string) {
		t.Helper()
		next := file + ".new"
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	write(" " + clienttest.Token + "\n")
	if err := get(t, c); err != nil {
		t.Error(err)
	}
	server.SetToken("credstore_next")
	if err := get(t, c); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("old token: %v", err)
	}
	write("credstore_next")
	if err := get(t, c); err != nil {
		t.Errorf("after the token was replaced: %v", err)
	}
	// Written in place, and replaced with the time stamp of the one before.
	server.SetToken("credstore_same")
	if err := os.WriteFile(file, []byte("credstore_same"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err == nil {
		err = os.Chtimes(file, time.Time{}, info.ModTime().Add(time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := get(t, c); err != nil {
		t.Errorf("after the token was overwritten: %v", err)
	}
	server.SetToken("credstore_last")
	write("credstore_last")
	if err := os.Chtimes(file, time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := get(t, c); err != nil {
		t.Errorf("after the token was replaced by one of the same age: %v", err)
	}
	// A file that is away or empty for a moment does not matter.
	write("")
	if err := get(t, c); err != nil {
		t.Errorf("empty file: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := get(t, c); err != nil {
		t.Errorf("file removed: %v", err)
	}
}

func TestTokenThatIsNone(t *testing.T) {
	_, options := clienttest.StartTLS(t)
	for _, token := range []string{"", "two words", "line\nfeed", strings.Repeat("x", 20<<10), "ä"} {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		o := options
		o.Token, o.TokenFile = nil, file
		err := get(t, dial(t, o))
		if !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), file) {
			t.Errorf("%.20q: %v", token, err)
		}
		if len(token) > 1 && strings.Contains(err.Error(), token) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestTokensDoNotTravelInTheClear(t *testing.T) {
	for _, test := range []struct {
		name    string
		options client.Options
		want    string // part of the error; empty for none
	}{
		{"host name", client.Options{Address: "credstore.example:443", Insecure: true}, "insecure is for loopback"},
		{"address", client.Options{Address: "192.0.2.1:443", Insecure: true}, "insecure is for loopback"},
		{"every address", client.Options{Address: "0.0.0.0:443", Insecure: true}, "insecure is for loopback"},
		{"IPv4", client.Options{Address: "127.0.0.1:443", Insecure: true}, ""},
		{"IPv6", client.Options{Address: "[::1]:443", Insecure: true}, ""},
		{"localhost", client.Options{Address: "localhost:443", Insecure: true}, ""},
		{"socket", client.Options{Address: "unix:///run/credstore.sock", Insecure: true}, ""},
		{"relative socket", client.Options{Address: "unix://run/credstore.sock", Insecure: true}, "absolute path"},
		{"no address", client.Options{SystemRoots: true}, "host:port"},
		{"no port", client.Options{Address: "localhost", SystemRoots: true}, "host:port"},
		{"a URL", client.Options{Address: "https://localhost:443", SystemRoots: true}, "host:port"},
		{"no authority", client.Options{Address: "localhost:443"}, "certificate authority"},
		{"no such file", client.Options{Address: "localhost:443", CAFile: "/nonexistent"}, "certificate authority"},
		{"no PEM", client.Options{Address: "localhost:443", CAPEM: []byte("x")}, "PEM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := client.Dial(test.options)
			if err == nil {
				err = errors.Join(c.Close())
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}

	// A name that looks local and is not: the connection decides.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	clienttest.StartPlain(t, l)
	token := func(context.Context) (string, error) { return clienttest.Token, nil }
	if err := get(t, dial(t, client.Options{Address: l.Addr().String(), Insecure: true, Token: token})); err != nil {
		t.Errorf("loopback: %v", err)
	}
	remote := client.Options{Address: "localhost:1", Insecure: true, Token: token, DialContext: func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		return elsewhere{conn}, err
	}}
	if err := get(t, dial(t, remote)); err == nil || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("a remote connection in the clear: %v", err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err = net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	clienttest.StartPlain(t, l)
	if err := get(t, dial(t, client.Options{Address: "unix://" + socket, Insecure: true, Token: token})); err != nil {
		t.Errorf("socket: %v", err)
	}
}

// elsewhere is a connection that says it goes to another machine.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }

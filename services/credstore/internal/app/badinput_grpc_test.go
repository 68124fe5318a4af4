package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// grpcCase is a request that only gRPC can carry.
type grpcCase struct {
	name string
	// as is who calls; "" is the administrator.
	as string
	// metadata takes the place of the caller's token.
	metadata []string
	// method is the full name where the request does not say it.
	method  string
	request proto.Message
	// then is sent when the stream has answered the request.
	then proto.Message
	want refusal
}

func (w *world) refusesGRPC(t *testing.T, c grpcCase) {
	w.unchanged(t, "gRPC", func() (refusal, string) {
		who := c.as
		if who == "" {
			who = "admin"
		}
		ctx := w.as(t.Context(), who)
		if c.metadata != nil {
			ctx = metadata.AppendToOutgoingContext(t.Context(), c.metadata...)
		}
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		switch {
		case c.then != nil:
			return w.second(ctx, t, c)
		case c.method == "":
			return w.overGRPC(ctx, c.request)
		}
		answer := &emptypb.Empty{}
		if err := w.conn.Invoke(ctx, c.method, c.request, answer); err != nil {
			st := status.Convert(err)
			return refusalOf(st), err.Error() + prototext.Format(st.Proto())
		}
		return refusal{}, prototext.Format(answer)
	}, c.want)
}

// second sends a bad message on a stream that was opened well.
func (w *world) second(ctx context.Context, t *testing.T, c grpcCase) (refusal, string) {
	t.Helper()
	stream, err := credstorev1.NewInjectionServiceClient(w.conn).WatchSet(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range []proto.Message{c.request, c.then} {
		r, ok := m.(*credstorev1.WatchSetRequest)
		if !ok {
			t.Fatalf("%T is not for a set", m)
		}
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for {
		if _, err := stream.Recv(); err != nil {
			st := status.Convert(err)
			return refusalOf(st), err.Error() + prototext.Format(st.Proto())
		}
	}
}

// wire is a message whose encoding is given.
func wire(parts ...[]byte) proto.Message {
	m := &emptypb.Empty{}
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	m.ProtoReflect().SetUnknown(b)
	return m
}

// part encodes a field that is a string or a message.
func part(number protowire.Number, content ...[]byte) []byte {
	var all []byte
	for _, c := range content {
		all = append(all, c...)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), all)
}

// grpcCases are the traps of the wire and of the stream that REST does not have.
func grpcCases() []grpcCase {
	malformed := because(codes.InvalidArgument, "MESSAGE_MALFORMED")
	const service = "/credstore.v1.CredentialService/"
	basicWire := part(1, part(1, []byte("bot")), part(2, []byte(canary)))
	tokenWire := part(2, part(1, []byte(canary)))
	name := part(1, []byte(bot))
	update := func(payload ...[]byte) proto.Message { // UpdateCredentialRequest{credential{name, payload}}
		return wire(part(1, name, part(20, payload...)))
	}
	open := func(change func(*credstorev1.WatchSetRequest_Open)) proto.Message {
		o := &credstorev1.WatchSetRequest_Open{Parent: inDefault, Workload: "pod"}
		change(o)
		return &credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Open_{Open: o}}
	}
	good := func(*credstorev1.WatchSetRequest_Open) {}
	report := func(r *credstorev1.WatchSetRequest_Report) proto.Message {
		return &credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Report_{Report: r}}
	}
	opened := open(good)
	return []grpcCase{
		// Of two kinds on the wire the last counts, as protobuf says: it is another.
		{name: "two kinds on the wire", method: service + "UpdateCredential", request: update(basicWire, tokenWire), want: field("credential.payload")},
		{name: "two payloads on the wire, the second of another kind", method: service + "UpdateCredential", request: wire(part(1, name, part(20, basicWire), part(20, tokenWire))), want: field("credential.payload")},
		{name: "two names on the wire, the second bad", method: service + "UpdateCredential", request: wire(part(1, name, part(1, []byte("bot")), part(20, basicWire))), want: field("credential.name")},
		{name: "a kind that does not exist", method: service + "UpdateCredential", request: wire(part(1, name, part(20, part(999, []byte(canary)))), part(2, part(1, []byte("payload")))), want: field("credential.payload")},
		{name: "an unknown field beside the kind", method: service + "UpdateCredential", request: update(basicWire, part(999, []byte(canary))), want: field("credential.payload")},
		{name: "an unknown field in the kind", method: service + "UpdateCredential", request: update(part(1, part(1, []byte("bot")), part(2, []byte(canary)), part(99, []byte(canary)))), want: field("credential.payload.basic")},
		{name: "a cut message", method: service + "GetCredential", request: wire(name[:len(name)-1]), want: malformed},
		{name: "bytes that are no message", method: service + "GetCredential", request: wire([]byte(strings.Repeat("\xff", 16) + canary)), want: malformed},
		{name: "text that is no UTF-8", method: service + "GetCredential", request: wire(part(1, []byte(bot+canary+"\xff"))), want: malformed},
		{name: "password that is no UTF-8", method: service + "UpdateCredential", request: update(part(1, part(2, []byte(canary+"\xff")))), want: malformed},
		{name: "a message of more than 2 MiB", request: createWith(&credstorev1.Credential{Description: canary + strings.Repeat("x", 2<<20)}), want: because(codes.ResourceExhausted, "MESSAGE_TOO_LARGE")},
		{name: "a method that does not exist", method: service + "StealCredential", request: wire(name), want: because(codes.Unimplemented, "METHOD_UNKNOWN")},
		{name: "a service that does not exist", method: "/credstore.v2.CredentialService/GetCredential", request: wire(name), want: because(codes.Unimplemented, "METHOD_UNKNOWN")},
		{name: "a method that does not exist, from nobody", as: nobody, method: service + "StealCredential", request: wire(name), want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "reflection by nobody", as: nobody, method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", request: wire(), want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "bad bytes from nobody", as: nobody, method: service + "GetCredential", request: wire([]byte("\xff\xff")), want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "a time that does not exist", request: &credstorev1.CreateTokenRequest{
			Parent: inDefault, TokenId: "new", Token: &credstorev1.Token{Role: credstorev1.Token_READER, ExpireTime: &timestamppb.Timestamp{Seconds: 1 << 60}},
		}, want: field("token.expireTime")},
		{name: "a duration that does not exist", request: &credstorev1.WatchRequest{Parent: inDefault, HeartbeatInterval: &durationpb.Duration{Seconds: 1, Nanos: -1}}, want: field("heartbeatInterval")},
		{name: "a mask with an empty path", request: &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: bot, Description: "x"}, UpdateMask: mask("")}, want: field("updateMask")},
		{name: "an update of nothing named", request: &credstorev1.UpdateCredentialRequest{}, want: field("credential.name")},
		{name: "a batch with a bad mask in camelCase", request: &credstorev1.BatchWriteCredentialsRequest{Parent: inDefault, Operations: []*credstorev1.BatchWriteCredentialsRequest_Operation{
			{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Update{Update: &credstorev1.BatchWriteCredentialsRequest_Update{
				Credential: &credstorev1.Credential{Name: bot, Payload: basic("bot", canary)}, UpdateMask: mask("createTime"),
			}}},
		}}, want: field("operations[0].update.updateMask")},

		{name: "two tokens", metadata: []string{"authorization", "Bearer credstore_a", "authorization", "Bearer credstore_b"}, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_REPEATED")},
		{name: "a password for a token", metadata: []string{"authorization", "Basic " + canary}, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_MALFORMED")},
		{name: "a token of somebody else's", metadata: []string{"authorization", "Bearer ghp_" + canary}, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_MALFORMED")},
		{name: "a token of 600 characters", metadata: []string{"authorization", "Bearer credstore_" + strings.Repeat("a", 600)}, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_MALFORMED")},
		{name: "a token in other metadata", metadata: []string{"token", canary, "x-authorization", "Bearer credstore_a"}, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "the gateway's metadata", metadata: []string{"credstore-remote", forgedAddress, "grpc-metadata-authorization", "Bearer credstore_a"}, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_MISSING")},

		{name: "a set opened by nobody", as: nobody, request: opened, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "a set opened by a reader", as: "reader", request: opened, want: because(codes.PermissionDenied, "PERMISSION_DENIED")},
		{name: "a set opened by nothing", request: &credstorev1.WatchSetRequest{}, want: field("open")},
		{name: "a set opened by a report", request: report(&credstorev1.WatchSetRequest_Report{}), want: field("open")},
		{name: "a set of a bad project", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Parent = "default" }), want: field("open.parent")},
		{name: "a set of a missing project", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Parent = "projects/nowhere" }), want: because(codes.NotFound, "NOT_FOUND")},
		{name: "a set without a workload", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Workload = "" }), want: field("open.workload")},
		{name: "a set of a workload with a slash", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Workload = "a/b" }), want: field("open.workload")},
		{name: "a set of a long workload", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Workload = strings.Repeat("x", 254) }), want: field("open.workload")},
		{name: "a set with a bad heartbeat", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.HeartbeatInterval = durationpb.New(time.Millisecond) }), want: field("open.heartbeatInterval")},
		{name: "a set with a bad injection", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Injections = []string{"web"} }), want: field("open.injections[0]")},
		{name: "a set with another project's injection", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Injections = []string{"projects/other/injections/web"} }), want: field("open.injections[0]")},
		{name: "a set with 1,001 injections", request: open(func(o *credstorev1.WatchSetRequest_Open) {
			o.Injections = repeated(1001, func(i int) string { return fmt.Sprintf("%s/injections/i%d", inDefault, i) })
		}), want: field("open.injections")},
		{name: "a set that has too much", request: open(func(o *credstorev1.WatchSetRequest_Open) { o.Have = entries(10_001) }), want: field("open.have")},
		{name: "a set opened twice", request: opened, then: opened, want: field("report")},
		{name: "a report of nothing", request: opened, then: &credstorev1.WatchSetRequest{}, want: field("report")},
		{name: "a report of 1,001 failures", request: opened, then: report(&credstorev1.WatchSetRequest_Report{
			Failures: repeated(1001, func(int) *credstorev1.ItemReport { return &credstorev1.ItemReport{Id: "x"} }),
		}), want: field("report.failures")},
		{name: "a report of a long failure", request: opened, then: report(&credstorev1.WatchSetRequest_Report{
			Failures: []*credstorev1.ItemReport{{Id: "x", Message: canary + strings.Repeat("x", 1024)}},
		}), want: field("report.failures[0].message")},
	}
}

package grpcapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/grpcapi"
)

func TestCredentialOverGRPC(t *testing.T) {
	f := newFixture(t, nil)
	ctx := as(t, "admin")
	made := f.create(t, "bot", "s3cret")
	if made.GetName() != "projects/default/credentials/bot" || made.GetKind() != "basic" || made.GetActiveVersion() != 1 || made.GetPayload() != nil || made.GetFacts()["username"] != "bot" {
		t.Errorf("created %v", made)
	}
	updated, err := f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: made.GetName(), Etag: made.GetEtag(), Payload: basic("bot", "second"), Description: "not in the mask"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
	})
	if err != nil || updated.GetActiveVersion() != 2 || updated.GetDescription() != "" || updated.GetPayload() != nil {
		t.Fatalf("updated %v, %v", updated, err)
	}
	for name, password := range map[string]string{made.GetName(): "second", made.GetName() + "/versions/1": "s3cret"} {
		read, err := f.credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: name})
		if err != nil || read.GetPayload().GetBasic().GetPassword() != password {
			t.Errorf("access of %s: %v", name, err)
		}
	}
	if _, err := f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: made.GetName(), Etag: made.GetEtag(), Description: "x"},
	}); true {
		refused(t, err, codes.Aborted, core.ReasonEtagMismatch, "")
	}
	// Only what is set changes when there is no mask.
	updated, err = f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: made.GetName(), Description: "new"}})
	if err != nil || updated.GetDescription() != "new" || updated.GetActiveVersion() != 2 {
		t.Errorf("updated %v, %v", updated, err)
	}
	versions, err := f.credentials.ListCredentialVersions(ctx, &credstorev1.ListCredentialVersionsRequest{Parent: made.GetName()})
	if err != nil || len(versions.GetVersions()) != 2 || !versions.GetVersions()[0].GetActive() || versions.GetVersions()[1].GetName() != made.GetName()+"/versions/1" {
		t.Errorf("versions %v, %v", versions, err)
	}
	disabled, err := f.credentials.DisableCredentialVersion(ctx, &credstorev1.DisableCredentialVersionRequest{Name: made.GetName() + "/versions/1"})
	if err != nil || disabled.GetState() != credstorev1.CredentialVersion_DISABLED {
		t.Errorf("disabled %v, %v", disabled, err)
	}
	_, err = f.credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: made.GetName() + "/versions/1"})
	refused(t, err, codes.FailedPrecondition, core.ReasonVersionNotEnabled, "")
	if _, err := f.credentials.DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: made.GetName()}); err != nil {
		t.Error(err)
	}
	_, err = f.credentials.GetCredential(ctx, &credstorev1.GetCredentialRequest{Name: made.GetName()})
	refused(t, err, codes.NotFound, core.ReasonNotFound, "")
	if r := detail[*errdetails.ErrorInfo](err).GetMetadata()["resource"]; r != made.GetName() {
		t.Errorf("resource is %q", r)
	}
}

func TestUsagesOverGRPC(t *testing.T) {
	f := newFixture(t, nil)
	ctx := as(t, "admin")
	login, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
		Parent: "projects/default", CredentialId: "login", Credential: &credstorev1.Credential{
			Payload: &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{Method: &credentialv1.Vault_Token{Token: "t"}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := f.stores.CreateSecretStore(ctx, &credstorev1.CreateSecretStoreRequest{
		Parent: "projects/default", SecretStoreId: "vault", SecretStore: &credstorev1.SecretStore{
			Credential: login.GetName(), Provider: &credstorev1.SecretStore_Vault{Vault: &credstorev1.VaultProvider{Address: "https://vault.example:8200"}},
		},
	})
	if err != nil || store.GetVault().GetMount() != "secret" || store.GetPollInterval().AsDuration() != core.DefaultPollInterval || store.GetDelivery() != credstorev1.SecretStore_BROKERED {
		t.Fatalf("%v, %v", store, err)
	}
	declared, err := f.credentials.DeclareUsage(ctx, &credstorev1.DeclareUsageRequest{Parent: login.GetName(), UsageId: "billing", Usage: &credstorev1.Usage{User: "billing"}})
	if err != nil || declared.GetSource() != credstorev1.Usage_DECLARED || declared.GetExpireTime() == nil {
		t.Fatalf("%v, %v", declared, err)
	}
	for parent, want := range map[string]int{login.GetName(): 2, store.GetName(): 0} {
		got, err := f.credentials.ListUsages(ctx, &credstorev1.ListUsagesRequest{Parent: parent})
		if err != nil || len(got.GetUsages()) != want {
			t.Errorf("%s: %v, %v", parent, got, err)
		}
	}
	_, err = f.credentials.ListUsages(ctx, &credstorev1.ListUsagesRequest{Parent: "projects/default"})
	refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, "parent")

	updated, err := f.stores.UpdateSecretStore(ctx, &credstorev1.UpdateSecretStoreRequest{
		SecretStore: &credstorev1.SecretStore{Name: store.GetName(), PollInterval: durationpb.New(5e9), Description: "not in the mask"},
		UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"pollInterval"}},
	})
	if err != nil || updated.GetPollInterval().AsDuration() != 5*time.Second || updated.GetDescription() != "" || updated.GetVault().GetAddress() == "" {
		t.Errorf("%v, %v", updated, err)
	}
	updated, err = f.stores.UpdateSecretStore(ctx, &credstorev1.UpdateSecretStoreRequest{
		SecretStore: &credstorev1.SecretStore{Name: store.GetName()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"poll_interval"}},
	})
	if err != nil || updated.GetPollInterval().AsDuration() != core.DefaultPollInterval {
		t.Errorf("%v, %v", updated, err)
	}
	if _, err := f.credentials.DeleteUsage(ctx, &credstorev1.DeleteUsageRequest{Name: declared.GetName()}); err != nil {
		t.Error(err)
	}
}

func TestRequestIDOverGRPC(t *testing.T) {
	f := newFixture(t, nil)
	create := func(id string) (*credstorev1.Credential, error) {
		return f.credentials.CreateCredential(as(t, "admin"), &credstorev1.CreateCredentialRequest{
			Parent: "projects/default", CredentialId: id, RequestId: "once", Credential: &credstorev1.Credential{Payload: basic("a", "b")},
		})
	}
	first, err := create("one")
	if err != nil {
		t.Fatal(err)
	}
	again, err := create("one")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, protocmp.Transform()); diff != "" {
		t.Errorf("a repeated call answers otherwise (-first +again)\n%s", diff)
	}
	_, err = create("two")
	refused(t, err, codes.InvalidArgument, core.ReasonRequestIDReused, "requestId")
}

// TestBadRequests holds that bad input is refused with the field that is wrong;
// the whole table is in package app, over both transports.
func TestBadRequests(t *testing.T) {
	f := newFixture(t, nil)
	f.create(t, "bot", "s3cret")
	const bot = "projects/default/credentials/bot"
	ctx := as(t, "admin")
	for name, test := range map[string]struct {
		call  func() error
		field string
	}{
		"parent": {func() error {
			_, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{Parent: "projects/", CredentialId: "c"})
			return err
		}, "parent"},
		"name missing": {func() error {
			_, err := f.credentials.GetCredential(ctx, &credstorev1.GetCredentialRequest{})
			return err
		}, "name"},
		"payload": {func() error {
			_, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
				Parent: "projects/default", CredentialId: "c", Credential: &credstorev1.Credential{Payload: basic("hunter2:", "hunter2")},
			})
			return err
		}, "credential.payload.basic.username"},
		"own name": {func() error {
			_, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
				Parent: "projects/default", CredentialId: "c", Credential: &credstorev1.Credential{Name: "projects/default/credentials/hunter2", Payload: basic("a", "b")},
			})
			return err
		}, "credential.name"},
		"mask": {func() error {
			_, err := f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
				Credential: &credstorev1.Credential{Name: bot}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload.basic.username"}},
			})
			return err
		}, "updateMask"},
		"mask without payload": {func() error {
			_, err := f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
				Credential: &credstorev1.Credential{Name: bot}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}},
			})
			return err
		}, "credential.payload"},
		"batch": {func() error {
			_, err := f.credentials.BatchWriteCredentials(ctx, &credstorev1.BatchWriteCredentialsRequest{
				Parent: "projects/default", Operations: []*credstorev1.BatchWriteCredentialsRequest_Operation{
					{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Delete{Delete: &credstorev1.BatchWriteCredentialsRequest_Delete{Name: bot}}},
					{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Update{Update: &credstorev1.BatchWriteCredentialsRequest_Update{
						Credential: &credstorev1.Credential{Name: bot, Payload: basic("a", "")},
					}}},
				},
			})
			return err
		}, "operations[1].update.credential.payload.basic.password"},
		"mode": {func() error {
			_, err := f.injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
				Parent: "projects/default", InjectionId: "i", Injection: &credstorev1.Injection{Items: []*credstorev1.Item{
					{Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: "a", Mode: "0o400"}}},
				}},
			})
			return err
		}, "injection.items[0].file.mode"},
		"no target": {func() error {
			_, err := f.injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
				Parent: "projects/default", InjectionId: "i", Injection: &credstorev1.Injection{Items: []*credstorev1.Item{{}}},
			})
			return err
		}, "injection.items[0].file"},
		"source": {func() error {
			_, err := f.injections.CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
				Parent: "projects/default", InjectionId: "i", Injection: &credstorev1.Injection{Items: []*credstorev1.Item{
					{Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: "a"}}, Source: &credstorev1.Item_Secret{Secret: &credstorev1.SecretSource{Store: "hunter2"}}},
				}},
			})
			return err
		}, "injection.items[0].secret.store"},
		"delivery": {func() error {
			_, err := f.stores.CreateSecretStore(ctx, &credstorev1.CreateSecretStoreRequest{
				Parent: "projects/default", SecretStoreId: "s", SecretStore: &credstorev1.SecretStore{Delivery: 7, Credential: bot},
			})
			return err
		}, "secretStore.delivery"},
		"page size": {func() error {
			_, err := f.credentials.ListCredentials(ctx, &credstorev1.ListCredentialsRequest{Parent: "projects/default", PageSize: -1})
			return err
		}, "pageSize"},
		"page token": {func() error {
			_, err := f.credentials.ListCredentials(ctx, &credstorev1.ListCredentialsRequest{Parent: "projects/default", PageToken: "hunter2"})
			return err
		}, "pageToken"},
		"token's credentials": {func() error {
			_, err := f.tokens.CreateToken(ctx, &credstorev1.CreateTokenRequest{Parent: "projects/default", TokenId: "t", Token: &credstorev1.Token{
				Role: credstorev1.Token_WORKLOAD, Credentials: []string{bot, "hunter2"},
			}})
			return err
		}, "token.credentials[1]"},
		"view": {func() error {
			stream, err := f.credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default", View: 9})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, "view"},
		"resume token": {func() error {
			stream, err := f.credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default", ResumeToken: "hunter2"})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, "resumeToken"},
		"report before open": {func() error {
			stream, err := f.injections.WatchSet(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Report_{Report: &credstorev1.WatchSetRequest_Report{}}}); err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		}, "open"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.call()
			refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, test.field)
			if strings.Contains(status.Convert(err).Proto().String(), "hunter2") {
				t.Errorf("the answer repeats the value: %v", err)
			}
		})
	}
}

// TestNothingWithoutAuthentication tries every method of every service without
// a token, and sends no message: the refusal must not wait for one.
func TestNothingWithoutAuthentication(t *testing.T) {
	f := newFixture(t, nil)
	open := 0
	for service, info := range services(t, f) {
		for _, m := range info {
			full := "/" + service + "/" + m
			stream, err := f.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, full)
			if err != nil {
				t.Fatal(err)
			}
			if full == grpc_health_v1.Health_Check_FullMethodName {
				open++
				continue
			}
			err = stream.RecvMsg(&credstorev1.Project{})
			refused(t, err, codes.Unauthenticated, "TOKEN_MISSING", "")
		}
	}
	if open != 1 {
		t.Errorf("%d methods are open", open)
	}
	if _, err := grpc_health_v1.NewHealthClient(f.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	err := f.conn.Invoke(t.Context(), "/credstore.v1.Nothing/AtAll", &credstorev1.Project{}, &credstorev1.Project{})
	refused(t, err, codes.Unauthenticated, "TOKEN_MISSING", "")
	err = f.conn.Invoke(as(t, "admin"), "/credstore.v1.Nothing/AtAll", &credstorev1.Project{}, &credstorev1.Project{})
	refused(t, err, codes.Unimplemented, grpcapi.ReasonMethodUnknown, "")
}

// services asks the server which methods it has.
func services(t *testing.T, f *fixture) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithCancel(as(t, "admin"))
	defer cancel()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(f.conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{
		"grpc.health.v1.Health":                    {"Check", "Watch", "List"},
		"grpc.reflection.v1.ServerReflection":      {"ServerReflectionInfo"},
		"grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo"},
	}
	for name := range valid() {
		service, method, _ := strings.Cut(name, "/")
		out["credstore.v1."+service] = append(out["credstore.v1."+service], method)
	}
	for _, s := range answer.GetListServicesResponse().GetService() {
		if len(out[s.GetName()]) == 0 {
			t.Errorf("the server has a service %s that this test does not try", s.GetName())
		}
	}
	if n := len(answer.GetListServicesResponse().GetService()); n != len(out) {
		t.Errorf("the server lists %d services, want %d", n, len(out))
	}
	return out
}

func TestHealth(t *testing.T) {
	f := newFixture(t, nil)
	health := grpc_health_v1.NewHealthClient(f.conn)
	for _, service := range []string{"", "credstore.v1.CredentialService"} {
		answer, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, answer, err)
		}
	}
	_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "nothing"})
	refused(t, err, codes.NotFound, core.ReasonNotFound, "")
	f.Harness.Stop(t)
	answer, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("without a store: %v, %v", answer, err)
	}
}

// raw sends bytes that are no message.
type raw struct{}

func (raw) Name() string                    { return "proto" }
func (raw) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }

func TestBadMessages(t *testing.T) {
	f := newFixture(t, nil)
	send := func(b []byte) error {
		return f.conn.Invoke(as(t, "admin"), "/credstore.v1.ProjectService/GetProject", b, &credstorev1.Project{}, grpc.ForceCodec(raw{}))
	}
	refused(t, send([]byte("\xff\xff\xff")), codes.InvalidArgument, grpcapi.ReasonMessageMalformed, "")
	refused(t, send([]byte("\x0a\x01\xff")), codes.InvalidArgument, grpcapi.ReasonMessageMalformed, "") // a name that is no UTF-8
	refused(t, send(make([]byte, 2<<20+1)), codes.ResourceExhausted, grpcapi.ReasonMessageTooLarge, "")
	if err := send(make([]byte, 4<<20+1)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("beyond gRPC's own bound: %v", err)
	}
}

// TestPanicIsContained uses a store that is missing.
func TestPanicIsContained(t *testing.T) {
	f := newFixture(t, func(c *grpcapi.Config) {
		c.Authenticate = func(ctx context.Context) (context.Context, error) {
			if ctx.Err() == nil {
				panic("hunter2")
			}
			return ctx, nil
		}
	})
	for range 3 { // the server goes on
		_, err := f.projects.GetProject(as(t, "admin"), &credstorev1.GetProjectRequest{Name: "projects/default"})
		refused(t, err, codes.Internal, grpcapi.ReasonInternal, "")
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the answer holds the panic: %v", err)
		}
	}
	log := f.log.text()
	if strings.Contains(log, "hunter2") || !strings.Contains(log, "panic in a call") || !strings.Contains(log, "calls.go") {
		t.Errorf("log: %s", log)
	}
	if n := metric(t, f, "credstore_grpc_panics_total"); n != 3 {
		t.Errorf("%v panics counted", n)
	}
}

func metric(t *testing.T, f *fixture, name string, labels ...string) float64 {
	t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, m := range family.GetMetric() {
			for i, l := range labels {
				if m.GetLabel()[i].GetValue() != l {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func TestMetricsAndLogHoldNoNames(t *testing.T) {
	f := newFixture(t, nil)
	f.create(t, "tenants-own", "s3cret")
	if _, err := f.credentials.AccessCredential(as(t, "admin"), &credstorev1.AccessCredentialRequest{Name: "projects/default/credentials/tenants-own"}); err != nil {
		t.Fatal(err)
	}
	_, err := f.credentials.GetCredential(as(t, "admin"), &credstorev1.GetCredentialRequest{Name: "projects/default/credentials/absent"})
	if status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	if n := metric(t, f, "credstore_grpc_handled_total", "OK", "credstore.v1.CredentialService/AccessCredential"); n != 1 {
		t.Errorf("%v accesses counted", n)
	}
	if n := metric(t, f, "credstore_grpc_handled_total", "NotFound", "credstore.v1.CredentialService/GetCredential"); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	if n := metric(t, f, "credstore_grpc_call_duration_seconds"); n != 3 {
		t.Errorf("%v durations", n)
	}
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(families) + f.log.text()
	for _, secret := range []string{"s3cret", "tenants-own", "absent"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the metrics or the log", secret)
		}
	}
	if !strings.Contains(f.log.text(), "code=NotFound") || !strings.Contains(f.log.text(), "principal=projects/default/tokens/admin") {
		t.Errorf("log: %s", f.log.text())
	}
}

func TestPrincipalRate(t *testing.T) {
	f := newFixture(t, func(c *grpcapi.Config) { c.Limits.PrincipalRate = 0.001 })
	get := func(token string) error {
		_, err := f.projects.ListProjects(as(t, token), &credstorev1.ListProjectsRequest{})
		return err
	}
	if err := get("admin"); err != nil {
		t.Fatal(err)
	}
	err := get("admin")
	refused(t, err, codes.ResourceExhausted, grpcapi.ReasonRateLimited, "")
	if after := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration(); after < 900*time.Second {
		t.Errorf("retry after %v", after)
	}
}

func TestAdmission(t *testing.T) {
	f := newFixture(t, func(c *grpcapi.Config) { c.Limits.Streams = 1 })
	watch := func() (grpc.ServerStreamingClient[credstorev1.WatchResponse], error) {
		stream, err := f.credentials.Watch(as(t, "admin"), &credstorev1.WatchRequest{Parent: "projects/default"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return stream, err
	}
	if _, err := watch(); err != nil {
		t.Fatal(err)
	}
	_, err := watch()
	refused(t, err, codes.Unavailable, grpcapi.ReasonOverloaded, "")
	if detail[*errdetails.RetryInfo](err) == nil {
		t.Error("no time to retry")
	}
	// Calls have places of their own.
	if _, err := f.projects.ListProjects(as(t, "admin"), &credstorev1.ListProjectsRequest{}); err != nil {
		t.Error(err)
	}
	if n := metric(t, f, "credstore_grpc_streams"); n != 1 {
		t.Errorf("%v streams are counted as open", n)
	}
}

// TestStreamThatIsNeverOpened holds that a stream without a first message ends.
func TestStreamThatIsNeverOpened(t *testing.T) {
	f := newFixture(t, func(c *grpcapi.Config) { c.Limits.OpenTimeout = 10 * time.Millisecond })
	stream, err := f.injections.WatchSet(as(t, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestWatchOverGRPC(t *testing.T) {
	f := newFixture(t, nil)
	f.create(t, "bot", "one")
	for label, options := range map[string][]grpc.CallOption{"plain": nil, "compressed": {grpc.UseCompressor(gzip.Name)}} {
		t.Run(label, func(t *testing.T) {
			ctx, cancel := context.WithCancel(as(t, "admin"))
			defer cancel()
			stream, err := f.credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default", View: credstorev1.WatchRequest_PAYLOAD}, options...)
			if err != nil {
				t.Fatal(err)
			}
			next := func() *credstorev1.WatchResponse {
				t.Helper()
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			if m := next(); m.GetReset_() == nil || m.GetResumeToken() != "" {
				t.Errorf("first: %v", m)
			}
			if m := next(); len(m.GetCommit().GetChanges()) != 1 || m.GetCommit().GetChanges()[0].GetPayload().GetBasic().GetUsername() != "bot" || m.GetResumeToken() != "" {
				t.Errorf("state: %v", m.GetCommit())
			}
			synced := next()
			if synced.GetSynced() == nil || synced.GetResumeToken() == "" {
				t.Errorf("third: %v", synced)
			}
			if _, err := f.credentials.UpdateCredential(as(t, "admin"), &credstorev1.UpdateCredentialRequest{
				Credential: &credstorev1.Credential{Name: "projects/default/credentials/bot", Payload: basic("bot", label)},
			}); err != nil {
				t.Fatal(err)
			}
			change := next()
			if c := change.GetCommit(); c.GetFromRevision() != synced.GetRevision() || change.GetRevision() <= synced.GetRevision() || change.GetResumeToken() == "" ||
				c.GetChanges()[0].GetType() != credstorev1.Change_PUT || c.GetChanges()[0].GetPayload().GetBasic().GetPassword() != label {
				t.Errorf("change: from %d to %d", c.GetFromRevision(), change.GetRevision())
			}
		})
	}
}

func TestDeletedTokenEndsItsStreams(t *testing.T) {
	f := newFixture(t, nil)
	made, err := f.tokens.CreateToken(as(t, "admin"), &credstorev1.CreateTokenRequest{
		Parent: "projects/default", TokenId: "t", Token: &credstorev1.Token{Role: credstorev1.Token_READER},
	})
	if err != nil || !strings.HasPrefix(made.GetSecret(), "credstore_") {
		t.Fatal(err)
	}
	stream, err := f.credentials.Watch(as(t, made.GetSecret()), &credstorev1.WatchRequest{Parent: "projects/default"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // reset, synced
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.tokens.DeleteToken(as(t, "admin"), &credstorev1.DeleteTokenRequest{Name: made.GetToken().GetName()}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	refused(t, err, codes.Unauthenticated, core.ReasonUnauthenticated, "")
}

// TestDeletedTokenEndsSilentStreams does the same with a stream that waits for
// its client and not in the domain.
func TestDeletedTokenEndsSilentStreams(t *testing.T) {
	f := newFixture(t, nil)
	made, err := f.tokens.CreateToken(as(t, "admin"), &credstorev1.CreateTokenRequest{
		Parent: "projects/default", TokenId: "t", Token: &credstorev1.Token{Role: credstorev1.Token_READER},
	})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(f.conn).ServerReflectionInfo(as(t, made.GetSecret()))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.tokens.DeleteToken(as(t, "admin"), &credstorev1.DeleteTokenRequest{Name: made.GetToken().GetName()}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	f.server.Stop(time.Second) // so that the log is complete
	if log := f.log.text(); !strings.Contains(log, "ServerReflectionInfo code=Unauthenticated") {
		t.Errorf("log: %s", log)
	}
}

func TestStopEndsStreams(t *testing.T) {
	f := newFixture(t, nil)
	ctx := as(t, "admin")
	stream, err := f.credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default"})
	if err != nil {
		t.Fatal(err)
	}
	inside, err := f.server.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	gateway, err := credstorev1.NewCredentialServiceClient(inside).Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, s := range []grpc.ServerStreamingClient[credstorev1.WatchResponse]{stream, gateway} {
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	f.server.Stop(time.Minute)
	if took := time.Since(began); took >= time.Minute {
		t.Errorf("Stop waited for the streams for %v", took)
	}
	for _, s := range []grpc.ServerStreamingClient[credstorev1.WatchResponse]{stream, gateway} {
		_, err := s.Recv()
		refused(t, err, codes.Unavailable, grpcapi.ReasonShuttingDown, "")
	}
}

func TestWatchSetOverGRPC(t *testing.T) {
	f := newFixture(t, nil)
	f.create(t, "bot", "one")
	if _, err := f.injections.CreateInjection(as(t, "admin"), &credstorev1.CreateInjectionRequest{
		Parent: "projects/default", InjectionId: "web", Injection: &credstorev1.Injection{
			Selector: map[string]string{"app": "web"},
			Items: []*credstorev1.Item{{
				Source: &credstorev1.Item_Credential{Credential: &credstorev1.CredentialSource{Name: "projects/default/credentials/bot", Field: "password"}},
				Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: "db/password", Uid: proto.Uint32(0)}},
			}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	stream, err := f.injections.WatchSet(as(t, "web"))
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *credstorev1.WatchSetRequest) {
		t.Helper()
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	recv := func() *credstorev1.Set {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m.GetSet()
	}
	send(&credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Open_{Open: &credstorev1.WatchSetRequest_Open{Parent: "projects/default", Workload: "pod-1"}}})
	set := recv()
	if !set.GetWhole() || len(set.GetItems()) != 1 || string(set.GetItems()[0].GetContent()) != "one" || set.GetItems()[0].GetFile().GetMode() != "0400" || set.GetItems()[0].GetFile().Uid == nil {
		t.Errorf("first set: %d items", len(set.GetItems()))
	}
	report := func(r *credstorev1.WatchSetRequest_Report) {
		send(&credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Report_{Report: r}})
	}
	report(&credstorev1.WatchSetRequest_Report{Revision: set.GetRevision(), Failures: []*credstorev1.ItemReport{{Id: "web/db/password", Message: "disk is full"}}})
	if _, err := f.credentials.UpdateCredential(as(t, "admin"), &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: "projects/default/credentials/bot", Payload: basic("bot", "two")},
	}); err != nil {
		t.Fatal(err)
	}
	set = recv()
	if set.GetWhole() || len(set.GetItems()) != 1 || string(set.GetItems()[0].GetContent()) != "two" {
		t.Errorf("second set: %d items", len(set.GetItems()))
	}
	_, err = f.credentials.DeleteCredential(as(t, "admin"), &credstorev1.DeleteCredentialRequest{Name: "projects/default/credentials/bot"})
	refused(t, err, codes.FailedPrecondition, core.ReasonCredentialInUse, "")
	uses := detail[*credstorev1.UsagesDetail](err)
	if uses.GetTotalUsages() != 1 || uses.GetUsages()[0].GetUser() != "projects/default/injections/web" {
		t.Errorf("uses: %v", uses)
	}
	state, err := f.injections.GetInjectionStatus(as(t, "admin"), &credstorev1.GetInjectionStatusRequest{Name: "projects/default/injections/web"})
	if err != nil || len(state.GetWorkloads()) != 1 || state.GetWorkloads()[0].GetWorkload() != "pod-1" || !state.GetWorkloads()[0].GetConnected() {
		t.Errorf("status: %v, %v", state, err)
	}
	// Half closed without a goodbye: reports are over, sets go on.
	report(&credstorev1.WatchSetRequest_Report{Revision: set.GetRevision()})
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.injections.DeleteInjection(as(t, "admin"), &credstorev1.DeleteInjectionRequest{Name: "projects/default/injections/web"}); err != nil {
		t.Fatal(err)
	}
	if set = recv(); len(set.GetItems()) != 0 || !set.GetWhole() && len(set.GetRemoved()) != 1 {
		t.Errorf("third set: %v", set.GetRemoved())
	}

	// After a goodbye the server ends the stream, and that is no error.
	bounded, cancel := context.WithTimeout(as(t, "web"), 20*time.Second)
	defer cancel()
	leaving, err := f.injections.WatchSet(bounded)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*credstorev1.WatchSetRequest{
		{Message: &credstorev1.WatchSetRequest_Open_{Open: &credstorev1.WatchSetRequest_Open{Parent: "projects/default", Workload: "pod-3"}}},
		{Message: &credstorev1.WatchSetRequest_Report_{Report: &credstorev1.WatchSetRequest_Report{Goodbye: true}}},
	} {
		if err := leaving.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := leaving.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = leaving.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("after a goodbye: %v, want the end of the stream", err)
	}

	bad, err := f.injections.WatchSet(as(t, "web"))
	if err != nil {
		t.Fatal(err)
	}
	open := &credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Open_{Open: &credstorev1.WatchSetRequest_Open{Parent: "projects/default", Workload: "pod-2"}}}
	for range 2 {
		if err := bad.Send(open); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		_, err = bad.Recv()
	}
	refused(t, err, codes.InvalidArgument, core.ReasonInvalidField, "report")
}

func TestDialHasNoOutsideAddress(t *testing.T) {
	var inside []bool
	f := newFixture(t, func(c *grpcapi.Config) {
		authenticate := c.Authenticate
		c.Authenticate = func(ctx context.Context) (context.Context, error) {
			inside = append(inside, grpcapi.InProcess(peerAddr(ctx)))
			return authenticate(ctx)
		}
	})
	conn, err := f.server.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []*grpc.ClientConn{f.conn, conn} {
		if _, err := credstorev1.NewProjectServiceClient(c).ListProjects(as(t, "admin"), &credstorev1.ListProjectsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]bool{false, true}, inside); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNewServerRefuses(t *testing.T) {
	if _, err := grpcapi.NewServer(grpcapi.Config{}); err == nil {
		t.Error("a server without a store")
	}
}

func peerAddr(ctx context.Context) net.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	return p.Addr
}

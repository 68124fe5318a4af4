package grpcapi_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// asked is an Authorizer that allows everything and remembers the questions.
type asked struct {
	mu        sync.Mutex
	questions []core.Permission
}

func (a *asked) Authorize(q core.Access) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.questions = append(a.questions, q.Permission)
	return nil
}

func (a *asked) take() []core.Permission {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.questions
	a.questions = nil
	return q
}

// valid returns for each method a request that gets past parsing; whether what
// it names exists does not matter.
func valid() map[string]proto.Message {
	const parent, credential, version = "projects/default", "projects/default/credentials/bot", "projects/default/credentials/bot/versions/1"
	const store, injection, token = "projects/default/secretStores/s", "projects/default/injections/i", "projects/default/tokens/t"
	return map[string]proto.Message{
		"ProjectService/CreateProject": &credstorev1.CreateProjectRequest{ProjectId: "p"},
		"ProjectService/GetProject":    &credstorev1.GetProjectRequest{Name: parent},
		"ProjectService/ListProjects":  &credstorev1.ListProjectsRequest{},
		"ProjectService/DeleteProject": &credstorev1.DeleteProjectRequest{Name: parent},
		"ProjectService/UpdateProject": &credstorev1.UpdateProjectRequest{Project: &credstorev1.Project{Name: parent}},

		"TokenService/CreateToken": &credstorev1.CreateTokenRequest{Parent: parent, TokenId: "t"},
		"TokenService/GetToken":    &credstorev1.GetTokenRequest{Name: token},
		"TokenService/ListTokens":  &credstorev1.ListTokensRequest{Parent: parent},
		"TokenService/DeleteToken": &credstorev1.DeleteTokenRequest{Name: token},

		"CredentialService/CreateCredential": &credstorev1.CreateCredentialRequest{Parent: parent, CredentialId: "bot"},
		"CredentialService/GetCredential":    &credstorev1.GetCredentialRequest{Name: credential},
		"CredentialService/ListCredentials":  &credstorev1.ListCredentialsRequest{Parent: parent},
		"CredentialService/UpdateCredential": &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: credential}},
		"CredentialService/DeleteCredential": &credstorev1.DeleteCredentialRequest{Name: credential},
		"CredentialService/BatchWriteCredentials": &credstorev1.BatchWriteCredentialsRequest{Parent: parent, Operations: []*credstorev1.BatchWriteCredentialsRequest_Operation{
			{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Delete{Delete: &credstorev1.BatchWriteCredentialsRequest_Delete{Name: credential}}},
		}},
		"CredentialService/AccessCredential":          &credstorev1.AccessCredentialRequest{Name: credential},
		"CredentialService/ListCredentialVersions":    &credstorev1.ListCredentialVersionsRequest{Parent: credential},
		"CredentialService/ActivateCredentialVersion": &credstorev1.ActivateCredentialVersionRequest{Name: version},
		"CredentialService/DisableCredentialVersion":  &credstorev1.DisableCredentialVersionRequest{Name: version},
		"CredentialService/EnableCredentialVersion":   &credstorev1.EnableCredentialVersionRequest{Name: version},
		"CredentialService/DestroyCredentialVersion":  &credstorev1.DestroyCredentialVersionRequest{Name: version},
		"CredentialService/VerifyCredential":          &credstorev1.VerifyCredentialRequest{Name: version},
		"CredentialService/MintToken":                 &credstorev1.MintTokenRequest{Name: credential},
		"CredentialService/Watch":                     &credstorev1.WatchRequest{Parent: parent},
		"CredentialService/ListUsages":                &credstorev1.ListUsagesRequest{Parent: credential},
		"CredentialService/DeclareUsage":              &credstorev1.DeclareUsageRequest{Parent: credential, UsageId: "u"},
		"CredentialService/DeleteUsage":               &credstorev1.DeleteUsageRequest{Name: credential + "/usages/u"},
		"CredentialService/ListConsumers":             &credstorev1.ListConsumersRequest{Parent: credential},

		"SecretStoreService/CreateSecretStore": &credstorev1.CreateSecretStoreRequest{
			Parent: parent, SecretStoreId: "s", SecretStore: &credstorev1.SecretStore{Credential: credential},
		},
		"SecretStoreService/GetSecretStore":     &credstorev1.GetSecretStoreRequest{Name: store},
		"SecretStoreService/ListSecretStores":   &credstorev1.ListSecretStoresRequest{Parent: parent},
		"SecretStoreService/UpdateSecretStore":  &credstorev1.UpdateSecretStoreRequest{SecretStore: &credstorev1.SecretStore{Name: store}},
		"SecretStoreService/DeleteSecretStore":  &credstorev1.DeleteSecretStoreRequest{Name: store},
		"SecretStoreService/TestSecretStore":    &credstorev1.TestSecretStoreRequest{Name: store},
		"SecretStoreService/RefreshSecretStore": &credstorev1.RefreshSecretStoreRequest{Name: store},

		"InjectionService/CreateInjection":    &credstorev1.CreateInjectionRequest{Parent: parent, InjectionId: "i"},
		"InjectionService/GetInjection":       &credstorev1.GetInjectionRequest{Name: injection},
		"InjectionService/ListInjections":     &credstorev1.ListInjectionsRequest{Parent: parent},
		"InjectionService/UpdateInjection":    &credstorev1.UpdateInjectionRequest{Injection: &credstorev1.Injection{Name: injection}},
		"InjectionService/DeleteInjection":    &credstorev1.DeleteInjectionRequest{Name: injection},
		"InjectionService/GetInjectionStatus": &credstorev1.GetInjectionStatusRequest{Name: injection},
		"InjectionService/GetSet":             &credstorev1.GetSetRequest{Parent: parent},
		"InjectionService/WatchSet": &credstorev1.WatchSetRequest{Message: &credstorev1.WatchSetRequest_Open_{
			Open: &credstorev1.WatchSetRequest_Open{Parent: parent, Workload: "w"},
		}},
	}
}

// TestDomainAsksForTheOption holds that the permission which the contract
// promises for a method is the first that the domain asks for.
func TestDomainAsksForTheOption(t *testing.T) {
	authorizer := &asked{}
	f := newFixture(t, nil, func(c *core.Config) { c.Authorizer = authorizer })
	requests := valid()
	for _, file := range []protoreflect.FileDescriptor{
		credstorev1.File_credstore_v1_project_proto, credstorev1.File_credstore_v1_token_proto, credstorev1.File_credstore_v1_credential_proto,
		credstorev1.File_credstore_v1_secret_store_proto, credstorev1.File_credstore_v1_injection_proto,
	} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			name := fmt.Sprintf("%s/%s", m.Parent().Name(), m.Name())
			request := requests[name]
			if request == nil {
				t.Errorf("%s has no request in this test", name)
				continue
			}
			promised, _ := proto.GetExtension(m.Options(), credstorev1.E_Permission).(string)
			authorizer.take()
			invoke(t, f.conn, "/credstore.v1."+name, m, request)
			questions := authorizer.take()
			if len(questions) == 0 || string(questions[0]) != promised {
				t.Errorf("%s: the contract promises %q, the domain asked for %q", name, promised, questions)
			}
		}
	}

	// Watching payloads needs both.
	ctx, cancel := context.WithCancel(as(t, "admin"))
	defer cancel()
	authorizer.take()
	stream, err := f.credentials.Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default", View: credstorev1.WatchRequest_PAYLOAD})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if q := authorizer.take(); !slices.Equal(q, []core.Permission{core.CredentialsWatch, core.CredentialsAccess}) {
		t.Errorf("for payloads the domain asked for %q", q)
	}
}

// invoke calls a method and waits for its first answer, of whatever kind.
func invoke(t *testing.T, conn *grpc.ClientConn, full string, m protoreflect.MethodDescriptor, request proto.Message) {
	t.Helper()
	ctx, cancel := context.WithCancel(as(t, "admin"))
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}
	stream, err := conn.NewStream(ctx, desc, full)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(request); err != nil {
		t.Fatal(err)
	}
	if !m.IsStreamingClient() {
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	// The answer may well be that the resource does not exist.
	_ = stream.RecvMsg(&credstorev1.Project{})
}

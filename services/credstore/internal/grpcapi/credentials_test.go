package grpcapi_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// TestKindFitsThePayload holds that a kind beside the payload is no second opinion.
func TestKindFitsThePayload(t *testing.T) {
	f := newFixture(t, nil)
	ctx := as(t, "admin")
	create := func(id, kind string) error {
		_, err := f.credentials.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
			Parent: "projects/default", CredentialId: id, Credential: &credstorev1.Credential{Kind: kind, Payload: basic("bot", "s3cret")},
		})
		return err
	}
	update := func(kind string) error {
		_, err := f.credentials.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: "projects/default/credentials/bot", Kind: kind, Payload: basic("bot", "s3cret2")},
		})
		return err
	}
	batch := func(kind string) error {
		_, err := f.credentials.BatchWriteCredentials(ctx, &credstorev1.BatchWriteCredentialsRequest{
			Parent: "projects/default", Operations: []*credstorev1.BatchWriteCredentialsRequest_Operation{{
				Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Create{Create: &credstorev1.BatchWriteCredentialsRequest_Create{
					CredentialId: "batched", Credential: &credstorev1.Credential{Kind: kind, Payload: basic("bot", "s3cret")},
				}},
			}},
		})
		return err
	}
	refused(t, create("bot", "apiToken"), codes.InvalidArgument, core.ReasonInvalidField, "credential.kind")
	refused(t, create("bot", "no such kind"), codes.InvalidArgument, core.ReasonInvalidField, "credential.kind")
	if err := create("bot", "basic"); err != nil {
		t.Error(err)
	}
	refused(t, update("apiToken"), codes.InvalidArgument, core.ReasonInvalidField, "credential.kind")
	if err := update("basic"); err != nil {
		t.Error(err)
	}
	refused(t, batch("apiToken"), codes.InvalidArgument, core.ReasonInvalidField, "operations[0].create.credential.kind")
	if err := batch("basic"); err != nil {
		t.Error(err)
	}
}

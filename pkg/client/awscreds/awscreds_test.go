package awscreds_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/awscreds"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/tokens/tokenstest"
)

// keys is everything of credentials but when they end.
func keys(t *testing.T, p aws.CredentialsProvider) aws.Credentials {
	t.Helper()
	c, err := p.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var notTheEnd = cmpopts.IgnoreFields(aws.Credentials{}, "Expires")

func TestMinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Make(tokenstest.AWS)
		const role = "arn:aws:iam::123456789012:role/scan"
		got := keys(t, awscreds.Minted(r.Source, &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsAssumeRole{
			AwsAssumeRole: &credentialv1.TokenRequest_AwsRoleSession{RoleArn: role},
		}}))
		want := aws.Credentials{
			AccessKeyID: "ASIAv1-1", SecretAccessKey: "secret of v1-1", SessionToken: "session of v1-1", AccountID: "123456789012",
			Source: "credstore", CanExpire: true,
		}
		if diff := cmp.Diff(want, got, notTheEnd); diff != "" {
			t.Error(diff)
		}
		if asked := r.Asked()[0].GetAwsAssumeRole().GetRoleArn(); asked != role {
			t.Errorf("asked for %q", asked)
		}
	})
}

// The SDK's cache, in which every client keeps credentials for its whole life,
// has the new ones for the first request after a change, and makes no calls.
func TestMintedFollowsInTheSDKsCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Make(tokenstest.AWS)
		cache := aws.NewCredentialsCache(awscreds.Minted(r.Source, nil))
		for range 100 {
			if got := keys(t, cache).AccessKeyID; got != "ASIAv1-1" {
				t.Fatalf("before the change: %s", got)
			}
		}
		r.Rotate(2)
		if got := keys(t, cache).AccessKeyID; got != "ASIAv2-2" || r.Calls() != 2 {
			t.Errorf("after the change: %s, %d calls", got, r.Calls())
		}
	})
}

// While credstore is away the SDK goes on with what there is.
func TestMintedWhileCredstoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Make(tokenstest.AWS)
		cache := aws.NewCredentialsCache(awscreds.Minted(r.Source, nil))
		keys(t, cache)
		r.Fail(clienttest.Failure(codes.Unavailable, "VENDOR_UNAVAILABLE", "no answer"))
		time.Sleep(tokenstest.Life - time.Minute)
		keys(t, cache)
		time.Sleep(time.Minute)
		if _, err := cache.Retrieve(t.Context()); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestMintedRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		p := awscreds.Minted(r.Source, nil)
		if _, err := p.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), "ask for awsSession") || strings.Contains(err.Error(), "v1-1") {
			t.Errorf("for a bearer token: %v", err)
		}
	})
}

func TestMintedGivesUpWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := awscreds.Minted(r.Source, nil).Retrieve(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
	})
}

const stored = "projects/default/credentials/aws"

func change(version uint32, key *credentialv1.AwsAccessKey) *credstorev1.Change {
	c := &credstorev1.Change{Type: credstorev1.Change_PUT, Credential: &credstorev1.Credential{
		Name: stored, ActiveVersion: version, Facts: map[string]string{"accountId": "123456789012"},
	}}
	if key != nil {
		c.Payload = &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: key}}
	}
	return c
}

// watch starts a watcher, whose first state holds the changes.
func watch(t *testing.T, r *tokenstest.Rig, changes ...*credstorev1.Change) (*client.Watcher, *clienttest.WatchStream) {
	t.Helper()
	w, err := r.Client.WatchCredentials(client.WatchOptions{Parent: "projects/default", Names: []string{stored}, Payload: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	stream := r.Watch()
	send(t, stream, r.State(changes...))
	return w, stream
}

func send(t *testing.T, stream *clienttest.WatchStream, messages []*credstorev1.WatchResponse) {
	t.Helper()
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
}

func TestStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		w, stream := watch(t, r, change(1, &credentialv1.AwsAccessKey{AccessKeyId: "AKIA1", SecretAccessKey: "one"}))
		cache := aws.NewCredentialsCache(awscreds.Stored(w, stored))
		want := aws.Credentials{AccessKeyID: "AKIA1", SecretAccessKey: "one", AccountID: "123456789012", Source: "credstore", CanExpire: true}
		if diff := cmp.Diff(want, keys(t, cache), notTheEnd); diff != "" {
			t.Error(diff)
		}
		send(t, stream, r.State(change(2, &credentialv1.AwsAccessKey{AccessKeyId: "ASIA2", SecretAccessKey: "two", SessionToken: "session"})))
		want.AccessKeyID, want.SecretAccessKey, want.SessionToken = "ASIA2", "two", "session"
		if diff := cmp.Diff(want, keys(t, cache), notTheEnd); diff != "" {
			t.Error(diff)
		}
		if r.Calls() != 0 {
			t.Errorf("%d tokens were minted", r.Calls())
		}
	})
}

func TestStoredRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		w, stream := watch(t, r, change(1, nil))
		p := awscreds.Stored(w, stored)
		if _, err := p.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), "no payload of kind awsAccessKey") {
			t.Errorf("without a payload: %v", err)
		}
		other := change(2, nil)
		other.Payload = &credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: "hidden-7"}}}
		send(t, stream, r.State(other))
		if _, err := p.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), "awsAccessKey") || strings.Contains(err.Error(), "hidden-7") {
			t.Errorf("of another kind: %v", err)
		}
		send(t, stream, r.State())
		if _, err := p.Retrieve(t.Context()); !errors.Is(err, client.ErrNotFound) || !strings.Contains(err.Error(), stored) {
			t.Errorf("when it is gone: %v", err)
		}
	})
}

// A program that starts before its watch is there waits as long as its caller
// says.
func TestStoredWaitsForTheFirstState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		w, err := r.Client.WatchCredentials(client.WatchOptions{Parent: "projects/default", Names: []string{stored}, Payload: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		stream := r.Watch()
		p := awscreds.Stored(w, stored)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Retrieve(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		got := make(chan aws.Credentials, 1)
		go func() {
			defer close(got)
			c, err := p.Retrieve(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		synctest.Wait()
		send(t, stream, r.State(change(1, &credentialv1.AwsAccessKey{AccessKeyId: "AKIA1", SecretAccessKey: "one"})))
		if c := <-got; c.AccessKeyID != "AKIA1" {
			t.Errorf("credentials of %s", c.AccessKeyID)
		}
	})
}

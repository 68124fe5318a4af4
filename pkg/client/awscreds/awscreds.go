// Package awscreds owns turning AWS credentials that credstore keeps into the
// credentials provider of the AWS SDK for Go. It calls no AWS service and keeps
// nothing: packages tokens and client do.
package awscreds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/tokens"
)

// source is what the SDK shows as the origin of the credentials.
const source = "credstore"

// Minted returns a provider of temporary credentials that credstore mints, for
// aws.Config.Credentials. request is an awsSession or awsAssumeRole; nil means
// what the credential makes by itself. The caller closes the source when the
// configuration is of no use any more.
//
// The SDK keeps credentials until they expire; these say that they do at once,
// so that it asks for each request, which costs a look into memory, and follows
// a change of the credential without a restart.
func Minted(s *tokens.Source, request *credentialv1.TokenRequest) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		token, err := s.Token(ctx, request)
		if err != nil {
			return aws.Credentials{}, err
		}
		c := token.GetAws()
		if c == nil {
			return aws.Credentials{}, errors.New("the token is not one of AWS: ask for awsSession or awsAssumeRole")
		}
		return credentials(c.GetAccessKeyId(), c.GetSecretAccessKey(), c.GetSessionToken(), c.GetAccount()), nil
	})
}

// Stored returns a provider of the access key itself, as a watcher sees it, for
// programs that may read it. name is that of a credential of kind awsAccessKey,
// in full; the watcher must ask for payloads and see it.
func Stored(w *client.Watcher, name string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		if err := w.WaitSynced(ctx); err != nil {
			return aws.Credentials{}, err
		}
		c, ok := w.Get(name)
		if !ok {
			return aws.Credentials{}, fmt.Errorf("%s: %w, or the watcher does not see it", name, client.ErrNotFound)
		}
		key := c.Payload.GetAwsAccessKey()
		if key == nil {
			return aws.Credentials{}, fmt.Errorf("%s holds no payload of kind awsAccessKey that this watcher asked for", name)
		}
		return credentials(key.GetAccessKeyId(), key.GetSecretAccessKey(), key.GetSessionToken(), c.Metadata.GetFacts()["accountId"]), nil
	})
}

func credentials(id, secret, session, account string) aws.Credentials {
	return aws.Credentials{
		AccessKeyID: id, SecretAccessKey: secret, SessionToken: session, AccountID: account,
		Source: source, CanExpire: true, Expires: time.Now(),
	}
}

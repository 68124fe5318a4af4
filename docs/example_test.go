package docs

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/awscreds"
	"github.com/credstore/credstore/pkg/client/tokens"
)

// follow is the example of watch.md. It is compiled and not run: package client
// has the tests.
func follow(ctx context.Context, address string, use func(*credentialv1.Basic)) error {
	c, err := client.Dial(client.Options{Address: address, CAFile: "ca.pem", TokenFile: "web.token"})
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := c.WatchCredentials(client.WatchOptions{
		Parent:  "projects/default",
		Names:   []string{"projects/default/credentials/registry-bot"},
		Payload: true, Consumer: "registry-scanner",
	})
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.WaitSynced(ctx); err != nil {
		return err // it goes on trying; this only waited for the first state
	}
	for {
		if bot, ok := w.Get("projects/default/credentials/registry-bot"); ok {
			use(bot.Payload.GetBasic())
		}
		select {
		case <-w.Changed():
		case <-ctx.Done():
			return nil
		}
	}
}

// whoAmI is the example of adapters.md.
func whoAmI(ctx context.Context) error {
	c, err := client.Dial(client.Options{Address: "credstore:7443", CAFile: "ca.pem", TokenFile: "token"})
	if err != nil {
		return err
	}
	defer c.Close()
	source, err := tokens.New(tokens.Options{Client: c, Credential: "projects/default/credentials/aws-prod", Consumer: "billing"})
	if err != nil {
		return err
	}
	defer source.Close()

	sdk := sts.New(sts.Options{Region: "eu-west-1", Credentials: awscreds.Minted(source, nil)})
	who, err := sdk.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	_ = who
	return err
}

var (
	_ = follow
	_ = whoAmI
)

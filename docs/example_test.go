package docs

import (
	"context"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
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

var _ = follow

package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	opVerify = "verify"
	// verifyTime bounds a verification, whatever its caller allows, and logOutTime
	// giving its login back.
	verifyTime = 30 * time.Second
	logOutTime = 5 * time.Second
)

// Verifier logs in to the server that a login names, asks whose it is, and logs
// out again. It implements provider.Verifier.
type Verifier struct{ cfg Config }

var _ provider.Verifier = (*Verifier)(nil)

// New returns a Verifier. Address, Namespace and CAPEM of the Config are not used:
// they are those of each payload.
func New(cfg Config) *Verifier { return &Verifier{cfg: cfg.normal()} }

// Verify implements provider.Verifier. A token that a person made is left as it
// is; one that the login brought is revoked.
func (v *Verifier) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m := login.Payload.Message().GetVault()
	switch {
	case m == nil:
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrRefused, Op: opVerify,
			Text: fmt.Sprintf("a credential of kind %q is no login to Vault", login.Payload.Kind()),
		}
	case m.GetAddress() == "":
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrUnsupported, Op: opVerify,
			Text: "the login does not say which server it is for: add its address, or test a secret store that uses it",
		}
	}
	cfg := v.cfg
	cfg.Address, cfg.Namespace, cfg.CAPEM = m.GetAddress(), m.GetNamespace(), m.GetCaPem()
	bounded, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	who, err := verify(bounded, cfg, login)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = &provider.Error{Kind: provider.ErrUnavailable, Op: opVerify, Text: fmt.Sprintf("no answer within %s", verifyTime)}
	}
	return who, err
}

func verify(ctx context.Context, cfg Config, login credential.Login) (credential.Identity, error) {
	s, err := Open(ctx, cfg, login)
	if err != nil {
		return credential.Identity{}, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), logOutTime)
		defer cancel()
		_ = s.Close(closing) // the token ends by itself, if later
	}()
	return s.whoAmI(ctx)
}

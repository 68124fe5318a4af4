package core

import (
	"context"
	"errors"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// MintToken makes a short-lived token from a credential's active version, or
// hands out one that was made before. That it is asked for is on record before the
// vendor is asked.
func (s *Store) MintToken(ctx context.Context, name resourcename.Credential, m *credentialv1.TokenRequest) (resourcename.Version, credential.Token, error) {
	var none resourcename.Version
	if err := s.permit(ctx, CredentialsMint, name.Parent(), name); err != nil {
		return none, credential.Token{}, err
	}
	if s.cfg.Issuer == nil {
		return none, credential.Token{}, errNoIssuer
	}
	c, login, err := s.login(name, 0)
	if err != nil {
		return none, credential.Token{}, err
	}
	request, err := credential.NewTokenRequest(c.Kind, m)
	if err != nil {
		return none, credential.Token{}, invalidFrom(err, "")
	}
	at := name.Version(c.ActiveVersion)
	// Before the vendor is asked: the payloads may go there, and what it refuses is
	// worth knowing too.
	e := AuditEntry{
		Permission: CredentialsMint, Resource: name.String(), Allowed: true,
		Payloads: versionsOf(login), Minted: at.String() + " " + request.String(),
	}
	if err := s.record(ctx, e); err != nil {
		return none, credential.Token{}, err
	}
	token, err := s.cfg.Issuer.Mint(ctx, login, request)
	if err != nil {
		return none, credential.Token{}, err
	}
	s.consumers.minted(PrincipalFrom(ctx).Name, name, c.ActiveVersion)
	return at, token, nil
}

// invalidFrom turns what pkg/credential says of a message into the domain's
// error; prefix stands before each field.
func invalidFrom(err error, prefix string) error {
	if _, ok := errors.AsType[*credential.ValidationError](err); !ok {
		return err
	}
	var v invalid
	v.addViolations(err, func(field string) string { return prefix + field })
	return v.err()
}

// addViolations adds the violations that pkg/credential found, with fields that at
// turns into those of the request.
func (v *invalid) addViolations(err error, at func(string) string) {
	bad, ok := errors.AsType[*credential.ValidationError](err)
	if !ok {
		return
	}
	for _, x := range bad.Violations {
		v.add(at(x.Field), "%s", x.Description)
	}
}

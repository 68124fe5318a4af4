package core

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// Issuer reaches the vendors whose credentials these are.
type Issuer interface {
	// Verify asks the vendor of the login. What the vendor answers is in the
	// result, without a version; an error means that the call was given up.
	Verify(ctx context.Context, login credential.Login) (Verification, error)
	// Mint returns a token for the login that has time left, made
	// now or kept from an earlier call with the same Key and request; nothing is
	// kept for a login without an ID. Its error is an *Error or the context's.
	Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error)
	// Forget drops the tokens that were made with any version of the credential
	// with this uid but the one given; 0 drops all.
	Forget(uid string, except uint32)
}

var errNoIssuer = &Error{Kind: ErrUnavailable, Reason: "NO_ISSUER", Message: "this server does not reach the vendors of credentials"}

// VerifyCredential asks the vendor whether a version works, the active one for
// version 0, and keeps what came of it when it is the active one.
func (s *Store) VerifyCredential(ctx context.Context, name resourcename.Credential, version uint32) (*Verification, error) {
	if err := s.permit(ctx, CredentialsVerify, name.Parent(), name); err != nil {
		return nil, err
	}
	if s.cfg.Issuer == nil {
		return nil, errNoIssuer
	}
	c, login, err := s.login(name, version)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		version = c.ActiveVersion
	}
	if err := s.release(ctx, CredentialsVerify, name.String(), versionsOf(login), "", 0); err != nil {
		return nil, err
	}
	out, err := s.verify(ctx, login)
	if err != nil {
		return nil, err
	}
	out.Version = version
	if version == c.ActiveVersion {
		if err := s.keepVerification(ctx, name, c.UID, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// verify asks the issuer; a check that failed makes it a refusal.
func (s *Store) verify(ctx context.Context, login credential.Login) (*Verification, error) {
	out, err := s.cfg.Issuer.Verify(ctx, login)
	if err != nil {
		return nil, err
	}
	var failed []string
	for _, c := range out.Identity.Checks {
		if !c.Passed {
			failed = append(failed, c.Name)
		}
	}
	if out.State == Verified && len(failed) > 0 {
		out.State = VerificationRefused
		out.Message = fmt.Sprintf("%d of %d checks failed: %s", len(failed), len(out.Identity.Checks), strings.Join(failed, ", "))
	}
	return &out, nil
}

// keepVerification stores a result with its credential, unless another version
// is active by then.
func (s *Store) keepVerification(ctx context.Context, name resourcename.Credential, uid string, result *Verification) error {
	errOther := errors.New("another version is active")
	_, err := s.mutate(ctx, false, func(v view) (*plan, error) {
		old, rev, ok := lookup[*Credential](v, keyCredential(name))
		if !ok || old.UID != uid || old.ActiveVersion != result.Version {
			return nil, errOther
		}
		c := *old
		c.Verification = result
		p := &plan{}
		p.require(AtRevision, keyCredential(name), rev)
		return p, s.put(p, keyCredential(name), encodeCredential(&c))
	})
	if errors.Is(err, errOther) {
		return nil
	}
	return err
}

// verifyWrites asks the vendors about the payloads of a write that wants it, and
// refuses the write unless all of them are good. They are asked only when the
// write could be made otherwise, and not again for a request that was answered.
func (s *Store) verifyWrites(ctx context.Context, m Mutation, method string, w *credentialsWrite) error {
	var asked []BatchOperation
	for _, op := range w.ops {
		if op.Create != nil && op.Create.Verify || op.Update != nil && op.Update.Verify {
			asked = append(asked, op)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	for _, op := range asked {
		name, _, _ := op.target()
		if err := s.permit(ctx, CredentialsVerify, name.Parent(), name); err != nil {
			return err
		}
	}
	if s.cfg.Issuer == nil {
		return errNoIssuer
	}
	if !m.ValidateOnly && s.answered(ctx, m, method, w.project.ID) {
		return nil
	}
	if _, err := s.mutate(ctx, true, w.plan); err != nil {
		return err
	}
	unsaved := make(map[resourcename.Credential]credential.Payload, len(w.ops))
	for _, op := range w.ops {
		if payload := op.payload(); !payload.IsZero() {
			name, _, _ := op.target()
			unsaved[name] = payload
		}
	}
	w.verified = make(map[resourcename.Credential]*Verification, len(asked))
	for _, op := range asked {
		name, _, _ := op.target()
		result, err := s.verifyWrite(ctx, name, op.payload(), unsaved)
		if err != nil {
			return err
		}
		w.verified[name] = result
	}
	return nil
}

func (s *Store) verifyWrite(ctx context.Context, name resourcename.Credential, payload credential.Payload, unsaved map[resourcename.Credential]credential.Payload) (*Verification, error) {
	login, err := s.loginWith(name, payload, unsaved)
	if err != nil {
		return nil, err
	}
	if err := s.release(ctx, CredentialsVerify, name.String(), versionsOf(login), "", 0); err != nil {
		return nil, err
	}
	result, err := s.verify(ctx, login)
	if err != nil {
		return nil, err
	}
	if result.State != Verified {
		return nil, &Error{
			Kind: ErrPrecondition, Reason: ReasonVerificationFailed, Resource: name.String(),
			Message: fmt.Sprintf("nothing was stored, since the payload is not verified: %s: %s", strings.ToLower(result.State.String()), result.Message),
		}
	}
	return result, nil
}

// at returns the result as that of a version.
func (v *Verification) at(version uint32) *Verification {
	if v == nil {
		return nil
	}
	out := *v
	out.Version = version
	return &out
}

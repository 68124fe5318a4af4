package coretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Issuer is a core.Issuer that reaches nobody. It fails the test when it is
// handed a login that the domain must not hand out, remembers what it was asked,
// and answers what it was told: VERIFIED, and tokens with a number, until Answer
// or Refuse say otherwise.
type Issuer struct {
	t testing.TB

	mu     sync.Mutex
	calls  []IssuerCall
	answer func(credential.Login) (core.Verification, error)
	refuse error
	forgot []string
}

// IssuerCall is one question.
type IssuerCall struct {
	// Op is "verify" or "mint".
	Op      string
	Login   credential.Login
	Request credential.TokenRequest
}

// NewIssuer returns an Issuer; hand its Use to New.
func NewIssuer(t testing.TB) *Issuer { return &Issuer{t: t} }

// Use is an Option.
func (i *Issuer) Use(c *core.Config) { c.Issuer = i }

// Answer makes Verify answer as f does; nil means VERIFIED again.
func (i *Issuer) Answer(f func(credential.Login) (core.Verification, error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = f
}

// Refuse makes Mint return the error; nil makes it mint again.
func (i *Issuer) Refuse(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refuse = err
}

// Calls returns the questions since the last time, and forgets them.
func (i *Issuer) Calls() []IssuerCall {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := i.calls
	i.calls = nil
	return out
}

// Forgotten returns what Forget was told, as "uid/version".
func (i *Issuer) Forgotten() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.forgot)
}

// Verify says what it was told to.
func (i *Issuer) Verify(_ context.Context, l credential.Login) (core.Verification, error) {
	i.check(l)
	i.mu.Lock()
	i.calls = append(i.calls, IssuerCall{Op: "verify", Login: l})
	answer := i.answer
	i.mu.Unlock()
	if answer != nil {
		return answer(l)
	}
	return core.Verification{
		State: core.Verified, Time: time.Now(), Latency: 7 * time.Millisecond,
		Identity: credential.Identity{Name: "identity of " + l.ShortName(), Facts: map[string]string{"account": "123456789012"}},
	}, nil
}

// Mint returns a new token each time, which lives for an hour.
func (i *Issuer) Mint(_ context.Context, l credential.Login, r credential.TokenRequest) (credential.Token, error) {
	i.check(l)
	if l.ID == "" {
		i.t.Errorf("a token is minted from %s, which is not stored", l)
	}
	if r.IsZero() {
		i.t.Errorf("a token is minted from %s without a request", l)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = append(i.calls, IssuerCall{Op: "mint", Login: l, Request: r})
	if i.refuse != nil {
		return credential.Token{}, i.refuse
	}
	return credential.NewToken(&credentialv1.Token{
		Kind:       &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: fmt.Sprintf("token %d of %s", len(i.calls), l.Key())}},
		ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
	})
}

// Forget remembers what it was told.
func (i *Issuer) Forget(uid string, except uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forgot = append(i.forgot, fmt.Sprintf("%s/%d", uid, except))
}

// check holds that a login is whole: each link is what the one before refers to,
// and all but payloads that are not stored yet have an id of their own.
func (i *Issuer) check(l credential.Login) {
	i.t.Helper()
	seen := make(map[string]bool)
	n := 0
	unsaved := true
	for at := &l; at != nil; at = at.Source {
		n++
		// One that is not stored yet refers to others like it, or to stored ones.
		unsaved = unsaved && at.ID == ""
		if err := checkLink(at, unsaved); err != nil {
			i.t.Errorf("login of %s: %v", at, err)
		}
		if at.ID != "" && seen[at.ID] {
			i.t.Errorf("login of %s: the id %s comes twice", at, at.ID)
		}
		seen[at.ID] = true
	}
	if n > core.MaxSources {
		i.t.Errorf("login of %s: a row of %d", l, n)
	}
}

func checkLink(l *credential.Login, unsaved bool) error {
	if _, err := resourcename.ParseCredential(l.Name); err != nil {
		return err
	}
	if l.Payload.IsZero() {
		return errors.New("it has no payload")
	}
	uid, version, ok := strings.Cut(l.ID, "/")
	if !unsaved && (!ok || len(uid) != 36 || version == "" || version == "0") {
		return fmt.Errorf("its id is %q", l.ID)
	}
	refs := l.Payload.References()
	switch {
	case len(refs) == 0 && l.Source != nil:
		return fmt.Errorf("it refers to nothing, and comes with %s", l.Source)
	case len(refs) > 0 && (l.Source == nil || l.Source.Name != refs[0]):
		return fmt.Errorf("it refers to %v, and comes with %v", refs, l.Source)
	}
	return nil
}

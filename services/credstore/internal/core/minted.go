package core

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// Tokens that injections ask for are values: sealed records that end, and are
// sent to workloads like every other change. Tokens that a call of MintToken
// made are none: the Issuer has them in memory only, and hands out neither kind
// as the other.

// TokenLocator names one minted token, for all injections that ask for the same.
type TokenLocator struct {
	Project       string
	CredentialUID string
	// Request is a digest of what is asked for.
	Request string
}

func tokenLocator(c *Credential, request *credentialv1.TokenRequest) (TokenLocator, error) {
	encoded, err := marshal(request)
	if err != nil {
		return TokenLocator{}, err
	}
	sum := sha256.Sum256(encoded)
	return TokenLocator{Project: c.Name.Project, CredentialUID: c.UID, Request: hex.EncodeToString(sum[:16])}, nil
}

// Minted is what is stored of a token, without the token.
type Minted struct {
	// Version is the credential's that it was minted from, and Login the key of the
	// whole login, with the versions of all that the credential refers to.
	Version uint32
	Login   string
	// MintTime is when it was asked for; zero when there is no token now.
	MintTime time.Time
	// ExpireTime is zero for a token that does not end by itself.
	ExpireTime time.Time
	// State and Message are what the vendor answered last.
	State     ValueState
	Message   string
	StateTime time.Time
}

// usable says whether there is a token that has not ended.
func (m *Minted) usable(now time.Time) bool {
	return !m.MintTime.IsZero() && (m.ExpireTime.IsZero() || now.Before(m.ExpireTime))
}

// WantedToken is a token that at least one injection needs.
type WantedToken struct {
	Locator    TokenLocator
	Credential resourcename.Credential
	// Request is as the injection has it.
	Request *credentialv1.TokenRequest
	// Login is the key of the login to mint it with. It changes when the token has to
	// be minted anew: with the active version of the credential, or of one that it
	// refers to.
	Login string
	// Have is what is stored of it, nil when nothing is.
	Have *Minted
	// Current says whether Have was minted with that Login.
	Current bool
	// Revision is that of the list.
	Revision Revision
}

// MintedUpdate is what came of minting a token for injections.
type MintedUpdate struct {
	// Token is the new one; the zero value keeps the last one until it has ended.
	Token credential.Token
	// Version is the credential's that Token was minted from, Login the key of the
	// login, and MintTime when that began.
	Version  uint32
	Login    string
	MintTime time.Time
	// State is 0 when it is as before, with its message.
	State   ValueState
	Message string // why the state is not ValueOK; no secret material
}

// wantedTokensIn lists the tokens that the injections of a state need, each
// once, and the keys of the credentials and stored tokens that it depends on.
func wantedTokensIn(v view) ([]WantedToken, map[string]bool) {
	byLocator := make(map[TokenLocator]WantedToken)
	inputs := make(map[string]bool)
	v.scan(prefixIn, func(_ string, e entry) bool {
		inj, ok := e.value.(*Injection)
		if !ok {
			return true
		}
		for _, it := range inj.Items {
			if it.Mint == nil {
				continue
			}
			inputs[keyCredential(it.Mint.Credential)] = true
			c, _, ok := lookup[*Credential](v, keyCredential(it.Mint.Credential))
			if !ok {
				continue
			}
			l, err := tokenLocator(c, it.Mint.Request)
			if err != nil {
				continue // what was read from a record can be written
			}
			if _, ok := byLocator[l]; !ok {
				byLocator[l] = wantToken(v, c, l, it.Mint.Request, inputs)
			}
		}
		return true
	})
	return slices.SortedFunc(maps.Values(byLocator), func(a, b WantedToken) int {
		return cmp.Or(strings.Compare(a.Locator.CredentialUID, b.Locator.CredentialUID), strings.Compare(a.Locator.Request, b.Locator.Request))
	}), inputs
}

func wantToken(v view, c *Credential, l TokenLocator, request *credentialv1.TokenRequest, inputs map[string]bool) WantedToken {
	w := WantedToken{Locator: l, Credential: c.Name, Request: request, Revision: v.rev, Login: loginKeyIn(v, c, inputs)}
	inputs[keyMinted(l)] = true
	w.Have, _, _ = lookup[*Minted](v, keyMinted(l))
	w.Current = w.Have != nil && w.Have.Login == w.Login
	return w
}

// WantedTokens lists the tokens that injections need, each once, and a channel
// that is closed when the list may have changed. It is for the Issuer.
func (s *Store) WantedTokens() ([]WantedToken, <-chan struct{}) {
	return s.tokens.current()
}

// TokenLogin returns what is needed to mint a wanted token: the login, the
// version of the credential, and the request. That the payloads leave for the
// vendor is on record.
func (s *Store) TokenLogin(ctx context.Context, w WantedToken) (credential.Login, uint32, credential.TokenRequest, error) {
	fail := func(err error) (credential.Login, uint32, credential.TokenRequest, error) {
		return credential.Login{}, 0, credential.TokenRequest{}, err
	}
	c, login, err := s.login(w.Credential, 0)
	if err != nil {
		return fail(err)
	}
	request, err := credential.NewTokenRequest(c.Kind, w.Request)
	if err != nil {
		return fail(invalidFrom(err, ""))
	}
	e := AuditEntry{
		Permission: CredentialsMint, Resource: w.Credential.String(), Allowed: true,
		Payloads: versionsOf(login), Minted: w.Credential.Version(c.ActiveVersion).String() + " " + request.Kind(),
	}
	if err := s.record(AsSystem(ctx), e); err != nil {
		return fail(err)
	}
	return login, c.ActiveVersion, request, nil
}

// PutMinted commits what came of minting, if it differs from what is stored, and
// returns the revision, 0 when nothing differs. The same token again is no
// difference. What is stored of a token that has ended goes. A token is dropped
// when its credential is gone or would log in otherwise now: the version that it
// was made from may have been destroyed while the vendor took its time.
func (s *Store) PutMinted(ctx context.Context, w WantedToken, u MintedUpdate) (Revision, error) {
	token := u.Token.Message()
	if size := proto.Size(token); size > MaxSecretValue {
		return 0, precondition(ReasonMintRefused, w.Credential, "was answered with a token of %d bytes; at most %d can be delivered", size, MaxSecretValue)
	}
	errSame := errors.New("unchanged")
	rev, err := s.mutate(ctx, false, func(v view) (*plan, error) {
		c, _, ok := lookup[*Credential](v, keyCredential(w.Credential))
		if !ok || c.UID != w.Locator.CredentialUID {
			return nil, errSame
		}
		key := keyMinted(w.Locator)
		rec := &recordv1.Minted{CredentialUid: c.UID, Request: w.Request}
		p := &plan{}
		if token == nil {
			p.require(Present, keyCredential(w.Credential), 0)
		} else if !requireLogin(v, p, c, u.Login) {
			return nil, errSame
		}
		if e, ok := v.get(key); ok {
			var err error
			if rec, err = s.openMinted(key, e.sealed); err != nil {
				return nil, err
			}
			p.require(AtRevision, key, e.rev)
		} else {
			p.require(Absent, key, 0)
		}
		if !u.applyTo(rec, token, time.Now()) {
			return nil, errSame
		}
		return p, s.put(p, key, rec)
	})
	if errors.Is(err, errSame) {
		return 0, nil
	}
	return rev, err
}

// requireLogin asserts in a plan that the credential logs in as is said; false when
// it does not even now.
func requireLogin(v view, p *plan, c *Credential, login string) bool {
	inputs := make(map[string]bool)
	if loginKeyIn(v, c, inputs) != login {
		return false
	}
	for key := range inputs {
		if e, ok := v.get(key); ok {
			p.require(AtRevision, key, e.rev)
		} else {
			p.require(Absent, key, 0)
		}
	}
	return true
}

// applyTo changes what is stored, and says whether anything changed.
func (u MintedUpdate) applyTo(rec *recordv1.Minted, token *credentialv1.Token, now time.Time) (changed bool) {
	if token != nil && (rec.Login != u.Login || !proto.Equal(rec.GetToken(), token)) {
		rec.Token, rec.Version, rec.Login, rec.MintTime, changed = token, u.Version, u.Login, stamp(u.MintTime), true
	}
	if end := rec.GetToken().GetExpireTime(); end != nil && !now.Before(end.AsTime()) {
		rec.Token, rec.MintTime, changed = nil, nil, true
	}
	if u.State != 0 && (ValueState(rec.GetState()) != u.State || rec.GetMessage() != u.Message) {
		rec.State, rec.Message, rec.StateTime, changed = uint32(u.State), u.Message, stamp(now), true
	}
	return changed
}

func (s *Store) openMinted(key string, sealed []byte) (*recordv1.Minted, error) {
	plain, err := s.cfg.Sealer.Open(Place{Key: key}, sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	rec := &recordv1.Minted{}
	return rec, proto.Unmarshal(plain, rec)
}

// decodeMinted keeps what is not secret.
func decodeMinted(plain []byte) (*Minted, error) {
	var m recordv1.Minted
	if err := proto.Unmarshal(plain, &m); err != nil {
		return nil, err
	}
	return &Minted{
		Version: m.GetVersion(), Login: m.GetLogin(), MintTime: unstamp(m.GetMintTime()), ExpireTime: unstamp(m.GetToken().GetExpireTime()),
		State: ValueState(m.GetState()), Message: m.GetMessage(), StateTime: unstamp(m.GetStateTime()),
	}, nil
}

// removeMinted adds the removal of a credential's tokens to a plan: of those that
// were made from a version that goes. A token may be a copy of what the version
// holds, as a registry's password, and has no end then.
func removeMinted(v view, p *plan, c *Credential, goes func(version uint32) bool) {
	v.scan(prefixMintedOf(c.Name.Project, c.UID), func(key string, e entry) bool {
		if m, ok := e.value.(*Minted); !ok || goes(m.Version) {
			p.require(AtRevision, key, e.rev)
			p.remove(key)
		}
		return true
	})
}

func allVersions(uint32) bool { return true }

// forgetTokens lets go of the tokens that were minted for calls with versions
// that are no longer active.
func (s *Store) forgetTokens(old, now *Credential) {
	switch {
	case s.cfg.Issuer == nil || old == nil:
	case now == nil || now.UID != old.UID:
		s.cfg.Issuer.Forget(old.UID, 0)
	case now.ActiveVersion != old.ActiveVersion:
		s.cfg.Issuer.Forget(old.UID, now.ActiveVersion)
	}
}

// forgetAllTokens does the same between two states.
func (s *Store) forgetAllTokens(before, after view) {
	if s.cfg.Issuer == nil {
		return
	}
	before.scan(prefixIn, func(key string, e entry) bool {
		if old, ok := e.value.(*Credential); ok {
			now, _, _ := lookup[*Credential](after, key)
			s.forgetTokens(old, now)
		}
		return true
	})
}

// settleMints checks what the items of an injection want minted, and puts the
// requests into the form in which they are stored. Items that another injection
// shares are not changed.
func settleMints(v view, inj *Injection, bad *invalid) error {
	copied := false
	for i := range inj.Items {
		src := inj.Items[i].Mint
		if src == nil {
			continue
		}
		c, _, ok := lookup[*Credential](v, keyCredential(src.Credential))
		if !ok {
			continue // told as not found
		}
		at := fmt.Sprintf("injection.items[%d].mint.", i)
		request, err := credential.NewTokenRequest(c.Kind, src.Request)
		if err != nil {
			if _, ok := errors.AsType[*credential.ValidationError](err); !ok {
				return err
			}
			bad.addViolations(err, func(field string) string { return at + field })
			continue
		}
		if err := request.ValidateField(src.Field); err != nil {
			bad.add(at+"field", "%s", err)
		}
		if !copied {
			inj.Items, copied = slices.Clone(inj.Items), true
		}
		inj.Items[i].Mint = &MintSource{Credential: src.Credential, Request: request.Message(), Field: src.Field}
	}
	return nil
}

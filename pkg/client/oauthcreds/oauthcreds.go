// Package oauthcreds owns turning bearer tokens that credstore mints into a token
// source of golang.org/x/oauth2, which Google's libraries and many others take.
// It keeps nothing: package tokens does.
package oauthcreds

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client/tokens"
)

// renewal is how long before its end x/oauth2 takes a token for ended
// (oauth2.Token.Valid).
const renewal = 10 * time.Second

// patience bounds how long a caller waits that cannot say so itself: an
// oauth2.TokenSource gets no context.
const patience = time.Minute

// New returns a token source for the request, which must be one that is answered
// with a bearer token, as gcpAccessToken, gcpIdToken, ibmIamToken or
// azureAccessToken; nil means what the credential makes by itself. ctx ends the
// waits of its callers; the caller closes s.
//
// Libraries keep tokens until they expire; these say that they are due for renewal
// at once, so that they ask for each request, which costs a look into memory, and
// follow a change of the credential without a restart. oauth2.NewClient works.
func New(ctx context.Context, s *tokens.Source, request *credentialv1.TokenRequest) oauth2.TokenSource {
	return source{ctx, s, request}
}

type source struct {
	ctx     context.Context //nolint:containedctx // the interface has no place for one
	source  *tokens.Source
	request *credentialv1.TokenRequest
}

// Token implements oauth2.TokenSource.
func (s source) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	token, err := s.source.Token(ctx, s.request)
	if err != nil {
		return nil, err
	}
	bearer := token.GetBearer()
	if bearer == nil {
		return nil, errors.New("the request is not answered with a bearer token")
	}
	out := &oauth2.Token{AccessToken: bearer.GetToken(), TokenType: bearer.GetType()}
	out.Expiry = time.Now().Add(renewal)
	if end := token.GetExpireTime(); end != nil && end.AsTime().Before(out.Expiry) {
		out.Expiry = end.AsTime()
	}
	return out, nil
}

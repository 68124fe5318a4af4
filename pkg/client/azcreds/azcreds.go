// Package azcreds owns turning Azure tokens that credstore mints into the token
// credential of the Azure SDK for Go. It calls no Azure service and keeps
// nothing: package tokens does.
package azcreds

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client/tokens"
)

// New returns a token credential for clients of the Azure SDK. The source is that
// of a credential of one of the Azure kinds; the caller closes it when the
// clients are of no use any more.
//
// The SDK keeps tokens until they are due for renewal; these say that they are at
// once. It then asks at most every 30 seconds, which costs a look into memory,
// and follows a change of the credential without a restart.
func New(s *tokens.Source) azcore.TokenCredential { return credential{s} }

type credential struct{ source *tokens.Source }

// GetToken implements azcore.TokenCredential. It takes one scope. The tenant is
// the credential's, and claims of a challenge cannot be passed on.
func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(o.Scopes) != 1 {
		return azcore.AccessToken{}, errors.New("credstore mints a token for exactly one scope")
	}
	if o.Claims != "" {
		return azcore.AccessToken{}, errors.New("the service asks for further claims, which an application's token cannot have")
	}
	token, err := c.source.Token(ctx, &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AzureAccessToken_{
		AzureAccessToken: &credentialv1.TokenRequest_AzureAccessToken{Scope: o.Scopes[0]},
	}})
	if err != nil {
		return azcore.AccessToken{}, err
	}
	bearer := token.GetBearer()
	if bearer == nil {
		return azcore.AccessToken{}, errors.New("the token is not one of Azure")
	}
	return azcore.AccessToken{Token: bearer.GetToken(), ExpiresOn: token.GetExpireTime().AsTime(), RefreshOn: time.Now()}, nil
}

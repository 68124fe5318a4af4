// Package grpccreds owns sending bearer tokens that credstore mints with gRPC
// calls. It keeps nothing: package tokens does.
package grpccreds

import (
	"context"

	"google.golang.org/grpc/credentials"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client/tokens"
)

// New returns credentials for grpc.WithPerRPCCredentials. The request must be one
// that is answered with a bearer token, as gcpIdToken; nil means what the
// credential makes by itself. They are sent over TLS only. The caller closes s.
func New(s *tokens.Source, request *credentialv1.TokenRequest) credentials.PerRPCCredentials {
	return perCall{s, request}
}

type perCall struct {
	source  *tokens.Source
	request *credentialv1.TokenRequest
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (c perCall) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		return nil, err
	}
	authorization, err := c.source.Authorization(ctx, c.request)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": authorization}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (c perCall) RequireTransportSecurity() bool { return true }

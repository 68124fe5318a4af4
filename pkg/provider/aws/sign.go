package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/credstore/credstore/pkg/credential"
)

// What a GetCallerIdentity request says, in its query or its body.
const (
	service      = "sts"
	identityForm = "Action=GetCallerIdentity&Version=2011-06-15"
)

// ServerIDHeader is what Vault's AWS method asks for, so that a request that was
// signed for one server cannot be shown to another.
// Source: https://developer.hashicorp.com/vault/api-docs/auth/aws (iam_request_headers).
const ServerIDHeader = "X-Vault-AWS-IAM-Server-ID"

// SignedRequest is a GetCallerIdentity request that somebody else sends to STS, to
// see by the answer who signed it. Whoever has it can show it for 15 minutes: it
// prints as its URL only.
type SignedRequest struct {
	// Method and URL are Vault's iam_http_request_method and iam_request_url.
	Method, URL string
	// Body is iam_request_body, before it is encoded in base64.
	Body []byte
	// Headers are iam_request_headers; among them Authorization, and
	// X-Amz-Security-Token for a session.
	Headers http.Header
}

// String returns the method and the URL, which hold no secret.
func (r SignedRequest) String() string { return r.Method + " " + r.URL + " (signed)" }

// Format writes what String returns, whatever the verb and its flags.
func (r SignedRequest) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, r.String()) // a formatter cannot report an error
}

// LogValue returns what String does.
func (r SignedRequest) LogValue() slog.Value { return slog.StringValue(r.String()) }

// SignIdentity signs a GetCallerIdentity request as a login, after what it takes
// to get there (see [Provider.Verify]). serverID becomes the value of
// [ServerIDHeader] unless it is empty. The request is for the endpoint that Vault
// sends it to unless told otherwise, https://sts.amazonaws.com, when the login's
// region is us-east-1, and for the region's own endpoint otherwise: Vault's mount
// then has to have it as its sts_endpoint, or use_sts_region_from_client. Its error
// is as for Verify.
func (p *Provider) SignIdentity(ctx context.Context, login credential.Login, serverID string) (SignedRequest, error) {
	const op = "sign"
	s, err := p.open(ctx, login)
	if err != nil {
		return SignedRequest{}, named(op, err)
	}
	endpoint, err := endpointOf(ctx, s.region, s.region == "us-east-1")
	if err != nil {
		return SignedRequest{}, named(op, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(identityForm))
	if err != nil {
		return SignedRequest{}, fmt.Errorf("make the request: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if serverID != "" {
		request.Header.Set(ServerIDHeader, serverID)
	}
	hash := sha256.Sum256([]byte(identityForm))
	if err := v4.NewSigner().SignHTTP(ctx, s.keys, request, hex.EncodeToString(hash[:]), service, s.region, p.cfg.Now()); err != nil {
		return SignedRequest{}, fmt.Errorf("sign the request: %w", err)
	}
	return SignedRequest{Method: request.Method, URL: request.URL.String(), Body: []byte(identityForm), Headers: request.Header}, nil
}

// presign returns the URL of a GetCallerIdentity request with its signature, which
// binds headers that the sender has to add.
func (p *Provider) presign(ctx context.Context, s session, headers http.Header, expires string, now time.Time) (string, error) {
	endpoint, err := endpointOf(ctx, s.region, false)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"?"+identityForm+"&X-Amz-Expires="+expires, nil)
	if err != nil {
		return "", fmt.Errorf("make the request: %w", err)
	}
	for name, values := range headers {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	empty := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, s.keys, request, hex.EncodeToString(empty[:]), service, s.region, now)
	if err != nil {
		return "", fmt.Errorf("sign the request: %w", err)
	}
	return signed, nil
}

// endpointOf returns the public STS endpoint of a region, with a slash at its end;
// the global one for us-east-1 if asked.
func endpointOf(ctx context.Context, region string, global bool) (string, error) {
	found, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{
		Region: awssdk.String(region), UseGlobalEndpoint: awssdk.Bool(global),
	}.WithDefaults())
	if err != nil {
		return "", unsupported("", "AWS's client knows no STS endpoint of region "+region)
	}
	u := url.URL{Scheme: found.URI.Scheme, Host: found.URI.Host, Path: "/"}
	return u.String(), nil
}

// Package httpcreds owns sending bearer tokens that credstore mints with HTTP
// requests. It keeps nothing: package tokens does.
package httpcreds

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client/tokens"
)

// New returns a round tripper that adds an Authorization header to requests for
// one host, "api.example.com" or "api.example.com:8443", and refuses others: a
// redirect must not carry the token elsewhere. Requests must be https. The
// request for a token must be one that is answered with a bearer token; nil means
// what the credential makes by itself. next is http.DefaultTransport when nil.
// The caller closes s.
func New(s *tokens.Source, request *credentialv1.TokenRequest, host string, next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return roundTripper{s, request, host, next}
}

type roundTripper struct {
	source  *tokens.Source
	request *credentialv1.TokenRequest
	host    string
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	authorization, err := t.authorization(r)
	if err != nil {
		// A round tripper closes the body, also when it fails.
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, err
	}
	out := r.Clone(r.Context())
	out.Header.Set("Authorization", authorization)
	return t.next.RoundTrip(out)
}

// CloseIdleConnections does what http.Client.CloseIdleConnections asks for.
func (t roundTripper) CloseIdleConnections() {
	if next, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

func (t roundTripper) authorization(r *http.Request) (string, error) {
	if r.URL.Scheme != "https" || !strings.EqualFold(r.URL.Host, t.host) {
		return "", fmt.Errorf("the token is for https://%s only", t.host)
	}
	return t.source.Authorization(r.Context(), t.request)
}

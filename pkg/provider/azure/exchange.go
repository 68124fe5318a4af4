package azure

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// exchange is the transport of one request for a token. It keeps the last answer,
// to judge one that was no token: the SDK's errors are texts with everything in
// them.
type exchange struct {
	client *http.Client
	// hosts are those that may be asked, with a port where it is not 443.
	hosts []string

	failed error // why there was no answer
	answer provider.Answer
}

// errHost says that the SDK would ask a host that is not the authority.
var errHost = errors.New("not the authority")

// Do implements policy.Transporter.
func (e *exchange) Do(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || !slices.Contains(e.hosts, strings.ToLower(r.URL.Host)) {
		e.failed = errHost
		return nil, e.failed
	}
	e.answer, e.failed = provider.Do(e.client, r)
	if e.failed != nil {
		return nil, e.failed
	}
	return &http.Response{
		StatusCode: e.answer.Status, Header: e.answer.Header, Request: r, Body: io.NopCloser(bytes.NewReader(e.answer.Body)),
	}, nil
}

// why returns the error of a request that gave no token.
func (e *exchange) why(ctx context.Context, op string, secrets []string) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(e.failed, errHost):
		return &provider.Error{
			Kind: provider.ErrRefused, Op: op,
			Text: "the Azure SDK would ask another host than the credential's authority: unset AZURE_REGIONAL_AUTHORITY_NAME and MSAL_FORCE_REGION in this server's environment",
		}
	case e.failed != nil:
		return provider.NetworkError(op, e.failed)
	case e.answer.Status >= http.StatusMultipleChoices:
		return judge(op, e.answer, secrets)
	}
	return notUnderstood(op)
}

func notUnderstood(op string) error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Text: "the answer is none that Azure's documentation describes"}
}

// hostOf returns the host of a URL, with its port if it names one.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

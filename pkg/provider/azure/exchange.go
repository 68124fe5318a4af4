package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 1 << 20

// exchange is the transport of one request for a token. It keeps the answer that
// was no token: the SDK's errors are texts with everything in them.
type exchange struct {
	client *http.Client
	// hosts are those that may be asked, with a port where it is not 443.
	hosts []string

	failed error // why there was no answer
	status int
	body   []byte
	header http.Header
}

// errHost says that the SDK would ask a host that is not the authority.
var errHost = errors.New("not the authority")

// Do implements policy.Transporter.
func (e *exchange) Do(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || !slices.Contains(e.hosts, strings.ToLower(r.URL.Host)) {
		e.failed = errHost
		return nil, e.failed
	}
	resp, err := e.client.Do(r) //nolint:gosec // to the known authority, as checked above, through the guard
	if err != nil {
		e.failed = err
		return nil, err
	}
	body, err := readAll(resp)
	if err != nil {
		e.failed = err
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if resp.StatusCode >= http.StatusMultipleChoices {
		e.status, e.body, e.header = resp.StatusCode, body, resp.Header
	}
	return resp, nil
}

// errTooLarge says that an answer goes on beyond maxAnswer.
var errTooLarge = errors.New("answer is too large")

// readAll reads a body to its end and closes it.
func readAll(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	err = errors.Join(err, resp.Body.Close())
	if err == nil && len(body) > maxAnswer {
		err = errTooLarge
	}
	return body, err
}

// got is an answer, read whole.
type got struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request that is not the SDK's.
func do(client *http.Client, r *http.Request) (got, error) {
	resp, err := client.Do(r)
	if err != nil {
		return got{}, err
	}
	body, err := readAll(resp)
	return got{resp.StatusCode, resp.Header, body}, err
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
		return unanswered(op, e.failed)
	case e.status != 0:
		return judge(op, e.status, e.header, e.body, secrets)
	}
	return notUnderstood(op)
}

// unanswered returns why there was no answer.
func unanswered(op string, err error) error {
	if errors.Is(err, errTooLarge) {
		return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Text: fmt.Sprintf("the answer is larger than %d bytes", maxAnswer)}
	}
	return provider.NetworkError(op, err)
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

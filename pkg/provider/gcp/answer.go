package gcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// call is one request to Google or to where a subject token comes from.
type call struct {
	// op names it in errors.
	op string
	// secrets are blotted out of what the answer says.
	secrets []string
	client  *http.Client
}

// do sends the request and returns the body of an answer that is no error. Its
// error is a *provider.Error or the context's.
func (k call) do(r *http.Request) ([]byte, error) {
	a, err := k.send(r)
	if err != nil {
		return nil, err
	}
	if a.Status >= http.StatusMultipleChoices {
		return nil, k.judge(a)
	}
	return a.Body, nil
}

// send sends the request and reads the answer, whatever it says. Its error is as
// for do.
func (k call) send(r *http.Request) (provider.Answer, error) {
	return provider.Ask(k.client, r, k.op)
}

// decode reads an answer, or says that it is not Google's.
func (k call) decode(body []byte, into any) error {
	if json.Unmarshal(body, into) != nil {
		return k.strange()
	}
	return nil
}

// strange is the error for an answer that Google does not give.
func (k call) strange() error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: k.op, Status: http.StatusOK, Text: "the answer is not Google's"}
}

// complaint is what Google says of a request that failed.
type complaint struct {
	// code is OAuth's, as "invalid_grant", or google.rpc.Code's, as
	// "PERMISSION_DENIED".
	code string
	text string
	// reason and consumer are those of google.rpc.ErrorInfo: "API_KEY_INVALID",
	// "projects/123".
	reason, consumer string
}

// parseComplaint reads either form: that of OAuth (RFC 6749, section 5.2), or
// that of Google's APIs (google.rpc.Status in JSON).
func parseComplaint(body []byte) (complaint, bool) {
	var either struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
	}
	if json.Unmarshal(body, &either) != nil || len(either.Error) == 0 {
		return complaint{}, false
	}
	var c complaint
	if json.Unmarshal(either.Error, &c.code) == nil {
		c.text = strings.TrimSuffix(c.code+": "+either.Description, ": ")
		return c, true
	}
	var status struct {
		Message string `json:"message"`
		Status  string `json:"status"`
		Details []struct {
			Reason   string            `json:"reason"`
			Metadata map[string]string `json:"metadata"`
		} `json:"details"`
	}
	// Details of other types have other fields, which need not be strings.
	if err := json.Unmarshal(either.Error, &status); err != nil && status.Message == "" {
		return complaint{}, false
	}
	c.code, c.text = status.Status, status.Message
	for _, d := range status.Details {
		if d.Reason != "" {
			c.reason, c.consumer = d.Reason, d.Metadata["consumer"]
			break
		}
	}
	return c, true
}

// overloads are the codes and reasons of a service that will answer later.
var overloads = []string{
	"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED",
	"RATE_LIMIT_EXCEEDED", "RESOURCE_QUOTA_EXCEEDED",
	"temporarily_unavailable", "internal_failure", "server_error",
}

// hints follow Google's words where those do not say what to do.
var hints = []struct{ words, hint string }{
	{"Invalid JWT Signature", "the key was deleted or disabled, or it is another account's"},
	{"account not found", "the service account was deleted or disabled"},
	{"The OAuth client was disabled", "the service account is disabled"},
	{"The OAuth client was deleted", "the service account was deleted"},
	{"iam.serviceAccounts.getAccessToken", "grant roles/iam.serviceAccountTokenCreator on that account to the one before it, or roles/iam.workloadIdentityUser to a federated identity"},
	{"iam.serviceAccounts.getOpenIdToken", "grant roles/iam.serviceAccountTokenCreator on that account to the one before it, or roles/iam.workloadIdentityUser to a federated identity"},
	{"iam.serviceAccounts.implicitDelegation", "grant roles/iam.serviceAccountTokenCreator on each of the delegates to the one before it"},
}

// wrongClock is what Google says of an assertion from another time.
const wrongClock = "reasonable timeframe"

// judge returns which answer it is.
func (k call) judge(a provider.Answer) *provider.Error {
	e := &provider.Error{Kind: provider.ErrRefused, Op: k.op, Status: a.Status}
	c, ok := parseComplaint(a.Body)
	e.Text = provider.Clean(c.text, k.secrets...)
	switch code := a.Status; {
	case code < http.StatusBadRequest:
		e.Kind, e.Text = provider.ErrUnavailable, "the answer is a redirect, which is not followed"
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500,
		slices.Contains(overloads, c.code), slices.Contains(overloads, c.reason):
		e.Kind, e.RetryAfter = provider.ErrUnavailable, a.RetryAfter()
	case !ok:
		e.Kind, e.Text = provider.ErrUnavailable, "the answer is not Google's"
	case strings.Contains(c.text, wrongClock):
		e.Kind = provider.ErrUnavailable
		e.Text += " (this server's clock is wrong)"
	}
	for _, h := range hints {
		if strings.Contains(c.text, h.words) {
			e.Text += " (" + h.hint + ")"
			break
		}
	}
	return e
}

// jsonRequest makes a POST of a message in JSON.
func jsonRequest(ctx context.Context, url string, message any) (*http.Request, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the endpoint is no URL")
	}
	r.Header.Set("Content-Type", "application/json")
	return r, nil
}

// unusable is the error for a stored payload that no attempt can work with.
func unusable(op, text string) error {
	return &provider.Error{Kind: provider.ErrRefused, Op: op, Text: text}
}

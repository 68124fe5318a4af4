package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	// maxAnswer bounds a secret with its wrapping, in bytes.
	maxAnswer = 4 << 20
	// maxComplaint bounds the body of an answer that is an error.
	maxComplaint = 64 << 10
)

// answers is the transport that looks at each answer before Vault's client does:
// the client drops the status of some and the headers of all. It leaves what it
// found in the request's context.
type answers struct{ next http.RoundTripper }

// found is what the transport saw of the answer to one request.
type found struct{ err *provider.Error }

type foundKey struct{}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
		return resp, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxComplaint))
	// A body that goes on would be read to its end otherwise.
	err = errors.Join(err, resp.Body.Close())
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if f, ok := r.Context().Value(foundKey{}).(*found); ok {
		f.err = judge(resp, body)
	}
	return resp, nil
}

// complaint is the body of an answer that is an error. A deleted version comes
// with its metadata.
type complaint struct {
	Errors []string `json:"errors"`
	Data   struct {
		Metadata *versionMetadata `json:"metadata"`
	} `json:"data"`
}

type versionMetadata struct {
	Version      json.Number `json:"version"`
	DeletionTime string      `json:"deletion_time"`
	Destroyed    bool        `json:"destroyed"`
}

// judge returns which answer it is.
func judge(resp *http.Response, body []byte) *provider.Error {
	e := &provider.Error{Kind: provider.ErrRefused, Status: resp.StatusCode}
	var c complaint
	if err := json.Unmarshal(body, &c); err != nil {
		e.Text = "the answer is not Vault's"
	} else {
		e.Text = words(c.Errors)
	}
	switch code := resp.StatusCode; {
	case code < 400:
		e.Kind = provider.ErrUnavailable
		e.Text = "the answer is a redirect, which is not followed: name the active node, or a load balancer"
	case code == http.StatusNotFound:
		e.Kind = provider.ErrMissing
		if m := c.Data.Metadata; m != nil {
			m.judge(e)
		}
	case code == http.StatusTooManyRequests, code == http.StatusPreconditionFailed, code >= 500:
		// 412: a replica that is behind; 472 and 473, of health checks alone, do not
		// occur here.
		e.Kind = provider.ErrUnavailable
		e.RetryAfter = retryAfter(resp.Header)
	}
	return e
}

func (m *versionMetadata) judge(e *provider.Error) {
	switch {
	case m.Destroyed:
		e.Kind, e.Text = provider.ErrDestroyed, fmt.Sprintf("version %s was destroyed", m.Version)
	case m.DeletionTime != "":
		e.Kind = provider.ErrDeleted
		e.Text = provider.Clean(fmt.Sprintf("version %s was deleted at %s", m.Version, m.DeletionTime))
	}
}

// many finds what Vault puts before and between several errors.
var many = regexp.MustCompile(`\d+ errors? occurred:|\t\* `)

// tokens finds what looks like one of Vault's tokens.
var tokens = regexp.MustCompile(`\b(hv[sbr]|[sbr])\.[A-Za-z0-9_-]{8,}`)

func words(all []string) string {
	text := strings.Join(all, "; ")
	parts := make([]string, 0, 4)
	for _, p := range many.Split(text, -1) {
		if p = strings.TrimSpace(p); p != "" {
			parts = append(parts, p)
		}
	}
	return provider.Clean(tokens.ReplaceAllString(strings.Join(parts, "; "), "(redacted)"))
}

// retryAfter reads the header in either of its forms; 0 when it is absent.
func retryAfter(h http.Header) time.Duration {
	const most = time.Hour
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 16); err == nil {
		return min(time.Duration(n)*time.Second, most)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(0, time.Until(at)), most)
	}
	return 0
}

// ask makes one request. Its error is a *provider.Error or the context's. The
// lease is the one whose token is sent, nil for none.
func (s *Session) ask(ctx context.Context, op string, l *lease, request func(context.Context) (*api.Secret, error)) (*api.Secret, error) {
	f := &found{}
	answer, err := request(context.WithValue(ctx, foundKey{}, f))
	switch {
	case f.err != nil:
		f.err.Op = op
		f.err.Text = provider.Clean(f.err.Text, s.secrets(l)...)
		return nil, f.err
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: op, Text: fmt.Sprintf("the answer has more than %d bytes", maxAnswer)}
	}
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, shape := errors.AsType[*json.UnmarshalTypeError](err)
	if syntax || shape {
		return nil, strange(op)
	}
	return nil, provider.NetworkError(op, err)
}

// secrets lists what no message may contain.
func (s *Session) secrets(l *lease) []string {
	var all []string
	if l != nil {
		all = append(all, l.client.Token())
	}
	switch m := s.login.Payload.Message().GetVault().GetMethod().(type) {
	case *credentialv1.Vault_Token:
		all = append(all, m.Token)
	case *credentialv1.Vault_AppRole_:
		all = append(all, m.AppRole.GetSecretId())
	case *credentialv1.Vault_Userpass_:
		all = append(all, m.Userpass.GetPassword())
	case *credentialv1.Vault_Jwt_:
		all = append(all, m.Jwt.GetJwt())
	}
	return all
}

// strange is the error for an answer that Vault does not give.
func strange(op string) error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Status: http.StatusOK, Text: "the answer is not Vault's"}
}

package webhook

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// do makes a request. No answer is an error; any answer is none.
func (s *session) do(ctx context.Context, method string, body io.Reader) (provider.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.target.String(), body)
	if err != nil {
		return provider.Answer{}, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: "the URL cannot be used"}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return provider.Ask(s.client, req, "verify")
}

func (s *session) clean(text string) string { return provider.Clean(text, s.secrets...) }

func (s *session) fail(kind error, a provider.Answer, text string) *provider.Error {
	if text == "" {
		text = strings.ToLower(http.StatusText(a.Status))
	}
	return &provider.Error{Kind: kind, Op: "verify", Status: a.Status, Text: s.clean(text), RetryAfter: a.RetryAfter()}
}

// unavailable is the error of an answer that is none to what was asked. Its words
// are not repeated: they may be a page of HTML.
func (s *session) unavailable(a provider.Answer, text string) *provider.Error {
	if a.Status == http.StatusTooManyRequests || a.Status >= http.StatusInternalServerError {
		text = ""
	}
	return s.fail(provider.ErrUnavailable, a, text)
}

func unsupported(status int, text string) *provider.Error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: "verify", Status: status, Text: provider.Clean(text)}
}

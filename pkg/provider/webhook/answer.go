package webhook

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// maxBody is the most bytes of an answer that are read.
const maxBody = 64 << 10

// answer is what a host said, with its beginning read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request. No answer is an error; any answer is none.
func (s *session) do(ctx context.Context, method string, body io.Reader) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.target.String(), body)
	if err != nil {
		return answer{}, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: "the URL cannot be used"}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, noAnswer(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return answer{}, noAnswer(ctx, err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: text}, nil
}

func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return provider.NetworkError("verify", err)
}

func (s *session) clean(text string) string { return provider.Clean(text, s.secrets...) }

func (s *session) fail(kind error, a answer, text string) *provider.Error {
	if text == "" {
		text = strings.ToLower(http.StatusText(a.status))
	}
	e := &provider.Error{Kind: kind, Op: "verify", Status: a.status, Text: s.clean(text)}
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = min(time.Duration(seconds)*time.Second, time.Hour)
	}
	return e
}

// unavailable is the error of an answer that is none to what was asked. Its words
// are not repeated: they may be a page of HTML.
func (s *session) unavailable(a answer, text string) *provider.Error {
	if a.status == http.StatusTooManyRequests || a.status >= http.StatusInternalServerError {
		text = ""
	}
	return s.fail(provider.ErrUnavailable, a, text)
}

func unsupported(status int, text string) *provider.Error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: "verify", Status: status, Text: provider.Clean(text)}
}

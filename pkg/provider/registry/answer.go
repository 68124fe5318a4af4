package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// maxBody is the most bytes of an answer that are read. Tokens of large scopes
// have some kilobytes.
const maxBody = 1 << 20

// answer is what a server said, with its beginning read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request. No answer is an error; any answer is none.
func (s *session) do(req *http.Request, op string) (answer, error) {
	resp, err := s.client.Do(req)
	if ctxErr := req.Context().Err(); ctxErr != nil && err != nil {
		return answer{}, ctxErr
	}
	if err != nil {
		return answer{}, provider.NetworkError(op, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if ctxErr := req.Context().Err(); ctxErr != nil && err != nil {
		return answer{}, ctxErr
	}
	if err != nil {
		return answer{}, provider.NetworkError(op, err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

func basic(who account) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(who.username+":"+who.password))
}

// refused is the error of an answer that says no.
func (s *session) refused(op string, a answer) *provider.Error {
	text := words(a.body)
	if text == "" {
		text = "the login is not accepted"
	}
	return &provider.Error{Kind: provider.ErrRefused, Op: op, Status: a.status, Text: s.clean(text)}
}

// unavailable is the error of an answer that is none to what was asked.
func (s *session) unavailable(op string, a answer, text string) *provider.Error {
	switch {
	case a.status == http.StatusTooManyRequests || a.status >= http.StatusInternalServerError:
		text = words(a.body)
		if text == "" {
			text = strings.ToLower(http.StatusText(a.status))
		}
	case a.status >= 300 && a.status < 400:
		text = fmt.Sprintf("it redirects elsewhere, which is not followed; %s", text)
	}
	return &provider.Error{
		Kind: provider.ErrUnavailable, Op: op, Status: a.status, Text: s.clean(text), RetryAfter: retryAfter(a.header),
	}
}

// clean keeps the login out of a server's words.
func (s *session) clean(text string) string {
	secrets := []string{s.account.password, s.account.identity}
	if s.account.password != "" {
		secrets = append(secrets, strings.TrimPrefix(basic(s.account), "Basic "))
	}
	return provider.Clean(text, secrets...)
}

// words returns what a body says for people: the errors of the distribution API,
// those of OAuth 2, and what Docker Hub and others have in their place.
func words(body []byte) string {
	var known struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Error       any    `json:"error"`
		Description string `json:"error_description"`
		Details     string `json:"details"`
		Message     string `json:"message"`
	}
	if err := json.Unmarshal(body, &known); err != nil {
		return ""
	}
	var parts []string
	for _, e := range known.Errors {
		parts = append(parts, strings.ToLower(e.Code), e.Message)
	}
	if code, ok := known.Error.(string); ok {
		parts = append(parts, code)
	}
	parts = append(parts, known.Description, known.Details, known.Message)
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, ": ")
}

// retryAfter reads the seconds of a Retry-After header, an hour at most.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}

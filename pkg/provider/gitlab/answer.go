package gitlab

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// session is one conversation with a server.
type session struct {
	client                *http.Client
	base, token, username string
}

func (s *session) byHeader(req *http.Request)   { req.Header.Set("Private-Token", s.token) }
func (s *session) byPassword(req *http.Request) { req.SetBasicAuth(s.username, s.token) }

// get makes a request. No answer is an error; any answer is none.
func (s *session) get(ctx context.Context, path string, authenticate func(*http.Request)) (provider.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return provider.Answer{}, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: "the URL cannot be used"}
	}
	authenticate(req)
	return provider.Ask(s.client, req, "verify")
}

func (s *session) clean(text string) string {
	return provider.Clean(text, s.token, base64.StdEncoding.EncodeToString([]byte(s.username+":"+s.token)))
}

// fail is the error of an answer, with GitLab's words.
func (s *session) fail(kind error, a provider.Answer) *provider.Error {
	text := words(a.Body)
	if text == "" {
		text = strings.ToLower(http.StatusText(a.Status))
	}
	return &provider.Error{Kind: kind, Op: "verify", Status: a.Status, Text: s.clean(text), RetryAfter: a.RetryAfter()}
}

// unavailable is the error of an answer that is none to what was asked.
func (s *session) unavailable(a provider.Answer) *provider.Error {
	if a.Status == http.StatusTooManyRequests || a.Status >= http.StatusInternalServerError {
		return s.fail(provider.ErrUnavailable, a)
	}
	if a.Status >= 300 && a.Status < 400 {
		return &provider.Error{
			Kind: provider.ErrUnavailable, Op: "verify", Status: a.Status,
			Text: "the server redirects elsewhere, which is not followed: is its address another, or does it ask for another login first?",
		}
	}
	return notGitlab(a)
}

func notGitlab(a provider.Answer) *provider.Error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: "verify", Status: a.Status, Text: "what answers there is not GitLab"}
}

func unsupported(status int, text string) *provider.Error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: "verify", Status: status, Text: provider.Clean(text)}
}

// words returns what a body says for people: the API's message, the error of OAuth
// 2 that stands for a token that has ended, or that of the container registry.
func words(body []byte) string {
	var known struct {
		Message     any    `json:"message"`
		Error       any    `json:"error"`
		Description string `json:"error_description"`
		Errors      []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &known) != nil {
		return ""
	}
	var parts []string
	for _, part := range []any{known.Message, known.Error, known.Description} {
		if text, ok := part.(string); ok && text != "" {
			parts = append(parts, text)
		}
	}
	for _, e := range known.Errors {
		parts = append(parts, e.Message)
	}
	return strings.Join(parts, ": ")
}

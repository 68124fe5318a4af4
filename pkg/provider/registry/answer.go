package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

func basic(who account) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(who.username+":"+who.password))
}

// refused is the error of an answer that says no.
func (s *session) refused(op string, a provider.Answer) *provider.Error {
	text := words(a.Body)
	if text == "" {
		text = "the login is not accepted"
	}
	return &provider.Error{Kind: provider.ErrRefused, Op: op, Status: a.Status, Text: s.clean(text)}
}

// unavailable is the error of an answer that is none to what was asked.
func (s *session) unavailable(op string, a provider.Answer, text string) *provider.Error {
	switch {
	case a.Status == http.StatusTooManyRequests || a.Status >= http.StatusInternalServerError:
		text = words(a.Body)
		if text == "" {
			text = strings.ToLower(http.StatusText(a.Status))
		}
	case a.Status >= 300 && a.Status < 400:
		text = fmt.Sprintf("it redirects elsewhere, which is not followed; %s", text)
	}
	return &provider.Error{
		Kind: provider.ErrUnavailable, Op: op, Status: a.Status, Text: s.clean(text), RetryAfter: a.RetryAfter(),
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

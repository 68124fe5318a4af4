package github

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// read decodes an answer, or returns what it says is wrong, a *provider.Error.
func (a *app) read(op string, got provider.Answer, into any) error {
	switch {
	case got.Status >= http.StatusMultipleChoices:
		return a.judge(op, got)
	case json.Unmarshal(got.Body, into) != nil:
		return strange(op, got.Status)
	}
	return nil
}

// strange is the error for an answer that GitHub does not give.
func strange(op string, status int) error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Status: status, Text: "the answer is not GitHub's"}
}

// hints follow GitHub's words where those do not say what to do.
var hints = []struct{ words, hint string }{
	{"JSON web token could not be decoded", "the private key is not this App's, or was deleted"},
	{"Integration not found", "there is no App with this id"},
	{"Integration must generate a public key", "the App has no private key any more"},
	{"has been suspended", "its owner, or the App's, can lift that"},
}

// judge returns which answer it is.
func (a *app) judge(op string, got provider.Answer) *provider.Error {
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: got.Status}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(got.Body, &said) != nil || said.Message == "" {
		e.Kind, e.Text = provider.ErrUnavailable, "the answer is not GitHub's"
	} else {
		e.Text = provider.Clean(said.Message, a.secrets...)
	}
	switch code := got.Status; {
	case code < http.StatusBadRequest:
		e.Kind, e.Text = provider.ErrUnavailable, "the answer is a redirect, which is not followed"
	case code >= 500:
		e.Kind = provider.ErrUnavailable
	case code == http.StatusTooManyRequests, code == http.StatusForbidden && limited(got.Header, said.Message):
		e.Kind, e.RetryAfter = provider.ErrUnavailable, a.retryAfter(got)
	case code == http.StatusUnauthorized && strings.Contains(said.Message, "claim ('iat')"),
		code == http.StatusUnauthorized && strings.Contains(said.Message, "claim ('exp')"):
		e.Kind = provider.ErrUnavailable
		e.Text += " (this server's clock is wrong)"
	}
	for _, h := range hints {
		if strings.Contains(said.Message, h.words) {
			e.Text += " (" + h.hint + ")"
			break
		}
	}
	return e
}

// limited tells an answer that says "too often" from one that says "no": GitHub
// uses 403 for both.
func limited(h http.Header, message string) bool {
	return h.Get("X-RateLimit-Remaining") == "0" || h.Get("Retry-After") != "" || strings.Contains(strings.ToLower(message), "rate limit")
}

// retryAfter returns how long to wait: as the header of that name says, or until
// the limit is reset; 0 when neither is there, at most an hour.
func (a *app) retryAfter(got provider.Answer) time.Duration {
	if wait := got.RetryAfter(); wait > 0 {
		return wait
	}
	if at, err := strconv.ParseInt(got.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		return min(max(0, time.Unix(at, 0).Sub(a.client.cfg.Now())), time.Hour)
	}
	return 0
}

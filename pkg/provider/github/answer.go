package github

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 1 << 20

// read returns the body of an answer, or what the answer says is wrong. Its
// error is a *provider.Error.
func (a *app) read(op string, resp *http.Response, into any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	// What was read of a body counts; an error of closing it changes nothing.
	_ = resp.Body.Close()
	switch {
	case err != nil:
		return provider.NetworkError(op, err)
	case len(body) > maxAnswer:
		return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Status: resp.StatusCode, Text: fmt.Sprintf("the answer has more than %d bytes", maxAnswer)}
	case resp.StatusCode >= http.StatusMultipleChoices:
		return a.judge(op, resp, body)
	case json.Unmarshal(body, into) != nil:
		return strange(op, resp.StatusCode)
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
func (a *app) judge(op string, resp *http.Response, body []byte) *provider.Error {
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: resp.StatusCode}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		e.Kind, e.Text = provider.ErrUnavailable, "the answer is not GitHub's"
	} else {
		e.Text = provider.Clean(said.Message, a.secrets...)
	}
	switch code := resp.StatusCode; {
	case code < http.StatusBadRequest:
		e.Kind, e.Text = provider.ErrUnavailable, "the answer is a redirect, which is not followed"
	case code >= 500:
		e.Kind = provider.ErrUnavailable
	case code == http.StatusTooManyRequests, code == http.StatusForbidden && limited(resp.Header, said.Message):
		e.Kind, e.RetryAfter = provider.ErrUnavailable, a.retryAfter(resp.Header)
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
func (a *app) retryAfter(h http.Header) time.Duration {
	if n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16); err == nil {
		return min(time.Duration(n)*time.Second, time.Hour)
	}
	if at, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		return min(max(0, time.Unix(at, 0).Sub(a.client.cfg.Now())), time.Hour)
	}
	return 0
}

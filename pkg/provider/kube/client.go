package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/credstore/credstore/pkg/credential/kubeconfig"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	opVerify = "verify"
	// maxRetryAfter bounds how long a server may ask to be left alone.
	maxRetryAfter = 10 * time.Minute
)

// client speaks to one API server for one call.
type client struct {
	http   *http.Client
	server string
	token  string
	// certificate says whether a client certificate is shown.
	certificate bool
	// words names what the user logs in with, and secrets is that.
	words   string
	secrets []string
}

// connect makes a client. Nothing is sent.
func (v *Vendor) connect(l *kubeconfig.Login, m material) (*client, error) {
	unusable := func(text string) error {
		return &provider.Error{Kind: provider.ErrRefused, Op: opVerify, Text: text}
	}
	h, err := v.config.Egress.Client(l.CAPEM)
	if err != nil {
		return nil, unusable("certificate-authority-data holds no certificate")
	}
	transport, ok := h.Transport.(*http.Transport)
	if !ok {
		return nil, unusable("the connection cannot be given a client certificate")
	}
	transport.TLSClientConfig.ServerName = l.TLSServerName
	if m.certificatePEM != "" {
		pair, err := tls.X509KeyPair([]byte(m.certificatePEM), []byte(m.keyPEM))
		if err != nil {
			return nil, unusable("the client certificate and its key do not go together")
		}
		transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return &client{
		http: h, server: strings.TrimRight(l.Server, "/"), token: m.token, certificate: m.certificatePEM != "",
		words: words(l), secrets: []string{m.token, m.keyPEM},
	}, nil
}

// close ends the connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// ask sends a question and reads the answer. Its error is a *[provider.Error] or
// the context's.
func (c *client) ask(ctx context.Context, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encode a review: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server+path, bytes.NewReader(body))
	if err != nil {
		return &provider.Error{Kind: provider.ErrRefused, Op: opVerify, Text: "the server's URL cannot be used"}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "credstore")
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	a, err := provider.Do(c.http, request)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return c.networkError(err)
	case a.Status != http.StatusCreated && a.Status != http.StatusOK:
		return c.statusError(a)
	case json.Unmarshal(a.Body, answer) != nil:
		return &provider.Error{
			Kind: provider.ErrUnavailable, Op: opVerify, Status: a.Status,
			Text: "the server answers, but not as the API of Kubernetes does",
		}
	}
	return nil
}

// networkError tells apart why there was no answer.
func (c *client) networkError(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" && e.Err != nil {
		// An alert of TLS: the one thing about the client that a server checks
		// before the request is its certificate.
		return &provider.Error{
			Kind: provider.ErrRefused, Op: opVerify,
			Text: provider.Clean("the server refuses the connection, or the client certificate: " + e.Err.Error()),
		}
	}
	out := provider.NetworkError(opVerify, err)
	if c.certificate && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		// The connection may end before its alert is read.
		out.Text += ": the server may not accept the client certificate"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		out.Text = "the server's certificate is signed by an unknown authority: it is not among the cluster's certificate-authority-data"
	}
	return out
}

// statusError reads an answer that is none to the question.
func (c *client) statusError(a provider.Answer) error {
	var status struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
	}
	text := http.StatusText(a.Status)
	isStatus := json.Unmarshal(a.Body, &status) == nil && status.Kind == "Status"
	if isStatus && status.Message != "" {
		text = status.Message
	}
	e := &provider.Error{Kind: provider.ErrUnavailable, Op: opVerify, Status: a.Status, RetryAfter: min(a.RetryAfter(), maxRetryAfter)}
	switch code := a.Status; {
	case code == http.StatusUnauthorized:
		e.Kind = provider.ErrRefused
		text = "the cluster does not accept the " + c.words + ": " + text
	case code == http.StatusForbidden:
		e.Kind = provider.ErrRefused
		if strings.Contains(text, `"`+anonymous+`"`) {
			text = "the cluster does not know the " + c.words + ": " + text
		}
	case code >= 300 && code < 400:
		text = "the server answers with a redirect, which is not followed: give the address of the API server itself"
	case code < 500 && code != http.StatusTooManyRequests && !isStatus:
		text = "the server does not answer as the API of Kubernetes does: " + text
	}
	e.Text = provider.Clean(text, c.secrets...)
	return e
}

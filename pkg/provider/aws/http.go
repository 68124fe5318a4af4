package aws

import (
	"errors"
	"io"
	"net/http"

	"github.com/credstore/credstore/pkg/provider"
)

// errTooLong says that an answer is longer than provider.MaxAnswer.
var errTooLong = errors.New("the answer is too long")

// bounded returns a client like this one whose answers end with an error after
// provider.MaxAnswer bytes: the SDK reads them to their end.
func bounded(client *http.Client) *http.Client {
	out := *client
	out.Transport = limit{client.Transport}
	return &out
}

type limit struct{ next http.RoundTripper }

// RoundTrip limits the body of the answer.
func (l limit) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.next.RoundTrip(r)
	if err == nil {
		answer.Body = &limitedBody{answer.Body, provider.MaxAnswer}
	}
	return answer, err
}

// CloseIdleConnections passes on what http.Client asks for.
func (l limit) CloseIdleConnections() {
	if c, ok := l.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

type limitedBody struct {
	io.ReadCloser
	left int
}

// Read fails once too much was read, so that nobody takes a part for the whole.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

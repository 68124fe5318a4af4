package aws

import (
	"errors"
	"io"
	"net/http"
)

// maxAnswer is the most bytes of an answer that are read. The largest, a token of
// ECR, has a few thousand.
const maxAnswer = 1 << 20

// errTooLong says that an answer is longer than maxAnswer.
var errTooLong = errors.New("the answer is too long")

// bounded returns a client like this one whose answers end with an error after
// maxAnswer bytes.
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
		answer.Body = &limitedBody{answer.Body, maxAnswer}
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

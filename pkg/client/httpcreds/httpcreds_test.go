package httpcreds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/httpcreds"
	"github.com/credstore/credstore/pkg/client/tokens/tokenstest"
)

const host = "api.example.com"

// wire answers requests in the place of a network, and keeps them.
type wire struct {
	seen   []*http.Request
	answer func(*http.Request) *http.Response
	idle   int
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.seen = append(w.seen, r)
	resp := &http.Response{StatusCode: http.StatusOK}
	if w.answer != nil {
		resp = w.answer(r)
	}
	resp.Request = r
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	if r.Body != nil {
		return resp, r.Body.Close()
	}
	return resp, nil
}

func (w *wire) CloseIdleConnections() { w.idle++ }

func moved(to string) func(*http.Request) *http.Response {
	return func(*http.Request) *http.Response {
		return &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {to}}}
	}
}

// body notes that it was closed.
type body struct {
	io.Reader
	closed int
	err    error
}

func (b *body) Close() error {
	b.closed++
	return b.err
}

func request(t *testing.T, target string, content io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, content)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSends(t *testing.T) {
	for target, host := range map[string]string{
		"https://api.example.com/x":      host,
		"https://API.example.com/x":      host,
		"https://api.example.com:8443/x": "api.example.com:8443",
	} {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				w := &wire{}
				ask := &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_IbmIamToken_{IbmIamToken: &credentialv1.TokenRequest_IbmIamToken{}}}
				transport := httpcreds.New(r.Source, ask, host, w)
				in := request(t, target, strings.NewReader("text"))
				in.Header.Set("Authorization", "Basic of the caller")
				resp, err := transport.RoundTrip(in)
				if err != nil {
					t.Fatal(err)
				}
				if err := resp.Body.Close(); err != nil {
					t.Error(err)
				}
				if got := w.seen[0].Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer v1-1" {
					t.Errorf("sent %q", got)
				}
				// A round tripper must not change the request that it gets.
				if got := in.Header.Get("Authorization"); got != "Basic of the caller" {
					t.Errorf("the caller's request has %q", got)
				}
				if r.Asked()[0].GetIbmIamToken() == nil {
					t.Errorf("asked for %v", r.Asked()[0])
				}
			})
		})
	}
}

// Where the token must not go, it does not go, nothing is sent at all, and none
// is asked for.
func TestRefusesOtherPlaces(t *testing.T) {
	for _, target := range []string{
		"http://api.example.com/", "https://example.com/", "https://api.example.com.evil.example/", "https://evil.example/api.example.com",
		"https://api.example.com:8443/", "https://api.example.com@evil.example/", "https://xapi.example.com/", "ftp://api.example.com/",
	} {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				w := &wire{}
				b := &body{Reader: strings.NewReader("text"), err: errors.New("the body's own error")}
				_, err := httpcreds.New(r.Source, nil, host, w).RoundTrip(request(t, target, b)) //nolint:bodyclose // there is no answer
				if err == nil || !strings.Contains(err.Error(), "only") || !errors.Is(err, b.err) {
					t.Errorf("error is %v", err)
				}
				if len(w.seen) != 0 || r.Calls() != 0 || b.closed != 1 {
					t.Errorf("%d requests, %d tokens, the body was closed %d times", len(w.seen), r.Calls(), b.closed)
				}
			})
		})
	}
}

// Redirects stay with the host, whatever net/http thinks of the header.
func TestRedirects(t *testing.T) {
	for target, followed := range map[string]bool{
		"https://api.example.com/there": true, "/there": true,
		"https://evil.example/": false, "https://sub.api.example.com/": false, "http://api.example.com/": false,
	} {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				w := &wire{}
				w.answer = func(r *http.Request) *http.Response {
					if r.URL.Path == "/here" {
						return moved(target)(r)
					}
					return &http.Response{StatusCode: http.StatusOK}
				}
				c := &http.Client{Transport: httpcreds.New(r.Source, nil, host, w)}
				resp, err := c.Do(request(t, "https://"+host+"/here", strings.NewReader("text")))
				if resp != nil {
					err = errors.Join(err, resp.Body.Close())
				}
				sent := 1
				if followed {
					sent = 2
				}
				if (err == nil) != followed || len(w.seen) != sent {
					t.Errorf("%d requests were sent, error %v", len(w.seen), err)
				}
				for _, r := range w.seen {
					if got := r.Header.Get("Authorization"); got != "Bearer v1-1" {
						t.Errorf("sent %q to %s", got, r.URL)
					}
				}
			})
		})
	}
}

// refused returns the error of a request that is not sent, whose body is closed.
func refused(ctx context.Context, t *testing.T, r *tokenstest.Rig) error {
	t.Helper()
	w, b := &wire{}, &body{Reader: strings.NewReader("text")}
	_, err := httpcreds.New(r.Source, nil, host, w).RoundTrip(request(t, "https://"+host, b).WithContext(ctx)) //nolint:bodyclose // there is no answer
	if len(w.seen) != 0 || b.closed != 1 || err == nil {
		t.Errorf("%d requests, the body was closed %d times, error %v", len(w.seen), b.closed, err)
	}
	return err
}

func TestErrorsPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Fail(clienttest.Failure(codes.PermissionDenied, "PERMISSION_DENIED", "not for you"))
		if err := refused(t.Context(), t, r); !errors.Is(err, client.ErrPermissionDenied) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestWaitsAsLongAsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := refused(ctx, t, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestWrongKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Make(tokenstest.AWS)
		if err := refused(t.Context(), t, r); !strings.Contains(err.Error(), "bearer") || strings.Contains(err.Error(), "v1-1") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		w := &wire{}
		c := &http.Client{Transport: httpcreds.New(r.Source, nil, host, w)}
		for version := range 2 {
			resp, err := c.Do(request(t, "https://"+host, nil))
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if got, want := w.seen[version].Header.Get("Authorization"), fmt.Sprintf("Bearer v%d-%d", version+1, version+1); got != want {
				t.Errorf("sent %q, want %q", got, want)
			}
			r.Rotate(2)
		}
		c.CloseIdleConnections()
		if w.idle != 1 {
			t.Errorf("idle connections were closed %d times", w.idle)
		}
	})
}

func TestDefaultTransport(t *testing.T) {
	w, before := &wire{}, http.DefaultTransport
	http.DefaultTransport = w
	t.Cleanup(func() { http.DefaultTransport = before })
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		resp, err := httpcreds.New(r.Source, nil, host, nil).RoundTrip(request(t, "https://"+host, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if len(w.seen) != 1 {
			t.Errorf("%d requests by the default transport", len(w.seen))
		}
	})
}

func TestPrintsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		transport := httpcreds.New(r.Source, nil, host, &wire{})
		resp, err := transport.RoundTrip(request(t, "https://"+host, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		for _, verb := range []string{"%v", "%+v", "%s"} {
			if text := fmt.Sprintf(verb, transport); strings.Contains(text, "v1-1") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	})
}

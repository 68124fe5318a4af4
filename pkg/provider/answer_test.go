package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// body counts how often it is closed, and fails at its end if err is set.
type body struct {
	io.Reader
	err    error
	closed int
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && b.err != nil {
		err = b.err
	}
	return n, err
}

func (b *body) Close() error {
	b.closed++
	return errors.New("closing fails")
}

func TestAsk(t *testing.T) {
	whole := strings.Repeat("x", MaxAnswer)
	for _, test := range []struct {
		name   string
		status int
		body   *body
		want   string // of the error
	}{
		{"an answer", http.StatusOK, &body{Reader: strings.NewReader("hello")}, ""},
		{"one of any status", http.StatusInternalServerError, &body{Reader: strings.NewReader("hello")}, ""},
		{"the largest", http.StatusOK, &body{Reader: strings.NewReader(whole)}, ""},
		{"one too large", http.StatusOK, &body{Reader: strings.NewReader(whole + "x")}, "verify: store unavailable: the answer has more than 1048576 bytes"},
		{"one cut off", http.StatusOK, &body{Reader: strings.NewReader("hello"), err: io.ErrUnexpectedEOF}, "verify: store unavailable: the connection was closed before an answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: test.status, Body: test.body, Header: http.Header{"A": {"b"}}}, nil
			})}
			got, err := Ask(client, request(t, t.Context()), "verify")
			if test.body.closed != 1 {
				t.Errorf("the body is closed %d times", test.body.closed)
			}
			if test.want != "" {
				if err == nil || err.Error() != test.want || got.Body != nil {
					t.Errorf("%v, %v, want %q", got, err, test.want)
				}
				return
			}
			if err != nil || got.Status != test.status || len(got.Body) < 5 || got.Header.Get("A") != "b" {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// A caller that went away is told that and nothing else, whatever came of its
// request: an answer that was cut short by it must not be judged as the vendor's.
func TestAskOfACallerThatWentAway(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func() (*http.Response, error)
	}{
		{"an answer came", func() (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}},
		{"it was cut off", func() (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: &body{Reader: strings.NewReader("h"), err: io.ErrUnexpectedEOF}}, nil
		}},
		{"none came", func() (*http.Response, error) { return nil, io.EOF }},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				cancel()
				return test.answer()
			})}
			if got, err := Ask(client, request(t, ctx), "verify"); !errors.Is(err, context.Canceled) || got.Status != 0 {
				t.Errorf("%v, %v", got, err)
			}
			client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("a request is sent for one who has gone")
				return test.answer()
			})
			if _, err := Ask(client, request(t, ctx), "verify"); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
}

func request(t *testing.T, ctx context.Context) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://vendor.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRetryAfter(t *testing.T) {
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for _, test := range []struct {
		header, date string
		want         time.Duration
	}{
		{"", date, 0},
		{"7", "", 7 * time.Second},
		{"0", "", 0},
		{"-1", "", 0},
		{"7.5", "", 0},
		{"3601", "", time.Hour},
		{"18446744073709551615", "", time.Hour},
		{"99999999999999999999", "", 0},
		{"Sun, 06 Nov 1994 08:50:07 GMT", date, 30 * time.Second},
		{"Sun, 06 Nov 1994 08:49:07 GMT", date, 0},
		{"Mon, 07 Nov 1994 08:49:37 GMT", date, time.Hour},
		{"Sun, 06 Nov 1994 08:50:07 GMT", "", 0},
		{"Sun, 06 Nov 1994 08:50:07 GMT", "noon", 0},
		{"soon", date, 0},
	} {
		a := Answer{Header: http.Header{"Retry-After": {test.header}, "Date": {test.date}}}
		if got := a.RetryAfter(); got != test.want {
			t.Errorf("%q at %q is %v, want %v", test.header, test.date, got, test.want)
		}
	}
	if got := (Answer{}).RetryAfter(); got != 0 {
		t.Errorf("without headers: %v", got)
	}
}

func TestAnswerPrintsNoBody(t *testing.T) {
	a := Answer{Status: 200, Header: http.Header{"Token": {"header-canary"}}, Body: []byte("body-canary")}
	const want = "answer(status 200, 11 bytes, redacted)"
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("got", "answer", a, "at", &a)
	encoded, err := json.Marshal(a)
	if err != nil || string(encoded) != `"`+want+`"` {
		t.Errorf("%s, %v", encoded, err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %x %d", a, a, a, a, &a), log.String()} {
		if strings.Contains(text, "canary") || !strings.Contains(text, want) {
			t.Errorf("prints as %q", text)
		}
	}
}

package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// MaxAnswer is the most bytes of an answer that are taken. The largest that is of
// use, a token with many claims, has some thousands.
const MaxAnswer = 1 << 20

// maxRetryAfter bounds how long an answer can have its sender left alone.
const maxRetryAfter = time.Hour

// errTooLong says that an answer goes on beyond MaxAnswer.
var errTooLong = errors.New("answer is too long")

// Answer is what was answered to one request, read whole, whatever it says. Its
// body may be a token, so it prints as its status and size.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and reads the answer, of any status. Its error is the
// context's, also when an answer came all the same, since nobody waits for it; or
// one for [NetworkError], when none came or it has more than [MaxAnswer] bytes.
func Do(client *http.Client, r *http.Request) (Answer, error) {
	a, err := do(client, r)
	if r.Context().Err() != nil {
		return Answer{}, r.Context().Err()
	}
	return a, err
}

func do(client *http.Client, r *http.Request) (Answer, error) {
	if err := r.Context().Err(); err != nil {
		return Answer{}, err
	}
	resp, err := client.Do(r) //nolint:gosec // the caller's client has the guard of Egress
	if err != nil {
		return Answer{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	_ = resp.Body.Close() // what was read counts
	switch {
	case err != nil:
		return Answer{}, err
	case len(body) > MaxAnswer:
		return Answer{}, errTooLong
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// Ask is Do for those who have nothing to add to [NetworkError]: its error is the
// context's, or an *[Error] of the operation.
func Ask(client *http.Client, r *http.Request, op string) (Answer, error) {
	a, err := Do(client, r)
	switch {
	case err == nil:
		return a, nil
	case r.Context().Err() != nil:
		return Answer{}, r.Context().Err()
	}
	return Answer{}, NetworkError(op, err)
}

// RetryAfter returns how long to leave the sender alone (RFC 9110, section
// 10.2.3), at most an hour; 0 when it does not say. A date is read against the
// answer's own, since the clocks may differ.
func (a Answer) RetryAfter() time.Duration {
	value := a.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	from, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(0, until.Sub(from)), maxRetryAfter)
}

// String returns the status and the size.
func (a Answer) String() string {
	return fmt.Sprintf("answer(status %d, %d bytes, redacted)", a.Status, len(a.Body))
}

// GoString returns what String does.
func (a Answer) GoString() string { return a.String() }

// Format writes what String returns, whatever the verb and its flags.
func (a Answer) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, a.String()) // a formatter cannot report an error
}

// LogValue returns what String does.
func (a Answer) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalJSON returns what String does, as a JSON string.
func (a Answer) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

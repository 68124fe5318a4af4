package provider

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The answers of a store, as reactions to them differ. Ask with errors.Is.
var (
	// ErrUnavailable: the store could not be reached, or is not in order (sealed,
	// standby, overloaded). The same call may succeed later.
	ErrUnavailable = errors.New("store unavailable")
	// ErrRefused: the store refuses the login or the request, or this program
	// refuses the address. Asking again helps only after somebody changed
	// something.
	ErrRefused = errors.New("refused")
	// ErrMissing: there is no such secret, or no such version.
	ErrMissing = errors.New("no such secret")
	// ErrDeleted: the version was deleted, and could be undeleted.
	ErrDeleted = errors.New("version deleted")
	// ErrDestroyed: the version is gone for good.
	ErrDestroyed = errors.New("version destroyed")
)

// ErrForbiddenAddress is the [ErrRefused] of this program about an address: its
// own configuration keeps it away from there, and the store was never asked.
var ErrForbiddenAddress = fmt.Errorf("%w", ErrRefused)

// ErrClosed says that a Client was used after its Close.
var ErrClosed = errors.New("provider client is closed")

// Error is which of a store's answers was seen. Its message is the same for the
// same answer, so that it can be compared with the last one, and holds no secret
// material.
type Error struct {
	// Kind is one of the sentinels of this package.
	Kind error
	// Op is what was asked: "login", "read", "renew", "identify".
	Op string
	// Status is the answer's HTTP status, 0 when there was no answer.
	Status int
	// Text is what the store said, or what was in the way; made with [Clean].
	Text string
	// RetryAfter is how long to leave the store alone, 0 when nobody says.
	RetryAfter time.Duration
	// LoginLost says that the session cannot go on: its login has ended and could
	// not be made anew. Kind tells why.
	LoginLost bool
	// NotAsked says that the store was not asked this time, since it failed a
	// moment ago; the rest is what it answered then.
	NotAsked bool
}

// Error returns the operation, the kind and the answer.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(e.Kind.Error())
	var detail []string
	if e.Status != 0 {
		detail = append(detail, strconv.Itoa(e.Status))
	}
	if e.Text != "" {
		detail = append(detail, e.Text)
	}
	if len(detail) > 0 {
		b.WriteString(": " + strings.Join(detail, " "))
	}
	return b.String()
}

// Unwrap lets errors.Is find the kind.
func (e *Error) Unwrap() error { return e.Kind }

// MaxText is the most characters of a store's words that are passed on.
const MaxText = 300

// Clean returns a store's words as one line of at most [MaxText] characters,
// without control characters, and with each of the secrets that occurs in it
// blotted out. Secrets shorter than four characters are ignored: they would
// blot out the words of any sentence.
func Clean(text string, secrets ...string) string {
	const shortest = 4
	for _, s := range secrets {
		if len(s) >= shortest {
			text = strings.ReplaceAll(text, s, "(redacted)")
		}
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == utf8.RuneError
	}), " ")
	if r := []rune(text); len(r) > MaxText {
		text = string(r[:MaxText-1]) + "…"
	}
	return text
}

// normal returns err as what a Client hands out: an *Error with its operation,
// or the context's error. The words of a stranger's error are not repeated.
func normal(op string, err error) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		out := *e
		if out.Op == "" {
			out.Op = op
		}
		return &out
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrClosed):
		return err
	}
	return &Error{Kind: ErrUnavailable, Op: op, Text: fmt.Sprintf("failed with an error of type %T", err)}
}

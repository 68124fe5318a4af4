package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Session is one login to one external store. It is safe for concurrent use,
// prints neither its login nor what it fetched, and starts no goroutines.
type Session interface {
	// Fetch reads one secret. Its error is an *[Error], or the context's.
	Fetch(ctx context.Context, ref Ref) (Secret, error)
}

// Identifier is a Session that can say whose login it is.
type Identifier interface {
	// Identify asks the store; the answer is for people and holds no secret.
	Identify(ctx context.Context) (string, error)
}

// Renewer is a Session whose login ends unless it is renewed.
type Renewer interface {
	// RenewTime returns when to call Renew next, with the vendor's jitter in it;
	// the zero time when nothing needs renewal. It never blocks for long.
	RenewTime() time.Time
	// Renew prolongs the login, or logs in anew. After a failure RenewTime says
	// when to try again; until the login has ended, Fetch goes on working.
	Renew(ctx context.Context) error
}

// Closer is a Session that holds something in the store, as a token that it was
// given, or connections.
type Closer interface {
	// Close gives it back, as far as that is possible before ctx ends. The
	// session is of no use afterwards; calls under way may fail, unless its login
	// was lost before.
	Close(ctx context.Context) error
}

// Ref names one secret of a store.
type Ref struct {
	// Path is the secret's path as the store spells it, without a leading slash.
	Path string
	// Version pins one version; 0 is the newest.
	Version uint32
}

// Secret is what a store holds under a Ref. It prints as its version and the
// number of its values.
type Secret struct {
	// Values is the content, key to value; not nil, also when it is empty.
	Values map[string][]byte
	// Version is the version as the store counts.
	Version string
}

// String returns the version and the number of values.
func (s Secret) String() string {
	return fmt.Sprintf("secret(version %q, %d values, redacted)", s.Version, len(s.Values))
}

// GoString returns what String does.
func (s Secret) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb and its flags.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, s.String()) // a formatter cannot report an error
}

// LogValue returns what String does.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON returns what String does, as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

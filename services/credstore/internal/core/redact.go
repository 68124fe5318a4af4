package core

import (
	"fmt"
	"io"
	"log/slog"
)

func (u *SetUpdate) redacted() string {
	return fmt.Sprintf("set at revision %d with %d items (redacted)", u.Revision, len(u.Items))
}

// String does not print the contents.
func (u *SetUpdate) String() string { return u.redacted() }

// GoString does not print the contents.
func (u *SetUpdate) GoString() string { return u.redacted() }

// Format does not print the contents, whatever the verb.
func (u *SetUpdate) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.redacted()) }

// LogValue does not log the contents.
func (u *SetUpdate) LogValue() slog.Value { return slog.StringValue(u.redacted()) }

// MarshalJSON does not encode the contents.
func (u *SetUpdate) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", u.redacted()), nil }

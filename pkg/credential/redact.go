package credential

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// String returns the kind and "(redacted)", as "basic(redacted)"; "none" for
// the zero value.
func (p Payload) String() string {
	if p.IsZero() {
		return "none"
	}
	return string(p.kind) + "(redacted)"
}

// GoString returns what String does.
func (p Payload) GoString() string { return p.String() }

// Format writes what String returns, whatever the verb and its flags.
func (p Payload) Format(s fmt.State, _ rune) {
	// A formatter has no way to report an error; fmt ignores it as well.
	_, _ = io.WriteString(s, p.String())
}

// LogValue returns what String does.
func (p Payload) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalJSON returns what String does, as a JSON string.
func (p Payload) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

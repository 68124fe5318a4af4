package seal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// What leads to key material prints as a public id, and a key as a fixed text,
// whatever the verb, the logger or the encoder. fmt does not ask the unexported
// fields of a struct for their methods, and follows a nested pointer when the
// verb does not fit it (%s of a struct); it never looks into a function. So
// whatever holds key bytes in this package is a function.

// secretKey gives its bytes when called. It has keySize bytes.
type secretKey func() []byte

// newKey copies b.
func newKey(b []byte) secretKey {
	k := bytes.Clone(b)
	return func() []byte { return k }
}

// randomKey reads a new key.
func randomKey(random io.Reader) (secretKey, error) {
	b := make([]byte, keySize)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, err
	}
	return func() []byte { return b }, nil
}

// erase overwrites the key, as far as that reaches: see the package comment.
func (k secretKey) erase() { clear(k()) }

const redactedKey = "key (redacted)"

// String returns a fixed text.
func (secretKey) String() string { return redactedKey }

// GoString returns a fixed text.
func (secretKey) GoString() string { return redactedKey }

// Format writes a fixed text, whatever the verb.
func (secretKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedKey) }

// LogValue returns a fixed text.
func (secretKey) LogValue() slog.Value { return slog.StringValue(redactedKey) }

// MarshalJSON returns a fixed text as a string.
func (secretKey) MarshalJSON() ([]byte, error) { return json.Marshal(redactedKey) }

func (k *FileRootKey) redacted() string {
	if k == nil {
		return "<nil>"
	}
	return "root key " + k.id + " (redacted)"
}

// String returns the key's id.
func (k *FileRootKey) String() string { return k.redacted() }

// GoString returns the key's id.
func (k *FileRootKey) GoString() string { return k.redacted() }

// Format writes the key's id, whatever the verb.
func (k *FileRootKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.redacted()) }

// LogValue returns the key's id.
func (k *FileRootKey) LogValue() slog.Value { return slog.StringValue(k.redacted()) }

// MarshalJSON returns the key's id as a string.
func (k *FileRootKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.redacted()) }

func (s *Sealer) redacted() string {
	if s == nil {
		return "<nil>"
	}
	return "sealer " + s.id.String() + " (redacted)"
}

// String returns the seal id.
func (s *Sealer) String() string { return s.redacted() }

// GoString returns the seal id.
func (s *Sealer) GoString() string { return s.redacted() }

// Format writes the seal id, whatever the verb.
func (s *Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.redacted()) }

// LogValue returns the seal id.
func (s *Sealer) LogValue() slog.Value { return slog.StringValue(s.redacted()) }

// MarshalJSON returns the seal id as a string.
func (s *Sealer) MarshalJSON() ([]byte, error) { return json.Marshal(s.redacted()) }

package resourcename

import (
	"strconv"
	"strings"
)

// maxErrorValue is how many bytes of a refused value an error repeats.
const maxErrorValue = 200

// Error says that a value is not a name, or not an id, of the form expected.
// Names are public, so it repeats the value.
type Error struct {
	// Value is what was refused, cut off after 200 bytes.
	Value string
	// Want is what it should have been, with its article: "a credential".
	Want string
	// Form is the form expected, as
	// "projects/{project}/credentials/{credential}".
	Form string
}

// newError copies the part of the value that it keeps, so that an error does not
// hold on to a request.
func newError(value, want, form string) *Error {
	if len(value) > maxErrorValue {
		value = value[:maxErrorValue]
	}
	return &Error{Value: strings.Clone(value), Want: want, Form: form}
}

// Error returns one sentence with the value, quoted, and the form expected.
func (e *Error) Error() string {
	if e.Want == idWant {
		return strconv.Quote(e.Value) + " is not an id: expected " + e.Form
	}
	return strconv.Quote(e.Value) + " is not the name of " + e.Want + ": expected " + e.Form +
		", with ids of the form " + idForm
}

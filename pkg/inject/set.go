package inject

import (
	"fmt"
	"log/slog"
	"time"
)

// State says how an item stands at the server.
type State int

const (
	// OK means that the value is current. It is the zero value.
	OK State = iota
	// Stale means that the value is the last good one; its store cannot be
	// reached now.
	Stale
	// Failed means that there is no value that may be delivered: the last good
	// content stays.
	Failed
)

// String returns the name that the contract uses.
func (s State) String() string {
	switch s {
	case OK:
		return "OK"
	case Stale:
		return "STALE"
	case Failed:
		return "FAILED"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Set is all items that one workload must have, or what changed of them.
type Set struct {
	// Revision is that of the last commit that changed the set.
	Revision uint64
	// Whole says that Items is the whole manifest: what it lacks is removed.
	Whole bool
	Items []Item
	// Removed holds the ids of items that are gone; unused when Whole.
	Removed []string
	// Received is when the set arrived; zero means now. Latency is measured
	// from it.
	Received time.Time
}

// Item is one value with its file. Printing it in any way shows no content.
type Item struct {
	// ID names the item within the set.
	ID string
	// Injection is the full name of the injection that the item belongs to.
	Injection string
	// Path is that of the file, relative to the root and slash-separated.
	Path string
	// Mode holds octal permission bits; empty means "0400".
	Mode string
	// UID and GID are the owner; nil means that of this process.
	UID, GID *uint32
	// Group joins the items of an injection that change together; empty means
	// that the item stands alone.
	Group string
	// Digest stands for content and target, and says nothing about the content.
	Digest string
	State  State
	// Message says why, when State is not OK.
	Message string
	// HasContent says that Content was delivered; an empty content is one too.
	// An item without is one that Have named with the same digest, or Failed.
	HasContent bool
	// Content is all of the file. The engine owns it from the call on, and
	// overwrites it with zeros when the file is written.
	Content []byte `json:"-" yaml:"-"`
	// Version is the version delivered, for people.
	Version string
}

// Format writes the id and the size, for every verb.
func (i Item) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "item %q (%s, %d bytes)", i.ID, i.State, len(i.Content))
}

// LogValue gives a log the id, the state and the size.
func (i Item) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", i.ID), slog.String("state", i.State.String()), slog.Int("bytes", len(i.Content)))
}

// Report says what became of a set.
type Report struct {
	// Revision is that of the set that was processed.
	Revision uint64
	// Failures are the items whose file is not what the set says, in the order
	// of ids; all others were applied.
	Failures []Failure
}

// Failure says why an item was not applied.
type Failure struct {
	// ID is that of an item, or of a removed one whose file is still there.
	ID string
	// Injection is the full name of its injection.
	Injection string
	// Message is at most 1,024 characters, and holds no content.
	Message string
}

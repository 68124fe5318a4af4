package inject

import (
	"context"

	"github.com/credstore/credstore/pkg/inject/fileset"
)

// Source is where sets come from. It keeps itself connected.
type Source interface {
	// Run delivers sets to c until ctx ends. Then it sends the last report, says
	// goodbye, and returns nil; another error means that it can never work as it
	// is configured. It calls the methods of c one at a time, and none after it
	// has returned. The first set of every connection is whole.
	Run(ctx context.Context, c Consumer) error
	// Report hands over what became of the last set. It does not wait; a newer
	// report replaces one that was not sent yet, and one for an earlier
	// connection is not sent.
	Report(r Report)
	// Reconnect ends the current connection, if there is one, so that a whole
	// set follows that is based on a fresh Have. It does not wait.
	Reconnect()
}

// Consumer is what a [Source] delivers to. An [Engine] gives it one.
type Consumer interface {
	// Have returns the digest of every content that need not be sent again, by
	// item id. It is asked before each connection.
	Have() map[string]string
	// Connected says that a connection has delivered its first message.
	Connected()
	// Disconnected says that a connection ended, or could not be made, and why.
	Disconnected(err error)
	// Set takes one set, and returns when it is applied as far as that can be.
	Set(ctx context.Context, s Set)
}

// Files is where files go: a *[fileset.Dir], whose comments are the contract.
type Files interface {
	Publish(ctx context.Context, files []fileset.File) (fileset.Change, error)
	Current() (map[string]fileset.File, error)
}

var _ Files = (*fileset.Dir)(nil)

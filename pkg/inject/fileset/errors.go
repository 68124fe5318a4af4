package fileset

import (
	"errors"
	"fmt"

	"github.com/credstore/credstore/pkg/targetpath"
)

// ErrLocked says that another process, or another [Dir] of this one, publishes
// into the same root. Two of them would undo each other's sets.
var ErrLocked = errors.New("in use by another injector: stop it, or choose another directory")

// ConflictError says that root holds something that this package did not make
// at a name that a set needs. Nothing was written. A symlink in the way is no
// conflict, it is replaced: it holds no content that could be lost.
type ConflictError struct {
	Name string // the first element of a path of the set
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s exists and was not made by the injector: move it away, or choose another path", targetpath.Quote(e.Name))
}

// OwnerError says that a file could not be given its owner, and what is needed
// for that. Nothing was published. It wraps the system's error.
type OwnerError struct {
	Path     string
	UID, GID int // as wanted; -1 where the owner was to be left alone
	Err      error
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("set owner of %s to %s:%s: %v (needs CAP_CHOWN or root; for a group alone, membership; otherwise leave uid and gid unset)",
		targetpath.Quote(e.Path), idText(e.UID), idText(e.GID), e.Err)
}

func (e *OwnerError) Unwrap() error { return e.Err }

func idText(id int) string {
	if id < 0 {
		return "(unchanged)"
	}
	return fmt.Sprint(id)
}

// SettleError says that the new set is what readers see, and that something
// after the switch failed: it may not survive a loss of power yet, or parts of
// the old set are still on the disk. The next Publish, of the same set too,
// tries again. It wraps the system's error.
type SettleError struct {
	Err error
}

func (e *SettleError) Error() string {
	return fmt.Sprintf("the set is published, but not settled: %v", e.Err)
}

func (e *SettleError) Unwrap() error { return e.Err }

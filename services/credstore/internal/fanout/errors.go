package fanout

import (
	"errors"
	"fmt"
)

// What a Hub and its subscriptions answer.
var (
	// ErrClosed: the subscription or the hub was closed. Give up.
	ErrClosed = errors.New("fan-out is closed")
	// ErrLagged: events were lost to this subscription. Catch up from the
	// state, then Resume. The error is always a *LaggedError.
	ErrLagged = errors.New("subscription was overtaken")
	// ErrOrder: the revision is not above the last one. Nothing was done.
	ErrOrder = errors.New("revision is out of order")
)

// LaggedError is the ErrLagged of one subscription.
type LaggedError struct {
	// Reached is the revision through which the reader has every event of its
	// topics; what came after it has to come from the state.
	Reached uint64
}

func (e *LaggedError) Error() string {
	return fmt.Sprintf("%v after revision %d", ErrLagged, e.Reached)
}

// Unwrap makes errors.Is(err, ErrLagged) hold.
func (e *LaggedError) Unwrap() error { return ErrLagged }

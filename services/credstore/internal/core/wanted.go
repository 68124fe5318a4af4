package core

import (
	"strings"
	"sync"
)

// wantedList is what the injections of a state need of the outside: secrets, or
// tokens. The feed keeps it current.
type wantedList[T any] struct {
	// in lists what a state wants, and the keys of all that the list depends on
	// besides injections.
	in func(v view) (list []T, inputs map[string]bool)

	mu      sync.Mutex
	list    []T
	inputs  map[string]bool
	changed chan struct{}
}

func newWantedList[T any](v view, in func(view) ([]T, map[string]bool)) *wantedList[T] {
	w := &wantedList[T]{in: in, changed: make(chan struct{})}
	w.refresh(v)
	return w
}

func (w *wantedList[T]) refresh(v view) {
	list, inputs := w.in(v)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list, w.inputs = list, inputs
	close(w.changed)
	w.changed = make(chan struct{})
}

// current returns the list, which nobody changes, and a channel that is closed
// when there is another one.
func (w *wantedList[T]) current() ([]T, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list, w.changed
}

// affected says whether a change can change what is wanted.
func (w *wantedList[T]) affected(ch Change) bool {
	if _, kind, _, ok := splitIn(ch.Key); ok && kind == kindInjection {
		return true
	}
	if strings.HasPrefix(ch.Key, prefixMinted) && !ch.Delete {
		return false // a token that was minted comes from who reads the list
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inputs[ch.Key]
}

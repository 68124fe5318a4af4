package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

// seen is a credential as a watcher has it.
type seen struct {
	meta   *credstorev1.Credential
	secret string // in view PAYLOAD
}

// watcher follows the store on the wire, message by message, and resumes with
// its token whenever its stream ends. It holds the server to the promises of
// Watch across restarts: ordered, unique, atomic, resumable.
type watcher struct {
	name    string
	options client.Options
	payload bool
	h       *history
	// whole says what must be true of the state after every message; may be nil.
	whole func(state map[string]seen) error

	mu       sync.Mutex
	state    map[string]seen
	token    string
	revision uint64
	synced   int // streams that came to synced
	resumes  int // those of them that went on where another had ended
}

// run watches until ctx ends. It returns when a promise is broken.
func (w *watcher) run(ctx context.Context) {
	w.state = map[string]seen{}
	for ctx.Err() == nil {
		if err := w.stream(ctx); err != nil {
			w.h.fail("watcher %s: %v", w.name, err)
			return
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// stream is one stream; only a broken promise is an error.
func (w *watcher) stream(ctx context.Context) error {
	view := credstorev1.WatchRequest_METADATA
	if w.payload {
		view = credstorev1.WatchRequest_PAYLOAD
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A connection of its own for each try: one that is tried again backs off.
	c, err := client.Dial(w.options)
	if err != nil {
		return err
	}
	defer c.Close()
	stream, err := c.Credentials.Watch(ctx, &credstorev1.WatchRequest{
		Parent: project, View: view, ResumeToken: w.token, Consumer: w.name,
	})
	if err != nil {
		return nil // the server was killed
	}
	resumed := w.token != ""
	first, syncedNow := true, false
	// What the state will be with the next token, and the revision that was reached
	// on this stream. A stream that is cut before its token is told again from the
	// token before.
	next, at := maps.Clone(w.state), w.revision
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil // the server was killed
		}
		_, reset := m.GetEvent().(*credstorev1.WatchResponse_Reset_)
		switch {
		case reset && resumed:
			return fmt.Errorf("a reset in place of what was missed since revision %d", at)
		case reset && !first, !reset && first && !resumed:
			return fmt.Errorf("a stream without a token begins with a reset and has no other; this is message %T", m.GetEvent())
		case !syncedNow && m.GetResumeToken() != "" && m.GetSynced() == nil:
			return fmt.Errorf("a resume token before synced, at revision %d", m.GetRevision())
		case resumed && m.GetRevision() < at:
			return fmt.Errorf("revision %d after %d", m.GetRevision(), at)
		}
		first = false
		if reset {
			next = map[string]seen{}
			continue
		}
		if c := m.GetCommit(); c != nil {
			if resumed && m.GetRevision() <= at {
				return fmt.Errorf("a commit at revision %d, which was reached before (%d)", m.GetRevision(), at)
			}
			if resumed && c.GetFromRevision() != at {
				return fmt.Errorf("a commit from revision %d at revision %d", c.GetFromRevision(), w.revision)
			}
			if resumed && c.GetFromRevision()+1 == m.GetRevision() {
				w.h.commit(w.name, m.GetRevision(), c.GetChanges())
			}
			if err := w.apply(next, c.GetChanges()); err != nil {
				return err
			}
		}
		if m.GetSynced() != nil {
			if syncedNow {
				return fmt.Errorf("synced twice on one stream, at revision %d", m.GetRevision())
			}
			syncedNow = true
			w.mu.Lock()
			w.synced++
			if resumed {
				w.resumes++
			}
			w.mu.Unlock()
			resumed = true // from here on it goes on from what it has
		}
		if !resumed {
			continue
		}
		if w.whole != nil {
			if err := w.whole(next); err != nil {
				return fmt.Errorf("revision %d: %w", m.GetRevision(), err)
			}
		}
		at = m.GetRevision()
		if t := m.GetResumeToken(); t != "" {
			w.mu.Lock()
			w.token, w.revision, w.state = t, at, maps.Clone(next)
			w.mu.Unlock()
		}
	}
}

// apply applies a commit to a state and tells the history of it.
func (w *watcher) apply(state map[string]seen, changes []*credstorev1.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, change := range changes {
		c := change.GetCredential()
		switch change.GetType() {
		case credstorev1.Change_PUT:
			s := seen{meta: c}
			w.h.metadata(w.name, c)
			if w.payload {
				s.secret = secretOf(change.GetPayload())
				w.h.secret(w.name, c.GetUid(), c.GetActiveVersion(), s.secret)
			}
			state[c.GetName()] = s
		case credstorev1.Change_DELETE:
			delete(state, c.GetName())
		default:
			return fmt.Errorf("a change of type %s of %s", change.GetType(), c.GetName())
		}
	}
	return nil
}

// streams returns how many streams came to synced.
func (w *watcher) streams() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced
}

// resumed returns how often the watcher has gone on where it was.
func (w *watcher) resumed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.resumes
}

// all returns what the watcher has, once it has it all.
func (w *watcher) all() map[string]seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.synced == 0 {
		return nil
	}
	return maps.Clone(w.state)
}

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client/internal/redial"
)

// DefaultHeartbeat is how often an idle stream says that it is alive.
const DefaultHeartbeat = 30 * time.Second

// WatchOptions say what to watch.
type WatchOptions struct {
	// Parent is required: "projects/{project}".
	Parent string
	// Names and Filter narrow it down, as in the contract; optional.
	Names  []string
	Filter string
	// Payload asks for payloads, and not only for metadata.
	Payload bool
	// Consumer is who asks, as shown to operators; optional.
	Consumer string
	// Heartbeat is how often an idle server says that it is there, 1 s to 1 h;
	// zero means DefaultHeartbeat.
	Heartbeat time.Duration
}

// Credential is a credential as a [Watcher] last saw it. Printing it in any way
// shows no payload.
type Credential struct {
	// Metadata never changes once it was handed out.
	Metadata *credstorev1.Credential
	// Payload is that of the active version; nil unless the watch asked for it.
	Payload *credentialv1.Payload `json:"-" yaml:"-"`
}

// Format writes the name and the version, for every verb.
func (c Credential) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "credential %q version %d", c.Metadata.GetName(), c.Metadata.GetActiveVersion())
}

// LogValue gives a log the name and the version.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", c.Metadata.GetName()), slog.Uint64("version", uint64(c.Metadata.GetActiveVersion())))
}

// Watcher keeps credentials current by itself, and keeps the last good ones when
// the server is away. Its methods are for any number of goroutines; reading never
// waits for the network.
type Watcher struct {
	client  *Client
	options WatchOptions
	stop    context.CancelFunc
	done    chan struct{}
	synced  chan struct{}
	changed chan struct{}

	mu    sync.Mutex
	state map[string]Credential
	// token is where to resume; it belongs to state.
	token    string
	revision uint64
	first    bool // synced is closed
	up       bool
	err      error
}

// WatchCredentials starts a watcher, on a connection of its own. It checks only
// what can be checked here: a server that is away, or refuses, is what
// [Watcher.Err] tells while the watcher tries again. The caller closes it.
func (c *Client) WatchCredentials(o WatchOptions) (*Watcher, error) {
	if o.Parent == "" {
		return nil, errors.New("watch: parent: name a project, as projects/default")
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.Heartbeat < time.Second || o.Heartbeat > time.Hour {
		return nil, fmt.Errorf("watch: heartbeat: %s is not within 1s and 1h", o.Heartbeat)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &Watcher{
		client:  c,
		options: o,
		stop:    stop,
		done:    make(chan struct{}),
		synced:  make(chan struct{}),
		changed: make(chan struct{}, 1),
		state:   map[string]Credential{},
		err:     errors.New("not connected yet"),
	}
	go func() {
		defer close(w.done)
		redial.Run(ctx, w.connect, w.ended)
	}()
	return w, nil
}

// Get returns a credential by its full name; false if it does not exist, does
// not match, or is not known yet.
func (w *Watcher) Get(name string) (Credential, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.state[name]
	return c, ok
}

// All returns all credentials by name, as of one revision. The map is the
// caller's.
func (w *Watcher) All() map[string]Credential {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.state)
}

// Changed returns a channel that holds a token when something changed since the
// last one was taken. Changes that come faster than they are taken are one: read
// what is, not what happened.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// WaitSynced waits until the watcher has seen the whole state once. After that
// it never waits again. Its error is that of ctx, with what went wrong.
func (w *Watcher) WaitSynced(ctx context.Context) error {
	select {
	case <-w.synced:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("watch %s: %w: %w", w.options.Parent, context.Cause(ctx), w.Err())
	case <-w.done:
		return fmt.Errorf("watch %s: closed", w.options.Parent)
	}
}

// Err returns why the watcher is not connected; nil if it is. What Get returns
// may then be old, and is still the last that the server said.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up {
		return nil
	}
	return w.err
}

// Close ends the watcher and returns when it has ended. What it saw can still
// be read.
func (w *Watcher) Close() {
	w.stop()
	<-w.done
}

func (w *Watcher) ended(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up, w.err = false, err
}

// connect is one stream, from its beginning to its end.
func (w *Watcher) connect(ctx context.Context, up func()) error {
	c, err := Dial(w.client.options)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := redial.NewWatchdog(cancel, w.options.Heartbeat)
	defer watchdog.Stop()

	view := credstorev1.WatchRequest_METADATA
	if w.options.Payload {
		view = credstorev1.WatchRequest_PAYLOAD
	}
	w.mu.Lock()
	token := w.token
	w.mu.Unlock()
	stream, err := c.Credentials.Watch(ctx, &credstorev1.WatchRequest{
		Parent: w.options.Parent, View: view, Filter: w.options.Filter, Names: w.options.Names,
		ResumeToken: token, Consumer: w.options.Consumer,
		HeartbeatInterval: durationpb.New(w.options.Heartbeat),
	})
	if err != nil {
		return cause(ctx, err)
	}
	t := transfer{w: w}
	for {
		m, err := stream.Recv()
		if err != nil {
			// A token that the server cannot read is no use the next time either.
			if errors.Is(err, ErrInvalid) {
				w.forgetToken()
			}
			return cause(ctx, err)
		}
		watchdog.Reset()
		if err := t.take(m); err != nil {
			w.forgetToken()
			return err
		}
		w.mu.Lock()
		first := !w.up
		w.up = true
		w.mu.Unlock()
		if first {
			up()
		}
	}
}

// cause prefers why a stream was ended here over what gRPC makes of that.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return fmt.Errorf("stream: %w", err)
}

func (w *Watcher) forgetToken() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = ""
}

// transfer is what one stream has to remember.
type transfer struct {
	w *Watcher
	// next collects the state that follows a reset. Until it is whole, the
	// watcher shows the one from before.
	next map[string]Credential
}

func (t *transfer) take(m *credstorev1.WatchResponse) error {
	w := t.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := m.GetEvent().(*credstorev1.WatchResponse_Reset_); ok {
		t.next = map[string]Credential{}
		return nil
	}
	if t.next == nil && m.GetRevision() < w.revision {
		return fmt.Errorf("the server went back from revision %d to %d", w.revision, m.GetRevision())
	}
	switch event := m.GetEvent().(type) {
	case *credstorev1.WatchResponse_Commit_:
		into := w.state
		if t.next != nil {
			into = t.next
		}
		for _, change := range event.Commit.GetChanges() {
			if err := apply(into, change); err != nil {
				return err
			}
		}
		if t.next != nil {
			return nil
		}
		if len(event.Commit.GetChanges()) > 0 {
			w.signal()
		}
	case *credstorev1.WatchResponse_Synced_:
		if t.next != nil {
			// What was not sent again since the reset does not exist any more.
			w.state, t.next = t.next, nil
			w.signal()
		}
		if !w.first {
			w.first = true
			close(w.synced)
		}
	}
	if t.next == nil {
		w.revision = m.GetRevision()
		if token := m.GetResumeToken(); token != "" {
			w.token = token
		}
	}
	return nil
}

// apply applies one change. Whatever is not a PUT says that the credential is
// not for this watcher any more.
func apply(state map[string]Credential, c *credstorev1.Change) error {
	name := c.GetCredential().GetName()
	switch {
	case name == "":
		return errors.New("the server sent a change without a name")
	case c.GetType() == credstorev1.Change_PUT:
		state[name] = Credential{Metadata: c.GetCredential(), Payload: c.GetPayload()}
	case c.GetType() == credstorev1.Change_TYPE_UNSPECIFIED:
		return errors.New("the server sent a change without a type")
	default:
		delete(state, name)
	}
	return nil
}

// signal puts a token into changed unless there is one.
func (w *Watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

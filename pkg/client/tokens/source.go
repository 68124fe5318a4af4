package tokens

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

const (
	// leeway is how much time a token that is handed out has at least, unless it
	// never had ten times as much: the time in which it is used.
	leeway = 10 * time.Second
	// mintTimeout bounds one call of the server, vendor included.
	mintTimeout = 30 * time.Second
	// A mint that failed is tried again after this long, twice as long each time.
	firstPause = time.Second
	mostPause  = time.Minute
	// maxEntries bounds the requests that are kept; the one that was used least
	// recently goes first.
	maxEntries = 256
	// forgetAfter is how long a request that nobody makes is kept current when its
	// credential changes.
	forgetAfter = time.Hour
)

// ErrClosed says that a Source was used after its Close.
var ErrClosed = errors.New("token source is closed")

// errEnded keeps a source from asking again and again when the clocks differ.
var errEnded = errors.New("the token had ended when it arrived: compare the clocks of this machine and of credstore's")

// Options say whose tokens to keep.
type Options struct {
	// Client is required, and must stay open while the Source is.
	Client *client.Client
	// Credential is required: "projects/{project}/credentials/{credential}".
	Credential string
	// Consumer is who asks, as shown to operators; optional.
	Consumer string
}

// Source keeps the tokens of one credential current, for each request that is
// made of it. It is safe for any number of goroutines.
type Source struct {
	client  *client.Client
	name    string
	watcher *client.Watcher
	ctx     context.Context //nolint:containedctx // ends the goroutines, which outlive the call that starts one
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	active  version // as the watch last told
	entries map[string]*entry
}

// entry is one request with the last token that answered it.
type entry struct {
	request *credentialv1.TokenRequest
	used    time.Time

	token *credentialv1.Token
	// seen is the active version when the token was asked for.
	seen      version
	expire    time.Time
	leeway    time.Duration
	refreshAt time.Time

	// flight is closed when the call that is under way has ended; nil when none is.
	flight  chan struct{}
	err     error // of the last call, nil when it succeeded
	retryAt time.Time
	pause   time.Duration
}

// New returns a source, and starts to watch its credential. It makes no call:
// what a server refuses is the error of [Source.Token]. Without the permission to
// watch, a change of the credential is noticed when a token is due. The caller
// closes it.
func New(o Options) (*Source, error) {
	if o.Client == nil {
		return nil, errors.New("token source: a client is required")
	}
	project, _, ok := strings.Cut(o.Credential, "/credentials/")
	if !ok {
		return nil, errors.New("token source: name the credential in full, as projects/default/credentials/aws-prod")
	}
	w, err := o.Client.WatchCredentials(client.WatchOptions{Parent: project, Names: []string{o.Credential}, Consumer: o.Consumer})
	if err != nil {
		return nil, fmt.Errorf("token source: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Source{client: o.Client, name: o.Credential, watcher: w, ctx: ctx, stop: stop, entries: make(map[string]*entry)}
	s.wg.Go(s.follow)
	return s, nil
}

// Close ends the watch and all calls that are under way.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.watcher.Close()
	s.wg.Wait()
}

// Token returns a token that answers the request, nil for what the credential's
// kind mints by itself. It waits only when there is none that is good: for the
// first, and after an end that could not be helped. Its error is that of the
// call to credstore. The token is the caller's own.
func (s *Source) Token(ctx context.Context, request *credentialv1.TokenRequest) (*credentialv1.Token, error) {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("token of %s: %w", s.name, err)
	}
	for asked := false; ; asked = true {
		token, flight, err := s.look(string(key), request, asked)
		if token != nil || err != nil {
			return token, err
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, fmt.Errorf("token of %s: %w", s.name, context.Cause(ctx))
		}
	}
}

// Authorization returns what an Authorization header carries (RFC 6750, section
// 2.1), for requests that are answered with a bearer token; nil means what the
// credential's kind mints by itself. Its errors are those of [Source.Token], and
// one that says that the token is none to be sent so.
func (s *Source) Authorization(ctx context.Context, request *credentialv1.TokenRequest) (string, error) {
	token, err := s.Token(ctx, request)
	if err != nil {
		return "", err
	}
	bearer := token.GetBearer()
	if bearer == nil {
		return "", fmt.Errorf("%s: the request is not answered with a bearer token", s.name)
	}
	kind := bearer.GetType()
	if kind == "" {
		kind = "Bearer"
	}
	return kind + " " + bearer.GetToken(), nil
}

// Format writes whose tokens these are, for every verb: printing takes no lock and
// shows no token.
func (s *Source) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "tokens of %q", s.name) }

// look returns a good token, or the call to wait for, or why there is neither.
// It starts a call when one is due. asked says that the caller has waited for one
// already, whose error is then final.
func (s *Source) look(key string, request *credentialv1.TokenRequest, asked bool) (*credentialv1.Token, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	now := time.Now()
	e := s.entry(key, request)
	e.used = now
	good := e.token != nil && (e.expire.IsZero() || now.Before(e.expire.Add(-e.leeway)))
	failed := e.err != nil && (asked || now.Before(e.retryAt))
	if e.flight == nil && !failed && (!good || !now.Before(e.refreshAt) || e.old(s.active)) {
		s.start(e)
	}
	switch {
	case good:
		return proto.CloneOf(e.token), nil, nil
	case e.flight != nil:
		return nil, e.flight, nil
	}
	return nil, nil, fmt.Errorf("token of %s: %w", s.name, e.err)
}

// entry returns that of a request, made if there is none.
func (s *Source) entry(key string, request *credentialv1.TokenRequest) *entry {
	if e, ok := s.entries[key]; ok {
		return e
	}
	for len(s.entries) >= maxEntries {
		oldest := ""
		for k, e := range s.entries {
			if e.flight == nil && (oldest == "" || e.used.Before(s.entries[oldest].used)) {
				oldest = k
			}
		}
		if oldest == "" {
			break // all are being asked for; they are few more than the bound
		}
		delete(s.entries, oldest)
	}
	e := &entry{request: proto.CloneOf(request)}
	s.entries[key] = e
	return e
}

// old says whether another version became active since the token was asked for.
func (e *entry) old(active version) bool { return e.token != nil && e.seen.isOther(active) }

// start begins a call for an entry; the caller holds the lock.
func (s *Source) start(e *entry) {
	e.flight = make(chan struct{})
	seen := s.active
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, mintTimeout)
		defer cancel()
		answer, err := s.client.Credentials.MintToken(ctx, &credstorev1.MintTokenRequest{Name: s.name, Token: e.request})
		s.mu.Lock()
		defer s.mu.Unlock()
		close(e.flight)
		e.flight = nil
		if err != nil {
			e.failed(err)
			return
		}
		e.take(answer)
		if e.seen = seen; seen == (version{}) {
			e.seen = versionNamed(answer.GetVersion())
			e.seen.identify(s.active)
		}
		if e.old(s.active) && !s.closed {
			s.start(e) // the credential changed while the call was under way
		}
	})
}

func (e *entry) failed(err error) {
	e.pause = min(max(2*e.pause, firstPause), mostPause)
	e.err, e.retryAt = err, time.Now().Add(jitter(e.pause))
}

func (e *entry) take(answer *credstorev1.MintTokenResponse) {
	now := time.Now()
	e.token, e.err, e.pause = answer.GetToken(), nil, 0
	if e.token.ExpireTime == nil {
		// What does not end may still change, as a stored password.
		e.expire, e.leeway, e.refreshAt = time.Time{}, 0, now.Add(jitter(time.Minute))
		return
	}
	e.expire = e.token.GetExpireTime().AsTime()
	life := e.expire.Sub(now)
	if life <= 0 {
		e.token = nil
		e.failed(errEnded)
		return
	}
	e.leeway = max(min(leeway, life/10), 0)
	e.refreshAt = now.Add(jitter(life * 3 / 4))
}

// jitter shortens a time at random, by a fifth at most, so that programs that
// were started together do not ask together.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*float64(d)/5) //nolint:gosec // spreads calls, guards nothing
}

// follow renews the tokens that are in use as soon as their credential changes.
func (s *Source) follow() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.watcher.Changed():
		}
		c, ok := s.watcher.Get(s.name)
		if !ok {
			continue // it is gone, or not known yet: tokens live until their end
		}
		s.mu.Lock()
		now := version{uid: c.Metadata.GetUid(), number: c.Metadata.GetActiveVersion()}
		changed := s.active != now
		s.active = now
		for _, e := range s.entries {
			e.seen.identify(now)
			if changed {
				e.pause, e.retryAt = 0, time.Time{} // what was refused may work now
			}
			if e.flight == nil && e.old(s.active) && !s.closed && time.Since(e.used) < forgetAfter {
				s.start(e)
			}
		}
		s.mu.Unlock()
	}
}

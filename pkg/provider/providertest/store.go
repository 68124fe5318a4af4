package providertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// Store is an external store in memory. It checks what it receives as a real one
// does: who logs in, whether a session's token is still good, and what exists.
// The zero value is not usable; call NewStore.
type Store struct {
	// TokenTime is how long a login lasts unless it is renewed; 0 is for ever. Set
	// it before the first Open.
	TokenTime time.Duration
	// OnFetch is called at the start of each read, without a lock, so that a test
	// can hold it up; nil for nothing. Set it before the first Open.
	OnFetch func(ctx context.Context, login string, ref provider.Ref) error

	mu      sync.Mutex
	secrets map[string][]version
	logins  map[string]bool
	tokens  map[int]time.Time // each with its end, zero for none
	next    int
	down    *provider.Error
	calls   []Call
}

// Call is one request that reached the store.
type Call struct {
	Time  time.Time
	Op    string // "login", "read", "renew", "identify", "close"
	Login string
	Ref   provider.Ref // of a read
}

type version struct {
	values             map[string]string
	deleted, destroyed bool
}

// NewStore returns a store that lets in who has one of the logins.
func NewStore(logins ...string) *Store {
	s := &Store{secrets: map[string][]version{}, logins: map[string]bool{}, tokens: map[int]time.Time{}}
	for _, l := range logins {
		s.logins[l] = true
	}
	return s
}

// Put writes a new version and returns its number.
func (s *Store) Put(path string, values map[string]string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[path] = append(s.secrets[path], version{values: maps.Clone(values)})
	return uint32(len(s.secrets[path]))
}

// Delete, Undelete and Destroy act on one version, which must exist.
func (s *Store) Delete(path string, n uint32) {
	s.change(path, n, func(v *version) { v.deleted = true })
}

// Undelete takes a Delete back.
func (s *Store) Undelete(path string, n uint32) {
	s.change(path, n, func(v *version) { v.deleted = false })
}

// Destroy forgets the content for good.
func (s *Store) Destroy(path string, n uint32) {
	s.change(path, n, func(v *version) { *v = version{destroyed: true} })
}

func (s *Store) change(path string, n uint32, f func(*version)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.secrets[path][n-1])
}

// SetLogin says whether a login is good. Sessions that it opened go on.
func (s *Store) SetLogin(login string, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins[login] = good
}

// EndLogins ends the tokens of all sessions.
func (s *Store) EndLogins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// SetDown makes the store answer everything with err; nil ends that.
func (s *Store) SetDown(err *provider.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// Tokens returns how many sessions are open.
func (s *Store) Tokens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

// Calls returns the requests so far, in their order, of one operation or all
// ("").
func (s *Store) Calls(op string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.calls)
	if op == "" {
		return all
	}
	return slices.DeleteFunc(all, func(c Call) bool { return c.Op != op })
}

// Open logs in.
func (s *Store) Open(ctx context.Context, login string) (provider.Session, error) {
	f := &session{store: s, login: func() string { return login }}
	if err := f.logIn(ctx); err != nil {
		return nil, err
	}
	return f, nil
}

// arrive records a request, and answers it when the store is down. The lock must
// be held.
func (s *Store) arrive(c Call) error {
	c.Time = time.Now()
	s.calls = append(s.calls, c)
	if s.down == nil {
		return nil
	}
	e := *s.down
	e.Op = c.Op
	return &e
}

// session logs in anew by itself when its token has ended.
type session struct {
	store *Store
	// login is a function because nothing that prints by reflection looks into one.
	login func() string
	// The store's lock guards the rest.
	token  int
	closed bool
}

func (f *session) logIn(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	return f.logInLocked()
}

func (f *session) logInLocked() error {
	s := f.store
	if err := s.arrive(Call{Op: "login", Login: f.login()}); err != nil {
		return err
	}
	if !s.logins[f.login()] {
		return &provider.Error{Kind: provider.ErrRefused, Op: "login", Status: 400, Text: "unknown login"}
	}
	s.next++
	f.token = s.next
	s.tokens[f.token] = s.end()
	return nil
}

func (s *Store) end() time.Time {
	if s.TokenTime == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.TokenTime)
}

// good says whether the token is. The lock must be held.
func (f *session) good() bool {
	end, ok := f.store.tokens[f.token]
	return ok && (end.IsZero() || time.Now().Before(end))
}

func (f *session) Fetch(ctx context.Context, ref provider.Ref) (provider.Secret, error) {
	if ctx.Err() != nil {
		return provider.Secret{}, ctx.Err()
	}
	for e := range strings.SplitSeq(ref.Path, "/") {
		if e == "" || e == "." || e == ".." || strings.ContainsRune(e, 0) {
			return provider.Secret{}, &provider.Error{Kind: provider.ErrRefused, Op: "read", Text: "no path"}
		}
	}
	if f.store.OnFetch != nil {
		if err := f.store.OnFetch(ctx, f.login(), ref); err != nil {
			return provider.Secret{}, err
		}
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.closed {
		return provider.Secret{}, provider.ErrClosed
	}
	if err := s.arrive(Call{Op: "read", Login: f.login(), Ref: ref}); err != nil {
		return provider.Secret{}, err
	}
	if !f.good() {
		if err := f.logInLocked(); err != nil {
			if e, ok := errors.AsType[*provider.Error](err); ok {
				e.LoginLost = true
			}
			return provider.Secret{}, err
		}
	}
	return s.read(ref)
}

func (s *Store) read(ref provider.Ref) (provider.Secret, error) {
	versions := s.secrets[ref.Path]
	n := int(ref.Version)
	if n == 0 {
		n = len(versions)
	}
	if n == 0 || n > len(versions) {
		return provider.Secret{}, &provider.Error{Kind: provider.ErrMissing, Op: "read", Status: 404, Text: "nothing there"}
	}
	v := versions[n-1]
	switch {
	case v.destroyed:
		return provider.Secret{}, &provider.Error{Kind: provider.ErrDestroyed, Op: "read", Status: 404, Text: fmt.Sprintf("version %d was destroyed", n)}
	case v.deleted:
		return provider.Secret{}, &provider.Error{Kind: provider.ErrDeleted, Op: "read", Status: 404, Text: fmt.Sprintf("version %d was deleted", n)}
	}
	values := make(map[string][]byte, len(v.values))
	for k, text := range v.values {
		values[k] = []byte(text)
	}
	return provider.Secret{Values: values, Version: fmt.Sprint(n)}, nil
}

func (f *session) Identify(context.Context) (string, error) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if err := f.store.arrive(Call{Op: "identify", Login: f.login()}); err != nil {
		return "", err
	}
	return fmt.Sprintf("session %d", f.token), nil
}

func (f *session) RenewTime() time.Time {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	end, ok := f.store.tokens[f.token]
	if !ok || end.IsZero() {
		return time.Time{}
	}
	return end.Add(-f.store.TokenTime / 3)
}

func (f *session) Renew(context.Context) error {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if err := f.store.arrive(Call{Op: "renew", Login: f.login()}); err != nil {
		return err
	}
	if !f.good() {
		return &provider.Error{Kind: provider.ErrRefused, Op: "renew", Status: 403, Text: "the token has ended"}
	}
	f.store.tokens[f.token] = f.store.end()
	return nil
}

func (f *session) Close(context.Context) error {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	delete(f.store.tokens, f.token)
	return f.store.arrive(Call{Op: "close", Login: f.login()})
}

// Format keeps the login out of what is printed.
func (f *session) Format(w fmt.State, _ rune) {
	_, _ = io.WriteString(w, "providertest.session")
}

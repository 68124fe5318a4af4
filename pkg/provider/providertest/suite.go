package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/provider"
)

// Harness is a vendor's store, real or fake, as the suite drives it. The store
// stays the same for the whole suite, which uses paths below "suite/".
type Harness struct {
	// Open logs in with a login that is good.
	Open func(ctx context.Context) (provider.Session, error)
	// OpenRefused logs in with one that the store refuses.
	OpenRefused func(ctx context.Context) (provider.Session, error)
	// Put writes a new version of a secret and returns its number.
	Put func(t *testing.T, path string, values map[string]string) uint32
	// Delete, Undelete and Destroy act on one version.
	Delete, Undelete, Destroy func(t *testing.T, path string, version uint32)
	// EndLogins makes the store forget what it gave to all open sessions, which
	// must then log in by themselves. Nil when the vendor has no such logins.
	EndLogins func(t *testing.T)
	// Stop makes the store unreachable until start is called. Nil when it cannot.
	Stop func(t *testing.T) (start func())
	// Secrets are strings that no error and no printed session may contain.
	Secrets []string
}

// Run checks that sessions behave as package provider promises.
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Value", testValue},
		{"NewVersion", testNewVersion},
		{"PinnedVersion", testPinnedVersion},
		{"Missing", testMissing},
		{"Deleted", testDeleted},
		{"Destroyed", testDestroyed},
		{"PathsStayInside", testPathsStayInside},
		{"LoginRefused", testLoginRefused},
		{"LoginEnded", testLoginEnded},
		{"Unavailable", testUnavailable},
		{"Cancelled", testCancelled},
		{"Concurrent", testConcurrent},
		{"Identify", testIdentify},
		{"Renew", testRenew},
		{"Close", testClose},
		{"PrintsNoSecrets", testPrintsNoSecrets},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h) })
	}
}

func open(t *testing.T, h Harness) provider.Session {
	t.Helper()
	s, err := h.Open(t.Context())
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { closeSession(s) })
	return s
}

func closeSession(s provider.Session) {
	if c, ok := s.(provider.Closer); ok {
		_ = c.Close(context.Background()) // may have been closed, or lost its login
	}
}

func fetch(t *testing.T, s provider.Session, path string, version uint32) map[string]string {
	t.Helper()
	secret, err := s.Fetch(t.Context(), provider.Ref{Path: path, Version: version})
	if err != nil {
		t.Fatalf("Fetch(%s, %d): %v", path, version, err)
	}
	if secret.Values == nil {
		t.Fatalf("Fetch(%s, %d): no map of values", path, version)
	}
	if secret.Version == "" {
		t.Errorf("Fetch(%s, %d): no version", path, version)
	}
	values := make(map[string]string, len(secret.Values))
	for k, v := range secret.Values {
		values[k] = string(v)
	}
	return values
}

func wantValues(t *testing.T, s provider.Session, path string, version uint32, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, fetch(t, s, path, version)); diff != "" {
		t.Errorf("Fetch(%s, %d) (-want +got):\n%s", path, version, diff)
	}
}

// wantKind checks an error against the promises about all errors.
func wantKind(t *testing.T, h Harness, err, kind error) {
	t.Helper()
	var e *provider.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) {
		t.Fatalf("error is %v; want a *provider.Error of kind %q", err, kind)
	}
	if e.Op == "" {
		t.Errorf("error %q names no operation", err)
	}
	if n := len([]rune(e.Text)); n == 0 && e.Status == 0 || n > provider.MaxText {
		t.Errorf("error %q says %d characters of what was answered", err, n)
	}
	noSecrets(t, h, err.Error())
}

func noSecrets(t *testing.T, h Harness, text string) {
	t.Helper()
	for i, s := range h.Secrets {
		if strings.Contains(text, s) {
			t.Errorf("%q contains secret %d", text, i)
		}
	}
}

func testValue(t *testing.T, h Harness) {
	want := map[string]string{
		"password": "p\u00e4ss w\u00f6rd", "empty": "", "lines": "one\ntwo\n", "quoted": `"<&>"`,
		"odd.key/with space": "x", "long": strings.Repeat("0123456789", 5000),
	}
	h.Put(t, "suite/value", want)
	s := open(t, h)
	wantValues(t, s, "suite/value", 0, want)
	h.Put(t, "suite/deeper/in/the-tree/value", map[string]string{"a": "b"})
	wantValues(t, s, "suite/deeper/in/the-tree/value", 0, map[string]string{"a": "b"})
}

func testNewVersion(t *testing.T, h Harness) {
	s := open(t, h)
	h.Put(t, "suite/new", map[string]string{"k": "1"})
	first, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/new"})
	if err != nil {
		t.Fatal(err)
	}
	h.Put(t, "suite/new", map[string]string{"k": "2", "more": "x"})
	wantValues(t, s, "suite/new", 0, map[string]string{"k": "2", "more": "x"})
	second, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/new"})
	if err != nil {
		t.Fatal(err)
	}
	if first.Version == second.Version {
		t.Errorf("two contents have the same version %q", first.Version)
	}
}

func testPinnedVersion(t *testing.T, h Harness) {
	s := open(t, h)
	one := h.Put(t, "suite/pinned", map[string]string{"k": "1"})
	two := h.Put(t, "suite/pinned", map[string]string{"k": "2"})
	wantValues(t, s, "suite/pinned", one, map[string]string{"k": "1"})
	wantValues(t, s, "suite/pinned", two, map[string]string{"k": "2"})
}

func testMissing(t *testing.T, h Harness) {
	s := open(t, h)
	_, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/never-there"})
	wantKind(t, h, err, provider.ErrMissing)
	n := h.Put(t, "suite/present", map[string]string{"k": "1"})
	_, err = s.Fetch(t.Context(), provider.Ref{Path: "suite/present", Version: n + 1000})
	wantKind(t, h, err, provider.ErrMissing)
	_, again := s.Fetch(t.Context(), provider.Ref{Path: "suite/present", Version: n + 1000})
	if again == nil || again.Error() != err.Error() {
		t.Errorf("the same answer reads %q, then %q", err, again)
	}
}

func testDeleted(t *testing.T, h Harness) {
	s := open(t, h)
	one := h.Put(t, "suite/deleted", map[string]string{"k": "1"})
	two := h.Put(t, "suite/deleted", map[string]string{"k": "2"})
	h.Delete(t, "suite/deleted", two)
	_, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/deleted"})
	wantKind(t, h, err, provider.ErrDeleted)
	_, err = s.Fetch(t.Context(), provider.Ref{Path: "suite/deleted", Version: two})
	wantKind(t, h, err, provider.ErrDeleted)
	wantValues(t, s, "suite/deleted", one, map[string]string{"k": "1"})
	h.Undelete(t, "suite/deleted", two)
	wantValues(t, s, "suite/deleted", 0, map[string]string{"k": "2"})
}

func testDestroyed(t *testing.T, h Harness) {
	s := open(t, h)
	one := h.Put(t, "suite/destroyed", map[string]string{"k": "1"})
	two := h.Put(t, "suite/destroyed", map[string]string{"k": "2"})
	h.Destroy(t, "suite/destroyed", one)
	_, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/destroyed", Version: one})
	wantKind(t, h, err, provider.ErrDestroyed)
	wantValues(t, s, "suite/destroyed", 0, map[string]string{"k": "2"})
	h.Destroy(t, "suite/destroyed", two)
	_, err = s.Fetch(t.Context(), provider.Ref{Path: "suite/destroyed"})
	wantKind(t, h, err, provider.ErrDestroyed)
}

func testPathsStayInside(t *testing.T, h Harness) {
	s := open(t, h)
	for _, path := range []string{"", ".", "..", "../suite/value", "suite/../../sys/mounts", "suite//value", "/suite/value", "suite/value/", "suite/\x00"} {
		_, err := s.Fetch(t.Context(), provider.Ref{Path: path})
		wantKind(t, h, err, provider.ErrRefused)
	}
	for _, path := range []string{"suite/odd?version=1", "suite/odd#x", "suite/odd%2f..%2fx", "suite/\u00fc"} {
		_, err := s.Fetch(t.Context(), provider.Ref{Path: path})
		if !errors.Is(err, provider.ErrMissing) && !errors.Is(err, provider.ErrRefused) {
			t.Errorf("Fetch(%q): error is %v; want that it is missing or refused", path, err)
		}
	}
}

func testLoginRefused(t *testing.T, h Harness) {
	s, err := h.OpenRefused(t.Context())
	if err == nil {
		t.Cleanup(func() { closeSession(s) })
	}
	wantKind(t, h, err, provider.ErrRefused)
}

func testLoginEnded(t *testing.T, h Harness) {
	if h.EndLogins == nil {
		t.Skip("sessions of this harness have a login that cannot be made anew")
	}
	s := open(t, h)
	h.Put(t, "suite/ended", map[string]string{"k": "1"})
	wantValues(t, s, "suite/ended", 0, map[string]string{"k": "1"})
	for range 3 {
		h.EndLogins(t)
		wantValues(t, s, "suite/ended", 0, map[string]string{"k": "1"})
	}
}

func testUnavailable(t *testing.T, h Harness) {
	if h.Stop == nil {
		t.Skip("the store of this harness cannot be stopped")
	}
	s := open(t, h)
	h.Put(t, "suite/unavailable", map[string]string{"k": "1"})
	start := h.Stop(t)
	_, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/unavailable"})
	if err == nil {
		start()
		t.Fatal("Fetch succeeded while the store was stopped")
	}
	_, again := s.Fetch(t.Context(), provider.Ref{Path: "suite/unavailable"})
	_, openErr := h.Open(t.Context())
	start()
	wantKind(t, h, err, provider.ErrUnavailable)
	wantKind(t, h, openErr, provider.ErrUnavailable)
	if again == nil || again.Error() != err.Error() {
		t.Errorf("the same answer reads %q, then %q", err, again)
	}
	wantValues(t, s, "suite/unavailable", 0, map[string]string{"k": "1"})
}

func testCancelled(t *testing.T, h Harness) {
	s := open(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fetch(ctx, provider.Ref{Path: "suite/cancelled"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch: error is %v; want that of the context", err)
	}
	if s, err := h.Open(ctx); !errors.Is(err, context.Canceled) {
		if err == nil {
			closeSession(s)
		}
		t.Errorf("Open: error is %v; want that of the context", err)
	}
}

func testConcurrent(t *testing.T, h Harness) {
	s := open(t, h)
	for i := range 4 {
		h.Put(t, fmt.Sprintf("suite/concurrent-%d", i), map[string]string{"k": fmt.Sprint(i)})
	}
	if h.EndLogins != nil {
		h.EndLogins(t)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			secret, err := s.Fetch(t.Context(), provider.Ref{Path: fmt.Sprintf("suite/concurrent-%d", i%4)})
			if got := string(secret.Values["k"]); err != nil || got != fmt.Sprint(i%4) {
				t.Errorf("Fetch %d: %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func testIdentify(t *testing.T, h Harness) {
	s := open(t, h)
	i, ok := s.(provider.Identifier)
	if !ok {
		t.Skip("sessions of this vendor cannot say whose they are")
	}
	identity, err := i.Identify(t.Context())
	if err != nil || identity == "" {
		t.Fatalf("Identify: %q, %v", identity, err)
	}
	noSecrets(t, h, identity)
}

func testRenew(t *testing.T, h Harness) {
	s := open(t, h)
	r, ok := s.(provider.Renewer)
	if !ok || r.RenewTime().IsZero() {
		t.Skip("sessions of this harness need no renewal")
	}
	if err := r.Renew(t.Context()); err != nil {
		t.Fatalf("Renew: %v", err)
	}
	if next := r.RenewTime(); !next.After(time.Now()) {
		t.Errorf("after a renewal the next is due at %s, which is not to come", next)
	}
	h.Put(t, "suite/renewed", map[string]string{"k": "1"})
	wantValues(t, s, "suite/renewed", 0, map[string]string{"k": "1"})
}

func testClose(t *testing.T, h Harness) {
	s := open(t, h)
	h.Put(t, "suite/close", map[string]string{"k": "1"})
	c, ok := s.(provider.Closer)
	if !ok {
		t.Skip("sessions of this vendor hold nothing")
	}
	other := open(t, h)
	if err := c.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/close"}); err == nil {
		t.Error("Fetch succeeded after Close")
	}
	wantValues(t, other, "suite/close", 0, map[string]string{"k": "1"})
}

func testPrintsNoSecrets(t *testing.T, h Harness) {
	const canary = "canary-3f9d1c"
	h.Put(t, "suite/printed", map[string]string{"k": canary})
	s := open(t, h)
	secret, err := s.Fetch(t.Context(), provider.Ref{Path: "suite/printed"})
	if err != nil {
		t.Fatal(err)
	}
	h.Secrets = append([]string{canary}, h.Secrets...)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "session", s, "secret", secret, "pointer", &secret)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "session", s, "secret", secret, "pointer", &secret)
	noSecrets(t, h, log.String())
	type holder struct {
		S      provider.Session
		Secret provider.Secret
		P      *provider.Secret
		hidden provider.Session
	}
	for _, v := range []any{s, secret, &secret, holder{s, secret, &secret, s}, []any{s, secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			noSecrets(t, h, fmt.Sprintf(verb, v))
		}
		if text, err := json.Marshal(v); err == nil {
			noSecrets(t, h, string(text))
		}
	}
}

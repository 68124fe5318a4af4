package provider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

const login = "login-canary"

var sealed = &provider.Error{Kind: provider.ErrUnavailable, Status: 503, Text: "sealed"}

func newClient(s *providertest.Store, p provider.Policy) *provider.Client {
	if p.Random == nil {
		p.Random = func() float64 { return 0.999 }
	}
	return provider.NewClient(func(ctx context.Context) (provider.Session, error) { return s.Open(ctx, login) }, p)
}

func fetch(t *testing.T, c *provider.Client) error {
	t.Helper()
	_, err := c.Fetch(t.Context(), provider.Ref{Path: "x"})
	return err
}

func TestClientOpensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", map[string]string{"k": "v"})
		c := newClient(s, provider.Policy{})
		if len(s.Calls("")) != 0 {
			t.Error("the store was called before it was needed")
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				secret, err := c.Fetch(t.Context(), provider.Ref{Path: "x"})
				if err != nil || string(secret.Values["k"]) != "v" {
					t.Errorf("Fetch: %v", err)
				}
			})
		}
		wg.Wait()
		if n := len(s.Calls("login")); n != 1 {
			t.Errorf("%d logins", n)
		}
		if who, err := c.Identify(t.Context()); err != nil || who != "session 1" {
			t.Errorf("Identify: %q, %v", who, err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if s.Tokens() != 0 {
			t.Error("a session is open after Close")
		}
		if err := fetch(t, c); !errors.Is(err, provider.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestClientRetriesOnlyWhatMayPass(t *testing.T) {
	for _, test := range []struct {
		name  string
		err   *provider.Error
		calls int
	}{
		{"unavailable", &provider.Error{Kind: provider.ErrUnavailable, Text: "x"}, 3},
		{"come back later than there is time", &provider.Error{Kind: provider.ErrUnavailable, Text: "x", RetryAfter: time.Minute}, 1},
		{"refused", &provider.Error{Kind: provider.ErrRefused, Text: "x"}, 1},
		{"missing", &provider.Error{Kind: provider.ErrMissing, Text: "x"}, 1},
		{"deleted", &provider.Error{Kind: provider.ErrDeleted, Text: "x"}, 1},
		{"destroyed", &provider.Error{Kind: provider.ErrDestroyed, Text: "x"}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := providertest.NewStore(login)
				calls := 0
				s.OnFetch = func(context.Context, string, provider.Ref) error { calls++; return test.err }
				c := newClient(s, provider.Policy{Attempts: 3})
				if err := fetch(t, c); !errors.Is(err, test.err.Kind) || calls != test.calls {
					t.Errorf("%d calls, %v; want %d", calls, err, test.calls)
				}
			})
		})
	}
}

func TestClientRecoversWithinACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", nil)
		calls := 0
		s.OnFetch = func(context.Context, string, provider.Ref) error {
			if calls++; calls == 1 {
				return &provider.Error{Kind: provider.ErrUnavailable, RetryAfter: 3 * time.Second}
			}
			return nil
		}
		start := time.Now()
		if err := fetch(t, newClient(s, provider.Policy{})); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %s; want what the store asked for, 3 s", err, time.Since(start))
		}
	})
}

func TestClientDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.OnFetch = func(ctx context.Context, _ string, _ provider.Ref) error { <-ctx.Done(); return ctx.Err() }
		c := newClient(s, provider.Policy{Timeout: 7 * time.Second})
		start := time.Now()
		err := fetch(t, c)
		if want := "read: store unavailable: no answer within 7s"; err == nil || err.Error() != want || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %s; want %q", err, time.Since(start), want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Fetch(ctx, provider.Ref{Path: "x"}); err != context.DeadlineExceeded { //nolint:errorlint // unwrapped: it is the caller's own
			t.Errorf("when the caller gives up: %v", err)
		}
	})
}

// A store that fails is left alone for longer and longer, then asked by one call
// at a time, and trusted again after one answer.
func TestClientBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", nil)
		c := newClient(s, provider.Policy{Attempts: 1, BreakAfter: 3, MaxPause: 8 * time.Second})
		if err := fetch(t, c); err != nil {
			t.Fatal(err)
		}
		s.SetDown(sealed)
		start := time.Now()
		var at []time.Duration
		seen := len(s.Calls("read"))
		for time.Since(start) < 40*time.Second {
			err := fetch(t, c)
			var e *provider.Error
			if !errors.As(err, &e) || err.Error() != "read: store unavailable: 503 sealed" {
				t.Fatalf("error is %v", err)
			}
			asked := len(s.Calls("read")) > seen
			if asked == e.NotAsked {
				t.Fatalf("NotAsked is %t, and the store was asked: %t", e.NotAsked, asked)
			}
			if e.NotAsked && e.RetryAfter <= 0 {
				t.Fatalf("RetryAfter is %s", e.RetryAfter)
			}
			if asked {
				seen = len(s.Calls("read"))
				at = append(at, time.Since(start).Round(time.Second))
			}
			time.Sleep(100 * time.Millisecond)
		}
		// Three in a row, then after pauses of 1, 2, 4, 8, 8, … seconds.
		want := []time.Duration{0, 0, 0, 1e9, 3e9, 7e9, 15e9, 23e9, 31e9, 39e9}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		s.SetDown(nil)
		time.Sleep(8 * time.Second)
		for range 5 {
			if err := fetch(t, c); err != nil {
				t.Errorf("after recovery: %v", err)
			}
		}
	})
}

func TestClientProbesOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", nil)
		release := make(chan struct{})
		var active atomic.Int32
		s.OnFetch = func(context.Context, string, provider.Ref) error {
			active.Add(1)
			<-release
			return nil
		}
		c := newClient(s, provider.Policy{Attempts: 1, BreakAfter: 1})
		s.SetDown(sealed)
		if err := fetch(t, c); !errors.Is(err, provider.ErrUnavailable) {
			t.Fatal(err)
		}
		s.SetDown(nil)
		time.Sleep(time.Minute)
		results := make(chan error, 10)
		for range 10 {
			go func() { results <- fetch(t, c) }()
		}
		synctest.Wait()
		if active.Load() != 1 || len(results) != 9 {
			t.Errorf("%d calls under way, %d refused; want 1 and 9", active.Load(), len(results))
		}
		close(release)
		synctest.Wait()
		ok := 0
		for range 10 {
			if err := <-results; err == nil {
				ok++
			}
		}
		if ok != 1 {
			t.Errorf("%d calls succeeded", ok)
		}
		if err := fetch(t, c); err != nil {
			t.Errorf("after the probe's answer: %v", err)
		}
	})
}

// A probe whose caller gives up leaves the way free for the next.
func TestClientProbeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", nil)
		hang := true
		s.OnFetch = func(ctx context.Context, _ string, _ provider.Ref) error {
			if hang {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		c := newClient(s, provider.Policy{Attempts: 1, BreakAfter: 1})
		s.SetDown(sealed)
		_ = fetch(t, c)
		s.SetDown(nil)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Fetch(ctx, provider.Ref{Path: "x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("probe: %v", err)
		}
		hang = false
		if err := fetch(t, c); err != nil {
			t.Errorf("next probe: %v", err)
		}
	})
}

func TestClientReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", nil)
		c := newClient(s, provider.Policy{Attempts: 1})
		s.SetDown(sealed)
		_ = fetch(t, c) // a login that fails opens it at once
		s.SetDown(nil)
		if err := fetch(t, c); !errors.Is(err, provider.ErrUnavailable) {
			t.Fatalf("during the pause: %v", err)
		}
		c.Reset()
		if err := fetch(t, c); err != nil {
			t.Errorf("after Reset: %v", err)
		}
	})
}

// A refused login is not tried again soon, whoever asks.
func TestClientLoginRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore()
		c := newClient(s, provider.Policy{MaxPause: time.Minute})
		for range 590 {
			err := fetch(t, c)
			if !errors.Is(err, provider.ErrRefused) || err.Error() != "login: refused: 400 unknown login" {
				t.Fatalf("error is %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := len(s.Calls("login")); n != 10 {
			t.Errorf("%d logins in 10 minutes", n)
		}
	})
}

// Those who wait for a login that fails do not try the same one after the other.
func TestClientLoginFailsForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		c := provider.NewClient(func(context.Context) (provider.Session, error) {
			logins++
			time.Sleep(time.Second)
			return nil, &provider.Error{Kind: provider.ErrRefused, Op: "login", Text: "wrong"}
		}, provider.Policy{})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := fetch(t, c); err == nil || err.Error() != "login: refused: wrong" {
					t.Errorf("error is %v", err)
				}
			})
		}
		wg.Wait()
		if logins != 1 {
			t.Errorf("%d logins", logins)
		}
	})
}

// A session whose login is lost is closed and replaced.
func TestClientReopens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []*losing
		c := provider.NewClient(func(context.Context) (provider.Session, error) {
			all = append(all, &losing{})
			return all[len(all)-1], nil
		}, provider.Policy{Attempts: 1, MaxPause: time.Minute})
		if err := fetch(t, c); err != nil {
			t.Fatal(err)
		}
		all[0].lost = true
		if err := fetch(t, c); !errors.Is(err, provider.ErrRefused) || !all[0].closed {
			t.Fatalf("error is %v; closed: %t", err, all[0].closed)
		}
		time.Sleep(time.Minute)
		if err := fetch(t, c); err != nil || len(all) != 2 {
			t.Errorf("%d sessions, %v", len(all), err)
		}
	})
}

// losing is a session that may lose its login.
type losing struct{ lost, closed bool }

func (l *losing) Fetch(context.Context, provider.Ref) (provider.Secret, error) {
	if l.lost {
		return provider.Secret{}, &provider.Error{Kind: provider.ErrRefused, Op: "login", LoginLost: true}
	}
	return provider.Secret{}, nil
}

func (l *losing) Close(context.Context) error {
	l.closed = true
	return nil
}

func TestClientRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.Put("x", nil)
		c := newClient(s, provider.Policy{Rate: 10})
		start := time.Now()
		for range 60 {
			if err := fetch(t, c); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 4900*time.Millisecond || took > 5100*time.Millisecond {
			t.Errorf("60 calls at 10 a second with a burst of 10 took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Fetch(ctx, provider.Ref{Path: "x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller with no time to wait: %v", err)
		}
	})
}

func TestClientRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := providertest.NewStore(login)
		s.TokenTime = time.Hour
		s.Put("x", nil)
		c := newClient(s, provider.Policy{})
		if at := c.RenewTime(); !at.IsZero() {
			t.Errorf("renewal is due at %s before there is a session", at)
		}
		_ = fetch(t, c)
		if in := time.Until(c.RenewTime()); in != 40*time.Minute {
			t.Errorf("renewal is due in %s", in)
		}
		time.Sleep(40 * time.Minute)
		if err := c.Renew(t.Context()); err != nil || time.Until(c.RenewTime()) != 40*time.Minute {
			t.Errorf("after it (%v) the next is due in %s", err, time.Until(c.RenewTime()))
		}
	})
}

// An error of a vendor that forgot the rules is not repeated.
func TestClientHidesStrangeErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := provider.NewClient(func(context.Context) (provider.Session, error) {
			return nil, fmt.Errorf("Post https://vault?token=%s", login)
		}, provider.Policy{})
		err := fetch(t, c)
		if !errors.Is(err, provider.ErrUnavailable) || strings.Contains(err.Error(), login) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		m, err := provider.NewMetrics(registry)
		if err != nil {
			t.Fatal(err)
		}
		s := providertest.NewStore(login)
		n := s.Put("x", nil)
		c := newClient(s, provider.Policy{Provider: "vault", Attempts: 1, BreakAfter: 1, Metrics: m})
		_ = fetch(t, c)
		s.Delete("x", n)
		_ = fetch(t, c)
		s.Destroy("x", n)
		_ = fetch(t, c)
		_, _ = c.Fetch(t.Context(), provider.Ref{Path: "none"})
		_, _ = c.Fetch(t.Context(), provider.Ref{Path: ".."})
		s.SetDown(sealed)
		_ = fetch(t, c)
		_ = fetch(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.Reset()
		_, _ = c.Fetch(ctx, provider.Ref{Path: "x"})
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, series := range f.GetMetric() {
				if f.GetName() != "credstore_provider_calls_total" {
					continue
				}
				for _, l := range series.GetLabel() {
					if l.GetName() == "outcome" {
						got[l.GetValue()] = series.GetCounter().GetValue()
					}
				}
			}
		}
		want := map[string]float64{"ok": 1, "deleted": 1, "destroyed": 1, "missing": 1, "refused": 1, "unavailable": 1, "not_asked": 1, "cancelled": 1}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if _, err := provider.NewMetrics(registry); err == nil {
			t.Error("registered twice without an error")
		}
	})
}

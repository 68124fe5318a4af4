package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const interval = 30 * time.Second

var sealed = &provider.Error{Kind: provider.ErrUnavailable, Status: 503, Text: "sealed"}

func TestFetchesAtOnceAndFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		r.run()
		r.wantValue(w, core.ValueOK, "1", "")
		r.external.Put("x", content("2"))
		wait(interval)
		r.wantValue(w, core.ValueOK, "2", "")
		if v := r.value(w).Version; v != "2" {
			t.Errorf("version is %q", v)
		}
		wait(10 * interval)
		if commits, _, _ := r.seen(); len(commits) != 2 {
			t.Errorf("%d commits for two contents", len(commits))
		}
	})
}

func TestPinnedVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		r.external.Put("x", content("2"))
		newest, pinned := wantedSecret("a", "x", interval, 1), wantedSecret("a", "x", interval, 1)
		pinned.Locator.Version = 1
		r.want(newest, pinned)
		r.run()
		r.wantValue(newest, core.ValueOK, "2", "")
		r.wantValue(pinned, core.ValueOK, "1", "")
	})
}

// In no window of one interval is a secret read twice, and it is never left alone
// for much longer.
func TestOneReadPerInterval(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Second} {
		t.Run(fmt.Sprintf("reads take up to %s", slow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testOneReadPerInterval(t, slow) })
		})
	}
}

func testOneReadPerInterval(t *testing.T, slow time.Duration) {
	r := newRig(t)
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	r.cfg.Random = func() float64 { mu.Lock(); defer mu.Unlock(); return random.Float64() }
	r.external.OnFetch = func(context.Context, string, provider.Ref) error {
		time.Sleep(time.Duration(r.cfg.Random() * float64(slow)))
		return nil
	}
	const secrets = 50
	start := time.Now()
	var all []core.Wanted
	for i := range secrets {
		r.external.Put(path(i), content("v"))
		all = append(all, wantedSecret("a", path(i), interval, 1))
	}
	r.want(all...)
	r.run()
	wait(20 * interval)
	var phases []time.Duration
	for i := range secrets {
		at := r.reads(path(i), start)
		if len(at) < 18 {
			t.Fatalf("%s was read %d times in 20 intervals", path(i), len(at))
		}
		for j := range at[1:] {
			// Up to 13 reads of up to a second go before it, four at a time.
			if gap := at[j+1] - at[j]; gap < interval || gap > interval*102/100+13*slow {
				t.Errorf("%s was read again after %s", path(i), gap)
			}
		}
		phases = append(phases, at[len(at)-1])
	}
	// Jitter spreads what began together.
	if spread := slices.Max(phases) - slices.Min(phases); spread < interval/20 {
		t.Errorf("after 20 intervals all secrets are read within %s", spread)
	}
}

// One poller serves all; the domain lists each secret once.
func TestOneSessionPerStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []core.Wanted
		for i := range 20 {
			r.external.Put(path(i), content("v"))
			all = append(all, wantedSecret("a", path(i), interval, 1), wantedSecret("b", path(i), interval, 1))
		}
		r.want(all...)
		r.run()
		wait(5 * interval)
		if n := len(r.external.Calls("login")); n != 2 {
			t.Errorf("%d logins to two stores", n)
		}
		if _, _, n := r.seen(); n != 2 {
			t.Errorf("the login left the domain %d times", n)
		}
	})
}

func TestNothingWantedIsNothingPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		r.run()
		wait(10 * interval)
		if calls := r.external.Calls(""); len(calls) != 0 {
			t.Fatalf("calls: %v", calls)
		}
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		wait(0)
		r.wantValue(w, core.ValueOK, "1", "")
		r.want()
		wait(0)
		before := len(r.external.Calls("read"))
		wait(10 * interval)
		if n := len(r.external.Calls("read")) - before; n != 0 {
			t.Errorf("%d reads of what is no longer wanted", n)
		}
		if n := r.external.Tokens(); n != 0 {
			t.Errorf("%d sessions are open", n)
		}
	})
}

// An injection that goes and comes back causes no read before its time.
func TestWantedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		w, other := wantedSecret("a", "x", interval, 1), wantedSecret("a", "other", interval, 1)
		start := time.Now()
		r.want(w, other)
		r.run()
		wait(time.Second)
		r.want(other)
		wait(time.Second)
		w.Have = &core.Value{State: core.ValueOK, FetchTime: start}
		r.want(w, other)
		wait(interval - 3*time.Second)
		if at := r.reads("x", start); len(at) != 1 {
			t.Fatalf("reads at %v", at)
		}
		wait(time.Second)
		if diff := cmp.Diff([]time.Duration{0, interval}, r.reads("x", start)); diff != "" {
			t.Fatalf("reads (-want +got):\n%s", diff)
		}
		r.want(other)
		wait(time.Second)
		w.Have = nil
		r.want(w, other)
		wait(0)
		if at := r.reads("x", start); len(at) != 3 {
			t.Errorf("not read at once though nothing is stored: %v", at)
		}
	})
}

func TestRestart(t *testing.T) {
	for _, test := range []struct {
		name string
		have func(now time.Time) *core.Value
		due  time.Duration
	}{
		{"fetched a moment ago", func(now time.Time) *core.Value {
			return &core.Value{State: core.ValueOK, FetchTime: now.Add(-10 * time.Second)}
		}, 20 * time.Second},
		{"fetched long ago", func(now time.Time) *core.Value {
			return &core.Value{State: core.ValueOK, FetchTime: now.Add(-time.Hour)}
		}, 0},
		{"fetched in the future", func(now time.Time) *core.Value {
			return &core.Value{State: core.ValueOK, FetchTime: now.Add(time.Hour)}
		}, 0},
		{"not in order", func(now time.Time) *core.Value {
			return &core.Value{State: core.ValueUnavailable, FetchTime: now.Add(-time.Second)}
		}, 0},
		{"never fetched", func(time.Time) *core.Value { return nil }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				start := time.Now()
				w := wantedSecret("a", "x", interval, 1)
				w.Have = test.have(start)
				r.want(w)
				r.run()
				wait(interval - time.Second)
				if diff := cmp.Diff([]time.Duration{test.due}, r.reads("x", start)); diff != "" {
					t.Errorf("reads (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		r.run()
		r.external.Delete("x", n)
		wait(interval)
		r.wantValue(w, core.ValueDeleted, "1", "read: version deleted: 404 version 1 was deleted")
		r.external.Undelete("x", n)
		wait(interval)
		r.wantValue(w, core.ValueOK, "1", "")
		r.external.Destroy("x", n)
		wait(interval)
		r.wantValue(w, core.ValueDestroyed, "1", "read: version destroyed: 404 version 1 was destroyed")
		r.external.Put("x", content("2"))
		wait(interval)
		r.wantValue(w, core.ValueOK, "2", "")
		missing := wantedSecret("a", "never", interval, 1)
		r.want(w, missing)
		wait(0)
		r.wantValue(missing, core.ValueMissing, "", "read: no such secret: 404 nothing there")
	})
}

// A store that is down keeps what was fetched, is not hammered, and is found
// again by itself.
func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.random = 0.5
		var all []core.Wanted
		for i := range 200 {
			r.external.Put(path(i), content("v"))
			all = append(all, wantedSecret("a", path(i), interval, 1))
		}
		r.want(all...)
		stop := r.run()
		wait(interval / 2)
		r.external.SetDown(sealed)
		before := len(r.external.Calls(""))
		wait(2 * interval)
		for _, w := range all {
			r.wantValue(w, core.ValueUnavailable, "v", "read: store unavailable: 503 sealed")
		}
		// A few at once, then one probe at a time, each with one more attempt.
		if n := len(r.external.Calls("")) - before; n > 40 {
			t.Errorf("%d requests in two intervals to a store of 200 secrets that is down", n)
		}
		commits, _, _ := r.seen()
		wait(time.Hour)
		if after, _, _ := r.seen(); len(after) != len(commits) {
			t.Errorf("%d commits though nothing changed", len(after)-len(commits))
		}
		r.external.SetDown(nil)
		// The longest pause of a minute, here shortened by a quarter, and a little
		// for those who wait for the first answer.
		wait(52 * time.Second)
		for _, w := range all {
			r.wantValue(w, core.ValueOK, "v", "")
		}
		stop()
		if n := strings.Count(r.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings about one store that was down:\n%s", n, r.log)
		}
	})
}

// A store that is down when the server starts is asked until it answers.
func TestStoreDownAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", time.Second, 1)
		r.external.SetDown(sealed)
		r.want(w)
		r.run()
		wait(10 * time.Second)
		r.wantValue(w, core.ValueUnavailable, "", "login: store unavailable: 503 sealed")
		if n := len(r.external.Calls("")); n < 3 || n > 20 {
			t.Errorf("%d requests in ten intervals", n)
		}
		r.external.SetDown(nil)
		wait(20 * time.Second)
		r.wantValue(w, core.ValueOK, "1", "")
	})
}

// One secret that fails leaves the others alone.
func TestOneSecretFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.random = 0.5
		r.external.Put("good", content("1"))
		r.external.OnFetch = func(_ context.Context, _ string, ref provider.Ref) error {
			if ref.Path == "bad" {
				return &provider.Error{Kind: provider.ErrUnavailable, Op: "read", Status: 500, Text: "broken"}
			}
			return nil
		}
		good, bad := wantedSecret("a", "good", time.Second, 1), wantedSecret("a", "bad", time.Second, 1)
		start := time.Now()
		r.want(good, bad)
		r.run()
		wait(time.Minute)
		r.wantValue(good, core.ValueOK, "1", "")
		r.wantValue(bad, core.ValueUnavailable, "", "read: store unavailable: 500 broken")
		if n := len(r.reads("good", start)); n < 55 {
			t.Errorf("the good one was read %d times in 60 intervals", n)
		}
	})
}

func TestStoreThatHangsDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.OnFetch = func(ctx context.Context, _ string, ref provider.Ref) error {
			if strings.HasPrefix(ref.Path, "path/") {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		r.external.Put("x", content("1"))
		var all []core.Wanted
		for i := range 200 {
			all = append(all, wantedSecret("a", path(i), interval, 1))
		}
		w := wantedSecret("b", "x", interval, 1)
		r.want(append(all, w)...)
		r.run()
		r.wantValue(w, core.ValueOK, "1", "")
		wait(10 * time.Second)
		r.wantValue(all[0], core.ValueUnavailable, "", "read: store unavailable: no answer within 10s")
		wait(time.Second)
		r.wantValue(all[199], core.ValueUnavailable, "", "read: store unavailable: no answer within 10s")
	})
}

// A new version of the credential is used at once, and the old login is given
// back.
func TestCredentialChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", time.Hour, 1)
		r.want(w)
		r.run()
		r.external.SetLogin(secondLogin, true)
		r.external.SetLogin(firstLogin, false)
		r.external.Put("x", content("2"))
		r.set(func(d *domain) { d.logins[storeName("a")] = secondLogin })
		r.want(wantedSecret("a", "x", time.Hour, 2))
		wait(0)
		r.wantValue(w, core.ValueOK, "2", "")
		logins := r.external.Calls("login")
		if len(logins) != 2 || logins[1].Login != secondLogin {
			t.Errorf("logins: %v", logins)
		}
		if n := r.external.Tokens(); n != 1 {
			t.Errorf("%d sessions are open", n)
		}
	})
}

// The answer to a login that was replaced does not count.
func TestAnswerToOldLoginIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reading := make(chan struct{})
		r.external.SetLogin(secondLogin, true)
		r.external.OnFetch = func(ctx context.Context, login string, _ provider.Ref) error {
			if login != firstLogin {
				return nil
			}
			close(reading)
			<-ctx.Done()
			return &provider.Error{Kind: provider.ErrRefused, Op: "read", Status: 403, Text: "revoked"}
		}
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		r.run()
		<-reading
		r.set(func(d *domain) { d.logins[storeName("a")] = secondLogin })
		r.want(wantedSecret("a", "x", interval, 2))
		wait(0)
		r.wantValue(w, core.ValueOK, "1", "")
		if commits, _, _ := r.seen(); len(commits) != 1 {
			t.Errorf("commits: %v", commits)
		}
		if n := r.external.Tokens(); n != 1 {
			t.Errorf("%d sessions are open", n)
		}
	})
}

func TestStoreChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", time.Hour, 1)
		start := time.Now()
		r.want(w)
		r.run()
		wait(time.Minute)
		changed := wantedSecret("a", "x", time.Minute, 1)
		changed.Store.Etag = "etag-2"
		r.want(changed)
		wait(90 * time.Second)
		if diff := cmp.Diff([]time.Duration{0, time.Minute, 2 * time.Minute}, r.reads("x", start)); diff != "" {
			t.Errorf("reads (-want +got):\n%s", diff)
		}
		if n := len(r.external.Calls("login")); n != 2 {
			t.Errorf("%d logins", n)
		}
	})
}

// A login that the store refuses is tried again rarely: stores lock out who tries
// often.
func TestLoginRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.SetLogin(firstLogin, false)
		var all []core.Wanted
		for i := range 50 {
			r.external.Put(path(i), content("v"))
			all = append(all, wantedSecret("a", path(i), time.Second, 1))
		}
		r.want(all...)
		r.run()
		wait(5 * time.Minute)
		for _, w := range all {
			r.wantValue(w, core.ValueRefused, "", "login: refused: 400 unknown login")
		}
		if n := len(r.external.Calls("login")); n > 11 {
			t.Errorf("%d logins in 5 minutes", n)
		}
		if _, n, _ := r.seen(); n > 20*len(all) {
			t.Errorf("%d attempts at %d secrets of a store that is left alone", n, len(all))
		}
		r.external.SetLogin(firstLogin, true)
		wait(2 * time.Minute)
		r.wantValue(all[0], core.ValueOK, "v", "")
	})
}

func TestCredentialThatCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.Put("x", content("1"))
		r.loginEr = &core.Error{Kind: core.ErrPrecondition, Message: "version 3 is disabled"}
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		r.run()
		r.wantValue(w, core.ValueRefused, "", "login: refused: the store's credential cannot be used: version 3 is disabled")
		r.set(func(d *domain) { d.loginEr = errors.New("internals: " + firstLogin) })
		wait(2 * time.Minute)
		r.wantValue(w, core.ValueRefused, "", "login: refused: the store's credential cannot be used: an internal error, which the server's log tells")
	})
}

func TestUnknownProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Open = nil
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		r.run()
		r.wantValue(w, core.ValueRefused, "", `login: refused: this server has no provider "vault"`)
	})
}

// The login is prolonged even if secrets are read much more rarely.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.TokenTime = 30 * time.Minute
		r.external.Put("x", content("1"))
		r.want(wantedSecret("a", "x", 24*time.Hour, 1))
		r.run()
		wait(25 * time.Hour)
		if n := len(r.external.Calls("login")); n != 1 {
			t.Errorf("%d logins", n)
		}
		if n := len(r.external.Calls("renew")); n < 70 || n > 76 {
			t.Errorf("%d renewals in 25 h, 20 minutes apart", n)
		}
	})
}

// A store that refuses to prolong is not asked in a tight loop.
func TestRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.TokenTime = 3 * time.Minute
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", time.Hour, 1)
		r.want(w)
		r.run()
		wait(2*time.Minute - time.Second)
		r.external.SetDown(sealed)
		wait(time.Minute)
		if n := len(r.external.Calls("renew")); n < 3 || n > 30 {
			t.Errorf("%d renewals in a minute", n)
		}
		r.external.SetDown(nil)
		wait(time.Hour)
		r.wantValue(w, core.ValueOK, "1", "")
	})
}

func TestCommitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.random = 0.5
		r.external.Put("x", content("1"))
		r.putErr = &core.Error{Kind: core.ErrUnavailable, Message: "disk full"}
		w := wantedSecret("a", "x", time.Hour, 1)
		r.want(w)
		r.run()
		wait(2 * time.Minute)
		if n := len(r.external.Calls("read")); n < 5 || n > 20 {
			t.Errorf("%d reads in two minutes", n)
		}
		r.set(func(d *domain) { d.putErr = nil })
		wait(time.Minute * 2)
		r.wantValue(w, core.ValueOK, "1", "")
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []core.Wanted
		for i := range 10 {
			r.external.Put(path(i), content("1"))
			all = append(all, wantedSecret("a", path(i), time.Hour, 1))
		}
		r.external.Put("b", content("1"))
		all = append(all, wantedSecret("a", "missing", time.Hour, 1), wantedSecret("b", "b", time.Hour, 1))
		r.want(all...)
		r.run()
		r.external.Put(path(3), content("2"))
		before := len(r.external.Calls("read"))
		got, err := r.broker.Refresh(t.Context(), storeName("a"))
		if want := (core.RefreshResult{Polled: 11, Changed: 1, Failed: 1}); err != nil || got != want {
			t.Errorf("Refresh: %+v, %v; want %+v", got, err, want)
		}
		r.wantValue(all[3], core.ValueOK, "2", "")
		if n := len(r.external.Calls("read")) - before; n != 11 {
			t.Errorf("%d reads", n)
		}
		got, err = r.broker.Refresh(t.Context(), storeName("unused"))
		if err != nil || got != (core.RefreshResult{}) {
			t.Errorf("Refresh of a store that nothing uses: %+v, %v", got, err)
		}
	})
}

// A refresh does not wait for a store to be left alone long enough.
func TestRefreshOfStoreThatWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []core.Wanted
		for i := range 10 {
			r.external.Put(path(i), content("1"))
			all = append(all, wantedSecret("a", path(i), interval, 1))
		}
		r.external.SetDown(sealed)
		r.want(all...)
		r.run()
		wait(time.Hour)
		r.external.SetDown(nil)
		got, err := r.broker.Refresh(t.Context(), storeName("a"))
		if want := (core.RefreshResult{Polled: 10, Changed: 10}); err != nil || got != want {
			t.Errorf("Refresh: %+v, %v; want %+v", got, err, want)
		}
	})
}

// What was read before a refresh is not taken for the answer to it; two refreshes
// at a time share one read, and a secret is never read twice at a time.
func TestRefreshDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		var active, most, reads atomic.Int32
		r.external.OnFetch = func(context.Context, string, provider.Ref) error {
			most.Store(max(most.Load(), active.Add(1)))
			defer active.Add(-1)
			reads.Add(1)
			<-release
			return nil
		}
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", time.Hour, 1)
		r.want(w)
		r.run()
		results := make(chan string, 2)
		for range 2 {
			go func() {
				got, err := r.broker.Refresh(t.Context(), storeName("a"))
				results <- fmt.Sprintf("%+v %v", got, err)
			}()
		}
		synctest.Wait()
		release <- struct{}{}
		synctest.Wait()
		if len(results) != 0 {
			t.Error("a read that had begun before it answered a refresh")
		}
		r.external.Put("x", content("2"))
		release <- struct{}{}
		for range 2 {
			if got, want := <-results, "{Polled:1 Changed:1 Failed:0} <nil>"; got != want {
				t.Errorf("Refresh: %s, want %s", got, want)
			}
		}
		r.wantValue(w, core.ValueOK, "2", "")
		if reads.Load() != 2 || most.Load() != 1 {
			t.Errorf("%d reads, %d at a time", reads.Load(), most.Load())
		}
	})
}

// A store that hangs holds up no other, and a project full of them no other
// project.
func TestStoresThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var hanging atomic.Int32
		r.external.OnFetch = func(ctx context.Context, _ string, ref provider.Ref) error {
			if strings.HasPrefix(ref.Path, "path/") {
				hanging.Add(1)
				<-ctx.Done()
				hanging.Add(-1)
			}
			return ctx.Err()
		}
		hang := func(store string) (all []core.Wanted) {
			r.set(func(d *domain) { d.logins[storeName(store)] = firstLogin })
			for i := range 9 {
				all = append(all, wantedSecret(store, path(i), time.Hour, 1))
			}
			return all
		}
		r.external.Put("x", content("1"))
		near := wantedSecret("b", "x", time.Hour, 1)
		r.want(append(hang("a"), near)...)
		r.run()
		if n := hanging.Load(); n != 4 {
			t.Errorf("%d reads of a store that hangs are under way", n)
		}
		r.wantValue(near, core.ValueOK, "1", "")

		far := wantedSecret("far", "x", time.Hour, 1)
		far.Locator.Project, far.Store.Name.Project = "another", "another"
		r.set(func(d *domain) { d.logins[far.Store.Name] = firstLogin })
		all := []core.Wanted{far}
		for i := range 8 {
			all = append(all, hang(fmt.Sprint("s", i))...)
		}
		r.want(all...)
		synctest.Wait()
		if n := hanging.Load(); n != 16 {
			t.Errorf("%d reads of the stores of a project are under way", n)
		}
		r.wantValue(far, core.ValueOK, "1", "")
	})
}

// Tests of a store that hangs do not add up, and are over with their callers.
func TestTestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Open = map[string]Opener{"vault": func(ctx context.Context, _ *core.SecretStore, _ credential.Login) (provider.Session, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		r.run()
		w := wantedSecret("a", "x", time.Hour, 1)
		ctx, giveUp := context.WithCancel(t.Context())
		var refused, gaveUp atomic.Int32
		for range 10 {
			go func() {
				_, err := r.broker.Test(ctx, w.Store, credential.Login{})
				switch {
				case errors.Is(err, core.ErrUnavailable):
					refused.Add(1)
				case errors.Is(err, context.Canceled):
					gaveUp.Add(1)
				}
			}()
		}
		synctest.Wait()
		if n := refused.Load(); n != 6 {
			t.Errorf("%d of 10 tests of a store are refused at once", n)
		}
		giveUp()
		synctest.Wait()
		if n := gaveUp.Load(); n != 4 || !r.broker.tests.Free(w.Store.Name.Project, w.Store.Name.ID) {
			t.Errorf("%d gave up; the places are not free again", n)
		}
	})
}

// A refresh that meets a change of the login waits for the answer to the new one.
func TestRefreshDuringChangeOfLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.SetLogin(secondLogin, true)
		hang := false
		r.external.OnFetch = func(ctx context.Context, login string, _ provider.Ref) error {
			if login == firstLogin && hang {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		r.external.Put("x", content("1"))
		w := wantedSecret("a", "x", time.Hour, 1)
		r.want(w)
		r.run()
		hang = true
		r.external.Put("x", content("2"))
		results := make(chan core.RefreshResult, 1)
		go func() {
			got, err := r.broker.Refresh(t.Context(), storeName("a"))
			if err != nil {
				t.Errorf("Refresh: %v", err)
			}
			results <- got
		}()
		synctest.Wait()
		r.set(func(d *domain) { d.logins[storeName("a")] = secondLogin })
		r.want(wantedSecret("a", "x", time.Hour, 2))
		if got, want := <-results, (core.RefreshResult{Polled: 1, Changed: 1}); got != want {
			t.Errorf("Refresh: %+v, want %+v", got, want)
		}
	})
}

func TestRefreshEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.OnFetch = func(ctx context.Context, _ string, _ provider.Ref) error {
			<-ctx.Done()
			return ctx.Err()
		}
		w, other := wantedSecret("a", "x", time.Hour, 1), wantedSecret("b", "x", time.Hour, 1)
		r.want(w, other)
		stop := r.run()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.broker.Refresh(ctx, storeName("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("when its caller gives up: %v", err)
		}
		results := make(chan error, 2)
		go func() { _, err := r.broker.Refresh(t.Context(), storeName("a")); results <- err }()
		synctest.Wait()
		r.want(other)
		if err := <-results; err != nil {
			t.Errorf("when the secret is no longer wanted: %v", err)
		}
		go func() { _, err := r.broker.Refresh(t.Context(), storeName("b")); results <- err }()
		synctest.Wait()
		stop()
		if err := <-results; !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("when the server stops: %v", err)
		}
		if _, err := r.broker.Refresh(t.Context(), storeName("b")); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("after the server stopped: %v", err)
		}
	})
}

func TestTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		store, login, err := r.StoreLogin(t.Context(), storeName("a"))
		if err != nil {
			t.Fatal(err)
		}
		result, err := r.broker.Test(t.Context(), store, login)
		if want := (core.TestResult{OK: true, Identity: "session 1"}); err != nil || result != want {
			t.Errorf("Test: %+v, %v; want %+v", result, err, want)
		}
		r.external.SetLogin(firstLogin, false)
		result, err = r.broker.Test(t.Context(), store, login)
		if want := (core.TestResult{Message: "login: refused: 400 unknown login"}); err != nil || result != want {
			t.Errorf("Test: %+v, %v; want %+v", result, err, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.broker.Test(ctx, store, login); !errors.Is(err, context.Canceled) {
			t.Errorf("Test of a caller who is gone: %v", err)
		}
		if _, err := r.broker.Test(t.Context(), &core.SecretStore{Name: storeName("a")}, credential.Login{}); err != nil {
			t.Errorf("Test without provider: %v", err)
		}
		if n := r.external.Tokens(); n != 0 {
			t.Errorf("%d sessions are open", n)
		}
	})
}

// Calls that are under way end with the server, which gives all logins back.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.external.OnFetch = func(ctx context.Context, _ string, ref provider.Ref) error {
			if ref.Path == "hangs" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		r.external.Put("x", content("1"))
		hangs := wantedSecret("a", "hangs", interval, 1)
		r.want(hangs, wantedSecret("a", "x", interval, 1), wantedSecret("b", "x", interval, 1))
		stop := r.run()
		if n := r.external.Tokens(); n != 2 {
			t.Fatalf("%d sessions are open", n)
		}
		start := time.Now()
		stop()
		if took := time.Since(start); took > closeTime {
			t.Errorf("it took %s", took)
		}
		if n := r.external.Tokens(); n != 0 {
			t.Errorf("%d sessions are open", n)
		}
		if _, known := r.stored()[hangs.Locator]; known {
			t.Error("stopping was taken for an answer of the store")
		}
	})
}

// The list of what is wanted changes all the time, while reads are under way:
// what is wanted at the end has been read, with the login of the end.
func TestChangesDuringReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		random := rand.New(rand.NewPCG(3, 4))
		r.external.OnFetch = func(ctx context.Context, _ string, ref provider.Ref) error {
			select {
			case <-time.After(time.Duration(len(ref.Path)) * 7 * time.Millisecond):
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		for i := range 50 {
			r.external.Put(path(i), content(fmt.Sprint(i)))
		}
		r.run()
		var last []core.Wanted
		for round := range 500 {
			last = nil
			for _, store := range []string{"a", "b"} {
				version := uint32(1 + round/100 + random.IntN(2))
				for i := range 50 {
					if random.IntN(3) > 0 {
						last = append(last, wantedSecret(store, path(i), time.Second, version))
					}
				}
			}
			r.want(last...)
			wait(time.Duration(random.IntN(40)) * time.Millisecond)
		}
		wait(time.Second) // reads under way end
		r.set(func(d *domain) { clear(d.values) })
		wait(3 * time.Second)
		for _, w := range last {
			if got := string(r.value(w).Data["k"]); got != strings.TrimPrefix(w.Locator.Path, "path/") {
				t.Errorf("%s of %s is %q", w.Locator.Path, w.Store.Name, got)
			}
		}
		if n := len(r.stored()); n != len(last) {
			t.Errorf("%d values of %d wanted secrets", n, len(last))
		}
		if n := r.external.Tokens(); n != 2 {
			t.Errorf("%d sessions are open", n)
		}
	})
}

func TestNoSecretsInLogsAndMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		registry := prometheus.NewRegistry()
		r.cfg.Metrics = registry
		const canary = "value-canary-08d1"
		n := r.external.Put("x", content(canary))
		w := wantedSecret("a", "x", interval, 1)
		r.want(w)
		stop := r.run()
		r.external.Delete("x", n)
		wait(interval)
		r.external.SetLogin(firstLogin, false)
		r.external.EndLogins()
		wait(interval)
		r.external.SetDown(sealed)
		wait(10 * interval)
		stop()
		if r.log.Len() == 0 {
			t.Error("nothing was logged")
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		text := r.log.String() + fmt.Sprint(families) + fmt.Sprintf("%+v", r.broker)
		for _, c := range r.commits {
			text += c.Message
		}
		for _, secret := range []string{canary, firstLogin} {
			if strings.Contains(text, secret) {
				t.Errorf("%s in what others see:\n%s", secret, text)
			}
		}
		if len(families) != 5 {
			t.Errorf("%d families of metrics", len(families))
		}
		if _, err := New(r.cfg); err == nil {
			t.Error("metrics were registered twice without an error")
		}
	})
}

package issuer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

var (
	away    = &provider.Error{Kind: provider.ErrUnavailable, Op: "mint", Status: 503, Text: "busy"}
	refused = &provider.Error{Kind: provider.ErrRefused, Op: "mint", Status: 403, Text: "SignatureDoesNotMatch"}
)

// 10,000 that want the same token at the same time make one call.
func TestTenThousandAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.slow = time.Second
		l := login(t, "a", 1)
		var tokens sync.Map
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() { tokens.Store(r.get(t, l, request(t, 0)), true) })
		}
		wg.Wait()
		if n := r.vendor.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
		tokens.Range(func(token, _ any) bool {
			if token != "session-1" {
				t.Errorf("somebody got %q", token)
			}
			return true
		})
		if r.get(t, l, request(t, 0)) != "session-1" || r.vendor.count() != 1 {
			t.Error("the token was not kept")
		}
	})
}

// What differs is not shared: versions, versions of a source, requests.
func TestEachLoginAndRequestHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		role := func(n, source int) credential.Login {
			l := login(t, "role", n)
			s := login(t, "source", source)
			l.Source = &s
			return l
		}
		seen := make(map[string]bool)
		for range 2 {
			for _, l := range []credential.Login{login(t, "a", 1), login(t, "a", 2), login(t, "b", 1), role(1, 1), role(1, 2), role(2, 1)} {
				for _, d := range []time.Duration{0, time.Hour, 2 * time.Hour} {
					seen[r.get(t, l, request(t, d))] = true
				}
			}
		}
		// Nothing said means an hour, so that it is another request but the same token.
		if n := r.vendor.count(); n != 18 || len(seen) != 18 {
			t.Errorf("%d tokens of %d calls, want 18", len(seen), n)
		}
	})
}

// Callers come all the time for hours: nobody gets a token that has ended, or that
// is about to; nobody but the first waits; each token is made once.
func TestRefreshUnderLoad(t *testing.T) {
	for _, life := range []time.Duration{time.Hour, 15 * time.Minute, time.Minute} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRefreshUnderLoad(t, life) })
		})
	}
}

func testRefreshUnderLoad(t *testing.T, life time.Duration) {
	const lives, callers = 12, 20
	r := newRig(t)
	r.vendor.life, r.vendor.slow = life, 2*time.Second
	l, q := login(t, "a", 1), request(t, 0)
	r.get(t, l, q)
	end := time.Now().Add(lives * life)
	var wg sync.WaitGroup
	for i := range callers {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for time.Now().Before(end) {
				start := time.Now()
				token, err := r.Mint(t.Context(), l, q)
				if err != nil {
					t.Errorf("Mint: %v", err)
					return
				}
				at, _ := token.ExpireTime()
				if left := time.Until(at); left < min(time.Minute, life/10) {
					t.Errorf("a token with %s left was handed out", left)
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("somebody waited for %s", waited)
				}
				time.Sleep(time.Duration(random.Float64() * float64(life/100)))
			}
		})
	}
	wg.Wait()
	// Each token lives for 2/3 to 3/4 of its life until the next one is asked for,
	// and the two seconds that this takes.
	calls := r.vendor.seen()
	if n := len(calls); n < lives*4/3*9/10 || n > lives*3/2+1 {
		t.Errorf("%d calls in %d lives of a token", n, lives)
	}
	for i := range len(calls) - 1 {
		if gap := calls[i+1].at.Sub(calls[i].at); gap < life*2/3 || gap > (life+r.vendor.slow)*3/4+life/100 {
			t.Errorf("the vendor was asked again after %s", gap)
		}
	}
}

// Who comes rarely gets what still has some time, or waits for a new one.
func TestCallersComeRarely(t *testing.T) {
	for _, test := range []struct {
		every time.Duration
		kept  bool
	}{
		{59 * time.Minute, true},
		{59*time.Minute + time.Second, false},
		{time.Hour - time.Millisecond, false},
		{time.Hour, false},
		{61 * time.Minute, false},
		{5 * time.Hour, false},
	} {
		t.Run(test.every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				l, q := login(t, "a", 1), request(t, 0)
				for range 10 {
					before := r.get(t, l, q)
					pass(test.every - time.Millisecond)
					r.vendor.set(func(v *vendor) { v.slow = time.Millisecond })
					start := time.Now()
					got := r.get(t, l, q)
					if waited := time.Since(start) != 0; waited == test.kept || (got == before) != test.kept {
						t.Errorf("waited: %v; the token from before: %v", waited, got == before)
					}
					r.vendor.set(func(v *vendor) { v.slow = 0 })
					r.Forget("a", 0)
					pass(2 * forgetTime)
				}
			})
		})
	}
}

// Tokens that began together do not end together.
func TestRefreshIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Policy.Rate = 1e6 })
		const tokens = 100
		for i := range tokens {
			r.get(t, login(t, fmt.Sprint("c", i), 1), request(t, 0))
		}
		start := time.Now()
		minutes := make(map[int]int)
		for time.Since(start) < 46*time.Minute {
			before := r.vendor.count()
			for i := range tokens {
				r.get(t, login(t, fmt.Sprint("c", i), 1), request(t, 0))
			}
			pass(time.Minute)
			minutes[int(time.Since(start)/time.Minute)] += r.vendor.count() - before
		}
		if n := r.vendor.count(); n != 2*tokens {
			t.Fatalf("%d calls", n)
		}
		for minute, n := range minutes {
			if n > tokens/2 {
				t.Errorf("%d of %d tokens were replaced in minute %d", n, tokens, minute)
			}
		}
	})
}

// As long as no new one can be had, the last one is handed out until its end; the
// vendor is left alone for longer and longer.
func TestFailingRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		l, q := login(t, "a", 1), request(t, 0)
		r.get(t, l, q)
		start := time.Now()
		r.vendor.set(func(v *vendor) { v.err = away })
		for time.Since(start) < time.Hour {
			if got := r.get(t, l, q); got != "session-1" {
				t.Fatalf("after %s: %q", time.Since(start), got)
			}
			pass(500 * time.Millisecond)
		}
		var at []time.Time
		for _, c := range r.vendor.seen()[1:] {
			at = append(at, c.at)
		}
		// Two attempts each, of 15 to 20 minutes with pauses of up to one.
		if n := len(at); n < 2*15 || n > 2*60 {
			t.Errorf("%d attempts", n)
		}
		if first := at[0].Sub(start); first < 40*time.Minute || first > 46*time.Minute {
			t.Errorf("the first attempt was after %s", first)
		}
		if gap := maxGap(at); gap > retryMost+5*time.Second {
			t.Errorf("the vendor was left alone for %s", gap)
		}
		_, err := r.Mint(t.Context(), l, q)
		wantError(t, err, core.ErrUnavailable, core.ReasonVendorUnavailable, "503 busy")
		r.vendor.set(func(v *vendor) { v.err = nil })
		pass(refusalTime + time.Second)
		if got := r.get(t, l, q); got == "session-1" {
			t.Error("an old token after its end")
		}
		if r.get(t, l, q); r.vendor.count() != len(at)+4 {
			t.Errorf("%d calls, want %d", r.vendor.count(), len(at)+4)
		}
	})
}

// A vendor that is away from the beginning is not asked by each caller.
func TestPauseWithoutToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Policy.Attempts = 1 })
		r.vendor.err = away
		l, q := login(t, "a", 1), request(t, 0)
		var at []time.Time
		for range 600 {
			_, err := r.Mint(t.Context(), l, q)
			wantError(t, err, core.ErrUnavailable, core.ReasonVendorUnavailable, "503 busy")
			pass(100 * time.Millisecond)
		}
		for _, c := range r.vendor.seen() {
			at = append(at, c.at)
		}
		if n := len(at); n < 12 || n > 30 {
			t.Errorf("%d calls in a minute", n)
		}
		if first := at[1].Sub(at[0]); first > retryFirst+100*time.Millisecond {
			t.Errorf("the second call came after %s", first)
		}
		if gap := maxGap(at); gap > refusalTime+100*time.Millisecond {
			t.Errorf("the vendor was left alone for %s", gap)
		}
	})
}

// A vendor that says how long it wants to be left alone is.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Policy.Attempts = 1 })
		r.vendor.err = &provider.Error{Kind: provider.ErrUnavailable, Status: 429, Text: "slow down", RetryAfter: 30 * time.Second}
		l, q := login(t, "a", 1), request(t, 0)
		for range 40 {
			if _, err := r.Mint(t.Context(), l, q); err == nil {
				t.Fatal("no error")
			}
			pass(time.Second)
		}
		calls := r.vendor.seen()
		if len(calls) != 2 || calls[1].at.Sub(calls[0].at) < 30*time.Second {
			t.Errorf("calls: %v", calls)
		}
	})
}

// A refusal is told to all who ask within a few seconds, each key for itself.
func TestRefusalIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		l, q := login(t, "a", 1), request(t, 0)
		wrong := l
		wrong.Payload = accessKey(t, "AAAAXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1")
		for range 5 {
			_, err := r.Mint(t.Context(), wrong, q)
			wantError(t, err, core.ErrPrecondition, core.ReasonMintRefused, "403 SignatureDoesNotMatch")
			noSecret(t, err.Error())
			pass(900 * time.Millisecond)
		}
		if n := r.vendor.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
		fixed := login(t, "a", 2) // another version is asked at once
		if r.get(t, fixed, q); r.vendor.count() != 2 {
			t.Errorf("%d calls", r.vendor.count())
		}
		pass(time.Second)
		if r.get(t, l, q); r.vendor.count() != 3 {
			t.Errorf("%d calls", r.vendor.count())
		}
	})
}

// Who gives up does not take the call with him, even if nobody is left.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.slow = 10 * time.Second
		l, q := login(t, "a", 1), request(t, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			_, err := r.Mint(ctx, l, q)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got := r.get(t, l, q); got != "session-1" {
				t.Errorf("got %q", got)
			}
		})
		wg.Wait()
		_, err := r.Mint(ctx, l, request(t, time.Hour))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that has given up before: %v", err)
		}
		pass(10 * time.Second)
		if got := r.get(t, l, request(t, time.Hour)); got != "session-2" || r.vendor.count() != 2 {
			t.Errorf("%q after %d calls", got, r.vendor.count())
		}
	})
}

// A vendor that hangs holds its callers up for a bounded time.
func TestVendorHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.slow = time.Hour
		start := time.Now()
		_, err := r.Mint(t.Context(), login(t, "a", 1), request(t, 0))
		wantError(t, err, core.ErrUnavailable, core.ReasonVendorUnavailable, "no answer within 15s")
		if took := time.Since(start); took > flightTime {
			t.Errorf("it took %s", took)
		}
	})
}

// What is forgotten is not handed out any more, and nothing of a call that is
// under way is kept.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		q := request(t, 0)
		role := login(t, "role", 7)
		source := login(t, "a", 1)
		role.Source = &source
		r.get(t, login(t, "a", 1), q)
		r.get(t, login(t, "a", 2), q)
		r.get(t, login(t, "ab", 1), q)
		r.get(t, role, q)
		key, err := q.Key()
		if err != nil {
			t.Fatal(err)
		}
		e := r.cache.find(cacheKey{role.Key(), key}) // as somebody may have who is just reading it
		r.Forget("a", 2)
		if _, ok := e.usable(time.Now()); ok {
			t.Error("the token of a source that is not active is still there")
		}
		if n := kept(r); n != 2 {
			t.Errorf("%d entries, want those of a/2 and ab/1", n)
		}
		before := r.vendor.count()
		r.get(t, login(t, "a", 2), q)
		r.get(t, login(t, "ab", 1), q)
		if n := r.vendor.count() - before; n != 0 {
			t.Errorf("%d calls for what is still current", n)
		}
		r.Forget("a", 0) // deleted
		r.Forget("ab", 0)
		if n := kept(r); n != 0 {
			t.Errorf("%d entries", n)
		}
		if n := len(r.cache.byUID); n != 0 {
			t.Errorf("%d uids are in the index of an empty cache", n)
		}
	})
}

func TestForgetDuringFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.slow = 5 * time.Second
		l, q := login(t, "a", 1), request(t, 0)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { r.get(t, l, q) }) // asked before, so that they get it
		}
		synctest.Wait()
		r.Forget("a", 2)
		// Who opened the old version before, and comes only now: nothing is kept of his
		// either, though ten of them share one call.
		for range 10 {
			wg.Go(func() { r.get(t, l, q) })
		}
		wg.Wait()
		if n := r.vendor.count(); n != 2 {
			t.Errorf("%d calls", n)
		}
		if n := kept(r); n != 0 {
			t.Errorf("%d entries are left of a version that is not active", n)
		}
		r.get(t, login(t, "a", 2), q)
		if n := kept(r); n != 1 {
			t.Errorf("%d entries of the active version", n)
		}
		// An older version can become active again.
		r.Forget("a", 1)
		r.get(t, l, q)
		r.get(t, l, q)
		if n := r.vendor.count(); n != 4 || kept(r) != 1 {
			t.Errorf("%d calls and %d entries", n, kept(r))
		}
	})
}

// A refresh that is under way when its version is destroyed leaves nothing behind.
func TestForgetDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		l, q := login(t, "a", 1), request(t, 0)
		r.get(t, l, q)
		r.vendor.set(func(v *vendor) { v.slow = 5 * time.Second })
		pass(46 * time.Minute)
		r.get(t, l, q)
		synctest.Wait()
		if n := r.vendor.count(); n != 2 {
			t.Fatalf("%d calls: no refresh is under way", n)
		}
		r.Forget("a", 0)
		pass(10 * time.Second)
		if n := kept(r); n != 0 {
			t.Errorf("%d entries", n)
		}
	})
}

// What Forget remembers does not grow with what is changed.
func TestForgetForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for i := range 20_000 {
			r.Forget(fmt.Sprint(i), 1)
			time.Sleep(time.Second)
		}
		if n := len(r.cache.latest); n > 3*int(forgetTime/time.Second) {
			t.Errorf("%d are remembered", n)
		}
	})
}

// The cache is bounded: what has ended goes first, then what was not asked for the
// longest.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxTokens = 4 })
		q := request(t, 0)
		get := func(uids ...string) (calls int) {
			before := r.vendor.count()
			for _, uid := range uids {
				r.get(t, login(t, uid, 1), q)
				pass(time.Second)
			}
			return r.vendor.count() - before
		}
		get("a", "b", "c", "d")
		if get("a", "c", "d") != 0 {
			t.Error("not all of four tokens were kept")
		}
		get("e")
		if kept(r) != 4 || get("a", "c", "d", "e") != 0 {
			t.Errorf("%d are kept, and not the last ones", kept(r))
		}
		if get("b") != 1 || kept(r) != 4 {
			t.Error("what was not asked for the longest was kept")
		}
		// Those of a quarter of an hour end, and make room for others.
		r.Forget("a", 0)
		r.Forget("b", 0)
		for _, uid := range []string{"f", "g"} {
			r.get(t, login(t, uid, 1), request(t, 15*time.Minute))
		}
		pass(20 * time.Minute)
		get("h", "i")
		if kept(r) != 4 || get("d", "e", "h", "i") != 0 {
			t.Error("what was still good went before what had ended")
		}
	})
}

// A project that asks for much makes room by what it asked for itself.
func TestEvictionIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxTokens = 32 })
		q := request(t, 0)
		for i := range 3 {
			r.get(t, login(t, fmt.Sprint("small", i), 1), q)
		}
		pass(time.Second)
		for i := range 100 {
			l := login(t, fmt.Sprint("big", i), 1)
			l.Name = "projects/big/credentials/" + l.ShortName()
			r.get(t, l, q)
			pass(time.Second)
		}
		before := r.vendor.count()
		for i := range 3 {
			r.get(t, login(t, fmt.Sprint("small", i), 1), q)
		}
		if n := r.vendor.count() - before; n != 0 {
			t.Errorf("%d of 3 tokens went, though another project asked for 100", n)
		}
		if n := kept(r); n > 32 || n < 28 {
			t.Errorf("%d are kept", n)
		}
	})
}

func TestFairShare(t *testing.T) {
	for _, test := range []struct {
		sizes []int
		total int
		want  int
	}{
		{nil, 5, math.MaxInt},
		{[]int{5}, 5, math.MaxInt},
		{[]int{6}, 5, 5},
		{[]int{1, 9}, 5, 4},
		{[]int{9, 1}, 5, 4},
		{[]int{9, 9}, 5, 2},
		{[]int{1, 2, 9, 9}, 10, 3},
		{[]int{1, 2, 3}, 6, math.MaxInt},
		{[]int{1, 1}, 0, 0},
		{[]int{1}, -1, 0},
	} {
		if got := fairShare(slices.Clone(test.sizes), test.total); got != test.want {
			t.Errorf("of %d for %v: %d, want %d", test.total, test.sizes, got, test.want)
		}
	}
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for i := range 20 {
			r.get(t, login(t, fmt.Sprint("c", i), 1), request(t, 0))
		}
		pass(2 * time.Hour)
		r.get(t, login(t, "other", 1), request(t, 0))
		if n := kept(r); n != 1 {
			t.Errorf("%d entries, of which 20 have ended", n)
		}
	})
}

// Tokens that do not end are shared by those who ask at the same time.
func TestTokensWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.life, r.vendor.slow = 0, time.Second
		l, q := login(t, "a", 1), request(t, 0)
		for range 2 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { r.get(t, l, q) })
			}
			wg.Wait()
		}
		if n := r.vendor.count(); n != 2 {
			t.Errorf("%d calls", n)
		}
		if n := kept(r); n != 0 {
			t.Errorf("%d are kept", n)
		}
	})
}

// A login that is not stored, or that refers to one, is kept nowhere.
func TestLoginsWithoutID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		q := request(t, 0)
		bare := login(t, "a", 1)
		bare.ID = ""
		role := login(t, "role", 1)
		role.Source = &bare
		for range 2 {
			r.get(t, bare, q)
			r.get(t, role, q)
		}
		if n := r.vendor.count(); n != 4 || kept(r) != 0 {
			t.Errorf("%d calls and %d entries", n, kept(r))
		}
	})
}

// The end of a token is passed on as it is, and one that ends soon is not handed
// out behind it.
func TestHonestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		l, q := login(t, "a", 1), request(t, 0)
		r.vendor.life = 5 * time.Second
		start := time.Now()
		for time.Since(start) < time.Minute {
			token, err := r.Mint(t.Context(), l, q)
			if err != nil {
				t.Fatal(err)
			}
			if end, _ := token.ExpireTime(); !time.Now().Before(end) || time.Until(end) > 5*time.Second {
				t.Errorf("a token that ends in %s", time.Until(end))
			}
			pass(700 * time.Millisecond)
		}
		if n := r.vendor.count(); n < 12 || n > 20 {
			t.Errorf("%d calls in a minute for tokens of 5 seconds", n)
		}
		r.vendor.set(func(v *vendor) { v.life = 200 * 365 * 24 * time.Hour })
		token, err := r.Mint(t.Context(), l, request(t, time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if end, _ := token.ExpireTime(); time.Until(end) != time.Hour {
			t.Errorf("asked for an hour, got %s", time.Until(end))
		}
		token, err = r.Mint(t.Context(), login(t, "long", 1), q)
		if err != nil {
			t.Fatal(err)
		}
		if end, _ := token.ExpireTime(); time.Until(end) < 199*365*24*time.Hour {
			t.Errorf("the end has become %s", end)
		}
		r.get(t, login(t, "long", 1), q)
	})
}

// A vendor that repeats a token until shortly before its end is asked more and more
// often, but not all the time.
func TestVendorRepeatsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		same, err := sessionToken(1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		r.vendor.same = same
		l, q := login(t, "a", 1), request(t, 0)
		start := time.Now()
		for time.Since(start) < 59*time.Minute {
			r.get(t, l, q)
			pass(time.Second)
		}
		if n := r.vendor.count(); n < 3 || n > 12 {
			t.Errorf("%d calls", n)
		}
	})
}

// Close ends what is under way, and its callers are told to come again.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.slow = 10 * time.Second
		l, q := login(t, "a", 1), request(t, 0)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := r.Mint(t.Context(), l, q)
			wantError(t, err, core.ErrUnavailable, core.ReasonVendorUnavailable, "stopping")
		})
		synctest.Wait()
		start := time.Now()
		r.Close()
		wg.Wait()
		if time.Since(start) != 0 {
			t.Errorf("Close took %s", time.Since(start))
		}
		_, err := r.Mint(t.Context(), l, q)
		wantError(t, err, core.ErrUnavailable, core.ReasonVendorUnavailable, "stopping")
		r.Close()
	})
}

// Everything at once, for the race detector: no token of a version that was
// forgotten before it was asked for.
func TestConcurrentForget(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy.Rate, c.Policy.Concurrent, c.MaxTokens = 1e6, 64, 3 })
	var version atomic.Int64
	version.Store(1)
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l := login(t, fmt.Sprint("c", (i+n)%5), int(version.Load()))
				if _, err := r.Mint(ctx, l, request(t, 0)); err != nil && ctx.Err() == nil {
					t.Errorf("Mint: %v", err)
				}
			}
		})
	}
	for n := int64(2); n < 200; n++ {
		for i := range 5 {
			r.Forget(fmt.Sprint("c", i), uint32(n))
		}
		version.Store(n)
	}
	stop()
	wg.Wait()
	for i := range 5 {
		r.Forget(fmt.Sprint("c", i), 0)
	}
	if n := kept(r); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if n := len(r.cache.byUID); n != 0 {
		t.Errorf("%d uids are left in the index", n)
	}
}

// kept counts the entries, and checks that the count is right.
func kept(r *rig) int {
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	if n := len(r.cache.all()); n != r.cache.count {
		return -1
	}
	return r.cache.count
}

func wantError(t *testing.T, err, kind error, reason, text string) {
	t.Helper()
	e, ok := errors.AsType[*core.Error](err)
	if !ok || !errors.Is(err, kind) || e.Reason != reason || !contains(e.Message, text) {
		t.Errorf("%v; want %v with reason %s and %q", err, kind, reason, text)
	}
}

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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const vendorSecret = "vendor-canary"

var busy = &provider.Error{Kind: provider.ErrUnavailable, Status: 503, Text: "busy"}

// vendor is the code for one, as far as a client sees it.
type vendor struct {
	calls  atomic.Int64
	verify func(ctx context.Context, n int64) error
	token  func(ctx context.Context, n int64) (credential.Token, error)
}

func (v *vendor) Verify(ctx context.Context, _ credential.Login) (credential.Identity, error) {
	if err := v.verify(ctx, v.calls.Add(1)); err != nil {
		return credential.Identity{Name: "nobody"}, err
	}
	return credential.Identity{Name: "me"}, nil
}

func (v *vendor) Mint(ctx context.Context, _ credential.Login, _ credential.TokenRequest) (credential.Token, error) {
	return v.token(ctx, v.calls.Add(1))
}

func newVendorClient(v *vendor, p provider.VendorPolicy) *provider.VendorClient {
	p.Kind = "awsAccessKey"
	if p.Random == nil {
		p.Random = func() float64 { return 0.999 }
	}
	return provider.NewVendorClient(v, v, p)
}

func vendorLogin(id string) credential.Login {
	return credential.Login{Name: "projects/p/credentials/c", ID: id}
}

func vendorToken(end time.Time) (credential.Token, error) {
	m := &credentialv1.Token{Kind: &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: vendorSecret}}}
	if !end.IsZero() {
		m.ExpireTime = timestamppb.New(end)
	}
	return credential.NewToken(m)
}

func TestVendorClientRetries(t *testing.T) {
	for _, test := range []struct {
		name   string
		errs   []error // of the calls; the last of them again and again
		policy provider.VendorPolicy
		calls  int64
		want   error // nil is an answer
		took   time.Duration
	}{
		{"an answer", []error{nil}, provider.VendorPolicy{}, 1, nil, 0},
		{"away once", []error{busy, nil}, provider.VendorPolicy{}, 2, nil, 400 * time.Millisecond},
		{"away", []error{busy}, provider.VendorPolicy{}, 2, provider.ErrUnavailable, 400 * time.Millisecond},
		{"away, four attempts", []error{busy}, provider.VendorPolicy{Attempts: 4}, 4, provider.ErrUnavailable, 1200 * time.Millisecond},
		{"refused", []error{&provider.Error{Kind: provider.ErrRefused}}, provider.VendorPolicy{}, 1, provider.ErrRefused, 0},
		{"unsupported", []error{&provider.Error{Kind: provider.ErrUnsupported}}, provider.VendorPolicy{}, 1, provider.ErrUnsupported, 0},
		{"it says when", []error{&provider.Error{Kind: provider.ErrUnavailable, RetryAfter: 3 * time.Second}, nil}, provider.VendorPolicy{}, 2, nil, 3 * time.Second},
		{"it says too late", []error{&provider.Error{Kind: provider.ErrUnavailable, RetryAfter: time.Minute}}, provider.VendorPolicy{}, 1, provider.ErrUnavailable, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &vendor{verify: func(_ context.Context, n int64) error { return test.errs[min(int(n), len(test.errs))-1] }}
				start := time.Now()
				got, err := newVendorClient(v, test.policy).Verify(t.Context(), vendorLogin("a"))
				if !errors.Is(err, test.want) || (err == nil) != (got.Name == "me") || err != nil && got.Name != "" {
					t.Errorf("%+v, %v", got, err)
				}
				if e, ok := errors.AsType[*provider.Error](err); err != nil && (!ok || e.Op != "verify") {
					t.Errorf("%v has no operation", err)
				}
				if took := time.Since(start); v.calls.Load() != test.calls || took.Round(10*time.Millisecond) != test.took {
					t.Errorf("%d calls in %s, want %d in %s", v.calls.Load(), took, test.calls, test.took)
				}
			})
		})
	}
}

func TestVendorClientTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &vendor{verify: func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }}
		c := newVendorClient(v, provider.VendorPolicy{Timeout: 5 * time.Second})
		start := time.Now()
		_, err := c.Verify(t.Context(), vendorLogin("a"))
		if !errors.Is(err, provider.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 5s") || time.Since(start) != 5*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Verify(ctx, vendorLogin("a")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, provider.ErrUnavailable) {
			t.Errorf("a caller that gave up: %v", err)
		}
	})
}

// What a vendor's code breaks on stays in the call, and its words are not repeated.
func TestVendorClientContains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, f := range map[string]func() error{
			"a panic":         func() error { panic("parsing " + vendorSecret) },
			"a runtime error": func() error { return []error{}[0] },
			"a stranger":      func() error { return errors.New("dial " + vendorSecret) },
		} {
			v := &vendor{verify: func(context.Context, int64) error { return f() }}
			c := newVendorClient(v, provider.VendorPolicy{Concurrent: 1})
			for range 3 { // the place is given back
				_, err := c.Verify(t.Context(), vendorLogin("a"))
				if !errors.Is(err, provider.ErrUnavailable) || strings.Contains(fmt.Sprintf("%v %+v", err, err), vendorSecret) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	})
}

func TestVendorClientMint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			name string
			end  time.Duration // from now; 0 is none
			zero bool
			want string
		}{
			{"a token", time.Hour, false, ""},
			{"one that ends soon", time.Nanosecond, false, ""},
			{"one without an end", 0, false, ""},
			{"one that has ended", -time.Second, false, "mint: store unavailable: the token had ended when it arrived"},
			{"none", 0, true, "mint: store unavailable: the answer holds no token"},
		} {
			v := &vendor{token: func(context.Context, int64) (credential.Token, error) {
				switch {
				case test.zero:
					return credential.Token{}, nil
				case test.end == 0:
					return vendorToken(time.Time{})
				}
				return vendorToken(time.Now().Add(test.end))
			}}
			token, err := newVendorClient(v, provider.VendorPolicy{}).Mint(t.Context(), vendorLogin("a"), credential.TokenRequest{})
			if (test.want == "") != (err == nil) || token.IsZero() != (err != nil) || err != nil && !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%s: %v, %v", test.name, token, err)
			}
		}
		v := &vendor{token: func(context.Context, int64) (credential.Token, error) {
			token, err := vendorToken(time.Now().Add(time.Hour))
			return token, errors.Join(busy, err)
		}}
		if token, err := newVendorClient(v, provider.VendorPolicy{}).Mint(t.Context(), vendorLogin("a"), credential.TokenRequest{}); !token.IsZero() || err == nil {
			t.Errorf("a token beside an error: %v, %v", token, err)
		}
	})
}

func TestVendorClientWithoutVendor(t *testing.T) {
	c := provider.NewVendorClient(nil, nil, provider.VendorPolicy{Kind: "basic"})
	if _, err := c.Verify(t.Context(), vendorLogin("a")); !errors.Is(err, provider.ErrUnsupported) || !strings.Contains(err.Error(), "kind basic") {
		t.Errorf("Verify: %v", err)
	}
	if _, err := c.Mint(t.Context(), vendorLogin("a"), credential.TokenRequest{}); !errors.Is(err, provider.ErrUnsupported) || !strings.Contains(err.Error(), "kind basic") {
		t.Errorf("Mint: %v", err)
	}
}

// One credential whose endpoint hangs has an eighth of the places, all those of a
// project have half, and who waits for one in vain is told so.
func TestVendorClientPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, hanging atomic.Int64
		hang := make(chan struct{})
		v := &hanger{func(ctx context.Context, l credential.Login) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			if l.Project() == "projects/hangs" {
				hanging.Add(1)
				select {
				case <-hang:
				case <-ctx.Done():
				}
				return ctx.Err()
			}
			time.Sleep(time.Second)
			return nil
		}}
		c := provider.NewVendorClient(v, nil, provider.VendorPolicy{Kind: "awsAccessKey", Concurrent: 16, Timeout: time.Minute, Rate: 1e6})
		var wg sync.WaitGroup
		callHanging := func(id string) {
			for range 20 {
				wg.Go(func() {
					_, _ = c.Verify(t.Context(), credential.Login{Name: "projects/hangs/credentials/" + id, ID: id})
				})
			}
			synctest.Wait()
		}
		callHanging("a")
		if n := hanging.Load(); n != 2 {
			t.Errorf("%d of 16 places are one credential's", n)
		}
		for _, id := range []string{"b", "c", "d", "e", "f"} {
			callHanging(id)
		}
		if n := hanging.Load(); n != 8 {
			t.Errorf("%d of 16 places are one project's", n)
		}
		start := time.Now()
		var others sync.WaitGroup
		for i := range 40 {
			others.Go(func() {
				if _, err := c.Verify(t.Context(), vendorLogin(fmt.Sprint("c", i))); err != nil {
					t.Errorf("another credential: %v", err)
				}
			})
		}
		others.Wait()
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("40 calls of a second in 8 places took %s", took)
		}
		if most.Load() != 16 {
			t.Errorf("%d calls at a time", most.Load())
		}
		close(hang)
		wg.Wait()
		if n := hanging.Load(); n != 120 {
			t.Errorf("%d of 120 got a place in the end", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		v := &hanger{func(ctx context.Context, _ credential.Login) error { <-ctx.Done(); return ctx.Err() }}
		c := provider.NewVendorClient(v, nil, provider.VendorPolicy{Kind: "awsAccessKey", Concurrent: 4, Timeout: 5 * time.Second})
		go func() { _, _ = c.Verify(t.Context(), vendorLogin("a")) }()
		time.Sleep(time.Millisecond)
		long, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if _, err := c.Verify(long, vendorLogin("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that gave up while it waited: %v", err)
		}
		time.Sleep(time.Minute)
	})
	synctest.Test(t, func(t *testing.T) {
		// The place does not become free while the caller waits for it.
		release := make(chan struct{})
		v := &hanger{func(context.Context, credential.Login) error { <-release; return nil }}
		c := provider.NewVendorClient(v, nil, provider.VendorPolicy{Kind: "awsAccessKey", Concurrent: 4, Timeout: 5 * time.Second})
		go func() { _, _ = c.Verify(t.Context(), vendorLogin("a")) }()
		synctest.Wait()
		start := time.Now()
		_, err := c.Verify(t.Context(), vendorLogin("a"))
		e, ok := errors.AsType[*provider.Error](err)
		if took := time.Since(start); !ok || !e.NotAsked || !errors.Is(err, provider.ErrUnavailable) || took != 5*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		close(release)
	})
}

// Who would wait behind too many others is told so at once.
func TestVendorClientQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &hanger{func(ctx context.Context, _ credential.Login) error { <-ctx.Done(); return ctx.Err() }}
		c := provider.NewVendorClient(v, nil, provider.VendorPolicy{Kind: "awsAccessKey", Concurrent: 8, Timeout: time.Minute, Rate: 1e6})
		ctx, giveUp := context.WithCancel(t.Context())
		var refused, gaveUp atomic.Int64
		call := func(n int, ids ...string) {
			for i := range n {
				go func() {
					id := ids[i%len(ids)]
					_, err := c.Verify(ctx, credential.Login{Name: "projects/hangs/credentials/" + id, ID: id})
					if e, ok := errors.AsType[*provider.Error](err); ok && e.NotAsked && errors.Is(err, provider.ErrUnavailable) {
						refused.Add(1)
					}
					if errors.Is(err, context.Canceled) {
						gaveUp.Add(1)
					}
				}()
			}
			synctest.Wait()
		}
		call(20, "a") // one place, and sixteen who wait for it
		if n := refused.Load(); n != 3 {
			t.Errorf("%d of 20 calls with one login are refused at once", n)
		}
		// Four places of the project, each with sixteen who wait: all with another login.
		var ids []string
		for i := range 100 {
			ids = append(ids, fmt.Sprint(i))
		}
		call(100, ids...)
		if n := refused.Load(); n != 3+100-(4*17-1) {
			t.Errorf("%d calls of one project are refused at once", n)
		}
		giveUp()
		synctest.Wait()
		if n := gaveUp.Load(); n+refused.Load() != 120 {
			t.Errorf("%d gave up and %d were refused, of 120", n, refused.Load())
		}
	})
}

// hanger is a vendor that is told which login it is.
type hanger struct {
	verify func(context.Context, credential.Login) error
}

func (h *hanger) Verify(ctx context.Context, l credential.Login) (credential.Identity, error) {
	return credential.Identity{}, h.verify(ctx, l)
}

func TestVendorClientRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &vendor{verify: func(context.Context, int64) error { return nil }}
		c := newVendorClient(v, provider.VendorPolicy{Rate: 10})
		start := time.Now()
		for range 60 {
			if _, err := c.Verify(t.Context(), vendorLogin("a")); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start).Round(10 * time.Millisecond); took != 5*time.Second {
			t.Errorf("60 calls at 10 per second, in bursts of 10, took %s", took)
		}
	})
}

func TestVendorMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		m, err := provider.NewVendorMetrics(registry)
		if err != nil {
			t.Fatal(err)
		}
		var answer error
		v := &vendor{verify: func(context.Context, int64) error { return answer }}
		c := newVendorClient(v, provider.VendorPolicy{Metrics: m, Attempts: 1})
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range []error{nil, nil, busy, &provider.Error{Kind: provider.ErrRefused}, &provider.Error{Kind: provider.ErrUnsupported}, context.Canceled} {
			answer = err
			ctx := t.Context()
			if errors.Is(err, context.Canceled) {
				ctx = cancelled
			}
			_, _ = c.Verify(ctx, vendorLogin("a"))
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP credstore_vendor_calls_total Calls to the vendors of credentials, each with its retries, by what came of them.
# TYPE credstore_vendor_calls_total counter
credstore_vendor_calls_total{kind="awsAccessKey",operation="verify",outcome="cancelled"} 1
credstore_vendor_calls_total{kind="awsAccessKey",operation="verify",outcome="ok"} 2
credstore_vendor_calls_total{kind="awsAccessKey",operation="verify",outcome="refused"} 1
credstore_vendor_calls_total{kind="awsAccessKey",operation="verify",outcome="unavailable"} 1
credstore_vendor_calls_total{kind="awsAccessKey",operation="verify",outcome="unsupported"} 1
`), "credstore_vendor_calls_total"); err != nil {
			t.Error(err)
		}
		if _, err := provider.NewVendorMetrics(registry); err == nil {
			t.Error("registered twice")
		}
	})
}

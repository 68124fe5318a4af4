package issuer

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

func TestVerify(t *testing.T) {
	long := strings.Repeat("x", 2*provider.MaxText)
	for _, test := range []struct {
		name    string
		err     error
		state   core.VerificationState
		message string
	}{
		{"good", nil, core.Verified, ""},
		{"refused", refused, core.VerificationRefused, "403 SignatureDoesNotMatch"},
		{"away", away, core.VerificationUnreachable, "503 busy"},
		{"unsupported", &provider.Error{Kind: provider.ErrUnsupported, Text: "it has no key"}, core.VerificationUnsupported, "it has no key"},
		{"without words", &provider.Error{Kind: provider.ErrRefused}, core.VerificationRefused, "refused"},
		{"control characters", &provider.Error{Kind: provider.ErrRefused, Text: "a\x1b[31m\nb"}, core.VerificationRefused, "a [31m b"},
		{"long", &provider.Error{Kind: provider.ErrRefused, Text: long}, core.VerificationRefused, long[:provider.MaxText-1] + "…"},
		{
			"a private address", provider.NetworkError("verify", provider.Egress{}.Check(netip.MustParseAddr("10.0.0.1"))), core.VerificationUnreachable,
			"this server does not connect to 10.0.0.1: it is a private address; the server's configuration can allow it with --allow-target",
		},
		{
			"a link-local address", provider.NetworkError("verify", provider.Egress{}.Check(netip.MustParseAddr("169.254.1.1"))), core.VerificationUnreachable,
			"this server does not connect to 169.254.1.1: it is a link-local address, where clouds keep their metadata services",
		},
		{"a stranger's", errors.New("dial: " + goodKey), core.VerificationUnreachable, "failed with an error of type *errors.errorString"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.Policy.Attempts = 1 })
				r.vendor.err = test.err
				start := time.Now()
				got, err := r.Verify(t.Context(), login(t, "a", 1))
				if err != nil {
					t.Fatal(err)
				}
				want := core.Verification{State: test.state, Message: test.message, Time: start.UTC()}
				if test.err == nil {
					want.Identity = credential.Identity{Name: "arn:aws:iam::123456789012:user/bot", Facts: map[string]string{"account": "123456789012"}}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				noSecret(t, got.Message)
			})
		})
	}
}

func TestVerifyTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.vendor.err = away // with one retry
		got, err := r.Verify(t.Context(), login(t, "a", 1))
		if err != nil || got.Latency < 100*time.Millisecond {
			t.Errorf("%+v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Verify(ctx, login(t, "a", 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that gave up: %v", err)
		}
	})
}

// A kind that nobody can be asked about says so, and mints nothing.
func TestKindWithoutVendor(t *testing.T) {
	r := newRig(t)
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "u", Password: "p"}}})
	if err != nil {
		t.Fatal(err)
	}
	l := credential.Login{Name: "projects/p/credentials/b", ID: "b/1", Payload: p}
	got, err := r.Verify(t.Context(), l)
	if err != nil || got.State != core.VerificationUnsupported || !contains(got.Message, "kind basic") {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = r.Mint(t.Context(), l, request(t, 0))
	wantInvalid(t, err, "this server mints no tokens from credentials of kind basic")
	if _, err := New(Config{Vendors: map[credential.Kind]Vendor{"basik": {}}}); err == nil {
		t.Error("a vendor of no kind was accepted")
	}
}

func wantInvalid(t *testing.T, err error, text string) {
	t.Helper()
	e, ok := errors.AsType[*core.InvalidError](err)
	if !ok || len(e.Violations) != 1 || e.Violations[0].Field != "token" || e.Violations[0].Description != text {
		t.Errorf("%v; want the field token: %s", err, text)
	}
}

func TestMintErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Policy.Attempts = 1 })
		mint := func(err error) error {
			r.vendor.err = err
			pass(10 * refusalTime)
			_, err = r.Mint(t.Context(), login(t, "a", 1), request(t, 0))
			noSecret(t, err.Error())
			return err
		}
		wantError(t, mint(refused), core.ErrPrecondition, core.ReasonMintRefused, "403 SignatureDoesNotMatch")
		forbidden := provider.NetworkError("mint", provider.Egress{}.Check(netip.MustParseAddr("10.0.0.1")))
		wantError(t, mint(forbidden), core.ErrPrecondition, core.ReasonMintRefused, "credentials/a: this server does not connect to 10.0.0.1: it is a private address; the server's configuration can allow it with --allow-target")
		wantError(t, mint(away), core.ErrUnavailable, core.ReasonVendorUnavailable, "503 busy")
		wantError(t, mint(errors.New(goodKey)), core.ErrUnavailable, core.ReasonVendorUnavailable, "failed with an error")
		wantInvalid(t, mint(&provider.Error{Kind: provider.ErrUnsupported, Text: "sessions are for users"}), "sessions are for users")
		r.vendor.err, r.vendor.life = nil, -time.Minute
		old, err := sessionToken(1, time.Nanosecond)
		if err != nil {
			t.Fatal(err)
		}
		r.vendor.same = old
		pass(10 * refusalTime)
		_, err = r.Mint(t.Context(), login(t, "a", 1), request(t, 0))
		wantError(t, err, core.ErrUnavailable, core.ReasonVendorUnavailable, "had ended when it arrived")
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		r := newRig(t, func(c *Config) { c.Metrics = registry })
		l, q := login(t, "a", 1), request(t, 0)
		r.get(t, l, q)
		r.get(t, l, q)
		r.get(t, l, q)
		r.vendor.err = refused
		if _, err := r.Mint(t.Context(), login(t, "b", 1), q); err == nil {
			t.Error("no error")
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP credstore_issuer_cache_entries Tokens, and refusals, that are kept in memory for calls.
# TYPE credstore_issuer_cache_entries gauge
credstore_issuer_cache_entries 2
# HELP credstore_issuer_tokens_total Tokens that calls asked for, by where they came from: kept, minted, failed.
# TYPE credstore_issuer_tokens_total counter
credstore_issuer_tokens_total{result="failed"} 1
credstore_issuer_tokens_total{result="kept"} 2
credstore_issuer_tokens_total{result="minted"} 1
# HELP credstore_vendor_calls_total Calls to the vendors of credentials, each with its retries, by what came of them.
# TYPE credstore_vendor_calls_total counter
credstore_vendor_calls_total{kind="awsAccessKey",operation="mint",outcome="ok"} 1
credstore_vendor_calls_total{kind="awsAccessKey",operation="mint",outcome="refused"} 1
`), "credstore_issuer_cache_entries", "credstore_issuer_tokens_total", "credstore_vendor_calls_total"); err != nil {
			t.Error(err)
		}
		if _, err := New(Config{Metrics: registry}); err == nil {
			t.Error("metrics were registered twice")
		}
	})
}

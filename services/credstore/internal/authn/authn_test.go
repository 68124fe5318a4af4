package authn_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/credstore/credstore/services/credstore/internal/authn"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// tokens is the domain: a set of secrets, and how often it was asked.
type tokens struct {
	valid map[string]*core.Principal
	asked int
}

func (k *tokens) lookup(_ context.Context, secret string) (*core.Principal, error) {
	k.asked++
	if p, ok := k.valid[secret]; ok {
		return p, nil
	}
	return nil, &core.Error{Kind: core.ErrUnauthenticated, Reason: core.ReasonUnauthenticated, Message: "unknown token"}
}

func newTokens() *tokens {
	return &tokens{valid: map[string]*core.Principal{
		"credstore_right": {Name: "projects/p/tokens/t", Role: core.Reader},
		"credstore_other": {Name: "projects/p/tokens/o", Role: core.Reader},
	}}
}

func call(t *testing.T, from net.Addr, md metadata.MD) context.Context {
	t.Helper()
	ctx := metadata.NewIncomingContext(t.Context(), md)
	return peer.NewContext(ctx, &peer.Peer{Addr: from})
}

func tcp(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

func TestCall(t *testing.T) {
	k := newTokens()
	a := authn.New(authn.Config{Lookup: k.lookup})
	for _, header := range []string{"Bearer credstore_right", "bearer credstore_right", "BEARER credstore_right"} {
		ctx, err := a.Call(call(t, tcp("192.0.2.1:1234"), metadata.Pairs("Authorization", header)))
		if err != nil {
			t.Fatalf("%s: %v", header, err)
		}
		p := core.PrincipalFrom(ctx)
		if p == nil || p.Name != "projects/p/tokens/t" || p.Remote != "192.0.2.1:1234" {
			t.Errorf("principal is %+v", p)
		}
	}
	if k.valid["credstore_right"].Remote != "" {
		t.Error("the shared principal was changed")
	}
}

func TestRefusals(t *testing.T) {
	const secret = "credstore_hunter2"
	for name, test := range map[string]struct {
		headers []string
		reason  string
		says    string
	}{
		"none":              {nil, authn.ReasonTokenMissing, "Authorization: Bearer"},
		"two":               {[]string{"Bearer credstore_right", "Bearer credstore_right"}, authn.ReasonTokenRepeated, "once"},
		"empty":             {[]string{""}, authn.ReasonTokenMalformed, "scheme Bearer"},
		"bare":              {[]string{secret}, authn.ReasonTokenMalformed, "scheme Bearer"},
		"basic":             {[]string{"Basic " + secret}, authn.ReasonTokenMalformed, "scheme Bearer"},
		"no token":          {[]string{"Bearer "}, authn.ReasonTokenMalformed, "begin with"},
		"no space":          {[]string{"Bearer"}, authn.ReasonTokenMalformed, "begin with"},
		"foreign":           {[]string{"Bearer ghp_hunter2"}, authn.ReasonTokenMalformed, "begin with"},
		"two spaces":        {[]string{"Bearer  " + secret}, authn.ReasonTokenMalformed, "begin with"},
		"line break":        {[]string{"Bearer " + secret + "\n"}, authn.ReasonTokenMalformed, "damaged"},
		"list":              {[]string{"Bearer " + secret + ", Bearer x"}, authn.ReasonTokenMalformed, "damaged"},
		"not ASCII":         {[]string{"Bearer " + secret + "é"}, authn.ReasonTokenMalformed, "damaged"},
		"huge":              {[]string{"Bearer " + secret + strings.Repeat("x", 512)}, authn.ReasonTokenMalformed, "damaged"},
		"unknown":           {[]string{"Bearer " + secret}, core.ReasonUnauthenticated, "unknown"},
		"case of the token": {[]string{"Bearer CREDSTORE_right"}, authn.ReasonTokenMalformed, "begin with"},
	} {
		t.Run(name, func(t *testing.T) {
			a := authn.New(authn.Config{Lookup: newTokens().lookup})
			md := metadata.MD{}
			md.Append("authorization", test.headers...)
			ctx, err := a.Call(call(t, tcp("192.0.2.1:1234"), md))
			var e *core.Error
			if ctx != nil || !errors.As(err, &e) || !errors.Is(err, core.ErrUnauthenticated) {
				t.Fatalf("got %v, %v", ctx, err)
			}
			if e.Reason != test.reason || !strings.Contains(e.Message, test.says) {
				t.Errorf("got reason %s, message %q", e.Reason, e.Message)
			}
			if strings.Contains(e.Message, "hunter2") {
				t.Errorf("the message repeats the token: %s", e.Message)
			}
		})
	}
}

func TestForwardedAddressOnlyFromTheHop(t *testing.T) {
	hop := &net.UnixAddr{Name: "in-process", Net: "unix"}
	a := authn.New(authn.Config{
		Lookup: newTokens().lookup,
		Forwarded: func(from net.Addr, md metadata.MD) (string, bool) {
			v := md.Get("x-remote")
			return strings.Join(v, ""), from == net.Addr(hop) && len(v) == 1
		},
	})
	md := metadata.Pairs("authorization", "Bearer credstore_right", "x-remote", "203.0.113.9:5")
	for from, want := range map[net.Addr]string{hop: "203.0.113.9:5", tcp("192.0.2.1:1"): "192.0.2.1:1"} {
		ctx, err := a.Call(call(t, from, md))
		if err != nil {
			t.Fatal(err)
		}
		if got := core.PrincipalFrom(ctx).Remote; got != want {
			t.Errorf("from %v: remote is %s, want %s", from, got, want)
		}
	}
	if got := a.Remote(t.Context()); got != "" {
		t.Errorf("without a peer the address is %q", got)
	}
}

func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTokens()
		a := authn.New(authn.Config{Lookup: k.lookup, Limits: authn.Limits{Failures: 5, FailuresPerSecond: 0.5}})
		try := func(remote, secret string) error {
			_, err := a.Header(t.Context(), remote, []string{"Bearer " + secret})
			return err
		}
		if err := try("192.0.2.1:1", "credstore_right"); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := try("192.0.2.1:1", fmt.Sprintf("credstore_guess%d", i)); !errors.Is(err, core.ErrUnauthenticated) {
				t.Fatalf("guess %d: %v", i, err)
			}
		}
		k.asked = 0
		// Another port is the same address; a right token is not looked at either.
		for _, secret := range []string{"credstore_guess", "credstore_other"} {
			var throttled *authn.ThrottledError
			if err := try("192.0.2.1:2", secret); !errors.As(err, &throttled) {
				t.Fatalf("%s beyond the bound: %v", secret, err)
			}
			if throttled.RetryAfter() != 2*time.Second || throttled.Reason() != authn.ReasonTooManyGuesses {
				t.Errorf("got %s, %v", throttled.Reason(), throttled.RetryAfter())
			}
		}
		if k.asked != 0 {
			t.Errorf("%d guesses were looked at", k.asked)
		}
		if err := try("192.0.2.1:3", "credstore_right"); err != nil {
			t.Errorf("a token that was right before is locked out: %v", err)
		}
		if err := try("192.0.2.2:1", "credstore_other"); err != nil {
			t.Errorf("another address is locked out: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := try("192.0.2.1:1", "credstore_guess"); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("after the wait: %v", err)
		}

		// A token that is deleted loses its privilege.
		delete(k.valid, "credstore_right")
		if err := try("192.0.2.1:1", "credstore_right"); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("deleted token: %v", err)
		}
		var throttled *authn.ThrottledError
		if err := try("192.0.2.1:1", "credstore_right"); !errors.As(err, &throttled) {
			t.Errorf("deleted token again: %v", err)
		}
	})
}

func TestGuessingByIPv6Network(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no second passes in which a guess is forgiven
		a := authn.New(authn.Config{Lookup: newTokens().lookup, Limits: authn.Limits{Failures: 1}})
		try := func(remote string) error {
			_, err := a.Header(t.Context(), remote, []string{"Bearer credstore_guess"})
			return err
		}
		var throttled *authn.ThrottledError
		for _, test := range []struct {
			remote    string
			throttled bool
		}{
			{"[2001:db8::1]:1", false},
			{"[2001:db8::ffff:2]:9", true},
			{"[2001:db8:0:1::1]:1", false},
			{"[::ffff:192.0.2.9]:1", false},
			{"192.0.2.9:2", true},
			{"192.0.2.9", true},
			{"192.0.2.10", false},
			{"@", false},
			{"@", true},
		} {
			if got := errors.As(try(test.remote), &throttled); got != test.throttled {
				t.Errorf("%s: throttled %v, want %v", test.remote, got, test.throttled)
			}
		}
	})
}

func TestMemoryOfGuessesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no second passes in which a guess is forgiven
		k := newTokens()
		a := authn.New(authn.Config{Lookup: k.lookup, Limits: authn.Limits{Failures: 1, Addresses: 3}})
		try := func(remote, secret string) error {
			_, err := a.Header(t.Context(), remote, []string{"Bearer " + secret})
			return err
		}
		var throttled *authn.ThrottledError
		for i := range 100 {
			if err := try(fmt.Sprintf("192.0.2.%d", i), "credstore_guess"); errors.As(err, &throttled) {
				t.Fatal(err)
			}
		}
		for i, want := range map[int]bool{99: true, 98: true, 97: true} {
			if got := errors.As(try(fmt.Sprintf("192.0.2.%d", i), "credstore_guess"), &throttled); got != want {
				t.Errorf("address %d: throttled %v", i, got)
			}
		}
		if errors.As(try("192.0.2.1", "credstore_guess"), &throttled) {
			t.Error("an address that failed long ago is still remembered")
		}
		// Right tokens are remembered in bounds as well: the newest stay.
		for i := range 50 {
			k.valid[fmt.Sprintf("credstore_%d", i)] = &core.Principal{}
			if err := try("198.51.100.1", fmt.Sprintf("credstore_%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if errors.As(try("198.51.100.1", "credstore_guess"), &throttled) {
			t.Fatal("the first guess is throttled")
		}
		if err := try("198.51.100.1", "credstore_49"); err != nil {
			t.Errorf("the newest right token is locked out: %v", err)
		}
		if err := try("198.51.100.1", "credstore_0"); !errors.As(err, &throttled) {
			t.Errorf("the oldest right token is still known: %v", err)
		}
	})
}

// TestOtherFailuresAreNoGuesses holds that trouble of the store costs callers
// nothing.
func TestOtherFailuresAreNoGuesses(t *testing.T) {
	down := &core.Error{Kind: core.ErrUnavailable, Reason: core.ReasonStorage, Message: "down"}
	a := authn.New(authn.Config{
		Lookup: func(context.Context, string) (*core.Principal, error) { return nil, down },
		Limits: authn.Limits{Failures: 1},
	})
	for range 5 {
		if _, err := a.Header(t.Context(), "192.0.2.1", []string{"Bearer credstore_x"}); !errors.Is(err, core.ErrUnavailable) {
			t.Fatal(err)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	a := authn.New(authn.Config{Lookup: newTokens().lookup})
	ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", "Bearer credstore_right"))
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: tcp("192.0.2.1:1234")})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Call(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

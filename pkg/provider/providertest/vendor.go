package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// VendorHarness is a vendor's code with its counterpart, real or fake, as the
// suite drives it for one kind of credential. The counterpart stays the same for
// the whole suite.
type VendorHarness struct {
	Verifier provider.Verifier
	// Minter is nil when no tokens can be minted from the kind.
	Minter provider.Minter
	// Good is a login that the counterpart accepts, and Identity whose it is.
	Good     credential.Login
	Identity string
	// Wrong is a login that it refuses, as one with another secret; the zero
	// value when the kind holds nothing that could be refused.
	Wrong credential.Login
	// Requests are what Good answers; nil asks for what the kind mints by itself.
	Requests []*credentialv1.TokenRequest
	// Calls counts the requests that the counterpart got.
	Calls func() int
	// Stop makes the counterpart unreachable until start is called. Nil when it
	// cannot.
	Stop func(t *testing.T) (start func())
	// Secrets are strings that no error, identity and printed value may contain.
	Secrets []string
}

// RunVendor checks that a vendor's code behaves as package provider promises.
func RunVendor(t *testing.T, h VendorHarness) {
	t.Run("Verify", func(t *testing.T) { testVerify(t, h) })
	t.Run("VerifyRefused", func(t *testing.T) { testVerifyRefused(t, h) })
	if h.Minter != nil {
		t.Run("Mint", func(t *testing.T) { testMint(t, h) })
		t.Run("MintRefused", func(t *testing.T) { testMintRefused(t, h) })
	}
	t.Run("VendorCancelled", func(t *testing.T) { testVendorCancelled(t, h) })
	t.Run("VendorConcurrent", func(t *testing.T) { testVendorConcurrent(t, h) })
	t.Run("VendorUnavailable", func(t *testing.T) { testVendorUnavailable(t, h) })
}

// requestsOf returns what the suite asks the minter for; nothing without one.
func requestsOf(t *testing.T, h VendorHarness) []credential.TokenRequest {
	t.Helper()
	if h.Minter == nil {
		return nil
	}
	asked := h.Requests
	if len(asked) == 0 {
		asked = []*credentialv1.TokenRequest{nil}
	}
	var out []credential.TokenRequest
	for _, m := range asked {
		r, err := credential.NewTokenRequest(h.Good.Payload.Kind(), m)
		if err != nil {
			t.Fatalf("the harness asks for what its kind cannot answer: %v", err)
		}
		out = append(out, r)
	}
	return out
}

func testVerify(t *testing.T, h VendorHarness) {
	before := h.Calls()
	got, err := h.Verifier.Verify(t.Context(), h.Good)
	if err != nil {
		t.Fatalf("a good login: %v", err)
	}
	if got.Name != h.Identity {
		t.Errorf("identity is %q, want %q", got.Name, h.Identity)
	}
	if h.Calls() == before {
		t.Error("the counterpart was not asked")
	}
	wantNoSecrets(t, "the identity", fmt.Sprintf("%+v", got), h.Secrets)
	wantNoSecrets(t, "the printed verifier", fmt.Sprintf("%+v %#v", h.Verifier, h.Verifier), h.Secrets)
}

func testVerifyRefused(t *testing.T, h VendorHarness) {
	if h.Wrong.Payload.IsZero() {
		return
	}
	first := wantRefused(t, h, func(ctx context.Context) error {
		_, err := h.Verifier.Verify(ctx, h.Wrong)
		return err
	})
	second := wantRefused(t, h, func(ctx context.Context) error {
		_, err := h.Verifier.Verify(ctx, h.Wrong)
		return err
	})
	if first != second {
		t.Errorf("the same answer has two texts:\n%s\n%s", first, second)
	}
}

func testMint(t *testing.T, h VendorHarness) {
	for _, request := range requestsOf(t, h) {
		t.Run(request.Kind(), func(t *testing.T) {
			before := h.Calls()
			token, err := h.Minter.Mint(t.Context(), h.Good, request)
			if err != nil {
				t.Fatal(err)
			}
			if token.IsZero() {
				t.Fatal("no token and no error")
			}
			// What is minted anew ends; what is passed on, as a stored password, need
			// not have been asked for.
			at, expires := token.ExpireTime()
			if expires && time.Until(at) < time.Minute {
				t.Errorf("the token ends at %s", at)
			}
			if !expires && h.Calls() != before {
				t.Error("a token that was asked for does not end")
			}
			if _, err := token.Field(""); err != nil {
				t.Error(err)
			}
			encoded, err := json.Marshal(token)
			if err != nil {
				t.Error(err)
			}
			for _, secret := range tokenSecrets(t, token) {
				wantNoSecrets(t, "the printed token", fmt.Sprintf("%v %+v %#v %s %s", token, token, token, token.Message(), encoded), []string{secret})
			}
			wantNoSecrets(t, "the printed minter", fmt.Sprintf("%+v %#v", h.Minter, h.Minter), h.Secrets)
		})
	}
}

// tokenSecrets returns the fields of a token that are secret.
func tokenSecrets(t *testing.T, token credential.Token) []string {
	t.Helper()
	var out []string
	for _, field := range []string{"secretAccessKey", "sessionToken", "token", "password", "dockerConfig", "clientKeyPem", "execCredential"} {
		if content, err := token.Field(field); err == nil && len(content) >= 4 {
			out = append(out, string(content))
		}
	}
	if len(out) == 0 {
		t.Error("the token holds no secret")
	}
	return out
}

func testMintRefused(t *testing.T, h VendorHarness) {
	if h.Wrong.Payload.IsZero() {
		return
	}
	for _, request := range requestsOf(t, h) {
		before := h.Calls()
		token, err := h.Minter.Mint(t.Context(), h.Wrong, request)
		if err == nil && h.Calls() == before {
			continue // made without the vendor, who refuses it when it is used
		}
		if !token.IsZero() {
			t.Errorf("%s: a token beside the error", request.Kind())
		}
		wantRefused(t, h, func(context.Context) error { return err })
	}
}

func testVendorCancelled(t *testing.T, h VendorHarness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := h.Calls()
	if _, err := h.Verifier.Verify(ctx, h.Good); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Verify: %v", err)
	} else if err == nil && h.Calls() != before {
		t.Error("Verify went on")
	}
}

func testVendorConcurrent(t *testing.T, h VendorHarness) {
	requests := requestsOf(t, h)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := h.Verifier.Verify(t.Context(), h.Good); err != nil || got.Name != h.Identity {
				t.Errorf("Verify: %q, %v", got.Name, err)
			}
			for _, request := range requests {
				if _, err := h.Minter.Mint(t.Context(), h.Good, request); err != nil {
					t.Errorf("Mint: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func testVendorUnavailable(t *testing.T, h VendorHarness) {
	if h.Stop == nil {
		return
	}
	start := h.Stop(t)
	defer start()
	_, err := h.Verifier.Verify(t.Context(), h.Good)
	if !errors.Is(err, provider.ErrUnavailable) {
		t.Errorf("error is %v, want ErrUnavailable", err)
	}
	if err != nil {
		wantNoSecrets(t, "the error", err.Error(), h.Secrets)
	}
}

// wantRefused makes a call that must be refused, and returns the error's text.
func wantRefused(t *testing.T, h VendorHarness, call func(context.Context) error) string {
	t.Helper()
	err := call(t.Context())
	var typed *provider.Error
	if !errors.As(err, &typed) || !errors.Is(err, provider.ErrRefused) {
		t.Errorf("error is %v, want a *provider.Error that wraps ErrRefused", err)
		return ""
	}
	if typed.Op == "" || typed.Text == "" {
		t.Errorf("error has no operation or no text: %#v", typed)
	}
	if len(typed.Text) > 4*provider.MaxText || strings.ContainsAny(typed.Text, "\n\r\t") {
		t.Errorf("text is not what provider.Clean returns: %q", typed.Text)
	}
	wantNoSecrets(t, "the error", fmt.Sprintf("%v %+v %#v", err, err, err), h.Secrets)
	return err.Error()
}

func wantNoSecrets(t *testing.T, what, text string, secrets []string) {
	t.Helper()
	if i := slices.IndexFunc(secrets, func(s string) bool { return s != "" && strings.Contains(text, s) }); i >= 0 {
		t.Errorf("%s contains secret %d of the harness", what, i)
	}
}

package tokens_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/tokens"
	"github.com/credstore/credstore/pkg/client/tokens/tokenstest"
)

const (
	name = tokenstest.Name
	life = tokenstest.Life
)

// text returns the token that a rig's source hands out for no request.
func text(t *testing.T, r *tokenstest.Rig) string {
	t.Helper()
	token, err := r.Source.Token(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.GetBearer().GetToken()
}

func TestManyCallersOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if got := text(t, r); got != "v1-1" {
					t.Errorf("token %q", got)
				}
			})
		}
		synctest.Wait()
		release()
		wg.Wait()
		if n := r.Calls(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// A program that asks all the time is never given a token that has ended or is
// about to, and makes one call for each life.
func TestRefreshBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		const hours = 50
		for range hours * 60 * 2 {
			token, err := r.Source.Token(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(token.GetExpireTime().AsTime()); left < life/5 {
				t.Fatalf("a token with %s left", left)
			}
			time.Sleep(30 * time.Second)
		}
		// A life is used to between 3/5 and 3/4.
		if n := r.Calls(); n < hours*4/3 || n > hours*5/3+2 {
			t.Errorf("%d calls in %d hours", n, hours)
		}
	})
}

// A change of the credential is followed at once, by whoever uses it, and nobody
// waits for it.
func TestChangeOfTheCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		if got := text(t, r); got != "v1-1" {
			t.Fatalf("first token %q", got)
		}
		r.Change(2)
		release := r.Hold()
		r.Tell(2)
		if got := text(t, r); got != "v1-1" {
			t.Errorf("while the new one is made: %q", got)
		}
		release()
		synctest.Wait()
		if got := text(t, r); got != "v2-2" {
			t.Errorf("after the change: %q", got)
		}
		// Back to the first version, as after a roll-back.
		r.Change(1)
		r.Tell(1)
		synctest.Wait()
		if got := text(t, r); got != "v1-3" || r.Calls() != 3 {
			t.Errorf("after the way back: %q, %d calls", got, r.Calls())
		}
	})
}

// A credential that was deleted and made anew has the same name and the same
// version, and is another one; also for tokens that were made before the watch
// told which one it was.
func TestAnotherCredentialOfTheSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		for i := range 3 {
			if got, want := text(t, r), fmt.Sprint("v1-", i+1); got != want {
				t.Errorf("token %q, want %q", got, want)
			}
			r.Recreate()
			synctest.Wait()
		}
		// That it is the same one after all makes no call.
		r.Tell(1)
		synctest.Wait()
		if n := r.Calls(); n != 4 {
			t.Errorf("%d calls", n)
		}
	})
}

// A change that comes while a token is being made is not missed, and an answer
// that lags behind the watch makes no loop.
func TestChangeDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		done := make(chan string, 1)
		go func() { done <- text(t, r) }()
		synctest.Wait()
		r.Tell(2) // and the server goes on minting from version 1
		release()
		if got := <-done; !strings.HasPrefix(got, "v1-") {
			t.Errorf("token %q", got)
		}
		synctest.Wait()
		if n := r.Calls(); n != 2 {
			t.Errorf("%d calls, want the first and one after the change", n)
		}
	})
}

// A change that comes during a renewal that nobody waits for makes one more call,
// after it.
func TestChangeDuringARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		text(t, r)
		time.Sleep(life * 4 / 5)
		release := r.Hold()
		text(t, r) // begins the renewal
		synctest.Wait()
		r.Change(2)
		r.Tell(2)
		if n := r.Calls(); n != 2 {
			t.Errorf("%d calls, want the renewal only", n)
		}
		release()
		synctest.Wait()
		if n := r.Calls(); n != 3 {
			t.Errorf("%d calls, want one after the renewal", n)
		}
		if got := text(t, r); got != "v2-3" {
			t.Errorf("token %q", got)
		}
	})
}

// A change whose token cannot be made yet is followed when it can.
func TestChangeWhileTheVendorIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		text(t, r)
		r.Change(2)
		r.Fail(clienttest.Failure(codes.Unavailable, "VENDOR_UNAVAILABLE", "no answer"))
		r.Tell(2)
		if got := text(t, r); got != "v1-1" || r.Calls() != 2 {
			t.Errorf("token %q after %d calls", got, r.Calls())
		}
		r.Fail(nil)
		time.Sleep(2 * time.Second)
		text(t, r)
		synctest.Wait()
		if got := text(t, r); got != "v2-3" {
			t.Errorf("token %q", got)
		}
	})
}

// Who was refused has not to wait for the next attempt when the credential is put
// right.
func TestChangeAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Fail(clienttest.Failure(codes.FailedPrecondition, "MINT_REFUSED", "the key was deleted"))
		for range 3 {
			if _, err := r.Source.Token(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "the key was deleted") {
				t.Errorf("error is %v", err)
			}
		}
		if n := r.Calls(); n != 1 {
			t.Errorf("%d calls at once", n)
		}
		r.Fail(nil)
		r.Rotate(2)
		if got := text(t, r); got != "v2-2" {
			t.Errorf("token %q", got)
		}
	})
}

// While credstore is away the last token stays good until shortly before its
// end; then callers are told why, and recover by themselves.
func TestServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		text(t, r)
		away := clienttest.Failure(codes.Unavailable, "VENDOR_UNAVAILABLE", "no answer")
		r.Fail(away)
		began := time.Now()
		var failed error
		for failed == nil {
			var token *credentialv1.Token
			token, failed = r.Source.Token(t.Context(), nil)
			if failed == nil && time.Until(token.GetExpireTime().AsTime()) < 10*time.Second {
				t.Fatal("a token that is about to end")
			}
			time.Sleep(time.Second)
		}
		if after := time.Since(began); after < life-15*time.Second || after > life {
			t.Errorf("the first failure after %s", after)
		}
		if !errors.Is(failed, client.ErrUnavailable) || !strings.Contains(failed.Error(), name) {
			t.Errorf("error is %v", failed)
		}
		// Nor is a server that fails asked all the time: about once a minute.
		before := r.Calls()
		for range 600 {
			_, _ = r.Source.Token(t.Context(), nil)
			time.Sleep(time.Second)
		}
		if n := r.Calls() - before; n < 8 || n > 14 {
			t.Errorf("%d calls in 10 minutes", n)
		}
		r.Fail(nil)
		time.Sleep(time.Minute)
		text(t, r)
	})
}

// Who waits can give up; the call goes on for the others.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Source.Token(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		release()
		if got := text(t, r); got != "v1-1" || r.Calls() != 1 {
			t.Errorf("token %q after %d calls", got, r.Calls())
		}
	})
}

// Each request has a token of its own, and only so many are kept.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		ask := func(n int) string {
			token, err := r.Source.Token(t.Context(), &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_GcpIdToken_{
				GcpIdToken: &credentialv1.TokenRequest_GcpIdToken{Audience: fmt.Sprintf("https://service-%d.example.com", n)},
			}})
			if err != nil {
				t.Fatal(err)
			}
			token.GetBearer().Token += " changed by its owner"
			return token.GetBearer().GetToken()
		}
		first := ask(0)
		for n := range 300 {
			ask(n)
			time.Sleep(time.Millisecond)
		}
		if again := ask(299); r.Calls() != 300 || again != "v1-300 changed by its owner" {
			t.Errorf("%q after %d calls", again, r.Calls())
		}
		if again := ask(0); again == first || r.Calls() != 301 {
			t.Errorf("the request that was made least recently is still kept: %q, %d calls", again, r.Calls())
		}
		if got := r.Asked()[0].GetGcpIdToken().GetAudience(); got != "https://service-0.example.com" {
			t.Errorf("asked for %q", got)
		}
	})
}

// A clock that is ahead of the token's end makes an error, not a loop.
func TestTokenThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Make(func(text string) *credentialv1.Token {
			return &credentialv1.Token{
				Kind:       &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: text}},
				ExpireTime: timestamppb.New(time.Now().Add(-time.Second)),
			}
		})
		for range 20 {
			if _, err := r.Source.Token(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "clocks") {
				t.Fatalf("error is %v", err)
			}
		}
		if n := r.Calls(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		var ended atomic.Bool
		go func() {
			if _, err := r.Source.Token(t.Context(), nil); err == nil {
				t.Error("a token after Close")
			}
			ended.Store(true)
		}()
		synctest.Wait()
		r.Source.Close()
		release()
		synctest.Wait()
		if !ended.Load() {
			t.Error("a caller still waits after Close")
		}
		if _, err := r.Source.Token(t.Context(), nil); !errors.Is(err, tokens.ErrClosed) {
			t.Errorf("error is %v", err)
		}
	})
}

// What goes into a header, and what does not.
func TestAuthorization(t *testing.T) {
	bearer := func(kind string) func(string) *credentialv1.Token {
		return func(text string) *credentialv1.Token {
			token := tokenstest.Bearer(text)
			token.GetBearer().Type = kind
			return token
		}
	}
	for name, test := range map[string]struct {
		make func(string) *credentialv1.Token
		want string
	}{
		"bearer":       {tokenstest.Bearer, "Bearer v1-1"},
		"another type": {bearer("token"), "token v1-1"},
		"no type":      {bearer(""), "Bearer v1-1"},
		"AWS":          {tokenstest.AWS, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				r.Make(test.make)
				got, err := r.Source.Authorization(t.Context(), nil)
				if got != test.want {
					t.Errorf("%q, want %q", got, test.want)
				}
				if test.want == "" && (err == nil || !strings.Contains(err.Error(), "bearer") || strings.Contains(err.Error(), "v1-1")) {
					t.Errorf("error is %v", err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Fail(clienttest.Failure(codes.PermissionDenied, "PERMISSION_DENIED", "not for you"))
		if _, err := r.Source.Authorization(t.Context(), nil); !errors.Is(err, client.ErrPermissionDenied) {
			t.Errorf("error is %v", err)
		}
	})
}

// A source may end up in a log with what holds it.
func TestPrintsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		text(t, r)
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "source", r.Source)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "source", r.Source)
		texts := []string{log.String()}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			texts = append(texts, fmt.Sprintf(verb, r.Source))
		}
		for _, text := range texts {
			if strings.Contains(text, "v1-1") || strings.Contains(text, hex.EncodeToString([]byte("v1-1"))) {
				t.Errorf("printed: %s", text)
			}
		}
		if got, want := fmt.Sprintf("%+v", r.Source), fmt.Sprintf("tokens of %q", name); got != want {
			t.Errorf("printed: %s, want %s", got, want)
		}
	})
}

func TestBadOptions(t *testing.T) {
	if _, err := tokens.New(tokens.Options{Credential: name}); err == nil {
		t.Error("no client")
	}
	if _, err := tokens.New(tokens.Options{Client: &client.Client{}, Credential: "ibm"}); err == nil {
		t.Error("no full name")
	}
}

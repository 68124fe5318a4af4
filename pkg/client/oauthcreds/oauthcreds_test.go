package oauthcreds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/oauthcreds"
	"github.com/credstore/credstore/pkg/client/tokens/tokenstest"
)

func TestToken(t *testing.T) {
	const audience = "https://service.example.com"
	idToken := &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_GcpIdToken_{
		GcpIdToken: &credentialv1.TokenRequest_GcpIdToken{Audience: audience},
	}}
	for name, test := range map[string]struct {
		life, want time.Duration // until it is said to end
	}{
		"long":  {tokenstest.Life, 10 * time.Second},
		"short": {9 * time.Second, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				r.Make(func(text string) *credentialv1.Token {
					token := tokenstest.Bearer(text)
					token.ExpireTime = timestamppb.New(time.Now().Add(test.life))
					return token
				})
				got, err := oauthcreds.New(t.Context(), r.Source, idToken).Token()
				if err != nil {
					t.Fatal(err)
				}
				if got.AccessToken != "v1-1" || got.Type() != "Bearer" || got.RefreshToken != "" {
					t.Errorf("token %q of type %s", got.AccessToken, got.Type())
				}
				if left := time.Until(got.Expiry); left != test.want {
					t.Errorf("it ends after %s, want %s", left, test.want)
				}
				time.Sleep(time.Nanosecond)
				if got.Valid() {
					t.Error("a library would keep it")
				}
				if asked := r.Asked()[0].GetGcpIdToken().GetAudience(); asked != audience {
					t.Errorf("asked for %q", asked)
				}
			})
		})
	}
}

func TestErrorsPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Fail(clienttest.Failure(codes.PermissionDenied, "PERMISSION_DENIED", "not for you"))
		if _, err := oauthcreds.New(t.Context(), r.Source, nil).Token(); !errors.Is(err, client.ErrPermissionDenied) {
			t.Errorf("error is %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Make(tokenstest.AWS)
		if _, err := oauthcreds.New(t.Context(), r.Source, nil).Token(); err == nil || !strings.Contains(err.Error(), "bearer") || strings.Contains(err.Error(), "v1-1") {
			t.Errorf("error is %v", err)
		}
	})
}

// A caller that cannot say how long it waits does not wait for ever, and the end
// of the program ends its wait.
func TestWaits(t *testing.T) {
	for name, test := range map[string]struct {
		cancel, want time.Duration
	}{
		"a server that hangs":    {time.Hour, 30 * time.Second},
		"the end of the program": {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				release := r.Hold()
				defer release()
				ctx, cancel := context.WithTimeout(t.Context(), test.cancel)
				defer cancel()
				began := time.Now()
				_, err := oauthcreds.New(ctx, r.Source, nil).Token()
				if waited := time.Since(began); err == nil || waited != test.want {
					t.Errorf("after %s: %v", waited, err)
				}
			})
		})
	}
}

// echo answers every request with its Authorization header.
type echo struct{}

func (echo) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(r.Header.Get("Authorization"))),
	}, nil
}

// The library's own cache has the new token for the first request after a change.
func TestFollowsInTheLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: echo{}})
		c := oauth2.NewClient(ctx, oauthcreds.New(ctx, r.Source, nil))
		get := func() string {
			resp, err := c.Get("https://storage.example.com/")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			return string(text)
		}
		for range 100 {
			if got := get(); got != "Bearer v1-1" {
				t.Fatalf("before the change: %q", got)
			}
		}
		r.Rotate(2)
		if got := get(); got != "Bearer v2-2" || r.Calls() != 2 {
			t.Errorf("after the change: %q, %d calls", got, r.Calls())
		}
	})
}

func TestPrintsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		source := oauthcreds.New(t.Context(), r.Source, nil)
		if _, err := source.Token(); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, source); strings.Contains(text, "v1-1") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	})
}

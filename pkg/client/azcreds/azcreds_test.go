package azcreds_test

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

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"google.golang.org/grpc/codes"

	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/azcreds"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/tokens/tokenstest"
)

const scope = "https://vault.azure.net/.default"

func TestGetToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		began := time.Now()
		got, err := azcreds.New(r.Source).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}, EnableCAE: true})
		if err != nil {
			t.Fatal(err)
		}
		if got.Token != "v1-1" || !got.ExpiresOn.Equal(began.Add(tokenstest.Life)) || got.RefreshOn.After(time.Now()) {
			t.Errorf("token %q until %s, due %s", got.Token, got.ExpiresOn, got.RefreshOn)
		}
		if asked := r.Asked()[0].GetAzureAccessToken().GetScope(); asked != scope {
			t.Errorf("asked for %q", asked)
		}
	})
}

func TestGetTokenRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		options policy.TokenRequestOptions
		want    string
	}{
		"no scope":   {policy.TokenRequestOptions{}, "exactly one scope"},
		"two scopes": {policy.TokenRequestOptions{Scopes: []string{scope, scope}}, "exactly one scope"},
		"claims":     {policy.TokenRequestOptions{Scopes: []string{scope}, Claims: `{"access_token":{}}`}, "further claims"},
		"AWS":        {policy.TokenRequestOptions{Scopes: []string{scope}}, "not one of Azure"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tokenstest.Start(t)
				r.Make(tokenstest.AWS)
				got, err := azcreds.New(r.Source).GetToken(t.Context(), test.options)
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "v1-1") || got.Token != "" {
					t.Errorf("token %q, error %v", got.Token, err)
				}
			})
		})
	}
}

func TestErrorsPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		r.Fail(clienttest.Failure(codes.PermissionDenied, "PERMISSION_DENIED", "not for you"))
		c := azcreds.New(r.Source)
		if _, err := c.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}}); !errors.Is(err, client.ErrPermissionDenied) {
			t.Errorf("error is %v", err)
		}
		if _, err := get(t, pipeline(c)); !errors.Is(err, client.ErrPermissionDenied) {
			t.Errorf("the SDK's error is %v", err)
		}
	})
}

func TestWaitsAsLongAsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		release := r.Hold()
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := azcreds.New(r.Source).GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
	})
}

// echo answers every request with its Authorization header.
type echo struct{}

func (echo) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(r.Header.Get("Authorization"))),
	}, nil
}

// pipeline is what a client of the SDK sends its requests through.
func pipeline(c azcore.TokenCredential) runtime.Pipeline {
	bearer := runtime.NewBearerTokenPolicy(c, []string{scope}, nil)
	return runtime.NewPipeline("test", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}}, &policy.ClientOptions{
		Transport: echo{}, Retry: policy.RetryOptions{MaxRetries: -1},
	})
}

// get returns what was sent as Authorization.
func get(t *testing.T, p runtime.Pipeline) (string, error) {
	t.Helper()
	request, err := runtime.NewRequest(t.Context(), http.MethodGet, "https://vault.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := p.Do(request)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := runtime.Payload(resp)
	return string(body), err
}

// The SDK has the new token at most 30 seconds after a change, and each of its
// requests one that is good.
func TestFollowsInTheSDK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		p := pipeline(azcreds.New(r.Source))
		first := func(prefix string) time.Duration {
			began := time.Now()
			for time.Since(began) < time.Minute {
				got, err := get(t, p)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(got, prefix) {
					break
				}
				time.Sleep(time.Second)
			}
			return time.Since(began)
		}
		first("Bearer v1-1")
		time.Sleep(time.Second)
		r.Rotate(2)
		if after := first("Bearer v2-"); after > 30*time.Second {
			t.Errorf("%s after the change", after)
		}
		time.Sleep(time.Minute)
		r.Rotate(3)
		if after := first("Bearer v3-"); after > 0 {
			t.Errorf("%s after a change that came when the SDK was idle", after)
		}
		if n := r.Calls(); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
}

// The SDK never sends a token that has ended, and goes on without credstore until
// then.
func TestEndsInTheSDK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		p := pipeline(azcreds.New(r.Source))
		began := time.Now()
		if _, err := get(t, p); err != nil {
			t.Fatal(err)
		}
		r.Fail(clienttest.Failure(codes.Unavailable, "VENDOR_UNAVAILABLE", "no answer"))
		var err error
		for err == nil && time.Since(began) < 2*tokenstest.Life {
			time.Sleep(time.Second)
			_, err = get(t, p)
		}
		if after := time.Since(began); !errors.Is(err, client.ErrUnavailable) || after < tokenstest.Life || after > tokenstest.Life+time.Second {
			t.Errorf("after %s: %v", after, err)
		}
		r.Fail(nil)
		time.Sleep(time.Minute) // a source asks a server that fails about once a minute
		if _, err := get(t, p); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}

func TestPrintsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := tokenstest.Start(t)
		c := azcreds.New(r.Source)
		if _, err := get(t, pipeline(c)); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, c); strings.Contains(text, "v1-1") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	})
}

package ibm_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/ibm"
	"github.com/credstore/credstore/pkg/provider/ibm/ibmtest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "1a2b3c4d5e6f708192a3b4c5d6e7f809"
	foreign = "ffffffffffffffffffffffffffffffff"
	user    = "right-key-of-a-user-0123456789_abcdefghijklm"
	service = "right-key-of-a-service-0123456789_abcdefghij"
	nobody  = "right-key-without-account-0123456789_abcdefg"
	wrong   = "wrong-key-0123456789_abcdefghijklmnopqrstuvw"
)

func newServer(t *testing.T) *ibmtest.Server {
	t.Helper()
	return ibmtest.New(t, map[string]ibmtest.Owner{
		user:    {Account: account, IAM: "IBMid-270003ABCD", Email: "ops@example.com", Name: "Ada Ops", Subject: "ops@example.com"},
		service: {Account: account, IAM: "iam-ServiceId-1", Name: "credstore", Subject: "ServiceId-1"},
		nobody:  {IAM: "IBMid-1", Subject: "x"},
	})
}

func newVendor(t *testing.T, s *ibmtest.Server) *ibm.Vendor {
	t.Helper()
	v, err := ibm.New(ibm.Config{Egress: s.Egress(), Endpoint: s.URL + "/", CAPEM: s.CAPEM})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func login(t *testing.T, account, key string) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_IbmCloud{
		IbmCloud: &credentialv1.IbmCloud{AccountGuid: account, ApiKey: key},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/ibm", ID: "1", Payload: p}
}

func request(t *testing.T) credential.TokenRequest {
	t.Helper()
	r, err := credential.NewTokenRequest("ibmCloud", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSuite(t *testing.T) {
	s := newServer(t)
	v := newVendor(t, s)
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: v, Minter: v, Good: login(t, account, user), Identity: "ops@example.com", Wrong: login(t, account, wrong),
		Calls: s.Calls, Stop: func(*testing.T) func() { return s.Stop() }, Secrets: []string{user, wrong},
	})
}

func TestVerifySaysWhose(t *testing.T) {
	v := newVendor(t, newServer(t))
	for key, want := range map[string]credential.Identity{
		user: {Name: "ops@example.com", Facts: map[string]string{
			"accountGuid": account, "iamId": "IBMid-270003ABCD", "name": "Ada Ops", "subject": "ops@example.com",
		}},
		service: {Name: "ServiceId-1", Facts: map[string]string{
			"accountGuid": account, "iamId": "iam-ServiceId-1", "name": "credstore", "subject": "ServiceId-1",
		}},
	} {
		got, err := v.Verify(t.Context(), login(t, account, key))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestMint(t *testing.T) {
	s := newServer(t)
	v := newVendor(t, s)
	token, err := v.Mint(t.Context(), login(t, account, service), request(t))
	if err != nil {
		t.Fatal(err)
	}
	bearer := token.Message().GetBearer()
	if err := s.CheckToken(bearer.GetToken()); err != nil || bearer.GetType() != "Bearer" {
		t.Errorf("type %q, %v", bearer.GetType(), err)
	}
	if at, ok := token.ExpireTime(); !ok || time.Until(at) < 59*time.Minute || time.Until(at) > time.Hour {
		t.Errorf("ends at %v, %t", at, ok)
	}
}

// A key of another account works, but not for this credential.
func TestAnotherAccount(t *testing.T) {
	v := newVendor(t, newServer(t))
	for key, want := range map[string]string{user: "belongs to account " + account, nobody: "belongs to no account"} {
		l := login(t, foreign, key)
		_, verifyErr := v.Verify(t.Context(), l)
		token, mintErr := v.Mint(t.Context(), l, request(t))
		if !token.IsZero() {
			t.Error("a token of another account")
		}
		for _, err := range []error{verifyErr, mintErr} {
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "is for account "+foreign) {
				t.Errorf("error is %v, want one that wraps ErrRefused and names both", err)
			}
		}
	}
}

func TestOddAnswers(t *testing.T) {
	const leak = "do-not-repeat-this"
	token := func(payload string) string { return `{"access_token":"a.` + payload + `.c","expiration":99999999999}` }
	for _, test := range []struct {
		name   string
		status int
		header http.Header
		body   string
		kind   error
		want   string
	}{
		{"wrong key", http.StatusBadRequest, nil, `{"errorCode":"BXNIM0415E","errorMessage":"Provided API key could not be found."}`, provider.ErrRefused, "the API key is wrong or was deleted: BXNIM0415E: Provided API key could not be found."},
		{"another reason", http.StatusForbidden, nil, `{"errorCode":"BXNIM0999E","errorMessage":"The key ` + user + ` is locked."}`, provider.ErrRefused, "BXNIM0999E: The key (redacted) is locked."},
		{"overloaded", http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, "", provider.ErrUnavailable, "without a reason"},
		{"broken", http.StatusBadGateway, nil, "<html>" + leak, provider.ErrUnavailable, "502"},
		{"redirect", http.StatusFound, http.Header{"Location": {"https://example.com"}}, "", provider.ErrRefused, "redirect"},
		{"no JSON", http.StatusOK, nil, leak, provider.ErrUnavailable, "documentation"},
		{"no token", http.StatusOK, nil, `{}`, provider.ErrUnavailable, "documentation"},
		{"no end", http.StatusOK, nil, `{"access_token":"a.e30.c"}`, provider.ErrUnavailable, "documentation"},
		{"no JWT", http.StatusOK, nil, `{"access_token":"a","expiration":9}`, provider.ErrUnavailable, "documentation"},
		{"JWT that is no base64", http.StatusOK, nil, token("%"), provider.ErrUnavailable, "documentation"},
		{"JWT that is no JSON", http.StatusOK, nil, token("YQ"), provider.ErrUnavailable, "documentation"},
		{"JWT that says nothing", http.StatusOK, nil, token("e30"), provider.ErrRefused, "belongs to no account"},
		{"too large", http.StatusOK, nil, strings.Repeat("x", 1<<20+1), provider.ErrUnavailable, "more than 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			s.Reply(test.status, test.header, test.body)
			_, err := newVendor(t, s).Verify(t.Context(), login(t, account, user))
			var typed *provider.Error
			if !errors.As(err, &typed) || !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v, want %v with %q in it", err, test.kind, test.want)
			}
			if strings.Contains(err.Error(), leak) || strings.Contains(err.Error(), user) {
				t.Errorf("the error repeats the answer: %v", err)
			}
			if test.header.Get("Retry-After") != "" && typed.RetryAfter != 7*time.Second {
				t.Errorf("RetryAfter is %s", typed.RetryAfter)
			}
		})
	}
}

func TestGuards(t *testing.T) {
	s := newServer(t)
	v, err := ibm.New(ibm.Config{Endpoint: s.URL, CAPEM: s.CAPEM})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	if _, err := v.Verify(t.Context(), login(t, account, user)); !errors.Is(err, provider.ErrRefused) || s.Calls() != 0 {
		t.Errorf("an address that is not allowed: error is %v after %d calls", err, s.Calls())
	}
	good := newVendor(t, s)
	if _, err := good.Verify(t.Context(), credential.Login{}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("no payload: error is %v, want ErrUnsupported", err)
	}
	if _, err := good.Mint(t.Context(), login(t, account, user), credential.TokenRequest{}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("no request: error is %v, want ErrUnsupported", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := good.Mint(ctx, login(t, account, user), request(t)); !errors.Is(err, context.Canceled) || s.Calls() != 0 {
		t.Errorf("error is %v, want the context's", err)
	}
	for name, cfg := range map[string]ibm.Config{
		"http": {Endpoint: "http://iam.cloud.ibm.com"}, "path": {Endpoint: "https://iam.cloud.ibm.com/x"}, "no certificate": {CAPEM: "x"},
	} {
		if v, err := ibm.New(cfg); err == nil {
			t.Errorf("%s: %v", name, v)
		}
	}
}

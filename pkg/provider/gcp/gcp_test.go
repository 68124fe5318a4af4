package gcp_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/gcp"
	"github.com/credstore/credstore/pkg/provider/gcp/gcptest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	email    = "scanner@acme-prod.iam.gserviceaccount.com"
	target   = "deploy@acme-prod.iam.gserviceaccount.com"
	between  = "between@acme-prod.iam.gserviceaccount.com"
	far      = "far@acme-prod.iam.gserviceaccount.com"
	platform = credential.GCPCloudPlatform
	readOnly = "https://www.googleapis.com/auth/devstorage.read_only"
	apiKey   = "AIzaSy0123456789-_ABCDEFGHIJabcdefghijk"
)

// loopback lets tests reach their fakes.
var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}

func config(s *gcptest.Server) gcp.Config {
	return gcp.Config{
		Egress: loopback, CAPEM: s.CAPEM(), TokenURL: s.TokenURL(), STSURL: s.STSURL(),
		IAMCredentialsURL: s.IAMCredentialsURL(), APIKeyURL: s.APIKeyURL(), Getenv: func(string) string { return "" },
	}
}

func open(t *testing.T, cfg gcp.Config) *gcp.Client {
	t.Helper()
	c, err := gcp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func login(t *testing.T, m *credentialv1.Payload) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/gcp", ID: "1", Payload: p}
}

func serviceAccount(t *testing.T, a gcptest.Account, impersonate string) credential.Login {
	t.Helper()
	return login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_GcpServiceAccount{
		GcpServiceAccount: &credentialv1.GcpServiceAccount{Document: a.Document, Impersonate: impersonate},
	}})
}

func key(t *testing.T, apiKey string) credential.Login {
	t.Helper()
	return login(t, &credentialv1.Payload{Kind: &credentialv1.Payload_GcpApiKey{GcpApiKey: &credentialv1.GcpApiKey{ApiKey: apiKey}}})
}

func mint(t *testing.T, c *gcp.Client, l credential.Login, m *credentialv1.TokenRequest) (credential.Token, error) {
	t.Helper()
	r, err := credential.NewTokenRequest(l.Payload.Kind(), m)
	if err != nil {
		t.Fatal(err)
	}
	return c.Mint(t.Context(), l, r)
}

func accessToken(m *credentialv1.TokenRequest_GcpAccessToken) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_GcpAccessToken_{GcpAccessToken: m}}
}

func idToken(m *credentialv1.TokenRequest_GcpIdToken) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_GcpIdToken_{GcpIdToken: m}}
}

func registryLogin(m *credentialv1.TokenRequest_RegistryLogin) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_RegistryLogin_{RegistryLogin: m}}
}

func kubernetesLogin() *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_KubernetesLogin_{KubernetesLogin: &credentialv1.TokenRequest_KubernetesLogin{}}}
}

// everyRequest asks for one token of each kind.
func everyRequest() []*credentialv1.TokenRequest { return append(namedRequests(), kubernetesLogin()) }

// namedRequests are those that say what they are for, as an external account's must.
func namedRequests() []*credentialv1.TokenRequest {
	return []*credentialv1.TokenRequest{
		accessToken(&credentialv1.TokenRequest_GcpAccessToken{Scopes: []string{readOnly}}),
		idToken(&credentialv1.TokenRequest_GcpIdToken{Audience: "https://service.example.com"}),
		registryLogin(&credentialv1.TokenRequest_RegistryLogin{Server: "europe-docker.pkg.dev"}),
	}
}

func TestServiceAccountSuite(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	wrong := gcptest.New(t).AddAccount(email)
	c := open(t, config(s))
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: c, Minter: c, Good: serviceAccount(t, a, ""), Identity: email, Wrong: serviceAccount(t, wrong, ""),
		Requests: everyRequest(), Calls: s.Calls, Stop: func(*testing.T) func() { return s.Stop() },
		Secrets: []string{a.PrivateKey, wrong.PrivateKey, a.PrivateKey[100:140], wrong.PrivateKey[100:140]},
	})
}

func TestImpersonationSuite(t *testing.T) {
	s := gcptest.New(t)
	a, other := s.AddAccount(email), s.AddAccount(between)
	s.AddAccount(target)
	s.Allow(email, target)
	c := open(t, config(s))
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: c, Minter: c, Good: serviceAccount(t, a, target), Identity: target, Wrong: serviceAccount(t, other, target),
		Requests: everyRequest(), Calls: s.Calls, Stop: func(*testing.T) func() { return s.Stop() },
		Secrets: []string{a.PrivateKey, other.PrivateKey},
	})
}

func TestAPIKeySuite(t *testing.T) {
	s := gcptest.New(t)
	s.AddAPIKey(apiKey, "")
	wrong := "AIzaSy" + strings.Repeat("x", 33)
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: open(t, config(s)), Good: key(t, apiKey), Wrong: key(t, wrong),
		Calls: s.Calls, Stop: func(*testing.T) func() { return s.Stop() }, Secrets: []string{apiKey, wrong},
	})
}

func TestAPIKeys(t *testing.T) {
	s := gcptest.New(t)
	c := open(t, config(s))
	for _, tt := range []struct {
		reason string
		want   credential.Identity
		kind   error
		text   string
	}{
		{"API_KEY_SERVICE_BLOCKED", credential.Identity{Name: "projects/123456789012", Facts: map[string]string{"restrictedTo": "APIs"}}, nil, ""},
		{"API_KEY_IP_ADDRESS_BLOCKED", credential.Identity{Name: "projects/123456789012", Facts: map[string]string{"restrictedTo": "IP addresses"}}, nil, ""},
		{"SERVICE_DISABLED", credential.Identity{Name: "projects/123456789012", Facts: map[string]string{"restrictedTo": "another API"}}, nil, ""},
		{"CONSUMER_SUSPENDED", credential.Identity{}, provider.ErrRefused, "blocked"},
		{"RATE_LIMIT_EXCEEDED", credential.Identity{}, provider.ErrUnavailable, "Quota exceeded"},
		{"SOMETHING_NEW", credential.Identity{}, provider.ErrUnsupported, "says nothing of the key"},
		{"location", credential.Identity{}, provider.ErrUnsupported, "User location is not supported"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			s.AddAPIKey(apiKey, tt.reason)
			got, err := c.Verify(t.Context(), key(t, apiKey))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if !errors.Is(err, tt.kind) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error is %v, want %v with %q", err, tt.kind, tt.text)
			}
		})
	}
}

// minted returns the bearer of a token, or the password of a login.
func minted(t *testing.T, token credential.Token, err error, field string) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	content, err := token.Field(field)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestAccessTokens(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	s.AddAccount(between)
	s.AddAccount(target)
	s.Allow(email, between)
	s.Allow(between, target)
	s.Allow(email, target)
	s.AddAccount(far)
	s.Allow(between, far)
	// Both clocks stand still, so that ends can be told to the second.
	now := time.Now().Truncate(time.Second)
	stopped := func() time.Time { return now }
	s.SetNow(stopped)
	cfg := config(s)
	cfg.Now = stopped
	c := open(t, cfg)
	// Google says that its hour has a second less.
	const hour = 3599 * time.Second
	for _, tt := range []struct {
		name        string
		impersonate string
		request     *credentialv1.TokenRequest_GcpAccessToken
		want        gcptest.Holder
		life        time.Duration
	}{
		{"nothing asked for", "", nil, gcptest.Holder{Name: email, Scopes: []string{platform}}, hour},
		{"scopes", "", &credentialv1.TokenRequest_GcpAccessToken{Scopes: []string{readOnly, platform}}, gcptest.Holder{Name: email, Scopes: []string{platform, readOnly}}, hour},
		{"an account to act as", "", &credentialv1.TokenRequest_GcpAccessToken{Impersonate: target, Duration: durationpb.New(15 * time.Minute)}, gcptest.Holder{Name: target, Scopes: []string{platform}}, 15 * time.Minute},
		{"a delegate", "", &credentialv1.TokenRequest_GcpAccessToken{Impersonate: far, Delegates: []string{between}}, gcptest.Holder{Name: far, Scopes: []string{platform}}, time.Hour},
		{"the payload's account", between, &credentialv1.TokenRequest_GcpAccessToken{Scopes: []string{readOnly}, Duration: durationpb.New(time.Minute)}, gcptest.Holder{Name: between, Scopes: []string{readOnly}}, time.Minute},
		{"one more account after the payload's", between, &credentialv1.TokenRequest_GcpAccessToken{Impersonate: target, Scopes: []string{readOnly}}, gcptest.Holder{Name: target, Scopes: []string{readOnly}}, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token, err := mint(t, c, serviceAccount(t, a, tt.impersonate), accessToken(tt.request))
			got := s.Holder(minted(t, token, err, "token"))
			end, _ := token.ExpireTime()
			if life := end.Sub(now); life != tt.life {
				t.Errorf("it ends after %s, want %s", life, tt.life)
			}
			if left := got.End.Sub(end); left < 0 || left > time.Second {
				t.Errorf("it ends at %s, and at %s for who made it", end, got.End)
			}
			got.End = time.Time{}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A life that is told in seconds began before its answer came.
func TestLifeBeginsWithTheQuestion(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	began := time.Now().Truncate(time.Second)
	var slow atomic.Int64
	s.SetNow(func() time.Time {
		slow.Store(int64(20 * time.Second)) // the answer takes that long
		return began
	})
	cfg := config(s)
	cfg.Now = func() time.Time { return began.Add(time.Duration(slow.Load())) }
	token, err := mint(t, open(t, cfg), serviceAccount(t, a, ""), accessToken(nil))
	minted(t, token, err, "token")
	if end, _ := token.ExpireTime(); end.Sub(began) != 3599*time.Second {
		t.Errorf("it ends %s after it was asked for", end.Sub(began))
	}
}

func TestDurationNeedsImpersonation(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	_, err := mint(t, open(t, config(s)), serviceAccount(t, a, ""), accessToken(&credentialv1.TokenRequest_GcpAccessToken{Duration: durationpb.New(time.Minute)}))
	if !errors.Is(err, provider.ErrUnsupported) || s.Calls() != 0 {
		t.Errorf("error is %v after %d calls, want ErrUnsupported after none", err, s.Calls())
	}
}

func TestIDTokens(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	s.AddAccount(between)
	s.AddAccount(target)
	s.Allow(email, between)
	s.Allow(between, target)
	c := open(t, config(s))
	for name, tt := range map[string]struct {
		payload string
		request *credentialv1.TokenRequest_GcpIdToken
		want    string
	}{
		"the account's own":     {"", &credentialv1.TokenRequest_GcpIdToken{}, email},
		"the payload's account": {between, &credentialv1.TokenRequest_GcpIdToken{}, between},
		"through a delegate":    {"", &credentialv1.TokenRequest_GcpIdToken{Impersonate: target, Delegates: []string{between}}, target},
		"one more account":      {between, &credentialv1.TokenRequest_GcpIdToken{Impersonate: target}, target},
	} {
		t.Run(name, func(t *testing.T) {
			tt.request.Audience = "https://service.example.com"
			token, err := mint(t, c, serviceAccount(t, a, tt.payload), idToken(tt.request))
			claims := jwt.MapClaims{}
			if _, err := jwt.ParseWithClaims(minted(t, token, err, "token"), claims, func(*jwt.Token) (any, error) { return s.IDTokenKey(), nil },
				jwt.WithAudience("https://service.example.com"), jwt.WithExpirationRequired()); err != nil {
				t.Fatal(err)
			}
			end, _ := token.ExpireTime()
			if exp, err := claims.GetExpirationTime(); err != nil || !end.Equal(exp.Time) || claims["email"] != tt.want {
				t.Errorf("claims are %v and the end is %v", claims, end)
			}
		})
	}
}

func TestRegistryLogin(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	s.AddAccount(target)
	s.Allow(email, target)
	token, err := mint(t, open(t, config(s)), serviceAccount(t, a, ""),
		registryLogin(&credentialv1.TokenRequest_RegistryLogin{Server: "europe-docker.pkg.dev", Impersonate: target}))
	password := minted(t, token, err, "password")
	if got := s.Holder(password); got.Name != target {
		t.Errorf("the password is a token of %+v", got)
	}
	if user := minted(t, token, err, "username"); user != "oauth2accesstoken" {
		t.Errorf("user name %q", user)
	}
	var docker struct {
		Auths map[string]struct{ Auth []byte }
	}
	if err := json.Unmarshal([]byte(minted(t, token, err, "dockerConfig")), &docker); err != nil {
		t.Fatal(err)
	}
	if got, want := string(docker.Auths["europe-docker.pkg.dev"].Auth), "oauth2accesstoken:"+password; got != want {
		t.Errorf("docker has %s, want %s", base64.StdEncoding.EncodeToString([]byte(got)), want)
	}
}

func TestKubernetesLogin(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	token, err := mint(t, open(t, config(s)), serviceAccount(t, a, ""), kubernetesLogin())
	bearer := minted(t, token, err, "token")
	if got, want := s.Holder(bearer).Scopes, []string{platform, "https://www.googleapis.com/auth/userinfo.email"}; !cmp.Equal(got, want) {
		t.Errorf("scopes are %v, want %v", got, want)
	}
	var exec struct {
		APIVersion, Kind string
		Status           struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}
	if err := json.Unmarshal([]byte(minted(t, token, err, "execCredential")), &exec); err != nil {
		t.Fatal(err)
	}
	end, _ := token.ExpireTime()
	if exec.APIVersion != "client.authentication.k8s.io/v1" || exec.Kind != "ExecCredential" || exec.Status.Token != bearer ||
		!exec.Status.ExpirationTimestamp.Equal(end.Truncate(time.Second)) {
		t.Errorf("ExecCredential is %+v", exec)
	}
}

func TestVerifySaysWhoActs(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	s.AddAccount(target)
	s.Allow(email, target)
	got, err := open(t, config(s)).Verify(t.Context(), serviceAccount(t, a, target))
	want := credential.Identity{Name: target, Facts: map[string]string{"impersonatedBy": email}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

func TestReasons(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*gcptest.Server, gcptest.Account)
		cfg     func(*gcp.Config)
		act     string
		kind    error
		text    []string
	}{
		{"deleted key", func(s *gcptest.Server, a gcptest.Account) { s.DeleteKey(a) }, nil, "", provider.ErrRefused, []string{"token: refused: 400 invalid_grant: Invalid JWT Signature.", "deleted or disabled"}},
		{"disabled account", func(s *gcptest.Server, _ gcptest.Account) { s.Disable(email) }, nil, "", provider.ErrRefused, []string{"401 disabled_client", "the service account is disabled"}},
		{"clock that is fast", nil, func(c *gcp.Config) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } }, "", provider.ErrUnavailable, []string{"reasonable timeframe", "this server's clock is wrong"}},
		{"clock that is slow", nil, func(c *gcp.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } }, "", provider.ErrUnavailable, []string{"this server's clock is wrong"}},
		{"no permission to act as another", nil, nil, target, provider.ErrRefused, []string{"generateAccessToken: refused: 403 for " + target, "iam.serviceAccounts.getAccessToken", "roles/iam.serviceAccountTokenCreator"}},
		{"overload", func(s *gcptest.Server, _ gcptest.Account) {
			s.Answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "17")
				http.Error(w, `{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}`, http.StatusTooManyRequests)
			})
		}, nil, "", provider.ErrUnavailable, []string{"429 Quota exceeded"}},
		{"quota as 403", answering(http.StatusForbidden, `{"error":{"code":403,"message":"Quota exceeded","status":"PERMISSION_DENIED","details":[{"reason":"RATE_LIMIT_EXCEEDED","metadata":{"quota_limit_value":"1"}}]}}`), nil, "", provider.ErrUnavailable, []string{"Quota exceeded"}},
		{"details of other types", answering(http.StatusForbidden, `{"error":{"code":403,"message":"No","status":"PERMISSION_DENIED","details":[{"reason":7,"metadata":[1]},{"reason":"X"}]}}`), nil, "", provider.ErrRefused, []string{"403 No"}},
		{"trouble at Google", answering(http.StatusServiceUnavailable, "<html>"), nil, "", provider.ErrUnavailable, []string{"503"}},
		{"somebody else's error", answering(http.StatusForbidden, "<html>blocked by the proxy</html>"), nil, "", provider.ErrUnavailable, []string{"not Google's"}},
		{"somebody else's answer", answering(http.StatusOK, "<html>log in</html>"), nil, "", provider.ErrUnavailable, []string{"not Google's"}},
		{"no token", answering(http.StatusOK, `{"expires_in":3599}`), nil, "", provider.ErrUnavailable, []string{"not Google's"}},
		{"no end", answering(http.StatusOK, `{"access_token":"x"}`), nil, "", provider.ErrUnavailable, []string{"not Google's"}},
		{"an endless answer", answering(http.StatusOK, strings.Repeat("x", 2<<20)), nil, "", provider.ErrUnavailable, []string{"more than 1048576 bytes"}},
		{"redirect", func(s *gcptest.Server, _ gcptest.Account) {
			s.Answer(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, s.STSURL(), http.StatusTemporaryRedirect)
			})
		}, nil, "", provider.ErrUnavailable, []string{"redirect, which is not followed"}},
		{"address that is closed", nil, func(c *gcp.Config) { c.Egress = provider.Egress{} }, "", provider.ErrRefused, []string{"does not connect to 127.0.0.1"}},
		{"another authority", nil, func(c *gcp.Config) { c.CAPEM = "" }, "", provider.ErrUnavailable, []string{"unknown authority"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := gcptest.New(t)
			a := s.AddAccount(email)
			s.AddAccount(target)
			if tt.prepare != nil {
				tt.prepare(s, a)
			}
			cfg := config(s)
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			_, err := open(t, cfg).Verify(t.Context(), serviceAccount(t, a, tt.act))
			if !errors.Is(err, tt.kind) {
				t.Errorf("error is %v, want %v", err, tt.kind)
			}
			for _, text := range tt.text {
				if err != nil && !strings.Contains(err.Error(), text) {
					t.Errorf("error is %q, want %q in it", err, text)
				}
			}
			if e, ok := errors.AsType[*provider.Error](err); tt.name == "overload" && (!ok || e.RetryAfter != 17*time.Second) {
				t.Errorf("to be asked again after %v", e.RetryAfter)
			}
		})
	}
}

func answering(status int, body string) func(*gcptest.Server, gcptest.Account) {
	return func(s *gcptest.Server, _ gcptest.Account) {
		s.Answer(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			// Who hung up does not read it.
			_, _ = w.Write([]byte(body))
		})
	}
}

// A vendor, or who stands between, may repeat what it was sent.
func TestWordsOfGoogleRepeatNoSecret(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	s.Answer(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		// Who hung up does not read it.
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": "bad assertion " + r.FormValue("assertion")})
	})
	_, err := open(t, config(s)).Verify(t.Context(), serviceAccount(t, a, ""))
	if err == nil || !strings.Contains(err.Error(), "bad assertion (redacted)") || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("error is %v", err)
	}
}

// No connection is kept, and so no goroutine, when a call is over.
func TestNothingOutlivesACall(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	c := open(t, config(s))
	before := goleak.IgnoreCurrent()
	if _, err := c.Verify(t.Context(), serviceAccount(t, a, "")); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

func TestNewRefusesConfigurations(t *testing.T) {
	for name, cfg := range map[string]gcp.Config{
		"an endpoint without TLS":              {TokenURL: "http://oauth2.googleapis.com/token"},
		"an endpoint that is none":             {STSURL: "sts"},
		"an endpoint with a user":              {APIKeyURL: "https://u@example.com"},
		"a metadata service with a name":       {MetadataURL: "http://metadata:80"},
		"a metadata service without a port":    {MetadataURL: "http://169.254.169.254"},
		"a metadata service with a path":       {MetadataURL: "http://169.254.169.254:80/x"},
		"certificates to trust that are none":  {CAPEM: "x"},
		"a metadata service with a wrong form": {MetadataURL: "https://169.254.169.254:80"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := gcp.New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

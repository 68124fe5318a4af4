package gcptest_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	oauth2jwt "golang.org/x/oauth2/jwt"

	"github.com/credstore/credstore/pkg/provider/gcp/gcptest"
)

const (
	email    = "scanner@acme.iam.gserviceaccount.com"
	audience = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/acme-pool/providers/oidc"
	platform = "https://www.googleapis.com/auth/cloud-platform"
)

func client(t *testing.T, s *gcptest.Server) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.CAPEM())) {
		t.Fatal("no certificate")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = roots
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// post returns the answer's status and body.
func post(t *testing.T, s *gcptest.Server, to string, form url.Values) (int, string) {
	t.Helper()
	resp, err := client(t, s).PostForm(to, form)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// Somebody else's client gets tokens, so the fake asks for nothing of its own.
func TestTakesTheOAuth2Library(t *testing.T) {
	s := gcptest.New(t)
	a := s.AddAccount(email)
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, client(t, s))
	cfg := oauth2jwt.Config{
		Email: a.Email, PrivateKey: []byte(a.PrivateKey), PrivateKeyID: a.KeyID, Scopes: []string{platform},
		TokenURL: s.TokenURL(), Audience: "https://oauth2.googleapis.com/token",
	}
	token, err := cfg.TokenSource(ctx).Token()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Holder(token.AccessToken); got.Name != email || len(got.Scopes) != 1 || got.Scopes[0] != platform {
		t.Errorf("the token is of %+v", got)
	}
}

func sign(t *testing.T, a gcptest.Account, change func(jwt.MapClaims, *jwt.Token)) string {
	t.Helper()
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(a.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": a.Email, "aud": "https://oauth2.googleapis.com/token", "scope": platform,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = a.KeyID
	change(claims, token)
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestRefusesAssertions(t *testing.T) {
	s := gcptest.New(t)
	a, other := s.AddAccount(email), s.AddAccount("other@acme.iam.gserviceaccount.com")
	stranger := gcptest.New(t).AddAccount(email)
	claim := func(name string, value any) func(jwt.MapClaims, *jwt.Token) {
		return func(c jwt.MapClaims, _ *jwt.Token) { c[name] = value }
	}
	tests := []struct {
		name, assertion, want string
	}{
		{"a good one", sign(t, a, func(jwt.MapClaims, *jwt.Token) {}), "access_token"},
		{"signed with a key that Google does not have", sign(t, stranger, func(_ jwt.MapClaims, k *jwt.Token) { k.Header["kid"] = a.KeyID }), "Invalid JWT Signature"},
		{"signed with another account's key", sign(t, other, claim("iss", email)), "Invalid JWT Signature"},
		{"of a key id that Google does not have", sign(t, a, func(_ jwt.MapClaims, k *jwt.Token) { k.Header["kid"] = other.KeyID }), "Invalid JWT Signature"},
		{"changed after it was signed", sign(t, a, func(jwt.MapClaims, *jwt.Token) {}) + "AAAA", "Invalid JWT Signature"},
		{"of an unknown account", sign(t, a, claim("iss", "nobody@acme.iam.gserviceaccount.com")), "account not found"},
		{"for another audience", sign(t, a, claim("aud", "https://example.com/token")), "audience check"},
		{"that has ended", sign(t, a, claim("exp", time.Now().Add(-10*time.Minute).Unix())), "reasonable timeframe"},
		{"of the future", sign(t, a, claim("iat", time.Now().Add(10*time.Minute).Unix())), "reasonable timeframe"},
		{"that lives too long", sign(t, a, claim("exp", time.Now().Add(61*time.Minute).Unix())), "reasonable timeframe"},
		{"without scopes", sign(t, a, claim("scope", "")), "invalid_scope"},
		{"with scopes and an audience", sign(t, a, claim("target_audience", "x")), "invalid_scope"},
		{"that is none", "x", "invalid_grant"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := post(t, s, s.TokenURL(), url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {tt.assertion}})
			if !strings.Contains(body, tt.want) || (status == http.StatusOK) != (tt.want == "access_token") {
				t.Errorf("%d %s, want %s", status, body, tt.want)
			}
		})
	}
	t.Run("an unsigned one", func(t *testing.T) {
		unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": email}).SignedString(jwt.UnsafeAllowNoneSignatureType)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := post(t, s, s.TokenURL(), url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {unsigned}}); status == http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("another grant", func(t *testing.T) {
		if status, body := post(t, s, s.TokenURL(), url.Values{"grant_type": {"password"}}); status == http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
	})
}

func TestRefusesSubjectTokens(t *testing.T) {
	s := gcptest.New(t)
	p := s.AddPool(audience)
	stranger := gcptest.New(t).AddPool(audience)
	elsewhere := s.AddPool(strings.Replace(audience, "/oidc", "/other", 1))
	exchange := func(token string, change ...string) (int, string) {
		form := url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "audience": {audience}, "scope": {platform},
			"requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
			"subject_token_type":   {"urn:ietf:params:oauth:token-type:jwt"}, "subject_token": {token},
		}
		for i := 0; i+1 < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return post(t, s, s.STSURL(), form)
	}
	status, body := exchange(p.Token("system:serviceaccount:acme:web"))
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	if got, want := s.Holder(answer.Token).Name, p.Principal("system:serviceaccount:acme:web"); got != want {
		t.Errorf("the token is of %q, want %q", got, want)
	}
	for name, tt := range map[string]struct {
		token  string
		change []string
		want   string
	}{
		"of another issuer":     {stranger.Token("x"), nil, "Invalid JWT signature"},
		"for another audience":  {elsewhere.Token("x"), []string{"audience", audience}, "Invalid JWT signature"},
		"for an unknown pool":   {p.Token("x"), []string{"audience", audience + "x"}, "invalid_target"},
		"of another type":       {p.Token("x"), []string{"subject_token_type", "urn:ietf:params:oauth:token-type:saml2"}, "Unsupported"},
		"without scopes":        {p.Token("x"), []string{"scope", ""}, "invalid_request"},
		"that is none":          {"x", nil, "Invalid JWT signature"},
		"that is no AWS token":  {"x", []string{"subject_token_type", "urn:ietf:params:aws:token-type:aws4_request"}, "invalid_grant"},
		"for another kind":      {p.Token("x"), []string{"grant_type", "refresh_token"}, "invalid_request"},
		"with another response": {p.Token("x"), []string{"requested_token_type", "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			if status, body := exchange(tt.token, tt.change...); status == http.StatusOK || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s, want %s", status, body, tt.want)
			}
		})
	}
	t.Run("that has ended", func(t *testing.T) {
		old := p.Token("x")
		s.SetNow(func() time.Time { return time.Now().Add(2 * time.Hour) })
		if status, body := exchange(old); status == http.StatusOK || !strings.Contains(body, "expired") {
			t.Errorf("%d %s", status, body)
		}
	})
}

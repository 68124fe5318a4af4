package gcptest

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// tokenAudience is what assertions are made out to.
const tokenAudience = "https://oauth2.googleapis.com/token"

// skew is how far the clocks of Google and a client may be apart.
const skew = 5 * time.Minute

// assertion is a service account's, checked.
type assertion struct {
	Scope          string `json:"scope"`
	TargetAudience string `json:"target_audience"`
	jwt.RegisteredClaims
}

// token is the OAuth token endpoint with the JWT bearer grant.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		oauthError(w, http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+r.PostForm.Get("grant_type"))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, code, problem := s.checkAssertion(r.PostForm.Get("assertion"))
	switch {
	case problem != "":
		status := http.StatusBadRequest
		if code == "disabled_client" {
			status = http.StatusUnauthorized
		}
		oauthError(w, status, code, problem)
	case a.TargetAudience != "":
		reply(w, http.StatusOK, map[string]string{"id_token": s.idToken(a.Issuer, a.TargetAudience)})
	default:
		token, _ := s.issue(a.Issuer, strings.Fields(a.Scope), time.Hour)
		reply(w, http.StatusOK, map[string]any{"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
	}
}

// checkAssertion checks a service account's assertion, or says what is wrong
// with it. The lock is held.
func (s *Server) checkAssertion(signed string) (a assertion, code, problem string) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
	if _, _, err := parser.ParseUnverified(signed, &a); err != nil {
		return a, "invalid_grant", "Bad Request"
	}
	who := s.accounts[a.Issuer]
	if who == nil {
		return a, "invalid_grant", "Invalid grant: account not found"
	}
	_, err := parser.ParseWithClaims(signed, &assertion{}, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if key := who.keys[kid]; key != nil {
			return key, nil
		}
		return nil, jwt.ErrTokenUnverifiable
	})
	now := s.now()
	switch {
	case err != nil:
		return a, "invalid_grant", "Invalid JWT Signature."
	case who.disabled:
		return a, "disabled_client", "The OAuth client was disabled."
	case !slices.Equal(a.Audience, []string{tokenAudience}):
		return a, "invalid_grant", "Invalid JWT: Failed audience check. The right audience is " + tokenAudience
	case a.IssuedAt == nil || a.ExpiresAt == nil, a.IssuedAt.After(now.Add(skew)), a.ExpiresAt.Before(now.Add(-skew)),
		a.ExpiresAt.Sub(a.IssuedAt.Time) > time.Hour:
		return a, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."
	case (a.Scope == "") == (a.TargetAudience == ""):
		return a, "invalid_scope", "Invalid OAuth scope or ID token audience provided."
	}
	return a, "", ""
}

// idToken makes an ID token of an account. The lock is held.
func (s *Server) idToken(email, audience string) string {
	now := s.now()
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": "https://accounts.google.com", "aud": audience, "azp": email, "email": email, "email_verified": true,
		"sub": "104857600000000000001", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	signed, err := t.SignedString(s.signer)
	if err != nil {
		s.t.Error(err)
	}
	return signed
}

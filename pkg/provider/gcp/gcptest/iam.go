package gcptest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// iam is the IAM Credentials API: generateAccessToken and generateIdToken.
func (s *Server) iam(w http.ResponseWriter, r *http.Request) {
	email, method, _ := strings.Cut(r.PathValue("call"), ":")
	var m struct {
		Scope        []string `json:"scope"`
		Delegates    []string `json:"delegates"`
		Lifetime     string   `json:"lifetime"`
		Audience     string   `json:"audience"`
		IncludeEmail bool     `json:"includeEmail"`
	}
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		apiError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "Invalid JSON payload received.", nil)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	caller, ok := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if !ok || !caller.End.After(s.now()) {
		apiError(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials. "+
			"Expected OAuth 2 access token, login cookie or other valid authentication credential.", nil)
		return
	}
	if !slices.Contains(caller.Scopes, "https://www.googleapis.com/auth/cloud-platform") && !slices.Contains(caller.Scopes, "https://www.googleapis.com/auth/iam") {
		apiError(w, http.StatusForbidden, "PERMISSION_DENIED", "Request had insufficient authentication scopes.",
			map[string]any{"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "domain": "googleapis.com"})
		return
	}
	permission := map[string]string{"generateAccessToken": "iam.serviceAccounts.getAccessToken", "generateIdToken": "iam.serviceAccounts.getOpenIdToken"}[method]
	if permission == "" {
		apiError(w, http.StatusNotFound, "NOT_FOUND", "Method not found.", nil)
		return
	}
	if denied := s.walk(caller.Name, m.Delegates, email, permission); denied != "" {
		apiError(w, http.StatusForbidden, "PERMISSION_DENIED", "Permission '"+denied+"' denied on resource (or it may not exist).",
			map[string]any{"reason": "IAM_PERMISSION_DENIED", "domain": "iam.googleapis.com", "metadata": map[string]string{"permission": denied}})
		return
	}
	if method == "generateIdToken" {
		if m.Audience == "" || !m.IncludeEmail {
			apiError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "Request contains an invalid argument.", nil)
			return
		}
		reply(w, http.StatusOK, map[string]string{"token": s.idToken(email, m.Audience)})
		return
	}
	var seconds int
	if _, err := fmt.Sscanf(m.Lifetime, "%ds", &seconds); err != nil || m.Lifetime != fmt.Sprintf("%ds", seconds) || seconds < 1 || seconds > 3600 || len(m.Scope) == 0 {
		apiError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "Request contains an invalid argument.", nil)
		return
	}
	token, end := s.issue(email, m.Scope, time.Duration(seconds)*time.Second)
	reply(w, http.StatusOK, map[string]string{"accessToken": token, "expireTime": end.UTC().Format(time.RFC3339)})
}

// walk returns the permission that is missing on the way from the caller over
// the delegates to an account, "" when none is. The lock is held.
func (s *Server) walk(caller string, delegates []string, email, permission string) string {
	for _, name := range delegates {
		delegate := strings.TrimPrefix(name, "projects/-/serviceAccounts/")
		if delegate == name || !s.allowed[[2]string{caller, delegate}] {
			return "iam.serviceAccounts.implicitDelegation"
		}
		caller = delegate
	}
	if who := s.accounts[email]; who == nil || who.disabled || !s.allowed[[2]string{caller, email}] {
		return permission
	}
	return ""
}

// models is a listing that takes API keys.
func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("key") {
		s.t.Error("the key is in the URL, which servers and proxies write down")
	}
	s.mu.Lock()
	reason, known := s.apiKeys[r.Header.Get("X-Goog-Api-Key")]
	s.mu.Unlock()
	service := map[string]string{"service": "generativelanguage.googleapis.com"}
	switch {
	case !known:
		apiError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
			map[string]any{"reason": "API_KEY_INVALID", "domain": "googleapis.com", "metadata": service})
	case reason == "location":
		apiError(w, http.StatusBadRequest, "FAILED_PRECONDITION", "User location is not supported for the API use.", nil)
	case reason == "RATE_LIMIT_EXCEEDED":
		apiError(w, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Requests'.",
			map[string]any{"reason": reason, "domain": "googleapis.com", "metadata": service})
	case reason != "":
		service["consumer"] = "projects/123456789012"
		apiError(w, http.StatusForbidden, "PERMISSION_DENIED", "Requests to this API are blocked.",
			map[string]any{"reason": reason, "domain": "googleapis.com", "metadata": service})
	default:
		reply(w, http.StatusOK, map[string]any{"models": []any{}})
	}
}

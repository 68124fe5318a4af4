package azuretest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// identity is the metadata service of a virtual machine, or the one that App
// Service offers.
func (s *Server) identity(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad := func(text string) {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request", "error_description": text})
	}
	query := r.URL.Query()
	version, object, resourceID := "2018-02-01", "object_id", "msi_res_id"
	if s.service != "" {
		version, object, resourceID = "2019-08-01", "principal_id", "mi_res_id"
		if r.Header.Get("X-Identity-Header") != s.service {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "unauthorized", "error_description": "The X-IDENTITY-HEADER is wrong"})
			return
		}
	}
	resource := query.Get("resource")
	switch {
	case strings.HasPrefix(r.URL.Path, "/msi/") != (s.service != ""):
		http.NotFound(w, r)
		return
	case s.service == "" && r.Header.Get("Metadata") != "true":
		bad("Required metadata header not specified")
		return
	case query.Get("api-version") != version:
		bad("Bad request. api-version is invalid or was not specified in the request.")
		return
	case !slices.Contains(resources, resource):
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_resource", "error_description": "AADSTS500011: The resource principal named " + resource + " was not found in the tenant named Example. Trace ID: 1"})
		return
	}
	app := s.assignedBy(query.Get("client_id"), query.Get(object), query.Get(resourceID))
	if app == nil {
		bad("Identity not found")
		return
	}
	end := strconv.FormatInt(time.Now().Add(24*time.Hour).Unix(), 10)
	answer(w, http.StatusOK, map[string]string{
		"access_token": s.Token(app, resource, nil), "client_id": app.Client, "expires_in": "86399", "expires_on": end,
		"ext_expires_in": "86399", "not_before": "0", "resource": resource, "token_type": "Bearer",
	})
}

// assignedBy finds an identity of the machine; called with mu held.
func (s *Server) assignedBy(client, object, resource string) *App {
	if len(s.machine) == 0 {
		return nil
	}
	if client == "" && object == "" && resource == "" {
		return s.machine[0]
	}
	for _, a := range s.machine {
		if a != nil && (a.Client == client || a.Object == object || a.Resource != "" && a.Resource == resource) {
			return a
		}
	}
	return nil
}

// exchange is the first half of a login to a registry.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	no := func(status int, code, message string) {
		answer(w, status, map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
	}
	if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "access_token" {
		no(http.StatusBadRequest, "INVALID", "grant_type is not supported")
		return
	}
	service := r.PostForm.Get("service")
	audience := "https://containerregistry.azure.net"
	switch {
	case strings.HasSuffix(service, ".azurecr.us"):
		audience = "https://containerregistry.azure.us"
	case strings.HasSuffix(service, ".azurecr.cn"):
		audience = "https://containerregistry.azure.cn"
	case !strings.HasSuffix(service, ".azurecr.io"):
		no(http.StatusBadRequest, "NAME_UNKNOWN", "service is unknown")
		return
	}
	token := r.PostForm.Get("access_token")
	if s.CheckToken(token, audience) != nil {
		no(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
		return
	}
	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(token, claims)
	if tenant := r.PostForm.Get("tenant"); err != nil || tenant != "" && tenant != claims["tid"] {
		no(http.StatusUnauthorized, "UNAUTHORIZED", "the token is of another tenant")
		return
	}
	now := time.Now()
	answer(w, http.StatusOK, map[string]string{"refresh_token": s.sign(jwt.MapClaims{
		"aud": service, "iss": "Azure Container Registry", "sub": claims["oid"], "tenant": claims["tid"],
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(3 * time.Hour).Unix(), "grant_type": "refresh_token",
	})})
}

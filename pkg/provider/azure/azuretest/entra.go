package azuretest

import (
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // x5t is a hash of SHA-1
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// complaint is a refusal of Entra ID.
type complaint struct {
	status int
	error  string
	code   int
	text   string
}

// refuse answers as Entra ID does; the ids and the time differ in every answer.
func refuse(w http.ResponseWriter, c *complaint) {
	trace, correlation := uuid.NewString(), uuid.NewString()
	now := time.Now().UTC().Format("2006-01-02 15:04:05.000000000Z")
	answer(w, c.status, map[string]any{
		"error": c.error, "error_codes": []int{c.code}, "timestamp": now, "trace_id": trace, "correlation_id": correlation,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", c.code, c.text, trace, correlation, now),
		"error_uri":         fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", c.code),
	})
}

// discovery describes a tenant.
func (s *Server) discovery(w http.ResponseWriter, r *http.Request) {
	tenant := r.PathValue("tenant")
	if !s.knows(tenant) {
		refuse(w, unknownTenant(tenant))
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"token_endpoint":         s.endpoint(tenant),
		"authorization_endpoint": s.URL + "/" + tenant + "/oauth2/v2.0/authorize",
		"issuer":                 s.URL + "/" + tenant + "/v2.0",
	})
}

func unknownTenant(tenant string) *complaint {
	return &complaint{
		http.StatusBadRequest, "invalid_tenant", 90002,
		"Tenant '" + tenant + "' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.",
	}
}

func (s *Server) endpoint(tenant string) string { return s.URL + "/" + tenant + "/oauth2/v2.0/token" }

func (s *Server) knows(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.apps, func(a *App) bool { return a.Tenant == tenant })
}

// token is the client credentials grant of version 2.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	app, resource, c := s.judge(r)
	if c != nil {
		refuse(w, c)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599,
		"access_token": s.Token(app, resource, nil),
	})
}

// judge is called with mu held.
func (s *Server) judge(r *http.Request) (*App, string, *complaint) {
	tenant := r.PathValue("tenant")
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") || r.ParseForm() != nil {
		return nil, "", &complaint{http.StatusBadRequest, "invalid_request", 900144, "The request body must be a form."}
	}
	if !slices.ContainsFunc(s.apps, func(a *App) bool { return a.Tenant == tenant }) {
		return nil, "", unknownTenant(tenant)
	}
	if grant := r.PostForm.Get("grant_type"); grant != "client_credentials" {
		return nil, "", &complaint{http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."}
	}
	client := r.PostForm.Get("client_id")
	at := slices.IndexFunc(s.apps, func(a *App) bool { return a.Tenant == tenant && a.Client == client })
	if at < 0 {
		return nil, "", &complaint{
			http.StatusBadRequest, "unauthorized_client", 700016,
			"Application with identifier '" + client + "' was not found in the directory 'Example'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
		}
	}
	app := s.apps[at]
	if c := s.authenticate(app, r); c != nil {
		return nil, "", c
	}
	resource, c := resourceOf(r.PostForm.Get("scope"))
	return app, resource, c
}

// resourceOf finds the resource of a scope. MSAL adds scopes of OpenID Connect,
// which mean nothing in this grant.
func resourceOf(scope string) (string, *complaint) {
	var resource string
	for one := range strings.FieldsSeq(scope) {
		if slices.Contains([]string{"openid", "offline_access", "profile"}, one) {
			continue
		}
		before, ok := strings.CutSuffix(one, "/.default")
		if !ok || resource != "" {
			return "", &complaint{
				http.StatusBadRequest, "invalid_scope", 1002012,
				"The provided value for scope " + scope + " is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
			}
		}
		resource = before
	}
	if !slices.Contains(resources, resource) {
		return "", &complaint{
			http.StatusBadRequest, "invalid_resource", 500011,
			"The resource principal named " + resource + " was not found in the tenant named Example.",
		}
	}
	return resource, nil
}

// authenticate checks the application's secret or assertion.
func (s *Server) authenticate(app *App, r *http.Request) *complaint {
	secret, assertion := r.PostForm.Get("client_secret"), r.PostForm.Get("client_assertion")
	switch {
	case secret == "" && assertion == "":
		return &complaint{
			http.StatusUnauthorized, "invalid_client", 7000216,
			"'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
		}
	case secret != "":
		return checkSecret(app, secret)
	case r.PostForm.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
		return &complaint{http.StatusBadRequest, "invalid_request", 900144, "The request body must contain the following parameter: 'client_assertion_type'."}
	}
	return s.checkAssertion(app, r.PathValue("tenant"), assertion)
}

func checkSecret(app *App, secret string) *complaint {
	for known, end := range app.Secrets {
		if subtle.ConstantTimeCompare([]byte(known), []byte(secret)) != 1 {
			continue
		}
		if !end.IsZero() && time.Now().After(end) {
			return &complaint{
				http.StatusUnauthorized, "invalid_client", 7000222,
				"The provided client secret keys for app '" + app.Client + "' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.",
			}
		}
		return nil
	}
	return &complaint{
		http.StatusUnauthorized, "invalid_client", 7000215,
		"Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '" + app.Client + "'.",
	}
}

// skew is how far clocks may be apart.
const skew = 5 * time.Minute

// checkAssertion checks a JWT of the application's own certificate, or one of a
// federated issuer. Called with mu held.
func (s *Server) checkAssertion(app *App, tenant, assertion string) *complaint {
	var unverified jwt.RegisteredClaims
	token, _, err := jwt.NewParser().ParseUnverified(assertion, &unverified)
	if err != nil {
		return &complaint{http.StatusUnauthorized, "invalid_client", 50027, "JWT token is invalid or malformed."}
	}
	if unverified.Issuer != app.Client {
		return checkFederated(app, assertion, unverified)
	}
	certificate := certificateOf(app, token.Header)
	if certificate == nil {
		return &complaint{
			http.StatusUnauthorized, "invalid_client", 700027,
			"The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The key was not found.] Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '" + app.Client + "'.",
		}
	}
	if time.Now().After(certificate.NotAfter) {
		return &complaint{
			http.StatusUnauthorized, "invalid_client", 700027,
			"Client assertion contains an invalid signature. [Reason - The key used is expired.]",
		}
	}
	verified := jwt.RegisteredClaims{}
	_, err = jwt.ParseWithClaims(assertion, &verified, func(*jwt.Token) (any, error) { return certificate.PublicKey, nil },
		jwt.WithValidMethods([]string{"PS256", "RS256"}), jwt.WithoutClaimsValidation())
	if err != nil {
		return &complaint{http.StatusUnauthorized, "invalid_client", 700027, "Client assertion failed signature validation."}
	}
	audiences := []string{s.endpoint(tenant), s.URL + "/" + tenant + "/v2.0"}
	switch {
	case verified.Subject != app.Client:
		return &complaint{http.StatusUnauthorized, "invalid_client", 700021, "Client assertion application identifier doesn't match 'client_id' parameter."}
	case !slices.ContainsFunc(verified.Audience, func(a string) bool { return slices.Contains(audiences, a) }):
		return &complaint{http.StatusUnauthorized, "invalid_client", 700023, "Client assertion audience claim does not match Realm issuer."}
	case timeProblem(verified):
		return outOfTime()
	case verified.ID == "" || s.assigned[verified.ID]:
		return &complaint{http.StatusUnauthorized, "invalid_client", 50027, "JWT token is invalid or malformed."}
	}
	s.assigned[verified.ID] = true
	return nil
}

// timeProblem says whether an assertion has no end, has ended or is not yet
// valid.
func timeProblem(c jwt.RegisteredClaims) bool {
	now := time.Now()
	return c.ExpiresAt == nil || now.After(c.ExpiresAt.Add(skew)) ||
		c.NotBefore != nil && now.Before(c.NotBefore.Add(-skew))
}

func outOfTime() *complaint {
	return &complaint{http.StatusUnauthorized, "invalid_client", 700024, "Client assertion is not within its valid time range."}
}

// certificateOf finds the certificate that the header of an assertion names by
// its thumbprint. RFC 7515 wants the alphabet for URLs without padding; Microsoft
// takes the other, which its libraries write, too.
func certificateOf(app *App, header map[string]any) *x509.Certificate {
	thumbprint := func(name string) string {
		text, _ := header[name].(string)
		text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
		decoded, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return ""
		}
		return string(decoded)
	}
	for _, c := range app.Certificates {
		long, short := sha256.Sum256(c.Raw), sha1.Sum(c.Raw) //nolint:gosec // as above
		if _, ok := c.PublicKey.(*rsa.PublicKey); ok && (thumbprint("x5t#S256") == string(long[:]) || thumbprint("x5t") == string(short[:])) {
			return c
		}
	}
	return nil
}

// checkFederated checks a token of another issuer.
func checkFederated(app *App, assertion string, said jwt.RegisteredClaims) *complaint {
	no := func(code int, what, value string) *complaint {
		return &complaint{
			http.StatusBadRequest, "invalid_request", code,
			"No matching federated identity record found for presented assertion " + what + " '" + value + "'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion.",
		}
	}
	if !slices.ContainsFunc(app.Federated, func(f Federated) bool { return f.Issuer == said.Issuer }) {
		return no(700211, "issuer", said.Issuer)
	}
	at := slices.IndexFunc(app.Federated, func(f Federated) bool { return f.Issuer == said.Issuer && f.Subject == said.Subject })
	if at < 0 {
		return no(700213, "subject", said.Subject)
	}
	f := app.Federated[at]
	if !slices.Contains(said.Audience, f.Audience) {
		return no(700212, "audience", strings.Join(said.Audience, ","))
	}
	verified := jwt.RegisteredClaims{}
	_, err := jwt.ParseWithClaims(assertion, &verified, func(*jwt.Token) (any, error) { return f.Key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
	switch {
	case err != nil:
		return &complaint{http.StatusUnauthorized, "invalid_client", 700027, "Client assertion failed signature validation."}
	case timeProblem(verified):
		return outOfTime()
	}
	return nil
}

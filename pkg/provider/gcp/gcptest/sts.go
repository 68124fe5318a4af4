package gcptest

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Pool is a provider of a workload identity pool, with the issuer of OpenID
// Connect tokens and the account of AWS that it trusts.
type Pool struct {
	server   *Server
	audience string
	key      *rsa.PrivateKey
	// aws are secret keys and session tokens by access key id.
	aws map[string][2]string
}

// AddPool adds a provider by its audience, as
// "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/oidc".
func (s *Server) AddPool(audience string) *Pool {
	s.t.Helper()
	p := &Pool{server: s, audience: audience, key: nextKey(s.t), aws: map[string][2]string{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools[audience] = p
	return p
}

// Token makes a token of the issuer for a subject, as a cluster projects it into
// a file.
func (p *Pool) Token(subject string) string {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	now := p.server.now()
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": "https://issuer.example.com", "sub": subject, "aud": "https:" + p.audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	signed, err := t.SignedString(p.key)
	if err != nil {
		p.server.t.Error(err)
	}
	return signed
}

// Principal is what a subject of the provider is called in policies.
func (p *Pool) Principal(subject string) string {
	pool, _, _ := strings.Cut(p.audience, "/providers/")
	return "principal:" + pool + "/subject/" + subject
}

// AllowAWS adds an identity of AWS, whose subject is its access key id.
func (p *Pool) AllowAWS(keyID, secret, session string) {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	p.aws[keyID] = [2]string{secret, session}
}

// exchange is the Security Token Service.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" ||
		r.PostForm.Get("requested_token_type") != "urn:ietf:params:oauth:token-type:access_token" || r.PostForm.Get("scope") == "" {
		oauthError(w, http.StatusBadRequest, "invalid_request", "Invalid value for \"grant_type\".")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[r.PostForm.Get("audience")]
	if p == nil {
		oauthError(w, http.StatusBadRequest, "invalid_target", "The target service indicated by the \"audience\" parameters is invalid. "+
			"This might either be because the pool or provider is disabled or deleted or because it doesn't exist.")
		return
	}
	subject, problem := p.check(r.PostForm.Get("subject_token_type"), r.PostForm.Get("subject_token"), s.now())
	if problem != "" {
		oauthError(w, http.StatusBadRequest, "invalid_grant", problem)
		return
	}
	token, _ := s.issue(p.Principal(subject), strings.Fields(r.PostForm.Get("scope")), time.Hour)
	reply(w, http.StatusOK, map[string]any{
		"access_token": token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3599,
	})
}

// check returns the subject of a token, or what is wrong with it.
func (p *Pool) check(kind, token string, now time.Time) (subject, problem string) {
	switch kind {
	case "urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token":
		return p.checkJWT(token, now)
	case "urn:ietf:params:aws:token-type:aws4_request":
		return p.checkAWS(token, now)
	}
	return "", "Unsupported subject token type."
}

func (p *Pool) checkJWT(token string, now time.Time) (subject, problem string) {
	var claims jwt.RegisteredClaims
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).
		ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return &p.key.PublicKey, nil })
	switch {
	case err != nil:
		return "", "Invalid JWT signature."
	case !slices.Contains(claims.Audience, "https:"+p.audience):
		return "", "The audience in ID Token does not match the expected audience."
	case claims.ExpiresAt == nil || claims.ExpiresAt.Before(now):
		return "", "ID Token is expired."
	}
	return claims.Subject, ""
}

// checkAWS checks a signed request of GetCallerIdentity (Signature Version 4).
func (p *Pool) checkAWS(token string, now time.Time) (subject, problem string) {
	var m struct {
		URL     string `json:"url"`
		Method  string `json:"method"`
		Headers []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"headers"`
	}
	text, err := url.QueryUnescape(token)
	if err != nil || json.Unmarshal([]byte(text), &m) != nil {
		return "", "The subject token is not a serialized request."
	}
	headers := map[string]string{}
	for _, h := range m.Headers {
		headers[strings.ToLower(h.Key)] = h.Value
	}
	u, err := url.Parse(m.URL)
	if err != nil || m.Method != http.MethodPost || headers["host"] != u.Host || headers["x-goog-cloud-target-resource"] != p.audience ||
		u.RawQuery != "Action=GetCallerIdentity&Version=2011-06-15" {
		return "", "The subject token is not a request for GetCallerIdentity with this audience."
	}
	return p.checkSignature(u, headers, now)
}

// checkSignature computes the signature anew with the secret of the key that the
// request names.
func (p *Pool) checkSignature(u *url.URL, headers map[string]string, now time.Time) (keyID, problem string) {
	fields := map[string]string{}
	rest, _ := strings.CutPrefix(headers["authorization"], "AWS4-HMAC-SHA256 ")
	for part := range strings.SplitSeq(rest, ", ") {
		name, value, _ := strings.Cut(part, "=")
		fields[name] = value
	}
	keyID, scope, _ := strings.Cut(fields["Credential"], "/")
	parts := strings.Split(scope, "/")
	at, err := time.Parse("20060102T150405Z", headers["x-amz-date"])
	known, ok := p.aws[keyID]
	switch {
	case !ok || known[1] != headers["x-amz-security-token"]:
		return "", "The security token included in the request is invalid."
	case err != nil || at.Before(now.Add(-15*time.Minute)) || at.After(now.Add(15*time.Minute)):
		return "", "Signature expired."
	case len(parts) != 4 || u.Host != "sts."+parts[1]+".amazonaws.com":
		return "", "Credential should be scoped to a valid region."
	}
	signed := strings.Split(fields["SignedHeaders"], ";")
	for _, must := range []string{"host", "x-amz-date", "x-goog-cloud-target-resource"} {
		if !slices.Contains(signed, must) {
			return "", "The header " + must + " is not signed."
		}
	}
	var canonical strings.Builder
	canonical.WriteString("POST\n/\n" + u.RawQuery + "\n")
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if slices.Contains(signed, name) {
			canonical.WriteString(name + ":" + headers[name] + "\n")
		}
	}
	canonical.WriteString("\n" + fields["SignedHeaders"] + "\n" + hash(""))
	key := []byte("AWS4" + known[0])
	for _, part := range append(parts, "AWS4-HMAC-SHA256\n"+headers["x-amz-date"]+"\n"+scope+"\n"+hash(canonical.String())) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(fields["Signature"])) {
		return "", "The request signature we calculated does not match the signature you provided."
	}
	return keyID, ""
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

package awstest

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The signatures' limits in time.
const (
	maxSkew      = 5 * time.Minute
	maxPresigned = 15 * time.Minute
)

// Issuer and Audience are those of the tokens of pods.
const (
	Issuer   = "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
	Audience = "sts.amazonaws.com"
)

var (
	stsHost     = regexp.MustCompile(`^sts\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?$`)
	sessionName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]+$`)
)

func refuse(status int, code, format string, a ...any) *Refusal {
	return &Refusal{status, code, fmt.Sprintf(format, a...)}
}

// serve answers as STS, ECR and ECR Public do.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		s.serveECR(w, r, body, target)
		return
	}
	form := r.URL.Query()
	if r.Method == http.MethodPost {
		if form, err = url.ParseQuery(string(body)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	action := form.Get("Action")
	s.asked = append(s.asked, action)
	result, refusal := s.sts(r, body, action, form)
	if refusal != nil {
		writeXML(w, refusal.Status, "ErrorResponse", fmt.Sprintf("<Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>",
			text(refusal.Code), text(refusal.Message)))
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "json") {
		// As EKS asks.
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{action + "Response": map[string]any{action + "Result": result}})
		return
	}
	writeXML(w, http.StatusOK, action+"Response", "<"+action+"Result>"+elements(result)+"</"+action+"Result>")
}

func writeXML(w http.ResponseWriter, status int, root, inner string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	//nolint:gosec // XML for a client of STS, with everything in it escaped
	_, _ = io.WriteString(w, "<"+root+` xmlns="https://sts.amazonaws.com/doc/2011-06-15/">`+inner+"<RequestId>r</RequestId></"+root+">")
}

// elements writes nested maps of strings as XML.
func elements(tree map[string]any) string {
	var out strings.Builder
	for name, value := range tree {
		inner, isTree := value.(map[string]any)
		if isTree {
			out.WriteString("<" + name + ">" + elements(inner) + "</" + name + ">")
			continue
		}
		out.WriteString("<" + name + ">" + text(fmt.Sprint(value)) + "</" + name + ">")
	}
	return out.String()
}

func text(s string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(s))
	return out.String()
}

// sts answers one action.
func (s *Server) sts(r *http.Request, body []byte, action string, form url.Values) (map[string]any, *Refusal) {
	if action == "AssumeRoleWithWebIdentity" {
		return s.webIdentity(r, form)
	}
	caller, signed, refusal := s.authenticate(r, body, "sts")
	if refusal != nil {
		return nil, refusal
	}
	switch action {
	case "GetCallerIdentity":
		account, _ := parts(caller.owner)
		return map[string]any{"Arn": caller.arn, "UserId": caller.userID, "Account": account}, nil
	case "GetSessionToken":
		return s.getSessionToken(caller, form)
	case "AssumeRole":
		return s.assumeRole(caller, signed.region, form)
	}
	return nil, refuse(http.StatusBadRequest, "InvalidAction", "Could not find operation %s", action)
}

// authenticate finds whose signature is on a request, and checks it.
func (s *Server) authenticate(r *http.Request, body []byte, service string) (*principal, signature, *Refusal) {
	if s.broken != nil {
		return nil, signature{}, s.broken
	}
	signed, refusal := parseSignature(r)
	if refusal != nil {
		return nil, signed, refusal
	}
	invalid := refuse(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
	caller, known := s.principals[signed.keyID]
	if !known || caller.key.Token != signed.token {
		return nil, signed, invalid
	}
	if signed.service != service {
		return nil, signed, refuse(http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped to correct service: '%s'.", service)
	}
	if host := stsHost.FindStringSubmatch(r.Host); host != nil && host[1] != signed.region {
		return nil, signed, refuse(http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped to a valid region, not '%s'.", signed.region)
	}
	now, oldest := s.now(), maxSkew
	if signed.inQuery {
		oldest = maxPresigned
	}
	if now.Sub(signed.at) > oldest {
		return nil, signed, refuse(http.StatusForbidden, "SignatureDoesNotMatch", "Signature expired: %s is now earlier than %s", signed.at.Format(timeFormat), now.Add(-oldest).Format(timeFormat))
	}
	if signed.at.Sub(now) > maxSkew {
		return nil, signed, refuse(http.StatusForbidden, "SignatureDoesNotMatch", "Signature not yet current: %s is still later than %s", signed.at.Format(timeFormat), now.Add(maxSkew).Format(timeFormat))
	}
	if !signed.valid(r, body, caller.key.Secret) {
		return nil, signed, refuse(http.StatusForbidden, "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if !caller.key.End.IsZero() && now.After(caller.key.End) {
		return nil, signed, refuse(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	}
	s.signed = signed.service
	return caller, signed, nil
}

func (s *Server) getSessionToken(caller *principal, form url.Values) (map[string]any, *Refusal) {
	if caller.key.Token != "" {
		return nil, refuse(http.StatusForbidden, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	}
	length, refusal := duration(form, 12*time.Hour, 36*time.Hour)
	if refusal != nil {
		return nil, refusal
	}
	p := &principal{
		key: Key{ID: keyID("ASIA"), Secret: random(30), Token: random(120), End: s.now().Add(length).Truncate(time.Second)},
		arn: caller.arn, owner: caller.owner, userID: caller.userID,
	}
	s.principals[p.key.ID] = p
	return map[string]any{"Credentials": p.key.fields()}, nil
}

func (k Key) fields() map[string]any {
	return map[string]any{
		"AccessKeyId": k.ID, "SecretAccessKey": k.Secret, "SessionToken": k.Token, "Expiration": k.End.UTC().Format(time.RFC3339),
	}
}

// duration reads DurationSeconds.
func duration(form url.Values, otherwise, longest time.Duration) (time.Duration, *Refusal) {
	if form.Get("DurationSeconds") == "" {
		return otherwise, nil
	}
	seconds, err := strconv.Atoi(form.Get("DurationSeconds"))
	length := time.Duration(seconds) * time.Second
	if err != nil || length < 15*time.Minute || length > longest {
		return 0, refuse(http.StatusBadRequest, "ValidationError", "1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint", seconds)
	}
	return length, nil
}

// denied is what STS says whichever of trust, external id and permission is
// missing.
func denied(caller *principal, action, resource string) *Refusal {
	return refuse(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s", caller.arn, action, resource)
}

func (s *Server) assumeRole(caller *principal, region string, form url.Values) (map[string]any, *Refusal) {
	arn := form.Get("RoleArn")
	role := s.roles[arn]
	length, refusal := duration(form, time.Hour, 12*time.Hour)
	switch external := form.Get("ExternalId"); {
	case refusal != nil:
		return nil, refusal
	case !sessionName.MatchString(form.Get("RoleSessionName")), external != "" && (len(external) < 2 || len(external) > 1224 || !externalID.MatchString(external)):
		return nil, refuse(http.StatusBadRequest, "ValidationError", "1 validation error detected: a value failed to satisfy constraint")
	case role == nil, !slices.Contains(role.Trust, caller.owner), role.ExternalID != "" && role.ExternalID != external:
		return nil, denied(caller, "sts:AssumeRole", arn)
	case !slices.Contains(s.may[caller.owner], arn), !caller.allows("sts:AssumeRole"):
		r := denied(caller, "sts:AssumeRole", arn)
		r.Message += " because no identity-based policy allows the sts:AssumeRole action"
		return nil, r
	case caller.role != nil && length > time.Hour:
		return nil, refuse(http.StatusBadRequest, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	case length > role.Max:
		return nil, refuse(http.StatusBadRequest, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	tags, transitive, refusal := sessionTags(caller, form)
	if refusal != nil {
		return nil, refusal
	}
	allow, refusal := sessionPolicy(form, tags)
	if refusal != nil {
		return nil, refusal
	}
	p := s.session(role, form.Get("RoleSessionName"), length)
	p.allow, p.tags = allow, transitive
	p.told = Session{
		Name: form.Get("RoleSessionName"), SourceIdentity: form.Get("SourceIdentity"), Region: region, Policy: form.Get("Policy"),
		Tags: tags, PolicyARNs: members(form, "PolicyArns", ".arn"),
	}
	return map[string]any{
		"Credentials":      p.key.fields(),
		"AssumedRoleUser":  map[string]any{"Arn": p.arn, "AssumedRoleId": p.userID},
		"PackedPolicySize": 6,
		"SourceIdentity":   form.Get("SourceIdentity"),
	}, nil
}

// members returns the values of a list of the query protocol.
func members(form url.Values, prefix, suffix string) []string {
	var out []string
	for i := 1; form.Has(prefix + ".member." + strconv.Itoa(i) + suffix); i++ {
		out = append(out, form.Get(prefix+".member."+strconv.Itoa(i)+suffix))
	}
	return out
}

// sessionTags returns all tags, and those that pass on.
func sessionTags(caller *principal, form url.Values) (all, transitive map[string]string, refusal *Refusal) {
	all, transitive = map[string]string{}, map[string]string{}
	keys, values := members(form, "Tags", ".Key"), members(form, "Tags", ".Value")
	if len(keys) > 50 || len(keys) != len(values) {
		return nil, nil, refuse(http.StatusBadRequest, "ValidationError", "there are too many tags")
	}
	for i, k := range keys {
		if k == "" || len(k) > 128 || len(values[i]) > 256 || strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, nil, refuse(http.StatusBadRequest, "ValidationError", "a tag is invalid")
		}
		if _, inherited := caller.tags[k]; inherited {
			return nil, nil, refuse(http.StatusBadRequest, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
		}
		all[k] = values[i]
	}
	for k, v := range caller.tags {
		all[k], transitive[k] = v, v
	}
	for _, k := range members(form, "TransitiveTagKeys", "") {
		v, tagged := all[k]
		if !tagged {
			return nil, nil, refuse(http.StatusBadRequest, "ValidationError", "a transitive tag key is no tag")
		}
		transitive[k] = v
	}
	return all, transitive, nil
}

// sessionPolicy returns the actions that a session policy allows, nil for none.
func sessionPolicy(form url.Values, tags map[string]string) ([]string, *Refusal) {
	policy := form.Get("Policy")
	packed := len(policy)
	for k, v := range tags {
		packed += len(k) + len(v)
	}
	for _, arn := range members(form, "PolicyArns", ".arn") {
		packed += len(arn)
	}
	const most = 3000
	if packed > most {
		return nil, refuse(http.StatusBadRequest, "PackedPolicyTooLarge", "Packed size of session tags consumes %d%% of allotted space.", packed*100/most)
	}
	if policy == "" {
		return nil, nil
	}
	var document struct {
		Version   string
		Statement []struct {
			Effect string
			Action any
		}
	}
	if err := json.Unmarshal([]byte(policy), &document); err != nil || document.Version == "" {
		return nil, refuse(http.StatusBadRequest, "MalformedPolicyDocument", "Syntax errors in policy.")
	}
	allow := []string{}
	for _, statement := range document.Statement {
		actions, isList := statement.Action.([]any)
		if !isList {
			actions = []any{statement.Action}
		}
		for _, a := range actions {
			if statement.Effect == "Allow" {
				allow = append(allow, fmt.Sprint(a))
			}
		}
	}
	return allow, nil
}

// allows says whether the policies of a session allow an action.
func (p *principal) allows(action string) bool {
	if p.role != nil && slices.Contains(p.role.Deny, action) {
		return false
	}
	return p.allow == nil || slices.ContainsFunc(p.allow, func(a string) bool {
		return a == action || strings.HasSuffix(a, "*") && strings.HasPrefix(action, strings.TrimSuffix(a, "*"))
	})
}

// PodToken returns the token of a pod's service account.
func (s *Server) PodToken(subject, audience string, end time.Time) (string, error) {
	key, err := s.issuer()
	if err != nil {
		return "", err
	}
	return jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": Issuer, "sub": subject, "aud": []string{audience}, "exp": end.Unix(), "iat": end.Add(-24 * time.Hour).Unix(),
	}).SignedString(key)
}

// podKey returns the public half, as AWS reads it at the issuer.
func (s *Server) podKey(*jwt.Token) (any, error) {
	key, err := s.issuer()
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

func (s *Server) webIdentity(r *http.Request, form url.Values) (map[string]any, *Refusal) {
	if s.broken != nil {
		return nil, s.broken
	}
	if r.Header.Get("Authorization") != "" {
		return nil, refuse(http.StatusBadRequest, "ValidationError", "the request is signed, as if the caller had a key")
	}
	token, err := jwt.Parse(form.Get("WebIdentityToken"), s.podKey,
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(Issuer), jwt.WithAudience(Audience), jwt.WithoutClaimsValidation())
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements")
	}
	claims, _ := token.Claims.(jwt.MapClaims)
	end, err := claims.GetExpirationTime()
	if err != nil || end == nil || s.now().After(end.Time) {
		return nil, refuse(http.StatusBadRequest, "ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time")
	}
	if audiences, err := claims.GetAudience(); err != nil || !slices.Contains(audiences, Audience) {
		return nil, refuse(http.StatusBadRequest, "InvalidIdentityToken", "Incorrect token audience")
	}
	subject, _ := claims.GetSubject()
	role := s.roles[form.Get("RoleArn")]
	if role == nil || role.Subject == "" || role.Subject != subject {
		return nil, refuse(http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	}
	if !sessionName.MatchString(form.Get("RoleSessionName")) {
		return nil, refuse(http.StatusBadRequest, "ValidationError", "the session has no name")
	}
	length, refusal := duration(form, time.Hour, role.Max)
	if refusal != nil {
		return nil, refusal
	}
	p := s.session(role, form.Get("RoleSessionName"), length)
	return map[string]any{
		"Credentials": p.key.fields(), "AssumedRoleUser": map[string]any{"Arn": p.arn, "AssumedRoleId": p.userID},
		"SubjectFromWebIdentityToken": subject, "Audience": Audience, "Provider": Issuer,
	}, nil
}

// The targets of GetAuthorizationToken, by the name of the service that signs it.
var targets = map[string]string{
	"AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken": "ecr",
	"SpencerFrontendService.GetAuthorizationToken":               "ecr-public",
}

// serveECR answers as ECR and ECR Public do.
func (s *Server) serveECR(w http.ResponseWriter, r *http.Request, body []byte, target string) {
	s.asked = append(s.asked, target[strings.IndexByte(target, '.')+1:])
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	service := targets[target]
	caller, signed, refusal := s.authenticate(r, body, service)
	if refusal == nil && !caller.allows(service+":GetAuthorizationToken") {
		refusal = denied(caller, service+":GetAuthorizationToken", "*")
	}
	if refusal != nil {
		// The names of the JSON protocol for the same.
		code := refusal.Code
		switch code {
		case "InvalidClientTokenId":
			code = "UnrecognizedClientException"
		case "SignatureDoesNotMatch":
			code = "InvalidSignatureException"
		case "ExpiredToken", "AccessDenied":
			code += "Exception"
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": refusal.Message})
		return
	}
	account, _ := parts(caller.owner)
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + random(60))),
		"expiresAt":          s.now().Add(12 * time.Hour).Unix(),
	}
	var answer any = map[string]any{"authorizationData": data}
	if service == "ecr" {
		data["proxyEndpoint"] = "https://" + account + ".dkr.ecr." + signed.region + ".amazonaws.com"
		answer = map[string]any{"authorizationData": []any{data}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

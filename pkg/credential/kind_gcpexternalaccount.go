package credential

import (
	"encoding/json"
	"regexp"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// gcpExternalAccount is a federation of Google Cloud with an identity that the
// server has elsewhere.
var gcpExternalAccount = behaviour[*credentialv1.GcpExternalAccount]{
	check: gcpCheckExternalAccount,
	facts: func(m *credentialv1.GcpExternalAccount) map[string]string {
		facts := gcpFacts(m.GetDocument(), map[string]string{"audience": "audience", "service_account_impersonation_url": "impersonate"})
		if parts := gcpAudience.FindStringSubmatch(facts["audience"]); parts != nil {
			facts["poolProvider"] = parts[1] + "/" + parts[2]
		}
		if parts := gcpImpersonationURL.FindStringSubmatch(facts["impersonate"]); parts != nil {
			facts["impersonate"] = parts[1]
		}
		return facts
	},
	// No kubernetesLogin: tokens for GKE have no audience, and this one acts as the
	// server itself.
	mints:        []string{"gcpAccessToken", "gcpIdToken", "registryLogin"},
	checkRequest: gcpCheckRequest(true),
	ambient:      func(*credentialv1.GcpExternalAccount) bool { return true },
	longLived:    func(*credentialv1.GcpExternalAccount) bool { return false },
}

var (
	gcpAudience = regexp.MustCompile(
		`^//iam\.googleapis\.com/projects/[0-9]{1,20}/locations/global/workloadIdentityPools/([a-z0-9-]{4,32})/providers/([a-z0-9-]{4,32})$`)
	gcpImpersonationURL = regexp.MustCompile(
		`^https://iamcredentials\.googleapis\.com/v1/projects/-/serviceAccounts/([^/:]{1,200}):generateAccessToken$`)
)

const (
	gcpWantConfig = `the whole JSON that "gcloud iam workload-identity-pools create-cred-config" writes`
	gcpAWSType    = "urn:ietf:params:aws:token-type:aws4_request"
	gcpTokenURL   = "https://sts.googleapis.com/v1/token"
	// The most is what the policy of an organisation can allow, in seconds.
	gcpMinTokenLifetime, gcpMaxTokenLifetime = 600, 43200
)

func gcpCheckExternalAccount(m *credentialv1.GcpExternalAccount, r *report) {
	o, ok := gcpReadObject(m.GetDocument(), gcpWantConfig, r)
	if !ok || !gcpIsConfig(o, r) {
		return
	}
	m.Document = o.text
	gcpCheckField(o, "audience",
		`"//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"`, r, gcpIsNoAudience)
	gcpCheckField(o, "subject_token_type", `"urn:ietf:params:oauth:token-type:jwt", "…:id_token", "…:saml2" or "`+gcpAWSType+`"`, r, gcpIsNoTokenType)
	gcpCheckField(o, "token_url", `"`+gcpTokenURL+`"`, r, gcpIsNot(gcpTokenURL, "is another: the identity would be shown to whoever answers there"))
	if o.has("service_account_impersonation_url") {
		gcpCheckField(o, "service_account_impersonation_url",
			`"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/ADDRESS:generateAccessToken"`, r, gcpIsNoImpersonationURL)
	}
	gcpCheckTokenLifetime(o, r)
	gcpCheckUniverse(o, r)
	for _, field := range []string{"client_id", "client_secret", "workforce_pool_user_project"} {
		if o.has(field) {
			r.add("document."+field, "must be absent: it is for workforce pools, whose identities are people")
		}
	}
	gcpCheckSource(o, r)
}

func gcpIsNoAudience(value string) string {
	switch {
	case gcpAudience.MatchString(value):
		return ""
	case strings.Contains(value, "/workforcePools/"):
		return "is of a workforce pool, whose identities are people: make a workload identity pool"
	case strings.HasPrefix(value, "https:"):
		return "begins with https:, which the provider's own audience does, but not this one"
	case strings.Contains(value, "workloadIdentityPools") && !strings.Contains(value, "/providers/"):
		return "names no provider"
	}
	return "is not"
}

func gcpIsNoTokenType(value string) string {
	switch value {
	case gcpAWSType, "urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:saml2":
		return ""
	case "urn:ietf:params:oauth:token-type:mtls":
		return "is for certificates, which are not supported as a source"
	}
	return "is none of these"
}

func gcpIsNoImpersonationURL(value string) string {
	parts := gcpImpersonationURL.FindStringSubmatch(value)
	switch {
	case parts == nil && !strings.HasPrefix(value, "https://iamcredentials.googleapis.com/"):
		return "is another address: whoever answers there would get the token"
	case parts == nil:
		return "is not"
	case !gcpEmail.MatchString(parts[1]):
		return "names no service account by its e-mail address"
	}
	return ""
}

func gcpCheckTokenLifetime(o gcpObject, r *report) {
	f, ok := o.fields["service_account_impersonation"]
	if !ok {
		return
	}
	var options struct {
		Seconds *int `json:"token_lifetime_seconds"`
	}
	if json.Unmarshal(f.raw, &options) != nil || options.Seconds != nil && (*options.Seconds < gcpMinTokenLifetime || *options.Seconds > gcpMaxTokenLifetime) {
		r.add("document.service_account_impersonation", `must be an object whose token_lifetime_seconds is 600 to 43,200; it is not`)
	}
}

// gcpOtherConfigs says what to do with documents of Google's that are no
// federation.
var gcpOtherConfigs = map[string]string{
	"service_account":                  "is a service account's key: store it as a credential of kind gcpServiceAccount",
	"authorized_user":                  "is a person's own login, made by gcloud: make a workload identity pool, or a service account's key",
	"external_account_authorized_user": "is a person's own login through a workforce pool: make a workload identity pool",
	"impersonated_service_account":     "is a login of gcloud that acts as a service account: paste the external account that is its source, with service_account_impersonation_url",
}

func gcpIsConfig(o gcpObject, r *report) bool {
	kind, _ := o.str("type")
	switch {
	case kind == "external_account":
		return true
	case gcpOtherConfigs[kind] != "":
		r.add("document", "must be "+gcpWantConfig+"; it "+gcpOtherConfigs[kind])
		return false
	case o.has("credential_source"):
		gcpCheckField(o, "type", `"external_account"`, r, gcpIsNot("external_account", "is something else"))
		return true
	}
	r.add("document", "must be "+gcpWantConfig+"; it is another JSON document")
	return false
}

package credential

import (
	"net/url"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// gcpServiceAccount is a key of a service account, as Google Cloud makes it for
// download.
var gcpServiceAccount = behaviour[*credentialv1.GcpServiceAccount]{
	check: gcpCheckServiceAccount,
	facts: func(m *credentialv1.GcpServiceAccount) map[string]string {
		facts := gcpFacts(m.GetDocument(), map[string]string{
			"client_email": "clientEmail", "project_id": "projectId", "private_key_id": "privateKeyId", "client_id": "clientId",
		})
		if m.GetImpersonate() != "" {
			facts["impersonate"] = m.GetImpersonate()
		}
		return facts
	},
	mints:        []string{"gcpAccessToken", "gcpIdToken", "registryLogin", "kubernetesLogin"},
	checkRequest: gcpCheckRequest(false),
}

const gcpWantKeyFile = "the whole JSON key file of a service account, as Google Cloud makes it for download"

func gcpCheckServiceAccount(m *credentialv1.GcpServiceAccount, r *report) {
	m.Impersonate = gcpCheckImpersonate(m.GetImpersonate(), r)
	o, ok := gcpReadObject(m.GetDocument(), gcpWantKeyFile, r)
	if !ok || !gcpIsKeyFile(o, r) {
		return
	}
	m.Document = o.text
	gcpCheckField(o, "project_id", `a project's id, as "my-project-123"`, r, gcpNot(gcpProject, "is not"))
	gcpCheckField(o, "private_key_id", "40 hexadecimal digits in lower case", r, gcpIsNoKeyID)
	gcpCheckPrivateKey(o, m, r)
	gcpCheckField(o, "client_email", gcpWantEmail, r, gcpIsNoEmail)
	if o.has("client_id") {
		gcpCheckField(o, "client_id", "the account's unique id, a number", r, gcpNot(gcpDigits, "is not"))
	}
	gcpCheckField(o, "token_uri", `"https://oauth2.googleapis.com/token"`, r, gcpIsNoTokenURI)
	gcpCheckUniverse(o, r)
}

func gcpIsNoKeyID(value string) string {
	switch {
	case gcpKeyID.MatchString(value):
		return ""
	case len(value) != 40:
		return "has another length"
	}
	return "holds another character"
}

// gcpCheckPrivateKey checks the key and mends its form in the document.
func gcpCheckPrivateKey(o gcpObject, m *credentialv1.GcpServiceAccount, r *report) {
	const want = "an RSA private key of 2,048 to 8,192 bits in PEM form"
	value, ok := o.str("private_key")
	if !ok {
		gcpCheckField(o, "private_key", want, r)
		return
	}
	key, problem := gcpParseKey(value)
	if problem != "" {
		r.add("document.private_key", "must be "+want+"; it "+problem)
		return
	}
	if !gcpSameKey(value, key) {
		m.Document = o.with("private_key", key.text)
	}
}

// gcpIsNoTokenURI finds an address that is not Google's: what is sent there lets
// its receiver act as the account.
func gcpIsNoTokenURI(value string) string {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "":
		return "is no URL"
	case u.Scheme != "https":
		return "is not https"
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Port() != "":
		return "holds more than a host and a path"
	case u.Hostname() != "accounts.google.com" && !strings.HasSuffix(u.Hostname(), "."+gcpUniverse):
		return "is not an address of Google's: whoever answers there could act as the account"
	}
	return ""
}

// gcpCheckUniverse reports a document of another cloud on Google's software.
func gcpCheckUniverse(o gcpObject, r *report) {
	if o.has("universe_domain") {
		gcpCheckField(o, "universe_domain", `"googleapis.com", or absent`, r,
			gcpIsNot(gcpUniverse, "is another: other universes than Google Cloud's public one are not supported"))
	}
}

const gcpCreateKey = `create a key with "gcloud iam service-accounts keys create key.json --iam-account=ADDRESS" and paste that file`

// gcpOtherTypes says what to do with documents of Google's that are no key of a
// service account.
var gcpOtherTypes = map[string]string{
	"authorized_user":                  "is a person's own login, made by gcloud: " + gcpCreateKey,
	"external_account":                 "is a federation without a key: store it as a credential of kind gcpExternalAccount",
	"external_account_authorized_user": "is a person's own login through a workforce pool: " + gcpCreateKey,
	"impersonated_service_account":     "is a login of gcloud that acts as a service account: store a key of the account that may act as it, and name it in impersonate",
	"gdch_service_account":             "is a key for Google Distributed Cloud, which has other addresses and is not supported",
}

// gcpIsKeyFile reports a document that is something else than a service
// account's key, and says whether to look into it.
func gcpIsKeyFile(o gcpObject, r *report) bool {
	kind, _ := o.str("type")
	switch {
	case kind == "service_account":
		return true
	case gcpOtherTypes[kind] != "":
		r.add("document", "must be "+gcpWantKeyFile+"; it "+gcpOtherTypes[kind])
		return false
	case o.has("installed") || o.has("web"):
		r.add("document", "must be "+gcpWantKeyFile+"; it is the secret of an OAuth client, for programs that ask a person to log in: "+gcpCreateKey)
		return false
	case o.has("private_key"):
		gcpCheckField(o, "type", `"service_account"`, r, gcpIsNot("service_account", "is something else"))
		return true
	}
	r.add("document", "must be "+gcpWantKeyFile+"; it is another JSON document")
	return false
}

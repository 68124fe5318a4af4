package credential

import (
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// gcpApiKey is a key that names a project of Google Cloud, and no identity.
var gcpApiKey = behaviour[*credentialv1.GcpApiKey]{
	check: func(m *credentialv1.GcpApiKey, r *report) {
		m.ApiKey = trimPasted(strings.Trim(trimPasted(m.GetApiKey()), "\"'"))
		r.check("apiKey", m.GetApiKey(), "a Google Cloud API key: AIza and 35 letters, digits, - or _", isEmpty, gcpIsNoAPIKey)
	},
}

// gcpIsNoAPIKey finds what is no API key, and says what else it is.
func gcpIsNoAPIKey(value string) string {
	switch {
	case gcpAPIKey.MatchString(value):
		return ""
	case strings.HasPrefix(value, "{"):
		return "is a JSON document: a service account's is a credential of kind gcpServiceAccount"
	case strings.HasPrefix(value, "ya29."):
		return "is an OAuth access token, which ends within hours"
	case strings.HasPrefix(value, "GOCSPX-"):
		return "is the secret of an OAuth client"
	case strings.HasPrefix(value, "AQ."):
		return "is a key of another form, which is bound to a service account: store it as a credential of kind apiToken"
	case !strings.HasPrefix(value, "AIza"):
		return "does not begin with AIza"
	case len(value) < 39:
		return "is shorter"
	case len(value) > 39:
		return "is longer"
	}
	return "holds another character"
}

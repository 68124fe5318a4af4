package credential

import (
	"net/url"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// webhook is a URL that is a secret. Of it only the host is public, and whose
// that is.
var webhook = behaviour[*credentialv1.Webhook]{
	check: checkWebhook,
	facts: func(m *credentialv1.Webhook) map[string]string {
		u, problem := serviceURL(m.GetUrl())
		if problem != "" {
			return nil
		}
		facts := map[string]string{"host": u.Host}
		if service := webhookService(u); service.name != "" {
			facts["service"] = service.name
		}
		return facts
	},
}

const wantWebhook = "an https URL of at most 8,192 visible ASCII characters, without user name and fragment"

func checkWebhook(m *credentialv1.Webhook, r *report) {
	m.Url = strings.Trim(trimPasted(m.GetUrl()), "<>\"'`")
	u, problem := serviceURL(m.GetUrl())
	if problem == "" {
		m.Url = u.String()
		problem = longerThan(8192)(m.GetUrl())
	}
	if problem != "" {
		r.add("url", "must be "+wantWebhook+"; it "+problem)
	} else {
		checkWebhookService(u, r)
	}
	m.Secret = strings.TrimRight(m.GetSecret(), "\r\n")
	r.check("secret", m.GetSecret(), "at most 65,536 bytes without NUL", longerThan(65536), holds("\x00", "a NUL"))
}

// checkWebhookService reports a URL that the service of its host never made.
func checkWebhookService(u *url.URL, r *report) {
	service := webhookService(u)
	if service.parts == 0 {
		return
	}
	parts := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	short := len(parts) < service.parts
	for i := range min(len(parts), service.parts) {
		short = short || parts[i] == ""
	}
	switch {
	case short:
		r.add("url", "must be the whole URL, as "+service.example+"; a part of it is missing")
	case strings.Contains(u.Path, "XXXXXXXX"):
		r.add("url", "must be the URL of a webhook; it is the example of the documentation")
	}
}

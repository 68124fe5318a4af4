package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// conjur is a login to CyberArk Conjur by API key.
var conjur = behaviour[*credentialv1.Conjur]{
	check: func(m *credentialv1.Conjur, r *report) {
		var problem string
		if m.Url, problem = conjurURL(m.GetUrl()); problem != "" {
			r.add("url", `must be the appliance's URL of at most 2,048 characters, as "https://conjur.example.com"; it `+problem)
		}
		m.Account = trimPasted(m.GetAccount())
		r.check("account", m.GetAccount(), `1 to 255 visible ASCII characters without "/" and ":"`,
			isEmpty, longerThan(255), holdsInvisible, holds("/:", `a "/" or ":"`))
		m.Login = trimPasted(m.GetLogin())
		r.check("login", m.GetLogin(), `1 to 1,024 characters without control characters, as "admin" or "host/team/app"`,
			isEmpty, moreCharactersThan(1024), holdsControl)
		m.ApiKey = trimPasted(m.GetApiKey())
		r.check("apiKey", m.GetApiKey(), "1 to 4,096 visible ASCII characters without space", isEmpty, longerThan(4096), holdsInvisible)
		m.CaPem = checkCertAuthorities("caPem", m.GetCaPem(), r)
	},
	facts: func(m *credentialv1.Conjur) map[string]string {
		return map[string]string{"url": m.GetUrl(), "account": m.GetAccount(), "login": m.GetLogin()}
	},
}

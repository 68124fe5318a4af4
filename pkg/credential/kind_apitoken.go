package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// apiToken is one bearer string. It has no facts: a hash of it, shown to all who
// may read metadata, would let them test guesses in private, and nothing says
// that a token was not chosen by a person.
var apiToken = behaviour[*credentialv1.ApiToken]{
	check: func(m *credentialv1.ApiToken, r *report) {
		m.Token = trimPasted(m.GetToken())
		r.check("token", m.GetToken(), "1 to 65,536 visible ASCII characters without space",
			isEmpty, longerThan(65536), holdsInvisible)
	},
}

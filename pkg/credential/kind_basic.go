package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// basic is a user name with its password.
var basic = behaviour[*credentialv1.Basic]{
	check: func(m *credentialv1.Basic, r *report) {
		r.check("username", m.GetUsername(), "1 to 1,024 characters without control characters and colons",
			isEmpty, moreCharactersThan(1024), holdsControl, holds(":", "a colon"))
		r.check("password", m.GetPassword(), "1 to 65,536 bytes without NUL",
			isEmpty, longerThan(65536), holds("\x00", "a NUL"))
	},
	facts: func(m *credentialv1.Basic) map[string]string {
		return map[string]string{"username": m.GetUsername()}
	},
}

package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// sshKey is an SSH private key. It stays encrypted when it is, with its pass
// phrase beside it.
var sshKey = behaviour[*credentialv1.SshKey]{
	check: func(m *credentialv1.SshKey, r *report) {
		k, problem, wrong := sshRead(m.GetPem(), m.GetPassphrase())
		switch {
		case problem != "":
			r.add("pem", "must be a private key of RSA, ECDSA or Ed25519 in OpenSSH's or in PEM form; it "+problem)
		case wrong != "":
			r.add("passphrase", "must be what the key is encrypted with; "+wrong)
		default:
			m.Pem = k.block.encode()
		}
		r.check("username", m.GetUsername(), "at most 1,024 characters without control characters and without white space around them",
			moreCharactersThan(1024), pemHasMargin, holdsControl)
	},
	facts: func(m *credentialv1.SshKey) map[string]string {
		facts, err := sshFacts(m.GetPem(), m.GetPassphrase())
		if err != nil {
			facts = map[string]string{} // stored under other rules
		}
		if m.GetUsername() != "" {
			facts["username"] = m.GetUsername()
		}
		return facts
	},
}

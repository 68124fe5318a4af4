package credential

import (
	"fmt"
	"strings"
)

// Login is one version of a stored credential with the one that it refers to, as
// the code of a vendor gets it to verify it and to mint from it. Printing it
// shows no secret, since the payloads redact themselves.
type Login struct {
	// Name is the credential's full name, for what vendors keep in their own
	// records, as the name of a session.
	Name string
	// ID is permanent and changes with the payload: what was derived from the
	// login may be kept under it. It is empty for a payload that is not stored.
	ID      string
	Payload Payload
	// Source is the credential that the payload refers to, as the source of an
	// assumed role; nil when it refers to none.
	Source *Login
}

// ShortName returns the last part of the name.
func (l Login) ShortName() string { return l.Name[strings.LastIndexByte(l.Name, '/')+1:] }

// Project returns the name up to the credential's own part, as
// "projects/default".
func (l Login) Project() string {
	project, _, _ := strings.Cut(l.Name, "/credentials/")
	return project
}

// Key returns the ids of the login and of all that it refers to.
func (l Login) Key() string {
	if l.Source == nil {
		return l.ID
	}
	return l.ID + " " + l.Source.Key()
}

// String returns the name and the kind.
func (l Login) String() string { return fmt.Sprintf("%s (%s)", l.Name, l.Payload.Kind()) }

// Identity is what a vendor says of a login that it accepts. It holds no secret.
type Identity struct {
	// Name is whose it is, as an ARN, an e-mail address or a user name; empty
	// when the vendor does not say.
	Name string
	// Facts is what else the vendor tells, by names in JSON spelling, as account.
	Facts map[string]string
	// Checks is what was checked one by one; a check that failed means that the
	// credential does not do what it is for.
	Checks []Check
}

// Check is one thing that was asked of a vendor.
type Check struct {
	// Name is what was asked, as "create clusterroles.rbac.authorization.k8s.io".
	Name   string
	Passed bool
	// Message says why it did not pass.
	Message string
}

package resourcename

import "strconv"

// Collections whose resources have usages, or cause them.
const (
	Credentials  = "credentials"
	SecretStores = "secretStores"
	Injections   = "injections"
)

// The forms of names, as errors and documentation show them.
const (
	projectForm     = "projects/{project}"
	credentialForm  = "projects/{project}/credentials/{credential}"
	versionForm     = "projects/{project}/credentials/{credential}/versions/{version}"
	secretStoreForm = "projects/{project}/secretStores/{secret_store}"
	injectionForm   = "projects/{project}/injections/{injection}"
	tokenForm       = "projects/{project}/tokens/{token}"
	usageForm       = "projects/{project}/{credentials|secretStores}/{resource}/usages/{usage}"
)

// Project is the name of a project: projects/{ID}.
type Project struct {
	ID string
}

// ParseProject reads the form that String prints. Its error is an *[Error].
func ParseProject(name string) (Project, error) {
	c := cursor{rest: name}
	p := Project{ID: c.id("projects")}
	if !c.end() {
		return Project{}, newError(name, "a project", projectForm)
	}
	return p, nil
}

// String returns the full name.
func (p Project) String() string { return "projects/" + p.ID }

// Credential is the name of a credential:
// projects/{Project}/credentials/{ID}.
type Credential struct {
	Project, ID string
}

// ParseCredential reads the form that String prints. Its error is an *[Error].
func ParseCredential(name string) (Credential, error) {
	c := cursor{rest: name}
	n := Credential{Project: c.id("projects"), ID: c.id("credentials")}
	if !c.end() {
		return Credential{}, newError(name, "a credential", credentialForm)
	}
	return n, nil
}

// String returns the full name.
func (n Credential) String() string {
	return "projects/" + n.Project + "/credentials/" + n.ID
}

// Parent returns the name of the project that holds it.
func (n Credential) Parent() Project { return Project{ID: n.Project} }

// Version returns the name of one of its versions; number counts from 1.
func (n Credential) Version(number uint32) Version {
	return Version{Project: n.Project, Credential: n.ID, Number: number}
}

// Version is the name of a credential's version:
// projects/{Project}/credentials/{Credential}/versions/{Number}.
type Version struct {
	Project, Credential string
	// Number is 1 or more.
	Number uint32
}

// ParseVersion reads the form that String prints: the number is decimal, 1 to
// 4,294,967,295, without sign or leading zeros. Its error is an *[Error].
func ParseVersion(name string) (Version, error) {
	c := cursor{rest: name}
	n := Version{Project: c.id("projects"), Credential: c.id("credentials"), Number: c.number("versions")}
	if !c.end() {
		return Version{}, newError(name, "a version of a credential", versionForm)
	}
	return n, nil
}

// String returns the full name.
func (n Version) String() string {
	return "projects/" + n.Project + "/credentials/" + n.Credential +
		"/versions/" + strconv.FormatUint(uint64(n.Number), 10)
}

// Parent returns the name of the credential that it is a version of.
func (n Version) Parent() Credential {
	return Credential{Project: n.Project, ID: n.Credential}
}

// SecretStore is the name of a secret store:
// projects/{Project}/secretStores/{ID}.
type SecretStore struct {
	Project, ID string
}

// ParseSecretStore reads the form that String prints. Its error is an *[Error].
func ParseSecretStore(name string) (SecretStore, error) {
	c := cursor{rest: name}
	n := SecretStore{Project: c.id("projects"), ID: c.id("secretStores")}
	if !c.end() {
		return SecretStore{}, newError(name, "a secret store", secretStoreForm)
	}
	return n, nil
}

// String returns the full name.
func (n SecretStore) String() string {
	return "projects/" + n.Project + "/secretStores/" + n.ID
}

// Parent returns the name of the project that holds it.
func (n SecretStore) Parent() Project { return Project{ID: n.Project} }

// Injection is the name of an injection: projects/{Project}/injections/{ID}.
type Injection struct {
	Project, ID string
}

// ParseInjection reads the form that String prints. Its error is an *[Error].
func ParseInjection(name string) (Injection, error) {
	c := cursor{rest: name}
	n := Injection{Project: c.id("projects"), ID: c.id("injections")}
	if !c.end() {
		return Injection{}, newError(name, "an injection", injectionForm)
	}
	return n, nil
}

// String returns the full name.
func (n Injection) String() string {
	return "projects/" + n.Project + "/injections/" + n.ID
}

// Parent returns the name of the project that holds it.
func (n Injection) Parent() Project { return Project{ID: n.Project} }

// Token is the name of an API token: projects/{Project}/tokens/{ID}. It is
// public; what a caller presents is the token's secret.
type Token struct {
	Project, ID string
}

// ParseToken reads the form that String prints. Its error is an *[Error].
func ParseToken(name string) (Token, error) {
	c := cursor{rest: name}
	n := Token{Project: c.id("projects"), ID: c.id("tokens")}
	if !c.end() {
		return Token{}, newError(name, "a token", tokenForm)
	}
	return n, nil
}

// String returns the full name.
func (n Token) String() string {
	return "projects/" + n.Project + "/tokens/" + n.ID
}

// Parent returns the name of the project that holds it.
func (n Token) Parent() Project { return Project{ID: n.Project} }

// Usage is the name of a usage:
// projects/{Project}/{Collection}/{Resource}/usages/{ID}.
type Usage struct {
	Project string
	// Collection is [Credentials] or [SecretStores].
	Collection string
	// Resource is the id of the credential or secret store that is used.
	Resource string
	// ID is that of a declared usage or, for a derived one, says what causes it:
	// "secretStores.{id}" or "injections.{id}".
	ID string
}

// ParseUsage reads the form that String prints. Its error is an *[Error].
func ParseUsage(name string) (Usage, error) {
	c := cursor{rest: name}
	n := Usage{Project: c.id("projects"), Collection: c.collection(Credentials, SecretStores)}
	n.Resource = c.id(n.Collection)
	n.ID = c.usageID()
	if !c.end() {
		return Usage{}, newError(name, "a usage", usageForm)
	}
	return n, nil
}

// String returns the full name.
func (n Usage) String() string { return n.Parent() + "/usages/" + n.ID }

// Parent returns the full name of the credential or secret store that is used.
func (n Usage) Parent() string {
	return "projects/" + n.Project + "/" + n.Collection + "/" + n.Resource
}

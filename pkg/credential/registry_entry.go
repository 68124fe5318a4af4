package credential

import (
	"encoding/json"
	"strings"
)

// registryEntry is one login of a document.
type registryEntry struct {
	host, problem                string // the registry; what is wrong with it
	username, password, identity string
	// at is where the entry stands in the document, names where its fields do
	// below that, by the fields of the message.
	at         string
	names      map[string]string
	violations []Violation
}

func (e *registryEntry) path(field string) string { return e.at + e.names[field] }

func (e *registryEntry) add(below, description string) {
	e.violations = append(e.violations, Violation{Field: e.at + below, Description: description})
}

// readHelper reads what a credential helper prints.
func readHelper(at string, object registryObject) registryEntry {
	e := registryEntry{at: at, names: map[string]string{"username": ".Username", "password": ".Secret", "identityToken": ".Secret"}}
	e.host, e.problem = registryHost(e.member(object, "ServerURL"))
	e.username, e.password = e.member(object, "Username"), e.member(object, "Secret")
	// The protocol of the helpers: this name says that the secret is a token.
	if e.username == "<token>" {
		e.username, e.password, e.identity = "", "", e.password
	}
	return e
}

// member returns a string of the entry.
func (e *registryEntry) member(object registryObject, key string) string {
	value, problem := object.text(key)
	if problem != "" {
		e.add("."+key, problem)
	}
	return value
}

// read reads the login itself.
func (e *registryEntry) read(value json.RawMessage) {
	object, problem := readRegistryObject(value)
	if problem != "" {
		e.add("", "must be an object; it "+problem)
		return
	}
	e.names = map[string]string{"username": ".username", "password": ".password", "identityToken": ".identitytoken"}
	e.username, e.password = e.member(object, "username"), e.member(object, "password")
	e.identity = trimPasted(e.member(object, "identitytoken"))
	if auth := trimPasted(e.member(object, "auth")); auth != "" {
		e.readAuth(auth)
	}
	if e.identity != "" {
		e.password = "" // docker uses the token
	}
	if e.member(object, "registrytoken") != "" && e.identity == "" && e.password == "" {
		e.add(".registrytoken", "is a bearer token of a few minutes, which cannot be stored as a login: log in by password or identitytoken")
	}
}

// readAuth reads the base64 of "user:password".
func (e *registryEntry) readAuth(auth string) {
	const want = `must be the base64 of "username:password"; it `
	decoded, ok := decodePaste(auth)
	if !ok {
		e.add(".auth", want+"is no base64 of UTF-8 text")
		return
	}
	username, password, found := strings.Cut(decoded, ":")
	if !found {
		e.add(".auth", want+"holds no colon")
		return
	}
	// Old versions of docker padded it.
	password = strings.Trim(password, "\x00")
	if (e.username != "" && e.username != username) || (e.password != "" && e.password != password) {
		e.add(".auth", want+"holds another login than username and password beside it")
		return
	}
	e.username, e.password = username, password
	e.names["username"], e.names["password"] = ".auth", ".auth"
}

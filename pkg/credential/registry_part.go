package credential

import (
	"encoding/json"
	"regexp"
	"strings"
)

// What people copy out of the middle of a docker configuration.
var (
	// registryLoose finds a member of an object, without the braces around it, whose
	// value is an object.
	registryLoose = regexp.MustCompile(`^"[^"\n]{1,1000}"\s*:\s*\{`)
	// registryAuth finds what is in the base64 of "auth". Neither JSON, YAML nor a
	// command has this form; an address does.
	registryAuth = regexp.MustCompile(`^[^\s:{}"']{1,1000}:[^\r\n]*$`)
)

// readMembers reads members of an object that were copied without the braces
// around them, and says whether the text is such.
func (d *registryDocument) readMembers(at, text, server string) bool {
	if !strings.HasPrefix(text, `"`) {
		return false
	}
	object := "{" + strings.TrimSuffix(text, ",") + "}"
	if !json.Valid([]byte(object)) {
		return false
	}
	d.readJSON(at, []byte(object), server)
	return true
}

// readAuth reads what stood as "auth" in a login, decoded, and says whether the
// text is such.
func (d *registryDocument) readAuth(at, decoded, server string) bool {
	username, password, _ := strings.Cut(decoded, ":")
	if !registryAuth.MatchString(decoded) || yamlKey.MatchString(decoded) || strings.HasPrefix(password, "//") {
		return false
	}
	if server == "" {
		d.add("server", "must be "+wantServer+"; it is empty, and the document does not name it either")
	}
	d.entries = append(d.entries, registryEntry{
		host: server, at: at, username: username, password: strings.Trim(password, "\x00"), names: map[string]string{},
	})
	return true
}

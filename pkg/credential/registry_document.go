package credential

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

const wantRegistryDocument = `a ~/.docker/config.json, a Kubernetes dockerconfigjson, dockercfg or Secret that holds one, any of these in base64, or a "docker login" command`

// registryDocument collects the logins of a document.
type registryDocument struct {
	r       *report
	entries []registryEntry
	// failed says that something was reported, so that nothing is taken over.
	failed bool
}

func (d *registryDocument) add(field, description string) {
	d.failed = true
	d.r.add(field, description)
}

// readRegistryDocument reads what was pasted into the other fields. Everything
// that is wrong is reported.
func readRegistryDocument(m *credentialv1.DockerRegistry, r *report) {
	d := &registryDocument{r: r}
	for _, other := range []struct{ field, value string }{
		{"username", m.GetUsername()}, {"password", m.GetPassword()}, {"identityToken", m.GetIdentityToken()},
	} {
		if other.value != "" {
			d.add(other.field, "must be empty beside document, which says it")
		}
	}
	server := ""
	if trimPasted(m.GetServer()) != "" {
		before := len(r.violations)
		server = checkServer(m.GetServer(), r)
		d.failed = d.failed || len(r.violations) > before
	}
	d.read("document", m.GetDocument(), server)
	e, ok := d.choose(server)
	if !ok {
		return
	}
	login := &credentialv1.DockerRegistry{Server: e.host, Username: e.username, Password: e.password, IdentityToken: e.identity}
	checkRegistryAccount(login, r, e.path)
	if !d.failed {
		m.Server, m.Username, m.Password, m.IdentityToken, m.Document = e.host, e.username, e.password, e.identity, ""
	}
}

// read takes one layer after the other off a paste until it comes to logins.
func (d *registryDocument) read(at, text, server string) {
	// A Secret's data in base64, itself in base64, in quotes.
	const layers = 4
	for range layers {
		text = unquotePaste(trimPasted(text))
		if strings.HasPrefix(text, `{\`) { // out of the source of a program
			text = unquotePaste(`"` + text + `"`)
		}
		switch {
		case text == "":
			d.add(at, "must be "+wantRegistryDocument+"; it is empty")
			return
		case strings.HasPrefix(text, "{"):
			d.readJSON(at, []byte(text), server)
			return
		case d.readMembers(at, text, server), d.readCommand(at, text):
			return
		}
		decoded, ok := decodePaste(text)
		if !ok {
			break
		}
		if d.readAuth(at, decoded, server) {
			return
		}
		text = decoded
	}
	switch {
	case yamlKey.MatchString(text):
		d.readYAML(at, text, server)
	case registryLoose.MatchString(text):
		d.add(at, "must be "+wantRegistryDocument+"; it begins as a login in a config.json and is no valid JSON: "+
			"copy it again, from the registry's name to the brace that closes the login")
	default:
		d.add(at, "must be "+wantRegistryDocument+"; it is none of these")
	}
}

// unquotePaste takes the quotes off that a shell or another program put around
// a value.
func unquotePaste(text string) string {
	if len(text) < 2 || text[0] != text[len(text)-1] {
		return text
	}
	switch text[0] {
	case '\'', '`':
		return trimPasted(text[1 : len(text)-1])
	case '"':
		var inner string
		if err := json.Unmarshal([]byte(text), &inner); err == nil {
			return trimPasted(inner)
		}
	}
	return text
}

// decodePaste decodes base64 of text, whatever its lines, alphabet and padding.
func decodePaste(text string) (string, bool) {
	compact := strings.TrimRight(strings.Join(strings.Fields(text), ""), "=")
	compact = strings.NewReplacer("-", "+", "_", "/").Replace(compact)
	decoded, err := base64.RawStdEncoding.DecodeString(compact)
	if err != nil || len(decoded) == 0 || !utf8.Valid(decoded) {
		return "", false
	}
	return string(decoded), true
}

var (
	yamlKey = regexp.MustCompile(`(?m)^(---\s*$|"?(apiVersion|kind|data|stringData|metadata|type|auths)"?\s*:)`)
	// laterDocument finds the mark between two documents.
	laterDocument = regexp.MustCompile(`(?m)^---`)
	// yamlAlias finds what could be an alias, which may expand a small document
	// into a large one. Some plain strings are found as well.
	yamlAlias = regexp.MustCompile(`(?m)(^|[\s,\[{:-])\*`)
)

// readYAML reads a manifest as kubectl prints it.
func (d *registryDocument) readYAML(at, text, server string) {
	if laterDocument.MatchString(strings.TrimPrefix(text, "---")) {
		d.add(at, "must be "+wantRegistryDocument+"; it is YAML of more than one document")
		return
	}
	if yamlAlias.MatchString(text) {
		d.add(at, "must be "+wantRegistryDocument+"; it is YAML with an alias, which is not read here")
		return
	}
	converted, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		d.add(at, "must be "+wantRegistryDocument+"; it is no valid YAML")
		return
	}
	d.readJSON(at, converted, server)
}

// readJSON tells the shapes of documents apart.
func (d *registryDocument) readJSON(at string, text []byte, server string) {
	object, problem := readRegistryObject(text)
	if problem != "" {
		d.add(at, "must be "+wantRegistryDocument+"; it "+problem)
		return
	}
	has := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(key string) bool { _, found := object.find(key); return found })
	}
	switch {
	case has("kind", "apiVersion", "data", "stringData"):
		d.readSecret(at, object)
	case has("auths", "credsStore", "credHelpers"):
		d.readConfig(at, object)
	case has("ServerURL") && has("Secret"):
		d.entries = append(d.entries, readHelper(at, object))
	case has("auth", "username", "password", "identitytoken"):
		d.readBare(at, text, server)
	case len(object) == 0:
		d.add(at, "must be "+wantRegistryDocument+"; it is an empty object")
	default:
		d.readEntries(at, object)
	}
}

// readSecret reads a Kubernetes Secret.
func (d *registryDocument) readSecret(at string, object registryObject) {
	if kind, _ := object.text("kind"); kind != "Secret" && kind != "" {
		d.add(at+".kind", `must be "Secret"; it is another`)
		return
	}
	for _, part := range []string{"stringData", "data"} {
		raw, found := object.find(part)
		if !found || string(raw) == "null" {
			continue
		}
		entries, problem := readRegistryObject(raw)
		if problem != "" {
			d.add(at+"."+part, "must be an object; it "+problem)
			return
		}
		for _, key := range []string{".dockerconfigjson", ".dockercfg"} {
			if _, found := entries.find(key); found {
				d.readSecretKey(at+"."+part+"["+key+"]", entries, key, part == "data")
				return
			}
		}
	}
	d.add(at, `must be a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg; it has neither ".dockerconfigjson" nor ".dockercfg"`)
}

// readSecretKey reads the docker configuration in a Secret.
func (d *registryDocument) readSecretKey(at string, entries registryObject, key string, encoded bool) {
	text, problem := entries.text(key)
	if problem != "" {
		d.add(at, problem)
		return
	}
	if encoded {
		decoded, ok := decodePaste(text)
		if !ok {
			d.add(at, "must be base64; it is not")
			return
		}
		text = decoded
	}
	const want = "must be the JSON of a docker configuration; it "
	object, problem := readRegistryObject([]byte(trimPasted(text)))
	if problem != "" {
		d.add(at, want+problem)
		return
	}
	if _, found := object.find("auths"); found {
		d.readConfig(at, object)
		return
	}
	d.readEntries(at, object)
}

// readConfig reads a docker configuration.
func (d *registryDocument) readConfig(at string, object registryObject) {
	raw, found := object.find("auths")
	var auths registryObject
	if found && string(raw) != "null" {
		var problem string
		if auths, problem = readRegistryObject(raw); problem != "" {
			d.add(at+".auths", "must be an object with a registry's host as each key; it "+problem)
			return
		}
	}
	filled := slices.DeleteFunc(auths, func(m registryMember) bool { return emptyEntry(m.value) })
	if len(filled) > 0 {
		d.readEntries(at+".auths", filled)
		return
	}
	for _, elsewhere := range []string{"credsStore", "credHelpers"} {
		if _, found := object.find(elsewhere); found {
			d.add(at+"."+elsewhere, "names a program that keeps the logins outside of this file, so that there is none in it: "+
				"set server, username and password, or paste what the program prints (docker-credential-NAME get)")
			return
		}
	}
	d.add(at+".auths", "must hold the login of a registry; it holds none")
}

func emptyEntry(value json.RawMessage) bool {
	inner, object := strings.CutPrefix(string(value), "{")
	return string(value) == "null" || object && strings.TrimSpace(inner) == "}"
}

// readEntries reads logins by registry.
func (d *registryDocument) readEntries(at string, entries registryObject) {
	isObject := func(m registryMember) bool { return m.value[0] == '{' }
	if !strings.HasSuffix(at, ".auths") && !slices.ContainsFunc(entries, isObject) {
		d.add(at, "must be "+wantRegistryDocument+"; it is another JSON object")
		return
	}
	for _, m := range entries {
		host, problem := registryHost(m.key)
		if host == "docker.io" && (strings.HasSuffix(m.key, "/access-token") || strings.HasSuffix(m.key, "/refresh-token")) {
			continue // Docker Desktop's own, which no registry accepts
		}
		e := registryEntry{host: host, problem: problem, at: at}
		if host != "" {
			e.at += "[" + host + "]"
		}
		e.read(m.value)
		d.entries = append(d.entries, e)
	}
}

// readBare reads one login without the name of its registry.
func (d *registryDocument) readBare(at string, text []byte, server string) {
	if server == "" {
		d.add("server", "must be "+wantServer+"; it is empty, and the document does not name it either")
	}
	e := registryEntry{host: server, at: at}
	e.read(text)
	d.entries = append(d.entries, e)
}

// choose returns the login for a server, or the only one, when nothing is wrong
// with the entry itself.
func (d *registryDocument) choose(server string) (registryEntry, bool) {
	var hosts []string
	var matching []registryEntry
	for _, e := range d.entries {
		if server == "" || e.host == server {
			matching = append(matching, e)
		}
		if e.host != "" {
			hosts = append(hosts, e.host)
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	switch {
	case d.failed && len(hosts) > 1:
		return registryEntry{}, false // which one is meant is not known
	case d.failed:
		matching = d.entries
	case len(matching) == 0:
		d.add("server", "must be a registry that the document has a login for: "+registryHosts(hosts)+"; it is another")
		return registryEntry{}, false
	case server == "" && len(hosts) > 1:
		d.add("server", "must say which of the document's registries is meant: "+registryHosts(hosts))
		return registryEntry{}, false
	}
	const most = 20 // that are wrong are told; a person reads no more
	wrong := 0
	for _, e := range matching {
		if wrong < most && !d.report(e) {
			wrong++
		}
	}
	if wrong > 0 || len(matching) == 0 {
		return registryEntry{}, false
	}
	first := matching[0]
	for _, e := range matching[1:] {
		if e.username != first.username || e.password != first.password || e.identity != first.identity {
			d.add(first.at, "must be one login; the document has several different ones for this registry")
			return registryEntry{}, false
		}
	}
	return first, true
}

// report adds what is wrong with an entry, and says whether its fields could be
// read.
func (d *registryDocument) report(e registryEntry) bool {
	switch {
	case e.problem == "":
	case strings.HasSuffix(e.at, ".auths"):
		d.add(e.at, "must have a registry's host as each key; one of them "+e.problem)
	default:
		d.add(e.at, "must be of "+wantServer+"; it "+e.problem)
	}
	for _, v := range e.violations {
		d.add(v.Field, v.Description)
	}
	return len(e.violations) == 0
}

// registryHosts lists hosts for people.
func registryHosts(hosts []string) string {
	const most = 20
	if len(hosts) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(hosts[:most], ", "), len(hosts)-most)
	}
	return strings.Join(hosts, ", ")
}

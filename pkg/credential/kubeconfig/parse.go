package kubeconfig

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxName bounds names, in characters: they are shown among the facts of a
	// credential.
	maxName = 512
	// maxListed is how many names a problem lists.
	maxListed = 20
	maxURL    = 2048
)

// flatten is the command that makes a document that needs no other file.
const flatten = "`kubectl config view --raw --flatten --minify`"

// Parse reads the login of one context. An empty context means the document's
// current-context, or its only one when it names none. Every problem that the
// context's entries have is returned, and no login with it; entries of other
// contexts are not judged. Whether something has ended is not looked at.
func Parse(document, context string) (*Login, []Problem) {
	r := &reader{}
	l := &Login{}
	if top := r.parse(document); top != nil && r.isConfig(top) {
		r.login(top, context, l)
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return l, nil
}

// isConfig reports another kind of document, whose fields mean nothing here.
func (r *reader) isConfig(top *yaml.Node) bool {
	kind, version := r.text(top, "", "kind"), r.text(top, "", "apiVersion")
	switch {
	case kind == "Secret":
		r.add("kind", `must be "Config"; this is a Secret of a cluster: paste what its data holds`)
	case kind != "" && kind != "Config":
		r.add("kind", `must be "Config"; this is another kind of document`)
	case kind == "" && r.child(top, "", "clusters") == nil && r.child(top, "", "contexts") == nil:
		r.add("", "must be a kubeconfig file, with clusters, contexts and users; it has neither clusters nor contexts")
	default:
		if version != "" && version != "v1" {
			r.add("apiVersion", `must be "v1"; it is another version`)
		}
		return true
	}
	return false
}

// entry is one element of the lists of contexts, clusters or users.
type entry struct {
	// field is the element's path, as "users[0]", and inner the path of what it
	// is about, as "users[0].user".
	field, inner string
	body         *yaml.Node
}

func (r *reader) login(top *yaml.Node, context string, l *Login) {
	l.Context = r.choose(top, context)
	if l.Context == "" {
		return
	}
	e, ok := r.find(top, "contexts", "context", l.Context)
	if !ok {
		return
	}
	l.Cluster, l.User = r.name(e, "cluster"), r.name(e, "user")
	l.Namespace = r.text(e.body, e.inner, "namespace")
	if l.Namespace != "" && !isLabel(l.Namespace) {
		r.add(join(e.inner, "namespace"), "must be at most 63 lower-case letters, digits and hyphens, as the name of a namespace; it is not")
	}
	if c, ok := r.referred(top, e, "clusters", "cluster", l.Cluster); ok {
		r.cluster(c, l)
	}
	if u, ok := r.referred(top, e, "users", "user", l.User); ok {
		r.user(u, l)
	}
}

// choose returns the name of the context to use, "" after a problem.
func (r *reader) choose(top *yaml.Node, context string) string {
	before := len(r.problems)
	names, current := r.names(top, "contexts"), r.text(top, "", "current-context")
	if len(r.problems) > before {
		return ""
	}
	why := ""
	switch {
	case len(names) == 0:
		r.add("contexts", "must name a cluster with a user; there is no context")
		return ""
	case context != "":
	case current != "":
		context, why = current, ", since its current-context is none of them"
	case len(names) == 1:
		context = names[0]
	default:
		why = ", since its current-context is empty"
	}
	if !slices.Contains(names, context) {
		r.addAt(Problem{Field: "context", Text: "must name one of the document's contexts" + why + ": " + listed(names)})
		return ""
	}
	return r.shown("contexts", context)
}

// shown returns a name that can be shown, "" after a problem.
func (r *reader) shown(field, name string) string {
	if utf8.RuneCountInString(name) <= maxName && !strings.ContainsFunc(name, unicode.IsControl) && strings.TrimSpace(name) == name {
		return name
	}
	r.add(field, fmt.Sprintf("must have names of at most %d characters without control characters and without white space around them; "+
		"the one that is used is another", maxName))
	return ""
}

// names lists the names in a list of entries, those that are text.
func (r *reader) names(top *yaml.Node, list string) []string {
	var names []string
	for i, n := range r.list(top, "", list) {
		field := list + "[" + strconv.Itoa(i) + "]"
		n = r.follow(n)
		if n == nil || n.Kind != yaml.MappingNode || !r.step() {
			continue
		}
		if name := r.child(n, field, "name"); name != nil && name.Kind == yaml.ScalarNode && name.Value != "" {
			names = append(names, name.Value)
		}
	}
	return names
}

// listed names what there is, for a sentence.
func listed(names []string) string {
	const longest = 100
	if len(names) == 0 {
		return "there are none"
	}
	var out []string
	for _, name := range names[:min(len(names), maxListed)] {
		if runes := []rune(name); len(runes) > longest {
			name = string(runes[:longest]) + "…"
		}
		out = append(out, strconv.Quote(name))
	}
	text := strings.Join(out, ", ")
	if more := len(names) - maxListed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// find returns the entry of a name; false after a problem.
func (r *reader) find(top *yaml.Node, list, key, name string) (entry, bool) {
	var found entry
	for i, n := range r.list(top, "", list) {
		field := list + "[" + strconv.Itoa(i) + "]"
		n = r.follow(n)
		if n == nil || n.Kind != yaml.MappingNode || !r.step() {
			continue
		}
		if have := r.child(n, field, "name"); have == nil || have.Kind != yaml.ScalarNode || have.Value != name {
			continue
		}
		if found.field != "" {
			r.add(join(field, "name"), "must be unique in its list; "+found.field+" has the same name")
			return entry{}, false
		}
		// Text, and none that only looks like the name that is asked for.
		before := len(r.problems)
		_ = r.text(n, field, "name")
		body := r.mapping(n, field, key)
		if len(r.problems) > before {
			return entry{}, false
		}
		if body == nil {
			body = &yaml.Node{Kind: yaml.MappingNode}
		}
		found = entry{field: field, inner: join(field, key), body: body}
	}
	return found, found.field != ""
}

// name returns the name that a context gives of another entry.
func (r *reader) name(e entry, key string) string {
	before := len(r.problems)
	name := r.text(e.body, e.inner, key)
	if name == "" && len(r.problems) == before {
		r.add(join(e.inner, key), "must be the name of a "+key+"; it is empty")
	}
	return r.shown(join(e.inner, key), name)
}

// referred returns the entry that a context names.
func (r *reader) referred(top *yaml.Node, context entry, list, key, name string) (entry, bool) {
	if name == "" {
		return entry{}, false
	}
	before := len(r.problems)
	e, ok := r.find(top, list, key, name)
	if !ok && len(r.problems) == before {
		r.add(join(context.inner, key), "must be the name of one of the document's "+list+": "+listed(r.names(top, list)))
	}
	return e, ok
}

// cluster reads where the API server is and how it proves itself.
func (r *reader) cluster(e entry, l *Login) {
	field := func(key string) string { return join(e.inner, key) }
	r.misspelt(e.body, e.inner, "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name", "proxy-url")
	before := len(r.problems)
	l.Server = r.text(e.body, e.inner, "server")
	if problem := badServer(l.Server); problem != "" && len(r.problems) == before {
		r.add(field("server"), `must be the URL of the API server, as "https://cluster.example.com:6443"; it `+problem)
	}
	l.TLSServerName = r.text(e.body, e.inner, "tls-server-name")
	if len(l.TLSServerName) > 253 || strings.ContainsFunc(l.TLSServerName, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("/@?#", c) }) {
		r.add(field("tls-server-name"), "must be a host name of at most 253 characters; it is not")
	}
	if pem := r.data(e, "certificate-authority"); pem != "" {
		if _, problem := certificates(pem); problem != "" {
			r.add(field("certificate-authority-data"), "must be base64 of certificates in PEM form; "+problem)
		}
		l.CAPEM = pem
	}
	if r.truth(e.body, e.inner, "insecure-skip-tls-verify") {
		r.add(field("insecure-skip-tls-verify"),
			"must be false: the login would be sent to whoever answers at the server's address; give the cluster's certificate authority in certificate-authority-data")
	}
	if r.text(e.body, e.inner, "proxy-url") != "" {
		r.add(field("proxy-url"), "must be empty: connections to clusters are made by this server itself, under the rules of its configuration, and through no proxy")
	}
}

func badServer(server string) string {
	if server == "" {
		return "is empty"
	}
	if len(server) > maxURL {
		return "is longer than " + strconv.Itoa(maxURL) + " bytes"
	}
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return "is no URL"
	case strings.EqualFold(u.Scheme, "http"):
		return "has http in place of https, and would send the login in the clear"
	case !strings.EqualFold(u.Scheme, "https"):
		return "does not begin with https://"
	case u.User != nil:
		return "holds a user name"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(server, "#"):
		return "has a query or a fragment"
	case u.Hostname() == "" || strings.ContainsFunc(u.Host, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "names no host in ASCII characters"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "has a port that is none"
		}
	}
	for element := range strings.SplitSeq(u.Path, "/") {
		if element == "." || element == ".." {
			return "has an element . or .. in its path"
		}
	}
	return ""
}

// isLabel says whether a value is a DNS label (RFC 1123), as namespaces are
// named.
func isLabel(value string) bool {
	if len(value) > 63 || strings.Trim(value, "-") != value {
		return false
	}
	return !strings.ContainsFunc(value, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-'
	})
}

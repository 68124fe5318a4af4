package credential

import (
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// dockerRegistry is a login to a container registry, by password or by a refresh
// token of its token server.
var dockerRegistry = behaviour[*credentialv1.DockerRegistry]{
	check: checkDockerRegistry,
	facts: func(m *credentialv1.DockerRegistry) map[string]string {
		facts := map[string]string{"server": m.GetServer()}
		if m.GetUsername() != "" {
			facts["username"] = m.GetUsername()
		}
		return facts
	},
	mints:        []string{"registryLogin"},
	checkRequest: checkRegistryLogin,
}

const (
	wantServer   = `the registry's host, with a port if it has one, as "registry.example.com:5000"; "docker.io" for Docker Hub`
	wantUsername = "1 to 1,024 characters without control characters and colons"
	wantPassword = "1 to 65,536 bytes without NUL, unless identityToken is set"
	wantIdentity = "a refresh token of at most 65,536 visible ASCII characters without space"
)

func checkDockerRegistry(m *credentialv1.DockerRegistry, r *report) {
	if trimPasted(m.GetDocument()) == "" {
		m.Document = ""
		m.Username = trimPasted(m.GetUsername())
		// As "docker login --password-stdin" reads it.
		m.Password = strings.TrimRight(m.GetPassword(), "\r\n")
		m.IdentityToken = trimPasted(m.GetIdentityToken())
		m.Server = checkServer(m.GetServer(), r)
		checkRegistryAccount(m, r, func(field string) string { return field })
	} else {
		readRegistryDocument(m, r)
	}
	m.CaPem = checkAuthority("caPem", m.GetCaPem(), r)
}

// checkServer returns the name of a registry as docker spells it in the names of
// images, and reports what is wrong with it.
func checkServer(value string, r *report) string {
	host, problem := registryHost(value)
	if problem != "" {
		r.add("server", "must be "+wantServer+"; it "+problem)
		return value
	}
	return host
}

// checkRegistryAccount checks who logs in; path says where a field was read.
func checkRegistryAccount(m *credentialv1.DockerRegistry, r *report, path func(field string) string) {
	byToken := m.GetIdentityToken() != ""
	if m.GetUsername() != "" || !byToken {
		r.check(path("username"), m.GetUsername(), wantUsername, isEmpty, moreCharactersThan(1024), holdsControl, holds(":", "a colon"))
	}
	if !byToken {
		r.check(path("password"), m.GetPassword(), wantPassword, isEmpty, longerThan(65536), holds("\x00", "a NUL"))
		return
	}
	if m.GetPassword() != "" {
		r.add(path("password"), "must be empty beside identityToken, which is used in its place")
	}
	r.check(path("identityToken"), m.GetIdentityToken(), wantIdentity, longerThan(65536), holdsInvisible)
}

// registryHost returns the host and the port of a registry, as docker spells
// them in the names of images, from what people have: a host, an address with a
// scheme, a path or the name of an image behind it. The problem says what is
// wrong; the host is returned beside it where it is only the scheme.
func registryHost(value string) (host, problem string) {
	value = strings.ToLower(trimPasted(value))
	if value == "" {
		return "", "is empty"
	}
	scheme, rest, found := strings.Cut(value, "://")
	if !found {
		scheme, rest = "https", value
	}
	host, _, _ = strings.Cut(rest, "/")
	if strings.Contains(host, "@") {
		return "", "holds an @: a user name belongs into username"
	}
	if problem := serviceHostPort(host); problem != "" {
		return "", problem
	}
	switch host {
	// The names under which Docker Hub is, or was, reached and configured.
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		host = "docker.io"
	}
	switch scheme {
	case "https", "oci": // helm's
		return host, ""
	case "http":
		return host, `begins with "http://": a password is not sent without TLS`
	}
	return host, "begins with another scheme than https"
}

// checkRegistryLogin lets a request name the server; that it is the stored one
// is seen when the token is made.
func checkRegistryLogin(m *credentialv1.TokenRequest, r *report) {
	login := m.GetRegistryLogin()
	if login.GetServer() != "" {
		login.Server = checkServer(login.GetServer(), r)
	}
	for _, other := range []struct{ field, value string }{
		{"region", login.GetRegion()}, {"roleArn", login.GetRoleArn()}, {"impersonate", login.GetImpersonate()},
	} {
		if other.value != "" {
			r.add(other.field, "must be empty: a stored login to a registry has no use for it")
		}
	}
}

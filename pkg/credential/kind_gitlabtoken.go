package credential

import (
	"net/url"
	"slices"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// gitlabToken is a token of GitLab with the server that it belongs to.
var gitlabToken = behaviour[*credentialv1.GitlabToken]{
	check: checkGitlabToken,
	facts: func(m *credentialv1.GitlabToken) map[string]string {
		facts := map[string]string{"url": m.GetUrl()}
		if m.GetUsername() != "" {
			facts["username"] = m.GetUsername()
		}
		if kind := gitlabType(m); kind != "" {
			facts["type"] = kind
		}
		return facts
	},
}

// defaultGitlab is the server of those who name none.
const defaultGitlab = "https://gitlab.com"

func checkGitlabToken(m *credentialv1.GitlabToken, r *report) {
	m.Token = unwrapGitlabToken(m.GetToken())
	r.check("token", m.GetToken(), "1 to 1,024 visible ASCII characters without space",
		isEmpty, isGitlabURL, longerThan(1024), holdsInvisible)
	m.Url = checkGitlabURL(m.GetUrl(), r)
	m.Username = trimPasted(m.GetUsername())
	r.check("username", m.GetUsername(), "at most 255 characters without control characters, spaces and colons",
		moreCharactersThan(255), holdsControl, holds(": ", "a colon or a space"))
	kind := gitlabPrefix(m.GetToken())
	switch {
	case kind == gitlabDeployToken && m.GetUsername() == "":
		r.add("username", "must be set for a deploy token, which GitLab accepts together with its user name only; it is empty")
	case kind != "" && kind != gitlabDeployToken && m.GetUsername() != "":
		r.add("username", "must be empty for this token: only a deploy token has a user name of its own")
	}
}

// unwrapGitlabToken returns the token of a paste, which may be the header of a
// request, in quotes.
func unwrapGitlabToken(token string) string {
	token = trimPasted(strings.Trim(trimPasted(token), `"'`))
	for _, header := range []string{"private-token:", "deploy-token:", "authorization: bearer "} {
		if len(token) > len(header) && strings.EqualFold(token[:len(header)], header) {
			return trimPasted(token[len(header):])
		}
	}
	return token
}

func isGitlabURL(value string) string {
	if strings.Contains(value, "://") {
		return "is a URL: of one for git, the password before the @ is the token"
	}
	return ""
}

// checkGitlabURL returns the address of a server without a slash at its end. Its
// path may lead to GitLab below another site.
func checkGitlabURL(value string, r *report) string {
	value = trimPasted(value)
	if value == "" {
		return defaultGitlab
	}
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	u, problem := serviceURL(value)
	switch {
	case problem != "":
	case len(value) > 1024:
		problem = "is longer"
	case strings.Contains(value, "?"):
		problem = "has a query, which begins with ?"
	case strings.Contains(value, "%"), (&url.URL{Path: u.Path}).EscapedPath() != u.Path:
		problem = "has a path with a character that is escaped, or would have to be"
	default:
		u.Path = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/api/v4"), "/")
		elements := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
		if u.Path != "" && (slices.Contains(elements, "") || slices.Contains(elements, ".") || slices.Contains(elements, "..")) {
			problem = `has an empty element in its path, or one of "." and ".."`
		}
	}
	if problem != "" {
		r.add("url", `must be the https URL of a GitLab server of at most 1,024 characters, as "https://gitlab.example.com"; it `+problem)
		return value
	}
	return u.String()
}

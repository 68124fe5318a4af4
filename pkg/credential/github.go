package credential

import (
	"net/url"
	"regexp"
	"strings"
)

// GitHubAPI is the interface of github.com.
const GitHubAPI = "https://api.github.com"

var (
	githubNumber = regexp.MustCompile(`^[1-9][0-9]{0,18}$`)
	// GitHub App client ids are "Iv1." with 16 hexadecimal digits, or since 2023
	// "Iv23" with 16 letters and digits.
	githubClientID       = regexp.MustCompile(`^Iv[0-9]{1,2}\.?[0-9A-Za-z]{10,40}$`)
	githubOAuthID        = regexp.MustCompile(`^(?:Ov[0-9]{1,2}[0-9A-Za-z]{10,40}|[0-9a-f]{20})$`)
	githubInstallationAt = regexp.MustCompile(`^https://[^/?#]{1,255}(?:/[^?#]{0,255})?/installations/([0-9]{1,19})/?$`)
	githubRepository     = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
	githubPermission     = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
)

func githubIsNoAppID(value string) string {
	switch {
	case githubNumber.MatchString(value), githubClientID.MatchString(value):
		return ""
	case githubOAuthID.MatchString(value):
		return "is the client id of an OAuth app, which is not a GitHub App"
	case strings.HasPrefix(value, "SHA256:"):
		return "is the fingerprint of a key"
	}
	return "is neither: the App's name is not its id; both ids stand on the App's page"
}

// githubCheckInstallation checks and returns the id of an installation, which
// people also copy with the address of its page; "" when there is none.
func githubCheckInstallation(value string, r *report) string {
	value = trimPasted(value)
	if m := githubInstallationAt.FindStringSubmatch(value); m != nil {
		value = m[1]
	}
	if value != "" {
		r.check("installationId", value, "the id of an installation, a number: the end of the address of its page", gcpNot(githubNumber, "is not"))
	}
	return value
}

// githubURL normalises the address of the interface.
func githubURL(value string) string {
	value = strings.TrimRight(trimPasted(value), "/")
	if value == "" {
		return GitHubAPI
	}
	return value
}

func githubIsNoURL(value string) string {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "":
		return "is no URL"
	case u.Scheme != "https":
		return "is not https"
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "holds more than a host and a path"
	case u.Host != strings.ToLower(u.Host):
		return "has a host in upper case"
	case u.Host == "github.com" || u.Host == "www.github.com":
		return "is the web site: its interface is at https://api.github.com"
	case githubCloud(u.Host) && u.Path != "":
		return "has a path"
	case !githubCloud(u.Host) && u.Path != "/api/v3":
		return "does not end in /api/v3"
	}
	return ""
}

// githubCloud says whether a host serves the interface of GitHub's cloud, with
// or without data residency.
func githubCloud(host string) bool {
	name, residency := strings.CutSuffix(host, ".ghe.com")
	return host == "api.github.com" || residency && strings.HasPrefix(name, "api.")
}

func githubIsNoRepository(value string) string {
	switch {
	case strings.Contains(value, "/"):
		return "holds a slash: leave out the owner, which the installation has"
	case !githubRepository.MatchString(value):
		return "is not"
	}
	return ""
}

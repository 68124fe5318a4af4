package credential

import (
	"net/url"
	"strings"
)

// conjurURL returns an appliance's URL without a slash at its end, and what is
// wrong with it as the end of a sentence that begins with "it".
func conjurURL(pasted string) (normal, problem string) {
	text := trimPasted(pasted)
	u, err := url.Parse(text)
	switch {
	case text == "":
		return text, "is empty"
	case len(text) > 2048:
		return text, "is longer"
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return text, "is no such URL"
	case !strings.EqualFold(u.Scheme, "https"):
		return text, "does not begin with https://, and the API key would cross the network in clear"
	case u.User != nil:
		return text, "has a user name or password"
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return text, "has a query or a fragment"
	case u.Path != "" && u.Path != "/" && isNoMount(strings.Trim(u.EscapedPath(), "/")) != "":
		return text, "has a path with more than plain elements"
	}
	return "https://" + strings.ToLower(u.Host) + strings.TrimRight(u.Path, "/"), ""
}

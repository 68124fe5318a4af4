package credential

import (
	"encoding/json"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// gcpMetadataHost is where clouds keep the metadata service of a machine.
const gcpMetadataHost = "169.254.169.254"

// gcpSource is where the identity of an external account has its own token from.
type gcpSource struct {
	gcpObject
	r *report
	// aws says that the token is a request signed with an identity of AWS.
	aws bool
}

// add reports a field of the source, or all of it.
func (s gcpSource) add(field, description string) {
	s.r.add(strings.TrimSuffix("document.credential_source."+field, "."), description)
}

// check reports a field that is there and is found wrong by a test.
func (s gcpSource) check(field, want string, tests ...test) {
	if value, ok := s.str(field); ok {
		s.r.check("document.credential_source."+field, value, want, tests...)
	} else if s.has(field) {
		s.add(field, "must be "+want+"; it is not a string")
	}
}

func gcpCheckSource(o gcpObject, r *report) {
	const want = "an object with one of file, url and environment_id"
	f, ok := o.fields["credential_source"]
	if !ok {
		r.add("document.credential_source", "must be "+want+"; it is missing")
		return
	}
	inner, err := gcpParse(string(f.raw))
	if err != nil || len(inner.double) > 0 {
		r.add("document.credential_source", "must be "+want+"; it is not, or holds a field twice")
		return
	}
	kind, _ := o.str("subject_token_type")
	s := gcpSource{gcpObject: inner, r: r, aws: kind == gcpAWSType}
	switch {
	case s.has("executable"):
		s.add("executable", "must be absent: this server runs no programs for a credential; name a file that the program writes, or a URL")
	case s.has("certificate"):
		s.add("certificate", "must be absent: certificates are not supported as a source; name a file or a URL with a token")
	case s.has("environment_id"):
		gcpCheckAWSSource(s)
	case s.has("file") == s.has("url"):
		s.add("", "must be "+want+"; it has none of them, or more than one")
	case s.aws:
		s.add("", `must have environment_id "aws1", as subject_token_type says; it has another source`)
	case s.has("file"):
		s.check("file", "the absolute path of a file on the server, of at most 1,024 characters", longerThan(1024), holdsControl, gcpIsNoPath)
		gcpCheckFormat(s)
	default:
		s.check("url", `an https URL, or that of Azure's metadata service, as "http://169.254.169.254/metadata/identity/oauth2/token?…"`,
			longerThan(2048), holdsInvisible, gcpIsNoSourceURL)
		gcpCheckHeaders(s)
		gcpCheckFormat(s)
	}
}

func gcpIsNoPath(value string) string {
	switch {
	case !strings.HasPrefix(value, "/"):
		return "does not begin with a slash"
	case path.Clean(value) != value:
		return "is not in its shortest form"
	}
	return ""
}

func gcpIsNoSourceURL(value string) string {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "":
		return "is no URL"
	case u.User != nil || u.Fragment != "":
		return "holds a user or a fragment"
	case u.Scheme == "https":
		return ""
	case u.Scheme != "http":
		return "is neither http nor https"
	case u.Host != gcpMetadataHost:
		return "is http, which anybody on the way can read"
	case u.Path != "/metadata/identity/oauth2/token":
		return "is http to another path of the metadata service"
	}
	return ""
}

// The names of headers are tokens (RFC 9110, section 5.6.2).
var (
	gcpHeaderName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")
	gcpHeaderValue = regexp.MustCompile(`^[ -~]*$`)
)

const gcpMaxHeaders = 20

// gcpCheckHeaders checks what is sent along to the URL.
func gcpCheckHeaders(s gcpSource) {
	const want = "an object of at most 20 names of headers with their values"
	f, ok := s.fields["headers"]
	if !ok {
		return
	}
	var headers map[string]string
	if json.Unmarshal(f.raw, &headers) != nil || len(headers) > gcpMaxHeaders {
		s.add("headers", "must be "+want+"; it is not")
		return
	}
	foreign, broken := false, false
	for name, value := range headers {
		switch strings.ToLower(name) {
		case "host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer":
			foreign = true
		}
		broken = broken || !gcpHeaderName.MatchString(name) || !gcpHeaderValue.MatchString(value)
	}
	switch {
	case foreign:
		s.add("headers", "must be "+want+"; it has one that belongs to the connection")
	case broken:
		s.add("headers", "must be "+want+"; one has a character that no header can have")
	}
}

// gcpCheckFormat checks how the token stands in the file or the answer.
func gcpCheckFormat(s gcpSource) {
	const want = `{"type": "text"}, or {"type": "json", "subject_token_field_name": "access_token"} with the name of the field`
	f, ok := s.fields["format"]
	if !ok {
		return
	}
	var format struct {
		Type  string `json:"type"`
		Field string `json:"subject_token_field_name"`
	}
	switch err := json.Unmarshal(f.raw, &format); {
	case err != nil, format.Type != "text" && format.Type != "json" && format.Type != "":
		s.add("format", "must be "+want+"; it is not")
	case format.Type == "json" && format.Field == "":
		s.add("format", "must be "+want+"; the name is missing")
	}
}

// gcpAWSURLs are the addresses that Google's documentation gives, which are the
// only ones that the server's identity is asked from and signed for.
var gcpAWSURLs = []struct{ field, url string }{
	{"region_url", "http://169.254.169.254/latest/meta-data/placement/availability-zone"},
	{"url", "http://169.254.169.254/latest/meta-data/iam/security-credentials"},
	{"imdsv2_session_token_url", "http://169.254.169.254/latest/api/token"},
	{"regional_cred_verification_url", "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"},
}

func gcpCheckAWSSource(s gcpSource) {
	if !s.aws {
		s.add("", `must have file or url, as subject_token_type says; it has environment_id, which is for "`+gcpAWSType+`"`)
		return
	}
	if s.has("file") {
		s.add("file", "must be absent beside environment_id")
	}
	s.check("environment_id", `"aws1"`, gcpIsNot("aws1", "is another"))
	for _, known := range gcpAWSURLs {
		s.check(known.field, `"`+known.url+`"`, func(value string) string {
			if strings.Replace(value, "[fd00:ec2::254]", gcpMetadataHost, 1) != known.url {
				return "is another"
			}
			return ""
		})
	}
}

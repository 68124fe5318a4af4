package credential

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// GCPCloudPlatform is the scope of all of Google Cloud's interfaces: what an
// account may do with it is for IAM to say.
const GCPCloudPlatform = "https://www.googleapis.com/auth/cloud-platform"

// gcpScopePrefix begins the scopes of Google's interfaces.
const gcpScopePrefix = "https://www.googleapis.com/auth/"

// gcpUniverse is the only universe that the endpoints of this program are in.
const gcpUniverse = "googleapis.com"

const (
	gcpMaxScopes    = 50
	gcpMaxDelegates = 10
	gcpMaxLifetime  = time.Hour
	gcpMinLifetime  = time.Minute
)

var (
	gcpAPIKey   = regexp.MustCompile(`^AIza[0-9A-Za-z_-]{35}$`)
	gcpEmail    = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,6}gserviceaccount\.com$`)
	gcpProject  = regexp.MustCompile(`^(?:[a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	gcpKeyID    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	gcpDigits   = regexp.MustCompile(`^[0-9]{5,30}$`)
	gcpScope    = regexp.MustCompile(`^[a-z0-9][a-z0-9._/-]{0,200}$`)
	gcpRegistry = regexp.MustCompile(`^(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)?gcr\.io|[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.pkg\.dev)$`)
)

const gcpWantEmail = `the e-mail address of a service account, as "name@project.iam.gserviceaccount.com"`

// gcpNot finds a value that does not have a form.
func gcpNot(form *regexp.Regexp, problem string) test {
	return func(value string) string {
		if !form.MatchString(value) {
			return problem
		}
		return ""
	}
}

// gcpIsNot finds everything but one value.
func gcpIsNot(want, problem string) test {
	return func(value string) string {
		if value != want {
			return problem
		}
		return ""
	}
}

// gcpIsNoEmail finds what is no service account's address.
func gcpIsNoEmail(value string) string {
	switch {
	case gcpEmail.MatchString(value):
		return ""
	case gcpDigits.MatchString(value):
		return "is a number: give the address instead of the unique id"
	case strings.Contains(value, "@") && !strings.HasSuffix(value, "gserviceaccount.com"):
		return "is not in gserviceaccount.com, where service accounts have theirs"
	default:
		return "is not"
	}
}

// gcpCheckImpersonate normalises and checks an account to act as, if there is
// one.
func gcpCheckImpersonate(value string, r *report) string {
	value = strings.TrimPrefix(trimPasted(value), "serviceAccount:")
	if value != "" {
		r.check("impersonate", value, gcpWantEmail, gcpIsNoEmail)
	}
	return value
}

// gcpCheckRequest checks a request for a token. An ambient credential acts as
// the server itself, and has to be told for what.
func gcpCheckRequest(ambient bool) func(*credentialv1.TokenRequest, *report) {
	return func(m *credentialv1.TokenRequest, r *report) {
		switch m.GetKind().(type) {
		case *credentialv1.TokenRequest_GcpAccessToken_:
			gcpCheckAccessToken(m.GetGcpAccessToken(), ambient, r)
		case *credentialv1.TokenRequest_GcpIdToken_:
			gcpCheckIDToken(m.GetGcpIdToken(), r)
		case *credentialv1.TokenRequest_RegistryLogin_:
			gcpCheckRegistryLogin(m.GetRegistryLogin(), r)
		case *credentialv1.TokenRequest_KubernetesLogin_:
			gcpCheckKubernetesLogin(m.GetKubernetesLogin(), r)
		}
	}
}

func gcpCheckAccessToken(m *credentialv1.TokenRequest_GcpAccessToken, ambient bool, r *report) {
	switch {
	case len(m.GetScopes()) > 0:
	case ambient:
		r.add("scopes", `must be set: this credential acts as the server itself, so say what the token is for, as "`+gcpScopePrefix+`devstorage.read_only"`)
	default:
		m.Scopes = []string{GCPCloudPlatform}
	}
	if len(m.GetScopes()) > gcpMaxScopes {
		r.add("scopes", "must be at most 50; there are more")
	}
	for i, scope := range m.GetScopes() {
		r.check(gcpIndex("scopes", i), scope, `a scope of Google's, as "`+GCPCloudPlatform+`"`, isEmpty, gcpIsNoScope)
	}
	// The order of scopes means nothing, and one cache entry should do.
	slices.Sort(m.Scopes)
	m.Scopes = slices.Compact(m.GetScopes())
	m.Impersonate = gcpCheckImpersonate(m.GetImpersonate(), r)
	gcpCheckDelegates(m.GetImpersonate(), m.GetDelegates(), r)
	gcpCheckDuration(m.GetDuration(), r)
}

func gcpIsNoScope(value string) string {
	name, found := strings.CutPrefix(value, gcpScopePrefix)
	switch {
	case !found:
		return "does not begin with " + gcpScopePrefix
	case !gcpScope.MatchString(name):
		return "holds something that no scope has"
	}
	return ""
}

func gcpCheckDelegates(impersonate string, delegates []string, r *report) {
	if len(delegates) > 0 && impersonate == "" {
		r.add("delegates", "must be empty without impersonate: they are the accounts between the credential's own and that one")
		return
	}
	if len(delegates) > gcpMaxDelegates {
		r.add("delegates", "must be at most 10; there are more")
	}
	for i, delegate := range delegates {
		delegates[i] = trimPasted(delegate)
		r.check(gcpIndex("delegates", i), delegates[i], gcpWantEmail, isEmpty, gcpIsNoEmail)
	}
}

func gcpCheckDuration(d *durationpb.Duration, r *report) {
	if d == nil {
		return
	}
	const want = "1 minute to 1 hour, in whole seconds"
	switch asked := d.AsDuration(); {
	case d.CheckValid() != nil || asked%time.Second != 0:
		r.add("duration", "must be "+want+"; it is not")
	case asked < gcpMinLifetime:
		r.add("duration", "must be "+want+"; it is shorter")
	case asked > gcpMaxLifetime:
		r.add("duration", "must be "+want+"; it is longer")
	}
}

func gcpCheckIDToken(m *credentialv1.TokenRequest_GcpIdToken, r *report) {
	r.check("audience", m.GetAudience(), `who is to accept the token, as "https://service.example.com": 1 to 1,024 visible ASCII characters`,
		isEmpty, longerThan(1024), holdsInvisible)
	m.Impersonate = gcpCheckImpersonate(m.GetImpersonate(), r)
	gcpCheckDelegates(m.GetImpersonate(), m.GetDelegates(), r)
}

func gcpCheckRegistryLogin(m *credentialv1.TokenRequest_RegistryLogin, r *report) {
	m.Server = strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(trimPasted(m.GetServer())), "https://"), "/")
	r.check("server", m.GetServer(), `the host of a registry of Google Cloud, as "europe-docker.pkg.dev", "gcr.io" or "eu.gcr.io"`,
		isEmpty, holds("/", "a path: name the host alone"),
		gcpNot(gcpRegistry, "is not in pkg.dev or gcr.io: this credential's tokens are for Google, and go nowhere else"))
	gcpOthersField("region", m.GetRegion(), "AWS", r)
	gcpOthersField("roleArn", m.GetRoleArn(), "AWS", r)
	m.Impersonate = gcpCheckImpersonate(m.GetImpersonate(), r)
}

func gcpCheckKubernetesLogin(m *credentialv1.TokenRequest_KubernetesLogin, r *report) {
	gcpOthersField("cluster", m.GetCluster(), "AWS", r)
	gcpOthersField("region", m.GetRegion(), "AWS", r)
	gcpOthersField("roleArn", m.GetRoleArn(), "AWS", r)
	gcpOthersField("serverId", m.GetServerId(), "Azure", r)
}

// gcpOthersField reports a field that means something for another vendor alone.
func gcpOthersField(field, value, vendor string, r *report) {
	if value != "" {
		r.add(field, "must be empty: it is for credentials of "+vendor)
	}
}

// gcpIndex returns the path of an entry of a list.
func gcpIndex(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

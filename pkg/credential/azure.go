package credential

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// azureCloud is one of the clouds that Microsoft keeps apart: each has its own
// directory of identities, and an application of one is unknown in the others.
type azureCloud struct {
	name string
	// authorities are the hosts of its Entra ID; the first is the one to ask, and
	// the others are other names of the same.
	authorities []string
	// managers are the hosts of its resource manager, by which tokens for it are
	// named; the first is the default.
	managers []string
}

// azureClouds are the clouds that a service principal can be of. Secrets are
// sent to no authority beside theirs.
// Source: https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
var azureClouds = []azureCloud{
	{
		name:        "public",
		authorities: []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"},
		managers:    []string{"management.azure.com", "management.core.windows.net"},
	},
	{
		name:        "usGovernment",
		authorities: []string{"login.microsoftonline.us", "login.usgovcloudapi.net"},
		managers:    []string{"management.usgovcloudapi.net", "management.core.usgovcloudapi.net"},
	},
	{
		name:        "china",
		authorities: []string{"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"},
		managers:    []string{"management.chinacloudapi.cn", "management.core.chinacloudapi.cn"},
	},
}

const (
	azureWantGUID      = `a GUID, as "00112233-4455-6677-8899-aabbccddeeff"`
	azureWantAuthority = "https://login.microsoftonline.com, https://login.microsoftonline.us or https://login.chinacloudapi.cn"
	azureWantManager   = "https://management.azure.com, https://management.usgovcloudapi.net or https://management.chinacloudapi.cn"
)

// What host names consist of, and their parts.
const (
	azureLabelLetters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	azureNameLetters  = azureLabelLetters + "."
)

// azureAuthority finds the cloud of an authority's URL, or what is wrong with it.
func azureAuthority(value string) (azureCloud, string) {
	return azureCloudOf(value, func(c azureCloud) []string { return c.authorities })
}

// azureManager does the same for the URL of a resource manager.
func azureManager(value string) (azureCloud, string) {
	return azureCloudOf(value, func(c azureCloud) []string { return c.managers })
}

func azureCloudOf(value string, hosts func(azureCloud) []string) (azureCloud, string) {
	host, problem := azureHost(value)
	if problem != "" {
		return azureCloud{}, problem
	}
	for _, c := range azureClouds {
		if slices.Contains(hosts(c), host) {
			return c, ""
		}
	}
	return azureCloud{}, "is the address of no cloud known here"
}

// azureHost returns the host of an https URL that has nothing beside it.
func azureHost(value string) (host, problem string) {
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return "", "is no URL"
	case strings.EqualFold(u.Scheme, "http"):
		return "", "begins with http, which would send secrets unencrypted"
	case !strings.EqualFold(u.Scheme, "https"):
		return "", "does not begin with https"
	case u.User != nil:
		return "", "holds a user name"
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", "has a path or a query"
	case u.Port() != "" && u.Port() != "443":
		return "", "names a port"
	}
	return strings.ToLower(u.Hostname()), ""
}

// azureNormalGUID removes what stands around a GUID where people copy it, and
// makes its letters small: Azure compares them so.
func azureNormalGUID(value string) string {
	value = trimPasted(value)
	if inner, ok := strings.CutPrefix(value, "{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}"); ok {
			value = inner
		}
	}
	return strings.ToLower(value)
}

// azureIsNoGUID finds what is no GUID, and says which character is the reason.
func azureIsNoGUID(value string) string {
	const zeros = "00000000-0000-0000-0000-000000000000"
	switch {
	case value == zeros:
		return "is all zeros: is it a placeholder?"
	case strings.Contains(value, ".") && strings.Trim(value, azureNameLetters) == "":
		return "is a name: give the id, which Azure shows beside it"
	case len(value) < len(zeros):
		return "is shorter"
	case len(value) > len(zeros):
		return "is longer"
	}
	for i := range len(value) {
		c := value[i]
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		place := strconv.Itoa(i + 1)
		switch {
		case hyphen && c != '-':
			return "has no hyphen as character " + place
		case !hyphen && c == '-':
			return "has a hyphen as character " + place
		case !hyphen && c >= 'g' && c <= 'z':
			return "is none, since character " + place + " is a letter beyond f: is it a placeholder?"
		case !hyphen && !azureIsHex(c):
			return "is none, since character " + place + " is no hexadecimal digit"
		}
	}
	return ""
}

func azureIsHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// azureIsPlaceholder finds what documentation and masked logs show in place of a
// secret.
func azureIsPlaceholder(value string) string {
	switch {
	case strings.Trim(value, "*") == "":
		return "is asterisks, as logs show in place of a secret"
	case strings.HasPrefix(value, "<") && strings.HasSuffix(value, ">"):
		return "is a placeholder in angle brackets"
	case azureBrokenGUID(value):
		return "is a GUID except for a letter beyond f: is it a placeholder?"
	}
	return ""
}

// azureBrokenGUID says whether a value has the form of a GUID with letters that
// none has. Secrets that older versions of the Azure CLI made are GUIDs, those
// that Entra ID makes are not: neither makes one in between.
func azureBrokenGUID(value string) bool {
	if len(value) != 36 {
		return false
	}
	beyond := false
	for i, c := range []byte(strings.ToLower(value)) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		if hyphen != (c == '-') || !hyphen && !azureIsHex(c) && (c < 'g' || c > 'z') {
			return false
		}
		beyond = beyond || c >= 'g'
	}
	return beyond
}

// azureScope is the end of each scope that an application may ask for by itself:
// what it was granted, all at once.
const azureScope = "/.default"

// checkAzureRequest checks requests for tokens from all Azure kinds.
func checkAzureRequest(scopeNeeded bool) func(*credentialv1.TokenRequest, *report) {
	return func(m *credentialv1.TokenRequest, r *report) {
		switch request := m.GetKind().(type) {
		case *credentialv1.TokenRequest_AzureAccessToken_:
			checkAzureScope(request.AzureAccessToken, scopeNeeded, r)
		case *credentialv1.TokenRequest_RegistryLogin_:
			checkAzureRegistry(request.RegistryLogin, r)
		case *credentialv1.TokenRequest_KubernetesLogin_:
			checkAzureCluster(request.KubernetesLogin, r)
		}
	}
}

func checkAzureScope(m *credentialv1.TokenRequest_AzureAccessToken, needed bool, r *report) {
	m.Scope = trimPasted(m.GetScope())
	if m.GetScope() == "" && !needed {
		return
	}
	r.check("scope", m.GetScope(),
		`one scope of at most 1,024 characters that ends with "/.default", as "https://vault.azure.net/.default" or "api://APPLICATION/.default"`,
		isEmpty, longerThan(1024), holdsInvisible, azureIsNoScope)
}

// azureIsNoScope finds what is no scope of the client credentials grant.
func azureIsNoScope(value string) string {
	resource, ok := strings.CutSuffix(value, azureScope)
	if !ok {
		return `does not end with "/.default": an application gets what it was granted, and cannot ask for a part of it`
	}
	if azureIsNoGUID(azureNormalGUID(resource)) == "" {
		return ""
	}
	u, err := url.Parse(resource)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "api" || u.Host == "":
		return "begins with neither https://, api:// nor an application's GUID"
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "holds a user name, a query or a fragment"
	}
	return ""
}

func checkAzureRegistry(m *credentialv1.TokenRequest_RegistryLogin, r *report) {
	server := strings.ToLower(trimPasted(m.GetServer()))
	server = strings.TrimSuffix(strings.TrimPrefix(server, "https://"), "/")
	m.Server = server
	r.check("server", server, `the login server of a registry, as "name.azurecr.io"`, isEmpty, azureIsNoRegistry)
	const others = "must be empty: it is for the registries of other clouds"
	azureMustBeEmpty(r, others, [][2]string{
		{"region", m.GetRegion()}, {"roleArn", m.GetRoleArn()}, {"impersonate", m.GetImpersonate()},
	})
}

// azureIsNoRegistry finds what is no host of the Azure Container Registry: the
// token is sent there.
func azureIsNoRegistry(value string) string {
	for _, domain := range []string{".azurecr.io", ".azurecr.us", ".azurecr.cn"} {
		name, ok := strings.CutSuffix(value, domain)
		switch {
		case !ok:
			continue
		case name == "" || len(name) > 63:
			return "has a name that is empty or longer than 63 characters before " + domain
		case strings.Trim(name, azureLabelLetters) != "":
			return "has a name before " + domain + " that holds something else than letters, digits and hyphens"
		case strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-"):
			return "has a name before " + domain + " that begins or ends with a hyphen"
		}
		return ""
	}
	return "ends with none of .azurecr.io, .azurecr.us and .azurecr.cn"
}

func checkAzureCluster(m *credentialv1.TokenRequest_KubernetesLogin, r *report) {
	m.ServerId = azureNormalGUID(m.GetServerId())
	if m.GetServerId() != "" {
		r.check("serverId", m.GetServerId(), "the id of the application that the cluster expects tokens for, "+azureWantGUID, azureIsNoGUID)
	}
	const others = "must be empty: it is for clusters of AWS"
	azureMustBeEmpty(r, others, [][2]string{
		{"cluster", m.GetCluster()}, {"region", m.GetRegion()}, {"roleArn", m.GetRoleArn()},
	})
}

// azureMustBeEmpty reports the fields, pairs of a name and a value, that are set.
func azureMustBeEmpty(r *report, description string, fields [][2]string) {
	for _, f := range fields {
		if f[1] != "" {
			r.add(f[0], description)
		}
	}
}

package credential

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"slices"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// githubApp is a GitHub App with one of its private keys.
var githubApp = behaviour[*credentialv1.GithubApp]{
	check: func(m *credentialv1.GithubApp, r *report) {
		m.AppId = trimPasted(m.GetAppId())
		r.check("appId", m.GetAppId(), `the App's id, a number, or its client id, as "Iv23liAbCdEf0123Gh45"`, isEmpty, githubIsNoAppID)
		m.InstallationId = githubCheckInstallation(m.GetInstallationId(), r)
		if key, problem := gcpParseKey(pemUnwrap(m.GetPrivateKeyPem())); problem != "" {
			r.add("privateKeyPem", "must be a private key of the App, an RSA key of 2,048 to 8,192 bits in PEM form; it "+problem)
		} else {
			m.PrivateKeyPem = key.text
		}
		m.ApiUrl = githubURL(m.GetApiUrl())
		r.check("apiUrl", m.GetApiUrl(),
			`"https://api.github.com", "https://api.NAME.ghe.com" or an Enterprise Server's, as "https://github.example.com/api/v3"`,
			longerThan(1024), holdsInvisible, githubIsNoURL)
	},
	facts: func(m *credentialv1.GithubApp) map[string]string {
		facts := map[string]string{"appId": m.GetAppId(), "apiUrl": m.GetApiUrl()}
		if m.GetInstallationId() != "" {
			facts["installationId"] = m.GetInstallationId()
		}
		if fingerprint := githubFingerprint(m.GetPrivateKeyPem()); fingerprint != "" {
			facts["keyFingerprint"] = fingerprint
		}
		return facts
	},
	mints: []string{"githubInstallationToken"},
	checkRequest: func(m *credentialv1.TokenRequest, r *report) {
		githubCheckToken(m.GetGithubInstallationToken(), r)
	},
}

// githubFingerprint returns what the App's page shows of a key: SHA-256 of its
// public half.
func githubFingerprint(text string) string {
	key, problem := gcpParseKey(text)
	if problem != "" {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(key.key.Public())
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + base64.StdEncoding.EncodeToString(sum[:])
}

const (
	// githubMaxRepositories is what GitHub's reference says of the call.
	githubMaxRepositories = 500
	githubMaxPermissions  = 100
)

func githubCheckToken(m *credentialv1.TokenRequest_GithubInstallationToken, r *report) {
	m.InstallationId = githubCheckInstallation(m.GetInstallationId(), r)
	if len(m.GetRepositories()) > githubMaxRepositories {
		r.add("repositories", "must be at most 500; there are more")
	}
	for i, name := range m.GetRepositories() {
		r.check(gcpIndex("repositories", i), name, "the name of a repository, of at most 100 letters, digits, ., - and _", isEmpty, githubIsNoRepository)
	}
	// The order means nothing, and one cache entry should do.
	slices.Sort(m.Repositories)
	m.Repositories = slices.Compact(m.GetRepositories())
	if len(m.GetPermissions()) > githubMaxPermissions {
		r.add("permissions", "must be at most 100; there are more")
	}
	for name, level := range m.GetPermissions() {
		if !githubPermission.MatchString(name) || !slices.Contains([]string{"read", "write", "admin"}, level) {
			r.add("permissions", `must be names of permissions with read, write or admin, as {"contents": "read"}; one is not`)
			return
		}
	}
}

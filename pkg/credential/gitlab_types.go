package credential

import (
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

const gitlabDeployToken = "deployToken"

// gitlabPrefixes are the prefixes by which GitLab marks its tokens (its
// documentation, "Token prefixes"). An instance can put a word of its own before
// them. Personal, group and project access tokens have the same one.
var gitlabPrefixes = []struct{ prefix, kind string }{
	{"glpat-", "accessToken"},
	{"gldt-", gitlabDeployToken},
	{"gloas-", "oauthApplicationSecret"},
	{"glptt-", "pipelineTriggerToken"},
	{"glrt-", "runnerToken"},
	{"glrtr-", "runnerRegistrationToken"},
	{"GR1348941", "runnerRegistrationToken"},
	{"glcbt-", "jobToken"},
	{"glft-", "feedToken"},
	{"glimt-", "incomingMailToken"},
	{"glagent-", "agentToken"},
	{"glsoat-", "scimToken"},
	{"glffct-", "featureFlagsToken"},
	{"glwt-", "workspaceToken"},
}

// gitlabPrefix returns what the prefix of a token says that it is, "" when it
// says nothing.
func gitlabPrefix(token string) string {
	const maxInstance = 20 // the longest word that an instance can put before
	for _, p := range gitlabPrefixes {
		if strings.HasPrefix(token, p.prefix) {
			return p.kind
		}
		if i := strings.Index(token, "-"+p.prefix); i > 0 && i <= maxInstance {
			return p.kind
		}
	}
	return ""
}

// gitlabType returns what a token is: without a prefix, one with a user name is a
// deploy token.
func gitlabType(m *credentialv1.GitlabToken) string {
	if kind := gitlabPrefix(m.GetToken()); kind != "" || m.GetUsername() == "" {
		return kind
	}
	return gitlabDeployToken
}

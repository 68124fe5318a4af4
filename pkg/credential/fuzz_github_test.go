package credential_test

import (
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

func FuzzGitHubApp(f *testing.F) {
	for _, example := range load(f, "githubApp").Good {
		m := message(f, example.Payload).GetGithubApp()
		f.Add(m.GetAppId(), m.GetInstallationId(), m.GetPrivateKeyPem(), m.GetApiUrl())
	}
	for _, example := range load(f, "githubApp").Bad {
		m := message(f, example.Payload).GetGithubApp()
		f.Add(m.GetAppId(), m.GetInstallationId(), m.GetPrivateKeyPem(), m.GetApiUrl())
	}
	f.Fuzz(func(t *testing.T, id, installation, key, url string) {
		fuzzGCP(t, id+"\n"+installation+"\n"+key+"\n"+url, &credentialv1.Payload{Kind: &credentialv1.Payload_GithubApp{GithubApp: &credentialv1.GithubApp{
			AppId: id, InstallationId: installation, PrivateKeyPem: key, ApiUrl: url,
		}}})
	})
}

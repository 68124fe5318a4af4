package credential_test

import (
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

func FuzzSmtp(f *testing.F) {
	e := load(f, "smtp")
	for _, example := range e.Good {
		m := message(f, example.Payload).GetSmtp()
		f.Add(m.GetHost(), m.GetPort(), m.GetUsername(), m.GetPassword(), int32(m.GetSecurity()), m.GetFrom())
	}
	for _, example := range e.Bad {
		m := message(f, example.Payload).GetSmtp()
		f.Add(m.GetHost(), m.GetPort(), m.GetUsername(), m.GetPassword(), int32(m.GetSecurity()), m.GetFrom())
	}
	f.Fuzz(func(t *testing.T, host string, port uint32, username, password string, security int32, from string) {
		fuzzPayload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Smtp{Smtp: &credentialv1.Smtp{
			Host: host, Port: port, Username: username, Password: password, Security: credentialv1.Smtp_Security(security), From: from,
		}}})
	})
}

func FuzzWebhook(f *testing.F) {
	e := load(f, "webhook")
	for _, example := range e.Good {
		m := message(f, example.Payload).GetWebhook()
		f.Add(m.GetUrl(), m.GetSecret())
	}
	for _, example := range e.Bad {
		m := message(f, example.Payload).GetWebhook()
		f.Add(m.GetUrl(), m.GetSecret())
	}
	f.Fuzz(func(t *testing.T, url, secret string) {
		fuzzPayload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Webhook{Webhook: &credentialv1.Webhook{Url: url, Secret: secret}}})
	})
}

func FuzzGitlabToken(f *testing.F) {
	e := load(f, "gitlabToken")
	for _, example := range e.Good {
		m := message(f, example.Payload).GetGitlabToken()
		f.Add(m.GetToken(), m.GetUrl(), m.GetUsername())
	}
	for _, example := range e.Bad {
		m := message(f, example.Payload).GetGitlabToken()
		f.Add(m.GetToken(), m.GetUrl(), m.GetUsername())
	}
	f.Fuzz(func(t *testing.T, token, url, username string) {
		fuzzPayload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_GitlabToken{GitlabToken: &credentialv1.GitlabToken{
			Token: token, Url: url, Username: username,
		}}})
	})
}

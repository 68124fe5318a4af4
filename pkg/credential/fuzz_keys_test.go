package credential_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// keySeeds returns the payloads of a kind's examples, good and bad.
func keySeeds(f *testing.F, kind credential.Kind) []*credentialv1.Payload {
	f.Helper()
	e := load(f, kind)
	var all []*credentialv1.Payload
	for _, good := range e.Good {
		all = append(all, message(f, good.Payload))
	}
	for _, bad := range e.Bad {
		all = append(all, message(f, bad.Payload))
	}
	return all
}

// sound checks what holds of every payload: it is refused with sentences, or
// normalised once and for all; its facts can be shown; and all of that costs no
// more than its size justifies.
func sound(t *testing.T, m *credentialv1.Payload, size int) {
	t.Helper()
	bounded(t, size, func() {
		p, err := credential.NewPayload(m)
		if err != nil {
			return
		}
		for name, fact := range p.Facts() {
			if fact == "" || !utf8.ValidString(fact) || strings.ContainsAny(fact, "\n\r\x00") {
				t.Errorf("fact %s cannot be shown: %q", name, fact)
			}
		}
		p.ExpireTime()
		again, err := credential.NewPayload(p.Message())
		if err != nil {
			t.Fatalf("its own normalised form is refused: %v", err)
		}
		if !again.Equal(p) {
			t.Error("normalising twice changes the payload again")
		}
	})
}

func FuzzCertificate(f *testing.F) {
	for _, m := range keySeeds(f, "certificate") {
		f.Add(m.GetCertificate().GetPem())
	}
	f.Fuzz(func(t *testing.T, pem string) {
		sound(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Certificate{
			Certificate: &credentialv1.Certificate{Pem: pem},
		}}, len(pem))
	})
}

func FuzzSSHKey(f *testing.F) {
	for _, m := range keySeeds(f, "sshKey") {
		k := m.GetSshKey()
		f.Add(k.GetPem(), k.GetPassphrase(), k.GetUsername())
	}
	f.Fuzz(func(t *testing.T, pem, passphrase, username string) {
		sound(t, &credentialv1.Payload{Kind: &credentialv1.Payload_SshKey{
			SshKey: &credentialv1.SshKey{Pem: pem, Passphrase: passphrase, Username: username},
		}}, len(pem)+len(passphrase)+len(username))
	})
}

func FuzzOCI(f *testing.F) {
	for _, m := range keySeeds(f, "oci") {
		k := m.GetOci()
		f.Add(k.GetDocument(), k.GetPrivateKeyPem(), k.GetPassphrase(), k.GetTenancy(), k.GetUser(), k.GetRegion(), k.GetFingerprint())
	}
	f.Fuzz(func(t *testing.T, document, pem, passphrase, tenancy, user, region, fingerprint string) {
		m := &credentialv1.Oci{
			Document: document, PrivateKeyPem: pem, Passphrase: passphrase,
			Tenancy: tenancy, User: user, Region: region, Fingerprint: fingerprint,
		}
		sound(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Oci{Oci: m}},
			len(document)+len(pem)+len(passphrase)+len(tenancy)+len(user)+len(region)+len(fingerprint))
	})
}

func FuzzConjur(f *testing.F) {
	for _, m := range keySeeds(f, "conjur") {
		k := m.GetConjur()
		f.Add(k.GetUrl(), k.GetAccount(), k.GetLogin(), k.GetApiKey(), k.GetCaPem())
	}
	f.Fuzz(func(t *testing.T, url, account, login, apiKey, caPem string) {
		m := &credentialv1.Conjur{Url: url, Account: account, Login: login, ApiKey: apiKey, CaPem: caPem}
		sound(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Conjur{Conjur: m}},
			len(url)+len(account)+len(login)+len(apiKey)+len(caPem))
	})
}

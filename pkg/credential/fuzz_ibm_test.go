package credential_test

import (
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

func FuzzIBMKey(f *testing.F) {
	azureSeeds(f, "ibmCloud", func(m *credentialv1.Payload) {
		f.Add(m.GetIbmCloud().GetAccountGuid(), m.GetIbmCloud().GetApiKey())
	})
	f.Fuzz(func(t *testing.T, account, key string) {
		azureParses(t, &credentialv1.Payload{Kind: &credentialv1.Payload_IbmCloud{
			IbmCloud: &credentialv1.IbmCloud{AccountGuid: account, ApiKey: key},
		}})
	})
}

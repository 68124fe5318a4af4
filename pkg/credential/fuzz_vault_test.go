package credential_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// The login is given as JSON, since it has many forms.
func FuzzVault(f *testing.F) {
	for _, m := range keySeeds(f, "vault") {
		encoded, err := protojson.Marshal(m.GetVault())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		m := &credentialv1.Vault{}
		if protojson.Unmarshal(encoded, m) != nil {
			return
		}
		sound(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: m}}, len(encoded))
	})
}

func FuzzVaultJWT(f *testing.F) {
	for _, m := range keySeeds(f, "vault") {
		if j := m.GetVault().GetJwt(); j != nil {
			f.Add(j.GetJwt())
		}
	}
	f.Fuzz(func(t *testing.T, token string) {
		sound(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
			Method: &credentialv1.Vault_Jwt_{Jwt: &credentialv1.Vault_Jwt{Jwt: token}},
		}}}, len(token))
	})
}

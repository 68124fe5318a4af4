package coretest

import (
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

func payload(t testing.TB, m *credentialv1.Payload) credential.Payload {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Basic returns a payload of kind basic.
func Basic(t testing.TB, username, password string) credential.Payload {
	t.Helper()
	return payload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{
		Basic: &credentialv1.Basic{Username: username, Password: password},
	}})
}

// Vault returns a payload of kind vault.
func Vault(t testing.TB, m *credentialv1.Vault) credential.Payload {
	t.Helper()
	return payload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: m}})
}

// VaultToken returns a payload of kind vault that may be sent to any server.
func VaultToken(t testing.TB, token string) credential.Payload {
	t.Helper()
	return VaultAt(t, token, "")
}

// VaultAt returns a payload of kind vault for one server.
func VaultAt(t testing.TB, token, address string) credential.Payload {
	t.Helper()
	return Vault(t, &credentialv1.Vault{Address: address, Method: &credentialv1.Vault_Token{Token: token}})
}

// VaultByAWS returns a payload of kind vault that logs in as an AWS credential,
// at https://vault.example.com:8200.
func VaultByAWS(t testing.TB, source resourcename.Credential) credential.Payload {
	t.Helper()
	return Vault(t, &credentialv1.Vault{
		Address: "https://vault.example.com:8200",
		Method:  &credentialv1.Vault_Aws_{Aws: &credentialv1.Vault_Aws{Role: "r", Source: source.String()}},
	})
}

// AccessKey returns a payload of kind awsAccessKey; the last 8 of its 40 letters
// are given.
func AccessKey(t testing.TB, last8 string) credential.Payload {
	t.Helper()
	return payload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{
		AwsAccessKey: &credentialv1.AwsAccessKey{AccessKeyId: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX" + last8},
	}})
}

// InstanceRole returns a payload of kind awsRole, which acts as the server.
func InstanceRole(t testing.TB) credential.Payload {
	t.Helper()
	return payload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsRole{
		AwsRole: &credentialv1.AwsRole{Source: credentialv1.AwsRole_INSTANCE_METADATA},
	}})
}

// ManagedIdentity returns a payload of kind azureManagedIdentity, which acts as
// the server.
func ManagedIdentity(t testing.TB) credential.Payload {
	t.Helper()
	return payload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureManagedIdentity{
		AzureManagedIdentity: &credentialv1.AzureManagedIdentity{},
	}})
}

// AssumeRole returns a payload of kind awsAssumeRole, which refers to a source.
func AssumeRole(t testing.TB, source resourcename.Credential, role string) credential.Payload {
	t.Helper()
	return payload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAssumeRole{
		AwsAssumeRole: &credentialv1.AwsAssumeRole{Source: source.String(), RoleArn: "arn:aws:iam::123456789012:role/" + role},
	}})
}

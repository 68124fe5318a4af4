package credential_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// azureParses gives a payload to NewPayload: it must neither take long nor
// allocate much, and what it accepts must be accepted again as it came out.
func azureParses(t *testing.T, m *credentialv1.Payload) {
	t.Helper()
	var p credential.Payload
	var err error
	bounded(t, proto.Size(m), func() { p, err = credential.NewPayload(m) })
	if err != nil {
		var typed *credential.ValidationError
		if !errors.As(err, &typed) || len(typed.Violations) == 0 {
			t.Errorf("error is %v, want violations", err)
		}
		return
	}
	again, err := credential.NewPayload(p.Message())
	if err != nil {
		t.Fatalf("its own normalised form is refused: %v", err)
	}
	if !again.Equal(p) {
		t.Error("normalising twice changes the payload again")
	}
}

// azureSeeds calls add with each payload of a kind's examples.
func azureSeeds(f *testing.F, kind credential.Kind, add func(*credentialv1.Payload)) {
	f.Helper()
	e := load(f, kind)
	for _, example := range e.Good {
		add(message(f, example.Payload))
	}
	for _, example := range e.Bad {
		add(message(f, example.Payload))
	}
}

func FuzzAzureDocument(f *testing.F) {
	azureSeeds(f, "azureServicePrincipal", func(m *credentialv1.Payload) {
		f.Add(m.GetAzureServicePrincipal().GetDocument(), m.GetAzureServicePrincipal().GetTenantId())
	})
	f.Fuzz(func(t *testing.T, document, tenant string) {
		azureParses(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{
			AzureServicePrincipal: &credentialv1.AzureServicePrincipal{Document: document, TenantId: tenant},
		}})
	})
}

func FuzzAzureFields(f *testing.F) {
	azureSeeds(f, "azureServicePrincipal", func(m *credentialv1.Payload) {
		p := m.GetAzureServicePrincipal()
		f.Add(p.GetTenantId(), p.GetClientSecret(), p.GetCertificatePem(), p.GetAuthority(), p.GetResourceManager())
	})
	f.Fuzz(func(t *testing.T, id, secret, pem, authority, manager string) {
		azureParses(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{
			AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
				TenantId: id, ClientId: id, ClientSecret: secret, CertificatePem: pem, Authority: authority, ResourceManager: manager,
			},
		}})
		azureParses(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureManagedIdentity{
			AzureManagedIdentity: &credentialv1.AzureManagedIdentity{ClientId: id, ResourceId: authority},
		}})
	})
}

func FuzzAzurePFX(f *testing.F) {
	azureSeeds(f, "azureServicePrincipal", func(m *credentialv1.Payload) {
		p := m.GetAzureServicePrincipal()
		f.Add(p.GetCertificatePfx(), p.GetCertificatePassword())
	})
	const guid = "bc968c1e-67a3-4ba5-8d05-f807abb54a57"
	f.Fuzz(func(t *testing.T, pfx []byte, password string) {
		azureParses(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{
			AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
				TenantId: guid, ClientId: guid, CertificatePfx: pfx, CertificatePassword: password,
			},
		}})
	})
}

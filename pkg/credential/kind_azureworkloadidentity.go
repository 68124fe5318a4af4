package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// azureWorkloadIdentity is an application that trusts the tokens of the cluster
// that the server runs in.
var azureWorkloadIdentity = behaviour[*credentialv1.AzureWorkloadIdentity]{
	check: func(m *credentialv1.AzureWorkloadIdentity, r *report) {
		m.TenantId, m.ClientId = azureNormalGUID(m.GetTenantId()), azureNormalGUID(m.GetClientId())
		r.check("tenantId", m.GetTenantId(), azureWantGUID, isEmpty, azureIsNoGUID)
		r.check("clientId", m.GetClientId(), azureWantGUID, isEmpty, azureIsNoGUID)
		m.Authority = trimPasted(m.GetAuthority())
		if m.GetAuthority() == "" {
			m.Authority = "https://" + azureClouds[0].authorities[0]
		}
		cloud, problem := azureAuthority(m.GetAuthority())
		if problem != "" {
			r.add("authority", "must be "+azureWantAuthority+"; it "+problem)
			return
		}
		m.Authority = "https://" + cloud.authorities[0]
	},
	facts: func(m *credentialv1.AzureWorkloadIdentity) map[string]string {
		cloud, _ := azureAuthority(m.GetAuthority())
		return map[string]string{"tenantId": m.GetTenantId(), "clientId": m.GetClientId(), "cloud": cloud.name}
	},
	mints:        []string{"azureAccessToken", "registryLogin", "kubernetesLogin"},
	checkRequest: checkAzureRequest(true),
	ambient:      func(*credentialv1.AzureWorkloadIdentity) bool { return true },
	longLived:    func(*credentialv1.AzureWorkloadIdentity) bool { return false },
}

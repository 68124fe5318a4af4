package credential

import (
	"strconv"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// azureManagedIdentity is the identity that Azure gives to the machine or pod
// that the server runs in.
var azureManagedIdentity = behaviour[*credentialv1.AzureManagedIdentity]{
	check: func(m *credentialv1.AzureManagedIdentity, r *report) {
		m.ClientId, m.ObjectId = azureNormalGUID(m.GetClientId()), azureNormalGUID(m.GetObjectId())
		m.ResourceId = trimPasted(m.GetResourceId())
		set := 0
		for _, id := range []struct {
			field, value, want string
			problem            test
		}{
			{"clientId", m.GetClientId(), azureWantGUID, azureIsNoGUID},
			{"objectId", m.GetObjectId(), azureWantGUID, azureIsNoGUID},
			{
				"resourceId", m.GetResourceId(),
				`a path of at most 1,024 visible ASCII characters, as "/subscriptions/GUID/resourceGroups/GROUP/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME"`,
				azureIsNoIdentity,
			},
		} {
			if id.value == "" {
				continue
			}
			set++
			r.check(id.field, id.value, id.want, longerThan(1024), holdsInvisible, id.problem)
		}
		if set > 1 {
			r.add("", "set at most one of clientId, objectId, resourceId, which name the same identity in different ways; "+strconv.Itoa(set)+" are set")
		}
	},
	facts: func(m *credentialv1.AzureManagedIdentity) map[string]string {
		facts := map[string]string{"identity": "userAssigned"}
		azureFact(facts, "clientId", m.GetClientId())
		azureFact(facts, "objectId", m.GetObjectId())
		azureFact(facts, "resourceId", m.GetResourceId())
		if len(facts) == 1 {
			facts["identity"] = "systemAssigned"
		}
		return facts
	},
	mints:        []string{"azureAccessToken", "registryLogin", "kubernetesLogin"},
	checkRequest: checkAzureRequest(true),
	ambient:      func(*credentialv1.AzureManagedIdentity) bool { return true },
	longLived:    func(*credentialv1.AzureManagedIdentity) bool { return false },
}

// azureFact adds a fact that is not empty.
func azureFact(facts map[string]string, name, value string) {
	if value != "" {
		facts[name] = value
	}
}

// azureIsNoIdentity finds what is not the resource id of a user-assigned
// identity. Azure ignores the case of its words.
func azureIsNoIdentity(value string) string {
	parts := strings.Split(value, "/")
	want := []string{"", "subscriptions", "", "resourceGroups", "", "providers", "Microsoft.ManagedIdentity", "userAssignedIdentities", ""}
	if len(parts) != len(want) {
		return "has another number of parts"
	}
	for i, word := range want {
		switch {
		case word != "" && !strings.EqualFold(parts[i], word):
			return "has something else in the place of " + word
		case word == "" && i > 0 && parts[i] == "":
			return "has an empty part"
		case i == 0 && parts[i] != "":
			return "does not begin with a slash"
		}
	}
	if azureIsNoGUID(strings.ToLower(parts[2])) != "" {
		return "has no GUID after subscriptions"
	}
	return ""
}

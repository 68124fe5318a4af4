package credential

import (
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// ibmCloud is an API key of IBM Cloud with the account that it must belong to.
var ibmCloud = behaviour[*credentialv1.IbmCloud]{
	check: checkIBMCloud,
	facts: func(m *credentialv1.IbmCloud) map[string]string {
		return map[string]string{"accountGuid": m.GetAccountGuid()}
	},
	mints: []string{"ibmIamToken"},
}

func checkIBMCloud(m *credentialv1.IbmCloud, r *report) {
	m.AccountGuid = ibmNormalAccount(m.GetAccountGuid())
	keyPath, accountPath := "apiKey", "accountGuid"
	m.ApiKey = azureBare(m.GetApiKey())
	if strings.ContainsAny(m.GetApiKey(), "{=:") {
		document, ok := newIBMDocument(m.GetApiKey(), r)
		if !ok {
			m.ApiKey = ""
		} else {
			m.ApiKey, keyPath = document.key.value, "apiKey."+document.key.name
			accountPath = document.account(m, r)
		}
		if !ok || document.key.other {
			ibmCheckAccount(accountPath, m, r)
			return
		}
	}
	ibmCheckAccount(accountPath, m, r)
	r.check(keyPath, m.GetApiKey(),
		"an API key of IBM Cloud, 44 letters, digits, hyphens and underscores, or the JSON file that holds it",
		isEmpty, ibmIsPlatformID, ibmIsNoKey)
}

func ibmCheckAccount(path string, m *credentialv1.IbmCloud, r *report) {
	r.check(path, m.GetAccountGuid(),
		`the id of an account, 32 hexadecimal digits, which "ibmcloud account show" prints`,
		isEmpty, ibmIsNoAccount)
}

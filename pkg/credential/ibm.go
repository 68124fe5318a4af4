package credential

import (
	"strconv"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// ibmKeyLength is how many characters an API key has.
const ibmKeyLength = 44

// ibmNormalAccount returns an account's id as IBM Cloud writes it: without the
// hyphens that other GUIDs have, and in small letters.
func ibmNormalAccount(value string) string {
	value = azureNormalGUID(value)
	if azureIsNoGUID(value) == "" {
		value = strings.ReplaceAll(value, "-", "")
	}
	return value
}

// ibmIsNoAccount finds what is no id of an account.
func ibmIsNoAccount(value string) string {
	const digits = 32
	switch {
	case strings.HasPrefix(value, "ibmid-"), strings.HasPrefix(value, "iam-"):
		return "is the id of a user or a service"
	case strings.Contains(value, "@"):
		return "is an e-mail address"
	case strings.HasPrefix(value, "crn:"):
		return `is a CRN: the account is the part of it after "a/"`
	case strings.Trim(value, "0") == "":
		return "is all zeros: is it a placeholder?"
	case len(value) < digits:
		return "is shorter"
	case len(value) > digits:
		return "is longer"
	}
	for i := range len(value) {
		if !azureIsHex(value[i]) {
			return "is none, since character " + strconv.Itoa(i+1) + " is no hexadecimal digit: is it a placeholder?"
		}
	}
	return ""
}

// ibmIsPlatformID finds the id of a key in the place of the key, which IBM Cloud
// shows once only.
func ibmIsPlatformID(value string) string {
	if strings.HasPrefix(value, "ApiKey-") {
		return "is the id of a key: the key itself is shown only once, when it is made"
	}
	return ""
}

// ibmIsNoKey finds what is no API key.
func ibmIsNoKey(value string) string {
	switch {
	case azureIsPlaceholder(value) != "":
		return azureIsPlaceholder(value)
	case len(value) < ibmKeyLength:
		return "is shorter: was all of it copied?"
	case len(value) > ibmKeyLength:
		return "is longer"
	case strings.Trim(strings.ToLower(value), azureLabelLetters+"_") != "":
		return "holds another character"
	}
	return ""
}

// ibmDocument is what the file of an API key says.
type ibmDocument struct {
	key, accountID azureField
}

// ibmMeaning says which field a name of the file, or of a variable of IBM's
// tools, is.
func ibmMeaning(name string) string {
	switch strings.ToLower(strings.ReplaceAll(name, "-", "_")) {
	case "apikey", "api_key", "ibmcloud_api_key", "ibmcloud_apikey", "ic_api_key", "bluemix_api_key":
		return "apiKey"
	case "account_id", "accountid", "account_guid", "accountguid", "ibmcloud_account_id", "ibmcloud_account":
		return "accountGuid"
	}
	return ""
}

// newIBMDocument reads the file that "ibmcloud iam api-key-create --file" writes
// or the console offers, or lines as IBMCLOUD_API_KEY=…, and reports what is
// wrong with its form.
func newIBMDocument(text string, r *report) (ibmDocument, bool) {
	const want = `must be an API key, or the JSON file that "ibmcloud iam api-key-create" writes; it `
	fields, problem := azureFields(text, func(name string) bool { return ibmMeaning(name) != "" })
	if problem != "" {
		r.add("apiKey", want+problem)
		return ibmDocument{}, false
	}
	var d ibmDocument
	for _, f := range fields {
		f.value = trimPasted(f.value)
		into := &d.key
		switch ibmMeaning(f.name) {
		case "accountGuid":
			into = &d.accountID
		case "":
			continue
		}
		switch {
		case f.other:
			r.add("apiKey."+f.name, "must be a string; it is none")
		case into.value != "" && f.value != into.value:
			r.add("apiKey."+f.name, "is said twice, with another value than in "+into.name+" before it")
			continue
		}
		*into = f
	}
	if d.key.value == "" && !d.key.other {
		r.add("apiKey", want+`holds no apikey`)
		return ibmDocument{}, false
	}
	return d, true
}

// account fills the account in from the file, and returns the path that problems
// with it are reported at.
func (d ibmDocument) account(m *credentialv1.IbmCloud, r *report) string {
	const field = "accountGuid"
	said := ibmNormalAccount(d.accountID.value)
	switch {
	case d.accountID.other || said == "":
		return field
	case m.GetAccountGuid() == "":
		m.AccountGuid = said
		return "apiKey." + d.accountID.name
	case m.GetAccountGuid() != said:
		r.add(field, "must be empty, or the account that the file says ("+d.accountID.name+"); it is another one")
	}
	return field
}

package credential

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// azureField is one name with its value in what somebody pasted.
type azureField struct {
	// name is as it is spelled there.
	name  string
	value string
	// other says that the value is there and no string.
	other bool
}

// azureMaxLayers is how often a document may be wrapped: a string of JSON in
// base64, say, as in a Secret of Kubernetes.
const azureMaxLayers = 3

// azureMaxFields bounds the fields of a document, which has ten.
const azureMaxFields = 100

// azureFields reads names and values from a JSON object, from lines as
// NAME=value (with export, set or $env: before them) or name: value, or from
// either of them in base64 or quoted as a JSON string. Around a JSON object it
// ignores what else was copied: the warnings that az prints, a prompt, the name
// and the quotes of a variable. It takes time in proportion to the text.
//
// known says which names matter; lines are understood only when one of them is
// among them. The problem ends a sentence that begins with "it".
func azureFields(text string, known func(name string) bool) (fields []azureField, problem string) {
	for range azureMaxLayers {
		text = trimPasted(text)
		if text == "" {
			return nil, "is empty"
		}
		if inner, ok := azureUnquote(text); ok {
			text = inner
			continue
		}
		if fields := azureLines(text); azureHasKnown(fields, known) {
			return fields, ""
		}
		if strings.Contains(text, "{") {
			return azureObject(text)
		}
		inner, ok := azureBase64(text)
		if !ok || !utf8.Valid(inner) {
			return nil, "is neither a JSON object nor lines as NAME=value"
		}
		text = string(inner)
	}
	return nil, "is wrapped in quotes or base64 more often than anybody would"
}

func azureHasKnown(fields []azureField, known func(string) bool) bool {
	for _, f := range fields {
		if known(f.name) {
			return true
		}
	}
	return false
}

// azureUnquote reads a text that is a JSON string as a whole.
func azureUnquote(text string) (string, bool) {
	var inner string
	if !strings.HasPrefix(text, `"`) || json.Unmarshal([]byte(text), &inner) != nil {
		return "", false
	}
	return inner, true
}

// azureBase64 decodes a text in any of base64's alphabets, with or without
// padding and line breaks.
func azureBase64(text string) ([]byte, bool) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.Join(strings.Fields(text), ""))
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	return decoded, err == nil && len(decoded) > 0
}

// azureObject reads the one JSON object in a text.
func azureObject(text string) ([]azureField, string) {
	start, end := strings.Index(text, "{"), strings.LastIndex(text, "}")
	if end < start {
		return nil, "is a JSON object that does not end: was all of it copied?"
	}
	object := text[start : end+1]
	fields, problem := azureDecode(object)
	if problem == "" {
		return fields, ""
	}
	// A part of a JSON string, copied without the quotes at its ends.
	if inner, ok := azureUnquote(`"` + object + `"`); ok && strings.Contains(object, `\"`) {
		return azureDecode(inner)
	}
	return nil, problem
}

func azureDecode(object string) ([]azureField, string) {
	decoder := json.NewDecoder(strings.NewReader(object))
	if _, err := decoder.Token(); err != nil { // the brace
		return nil, azureNoJSON
	}
	var fields []azureField
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, azureNoJSON
		}
		if len(fields) == azureMaxFields {
			return nil, "holds more than 100 fields"
		}
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return nil, azureNoJSON
		}
		f := azureField{}
		f.name, _ = key.(string) // the keys of an object are nothing else
		if string(raw) != "null" {
			f.other = json.Unmarshal(raw, &f.value) != nil
		}
		fields = append(fields, f)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, azureNoJSON
	}
	if decoder.More() {
		return nil, "holds more than one JSON object"
	}
	return fields, ""
}

const azureNoJSON = "is no JSON object: a comma, a quote or a brace is missing or too many"

// azureLines reads lines as NAME=value and name: value, without those that are
// empty or comments; nothing when there is any other line.
func azureLines(text string) []azureField {
	var fields []azureField
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(trimPasted(line), ";")
		if line == "" || strings.HasPrefix(line, "#") || line == "---" {
			continue
		}
		for _, prefix := range []string{"export ", "set ", "$env:", "$Env:", "$ "} {
			line = strings.TrimPrefix(line, prefix)
		}
		at := strings.IndexAny(line, "=:")
		if at <= 0 || len(fields) == azureMaxFields {
			return nil
		}
		name := strings.TrimSpace(line[:at])
		if strings.Trim(strings.ToLower(name), azureLabelLetters+"_") != "" {
			return nil
		}
		fields = append(fields, azureField{name: strings.Clone(name), value: azureValue(line[at+1:])})
	}
	return fields
}

// azureBare removes a pair of quotes around a value.
func azureBare(value string) string {
	value = trimPasted(value)
	for _, quote := range []string{`"`, `'`} {
		if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return value[1 : len(value)-1]
		}
	}
	return value
}

// azureValue returns the value in the rest of a line: in quotes, or as far as
// the comment.
func azureValue(rest string) string {
	rest = trimPasted(rest)
	if strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, `'`) {
		return azureBare(rest)
	}
	rest, _, _ = strings.Cut(rest, " #")
	return trimPasted(rest)
}

// azureMeanings says which field each name of a service principal's document is,
// in small letters and without the prefixes and separators that tools add.
var azureMeanings = map[string]string{
	"clientid": "clientId", "appid": "clientId",
	"clientsecret": "clientSecret", "password": "clientSecret",
	"tenantid": "tenantId", "tenant": "tenantId",
	"subscriptionid": "subscriptionId", "subscription": "subscriptionId",
	"activedirectoryendpointurl": "authority", "authorityhost": "authority",
	"resourcemanagerendpointurl": "resourceManager",
	"filewithcertandprivatekey":  azureFile, "clientcertificate": azureFile,
	"clientcertificatepath": azureFile, "certificatepath": azureFile,
}

// azureFile stands for the name of a file with the certificate and its key.
const azureFile = "file"

// azureMeaning returns which field a name means, "" for those that do not matter.
func azureMeaning(name string) string {
	const longest = 64
	if len(name) > longest {
		return ""
	}
	name = strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
	for _, prefix := range []string{"azure", "arm"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return azureMeanings[name]
}

// azureDocument is what a service principal's document says, by field.
type azureDocument map[string]azureField

// newAzureDocument reads a document and reports what is wrong with its form.
func newAzureDocument(text string, r *report) (azureDocument, bool) {
	const want = `must be what "az ad sp create-for-rbac" prints, whole, with or without --sdk-auth; it `
	fields, problem := azureFields(text, func(name string) bool { return azureMeaning(name) != "" })
	if problem != "" {
		r.add("document", want+problem)
		return nil, false
	}
	document := azureDocument{}
	for _, f := range fields {
		meaning := azureMeaning(f.name)
		f.value = trimPasted(f.value)
		if meaning == "" || f.value == "" && !f.other {
			continue
		}
		first, twice := document[meaning]
		switch {
		case f.other:
			r.add("document."+f.name, "must be a string; it is none")
		case twice && first.value != f.value:
			r.add("document."+f.name, "is said twice, with another value than in "+first.name+" before it")
			continue
		}
		document[meaning] = f
	}
	if len(document) == 0 {
		r.add("document", want+azureForeign(fields))
		return nil, false
	}
	return document, true
}

// azureForeign says what a document without any field of Azure's is.
func azureForeign(fields []azureField) string {
	for _, f := range fields {
		switch f.name {
		case "private_key", "client_email":
			return "is a key of Google Cloud: give it to a credential of kind gcpServiceAccount"
		case "apikey", "iam_id":
			return "is a key of IBM Cloud: give it to a credential of kind ibmCloud"
		case "AccessKeyId", "SecretAccessKey", "AccessKey":
			return "is a key of AWS: give it to a credential of kind awsAccessKey"
		case "clusters", "current-context":
			return "is a kubeconfig: give it to a credential of kind kubeconfig"
		}
	}
	return "holds neither clientId (or appId) nor any other of its fields"
}

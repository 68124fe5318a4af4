package credential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// gcpObject is a JSON object as somebody pasted it, whole.
type gcpObject struct {
	// text is the object as it stands.
	text   string
	fields map[string]gcpField
	// double lists fields that are there twice, or differ in the case of letters
	// alone: readers of JSON disagree on which of them counts.
	double []string
}

// gcpField is the value of one field and where it ends in the text.
type gcpField struct {
	raw json.RawMessage
	end int
}

// str returns a field's value when it is a string.
func (o gcpObject) str(field string) (value string, ok bool) {
	f, there := o.fields[field]
	if !there || json.Unmarshal(f.raw, &value) != nil || string(f.raw) == "null" {
		return "", false
	}
	return value, true
}

// has says whether the object has a field.
func (o gcpObject) has(field string) bool {
	_, ok := o.fields[field]
	return ok
}

// with returns the text with another string as the value of a field.
func (o gcpObject) with(field, value string) string {
	f := o.fields[field]
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	// A string is always encoded.
	_ = encoder.Encode(value)
	return o.text[:f.end-len(f.raw)] + strings.TrimSpace(quoted.String()) + o.text[f.end:]
}

var errGcpNoObject = errors.New("not one JSON object")

// gcpParse reads one JSON object. Its error is a *json.SyntaxError or says that
// the text is no object, or more than one.
func gcpParse(text string) (gcpObject, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	opening, err := decoder.Token()
	if err != nil || opening != json.Delim('{') {
		return gcpObject{}, errors.Join(errGcpNoObject, err)
	}
	o := gcpObject{text: text, fields: map[string]gcpField{}}
	seen := map[string]bool{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return gcpObject{}, err
		}
		var f gcpField
		if err := decoder.Decode(&f.raw); err != nil {
			return gcpObject{}, err
		}
		f.end = int(decoder.InputOffset())
		name, _ := key.(string)
		if lower := strings.ToLower(name); seen[lower] {
			o.double = append(o.double, name)
		} else {
			seen[lower] = true
		}
		o.fields[name] = f
	}
	if _, err := decoder.Token(); err != nil {
		return gcpObject{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return gcpObject{}, errGcpNoObject
	}
	return o, nil
}

// gcpReadObject unwraps and reads a document, or reports what it is instead.
func gcpReadObject(pasted, want string, r *report) (gcpObject, bool) {
	text := gcpUnwrap(pasted)
	o, err := gcpParse(text)
	if err != nil {
		r.add("document", "must be "+want+"; it "+gcpNoDocument(text, err))
		return gcpObject{}, false
	}
	if len(o.double) > 0 {
		r.add("document", "must be "+want+"; it holds a field twice, or two that differ in the case of letters only"+gcpNamed(o.double))
	}
	return o, len(o.double) == 0
}

// gcpNamed names those of the fields that Google gives: the names of others are
// the author's own, and could be anything.
func gcpNamed(fields []string) string {
	var known []string
	for _, field := range fields {
		if field = strings.ToLower(field); slices.Contains(gcpKnownFields, field) && !slices.Contains(known, field) {
			known = append(known, field)
		}
	}
	if len(known) == 0 {
		return ""
	}
	return ": " + strings.Join(known, ", ")
}

var gcpKnownFields = []string{
	"type", "project_id", "private_key_id", "private_key", "client_email", "client_id", "auth_uri", "token_uri",
	"auth_provider_x509_cert_url", "client_x509_cert_url", "universe_domain", "audience", "subject_token_type",
	"token_url", "service_account_impersonation_url", "service_account_impersonation", "credential_source",
}

// gcpCheckField reports a field of the document that is missing, no string, or
// found wrong by a test.
func gcpCheckField(o gcpObject, field, want string, r *report, tests ...test) {
	value, ok := o.str(field)
	switch {
	case !o.has(field):
		r.add("document."+field, "must be "+want+"; it is missing")
	case !ok:
		r.add("document."+field, "must be "+want+"; it is not a string")
	default:
		r.check("document."+field, value, want, append([]test{isEmpty}, tests...)...)
	}
}

// gcpFacts returns the fields of a document by the names that the facts have.
func gcpFacts(document string, names map[string]string) map[string]string {
	facts := map[string]string{}
	o, err := gcpParse(document)
	if err != nil {
		return facts
	}
	for field, fact := range names {
		if value, ok := o.str(field); ok && value != "" {
			facts[fact] = value
		}
	}
	return facts
}

// gcpPosition returns line and column, from 1, of the byte at an offset that
// encoding/json gives.
func gcpPosition(text string, offset int64) (line, column int) {
	before := text[:max(0, min(int(offset)-1, len(text)))]
	return 1 + strings.Count(before, "\n"), len(before) - strings.LastIndexByte(before, '\n')
}

// gcpNoDocument says what a text is that is no JSON object, as the end of a
// sentence that begins with "it".
func gcpNoDocument(text string, err error) string {
	var syntax *json.SyntaxError
	switch {
	case text == "":
		return "is empty"
	case gcpAPIKey.MatchString(text):
		return "is an API key, which is a credential of kind gcpApiKey"
	case strings.HasPrefix(text, "-----BEGIN "):
		return "is only the private key: paste all of the file, from the first brace to the last"
	case strings.HasPrefix(text, "ya29."):
		return "is an access token, which ends within hours"
	case gcpFileName.MatchString(text):
		return "is the name of a file: paste what is in it"
	case gcpIsPKCS12(text):
		return "is a key in P12 form: create one of the type JSON"
	case strings.ContainsAny(text, "\u201c\u201d\u201e"):
		return "is not JSON: its quotes are typographic ones, as a word processor writes them; copy it from the file"
	case !strings.HasPrefix(text, "{"):
		return "does not begin with a brace"
	case errors.As(err, &syntax):
		line, column := gcpPosition(text, syntax.Offset)
		return fmt.Sprintf("is not JSON: line %d, column %d is wrong", line, column)
	case errors.Is(err, errGcpNoObject):
		return "holds something after the last brace"
	default:
		return "is not JSON: the end is missing"
	}
}

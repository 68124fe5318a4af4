package credential_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// fuzzGCP holds what must be true of every payload: the check ends, allocates no
// more than its input justifies, takes again what it took, and repeats nothing
// that was pasted.
func fuzzGCP(t *testing.T, pasted string, m *credentialv1.Payload) {
	t.Helper()
	var p credential.Payload
	var err error
	bounded(t, len(pasted), func() { p, err = credential.NewPayload(m) })
	if err == nil {
		testAgain(t, p)
		if len(p.Facts()) > 10 {
			t.Errorf("there are %d facts", len(p.Facts()))
		}
		return
	}
	var typed *credential.ValidationError
	if !errors.As(err, &typed) {
		t.Fatalf("error is %v, want a *ValidationError", err)
	}
	for _, v := range typed.Violations {
		if !strings.HasPrefix(v.Field, "payload") {
			t.Errorf("field is %q", v.Field)
		}
		for _, part := range longWords.FindAllString(pasted, -1) {
			if looksSecret(part) && strings.Contains(v.Description, part) {
				t.Errorf("%s repeats %q: %s", v.Field, part, v.Description)
			}
		}
	}
}

// longWords finds what may be key material: longer than our own words are, and
// with a capital and a digit, as none of the names that we say has.
var longWords = regexp.MustCompile(`[A-Za-z0-9+=_-]{22,}`)

func looksSecret(word string) bool {
	return strings.ContainsAny(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") && strings.ContainsAny(word, "0123456789")
}

// seedGCP adds the pasted texts of a kind's examples.
func seedGCP(f *testing.F, kind credential.Kind, pasted func(*credentialv1.Payload) string) {
	f.Helper()
	e := load(f, kind)
	for _, example := range e.Good {
		f.Add(pasted(message(f, example.Payload)))
	}
	for _, example := range e.Bad {
		f.Add(pasted(message(f, example.Payload)))
	}
}

func FuzzGCPServiceAccount(f *testing.F) {
	seedGCP(f, "gcpServiceAccount", func(m *credentialv1.Payload) string { return m.GetGcpServiceAccount().GetDocument() })
	f.Add(strings.Repeat(`{"a":`, 2000))
	f.Add(`"` + strings.Repeat(`\"`, 2000) + `"`)
	f.Add("```json\n" + strings.Repeat("'\"", 1000))
	f.Fuzz(func(t *testing.T, document string) {
		fuzzGCP(t, document, &credentialv1.Payload{Kind: &credentialv1.Payload_GcpServiceAccount{GcpServiceAccount: &credentialv1.GcpServiceAccount{Document: document}}})
	})
}

func FuzzGCPExternalAccount(f *testing.F) {
	seedGCP(f, "gcpExternalAccount", func(m *credentialv1.Payload) string { return m.GetGcpExternalAccount().GetDocument() })
	f.Fuzz(func(t *testing.T, document string) {
		fuzzGCP(t, document, &credentialv1.Payload{Kind: &credentialv1.Payload_GcpExternalAccount{GcpExternalAccount: &credentialv1.GcpExternalAccount{Document: document}}})
	})
}

func FuzzGCPAPIKey(f *testing.F) {
	seedGCP(f, "gcpApiKey", func(m *credentialv1.Payload) string { return m.GetGcpApiKey().GetApiKey() })
	f.Fuzz(func(t *testing.T, key string) {
		fuzzGCP(t, key, &credentialv1.Payload{Kind: &credentialv1.Payload_GcpApiKey{GcpApiKey: &credentialv1.GcpApiKey{ApiKey: key}}})
	})
}

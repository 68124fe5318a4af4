package credential_test

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/oauth2/jwt"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// Every good document is one that Google's own library signs with: what fails is
// the address, which leads nowhere.
func TestGCPDocumentsAreForGooglesLibrary(t *testing.T) {
	for _, example := range load(t, "gcpServiceAccount").Good {
		t.Run(example.Name, func(t *testing.T) {
			p, err := credential.NewPayload(message(t, example.Payload))
			if err != nil {
				t.Fatal(err)
			}
			var f struct {
				Email string `json:"client_email"`
				Key   string `json:"private_key"`
				KeyID string `json:"private_key_id"`
			}
			if err := json.Unmarshal([]byte(p.Message().GetGcpServiceAccount().GetDocument()), &f); err != nil {
				t.Fatal(err)
			}
			cfg := jwt.Config{Email: f.Email, PrivateKey: []byte(f.Key), PrivateKeyID: f.KeyID, TokenURL: "nowhere:"}
			_, err = cfg.TokenSource(t.Context()).Token()
			if err == nil || !strings.Contains(err.Error(), "unsupported protocol scheme") {
				t.Errorf("the library says %v", err)
			}
		})
	}
}

// A document of the greatest size is read in well under a second, whatever is in
// it, and with bounded memory: nothing here grows with the square of its size,
// which would take minutes. A loaded machine has some seconds.
func TestGCPDocumentsTakeNoLongTime(t *testing.T) {
	const (
		size = credential.MaxPayloadSize - 100
	)
	fill := func(begin, repeat, end string) string {
		return begin + strings.Repeat(repeat, (size-len(begin)-len(end))/len(repeat)) + end
	}
	for name, document := range map[string]string{
		"braces":             fill("", "{", ""),
		"nested":             fill("", `{"a":`, ""),
		"nested lists":       fill(`{"a":`, "[", ""),
		"fields":             fill("{", `"a":1,`, `"b":2}`),
		"backslashes":        fill(`{"`, `\`, `"}`),
		"quotes":             fill(`{\"`, `\"`, ""),
		"quotes in quotes":   fill("", `"'`, ""),
		"line breaks":        fill(`{"a":"`, "\n", `"}`),
		"base64":             fill("", "eyJ0", ""),
		"base64 of itself":   fill("", "ZXlK", ""),
		"fences":             fill("```\n", "```\n", "```"),
		"BEGIN lines":        fill(`{"type":"service_account","private_key":"`, "-----BEGIN PRIVATE KEY-----", `"}`),
		"escaped line ends":  fill(`{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----`, `\\n`, `-----END PRIVATE KEY-----"}`),
		"a long key":         fill(`{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----`, `AAAA`, `-----END PRIVATE KEY-----"}`),
		"escapes of escapes": fill(`{"type":"service_account","private_key":"`, `\\\\`, `"}`),
	} {
		t.Run(name, func(t *testing.T) {
			m := &credentialv1.Payload{Kind: &credentialv1.Payload_GcpServiceAccount{GcpServiceAccount: &credentialv1.GcpServiceAccount{Document: document}}}
			var err error
			bounded(t, len(document), func() { _, err = credential.NewPayload(m) })
			if err == nil {
				t.Error("it is accepted")
			}
		})
	}
}

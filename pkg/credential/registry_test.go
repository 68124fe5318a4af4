package credential_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// Documents as large as a payload may be, in the shapes that cost a parser most:
// they must not take more than their size justifies.
func TestLargeRegistryDocuments(t *testing.T) {
	const size = credential.MaxPayloadSize
	fill := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	hosts := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size-100; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	wrapped := `{"auths":{}}`
	for len(wrapped) < size/2 {
		wrapped = base64.StdEncoding.EncodeToString([]byte(wrapped))
	}
	for name, document := range map[string]string{
		"many registries":    `{"auths":{` + hosts(`"r%d.example.com":{"auth":"YTpi"},`) + `}}`,
		"many names":         `{"auths":{` + hosts(`"docker.io/%d":{"auth":"YTpi"},`) + `}}`,
		"many bad keys":      `{"auths":{` + hosts(`"!%d":{"auth":"?"},`) + `}}`,
		"deep JSON":          fill(`{"a":`),
		"deep arrays":        `{"auths":` + fill(`[`),
		"deep YAML":          "kind: " + fill(`[`),
		"indented YAML":      "kind:\n" + indented(600),
		"YAML with keys":     "kind: Secret\n" + hosts("k%d: v\n"),
		"YAML with anchors":  "kind: Secret\n" + hosts("k%d: &a [1]\n"),
		"commands":           fill("docker login\n"),
		"words":              "docker login " + fill("a "),
		"quotes":             fill("'"),
		"base64 many times":  wrapped,
		"escapes":            fill(`{\`),
		"continued lines":    fill("\\\n"),
		"one line of spaces": "docker " + fill(" ") + "login",
	} {
		t.Run(name, func(t *testing.T) {
			m := &credentialv1.Payload{Kind: &credentialv1.Payload_DockerRegistry{DockerRegistry: &credentialv1.DockerRegistry{Document: document}}}
			var err error
			bounded(t, len(document), func() { _, err = credential.NewPayload(m) })
			// Many names of one registry with one login are fine.
			if (err == nil) != (name == "many names") {
				t.Errorf("error is %.300v", err)
			}
			if err != nil && len(err.Error()) > 4*size {
				t.Errorf("the answer has %d bytes", len(err.Error()))
			}
		})
	}
}

func indented(levels int) string {
	var b strings.Builder
	for i := range levels {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// What is wrong with a document is told without a part of it.
func TestRegistryDocumentsAreNotRepeated(t *testing.T) {
	const secret = "c4nary-secret"
	encoded := base64.StdEncoding.EncodeToString([]byte(secret))
	for _, document := range []string{
		`{"auths":{"https://bot:` + secret + `@registry.example.com":{"auth":"YTpi"}}}`,
		`{"auths":{"registry.example.com":{"auth":"` + encoded + `"}}}`,
		`{"auths":{"registry.example.com":{"username":"a:b","password":"` + secret + `"}}}`,
		`{"auths":{"registry.example.com":{"registrytoken":"` + secret + `"}}}`,
		`{"auths":{"registry.example.com":"` + secret + `"}}`,
		`{"auths":{"registry.example.com":{"auth":"YTpi"}}` + secret,
		`{"` + secret + `":1}`,
		`{"auths":{"!` + secret + `":{"auth":"YTpi"}}}`,
		`{"credsStore":"` + secret + `"}`,
		`docker login -u bot -p ` + secret + ` --unknown`,
		`docker login -u bot -p ` + secret + ` a b`,
		`docker login -u b:t -p ` + secret,
		"kind: Secret\ndata:\n  .dockerconfigjson: " + encoded,
		"kind: Secret\n\t" + secret + ": *a",
		secret, encoded,
	} {
		m := &credentialv1.Payload{Kind: &credentialv1.Payload_DockerRegistry{DockerRegistry: &credentialv1.DockerRegistry{Document: document, CaPem: secret}}}
		_, err := credential.NewPayload(m)
		if err == nil {
			t.Errorf("accepted: %s", document)
		} else if text := err.Error(); strings.Contains(text, secret) || strings.Contains(text, encoded) {
			t.Errorf("%s: %s", document, text)
		}
	}
}

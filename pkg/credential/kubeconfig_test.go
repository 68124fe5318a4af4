package credential_test

import (
	"strings"
	"testing"

	"github.com/credstore/credstore/pkg/credential"
)

// What makes parsers of YAML slow or large, at the greatest size that a payload
// has and at the greatest that is parsed.
func TestKubeconfigIsBounded(t *testing.T) {
	fill := func(size int, before, repeated, after string) string {
		return before + strings.Repeat(repeated, (size-len(before)-len(after))/len(repeated)) + after
	}
	chain := "a: &a [x, x]\n"
	for range 2000 {
		chain += "a: &a [*a, *a]\n"
	}
	shapes := map[string]func(size int) string{
		"list":              func(n int) string { return fill(n, "[", "a,", "]") },
		"map":               func(n int) string { return fill(n, "{", "a,", "}") },
		"empty maps":        func(n int) string { return fill(n, "[", "{},", "]") },
		"nested lists":      func(n int) string { return fill(n, "", "[", "") },
		"nested maps":       func(n int) string { return fill(n, "", "{a: ", "") },
		"nested sequences":  func(n int) string { return fill(n, "", "- ", "") },
		"nested keys":       func(n int) string { return fill(n, "", "? ", "") },
		"keys":              func(n int) string { return fill(n, "", "?\n", "") },
		"lines":             func(n int) string { return fill(n, "", "a:\n", "") },
		"comments":          func(n int) string { return fill(n, "a: b\n", "#\n", "") },
		"comments of lines": func(n int) string { return fill(n, "", "a: b\n#\n", "") },
		"comments of flow":  func(n int) string { return fill(n, "[", "a, #\n", "]") },
		"anchors":           func(n int) string { return fill(n, "", "- &a a\n- *a\n", "") },
		"chained aliases":   func(n int) string { return chain[:min(n, len(chain))] },
		"merged mappings":   func(n int) string { return fill(n, "a: &a {b: c}\n", "d: {<<: *a, <<: *a}\n", "") },
		"documents":         func(n int) string { return fill(n, "", "---\n", "") },
		"directives":        func(n int) string { return fill(n, "", "%TAG !e! x\n", "") },
		"plain text":        func(n int) string { return fill(n, "a: ", "x\n ", "") },
		"quoted text":       func(n int) string { return fill(n, `a: "`, `\n`, `"`) },
		"a block":           func(n int) string { return fill(n, "a: |\n", " x\n", "") },
		"empty lines":       func(n int) string { return fill(n, "a: b", "\n", "c: d") },
		"one word":          func(n int) string { return fill(n, "", "a", "") },
		"nested base64":     func(n int) string { return fill(n, "", "YWFh", "") },
		"JSON":              func(n int) string { return fill(n-9, `{"a":[`, `{},`, `{}]}`) },
		"nested JSON":       func(n int) string { return strings.Repeat(`[`, n/2) + strings.Repeat(`]`, n/2) },
		"arguments": func(n int) string {
			return fill(n, `{"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"exec":{"command":"aws","args":[`, `"--x",`, `"-"]}}}]}`)
		},
		"contexts": func(n int) string { return fill(n, "contexts:\n", "- {name: x}\n", "current-context: x\n") },
		"names":    func(n int) string { return fill(n, "contexts:\n- name: ", "x", "\n") },
		"certificates": func(n int) string {
			return fill(n, "contexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'https://a.example.com', certificate-authority-data: ",
				"LS0tLS1CRUdJTiBBLS0tLS0KLS0tLS1FTkQgQS0tLS0tCg==", "}}]\n")
		},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			// 20,000 marks are parsed; a shape of two marks per character has 10,000
			// characters then.
			for _, size := range []int{5_000, 9_999, 19_999, 39_000, 60_000, credential.MaxPayloadSize} {
				document := shape(size)
				bounded(t, len(document), func() {
					if p, err := credential.NewPayload(kubeconfigPayload(document, "", "")); err == nil {
						t.Errorf("accepted: %v", p)
					}
				})
			}
		})
	}
}

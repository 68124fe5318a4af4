package kubeconfig

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPasted(t *testing.T) {
	const config = "apiVersion: v1\nkind: Config\nclusters: [{name: a}]\n"
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"white space", " \r\n\t\n\ufeff", ""},
		{"as it is", config, config},
		{"no line break at the end", strings.TrimSpace(config), config},
		{"the indentation of the first line", "\n\n  " + config, "  " + config},
		{"lone carriage returns", strings.ReplaceAll(config, "\n", "\r"), config},
		{"zero-width space", "\u200b" + config + "\u200b", config},
		{"a comment that looks like a prompt", "# kubectl config view\n" + config, "# kubectl config view\n" + config},
		{"a value that looks like a prompt", "a: b$\n" + config, "a: b$\n" + config},
		{"PowerShell", "PS C:\\Users\\me> kubectl config view --raw\n" + config, "PS C:\\Users\\me> kubectl config view --raw\n" + config},
		{"a prompt with a folder", "me@laptop:~/src$ cat config\n" + config + "me@laptop:~/src$\n", config},
		{"a fence inside of a quoted string", `"` + "```\\napiVersion: v1\\nkind: Config\\nclusters: [{name: a}]\\n```" + `"`, config},
		{"a fence that does not end", "```\n" + config, "```\n" + config},
		{"a here-document for a file", "cat <<'EOF' > config\n" + config + "EOF\n", config},
		{"a here-document that does not end", "cat <<EOF\n" + config, "cat <<EOF\n" + config},
		{"a quote that does not end", `"` + config, `"` + config},
		{"short base64", "YTogYg==", "YTogYg==\n"},
		{"base64 of no text", strings.Repeat("gICA", 20), strings.Repeat("gICA", 20) + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Pasted(test.text)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if again := Pasted(got); again != got {
				t.Errorf("pasted again it is %q", again)
			}
		})
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "files", "kubeconfig", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParse(t *testing.T) {
	got, problems := Parse(read(t, "certificate.yaml"), "")
	if got == nil {
		t.Fatal(problems)
	}
	want := &Login{
		Context: "kubernetes-admin@kubernetes", Cluster: "kubernetes", User: "kubernetes-admin",
		Server: "https://10.20.0.5:6443", TLSServerName: "kubernetes.default.svc",
		CAPEM: read(t, "ca.pem"), CertificatePEM: read(t, "client.pem"), KeyPEM: read(t, "client-key.pem"),
		Subject: "deployer", ExpireTime: time.Date(2051, 7, 14, 2, 25, 23, 0, time.UTC),
	}
	type plain Login // without the methods that redact
	if diff := cmp.Diff((*plain)(want), (*plain)(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLoginIsNotPrinted(t *testing.T) {
	got, problems := Parse(read(t, "token.yaml"), "")
	if got == nil {
		t.Fatal(problems)
	}
	encoded, err := json.Marshal(map[string]any{"login": got})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "login", got)
	for _, text := range []string{fmt.Sprint(got), fmt.Sprintf("%+v %#v %s %x", got, got, got, got), string(encoded), log.String()} {
		if strings.Contains(text, got.Token) || strings.Contains(text, fmt.Sprintf("%x", got.Token)) || !strings.Contains(text, "redacted") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestListed(t *testing.T) {
	var names []string
	for i := range 25 {
		names = append(names, strings.Repeat("ä", 99+i%3)+"\n")
	}
	got := listed(names)
	if !strings.HasSuffix(got, " and 5 more") || strings.Count(got, "ä\\n\"") != 7 || strings.Count(got, "…") != 13 || strings.Contains(got, "\n") {
		t.Errorf("listed as %s", got)
	}
}

// A problem is told once, and not more than fifty of them.
func TestProblemsAreBounded(t *testing.T) {
	args := strings.TrimSuffix(strings.Repeat(`"--x",`, 500), ",")
	_, problems := Parse(`{"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"clusters":[{"name":"c","cluster":{"server":"https://a.example.com"}}],`+
		`"users":[{"name":"u","user":{"exec":{"command":"gke-gcloud-auth-plugin","args":[`+args+`]}}}]}`, "")
	seen := map[Problem]bool{}
	for _, p := range problems {
		if seen[p] {
			t.Errorf("twice: %v", p)
		}
		seen[p] = true
	}
	if len(problems) != maxProblems {
		t.Errorf("%d problems", len(problems))
	}
}

//go:build conformance

package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/provider/kube/kubetest"
)

const rbacGroup = "rbac.authorization.k8s.io"

// cluster is a site with a real API server.
type cluster struct {
	*site
	server *kubetest.Server
}

// All against one API server, which takes a while to start.
func TestConformanceKube(t *testing.T) {
	c := &cluster{site: newSite(t), server: kubetest.New(t)}
	t.Run("Permissions", c.testPermissions)
	t.Run("ExecPlugin", c.testExecPlugin)
}

// store keeps a kubeconfig, by `credstore credential create` or `update`.
func (c *cluster) store(t *testing.T, verb, name string, user map[string]any) {
	t.Helper()
	c.do(t, "credential", verb, name, "--kind", "kubeconfig", "--secret", "document=@"+c.file(t, name+".kubeconfig", c.server.Kubeconfig(t, user, "")))
}

// account makes a service account and returns its user and a login by token.
func (c *cluster) account(t *testing.T, name string) (user string, login map[string]any) {
	t.Helper()
	user = c.server.ServiceAccount(t, "default", name)
	return user, map[string]any{"token": c.server.Token(t, "default", name, time.Hour)}
}

// permissions are what deploying an agent needs, in the order of the checks.
func permissions() []string {
	var out []string
	for _, what := range []string{"clusterroles." + rbacGroup, "clusterrolebindings." + rbacGroup, "daemonsets.apps", "secrets", "serviceaccounts"} {
		out = append(out, "create "+what, "delete "+what)
	}
	return out
}

// grant gives a user these permissions, each by a rule of its own.
func (c *cluster) grant(t *testing.T, user string, permissions ...string) {
	t.Helper()
	var rules []kubetest.Rule
	for _, p := range permissions {
		verb, what, _ := strings.Cut(p, " ")
		resource, group, _ := strings.Cut(what, ".")
		rules = append(rules, kubetest.Rule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}})
	}
	c.server.Grant(t, strings.ReplaceAll(user, ":", "-"), user, "", rules...)
}

func (c *cluster) testPermissions(t *testing.T) {
	missing := []string{"delete clusterrolebindings." + rbacGroup, "create secrets"}
	lacking := slices.DeleteFunc(permissions(), func(p string) bool { return slices.Contains(missing, p) })
	for _, test := range []struct {
		name    string
		granted []string
		failed  []string
		state   credstorev1.Verification_State
		message string
		code    int
	}{
		{name: "all-ten", granted: permissions(), state: credstorev1.Verification_VERIFIED},
		{
			name: "lacks-two", granted: lacking, failed: missing, state: credstorev1.Verification_REFUSED,
			message: "2 of 10 checks failed: " + strings.Join(missing, ", "), code: 1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			user, login := c.account(t, test.name)
			c.grant(t, user, test.granted...)
			c.store(t, "create", test.name, login)
			got, code := c.verify(t, test.name)
			if got.GetState() != test.state || got.GetIdentity() != user || got.GetMessage() != test.message || code != test.code {
				t.Errorf("ended with %d: %s %q %q", code, got.GetState(), got.GetIdentity(), got.GetMessage())
			}
			var asked, failed []string
			for _, check := range got.GetChecks() {
				asked = append(asked, check.GetName())
				if !check.GetPassed() {
					failed = append(failed, check.GetName())
				}
			}
			if diff := cmp.Diff(permissions(), asked); diff != "" {
				t.Errorf("checks (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(test.failed, failed); diff != "" {
				t.Errorf("failed checks (-want +got)\n%s", diff)
			}
			// A person reads the same, one line for each.
			table := c.try(t, "credential", "verify", test.name)
			var lines []string
			for line := range strings.Lines(table.out) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			if len(lines) != 12 || !strings.HasPrefix(lines[1], test.state.String()+" 1 ") || table.code != test.code {
				t.Fatalf("ended with %d\n%s", table.code, table.out)
			}
			for i, p := range permissions() {
				want := "passed " + p
				if slices.Contains(test.failed, p) {
					want = "failed " + p
				}
				if !strings.HasPrefix(lines[2+i]+" ", want+" ") {
					t.Errorf("line %d is %q, want %q", 2+i, lines[2+i], want)
				}
			}
			// And so does who lists credentials later.
			listed := c.do(t, "credential", "list", "--filter", "verification = "+test.state.String())
			if !strings.Contains(listed, test.name) {
				t.Errorf("listed are\n%s", listed)
			}
		})
	}
}

// A kubeconfig without a secret in it: client-go runs `credstore kube-token`, and
// the API server says who came.
func (c *cluster) testExecPlugin(t *testing.T) {
	now := time.Now()
	certificate, key := c.server.Certificate(t, "plugin-certificate", []string{"platform"}, now.Add(-time.Hour), now.Add(time.Hour))
	accounts := []struct {
		user  string
		login map[string]any
	}{
		{},
		{"plugin-certificate", map[string]any{"client-certificate-data": []byte(certificate), "client-key-data": []byte(key)}},
		{},
	}
	accounts[0].user, accounts[0].login = c.account(t, "plugin")
	accounts[2].user, accounts[2].login = c.account(t, "plugin-next")
	for _, a := range accounts {
		c.server.Grant(t, strings.ReplaceAll(a.user, ":", "-"), a.user, "", kubetest.Rule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list"}})
	}
	c.store(t, "create", "plugin", accounts[0].login)
	c.store(t, "create", "foreign", accounts[0].login)
	// The token may use this credential and nothing else.
	env := c.workload(t, "kubectl", "plugin")
	mine, foreign := c.plugin(t, env, "plugin"), c.plugin(t, env, "foreign")
	for i, a := range accounts {
		if i > 0 {
			c.store(t, "update", "plugin", a.login)
		}
		seen, err := kubetest.Client(t, mine)
		if err != nil {
			t.Fatal(err)
		}
		if seen.User != a.user || seen.Version == "" || !slices.Contains(seen.Namespaces, "kube-system") {
			t.Errorf("the client saw %+v, want the user %s", seen, a.user)
		}
	}
	t.Run("no permission", func(t *testing.T) {
		if seen, err := kubetest.Client(t, foreign); err == nil || !strings.Contains(err.Error(), "exit code 1") {
			t.Errorf("the client saw %+v, %v", seen, err)
		}
	})
	t.Run("refused by the cluster", func(t *testing.T) {
		c.store(t, "update", "plugin", map[string]any{"token": "n0-such-token"})
		if seen, err := kubetest.Client(t, mine); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
			t.Errorf("the client saw %+v, %v", seen, err)
		}
		if got, code := c.verify(t, "plugin"); got.GetState() != credstorev1.Verification_REFUSED || code != 1 {
			t.Errorf("verify ended with %d: %v", code, got)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		// Its last client is a consumer of it still.
		if a := c.try(t, "credential", "delete", "plugin"); a.code != 1 || !strings.Contains(a.err, "CREDENTIAL_IN_USE") {
			t.Errorf("delete ended with %d: %s", a.code, a.err)
		}
		c.do(t, "credential", "delete", "plugin", "--force")
		if seen, err := kubetest.Client(t, mine); err == nil || !strings.Contains(err.Error(), "exit code 1") {
			t.Errorf("the client saw %+v, %v", seen, err)
		}
	})
}

// plugin is a kubeconfig whose user logs in with the command.
func (c *cluster) plugin(t *testing.T, env []string, name string) string {
	t.Helper()
	var variables []any
	for _, e := range env {
		key, value, _ := strings.Cut(e, "=")
		variables = append(variables, map[string]any{"name": key, "value": value})
	}
	return c.server.Kubeconfig(t, map[string]any{"exec": map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
		"command": c.bin.credstore, "args": []string{"kube-token", name}, "env": variables,
	}}, "")
}

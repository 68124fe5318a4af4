package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

func TestAmbient(t *testing.T) {
	var a Ambient
	defaultProject, other := resourcename.Project{ID: "default"}, resourcename.Project{ID: "team"}
	role := payloadOf(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsRole{AwsRole: &credentialv1.AwsRole{Source: credentialv1.AwsRole_INSTANCE_METADATA}}})
	loginAt := func(address, namespace, mount string) credential.Payload {
		return payloadOf(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
			Address: address, Namespace: namespace, Method: &credentialv1.Vault_Kubernetes_{Kubernetes: &credentialv1.Vault_Kubernetes{Role: "r", Mount: mount}},
		}}})
	}
	login := func(address string) credential.Payload { return loginAt(address, "", "") }
	if a.allows(role, defaultProject) {
		t.Error("a kind is bound without a binding")
	}
	for _, bad := range []string{
		"", "awsRole", "awsRole=", "awsAccessKey=default", "basic=default", "awsRole=Default", "awsRole=a/b", "=default", "vault=team", "vault=team@http://vault.example.com", "vault=team@https://", "vault=team@https:///ns", "vault=team@https://vault.example.com/auth/", "vault=team@https://vault.example.com?x", "vault=team@https://vault.example.com/a#b", "vault=team@https://vault.example.com:x",
		"awsRole=default@https://x",
	} {
		if err := a.Bind(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, good := range []string{"awsRole=default", "awsRole=projects/blue", "vault=team@https://vault.example.com:8200"} {
		if err := a.Bind(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	there := "https://vault.example.com:8200"
	if !a.allows(role, defaultProject) || a.allows(role, other) || !a.allows(login(there), other) || a.allows(login(there), defaultProject) {
		t.Error("bindings do not hold for what they name")
	}
	// The server's own token is shown to nobody else, and nowhere else at that Vault.
	for _, bad := range []credential.Payload{login("https://vault.example.net:8200"), loginAt(there, "mallory", ""), loginAt(there, "", "mallorys-cluster")} {
		if a.allows(bad, other) {
			t.Errorf("a login at %v acts as the server", vaultMountOf(bad))
		}
	}
	for binding, want := range map[string]credential.Payload{
		"https://vault.example.com:8200/":                             login(there),
		"https://Vault.Example.com:8200":                              login(there),
		"https://vault.example.com:8200/a/b":                          loginAt(there, "a/b", ""),
		"https://vault.example.com:8200/auth/cluster/one":             loginAt(there, "", "cluster/one"),
		"https://vault.example.com:8200/a/auth/b/auth/kubernetes-two": loginAt(there, "a/auth/b", "kubernetes-two"),
	} {
		var a Ambient
		if err := a.Bind("vault=team@" + binding); err != nil || !a.allows(want, other) {
			t.Errorf("%s does not allow %v: %v", binding, vaultMountOf(want), err)
		}
		if a.allows(loginAt(there, "c", "d"), other) {
			t.Errorf("%s allows another mount", binding)
		}
	}
	ready, err := a.readyMade()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range ready {
		names = append(names, r.Name.String())
		if r.Payload.Kind() != "awsRole" || !r.Payload.Ambient() {
			t.Errorf("%s is of kind %s", r.Name, r.Payload.Kind())
		}
	}
	if diff := cmp.Diff([]string{"projects/default/credentials/instance-role", "projects/blue/credentials/instance-role"}, names); diff != "" {
		t.Errorf("ready-made credentials (-want +got)\n%s", diff)
	}
}

func payloadOf(t *testing.T, m *credentialv1.Payload) credential.Payload {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every kind that can act as the server can be bound, and no other.
func TestAmbientKinds(t *testing.T) {
	for _, k := range ambientKinds {
		found := false
		for _, known := range credential.Kinds() {
			found = found || known == k
		}
		if !found {
			t.Errorf("%s is no kind", k)
		}
	}
}

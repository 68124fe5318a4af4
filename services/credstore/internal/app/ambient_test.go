package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

func TestAmbient(t *testing.T) {
	var a Ambient
	defaultProject, other := resourcename.Project{ID: "default"}, resourcename.Project{ID: "team"}
	if a.allows("awsRole", defaultProject) {
		t.Error("a kind is bound without a binding")
	}
	for _, bad := range []string{"", "awsRole", "awsRole=", "awsAccessKey=default", "basic=default", "awsRole=Default", "awsRole=a/b", "=default"} {
		if err := a.Bind(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, good := range []string{"awsRole=default", "awsRole=projects/blue", "vault=team"} {
		if err := a.Bind(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	if !a.allows("awsRole", defaultProject) || a.allows("awsRole", other) || !a.allows("vault", other) || a.allows("vault", defaultProject) {
		t.Error("bindings do not hold for what they name")
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

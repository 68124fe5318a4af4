package app

import (
	"fmt"
	"slices"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// ambientKinds are those whose credentials may act as the server itself.
var ambientKinds = []credential.Kind{
	"awsRole", "azureManagedIdentity", "azureWorkloadIdentity", "gcpExternalAccount", "vault",
}

// Ambient says which kinds of credentials may act as the server itself, and in
// which projects. The zero value lets none.
type Ambient struct {
	bound map[credential.Kind][]resourcename.Project
}

// Bind lets credentials of a kind act as the server in a project:
// "awsRole=default".
func (a *Ambient) Bind(text string) error {
	kind, id, ok := strings.Cut(text, "=")
	if !ok || !slices.Contains(ambientKinds, credential.Kind(kind)) {
		return fmt.Errorf("%q does not say which kind may act as the server in which project, as awsRole=default; the kinds are %s", text, joined(ambientKinds))
	}
	project, err := resourcename.ParseProject("projects/" + strings.TrimPrefix(id, "projects/"))
	if err != nil {
		return fmt.Errorf("%q names no project: %w", text, err)
	}
	if a.bound == nil {
		a.bound = make(map[credential.Kind][]resourcename.Project)
	}
	a.bound[credential.Kind(kind)] = append(a.bound[credential.Kind(kind)], project)
	return nil
}

func joined(kinds []credential.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// allows is core.Config.Bound.
func (a Ambient) allows(k credential.Kind, p resourcename.Project) bool {
	return slices.Contains(a.bound[k], p)
}

// readyMade are the credentials that come with the bindings: the role of the
// server's instance, in every project that awsRole is bound to.
func (a Ambient) readyMade() ([]core.ReadyMade, error) {
	payload, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AwsRole{
		AwsRole: &credentialv1.AwsRole{Source: credentialv1.AwsRole_INSTANCE_METADATA},
	}})
	if err != nil {
		return nil, err
	}
	var out []core.ReadyMade
	for _, p := range a.bound["awsRole"] {
		out = append(out, core.ReadyMade{
			Name:        resourcename.Credential{Project: p.ID, ID: "instance-role"},
			Description: "the role of the instance that the server runs on; made by the server's configuration",
			Payload:     payload,
		})
	}
	return out, nil
}

package app

import (
	"fmt"
	"net"
	"net/url"
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
	bound map[credential.Kind][]binding
}

// binding is a project in which a kind may act as the server.
type binding struct {
	project resourcename.Project
	// vault is where alone the server's token is shown; of kind vault only.
	vault vaultMount
}

// vaultMount is one place at which logins to a Vault are made. All of it counts:
// whoever may configure another mount, or has another namespace, may have Vault
// hand the token on, as to the Kubernetes API of its own that it then asks
// (https://developer.hashicorp.com/vault/api-docs/auth/kubernetes).
type vaultMount struct {
	address, namespace, mount string
}

const kindVault = credential.Kind("vault")

// Bind lets credentials of a kind act as the server in a project:
// "awsRole=default". Vault's login by Kubernetes shows the server's own token to a
// server that a payload names, so the binding names it too, and where it is not in
// the root namespace at the usual mount, also that:
// "vault=default@https://vault.example.com:8200/team/auth/kubernetes".
func (a *Ambient) Bind(text string) error {
	kind, id, ok := strings.Cut(text, "=")
	id, address, hasAddress := strings.Cut(id, "@")
	if !ok || !slices.Contains(ambientKinds, credential.Kind(kind)) {
		return fmt.Errorf("%q does not say which kind may act as the server in which project, as awsRole=default; the kinds are %s", text, joined(ambientKinds))
	}
	project, err := resourcename.ParseProject("projects/" + strings.TrimPrefix(id, "projects/"))
	if err != nil {
		return fmt.Errorf("%q names no project: %w", text, err)
	}
	at, isAddress := parseVaultMount(address)
	if wants := credential.Kind(kind) == kindVault; wants != hasAddress || wants && !isAddress {
		return fmt.Errorf("%q: kind vault is bound with the https address of the server, as vault=default@https://vault.example.com:8200, and the others without one", text)
	}
	if a.bound == nil {
		a.bound = make(map[credential.Kind][]binding)
	}
	a.bound[credential.Kind(kind)] = append(a.bound[credential.Kind(kind)], binding{project, at})
	return nil
}

func joined(kinds []credential.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// allows is core.Config.Bound. Projects are known by their names: one that is
// deleted and made again, as only an administrator of all projects can, is bound
// like the one before.
func (a Ambient) allows(payload credential.Payload, p resourcename.Project) bool {
	return slices.ContainsFunc(a.bound[payload.Kind()], func(b binding) bool {
		return b.project == p && (payload.Kind() != kindVault || b.vault == vaultMountOf(payload))
	})
}

// vaultMountOf returns where a payload logs in by Kubernetes.
func vaultMountOf(payload credential.Payload) vaultMount {
	m := payload.Message().GetVault()
	return vaultMount{origin(m.GetAddress()), m.GetNamespace(), m.GetKubernetes().GetMount()}
}

// origin writes the address of a server in one way: in small letters, with its
// port, and without a path.
func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// parseVaultMount reads "https://HOST:PORT[/NAMESPACE][/auth/MOUNT]".
func parseVaultMount(text string) (vaultMount, bool) {
	rest, ok := strings.CutPrefix(text, "https://")
	host, path, _ := strings.Cut(rest, "/")
	path = "/" + path
	at := vaultMount{address: origin("https://" + host), namespace: path, mount: "kubernetes"}
	if i := strings.LastIndex(path, "/auth/"); i >= 0 {
		at.namespace, at.mount = path[:i], strings.Trim(path[i+len("/auth/"):], "/")
	}
	at.namespace = strings.Trim(at.namespace, "/")
	return at, ok && host != "" && at.address != "" && at.mount != "" && !strings.ContainsAny(rest, "?#")
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
	for _, b := range a.bound["awsRole"] {
		out = append(out, core.ReadyMade{
			Name:        resourcename.Credential{Project: b.project.ID, ID: "instance-role"},
			Description: "the role of the instance that the server runs on; made by the server's configuration",
			Payload:     payload,
		})
	}
	return out, nil
}

package credential

import (
	"slices"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// defaultAppRoleMount is where Vault mounts the method unless told otherwise.
const defaultAppRoleMount = "approle"

// vault is a login to a HashiCorp Vault server.
var vault = behaviour[*credentialv1.Vault]{
	check: func(m *credentialv1.Vault, r *report) {
		switch m.GetMethod().(type) {
		case *credentialv1.Vault_Token:
			r.check("token", m.GetToken(), "1 to 65,536 visible ASCII characters without space",
				isEmpty, longerThan(65536), holdsInvisible)
		case *credentialv1.Vault_AppRole_:
			checkAppRole(m.GetAppRole(), r)
		default:
			r.add("", exactlyOne(m.ProtoReflect().Descriptor().Oneofs().ByName("method")))
		}
	},
	facts: func(m *credentialv1.Vault) map[string]string {
		role := m.GetAppRole()
		if role == nil {
			return map[string]string{"method": "token"}
		}
		return map[string]string{"method": "appRole", "roleId": role.GetRoleId(), "mount": role.GetMount()}
	},
}

func checkAppRole(m *credentialv1.Vault_AppRole, r *report) {
	const ids = "4,096 visible ASCII characters without space"
	r.check("appRole.roleId", m.GetRoleId(), "1 to "+ids, isEmpty, longerThan(4096), holdsInvisible)
	r.check("appRole.secretId", m.GetSecretId(), "at most "+ids, longerThan(4096), holdsInvisible)
	if m.GetMount() == "" {
		m.Mount = defaultAppRoleMount
	}
	r.check("appRole.mount", m.GetMount(),
		`a path of at most 1,024 visible ASCII characters, as "approle" or "team/approle", without "auth/" before it`,
		longerThan(1024), holdsInvisible, isNoMount)
}

// isNoMount finds what is no path of a mount: it becomes a part of an URL, and
// must not lead to another endpoint of the server.
func isNoMount(value string) string {
	if strings.HasPrefix(value, "auth/") {
		return `begins with "auth/"`
	}
	if problem := holds("?#%\\", `one of ?, #, % and \`)(value); problem != "" {
		return problem
	}
	elements := strings.Split(value, "/")
	if slices.Contains(elements, "") {
		return "begins or ends with a slash, or has two in a row"
	}
	if slices.Contains(elements, ".") || slices.Contains(elements, "..") {
		return `has an element "." or ".."`
	}
	return ""
}

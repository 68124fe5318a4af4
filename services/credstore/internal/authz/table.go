package authz

import "github.com/credstore/credstore/services/credstore/internal/core"

// grant says under which condition a role has a permission.
type grant uint8

const (
	// no is the default: what the table does not mention is denied.
	no grant = iota
	// project: in the project of the token, or in any with a token for all.
	project
	// server: not about one project; the domain narrows the answer to what the
	// caller may get.
	server
	// everywhere: only with a token for all projects.
	everywhere
	// named: only for the credentials that the token names, in its project.
	named
)

// row says what each role may do with one permission.
type row struct {
	permission                        core.Permission
	admin, operator, reader, workload grant
}

// table is every permission of the contract. A permission that is missing here
// is granted to nobody.
func table() []row {
	return []row{
		// Permission, admin, operator, reader, workload.
		{core.ProjectsCreate, everywhere, no, no, no},
		{core.ProjectsGet, project, project, project, no},
		{core.ProjectsList, server, server, server, no},
		{core.ProjectsUpdate, project, no, no, no},
		{core.ProjectsDelete, everywhere, no, no, no},

		{core.TokensCreate, project, no, no, no},
		{core.TokensGet, project, no, no, no},
		{core.TokensList, project, no, no, no},
		{core.TokensDelete, project, no, no, no},

		{core.CredentialsCreate, project, project, no, no},
		{core.CredentialsGet, project, project, project, named},
		{core.CredentialsList, project, project, project, no},
		{core.CredentialsUpdate, project, project, no, no},
		{core.CredentialsDelete, project, project, no, no},
		{core.CredentialsUse, project, project, no, no},
		{core.CredentialsAccess, project, no, no, named},
		{core.CredentialsWatch, project, project, project, named},
		{core.CredentialsVerify, project, project, no, no},
		{core.CredentialsMint, project, no, no, named},

		{core.UsagesList, project, project, project, no},
		{core.UsagesDeclare, project, project, no, named},

		{core.SecretStoresCreate, project, project, no, no},
		{core.SecretStoresGet, project, project, project, no},
		{core.SecretStoresList, project, project, project, no},
		{core.SecretStoresUpdate, project, project, no, no},
		{core.SecretStoresDelete, project, project, no, no},
		{core.SecretStoresUse, project, project, no, no},

		{core.InjectionsCreate, project, project, no, no},
		{core.InjectionsGet, project, project, project, no},
		{core.InjectionsList, project, project, project, no},
		{core.InjectionsUpdate, project, project, no, no},
		{core.InjectionsDelete, project, project, no, no},

		{core.SetsGet, project, no, no, project},
	}
}

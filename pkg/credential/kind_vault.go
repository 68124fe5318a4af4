package credential

import (
	"maps"
	"slices"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// defaultAppRoleMount is where Vault mounts the method unless told otherwise.
const defaultAppRoleMount = "approle"

// vault is a login to a HashiCorp Vault server.
var vault = behaviour[*credentialv1.Vault]{
	check: checkVault,
	facts: func(m *credentialv1.Vault) map[string]string {
		facts := vaultFacts(m)
		facts["address"], facts["namespace"] = m.GetAddress(), m.GetNamespace()
		maps.DeleteFunc(facts, func(_, value string) bool { return value == "" })
		return facts
	},
	references: func(m *credentialv1.Vault) []string {
		if source := m.GetAws().GetSource() + m.GetAzure().GetSource(); source != "" {
			return []string{source}
		}
		return nil
	},
	expireTime: func(m *credentialv1.Vault) time.Time {
		switch {
		case m.GetJwt() != nil:
			c, _ := vaultJWT(m.GetJwt().GetJwt())
			return c.Expire
		case m.GetCertificate() != nil:
			return certExpireTime(m.GetCertificate().GetPem())
		}
		return time.Time{}
	},
	checkSource: func(m *credentialv1.Vault, source Kind, r *report) {
		switch {
		case m.GetAws() != nil && !slices.Contains(vaultAWSSources, source):
			r.add("aws.source", "must be an AWS credential (awsAccessKey, awsRole or awsAssumeRole); it is of kind "+string(source))
		case m.GetAws() != nil && source == "awsRole" && m.GetAws().GetServerId() == "":
			// What is signed as the server itself must be of use at one Vault only.
			r.add("aws.serverId", "is required with a source of kind awsRole: without it whoever receives the signed request could show it to another server")
		case m.GetAzure() != nil && !slices.Contains(vaultAzureSources, source):
			r.add("azure.source", "must be an Azure credential (azureServicePrincipal, azureManagedIdentity or azureWorkloadIdentity); it is of kind "+string(source))
		}
	},
	// The server's own service account is who it is; the source of the others is
	// looked at for itself.
	ambient:  func(m *credentialv1.Vault) bool { return m.GetKubernetes() != nil },
	forwards: true,
	longLived: func(m *credentialv1.Vault) bool {
		return m.GetKubernetes() == nil && m.GetAws() == nil && m.GetAzure() == nil
	},
}

var (
	vaultAWSSources   = []Kind{"awsAccessKey", "awsRole", "awsAssumeRole"}
	vaultAzureSources = []Kind{"azureServicePrincipal", "azureManagedIdentity", "azureWorkloadIdentity"}
)

func checkVault(m *credentialv1.Vault, r *report) {
	switch method := m.GetMethod().(type) {
	case *credentialv1.Vault_Token:
		r.check("token", m.GetToken(), "1 to 65,536 visible ASCII characters without space",
			isEmpty, longerThan(65536), holdsInvisible)
	case *credentialv1.Vault_AppRole_:
		checkAppRole(m.GetAppRole(), r)
	case *credentialv1.Vault_Userpass_:
		u := method.Userpass
		r.check("userpass.username", u.GetUsername(), `1 to 1,024 visible ASCII characters without space and / ? # % \`,
			isEmpty, longerThan(1024), holdsInvisible, vaultNoUsername)
		r.check("userpass.password", u.GetPassword(), "1 to 65,536 bytes without NUL",
			isEmpty, longerThan(65536), holds("\x00", "a NUL"))
		u.Mount = checkVaultMount("userpass", "userpass", u.GetMount(), r)
	case *credentialv1.Vault_Kubernetes_:
		k := method.Kubernetes
		checkVaultRole("kubernetes", k.GetRole(), r, isEmpty)
		k.Mount = checkVaultMount("kubernetes", "kubernetes", k.GetMount(), r)
	case *credentialv1.Vault_Jwt_:
		j := method.Jwt
		j.Jwt = trimPasted(j.GetJwt())
		checkVaultRole("jwt", j.GetRole(), r)
		r.check("jwt.jwt", j.GetJwt(), "a signed JWT of at most 65,536 characters: three parts in base64url with dots between, the first two JSON objects",
			isEmpty, longerThan(65536), holdsInvisible, vaultNoJWT)
		j.Mount = checkVaultMount("jwt", "jwt", j.GetMount(), r)
	case *credentialv1.Vault_Certificate_:
		c := method.Certificate
		checkVaultRole("certificate", c.GetRole(), r)
		c.Pem = checkCertificate("certificate.pem", c.GetPem(), r)
		c.Mount = checkVaultMount("certificate", "cert", c.GetMount(), r)
	case *credentialv1.Vault_Aws_:
		a := method.Aws
		checkVaultRole("aws", a.GetRole(), r, isEmpty)
		checkVaultSource("aws", a.GetSource(), r)
		r.check("aws.serverId", a.GetServerId(), "at most 1,024 visible ASCII characters without space", longerThan(1024), holdsInvisible)
		a.Mount = checkVaultMount("aws", "aws", a.GetMount(), r)
	case *credentialv1.Vault_Azure_:
		a := method.Azure
		checkVaultRole("azure", a.GetRole(), r, isEmpty)
		checkVaultSource("azure", a.GetSource(), r)
		r.check("azure.resource", a.GetResource(), `what the mount is configured for, as "https://management.azure.com/": 1 to 1,024 visible ASCII characters without space`,
			isEmpty, longerThan(1024), holdsInvisible)
		a.Mount = checkVaultMount("azure", "azure", a.GetMount(), r)
	default:
		r.add("", exactlyOne(m.ProtoReflect().Descriptor().Oneofs().ByName("method")))
	}
	checkVaultServer(m, r)
}

// checkVaultServer checks where the login may be sent.
func checkVaultServer(m *credentialv1.Vault, r *report) {
	m.Address = trimPasted(m.GetAddress())
	switch {
	case m.GetAddress() != "":
		var problem string
		if m.Address, problem = vaultAddress(m.GetAddress()); problem != "" {
			r.add("address", `must be the server's URL of at most 2,048 characters, as "https://vault.example.com:8200"; it `+problem)
		}
	case vaultShowsAnother(m):
		r.add("address", "is required, as \"https://vault.example.com:8200\": what this login shows is made by another identity, and must reach that server only")
	}
	m.Namespace = strings.TrimSuffix(trimPasted(m.GetNamespace()), "/")
	r.check("namespace", m.GetNamespace(), `a path of at most 512 visible ASCII characters, as "team/a"`, longerThan(512), vaultNoNamespace)
	m.CaPem = checkCertAuthorities("caPem", m.GetCaPem(), r)
	if m.GetCertificate() != nil && strings.HasPrefix(m.GetAddress(), "http://") {
		r.add("address", "must begin with https://; logins by certificate are a part of TLS")
	}
}

// vaultShowsAnother says whether a login shows something of another identity than
// its own: of the server itself, or of the credential that it refers to.
func vaultShowsAnother(m *credentialv1.Vault) bool {
	return m.GetKubernetes() != nil || m.GetAws() != nil || m.GetAzure() != nil
}

// vaultFacts returns the facts of the method.
func vaultFacts(m *credentialv1.Vault) map[string]string {
	facts := map[string]string{"method": m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().ByName("method")).JSONName()}
	switch method := m.GetMethod().(type) {
	case *credentialv1.Vault_AppRole_:
		facts["roleId"], facts["mount"] = method.AppRole.GetRoleId(), method.AppRole.GetMount()
	case *credentialv1.Vault_Userpass_:
		facts["username"], facts["mount"] = method.Userpass.GetUsername(), method.Userpass.GetMount()
	case *credentialv1.Vault_Kubernetes_:
		facts["role"], facts["mount"] = method.Kubernetes.GetRole(), method.Kubernetes.GetMount()
	case *credentialv1.Vault_Jwt_:
		c, _ := vaultJWT(method.Jwt.GetJwt())
		facts["role"], facts["mount"] = method.Jwt.GetRole(), method.Jwt.GetMount()
		facts["issuer"], facts["subject"] = c.Issuer, c.Subject
	case *credentialv1.Vault_Certificate_:
		b, _ := certRead(method.Certificate.GetPem())
		all := certFacts(b.chain)
		for _, name := range []string{"subject", "issuer", "serialNumber", "fingerprintSha256", "chainExpireTime"} {
			facts[name] = all[name]
		}
		facts["role"], facts["mount"] = method.Certificate.GetRole(), method.Certificate.GetMount()
	case *credentialv1.Vault_Aws_:
		facts["role"], facts["mount"] = method.Aws.GetRole(), method.Aws.GetMount()
	case *credentialv1.Vault_Azure_:
		facts["role"], facts["mount"] = method.Azure.GetRole(), method.Azure.GetMount()
	}
	return facts
}

func checkAppRole(m *credentialv1.Vault_AppRole, r *report) {
	const ids = "4,096 visible ASCII characters without space"
	r.check("appRole.roleId", m.GetRoleId(), "1 to "+ids, isEmpty, longerThan(4096), holdsInvisible)
	r.check("appRole.secretId", m.GetSecretId(), "at most "+ids, longerThan(4096), holdsInvisible)
	m.Mount = checkVaultMount("appRole", defaultAppRoleMount, m.GetMount(), r)
}

// checkVaultMount returns where a method is mounted.
func checkVaultMount(method, usual, mount string, r *report) string {
	if mount == "" {
		return usual
	}
	r.check(method+".mount", mount,
		`a path of at most 1,024 visible ASCII characters, as "`+usual+`" or "team/`+usual+`", without "auth/" before it`,
		longerThan(1024), holdsInvisible, isNoMount)
	return mount
}

// checkVaultRole checks a role's name; more may say that it is required.
func checkVaultRole(method, role string, r *report, more ...test) {
	want := "at most 1,024 visible ASCII characters without space"
	if len(more) > 0 {
		want = "1 to 1,024 visible ASCII characters without space"
	}
	r.check(method+".role", role, want, append(more, longerThan(1024), holdsInvisible)...)
}

func checkVaultSource(method, source string, r *report) {
	r.check(method+".source", source, `a credential's full name, as "projects/default/credentials/deployer"`,
		isEmpty, longerThan(1024), vaultNoCredential)
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

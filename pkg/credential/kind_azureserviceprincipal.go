package credential

import (
	"crypto/sha1" //nolint:gosec // the portal shows this thumbprint; nothing is trusted by it
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// azureServicePrincipal is an application of Entra ID with its secret or
// certificate.
var azureServicePrincipal = behaviour[*credentialv1.AzureServicePrincipal]{
	check: checkAzureServicePrincipal,
	facts: func(m *credentialv1.AzureServicePrincipal) map[string]string {
		facts := map[string]string{"tenantId": m.GetTenantId(), "clientId": m.GetClientId()}
		azureFact(facts, "subscriptionId", m.GetSubscriptionId())
		cloud, _ := azureAuthority(m.GetAuthority())
		azureFact(facts, "cloud", cloud.name)
		if chain, _ := azureCertificate(m.GetCertificatePem()); len(chain.certificates) > 0 {
			sum := sha1.Sum(chain.certificates[0].Raw) //nolint:gosec // see above
			facts["certificateThumbprint"] = strings.ToUpper(hex.EncodeToString(sum[:]))
		}
		return facts
	},
	expireTime: func(m *credentialv1.AzureServicePrincipal) time.Time {
		if chain, _ := azureCertificate(m.GetCertificatePem()); len(chain.certificates) > 0 {
			return chain.certificates[0].NotAfter
		}
		return time.Time{}
	},
	mints:        []string{"azureAccessToken", "registryLogin", "kubernetesLogin"},
	checkRequest: checkAzureRequest(false),
}

func checkAzureServicePrincipal(m *credentialv1.AzureServicePrincipal, r *report) {
	m.TenantId, m.ClientId = azureNormalGUID(m.GetTenantId()), azureNormalGUID(m.GetClientId())
	m.SubscriptionId = azureNormalGUID(m.GetSubscriptionId())
	m.ClientSecret, m.CertificatePem = trimPasted(m.GetClientSecret()), trimPasted(m.GetCertificatePem())
	m.Authority, m.ResourceManager = trimPasted(m.GetAuthority()), trimPasted(m.GetResourceManager())

	p := azurePrincipal{m: m, r: r}
	if m.GetDocument() != "" {
		var ok bool
		if p.document, ok = newAzureDocument(m.GetDocument(), r); !ok {
			return
		}
	}
	p.id("tenantId", &m.TenantId, true)
	p.id("clientId", &m.ClientId, true)
	p.secret()
	p.id("subscriptionId", &m.SubscriptionId, false)
	p.cloud()
}

// azurePrincipal is one check of a service principal.
type azurePrincipal struct {
	m        *credentialv1.AzureServicePrincipal
	r        *report
	document azureDocument
}

// take fills a field in from the document, and returns the path that problems
// with its value are reported at.
func (p azurePrincipal) take(field string, value *string, normal func(string) string) string {
	from, ok := p.document[field]
	if !ok || from.other { // what is no string is reported already
		return field
	}
	said := normal(from.value)
	if *value == "" || *value == said {
		*value = said
		return "document." + from.name
	}
	p.r.add(field, "must be empty, or what the document says ("+from.name+"); it is something else")
	return field
}

// reported says whether the document has the field in a form that is no value.
func (p azurePrincipal) reported(field string) bool { return p.document[field].other }

// id checks a field that is a GUID.
func (p azurePrincipal) id(field string, value *string, required bool) {
	path := p.take(field, value, azureNormalGUID)
	switch {
	case *value != "":
		p.r.check(path, *value, azureWantGUID, azureIsNoGUID)
	case !required || p.reported(field):
	case p.document != nil:
		p.r.add("document", "must say the "+field+", or leave it to the field of that name; it does not")
	default:
		p.r.check(path, *value, azureWantGUID, isEmpty)
	}
}

// secret checks what the application proves itself with.
func (p azurePrincipal) secret() {
	const field = "clientSecret"
	path := p.take(field, &p.m.ClientSecret, func(value string) string { return value })
	set := 0
	for _, has := range []bool{p.m.GetClientSecret() != "", p.m.GetCertificatePem() != "", len(p.m.GetCertificatePfx()) > 0} {
		if has {
			set++
		}
	}
	file, isFile := p.document[azureFile]
	switch {
	case set == 0 && isFile:
		p.r.add("document."+file.name, "names a file of the machine where the document was made, which this server cannot read: "+
			"paste the text of that file into certificatePem, beside the document")
	case set == 0 && !p.reported(field):
		p.r.add("", "must hold one of clientSecret, certificatePem and certificatePfx, or a document that says the secret; none is set")
	case set > 1:
		p.r.add("", "must hold only one of clientSecret (or a document that says it), certificatePem and certificatePfx; "+strconv.Itoa(set)+" are set")
	}
	if p.m.GetClientSecret() != "" {
		p.r.check(path, p.m.GetClientSecret(),
			"the secret's value, 1 to 1,024 characters without control characters",
			moreCharactersThan(1024), holdsControl, azureIsPlaceholder)
	}
	p.certificate()
}

// certificate checks the PEM text, or makes one of the PKCS#12 file.
func (p azurePrincipal) certificate() {
	if len(p.m.GetCertificatePfx()) == 0 && p.m.GetCertificatePassword() != "" {
		p.r.add("certificatePassword", "must be empty without certificatePfx: a key in certificatePem is not encrypted")
	}
	if p.m.GetCertificatePem() != "" {
		chain, problem := azureCertificate(p.m.GetCertificatePem())
		if problem != "" {
			p.r.add("certificatePem", "must be a certificate with its RSA key, both in PEM form; it "+problem)
		} else {
			p.m.CertificatePem = chain.text
		}
	}
	if len(p.m.GetCertificatePfx()) > 0 {
		chain, field, problem := azureFromPFX(p.m.GetCertificatePfx(), p.m.GetCertificatePassword())
		if problem != "" {
			p.r.add(field, problem)
			return
		}
		if p.m.GetCertificatePem() == "" {
			p.m.CertificatePem = chain.text
		}
		p.m.CertificatePfx, p.m.CertificatePassword = nil, ""
	}
}

// cloud checks the two addresses, which must be of the same cloud, and fills in
// those that are missing.
func (p azurePrincipal) cloud() {
	p.m.Authority, p.m.ResourceManager = azureURL(p.m.GetAuthority()), azureURL(p.m.GetResourceManager())
	authorityPath := p.take("authority", &p.m.Authority, azureURL)
	managerPath := p.take("resourceManager", &p.m.ResourceManager, azureURL)

	var authority, manager azureCloud
	problems := 0
	if p.m.GetAuthority() != "" {
		var problem string
		if authority, problem = azureAuthority(p.m.GetAuthority()); problem != "" {
			p.r.add(authorityPath, "must be "+azureWantAuthority+"; it "+problem)
			problems++
		}
	}
	if p.m.GetResourceManager() != "" {
		var problem string
		if manager, problem = azureManager(p.m.GetResourceManager()); problem != "" {
			p.r.add(managerPath, "must be "+azureWantManager+"; it "+problem)
			problems++
		}
	}
	switch {
	case problems > 0:
		return
	case authority.name == "" && manager.name == "":
		authority, manager = azureClouds[0], azureClouds[0]
	case authority.name == "":
		authority = manager
	case manager.name == "":
		manager = authority
	case authority.name != manager.name:
		p.r.add(managerPath, "must be of the same cloud as the authority; it is of cloud "+manager.name+", and the authority of "+authority.name)
		return
	}
	p.m.Authority = "https://" + authority.authorities[0]
	if p.m.GetResourceManager() == "" {
		p.m.ResourceManager = "https://" + manager.managers[0]
	}
}

// azureURL writes an address as it is compared and kept: without a slash at its
// end and without the port that https has by itself, authorities under the first
// of their names. What is no such address stays as it is.
func azureURL(value string) string {
	value = trimPasted(value)
	host, problem := azureHost(value)
	if value == "" || problem != "" {
		return value
	}
	if cloud, problem := azureAuthority(value); problem == "" {
		host = cloud.authorities[0]
	}
	return "https://" + host
}

package credential

import (
	"regexp"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// awsRequests says how the requests for tokens from one of the AWS kinds differ
// from those from the others.
type awsRequests struct {
	// needsRole: the credential's own session is never handed out, so that every
	// token is of a role that the request names.
	needsRole bool
	// ownRole: the credential is a role itself, and mints its own session when no
	// other role is named.
	ownRole bool
	// chained: the credential is a role's, so that further sessions are short.
	chained bool
}

// check normalises a request and reports what is wrong with it.
func (a awsRequests) check(m *credentialv1.TokenRequest, r *report) {
	switch request := m.GetKind().(type) {
	case *credentialv1.TokenRequest_AwsSession_:
		checkAwsDuration(r, request.AwsSession.GetDuration(), awsLongestSession)
	case *credentialv1.TokenRequest_AwsAssumeRole:
		a.checkRole(request.AwsAssumeRole, r)
	case *credentialv1.TokenRequest_RegistryLogin_:
		a.checkRegistry(request.RegistryLogin, r)
	case *credentialv1.TokenRequest_KubernetesLogin_:
		a.checkCluster(request.KubernetesLogin, r)
	}
}

func (a awsRequests) checkRole(m *credentialv1.TokenRequest_AwsRoleSession, r *report) {
	m.RoleArn = awsUnquote(m.GetRoleArn())
	m.ExternalId = awsUnquote(m.GetExternalId())
	m.SessionName = awsUnquote(m.GetSessionName())
	m.SourceIdentity = awsUnquote(m.GetSourceIdentity())
	m.Policy = awsCompact(m.GetPolicy())
	awsUnquoteAll(m.GetPolicyArns())
	m.Region = awsNormalRegion(m.GetRegion())
	switch {
	case m.GetRoleArn() == "" && a.ownRole:
		// How long its own session may be depends on the payload as well.
		checkAwsDuration(r, m.GetDuration(), awsLongestRole)
		awsOwnSession(m, r)
	case a.chained:
		checkAwsSession(m, awsLongestChain, r)
	default:
		checkAwsSession(m, awsLongestRole, r)
	}
}

// awsOwnSession reports what is set beside the duration.
func awsOwnSession(m *credentialv1.TokenRequest_AwsRoleSession, r *report) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"externalId", m.GetExternalId() != ""},
		{"sessionName", m.GetSessionName() != ""},
		{"tags", len(m.GetTags()) > 0},
		{"transitiveTagKeys", len(m.GetTransitiveTagKeys()) > 0},
		{"policy", m.GetPolicy() != ""},
		{"policyArns", len(m.GetPolicyArns()) > 0},
		{"region", m.GetRegion() != ""},
		{"sourceIdentity", m.GetSourceIdentity() != ""},
	} {
		if f.set {
			r.add(f.name, "must be empty without roleArn, since the credential's own session is made as it is stored; name a roleArn to assume a further role")
		}
	}
}

// checkActAs normalises and checks the role that a login is made as. It may be
// empty where the credential has a session of its own to give.
func (a awsRequests) checkActAs(roleARN string, r *report) string {
	roleARN = awsUnquote(roleARN)
	switch {
	case roleARN != "":
		r.check("roleArn", roleARN, awsWantRole, awsIsNoRole)
	case a.needsRole:
		r.add("roleArn", "must be "+awsWantRole+", since the server's own role is never handed out; it is empty")
	}
	return roleARN
}

const awsWantRegistry = `the host of an ECR registry, as "123456789012.dkr.ecr.eu-central-1.amazonaws.com" or "public.ecr.aws", or empty for the account's own`

// The registries of ECR Public are logged in to in one region.
// Source: https://docs.aws.amazon.com/AmazonECR/latest/public/public-registry-auth.html
const (
	awsPublicRegistry = "public.ecr.aws"
	awsPublicRegion   = "us-east-1"
)

// Hosts of private registries: the older endpoints, with FIPS and without, and
// those that have IPv6 too.
// Source: https://docs.aws.amazon.com/general/latest/gr/ecr.html
var (
	awsRegistry     = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]{1,40})\.([a-z.-]{1,40})$`)
	awsDualRegistry = regexp.MustCompile(`^[0-9]{12}\.dkr-ecr(?:-fips)?\.([a-z0-9-]{1,40})\.on\.(aws|amazonwebservices\.com\.cn)$`)
)

func (a awsRequests) checkRegistry(m *credentialv1.TokenRequest_RegistryLogin, r *report) {
	server := strings.ToLower(awsUnquote(m.GetServer()))
	m.Server = strings.TrimSuffix(strings.TrimPrefix(server, "https://"), "/")
	m.Region = awsNormalRegion(m.GetRegion())
	region, problem := awsRegistryRegion(m.GetServer())
	switch {
	case m.GetServer() == "":
	case problem != "":
		r.add("server", "must be "+awsWantRegistry+"; it "+problem)
	case m.GetRegion() == "":
		m.Region = region
	case awsPartitionID(m.GetRegion()) != "" && m.GetRegion() != region:
		r.add("region", "must be empty or "+region+", which the server is in; it is another")
	}
	if m.GetRegion() != "" {
		r.check("region", m.GetRegion(), awsWantRegion, awsIsNoRegion)
	}
	m.RoleArn = a.checkActAs(m.GetRoleArn(), r)
	if m.GetImpersonate() != "" {
		r.add("impersonate", "must be empty: it is for Google Cloud; name a roleArn instead")
	}
}

// awsRegistryRegion returns the region of a registry, or what is wrong with its
// name.
func awsRegistryRegion(server string) (region, problem string) {
	if server == awsPublicRegistry {
		return awsPublicRegion, ""
	}
	if strings.ContainsAny(server, "/:?#@") {
		return "", "has a path, a tag or a port"
	}
	if found := awsDualRegistry.FindStringSubmatch(server); found != nil {
		if p, known := awsPartitionOf(found[1]); known && (p.id == "aws-cn") == (found[2] != "aws") {
			return found[1], ""
		}
		return "", "names no region of its domain"
	}
	found := awsRegistry.FindStringSubmatch(server)
	if found == nil {
		return "", "has not that form"
	}
	p, known := awsPartitionOf(found[1])
	if !known || p.registries != found[2] {
		return "", "names no region of its domain"
	}
	return found[1], ""
}

// Source: https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
var awsCluster = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)

func awsIsNoCluster(value string) string {
	switch {
	case value == "":
		return "is empty"
	case strings.HasPrefix(value, "arn:"):
		return "is an ARN: give the name at its end"
	case !awsCluster.MatchString(value):
		return "has not that form"
	}
	return ""
}

func (a awsRequests) checkCluster(m *credentialv1.TokenRequest_KubernetesLogin, r *report) {
	m.Cluster = awsUnquote(m.GetCluster())
	m.Region = awsNormalRegion(m.GetRegion())
	r.check("cluster", m.GetCluster(),
		"the name of an EKS cluster, 1 to 100 characters of [A-Za-z0-9_-] that begin with a letter or a digit", awsIsNoCluster)
	r.check("region", m.GetRegion(), awsWantRegion+", the cluster's", awsIsNoRegion)
	m.RoleArn = a.checkActAs(m.GetRoleArn(), r)
	if m.GetServerId() != "" {
		r.add("serverId", "must be empty: it is for clusters of Azure")
	}
}

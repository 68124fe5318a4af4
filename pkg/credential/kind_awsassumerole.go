package credential

import (
	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/resourcename"
)

// awsAssumeRole is a role that is assumed with another credential.
var awsAssumeRole = behaviour[*credentialv1.AwsAssumeRole]{
	check: checkAwsAssumeRole,
	facts: func(m *credentialv1.AwsAssumeRole) map[string]string {
		arn, _ := awsParseARN(m.GetRoleArn())
		facts := map[string]string{"roleArn": m.GetRoleArn(), "accountId": arn.account, "partition": arn.partition}
		if m.GetExternalId() != "" {
			facts["externalId"] = m.GetExternalId()
		}
		return facts
	},
	references:   func(m *credentialv1.AwsAssumeRole) []string { return []string{m.GetSource()} },
	checkSource:  checkAwsSource,
	longLived:    func(*credentialv1.AwsAssumeRole) bool { return false },
	mints:        []string{"awsAssumeRole", "registryLogin", "kubernetesLogin"},
	checkRequest: awsRequests{ownRole: true, chained: true}.check,
}

func checkAwsAssumeRole(m *credentialv1.AwsAssumeRole, r *report) {
	m.Source = trimPasted(m.GetSource())
	r.check("source", m.GetSource(), `the credential to assume the role with, as "projects/PROJECT/credentials/CREDENTIAL"`, isEmpty, awsIsNoCredential)
	m.RoleArn = awsUnquote(m.GetRoleArn())
	m.ExternalId = awsUnquote(m.GetExternalId())
	m.SessionName = awsUnquote(m.GetSessionName())
	m.SourceIdentity = awsUnquote(m.GetSourceIdentity())
	m.Policy = awsCompact(m.GetPolicy())
	awsUnquoteAll(m.GetPolicyArns())
	m.Region = awsNormalRegion(m.GetRegion())
	checkAwsSession(m, awsLongestRole, r)
	if m.GetRegion() == "" {
		arn, _ := awsParseARN(m.GetRoleArn())
		m.Region = awsFirstRegion(arn.partition)
	}
}

// awsIsNoCredential finds what is no full name of a credential.
func awsIsNoCredential(value string) string {
	if _, err := resourcename.ParseCredential(value); err != nil {
		return "has not that form"
	}
	return ""
}

// checkAwsSource reports a source that no role can be assumed with, and a
// duration that is too long for this one.
func checkAwsSource(m *credentialv1.AwsAssumeRole, source Kind, r *report) {
	switch source {
	case "awsAccessKey":
	case "awsRole", "awsAssumeRole":
		checkAwsDuration(r, m.GetDuration(), awsLongestChain)
	default:
		r.add("source", "must be a credential of kind awsAccessKey, awsRole or awsAssumeRole; it is of kind "+string(source))
	}
}

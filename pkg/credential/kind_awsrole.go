package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// awsRole is the role of the machine, container or pod that the server runs in.
var awsRole = behaviour[*credentialv1.AwsRole]{
	check: checkAwsRole,
	facts: func(m *credentialv1.AwsRole) map[string]string {
		facts := map[string]string{"source": m.GetSource().String()}
		if m.GetRoleArn() != "" {
			facts["roleArn"] = m.GetRoleArn()
		}
		return facts
	},
	ambient:      func(*credentialv1.AwsRole) bool { return true },
	longLived:    func(*credentialv1.AwsRole) bool { return false },
	mints:        []string{"awsAssumeRole", "registryLogin", "kubernetesLogin"},
	checkRequest: awsRequests{needsRole: true, chained: true}.check,
}

func checkAwsRole(m *credentialv1.AwsRole, r *report) {
	if m.GetSource() == credentialv1.AwsRole_SOURCE_UNSPECIFIED {
		m.Source = credentialv1.AwsRole_INSTANCE_METADATA
	}
	if _, known := credentialv1.AwsRole_Source_name[int32(m.GetSource())]; !known {
		r.add("source", "must be INSTANCE_METADATA, CONTAINER, WEB_IDENTITY or POD_IDENTITY; it is none of them")
	}
	m.RoleArn = awsUnquote(m.GetRoleArn())
	switch {
	case m.GetRoleArn() == "":
	case m.GetSource() != credentialv1.AwsRole_WEB_IDENTITY:
		r.add("roleArn", "must be empty unless source is WEB_IDENTITY, since the other sources have one role; "+
			"to assume another, make an awsAssumeRole with this credential as its source")
	default:
		r.check("roleArn", m.GetRoleArn(), awsWantRole, awsIsNoRole)
	}
	m.Region = awsNormalRegion(m.GetRegion())
	if m.GetRegion() == "" {
		arn, _ := awsParseARN(m.GetRoleArn())
		m.Region = awsFirstRegion(arn.partition)
	}
	r.check("region", m.GetRegion(), awsWantRegion, awsIsNoRegion, awsOtherPartition(m.GetRoleArn()))
}

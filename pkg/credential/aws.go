package credential

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// awsPartition is one of the groups of regions that AWS keeps apart: an account
// and its keys exist in one of them only.
type awsPartition struct {
	id string
	// region is asked when a payload names none.
	region string
	// regions is the form of its regions' names.
	regions *regexp.Regexp
	// registries end the names of its ECR registries.
	registries string
}

// awsPartitions are told apart by the form of a region's name, as AWS's own
// programs do it, so that new regions need no change here.
// Source: aws-sdk-go-v2, internal/endpoints/awsrulesfn/partitions.json.
var awsPartitions = []awsPartition{
	{"aws", "us-east-1", regexp.MustCompile(`^(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-[0-9]{1,2}$`), "amazonaws.com"},
	{"aws-cn", "cn-north-1", regexp.MustCompile(`^cn-[a-z]+-[0-9]{1,2}$`), "amazonaws.com.cn"},
	{"aws-us-gov", "us-gov-west-1", regexp.MustCompile(`^us-gov-[a-z]+-[0-9]{1,2}$`), "amazonaws.com"},
	{"aws-eusc", "eusc-de-east-1", regexp.MustCompile(`^eusc-de-[a-z]+-[0-9]{1,2}$`), "amazonaws.eu"},
	{"aws-iso", "us-iso-east-1", regexp.MustCompile(`^us-iso-[a-z]+-[0-9]{1,2}$`), "c2s.ic.gov"},
	{"aws-iso-b", "us-isob-east-1", regexp.MustCompile(`^us-isob-[a-z]+-[0-9]{1,2}$`), "sc2s.sgov.gov"},
	{"aws-iso-e", "eu-isoe-west-1", regexp.MustCompile(`^eu-isoe-[a-z]+-[0-9]{1,2}$`), "cloud.adc-e.uk"},
	{"aws-iso-f", "us-isof-south-1", regexp.MustCompile(`^us-isof-[a-z]+-[0-9]{1,2}$`), "csp.hci.ic.gov"},
}

// awsDefaultRegion is that of the global STS endpoint.
const awsDefaultRegion = "us-east-1"

// awsPartitionOf returns the partition of a region.
func awsPartitionOf(region string) (awsPartition, bool) {
	i := slices.IndexFunc(awsPartitions, func(p awsPartition) bool { return p.regions.MatchString(region) })
	if i < 0 {
		return awsPartition{}, false
	}
	return awsPartitions[i], true
}

// awsPartitionID returns the id of a region's partition, "" for no region.
func awsPartitionID(region string) string {
	p, _ := awsPartitionOf(region)
	return p.id
}

// awsFirstRegion returns the region that is asked in a partition by default.
func awsFirstRegion(partition string) string {
	i := slices.IndexFunc(awsPartitions, func(p awsPartition) bool { return p.id == partition })
	if i < 0 {
		return awsDefaultRegion
	}
	return awsPartitions[i].region
}

const awsWantRegion = `an AWS region, as "eu-central-1"`

// awsIsNoRegion finds what has the form of no partition's regions.
func awsIsNoRegion(value string) string {
	if value == "" {
		return "is empty"
	}
	if _, known := awsPartitionOf(value); known {
		return ""
	}
	last := len(value) - 1
	if _, zone := awsPartitionOf(value[:last]); zone && value[last] >= 'a' && value[last] <= 'z' {
		return "is an availability zone: leave out the letter at its end"
	}
	return "has not the form of one"
}

// awsNormalRegion removes what a paste leaves, and makes the letters small.
func awsNormalRegion(value string) string { return strings.ToLower(awsUnquote(value)) }

// awsUnquote removes white space around a value and then one pair of quotes:
// nothing of AWS begins or ends with one.
func awsUnquote(value string) string {
	value = trimPasted(value)
	for _, quote := range []string{`"`, "'", "`"} {
		if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return trimPasted(value[1 : len(value)-1])
		}
	}
	return value
}

// awsHoldsOther finds characters outside a set, which is written as in a
// character class of a regular expression.
func awsHoldsOther(set string) test {
	form := regexp.MustCompile("^[" + set + "]*$")
	return func(value string) string {
		if !form.MatchString(value) {
			return "holds another character"
		}
		return ""
	}
}

// awsShorterThan finds less than limit bytes.
func awsShorterThan(limit int) test {
	return func(value string) string {
		switch {
		case value == "":
			return "is empty"
		case len(value) < limit:
			return "is shorter"
		}
		return ""
	}
}

// awsAccountOf returns the account that an access key id belongs to, "" for ids
// of the older form, which do not tell.
//
// Ids that AWS makes since 2019 are, after four letters for their type, ten bytes
// in base32: one bit that is set, 40 bits with the account's number, and 39 that
// tell keys apart. AWS does not document it; it was found by Aidan Steele ("AWS
// Access Key ID formats", 2020) and Tal Be'ery ("A short note on AWS KEY ID",
// 2023), and sts:GetAccessKeyInfo gives the same answers.
func awsAccountOf(keyID string) string {
	const (
		length   = 20
		accounts = 1_000_000_000_000
	)
	if len(keyID) != length {
		return ""
	}
	raw, err := base32.StdEncoding.DecodeString(keyID[4:])
	if err != nil || raw[0]&0x80 == 0 {
		return ""
	}
	number := binary.BigEndian.Uint64(raw[:8]) << 1 >> 24
	if number >= accounts {
		return ""
	}
	return fmt.Sprintf("%012d", number)
}

// awsARN is an Amazon Resource Name of IAM, which is the same in all regions.
type awsARN struct{ partition, account, resource string }

// awsParseARN splits an ARN of IAM, of any partition known here.
func awsParseARN(value string) (awsARN, bool) {
	const fields = 6
	parts := strings.SplitN(value, ":", fields)
	if len(parts) != fields || parts[0] != "arn" || parts[2] != "iam" || parts[3] != "" {
		return awsARN{}, false
	}
	known := slices.ContainsFunc(awsPartitions, func(p awsPartition) bool { return p.id == parts[1] })
	return awsARN{parts[1], parts[4], parts[5]}, known
}

const awsWantRole = `the ARN of a role, as "arn:aws:iam::123456789012:role/path/name"`

// awsMaxARN is the longest ARN that STS takes.
const awsMaxARN = 2048

var (
	awsAccount  = regexp.MustCompile(`^[0-9]{12}$`)
	awsRoleForm = regexp.MustCompile(`^role/(?:[!-.0-~]+/)*[A-Za-z0-9_+=,.@-]{1,64}$`)
	// A policy's name may be twice as long.
	awsPolicyForm = regexp.MustCompile(`^policy/(?:[!-.0-~]+/)*[A-Za-z0-9_+=,.@-]{1,128}$`)
)

// awsIsNoRole finds what is no ARN of a role, and says what people have in its
// place.
func awsIsNoRole(value string) string {
	if len(value) > awsMaxARN {
		return "is longer than 2,048 characters"
	}
	if strings.Contains(value, ":assumed-role/") {
		return "is the ARN of a session: give that of the role itself, with :iam: and :role/ in it"
	}
	for _, other := range []string{"instance-profile", "user", "group", "policy"} {
		if strings.Contains(value, ":"+other+"/") {
			return "is the ARN of another resource (" + other + ")"
		}
	}
	arn, ok := awsParseARN(value)
	switch {
	case !strings.HasPrefix(value, "arn:"):
		return `does not begin with "arn:"`
	case !ok:
		return "is of no partition known here, or not of iam"
	case !awsAccount.MatchString(arn.account):
		return "has no account number of 12 digits"
	case !awsRoleForm.MatchString(arn.resource):
		return `does not end with "role/", a path and a name of at most 64 characters of [A-Za-z0-9_+=,.@-]`
	}
	return ""
}

// awsIsNoPolicyARN finds what is no ARN of a managed policy.
func awsIsNoPolicyARN(value string) string {
	arn, ok := awsParseARN(value)
	switch {
	case len(value) > awsMaxARN:
		return "is longer than 2,048 characters"
	case !ok:
		return "has not that form"
	case arn.account != "aws" && !awsAccount.MatchString(arn.account):
		return "has neither an account number of 12 digits nor aws"
	case !awsPolicyForm.MatchString(arn.resource):
		return `does not end with "policy/", a path and a name`
	}
	return ""
}

// awsOtherPartition finds a region outside the partition of an ARN. It finds
// nothing when either is none, which is reported elsewhere.
func awsOtherPartition(arn string) test {
	return func(region string) string {
		parsed, ok := awsParseARN(arn)
		if id := awsPartitionID(region); ok && id != "" && id != parsed.partition {
			return "is a region of partition " + id + ", and the role is in " + parsed.partition
		}
		return ""
	}
}

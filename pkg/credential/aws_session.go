package credential

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
)

// The limits of AssumeRole, in bytes where nothing else is said.
// Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
const (
	awsMaxTags        = 50
	awsMaxTagKey      = 128 // characters
	awsMaxTagValue    = 256 // characters
	awsMaxPolicy      = 2048
	awsMaxPolicyARNs  = 10
	awsMaxExternalID  = 1224
	awsMaxSessionName = 64
	awsMinDuration    = 15 * time.Minute
)

// awsDuration is the longest duration of a kind of session.
type awsDuration struct {
	length time.Duration
	// text is the length in words, and what else there is to say about it.
	text string
}

var (
	awsLongestSession = awsDuration{36 * time.Hour, "36 hours"}
	awsLongestRole    = awsDuration{12 * time.Hour, "12 hours"}
	awsLongestChain   = awsDuration{time.Hour, "1 hour, to which AWS limits a role that is assumed with another's credentials,"}
)

// awsSession is what a call of AssumeRole is told, in a payload and in a request.
type awsSession interface {
	GetRoleArn() string
	GetExternalId() string
	GetSessionName() string
	GetDuration() *durationpb.Duration
	GetTags() map[string]string
	GetTransitiveTagKeys() []string
	GetPolicy() string
	GetPolicyArns() []string
	GetRegion() string
	GetSourceIdentity() string
}

// checkAwsSession reports what is wrong with a normalised session.
func checkAwsSession(m awsSession, longest awsDuration, r *report) {
	r.check("roleArn", m.GetRoleArn(), awsWantRole, isEmpty, awsIsNoRole)
	if m.GetExternalId() != "" {
		r.check("externalId", m.GetExternalId(), "2 to 1,224 characters of [A-Za-z0-9_+=,.@:/-], as the role's trust policy asks for",
			awsShorterThan(2), longerThan(awsMaxExternalID), awsHoldsOther(`A-Za-z0-9_+=,.@:/\-`))
	}
	checkAwsName(r, "sessionName", m.GetSessionName())
	checkAwsDuration(r, m.GetDuration(), longest)
	checkAwsTags(m, r)
	checkAwsPolicies(m, r)
	if m.GetRegion() != "" {
		r.check("region", m.GetRegion(), awsWantRegion, awsIsNoRegion, awsOtherPartition(m.GetRoleArn()))
	}
	checkAwsName(r, "sourceIdentity", m.GetSourceIdentity())
}

func checkAwsName(r *report, field, value string) {
	if value == "" {
		return
	}
	r.check(field, value, "2 to 64 characters of [A-Za-z0-9_+=,.@-]",
		awsShorterThan(2), longerThan(awsMaxSessionName), awsHoldsOther(`A-Za-z0-9_+=,.@\-`))
}

// checkAwsDuration reports a duration that AWS does not take. Absent is the
// default, which always is possible.
func checkAwsDuration(r *report, d *durationpb.Duration, longest awsDuration) {
	if d == nil {
		return
	}
	want := "must be 15 minutes to " + longest.text + " in whole seconds; it is "
	switch length := d.AsDuration(); {
	case d.CheckValid() != nil:
		r.add("duration", want+"no valid duration")
	case length < awsMinDuration:
		r.add("duration", want+"shorter")
	case length > longest.length:
		r.add("duration", want+"longer")
	case length%time.Second != 0:
		r.add("duration", want+"no whole number of them")
	}
}

// checkAwsTags reports session tags that STS refuses. Keys are not repeated: the
// path ends at the map.
func checkAwsTags(m awsSession, r *report) {
	const want = "must be at most 50 tags, with keys of 1 to 128 and values of at most 256 characters (letters, digits, spaces and _.:/=+-@); "
	problems := map[string]bool{}
	for key, value := range m.GetTags() {
		if p := awsTagProblem("key", key, awsMaxTagKey); p != "" {
			problems[p] = true
		}
		if p := awsTagProblem("value", value, awsMaxTagValue); p != "" && value != "" {
			problems[p] = true
		}
	}
	if len(m.GetTags()) > awsMaxTags {
		problems["there are more"] = true
	}
	if len(problems) > 0 {
		r.add("tags", want+strings.Join(slices.Sorted(maps.Keys(problems)), ", and "))
	}
	seen := map[string]bool{}
	for i, key := range m.GetTransitiveTagKeys() {
		if i == awsMaxTags {
			r.add("transitiveTagKeys", "must be at most 50 keys; there are more")
			break
		}
		field := "transitiveTagKeys[" + strconv.Itoa(i) + "]"
		if _, tagged := m.GetTags()[key]; !tagged {
			r.add(field, "must be a key of tags; it is none")
		} else if seen[key] {
			r.add(field, "must be named once; it is named before")
		}
		seen[key] = true
	}
}

// awsTagProblem finds what is wrong with a key or a value of a tag.
func awsTagProblem(what, value string, most int) string {
	switch {
	case value == "":
		return "a " + what + " is empty"
	case utf8.RuneCountInString(value) > most:
		return "a " + what + " is longer"
	case what == "key" && strings.HasPrefix(strings.ToLower(value), "aws:"):
		return `a key begins with "aws:", which AWS keeps for itself`
	case strings.ContainsFunc(value, awsNotInTags):
		return "a " + what + " holds another character"
	}
	return ""
}

func awsNotInTags(c rune) bool {
	return !unicode.IsLetter(c) && !unicode.IsNumber(c) && !unicode.Is(unicode.Z, c) && !strings.ContainsRune("_.:/=+-@", c)
}

func checkAwsPolicies(m awsSession, r *report) {
	if m.GetPolicy() != "" {
		r.check("policy", m.GetPolicy(),
			"a policy, a JSON object of at most 2,048 characters without needless white space (STS packs it with the tags, and limits what comes out as well)",
			awsIsNoObject, moreCharactersThan(awsMaxPolicy), awsBeyondLatin)
	}
	role, hasRole := awsParseARN(m.GetRoleArn())
	for i, arn := range m.GetPolicyArns() {
		if i == awsMaxPolicyARNs {
			r.add("policyArns", "must be at most 10 ARNs; there are more")
			break
		}
		field := "policyArns[" + strconv.Itoa(i) + "]"
		r.check(field, arn, `the ARN of a managed policy, as "arn:aws:iam::aws:policy/ReadOnlyAccess"`, isEmpty, awsIsNoPolicyARN)
		if policy, ok := awsParseARN(arn); ok && hasRole && role.partition != policy.partition {
			r.add(field, "must be a policy of the role's partition, "+role.partition+"; it is of "+policy.partition)
		}
	}
}

func awsIsNoObject(value string) string {
	if !json.Valid([]byte(value)) {
		return "is not valid JSON"
	}
	if value[0] != '{' {
		return "is no object"
	}
	return ""
}

// awsBeyondLatin finds characters that STS refuses in policies.
func awsBeyondLatin(value string) string {
	if strings.ContainsFunc(value, func(c rune) bool { return c > '\u00ff' }) {
		return `holds a character beyond Latin-1: write it as \u and four digits`
	}
	return ""
}

// awsCompact removes the white space of a policy; what is no JSON stays as it is.
func awsCompact(policy string) string {
	policy = trimPasted(policy)
	var out bytes.Buffer
	if json.Compact(&out, []byte(policy)) != nil {
		return policy
	}
	return out.String()
}

// awsUnquoteAll unquotes each of the values in place.
func awsUnquoteAll(values []string) {
	for i, v := range values {
		values[i] = awsUnquote(v)
	}
}

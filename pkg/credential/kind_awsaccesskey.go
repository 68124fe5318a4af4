package credential

import (
	"strconv"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// awsAccessKey is an access key of an IAM user, or temporary credentials.
var awsAccessKey = behaviour[*credentialv1.AwsAccessKey]{
	check: checkAwsAccessKey,
	facts: func(m *credentialv1.AwsAccessKey) map[string]string {
		facts := map[string]string{
			"accessKeyId": m.GetAccessKeyId(),
			"temporary":   strconv.FormatBool(m.GetSessionToken() != ""),
			"partition":   awsPartitionID(m.GetRegion()),
		}
		if account := awsAccountOf(m.GetAccessKeyId()); account != "" {
			facts["accountId"] = account
		}
		return facts
	},
	expireTime:   awsExpireTime,
	longLived:    func(m *credentialv1.AwsAccessKey) bool { return m.GetSessionToken() == "" },
	mints:        []string{"awsSession", "awsAssumeRole", "registryLogin", "kubernetesLogin"},
	checkRequest: awsRequests{}.check,
}

const (
	awsWantKeyID  = `16 to 128 characters of [A-Z0-9], as "AKIAIOSFODNN7EXAMPLE"`
	awsWantSecret = "40 characters of [A-Za-z0-9/+=]"
	awsWantToken  = "16 to 16,384 characters of [A-Za-z0-9/+=_-]"
)

// What key ids of sessions begin with, and those of users.
// Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
const (
	awsTemporary = "ASIA"
	awsPermanent = "AKIA"
)

// awsPlaces says where the values of fields were found, by the fields' names: a
// path in the document, or the document itself where they should have been. Those
// that are not there were found in their fields.
type awsPlaces map[string]string

func (p awsPlaces) of(field string) string {
	if place, ok := p[field]; ok {
		return place
	}
	return field
}

func checkAwsAccessKey(m *credentialv1.AwsAccessKey, r *report) {
	m.AccessKeyId = awsUnquote(m.GetAccessKeyId())
	m.SecretAccessKey = awsUnquote(m.GetSecretAccessKey())
	// Terminals break long lines, and a token has no white space of its own.
	m.SessionToken = strings.Join(strings.Fields(awsUnquote(m.GetSessionToken())), "")
	m.Region = awsNormalRegion(m.GetRegion())
	places := awsPlaces{}
	if m.GetDocument() != "" {
		found, problem := awsReadDocument(m.GetDocument())
		m.Document = ""
		if problem != "" {
			r.add(awsDocument, problem)
			return
		}
		awsMerge(m, found, places, r)
		awsMergeExpiration(m, found, places, r)
	}
	checkAwsKey(m, places, r)
	checkAwsExpiration(m, places, r)
	if m.GetRegion() == "" {
		m.Region = awsDefaultRegion
	}
}

// awsMerge puts what was read from a document into the fields.
func awsMerge(m *credentialv1.AwsAccessKey, found map[string]awsFound, places awsPlaces, r *report) {
	for _, f := range []struct {
		name     string
		value    *string
		required bool
	}{
		{awsKeyID, &m.AccessKeyId, true},
		{awsSecret, &m.SecretAccessKey, true},
		{awsToken, &m.SessionToken, strings.HasPrefix(found[awsKeyID].value, awsTemporary)},
		{awsRegion, &m.Region, false},
	} {
		read, ok := found[f.name]
		switch {
		case !ok && f.required && *f.value == "":
			places[f.name] = awsDocument
		case !ok:
		case *f.value == "" || *f.value == read.value:
			*f.value, places[f.name] = read.value, read.place
		default:
			r.add(f.name, "must be empty beside a document, or the same as in it; it is another")
		}
	}
}

// checkAwsKey reports the values, each where it was found.
func checkAwsKey(m *credentialv1.AwsAccessKey, places awsPlaces, r *report) {
	check := func(field, what, value, want string, tests ...test) {
		place := places.of(field)
		if place == awsDocument && value == "" {
			r.add(place, "must hold "+what+"; it holds none")
			return
		}
		if place == awsDocument {
			// It has no name there, so that the sentence has to name it.
			want = what + " of " + want
		}
		r.check(place, value, want, tests...)
	}
	check(awsKeyID, "an access key id", m.GetAccessKeyId(), awsWantKeyID,
		isEmpty, awsLooksLikeSecret, awsIsMasked, awsHoldsOther("A-Z0-9"), awsShorterThan(16), longerThan(128))
	check(awsSecret, "a secret access key", m.GetSecretAccessKey(), awsWantSecret,
		isEmpty, awsLooksLikeKeyID, awsIsMasked, awsHoldsOther("A-Za-z0-9/+="), awsShorterThan(40), longerThan(40))
	switch token := m.GetSessionToken(); {
	case token != "" && strings.HasPrefix(m.GetAccessKeyId(), awsPermanent):
		r.add(places.of(awsToken), "must be empty, since the key id begins with AKIA, as those of users do, and only sessions have a token; it is not")
	case token != "":
		check(awsToken, "a session token", token, awsWantToken,
			awsIsMasked, awsHoldsOther(`A-Za-z0-9/+=_\-`), awsShorterThan(16), longerThan(16384))
	case strings.HasPrefix(m.GetAccessKeyId(), awsTemporary):
		check(awsToken, "a session token, since the key id begins with ASIA, as those of sessions do", token,
			"set, since the key id begins with ASIA, as those of sessions do", isEmpty)
	}
	if m.GetRegion() != "" {
		check(awsRegion, "a region", m.GetRegion(), awsWantRegion, awsIsNoRegion)
	}
}

// awsIsMasked finds what documentation and logs show in place of a value.
func awsIsMasked(value string) string {
	switch {
	case strings.HasSuffix(value, "...") || strings.HasSuffix(value, "…"):
		return "ends with dots: it was cut off where it was copied"
	case strings.Contains(value, "***"):
		return "holds asterisks, as logs show in place of a secret"
	case strings.HasPrefix(value, "<") && strings.HasSuffix(value, ">"):
		return "is a placeholder in angle brackets"
	}
	return ""
}

// awsLooksLikeSecret finds one of two values that were swapped.
func awsLooksLikeSecret(value string) string {
	if len(value) == 40 && strings.ToUpper(value) != value {
		return "has the form of a secret access key: are the two swapped?"
	}
	return ""
}

// awsLooksLikeKeyID finds the other one.
func awsLooksLikeKeyID(value string) string {
	if awsKeyForm.MatchString(value) && len(value) < 40 {
		return "has the form of an access key id: are the two swapped?"
	}
	return ""
}

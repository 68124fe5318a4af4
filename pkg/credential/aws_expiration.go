package credential

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

const (
	// awsExpirationName is how documents call the end of temporary credentials: STS
	// and credential_process, the environment, and the tools that write profiles.
	awsExpirationName = `(?:aws[_. -]?)?(?:(?:credentials?|session)[_ -]?)?expiration|x_security_token_expires`
	// awsSpacedTime is a time with a space in it, as some of those tools write it
	// without quotes.
	awsSpacedTime = `[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[^\s"',;]*`

	awsWantExpiration = `the time at which the credentials end, of the years 2000 to 9999, as "2026-11-22T10:00:00Z"`
)

// Times outside of these are no ends of credentials: programs write the first
// year of all where they know of none.
var (
	awsFirstExpiration = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	awsAfterExpiration = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
)

// awsParseExpiration reads a time as programs of AWS write it: with a zone or
// without, which means UTC; or in seconds or milliseconds since 1970.
func awsParseExpiration(value string) (time.Time, bool) {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		t := time.Unix(n, 0)
		if n >= 1e11 { // seconds of the year 5138, milliseconds of 1973
			t = time.UnixMilli(n)
		}
		return t.UTC(), awsPossibleExpiration(t)
	}
	value = strings.Replace(strings.TrimSuffix(value, " UTC"), " ", "T", 1)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, value); err == nil {
			return t.UTC(), awsPossibleExpiration(t)
		}
	}
	return time.Time{}, false
}

func awsPossibleExpiration(t time.Time) bool {
	return !t.Before(awsFirstExpiration) && t.Before(awsAfterExpiration)
}

// awsNormalExpiration returns a time in one spelling, so that two of them can be
// compared, and what is none as it is.
func awsNormalExpiration(value string) string {
	t, ok := awsParseExpiration(value)
	if !ok {
		return value
	}
	return t.Format(time.RFC3339Nano)
}

// awsMergeExpiration puts what was read from a document into its field.
func awsMergeExpiration(m *credentialv1.AwsAccessKey, found map[string]awsFound, places awsPlaces, r *report) {
	read, ok := found[awsExpiration]
	if !ok {
		return
	}
	t, ok := awsParseExpiration(read.value)
	switch {
	case !ok:
		r.add(read.place, "must be "+awsWantExpiration+"; it is not")
	case m.GetExpiration() == nil:
		m.Expiration, places[awsExpiration] = timestamppb.New(t), read.place
	case !m.GetExpiration().AsTime().Equal(t):
		r.add(awsExpiration, "must be absent beside a document, or the same as in it; it is another")
	}
}

// checkAwsExpiration accepts an end that has passed, as that of a certificate is:
// people keep what they have, and what was accepted once must be later.
func checkAwsExpiration(m *credentialv1.AwsAccessKey, places awsPlaces, r *report) {
	end := m.GetExpiration()
	switch {
	case end == nil:
	case !end.IsValid() || !awsPossibleExpiration(end.AsTime()):
		r.add(places.of(awsExpiration), "must be "+awsWantExpiration+"; it is not")
	case m.GetSessionToken() == "" && !strings.HasPrefix(m.GetAccessKeyId(), awsTemporary):
		// Of a session's key it is the token that is missing, and is reported.
		r.add(places.of(awsExpiration), "must be absent, since there is no session token and only the credentials of sessions end; it is set")
	}
}

func awsExpireTime(m *credentialv1.AwsAccessKey) time.Time {
	if m.GetExpiration() == nil {
		return time.Time{}
	}
	return m.GetExpiration().AsTime()
}

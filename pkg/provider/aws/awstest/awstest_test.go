package awstest

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func status(t *testing.T, method, target string, header http.Header) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

// Version 1 of the metadata service would answer all of these.
func TestMetadataIsVersionTwo(t *testing.T) {
	s := New(t)
	const arn = "arn:aws:iam::" + Account + ":role/node"
	s.Role(Role{ARN: arn})
	s.Machine(arn)
	const ttl = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	for _, test := range []struct {
		method, path string
		header       http.Header
		want         int
	}{
		{"GET", "/latest/meta-data/iam/security-credentials/", nil, http.StatusUnauthorized},
		{"GET", "/latest/meta-data/iam/security-credentials/node", http.Header{"X-Aws-Ec2-Metadata-Token": {"forged"}}, http.StatusUnauthorized},
		{"GET", "/latest/api/token", http.Header{ttl: {"60"}}, http.StatusMethodNotAllowed},
		{"PUT", "/latest/api/token", nil, http.StatusBadRequest},
		{"PUT", "/latest/api/token", http.Header{ttl: {"21601"}}, http.StatusBadRequest},
		{"PUT", "/latest/api/token", http.Header{ttl: {"60"}, "X-Forwarded-For": {"203.0.113.1"}}, http.StatusForbidden},
		{"PUT", "/latest/api/token", http.Header{ttl: {"60"}}, http.StatusOK},
	} {
		if got := status(t, test.method, s.IMDS+test.path, test.header); got != test.want {
			t.Errorf("%s %s %v: %d, want %d", test.method, test.path, test.header, got, test.want)
		}
	}
}

// Each token differs from a good one, which TestClusterLogin has, in one place.
func TestClusterTokenRefuses(t *testing.T) {
	s := New(t)
	good := url.Values{
		"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}, "X-Amz-Algorithm": {algorithm}, "X-Amz-Expires": {"60"},
		"X-Amz-Credential": {"AKIA/20261122/eu-west-1/sts/aws4_request"}, "X-Amz-Date": {time.Now().UTC().Format(timeFormat)},
		"X-Amz-SignedHeaders": {"host;x-k8s-aws-id"}, "X-Amz-Signature": {"00"},
	}
	const host = "https://sts.eu-west-1.amazonaws.com/"
	token := func(prefix, host string, change func(url.Values)) string {
		query := maps.Clone(good)
		change(query)
		return prefix + base64.RawURLEncoding.EncodeToString([]byte(host+"?"+query.Encode()))
	}
	nothing := func(url.Values) {}
	for name, test := range map[string]struct{ token, want string }{
		"of an unknown key": {token("k8s-aws-v1.", host, nothing), "InvalidClientTokenId"},
		"other prefix":      {token("k8s-aws-v2.", host, nothing), "prefix"},
		"too long":          {"k8s-aws-v1." + strings.Repeat("A", 4096), "prefix"},
		"other host":        {token("k8s-aws-v1.", "https://sts.eu-west-1.amazonaws.com.example.com/", nothing), "unexpected URL"},
		"other scheme":      {token("k8s-aws-v1.", "http://sts.eu-west-1.amazonaws.com/", nothing), "unexpected URL"},
		"other path":        {token("k8s-aws-v1.", host+"x", nothing), "unexpected URL"},
		"other action":      {token("k8s-aws-v1.", host, func(q url.Values) { q.Set("Action", "AssumeRole") }), "unexpected action"},
		"other parameter":   {token("k8s-aws-v1.", host, func(q url.Values) { q.Set("RoleArn", "x") }), "query parameter"},
		"parameter twice":   {token("k8s-aws-v1.", host, func(q url.Values) { q.Set("action", "GetCallerIdentity") }), "query parameter"},
		"no cluster":        {token("k8s-aws-v1.", host, func(q url.Values) { q.Set("X-Amz-SignedHeaders", "host") }), "not signed"},
		"expires too late":  {token("k8s-aws-v1.", host, func(q url.Values) { q.Set("X-Amz-Expires", "901") }), "X-Amz-Expires"},
		"signed too long ago": {token("k8s-aws-v1.", host, func(q url.Values) {
			q.Set("X-Amz-Date", time.Now().Add(-16*time.Minute).UTC().Format(timeFormat))
		}), "X-Amz-Date"},
	} {
		if got, err := s.ClusterToken(test.token, "prod", nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A token that somebody else signed, or nobody, opens nothing.
func TestPodTokenIsVerified(t *testing.T) {
	s, other := New(t), New(t)
	const arn, subject = "arn:aws:iam::" + Account + ":role/pod", "system:serviceaccount:a:b"
	s.Role(Role{ARN: arn, Subject: subject})
	ask := func(token string) int {
		return status(t, http.MethodGet, s.URL+"/?"+url.Values{
			"Action": {"AssumeRoleWithWebIdentity"}, "RoleArn": {arn}, "RoleSessionName": {"pod"}, "WebIdentityToken": {token},
		}.Encode(), nil)
	}
	token := func(issuer *Server) string {
		t.Helper()
		out, err := issuer.PodToken(subject, Audience, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	good := token(s)
	parts := strings.Split(good, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
	if got := ask(good); got != http.StatusOK {
		t.Errorf("a good token: %d", got)
	}
	for name, bad := range map[string]string{"another issuer's": token(other), "unsigned": unsigned, "no token": "x", "cut": parts[0] + "." + parts[1]} {
		if got := ask(bad); got != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got)
		}
	}
}

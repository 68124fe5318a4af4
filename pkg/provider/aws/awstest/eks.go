package awstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ClusterToken does what the authenticator of an EKS cluster does with a token: it
// decodes it, looks whether the request in it is one for STS and nothing else, sends
// it with the cluster's name, and returns the ARN in the answer. send is STS; the
// Server itself when nil.
// Source: kubernetes-sigs/aws-iam-authenticator, pkg/token/token.go.
func (s *Server) ClusterToken(token, cluster string, send http.Handler) (string, error) {
	const longest = 4096
	encoded, ok := strings.CutPrefix(token, "k8s-aws-v1.")
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil || len(token) > longest {
		return "", fmt.Errorf("%w: prefix, encoding or length", errNoToken)
	}
	u, err := url.Parse(string(decoded))
	if err != nil || u.Scheme != "https" || u.Path != "/" || stsHost.FindString(u.Host) == "" && u.Host != "sts.amazonaws.com" {
		return "", fmt.Errorf("%w: unexpected URL", errNoToken)
	}
	query := map[string]string{}
	allowed := []string{
		"action", "version", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-security-token",
		"x-amz-signature", "x-amz-signedheaders", "x-amz-user-agent",
	}
	for name, values := range u.Query() {
		if name = strings.ToLower(name); !slices.Contains(allowed, name) || len(values) != 1 || query[name] != "" {
			return "", fmt.Errorf("%w: query parameter %q", errNoToken, name)
		}
		query[name] = values[0]
	}
	expires, err := strconv.Atoi(query["x-amz-expires"])
	at, timeErr := time.Parse(timeFormat, query["x-amz-date"])
	switch {
	case query["action"] != "GetCallerIdentity":
		return "", fmt.Errorf("%w: unexpected action", errNoToken)
	case !slices.Contains(strings.Split(query["x-amz-signedheaders"], ";"), "x-k8s-aws-id"):
		return "", fmt.Errorf("%w: the cluster's header is not signed", errNoToken)
	case err != nil || expires < 0 || expires > 900:
		return "", fmt.Errorf("%w: X-Amz-Expires", errNoToken)
	case timeErr != nil || time.Now().After(at.Add(maxPresigned)):
		return "", fmt.Errorf("%w: X-Amz-Date", errNoToken)
	}
	request := httptest.NewRequest(http.MethodGet, u.String(), nil)
	request.Header.Set("x-k8s-aws-id", cluster)
	request.Header.Set("Accept", "application/json")
	if send == nil {
		send = http.HandlerFunc(s.serve)
	}
	answer := httptest.NewRecorder()
	send.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		return "", fmt.Errorf("error from AWS (expected 200, got %d): %s", answer.Code, answer.Body)
	}
	var identity struct {
		GetCallerIdentityResponse struct{ GetCallerIdentityResult struct{ Arn string } }
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &identity); err != nil {
		return "", fmt.Errorf("answer of STS: %w", err)
	}
	return identity.GetCallerIdentityResponse.GetCallerIdentityResult.Arn, nil
}

//go:build conformance

package e2e_test

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/provider/aws/awstest"
)

const awsAccount = "123456789012"

// startMoto starts a stand-in for AWS that believes everybody, and returns its
// address. That it refuses is shown where pkg/provider/aws is tested; here it
// says who somebody is.
func startMoto(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(counterpart(t, "CREDSTORE_MOTO"), "-H", "127.0.0.1", "-p", "0")
	cmd.Env = append(os.Environ(), "MOTO_ACCOUNT_ID="+awsAccount)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addresses, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:[0-9]+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := running.FindStringSubmatch(lines.Text()); m != nil {
				addresses <- m[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, out) // until it ends
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // it was killed
	})
	select {
	case address := <-addresses:
		return address
	case <-read:
		t.Fatal("moto ended before it listened")
	case <-time.After(patience):
		t.Fatalf("moto does not listen after %s", patience)
	}
	return ""
}

// A role's session and a token for EKS from the command line, with a server whose
// configuration says where AWS is.
func TestConformanceAWS(t *testing.T) {
	moto := startMoto(t)
	s := newSite(t, "--vendor-endpoint", "aws.sts="+moto)
	const (
		role    = "arn:aws:iam::" + awsAccount + ":role/deploy"
		session = "arn:aws:sts::" + awsAccount + ":assumed-role/deploy/ci"
	)
	request := `{"awsAssumeRole": {"roleArn": "` + role + `", "sessionName": "ci", "duration": "900s"}}`
	s.do(t, "credential", "create", "aws-prod", "--kind", "awsAccessKey", "--verify",
		"--set", "accessKeyId=AKIARZPUZDIKFIVCUKRK", "--secret", "secretAccessKey=@"+s.file(t, "key", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n"))

	type awsToken struct {
		AccessKeyID, SecretAccessKey, SessionToken, Arn string
		ExpireTime                                      time.Time
	}
	minted := read[awsToken](t, s.do(t, "mint", "aws-prod", "--token", request))
	if left := time.Until(minted.ExpireTime); minted.Arn != session || left <= 0 || left > 15*time.Minute {
		t.Errorf("the token is of %q and ends in %s", minted.Arn, left)
	}
	if field := s.do(t, "mint", "aws-prod", "--token", request, "--field", "sessionToken"); field != minted.SessionToken {
		t.Error("the same request has another session token: it was minted twice")
	}
	// What came out works as a credential of its own, and is the role's.
	s.do(t, "credential", "create", "aws-session", "--kind", "awsAccessKey", "--set", "accessKeyId="+minted.AccessKeyID,
		"--secret", "secretAccessKey=@"+s.file(t, "secret", minted.SecretAccessKey), "--secret", "sessionToken=@"+s.file(t, "session", minted.SessionToken))
	if got, code := s.verify(t, "aws-session"); got.GetState() != credstorev1.Verification_VERIFIED || got.GetIdentity() != session || code != 0 {
		t.Errorf("verify ended with %d: %v", code, got)
	}

	type execCredential struct {
		APIVersion, Kind string
		Status           struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}
	for _, test := range []struct {
		name string
		args []string
		arn  string
	}{
		{"the key itself", nil, "arn:aws:sts::" + awsAccount + ":user/moto"},
		{"a role", []string{"--role-arn", role}, "arn:aws:sts::" + awsAccount + ":assumed-role/deploy/"},
	} {
		t.Run("kube-token for "+test.name, func(t *testing.T) {
			out := s.do(t, append([]string{"kube-token", "aws-prod", "--cluster", "live", "--region", "eu-west-1"}, test.args...)...)
			got := read[execCredential](t, out)
			if left := time.Until(got.Status.ExpirationTimestamp); got.APIVersion != "client.authentication.k8s.io/v1" || got.Kind != "ExecCredential" || left <= 0 || left > 15*time.Minute {
				t.Errorf("%s %s that ends in %s", got.APIVersion, got.Kind, left)
			}
			who, err := (*awstest.Server)(nil).ClusterToken(got.Status.Token, "live", presigned(t, moto))
			if err != nil || !strings.HasPrefix(who, test.arn) {
				t.Errorf("the cluster sees %q: %v", who, err)
			}
		})
	}
	if a := s.try(t, "kube-token", "aws-prod", "--region", "eu-west-1"); a.code != 1 || !strings.Contains(a.err, "cluster") {
		t.Errorf("without a cluster it ended with %d: %s", a.code, a.err)
	}
}

// presigned sends moto a request as the authenticator of a cluster does, and
// answers in JSON as STS would. Moto finds the service and the key in a header
// only, so they are repeated there.
func presigned(t *testing.T, moto string) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		to, err := http.NewRequestWithContext(t.Context(), r.Method, moto+"/?"+r.URL.RawQuery, nil)
		if err != nil {
			t.Fatal(err)
		}
		query := r.URL.Query()
		to.Host, to.Header = r.Host, r.Header.Clone()
		to.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s, SignedHeaders=%s, Signature=%s",
			query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature")))
		answer, err := http.DefaultClient.Do(to)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var identity struct {
			Arn string `xml:"GetCallerIdentityResult>Arn"`
		}
		if err := xml.NewDecoder(answer.Body).Decode(&identity); err != nil {
			t.Fatal(err)
		}
		out.WriteHeader(answer.StatusCode)
		_ = json.NewEncoder(out).Encode(map[string]any{
			"GetCallerIdentityResponse": map[string]any{"GetCallerIdentityResult": map[string]string{"Arn": identity.Arn}},
		})
	})
}

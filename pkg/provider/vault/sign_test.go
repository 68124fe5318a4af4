package vault

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// What the tests use in place of the AWS package, which the app wires in: a
// signer of GetCallerIdentity, and the check that STS makes of one.
const (
	awsKeyID    = "AKIAQ5WEXMTL3V7OZK2D"
	awsSecret   = "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"
	stsURL      = "https://sts.us-east-1.amazonaws.com/"
	stsBody     = "Action=GetCallerIdentity&Version=2011-06-15"
	serverIDKey = "X-Vault-AWS-IAM-Server-ID"
)

func awsSource(t *testing.T, secret string) *credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{
		AwsAccessKey: &credentialv1.AwsAccessKey{AccessKeyId: awsKeyID, SecretAccessKey: secret},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Login{Name: "projects/p/credentials/aws", ID: "aws/1", Payload: p}
}

func signAWS(ctx context.Context, source credential.Login, serverID string) (method, url, body string, headers http.Header, err error) {
	m := source.Payload.Message().GetAwsAccessKey()
	if m == nil {
		return "", "", "", nil, errors.New("no AWS credential")
	}
	r, err := signed(ctx, m.GetAccessKeyId(), m.GetSecretAccessKey(), serverID, time.Now())
	if err != nil {
		return "", "", "", nil, err
	}
	headers = r.Header.Clone()
	headers.Set("Host", r.Host)
	return r.Method, stsURL, stsBody, headers, nil
}

func signed(ctx context.Context, id, secret, serverID string, now time.Time) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, stsURL, strings.NewReader(stsBody))
	if err != nil {
		return nil, err
	}
	r.Host = r.URL.Host
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if serverID != "" {
		r.Header.Set(serverIDKey, serverID)
	}
	digest := sha256.Sum256([]byte(stsBody))
	err = v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, r, hex.EncodeToString(digest[:]), "sts", "us-east-1", now)
	return r, err
}

var awsAuthorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/`)

// sts checks a request as STS does: by signing it again.
func sts(t *testing.T, headers http.Header, body string) error {
	t.Helper()
	m := awsAuthorization.FindStringSubmatch(headers.Get("Authorization"))
	at, err := time.Parse("20060102T150405Z", headers.Get("X-Amz-Date"))
	if m == nil || err != nil || body != stsBody {
		return errors.New("MissingAuthenticationToken")
	}
	if m[1] != awsKeyID {
		return errors.New("InvalidClientTokenId")
	}
	if time.Since(at).Abs() > 15*time.Minute {
		return errors.New("RequestExpired")
	}
	r, err := signed(t.Context(), awsKeyID, awsSecret, headers.Get(serverIDKey), at)
	if err != nil {
		return err
	}
	if r.Header.Get("Authorization") != headers.Get("Authorization") {
		return errors.New("SignatureDoesNotMatch")
	}
	return nil
}

// serveSTS is the Security Token Service as Vault asks it.
func serveSTS(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = sts(t, r.Header, string(body))
		}
		w.Header().Set("Content-Type", "text/xml")
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprintf(w, "<ErrorResponse><Error><Code>%s</Code></Error></ErrorResponse>", err)
			return
		}
		_, _ = io.WriteString(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
			`<Arn>arn:aws:iam::123456789012:user/deployer</Arn><UserId>AIDAQ5WEXMTL3V7OZK2D</UserId><Account>123456789012</Account>`+
			`</GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}
}

// decodeAWS reads the body of a login as Vault does.
func decodeAWS(body map[string]any) (headers http.Header, request string, err error) {
	decode := func(name string) []byte {
		text, decodeErr := base64.StdEncoding.DecodeString(fmt.Sprint(body[name]))
		err = errors.Join(err, decodeErr)
		return text
	}
	if url := decode("iam_request_url"); string(url) != stsURL || body["iam_http_request_method"] != http.MethodPost {
		return nil, "", errors.New("another request")
	}
	request = string(decode("iam_request_body"))
	err = errors.Join(err, json.NewDecoder(bytes.NewReader(decode("iam_request_headers"))).Decode(&headers))
	return headers, request, err
}

// signJWT returns a token of ES256.
func signJWT(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(encoded)
	}
	text := part(map[string]string{"alg": "ES256", "typ": "JWT"}) + "." + part(claims)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

//go:build conformance

package aws

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/aws/awstest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

// moto is a real moto server, whose authentication is switched on once users,
// roles and policies are set up. It checks keys, signatures in headers, session
// tokens, the users' and roles' own policies, and trust with its external id.
//
// It does not check, so that the tests against awstest are what shows it: when a
// signature was made; the end of sessions; how long a session may be, in a chain
// too; session policies, tags and their sizes; an external id that is not sent at
// all; signatures in the query, which is what an EKS token is; web identities. It
// answers GetSessionToken with the same key each time, which it then does not know;
// its registry tokens ended in 2015. Its metadata service takes any token, and its
// key there is of nobody. In trust policies it wants the ARN of the session where
// AWS wants that of its role, and GetCallerIdentity needs a permission. Its
// refusals are the right ones in another form, which likeAWS puts right.
type moto struct{ url string }

const motoAccount = "123456789012"

// startMoto starts a server on a port that the kernel chooses; it ends with the
// test.
func startMoto(t *testing.T) *moto {
	t.Helper()
	path := os.Getenv("CREDSTORE_MOTO")
	if path == "" {
		t.Fatal("CREDSTORE_MOTO is not set: run \"make conformance\", or set it to what tools/moto.sh prints")
	}
	ctx, stop := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, path, "-H", "127.0.0.1", "-p", "0")
	// More than the set-up needs; enforce ends it.
	command.Env = append(os.Environ(), "INITIAL_NO_AUTH_ACTION_COUNT=1000", "MOTO_ACCOUNT_ID="+motoAccount)
	command.WaitDelay = 10 * time.Second
	out, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	addresses, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:[0-9]+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := running.FindStringSubmatch(lines.Text()); m != nil {
				addresses <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-read
		_ = command.Wait() // it was killed
	})
	select {
	case address := <-addresses:
		return &moto{address}
	case <-read:
		t.Fatal("moto ended before it listened")
	case <-time.After(time.Minute):
		t.Fatal("moto does not listen after a minute")
	}
	return nil
}

// do makes a call of a query API, as set-up does it: signed, but with a key that
// nobody checks yet.
func (m *moto) do(t *testing.T, service, version, action string, fields url.Values, answer any) {
	t.Helper()
	fields.Set("Action", action)
	fields.Set("Version", version)
	body := fields.Encode()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	hash := sha256.Sum256([]byte(body))
	key := awssdk.Credentials{AccessKeyID: "setup", SecretAccessKey: "setup"}
	if err := v4.NewSigner().SignHTTP(t.Context(), key, r, hex.EncodeToString(hash[:]), service, "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	if err != nil || out.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", action, out.StatusCode, text, err)
	}
	if answer != nil {
		if err := xml.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s: %v", action, err)
		}
	}
}

func (m *moto) iam(t *testing.T, action string, answer any, pairs ...string) {
	t.Helper()
	fields := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		fields.Set(pairs[i], pairs[i+1])
	}
	m.do(t, "iam", "2010-05-08", action, fields, answer)
}

// authenticate says from which action on moto checks what it is sent: 0 for all.
func (m *moto) authenticate(t *testing.T, after string) {
	t.Helper()
	answer, err := http.Post(m.url+"/moto-api/reset-auth", "text/plain", strings.NewReader(after))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("status %d", answer.StatusCode)
	}
}

// user makes a user with a key and a policy.
func (m *moto) user(t *testing.T, name, policy string) awstest.Key {
	t.Helper()
	var answer struct {
		Result struct {
			AccessKey struct{ AccessKeyId, SecretAccessKey string }
		} `xml:"CreateAccessKeyResult"`
	}
	m.iam(t, "CreateUser", nil, "UserName", name)
	m.iam(t, "PutUserPolicy", nil, "UserName", name, "PolicyName", "p", "PolicyDocument", policy)
	m.iam(t, "CreateAccessKey", &answer, "UserName", name)
	return awstest.Key{ID: answer.Result.AccessKey.AccessKeyId, Secret: answer.Result.AccessKey.SecretAccessKey}
}

// role makes a role with its trust and its own policy.
func (m *moto) role(t *testing.T, name, trust, policy string) string {
	t.Helper()
	m.iam(t, "CreateRole", nil, "RoleName", name, "AssumeRolePolicyDocument", trust)
	m.iam(t, "PutRolePolicy", nil, "RoleName", name, "PolicyName", "p", "PolicyDocument", policy)
	return "arn:aws:iam::" + motoAccount + ":role/" + name
}

// The policies of a user or role that is to do what the tests do.
const motoPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:*","ecr:GetAuthorizationToken","ecr-public:GetAuthorizationToken"],"Resource":"*"}]}`

func trustOf(arn, condition string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":%q},"Action":"sts:AssumeRole"%s}]}`, arn, condition)
}

func TestConformanceMoto(t *testing.T) {
	m := startMoto(t)
	const session = "arn:aws:sts::" + motoAccount + ":assumed-role/"
	bot, poor := "arn:aws:iam::"+motoAccount+":user/bot", "arn:aws:iam::"+motoAccount+":user/poor"
	key := m.user(t, "bot", motoPolicy)
	poorKey := m.user(t, "poor", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:GetCallerIdentity","Resource":"*"}]}`)
	deploy := m.role(t, "deploy", trustOf(bot, `,"Condition":{"StringEquals":{"sts:ExternalId":"ext-1"}}`), motoPolicy)
	audit := m.role(t, "audit", trustOf(session+"deploy/credstore-deploy", ""), motoPolicy)
	open := m.role(t, "open", trustOf(poor, ""), motoPolicy)
	nodes := m.role(t, "nodes", trustOf(bot, ""), motoPolicy)
	m.authenticate(t, "0")

	imds := &motoIMDS{}
	server := httptest.NewServer(imds)
	t.Cleanup(server.Close)
	cfg := Config{Egress: loopback, STSEndpoint: m.url, ECREndpoint: m.url, ECRPublicEndpoint: m.url, IMDSEndpoint: server.URL}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.CloseIdleConnections)
	p.client.Transport = likeAWS{p.client.Transport}
	good, wrong := keyLogin(t, key), key
	wrong.Secret = strings.Repeat("wrong/", 7)[:40]
	chosen := assumeLogin(t, "deploy", &credentialv1.AwsAssumeRole{
		RoleArn: deploy, ExternalId: "ext-1", Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecr:*","Resource":"*"}]}`,
	}, good)
	chain := assumeLogin(t, "audit", &credentialv1.AwsAssumeRole{RoleArn: audit}, chosen)
	w := &world{Provider: p}

	t.Run("Suite", func(t *testing.T) {
		providertest.RunVendor(t, providertest.VendorHarness{
			Verifier: p, Minter: p, Good: good, Identity: bot, Wrong: keyLogin(t, wrong),
			Requests: []*credentialv1.TokenRequest{
				nil, assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{RoleArn: deploy, ExternalId: "ext-1"}),
			},
			Calls: counted(p), Secrets: []string{key.Secret, wrong.Secret},
		})
	})
	t.Run("Identity", func(t *testing.T) {
		for name, test := range map[string]struct {
			login credential.Login
			want  string
		}{
			"key":   {good, bot},
			"role":  {chosen, session + "deploy/credstore-deploy"},
			"chain": {chain, session + "audit/credstore-audit"},
		} {
			got, err := p.Verify(t.Context(), test.login)
			if err != nil || got.Name != test.want || got.Facts["account"] != motoAccount {
				t.Errorf("%s: %q %v, %v", name, got.Name, got.Facts, err)
			}
		}
	})
	t.Run("Session", func(t *testing.T) {
		got := w.mint(t, good, nil)
		if got.GetAws().GetArn() != bot || time.Until(got.GetExpireTime().AsTime()) < 59*time.Minute {
			t.Errorf("of %s until %s", got.GetAws().GetArn(), got.GetExpireTime().AsTime())
		}
	})
	t.Run("AssumeRole", func(t *testing.T) {
		// What comes out is used as a person would.
		minted := w.mint(t, chain, nil)
		got, err := p.Verify(t.Context(), keyLogin(t, keyOf(minted)))
		if err != nil || got.Name != session+"audit/credstore-audit" || minted.GetAws().GetArn() != got.Name {
			t.Errorf("%q, %q: %v", got.Name, minted.GetAws().GetArn(), err)
		}
		forged := keyOf(minted)
		forged.Token = strings.Repeat("forged", 10)
		if _, err := p.Verify(t.Context(), keyLogin(t, forged)); !errors.Is(err, provider.ErrRefused) {
			t.Errorf("with a forged token: %v", err)
		}
	})
	t.Run("Reasons", func(t *testing.T) {
		unknown := key
		unknown.ID = "AKIAIOSFODNN7EXAMPLE"
		assume := func(role, externalID string, source credential.Login) credential.Login {
			return assumeLogin(t, "x", &credentialv1.AwsAssumeRole{RoleArn: role, ExternalId: externalID}, source)
		}
		for name, test := range map[string]struct {
			login credential.Login
			begin string
		}{
			"wrong secret":        {keyLogin(t, wrong), "the secret access key is not the one of the access key id (SignatureDoesNotMatch)"},
			"unknown key":         {keyLogin(t, unknown), "AWS does not know the key: it was deleted or deactivated"},
			"no trust":            {assume(open, "", good), "the role's trust policy must name this caller, without an external id since none is set"},
			"another external id": {assume(deploy, "ext-2", good), "the role's trust policy must name this caller with this external id"},
			"no permission":       {assume(open, "", keyLogin(t, poorKey)), "the role's trust policy must name this caller, without an external id since none is set, and the caller needs sts:AssumeRole"},
		} {
			_, err := p.Verify(t.Context(), test.login)
			var typed *provider.Error
			if !errors.As(err, &typed) || !errors.Is(err, provider.ErrRefused) || !strings.HasPrefix(typed.Text, test.begin) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("ECR", func(t *testing.T) {
		got := w.mint(t, good, registryRequest(&credentialv1.TokenRequest_RegistryLogin{Region: "eu-west-1"})).GetRegistry()
		if got.GetServer() != motoAccount+".dkr.ecr.eu-west-1.amazonaws.com" || got.GetUsername() != "AWS" || got.GetPassword() == "" {
			t.Errorf("server %s, user %s", got.GetServer(), got.GetUsername())
		}
		_, err := p.Mint(t.Context(), keyLogin(t, poorKey), request(t, "awsAccessKey", registryRequest(&credentialv1.TokenRequest_RegistryLogin{})))
		if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "a permission is missing") {
			t.Errorf("without permission: %v", err)
		}
	})
	t.Run("IMDS", func(t *testing.T) {
		imds.keys = keyOf(w.mint(t, good, assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{RoleArn: nodes, SessionName: "i-0123456789abcdef0"})))
		node := roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, "")
		got, err := p.Verify(t.Context(), node)
		if err != nil || got.Name != session+"nodes/i-0123456789abcdef0" {
			t.Errorf("%q, %v", got.Name, err)
		}
	})
	t.Run("EKS", func(t *testing.T) {
		token := w.mint(t, chain, clusterRequest(&credentialv1.TokenRequest_KubernetesLogin{Cluster: "prod", Region: "eu-west-1"}))
		// Signatures in the query are what moto's authentication fails on.
		m.authenticate(t, "1000")
		defer m.authenticate(t, "0")
		got, err := (*awstest.Server)(nil).ClusterToken(token.GetKubernetes().GetToken(), "prod", http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			m.forward(t, out, r)
		}))
		if err != nil || got != session+"audit/credstore-audit" {
			t.Errorf("the cluster sees %q: %v", got, err)
		}
	})
	t.Run("MotoIMDS", func(t *testing.T) {
		// Its own metadata service has a key of nobody, which it takes for its default
		// user when it checks none.
		m.authenticate(t, "1000")
		defer m.authenticate(t, "0")
		cfg := cfg
		cfg.IMDSEndpoint = m.url
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.client.CloseIdleConnections)
		got, err := p.Verify(t.Context(), roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, ""))
		if err != nil || got.Name != "arn:aws:sts::"+motoAccount+":user/moto" {
			t.Errorf("%q, %v", got.Name, err)
		}
	})
}

// counted counts what a Provider sends.
func counted(p *Provider) func() int {
	calls := make(chan int, 1)
	calls <- 0
	next := p.client.Transport
	p.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		calls <- <-calls + 1
		return next.RoundTrip(r)
	})
	return func() int {
		n := <-calls
		calls <- n
		return n
	}
}

// likeAWS gives moto's refusals the form that AWS's have: one error without a list
// around it, and JSON where the request was.
type likeAWS struct{ next http.RoundTripper }

// RoundTrip rewrites the body of a refusal.
func (l likeAWS) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.next.RoundTrip(r)
	if err != nil || answer.StatusCode < http.StatusBadRequest {
		return answer, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	var refusal struct {
		Error struct{ Code, Message string } `xml:"Errors>Error"`
	}
	if err := xml.Unmarshal(text, &refusal); err == nil && refusal.Error.Code != "" {
		text = []byte(strings.NewReplacer("<Errors>", "", "</Errors>", "").Replace(string(text)))
		if r.Header.Get("X-Amz-Target") != "" {
			text, _ = json.Marshal(map[string]string{"__type": refusal.Error.Code, "message": refusal.Error.Message})
		}
	}
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return answer, nil
}

// forward sends a presigned request to moto, and answers in JSON, as STS does when
// it is asked to. Moto finds the service and the key in a header only, so they are
// repeated there.
func (m *moto) forward(t *testing.T, out http.ResponseWriter, r *http.Request) {
	t.Helper()
	to, err := http.NewRequestWithContext(t.Context(), r.Method, m.url+"/?"+r.URL.RawQuery, nil)
	if err != nil {
		t.Fatal(err)
	}
	to.Host, to.Header = r.Host, r.Header.Clone()
	query := r.URL.Query()
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
}

// motoIMDS is a metadata service, version 2, that has keys which moto knows.
type motoIMDS struct{ keys awstest.Key }

func (i *motoIMDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		_, _ = io.WriteString(w, "token")
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token":
		w.WriteHeader(http.StatusUnauthorized)
	case strings.HasSuffix(r.URL.Path, "/"):
		_, _ = io.WriteString(w, "nodes")
	default:
		_, _ = fmt.Fprintf(w, imdsAnswer, i.keys.ID, i.keys.Secret, i.keys.Token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}
}

package aws

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/aws/awstest"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestVendor(t *testing.T) {
	w := newWorld(t)
	wrong := w.user
	wrong.Secret = strings.Repeat("wrong/", 7)[:40]
	role := &credentialv1.TokenRequest_AwsRoleSession{RoleArn: auditARN}
	cluster := clusterRequest(&credentialv1.TokenRequest_KubernetesLogin{Cluster: "prod", Region: "eu-west-1", RoleArn: auditARN})
	registry := registryRequest(&credentialv1.TokenRequest_RegistryLogin{RoleArn: auditARN})
	for _, h := range []struct {
		good, wrong credential.Login
		identity    string
		requests    []*credentialv1.TokenRequest
	}{
		{keyLogin(t, w.user), keyLogin(t, wrong), userARN, []*credentialv1.TokenRequest{nil, assumeRequest(role), registry, cluster}},
		{
			roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, ""),
			credential.Login{},
			"arn:aws:sts::" + awstest.Account + ":assumed-role/node/i-0123456789abcdef0",
			[]*credentialv1.TokenRequest{assumeRequest(role), registry, cluster},
		},
		{
			deployLogin(t, keyLogin(t, w.user)), deployLogin(t, keyLogin(t, wrong)), deploySession,
			[]*credentialv1.TokenRequest{nil, assumeRequest(role), registry, cluster},
		},
	} {
		t.Run(string(h.good.Payload.Kind()), func(t *testing.T) {
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: w.Provider, Minter: w.Provider, Good: h.good, Identity: h.identity, Wrong: h.wrong, Requests: h.requests, Calls: w.Calls,
				Stop: func(t *testing.T) func() {
					w.Break(&awstest.Refusal{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable", Message: "try later"})
					return func() { w.Break(nil) }
				},
				Secrets: []string{w.user.Secret, wrong.Secret},
			})
		})
	}
}

func TestVerifyTellsTheAccount(t *testing.T) {
	w := newWorld(t)
	got, err := w.Verify(t.Context(), keyLogin(t, w.user))
	if err != nil {
		t.Fatal(err)
	}
	if got.Facts["account"] != awstest.Account || !strings.HasPrefix(got.Facts["userId"], "AIDA") {
		t.Errorf("facts are %v", got.Facts)
	}
	// The same as is read from the key id without asking anybody.
	if offline := keyLogin(t, w.user).Payload.Facts()["accountId"]; offline != awstest.Account {
		t.Errorf("the key id tells account %q", offline)
	}
}

// Each reason has its own words, and AWS's where they say more.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	wrong, unknown := w.user, w.User("gone")
	wrong.Secret = strings.Repeat("wrong/", 7)[:40]
	w.Remove(unknown)
	key := keyLogin(t, w.user)
	session := keyOf(w.mint(t, key, nil))
	forged := session
	forged.Token = strings.Repeat("forged", 20)
	stranger := w.User("stranger")
	w.Allow("arn:aws:iam::"+awstest.Account+":user/stranger", auditARN)
	const lonely = "arn:aws:iam::" + awstest.Account + ":role/lonely"
	w.Role(awstest.Role{ARN: lonely, Trust: []string{userARN}})
	broken := func(status int, code, message string) func() {
		return func() { w.Break(&awstest.Refusal{Status: status, Code: code, Message: message}) }
	}
	assume := func(m *credentialv1.AwsAssumeRole, k awstest.Key) credential.Login {
		return assumeLogin(t, "x", m, keyLogin(t, k))
	}
	const user = "User: " + userARN + " is not authorized to perform: sts:AssumeRole on resource: "
	const badSession = "AWS does not know the key: it was deleted or deactivated, its session token is another's, or the region is of another partition or not enabled (InvalidClientTokenId): The security token included in the request is invalid."
	seen := map[string]string{}
	for _, test := range []struct {
		name   string
		login  credential.Login
		before func()
		kind   error
		text   string
	}{
		{"unknown key", keyLogin(t, unknown), nil, provider.ErrRefused, badSession},
		{"forged token", keyLogin(t, forged), nil, provider.ErrRefused, badSession},
		{"wrong secret", keyLogin(t, wrong), nil, provider.ErrRefused, "the secret access key is not the one of the access key id (SignatureDoesNotMatch)"},
		{"clock behind", key, func() { w.Skew(6 * time.Minute) }, provider.ErrRefused, badClock + " (SignatureDoesNotMatch)"},
		{"clock ahead", key, func() { w.Skew(-6 * time.Minute) }, provider.ErrRefused, badClock + " (SignatureDoesNotMatch)"},
		{
			"no external id", assume(&credentialv1.AwsAssumeRole{RoleArn: deployARN}, w.user), nil, provider.ErrRefused,
			"the role's trust policy must name this caller, without an external id since none is set, and the caller needs sts:AssumeRole (AccessDenied): " + user + deployARN,
		},
		{
			"another external id", assume(&credentialv1.AwsAssumeRole{RoleArn: deployARN, ExternalId: "ext-2"}, w.user), nil, provider.ErrRefused,
			"the role's trust policy must name this caller with this external id, and the caller needs sts:AssumeRole (AccessDenied): " + user + deployARN,
		},
		{
			"no trust", assume(&credentialv1.AwsAssumeRole{RoleArn: auditARN}, stranger), nil, provider.ErrRefused,
			"the role's trust policy must name this caller, without an external id since none is set, and the caller needs sts:AssumeRole (AccessDenied): " +
				strings.Replace(user, "/bot", "/stranger", 1) + auditARN,
		},
		{
			"no permission", assume(&credentialv1.AwsAssumeRole{RoleArn: lonely}, w.user), nil, provider.ErrRefused,
			"the caller's own policies do not allow sts:AssumeRole on this role (AccessDenied): " + user + lonely + " because no identity-based policy allows the sts:AssumeRole action",
		},
		{
			"policy without version", assume(&credentialv1.AwsAssumeRole{RoleArn: auditARN, Policy: `{"Statement":[]}`}, w.user), nil, provider.ErrRefused,
			"the session policy is malformed (MalformedPolicyDocument): Syntax errors in policy.",
		},
		{
			"too much", assume(&credentialv1.AwsAssumeRole{
				RoleArn: auditARN, Policy: `{"Version":"2012-10-17","S":"` + strings.Repeat("x", 2000) + `"}`,
				Tags: map[string]string{"a": strings.Repeat("v", 256), "b": strings.Repeat("v", 256), "c": strings.Repeat("v", 256), "d": strings.Repeat("v", 256)},
			}, w.user), nil, provider.ErrRefused,
			"the session policy and the tags are too large together, once STS has packed them: shorten them (PackedPolicyTooLarge): Packed size of session tags consumes 101% of allotted space.",
		},
		{
			"longer than the role allows", assume(&credentialv1.AwsAssumeRole{RoleArn: deployARN, ExternalId: "ext-1", Duration: durationpb.New(3 * time.Hour)}, w.user), nil, provider.ErrRefused,
			"AWS refuses the request (ValidationError): The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
		},
		{
			"a chain that is too long", assumeLogin(t, "audit", &credentialv1.AwsAssumeRole{RoleArn: auditARN, Duration: durationpb.New(2 * time.Hour)}, deployLogin(t, key)), nil, provider.ErrRefused,
			"AWS refuses the request (ValidationError): The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
		},
		{
			"throttled", key, broken(http.StatusBadRequest, "Throttling", "Rate exceeded"), provider.ErrUnavailable,
			"AWS throttles requests of the account (Throttling): Rate exceeded",
		},
		{
			"region switched off", key, broken(http.StatusForbidden, "RegionDisabledException", "STS is not activated in this region for account:1."), provider.ErrRefused,
			"STS is switched off for the account in this region: name another region, or switch it on (RegionDisabledException): STS is not activated in this region for account:1.",
		},
		{
			"broken", key, broken(http.StatusInternalServerError, "SomethingNew", "oops"), provider.ErrUnavailable,
			"AWS is not in order (SomethingNew): oops",
		},
		{"refused otherwise", key, broken(http.StatusForbidden, "SomethingElse", ""), provider.ErrRefused, "AWS refuses the request (SomethingElse)"},
		{
			"a message with the secret", key, broken(http.StatusForbidden, "Odd", "you sent "+w.user.Secret), provider.ErrRefused,
			"AWS refuses the request (Odd): you sent (redacted)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.before != nil {
				test.before()
			}
			defer w.Skew(0)
			defer w.Break(nil)
			_, err := w.Verify(t.Context(), test.login)
			wantError(t, err, test.kind, test.text)
			if before, again := seen[test.text]; again && test.text != badSession && !strings.HasPrefix(test.text, badClock) {
				t.Errorf("the same words as for %s", before)
			}
			seen[test.text] = test.name
		})
	}
}

// A session that was good is refused once it has ended.
func TestExpiredSession(t *testing.T) {
	w := newWorld(t)
	session := keyLogin(t, keyOf(w.mint(t, keyLogin(t, w.user), sessionRequest(&credentialv1.TokenRequest_AwsSession{Duration: durationpb.New(15 * time.Minute)}))))
	if _, err := w.Verify(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	// Not the clock, which the signature would not survive: the session's end.
	w.End(awstest.Key{ID: session.Payload.Facts()["accessKeyId"]}, time.Now().Add(-time.Second))
	_, err := w.Verify(t.Context(), session)
	wantError(t, err, provider.ErrRefused, "the session has ended: get new temporary credentials (ExpiredToken): The security token included in the request is expired")
	_, err = w.Mint(t.Context(), session, request(t, "awsAccessKey", registryRequest(&credentialv1.TokenRequest_RegistryLogin{})))
	wantError(t, err, provider.ErrRefused, "the session has ended: get new temporary credentials (ExpiredTokenException): The security token included in the request is expired")
}

// What is no answer of AWS at all.
func TestUnusableAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		text    string
	}{
		"a proxy's page": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>log in</html>") },
			"the answer is none of AWS's: is there a proxy or another server in between?",
		},
		"a redirect": {
			func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusTemporaryRedirect)
			},
			"the answer is none of AWS's: is there a proxy or another server in between?",
		},
		"none": {
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"the connection was closed before an answer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			p, err := New(Config{Egress: loopback, STSEndpoint: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Verify(t.Context(), keyLogin(t, awstest.Key{ID: "AKIAIOSFODNN7EXAMPLE", Secret: strings.Repeat("s", 40)}))
			wantError(t, err, provider.ErrUnavailable, test.text)
		})
	}
}

// spaces is an answer without an end, or with an error in its middle.
type spaces struct{ err error }

func (s spaces) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), s.err }

func TestLongAnswers(t *testing.T) {
	for text, err := range map[string]error{
		"the answer is longer than any of AWS's":      nil,
		"the connection was closed before an answer":  io.ErrUnexpectedEOF,
		"read 127.0.0.1:80: connection reset by peer": &net.OpError{Op: "read", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, Err: syscall.ECONNRESET},
	} {
		p, newErr := New(Config{})
		if newErr != nil {
			t.Fatal(newErr)
		}
		p.client = bounded(&http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: r, Body: io.NopCloser(spaces{err})}, nil
		})})
		_, got := p.Verify(t.Context(), keyLogin(t, awstest.Key{ID: "AKIAIOSFODNN7EXAMPLE", Secret: strings.Repeat("s", 40)}))
		wantError(t, got, provider.ErrUnavailable, text)
	}
}

// A store's endpoint does not get around the guard of addresses.
func TestEgressIsGuarded(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Egress = provider.Egress{}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	before := w.Calls()
	_, err = p.Verify(t.Context(), keyLogin(t, w.user))
	wantError(t, err, provider.ErrRefused, "this server does not connect to 127.0.0.1: it is a loopback address; the server's configuration can allow it")
	if w.Calls() != before {
		t.Error("the endpoint was asked")
	}
}

// Nothing of the server's own set-up changes where a login is sent, and as whom.
func TestEnvironmentIsNotUsed(t *testing.T) {
	w := newWorld(t)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAOTHEROTHEROTHER2", "AWS_SECRET_ACCESS_KEY": strings.Repeat("o", 40), "AWS_SESSION_TOKEN": "other",
		"AWS_REGION": "ap-south-1", "AWS_PROFILE": "other", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
		"AWS_ENDPOINT_URL_ECR": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1", "AWS_CONFIG_FILE": "/nowhere", "AWS_USE_FIPS_ENDPOINT": "true",
	} {
		t.Setenv(name, value)
	}
	for _, l := range []credential.Login{keyLogin(t, w.user), roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, "")} {
		if _, err := w.Verify(t.Context(), l); err != nil {
			t.Error(err)
		}
	}
	w.mint(t, keyLogin(t, w.user), registryRequest(&credentialv1.TokenRequest_RegistryLogin{}))
}

// Requests go to the region's own endpoint, in each partition.
func TestRegionalEndpoints(t *testing.T) {
	for region, host := range map[string]string{
		"":               "sts.us-east-1.amazonaws.com",
		"eu-central-1":   "sts.eu-central-1.amazonaws.com",
		"cn-northwest-1": "sts.cn-northwest-1.amazonaws.com.cn",
		"us-gov-west-1":  "sts.us-gov-west-1.amazonaws.com",
		"eusc-de-east-1": "sts.eusc-de-east-1.amazonaws.eu",
		"ap-future-9":    "sts.ap-future-9.amazonaws.com",
	} {
		var got string
		p, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		p.client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r.URL.Scheme + "://" + r.URL.Host
			return nil, errors.New("not asked")
		})}
		l := login(t, "key", &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{
			AccessKeyId: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: strings.Repeat("s", 40), Region: region,
		}}}, nil)
		if _, err := p.Verify(t.Context(), l); err == nil {
			t.Fatal("no error")
		}
		if got != "https://"+host {
			t.Errorf("region %q: asked %s, want %s", region, got, host)
		}
	}
}

func TestNewRefusesEndpoints(t *testing.T) {
	for _, cfg := range []Config{
		{STSEndpoint: "sts.example.com"},
		{ECREndpoint: "https://user@ecr.example.com"},
		{ECRPublicEndpoint: "ftp://ecr.example.com"},
		{IMDSEndpoint: "http://metadata.example.com"},
		{ContainerEndpoint: "https://169.254.170.2"},
	} {
		if p, err := New(cfg); err == nil || p != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestUserSession(t *testing.T) {
	w := newWorld(t)
	key := keyLogin(t, w.user)
	w.Asked()
	token := w.mint(t, key, sessionRequest(&credentialv1.TokenRequest_AwsSession{Duration: durationpb.New(2 * time.Hour)}))
	if diff := cmp.Diff([]string{"GetCallerIdentity", "GetSessionToken"}, w.Asked()); diff != "" {
		t.Errorf("asked (-want +got)\n%s", diff)
	}
	if got := token.GetAws(); got.GetArn() != userARN || got.GetAccount() != awstest.Account || !strings.HasPrefix(got.GetAccessKeyId(), "ASIA") {
		t.Errorf("the session is of %s, account %s", got.GetArn(), got.GetAccount())
	}
	if left := time.Until(token.GetExpireTime().AsTime()); left < 119*time.Minute || left > 121*time.Minute {
		t.Errorf("it ends in %s", left)
	}
	session := keyLogin(t, keyOf(token))
	if got, err := w.Verify(t.Context(), session); err != nil || got.Name != userARN {
		t.Errorf("the session is of %q: %v", got.Name, err)
	}
	w.Asked()
	_, err := w.Mint(t.Context(), session, request(t, "awsAccessKey", nil))
	wantError(t, err, provider.ErrUnsupported, "the credential is temporary already, and AWS makes sessions from users' access keys only: read it, or ask for awsAssumeRole")
	if asked := w.Asked(); len(asked) != 0 {
		t.Errorf("AWS was asked for %v", asked)
	}
}

// Everything that a role is asked with arrives, and narrows what comes out.
func TestAssumeRole(t *testing.T) {
	w := newWorld(t)
	all := &credentialv1.TokenRequest_AwsRoleSession{
		RoleArn: deployARN, ExternalId: "ext-1", SessionName: "ci-42", Duration: durationpb.New(2 * time.Hour),
		Tags: map[string]string{"team": "a b", "cost": ""}, TransitiveTagKeys: []string{"team"},
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:*"],"Resource":"*"}]}`, PolicyArns: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"},
		Region: "eu-west-1", SourceIdentity: "alice",
	}
	token := w.mint(t, keyLogin(t, w.user), assumeRequest(all))
	const want = "arn:aws:sts::" + awstest.Account + ":assumed-role/deploy/ci-42"
	if got := token.GetAws(); got.GetArn() != want || got.GetAccount() != awstest.Account {
		t.Errorf("the session is of %s, account %s", got.GetArn(), got.GetAccount())
	}
	if left := time.Until(token.GetExpireTime().AsTime()); left < 119*time.Minute {
		t.Errorf("it ends in %s", left)
	}
	if diff := cmp.Diff(awstest.Session{
		Name: "ci-42", SourceIdentity: "alice", Region: "eu-west-1", Tags: map[string]string{"team": "a b", "cost": ""},
		PolicyARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}, Policy: all.GetPolicy(),
	}, w.Session(keyOf(token))); diff != "" {
		t.Errorf("AWS was told (-want +got)\n%s", diff)
	}
	session := keyLogin(t, keyOf(token))
	_, err := w.Mint(t.Context(), session, request(t, "awsAccessKey", registryRequest(&credentialv1.TokenRequest_RegistryLogin{})))
	wantError(t, err, provider.ErrRefused, "a permission is missing (AccessDeniedException): User: "+want+" is not authorized to perform: ecr:GetAuthorizationToken on resource: *")

	// The tag passes on, and cannot be set again.
	next := w.mint(t, session, assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{RoleArn: auditARN}))
	if got := w.Session(keyOf(next)).Tags; got["team"] != "a b" || len(got) != 1 {
		t.Errorf("the next role has the tags %v", got)
	}
	_, err = w.Mint(t.Context(), session, request(t, "awsAccessKey", assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{RoleArn: auditARN, Tags: map[string]string{"team": "c"}})))
	if !errors.Is(err, provider.ErrRefused) {
		t.Errorf("error is %v", err)
	}
}

// A chain is walked from its source, and each link has its own name.
func TestChain(t *testing.T) {
	w := newWorld(t)
	chain := assumeLogin(t, "audit", &credentialv1.AwsAssumeRole{RoleArn: auditARN, Duration: durationpb.New(20 * time.Minute)},
		deployLogin(t, roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, "")))
	w.Asked()
	got, err := w.Verify(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "arn:aws:sts::"+awstest.Account+":assumed-role/audit/credstore-audit" {
		t.Errorf("identity is %s", got.Name)
	}
	if diff := cmp.Diff([]string{
		"PUT /latest/api/token", "GET /latest/meta-data/iam/security-credentials/", "GET /latest/meta-data/iam/security-credentials/node",
		"AssumeRole", "AssumeRole", "GetCallerIdentity",
	}, w.Asked()); diff != "" {
		t.Errorf("asked (-want +got)\n%s", diff)
	}
	own := w.mint(t, chain, assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{Duration: durationpb.New(15 * time.Minute)}))
	if left := time.Until(own.GetExpireTime().AsTime()); left > 15*time.Minute {
		t.Errorf("it ends in %s", left)
	}
	_, err = w.Mint(t.Context(), chain, request(t, "awsAssumeRole", assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{Duration: durationpb.New(21 * time.Minute)})))
	wantError(t, err, provider.ErrUnsupported, "the session can be at most as long as the credential says, 20m0s: ask for less, or change its duration")

	endless := chain
	endless.Source = &endless
	if _, err := w.Verify(t.Context(), endless); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("a cycle: %v", err)
	}
	chain.Source = nil
	if _, err := w.Verify(t.Context(), chain); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("no source: %v", err)
	}
}

func TestSessionNames(t *testing.T) {
	for id, want := range map[string]string{
		"deploy":                "credstore-deploy",
		strings.Repeat("a", 63): "credstore-" + strings.Repeat("a", 54),
		"a b/ü":                 "credstore-a-b-",
	} {
		if got := sessionName("", id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
	if got := sessionName("asked", "id"); got != "asked" {
		t.Errorf("%q", got)
	}
}

func TestRegistryLogin(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name    string
		request *credentialv1.TokenRequest_RegistryLogin
		server  string
		service string
	}{
		{"the account's own", &credentialv1.TokenRequest_RegistryLogin{}, awstest.Account + ".dkr.ecr.eu-central-1.amazonaws.com", "ecr"},
		{"in a region", &credentialv1.TokenRequest_RegistryLogin{Region: "us-west-2"}, awstest.Account + ".dkr.ecr.us-west-2.amazonaws.com", "ecr"},
		{
			"of another account", &credentialv1.TokenRequest_RegistryLogin{Server: "210987654321.dkr.ecr.eu-west-1.amazonaws.com", RoleArn: auditARN},
			"210987654321.dkr.ecr.eu-west-1.amazonaws.com", "ecr",
		},
		{"public", &credentialv1.TokenRequest_RegistryLogin{Server: "public.ecr.aws"}, "public.ecr.aws", "ecr-public"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := w.mint(t, keyLogin(t, w.user), registryRequest(test.request))
			got := token.GetRegistry()
			if got.GetServer() != test.server || got.GetUsername() != "AWS" || got.GetPassword() == "" {
				t.Errorf("server %s, user %s", got.GetServer(), got.GetUsername())
			}
			var config struct {
				Auths map[string]struct{ Auth string }
			}
			if err := json.Unmarshal([]byte(got.GetDockerConfig()), &config); err != nil {
				t.Fatal(err)
			}
			if auth := config.Auths[test.server].Auth; auth != base64.StdEncoding.EncodeToString([]byte("AWS:"+got.GetPassword())) || len(config.Auths) != 1 {
				t.Error("the docker config is for something else")
			}
			if left := time.Until(token.GetExpireTime().AsTime()); left < 11*time.Hour {
				t.Errorf("it ends in %s", left)
			}
			if last := w.LastSigned(); last != test.service {
				t.Errorf("signed for %s", last)
			}
		})
	}
}

// What EKS would do with the token, it can do; and with no other.
func TestClusterLogin(t *testing.T) {
	w := newWorld(t)
	key := keyLogin(t, w.user)
	ask := clusterRequest(&credentialv1.TokenRequest_KubernetesLogin{Cluster: "prod", Region: "eu-west-1"})
	w.Asked()
	token := w.mint(t, key, ask)
	if asked := w.Asked(); len(asked) != 0 {
		t.Errorf("AWS was asked for %v", asked)
	}
	text := token.GetKubernetes().GetToken()
	if got, err := w.ClusterToken(text, "prod", nil); err != nil || got != userARN {
		t.Fatalf("the cluster sees %q: %v", got, err)
	}
	if left := time.Until(token.GetExpireTime().AsTime()); left > 14*time.Minute || left < 13*time.Minute {
		t.Errorf("it ends in %s", left)
	}
	var exec struct {
		APIVersion, Kind string
		Status           struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}
	if err := json.Unmarshal([]byte(token.GetKubernetes().GetExecCredential()), &exec); err != nil {
		t.Fatal(err)
	}
	if exec.APIVersion != "client.authentication.k8s.io/v1" || exec.Kind != "ExecCredential" || exec.Status.Token != text ||
		!exec.Status.ExpirationTimestamp.Equal(token.GetExpireTime().AsTime()) {
		t.Errorf("the ExecCredential is of %s %s, and ends %s", exec.APIVersion, exec.Kind, exec.Status.ExpirationTimestamp)
	}

	if got, err := w.ClusterToken(text, "other", nil); err == nil {
		t.Errorf("another cluster sees %q", got)
	}
	wrong := w.user
	wrong.Secret = strings.Repeat("w", 40)
	if got, err := w.ClusterToken(w.mint(t, keyLogin(t, wrong), ask).GetKubernetes().GetToken(), "prod", nil); err == nil {
		t.Errorf("with a wrong secret the cluster sees %q", got)
	}
	as := w.mint(t, deployLogin(t, key), clusterRequest(&credentialv1.TokenRequest_KubernetesLogin{Cluster: "prod", Region: "eu-west-1", RoleArn: auditARN}))
	if got, err := w.ClusterToken(as.GetKubernetes().GetToken(), "prod", nil); err != nil || got != "arn:aws:sts::"+awstest.Account+":assumed-role/audit/credstore-deploy" {
		t.Errorf("as a role the cluster sees %q: %v", got, err)
	}
	w.Skew(16 * time.Minute)
	defer w.Skew(0)
	if got, err := w.ClusterToken(text, "prod", nil); err == nil {
		t.Errorf("after a quarter of an hour the cluster sees %q", got)
	}
}

// A token is no better than the session it was signed with.
func TestClusterLoginEndsWithItsSession(t *testing.T) {
	w := newWorld(t)
	now := time.Date(2026, 11, 22, 10, 0, 0, 5e8, time.UTC)
	w.cfg.Now = func() time.Time { return now }
	s := session{region: "eu-west-1"}
	s.keys.AccessKeyID, s.keys.SecretAccessKey = w.user.ID, w.user.Secret
	for _, test := range []struct {
		expires, want time.Time
	}{
		{time.Time{}, time.Date(2026, 11, 22, 10, 14, 0, 0, time.UTC)},
		{now.Add(time.Hour), time.Date(2026, 11, 22, 10, 14, 0, 0, time.UTC)},
		{now.Add(5 * time.Minute), time.Date(2026, 11, 22, 10, 5, 0, 0, time.UTC)},
	} {
		s.keys.Expires, s.keys.CanExpire = test.expires, !test.expires.IsZero()
		token, err := w.clusterLogin(t.Context(), s, "prod")
		if err != nil {
			t.Fatal(err)
		}
		if got := token.GetExpireTime().AsTime(); !got.Equal(test.want) {
			t.Errorf("it ends %s, want %s", got, test.want)
		}
	}
}

// Vault sends what it was given to STS, with the headers as they are.
func TestSignIdentity(t *testing.T) {
	w := newWorld(t)
	key := keyLogin(t, w.user)
	replay := func(r SignedRequest) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), r.Method, w.URL, strings.NewReader(string(r.Body)))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = r.Headers.Clone()
		request.Host = strings.TrimSuffix(strings.TrimPrefix(r.URL, "https://"), "/")
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	for name, l := range map[string]credential.Login{
		"key": key, "role": deployLogin(t, key), "machine": roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, ""),
	} {
		t.Run(name, func(t *testing.T) {
			signed, err := w.SignIdentity(t.Context(), l, "vault.example.com")
			if err != nil {
				t.Fatal(err)
			}
			if signed.Method != http.MethodPost || string(signed.Body) != "Action=GetCallerIdentity&Version=2011-06-15" {
				t.Errorf("%s %s", signed.Method, signed.Body)
			}
			who, err := w.Verify(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			if status, text := replay(signed); status != http.StatusOK || !strings.Contains(text, "<Arn>"+who.Name+"</Arn>") {
				t.Errorf("STS answers %d %s", status, text)
			}
			if !strings.Contains(signed.Headers.Get("Authorization"), "x-vault-aws-iam-server-id") {
				t.Error("the server's id is not signed")
			}
			for _, printed := range []string{fmt.Sprintf("%v %+v %#v %s", signed, signed, signed, &signed), signed.LogValue().String()} {
				if strings.Contains(printed, "Signature=") {
					t.Error("it prints its signature")
				}
			}
			signed.Headers.Set(ServerIDHeader, "other.example.com")
			if status, _ := replay(signed); status != http.StatusForbidden {
				t.Errorf("for another server STS answers %d", status)
			}
		})
	}
	for region, want := range map[string]string{"": "https://sts.amazonaws.com/", "eu-west-1": "https://sts.eu-west-1.amazonaws.com/"} {
		l := login(t, "key", &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{
			AccessKeyId: w.user.ID, SecretAccessKey: w.user.Secret, Region: region,
		}}}, nil)
		signed, err := w.SignIdentity(t.Context(), l, "")
		if err != nil || signed.URL != want || signed.Headers.Get(ServerIDHeader) != "" {
			t.Errorf("region %q: %s, %v", region, signed.URL, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, l := range []credential.Login{keyLogin(t, w.user), roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, "")} {
		if _, err := w.Verify(ctx, l); !errors.Is(err, context.Canceled) {
			t.Errorf("Verify: %v", err)
		}
		if _, err := w.Mint(ctx, l, request(t, l.Payload.Kind(), clusterRequest(&credentialv1.TokenRequest_KubernetesLogin{Cluster: "c", Region: "eu-west-1", RoleArn: auditARN}))); !errors.Is(err, context.Canceled) {
			t.Errorf("Mint: %v", err)
		}
	}
}

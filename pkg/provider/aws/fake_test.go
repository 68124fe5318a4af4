package aws

import (
	"errors"
	"net/http"
	"net/netip"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/aws/awstest"
)

const (
	userARN   = "arn:aws:iam::" + awstest.Account + ":user/bot"
	deployARN = "arn:aws:iam::" + awstest.Account + ":role/app/deploy"
	auditARN  = "arn:aws:iam::" + awstest.Account + ":role/audit"
	nodeARN   = "arn:aws:iam::" + awstest.Account + ":role/node"

	deploySession = "arn:aws:sts::" + awstest.Account + ":assumed-role/deploy/credstore-deploy"
)

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// world is a fake AWS with a user and roles, and a Provider that asks it.
type world struct {
	*awstest.Server
	*Provider
	user awstest.Key
	env  map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Server: awstest.New(t), env: map[string]string{}}
	w.user = w.User("bot")
	w.Role(awstest.Role{ARN: deployARN, Trust: []string{userARN, nodeARN}, ExternalID: "ext-1", Max: 2 * time.Hour, Subject: "system:serviceaccount:app:deploy"})
	w.Role(awstest.Role{ARN: auditARN, Trust: []string{deployARN, userARN, nodeARN}, Max: 12 * time.Hour})
	w.Role(awstest.Role{ARN: nodeARN})
	for _, owner := range []string{userARN, nodeARN} {
		w.Allow(owner, deployARN)
		w.Allow(owner, auditARN)
	}
	w.Allow(deployARN, auditARN)
	w.Machine(nodeARN)
	var err error
	w.Provider, err = New(w.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

func (w *world) config() Config {
	return Config{
		Egress: loopback, STSEndpoint: w.URL, ECREndpoint: w.URL, ECRPublicEndpoint: w.URL,
		IMDSEndpoint: w.IMDS, ContainerEndpoint: w.Container,
		Getenv: func(name string) string { return w.env[name] },
	}
}

// login makes a login from a payload that the store would accept.
func login(t *testing.T, name string, m *credentialv1.Payload, source *credential.Login) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/p/credentials/" + name, ID: name + "/1", Payload: p, Source: source}
}

func keyLogin(t *testing.T, k awstest.Key) credential.Login {
	t.Helper()
	return login(t, "key", &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{
		AccessKeyId: k.ID, SecretAccessKey: k.Secret, SessionToken: k.Token, Region: "eu-central-1",
	}}}, nil)
}

func roleLogin(t *testing.T, source credentialv1.AwsRole_Source, arn string) credential.Login {
	t.Helper()
	return login(t, "node", &credentialv1.Payload{Kind: &credentialv1.Payload_AwsRole{AwsRole: &credentialv1.AwsRole{Source: source, RoleArn: arn}}}, nil)
}

func assumeLogin(t *testing.T, name string, m *credentialv1.AwsAssumeRole, source credential.Login) credential.Login {
	t.Helper()
	m.Source = source.Name
	return login(t, name, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAssumeRole{AwsAssumeRole: m}}, &source)
}

func deployLogin(t *testing.T, source credential.Login) credential.Login {
	t.Helper()
	return assumeLogin(t, "deploy", &credentialv1.AwsAssumeRole{RoleArn: deployARN, ExternalId: "ext-1"}, source)
}

func request(t *testing.T, kind credential.Kind, m *credentialv1.TokenRequest) credential.TokenRequest {
	t.Helper()
	r, err := credential.NewTokenRequest(kind, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func assumeRequest(m *credentialv1.TokenRequest_AwsRoleSession) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsAssumeRole{AwsAssumeRole: m}}
}

func registryRequest(m *credentialv1.TokenRequest_RegistryLogin) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_RegistryLogin_{RegistryLogin: m}}
}

func clusterRequest(m *credentialv1.TokenRequest_KubernetesLogin) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_KubernetesLogin_{KubernetesLogin: m}}
}

func sessionRequest(m *credentialv1.TokenRequest_AwsSession) *credentialv1.TokenRequest {
	return &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsSession_{AwsSession: m}}
}

// mint mints what must be possible.
func (w *world) mint(t *testing.T, l credential.Login, m *credentialv1.TokenRequest) *credentialv1.Token {
	t.Helper()
	token, err := w.Mint(t.Context(), l, request(t, l.Payload.Kind(), m))
	if err != nil {
		t.Fatal(err)
	}
	return token.Message()
}

func keyOf(m *credentialv1.Token) awstest.Key {
	return awstest.Key{ID: m.GetAws().GetAccessKeyId(), Secret: m.GetAws().GetSecretAccessKey(), Token: m.GetAws().GetSessionToken()}
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	var typed *provider.Error
	if !errors.As(err, &typed) || !errors.Is(err, kind) {
		t.Fatalf("error is %v, want a *provider.Error that wraps %q", err, kind)
	}
	if typed.Text != text {
		t.Errorf("text\n got %s\nwant %s", typed.Text, text)
	}
}

// roundTripper answers with what a function makes.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

package aws

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/aws/awstest"
	"github.com/credstore/credstore/test/heldport"
)

// The answer that manuals show, with a key that works in place of its dots.
const imdsAnswer = `{ "Code" : "Success", "LastUpdated" : "2017-06-29T06:12:29Z", "Type" : "AWS-HMAC", "AccessKeyId" : "%s", "SecretAccessKey" : "%s", "Token" : "%s", "Expiration" : "%s" }`

func TestInstanceMetadataAnswer(t *testing.T) {
	w := newWorld(t)
	session := keyOf(w.mint(t, keyLogin(t, w.user), nil))
	for name, test := range map[string]struct {
		role, answer string
		status       int
		kind         error
		text         string
	}{
		"as documented": {answer: fmt.Sprintf(imdsAnswer, session.ID, session.Secret, session.Token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))},
		"as documented, with the manual's own values": {
			answer: fmt.Sprintf(imdsAnswer, "ASIA...", "3VI...", "dzE...", "2017-06-29T12:16:54Z"), kind: provider.ErrRefused,
			text: "AWS does not know the key: it was deleted or deactivated, its session token is another's, or the region is of another partition or not enabled (InvalidClientTokenId): The security token included in the request is invalid.",
		},
		"a role that EC2 cannot assume": {
			answer: `{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role node."}`, kind: provider.ErrRefused,
			text: "the machine's role cannot be used (AssumeRoleUnauthorizedAccess): EC2 cannot assume the role node.",
		},
		"half of it":                {answer: `{"Code":"Success","AccessKeyId":"A"}`, kind: provider.ErrUnavailable, text: "the answer lacks a part of the credentials"},
		"no JSON":                   {answer: "<html>", kind: provider.ErrUnavailable, text: "the answer is no JSON of the form that AWS's metadata services have"},
		"no role":                   {status: http.StatusNotFound, kind: provider.ErrUnsupported, text: "the machine has no role: attach an instance profile to it"},
		"an empty list":             {role: " ", kind: provider.ErrUnsupported, text: "the machine has no role: attach an instance profile to it"},
		"a role with a slash":       {role: "../user-data", kind: provider.ErrUnsupported, text: "the machine has no role: attach an instance profile to it"},
		"broken":                    {status: http.StatusInternalServerError, kind: provider.ErrUnavailable, text: "the metadata service is not in order"},
		"a token that is not taken": {status: http.StatusUnauthorized, kind: provider.ErrRefused, text: "the metadata service refuses the request: is version 2 of it switched on?"},
		"switched off":              {status: http.StatusForbidden, kind: provider.ErrRefused, text: "the metadata service refuses the request: is version 2 of it switched on?"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPut:
					out.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
					_, _ = fmt.Fprint(out, "token")
				case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token":
					out.WriteHeader(http.StatusUnauthorized)
				case test.status != 0:
					out.WriteHeader(test.status)
				case strings.HasSuffix(r.URL.Path, "/"):
					if test.role == "" {
						test.role = "node"
					}
					_, _ = fmt.Fprint(out, test.role)
				default:
					_, _ = fmt.Fprint(out, test.answer)
				}
			}))
			defer server.Close()
			cfg := w.config()
			cfg.IMDSEndpoint = server.URL
			p, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Verify(t.Context(), roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, ""))
			if test.kind != nil {
				wantError(t, err, test.kind, test.text)
				return
			}
			if err != nil || got.Name != userARN {
				t.Errorf("identity is %q: %v", got.Name, err)
			}
		})
	}
}

func TestNoMetadataService(t *testing.T) {
	w := newWorld(t)
	address := heldport.Refusing(t)
	cfg := w.config()
	cfg.IMDSEndpoint = "http://" + address
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Verify(t.Context(), roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, ""))
	wantError(t, err, provider.ErrUnavailable, "the metadata service did not answer (in a container, its hop limit has to be 2): dial "+address+": connection refused")
}

// The server's own credentials are the source of tokens, and never one.
func TestAmbientIsNeverHandedOut(t *testing.T) {
	w := newWorld(t)
	node := roleLogin(t, credentialv1.AwsRole_INSTANCE_METADATA, "")
	for _, m := range []*credentialv1.TokenRequest{
		assumeRequest(&credentialv1.TokenRequest_AwsRoleSession{}),
		registryRequest(&credentialv1.TokenRequest_RegistryLogin{}),
		clusterRequest(&credentialv1.TokenRequest_KubernetesLogin{Cluster: "c", Region: "eu-west-1"}),
		sessionRequest(&credentialv1.TokenRequest_AwsSession{}),
	} {
		if _, err := credential.NewTokenRequest("awsRole", m); err == nil {
			t.Errorf("the request %v is accepted", m)
		}
		// A request that another kind accepts gets no further.
		kind := credential.Kind("awsAssumeRole")
		if m.GetAwsSession() != nil {
			kind = "awsAccessKey"
		}
		token, err := w.Mint(t.Context(), node, request(t, kind, m))
		if !errors.Is(err, provider.ErrUnsupported) || !token.IsZero() {
			t.Errorf("%v: %v, %v", m, token, err)
		}
	}
}

func TestContainer(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const identity = "arn:aws:sts::" + awstest.Account + ":assumed-role/node/task"
	for _, test := range []struct {
		name          string
		source        credentialv1.AwsRole_Source
		env           map[string]string
		authorization string
		file          string
		kind          error
		text          string
	}{
		{name: "ECS", source: credentialv1.AwsRole_CONTAINER, env: map[string]string{envRelativeURI: "/v2/credentials/1"}},
		{name: "pod identity", source: credentialv1.AwsRole_POD_IDENTITY, env: map[string]string{envFullURI: w.Container + "/v2/credentials/1", envAuthFile: file}, authorization: "pod-token", file: "pod-token\n"},
		{name: "a token in the environment", source: credentialv1.AwsRole_POD_IDENTITY, env: map[string]string{envFullURI: w.Container + "/v2/credentials/1", envAuthorization: "pod-token"}, authorization: "pod-token"},
		{
			name: "no ECS", source: credentialv1.AwsRole_CONTAINER, kind: provider.ErrUnsupported,
			text: "the server's environment has no AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: it does not run in a container of ECS",
		},
		{
			name: "no pod", source: credentialv1.AwsRole_POD_IDENTITY, kind: provider.ErrUnsupported,
			text: "the server's environment has no AWS_CONTAINER_CREDENTIALS_FULL_URI: it does not run in a pod of EKS with a pod identity",
		},
		{
			name: "a URL that leads elsewhere", source: credentialv1.AwsRole_CONTAINER, env: map[string]string{envRelativeURI: "@203.0.113.1/"}, kind: provider.ErrUnsupported,
			text: "the server's environment has no AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: it does not run in a container of ECS",
		},
		{
			name: "a name", source: credentialv1.AwsRole_POD_IDENTITY, env: map[string]string{envFullURI: "http://agent.example.com/"}, kind: provider.ErrUnsupported,
			text: "the endpoint that the environment names: its host is no IP address",
		},
		{
			name: "another token", source: credentialv1.AwsRole_POD_IDENTITY, env: map[string]string{envFullURI: w.Container + "/v2/credentials/1", envAuthFile: file}, authorization: "pod-token", file: "other-token",
			kind: provider.ErrRefused, text: "the agent refuses the request (Unauthorized): the authorization is not the task's",
		},
		{
			name: "an empty file", source: credentialv1.AwsRole_POD_IDENTITY, env: map[string]string{envFullURI: w.Container + "/", envAuthFile: file}, file: " \n",
			kind: provider.ErrUnavailable, text: "the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names holds no token of one line and at most 65536 bytes",
		},
		{
			name: "no file", source: credentialv1.AwsRole_POD_IDENTITY, env: map[string]string{envFullURI: w.Container + "/", envAuthFile: file + "x"},
			kind: provider.ErrUnavailable, text: "the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names cannot be read: no such file or directory",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.env = test.env
			w.Task(nodeARN, "/v2/credentials/1", test.authorization)
			write(test.file)
			got, err := w.Verify(t.Context(), roleLogin(t, test.source, ""))
			if test.kind != nil {
				wantError(t, err, test.kind, test.text)
				return
			}
			if err != nil || got.Name != identity {
				t.Errorf("identity is %q: %v", got.Name, err)
			}
		})
	}
}

func TestWebIdentity(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "token")
	const subject = "system:serviceaccount:app:deploy"
	now := time.Now()
	for _, test := range []struct {
		name, subject, audience string
		end                     time.Time
		role, envRole           string
		noFile                  bool
		kind                    error
		text                    string
	}{
		{name: "good", subject: subject, audience: awstest.Audience, end: now.Add(time.Hour), role: deployARN},
		{name: "role of the environment", subject: subject, audience: awstest.Audience, end: now.Add(time.Hour), envRole: deployARN},
		{
			name: "expired", subject: subject, audience: awstest.Audience, end: now.Add(-time.Minute), role: deployARN,
			kind: provider.ErrRefused, text: "the pod's token has expired (status 400): the kubelet should have replaced the file",
		},
		{
			name: "for others", subject: subject, audience: "vault", end: now.Add(time.Hour), role: deployARN, kind: provider.ErrRefused,
			text: "the pod's token is refused: check the identity provider in IAM and its audience (InvalidIdentityToken): Incorrect token audience",
		},
		{
			name: "of another pod", subject: "system:serviceaccount:app:other", audience: awstest.Audience, end: now.Add(time.Hour), role: deployARN, kind: provider.ErrRefused,
			text: "a permission is missing (AccessDenied): Not authorized to perform sts:AssumeRoleWithWebIdentity",
		},
		{
			name: "no role", subject: subject, audience: awstest.Audience, end: now.Add(time.Hour), kind: provider.ErrUnsupported,
			text: "no role is named: set the credential's roleArn, or AWS_ROLE_ARN in the server's environment",
		},
		{
			name: "no pod", noFile: true, role: deployARN, end: now, kind: provider.ErrUnsupported,
			text: "the server's environment has no AWS_WEB_IDENTITY_TOKEN_FILE: it does not run in a pod of EKS whose service account has a role",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, err := w.PodToken(test.subject, test.audience, test.end)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
			w.env = map[string]string{envWebIdentity: file, envRoleARN: test.envRole}
			if test.noFile {
				delete(w.env, envWebIdentity)
			}
			got, err := w.Verify(t.Context(), roleLogin(t, credentialv1.AwsRole_WEB_IDENTITY, test.role))
			if test.kind != nil {
				wantError(t, err, test.kind, test.text)
				if strings.Contains(err.Error(), token) {
					t.Error("the error holds the token")
				}
				return
			}
			if err != nil || got.Name != "arn:aws:sts::"+awstest.Account+":assumed-role/deploy/credstore-node" {
				t.Errorf("identity is %q: %v", got.Name, err)
			}
		})
	}
}

// An agent cannot send the server, with its authorization, somewhere else.
func TestAgentsRedirectIsNotFollowed(t *testing.T) {
	w := newWorld(t)
	followed := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed++ }))
	defer elsewhere.Close()
	agent := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer agent.Close()
	w.env = map[string]string{envFullURI: agent.URL + "/", envAuthorization: "pod-token"}
	_, err := w.Verify(t.Context(), roleLogin(t, credentialv1.AwsRole_POD_IDENTITY, ""))
	wantError(t, err, provider.ErrRefused, "the agent refuses the request")
	if followed != 0 {
		t.Error("the redirect was followed")
	}
}

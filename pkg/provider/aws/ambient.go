package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// The variables by which AWS tells a program where its credentials are.
// Source: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
const (
	envRelativeURI   = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	envFullURI       = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
	envAuthorization = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
	envAuthFile      = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
	envWebIdentity   = "AWS_WEB_IDENTITY_TOKEN_FILE"
	envRoleARN       = "AWS_ROLE_ARN"
)

// maxTokenFile is the most bytes of a file with a token; AWS takes 20,000.
const maxTokenFile = 64 << 10

// ambient returns the session of the machine, container or pod.
func (p *Provider) ambient(ctx context.Context, login credential.Login, role *credentialv1.AwsRole) (session, error) {
	switch role.GetSource() {
	case credentialv1.AwsRole_CONTAINER:
		uri := p.cfg.Getenv(envRelativeURI)
		if !strings.HasPrefix(uri, "/") {
			return session{}, notHere(envRelativeURI, "a container of ECS")
		}
		return p.container(ctx, p.cfg.ContainerEndpoint+uri, role.GetRegion())
	case credentialv1.AwsRole_POD_IDENTITY:
		uri := p.cfg.Getenv(envFullURI)
		if uri == "" {
			return session{}, notHere(envFullURI, "a pod of EKS with a pod identity")
		}
		return p.container(ctx, uri, role.GetRegion())
	case credentialv1.AwsRole_WEB_IDENTITY:
		return p.webIdentity(ctx, login, role)
	default:
		return p.instance(ctx, role.GetRegion())
	}
}

// notHere is the error where the environment lacks what a source needs.
func notHere(variable, place string) *provider.Error {
	return unsupported("", "the server's environment has no "+variable+": it does not run in "+place)
}

// metadataAddress returns the address of a service that AWS offers to the machine
// itself. Names are not looked up, except for localhost, which is what agents on
// the machine use.
func metadataAddress(endpoint string) (netip.AddrPort, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return netip.AddrPort{}, errors.New("it is no URL of the form http://169.254.169.254")
	}
	host, port := u.Hostname(), u.Port()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "80"
	}
	address, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, errors.New("its host is no IP address")
	}
	return address, nil
}

// metadataClient connects to that address only. Who has it closes its idle
// connections.
func metadataClient(endpoint string) (*http.Client, error) {
	address, err := metadataAddress(endpoint)
	if err != nil {
		return nil, err
	}
	return provider.MetadataClient(address), nil
}

// ask sends a request without a body to a metadata service.
func ask(ctx context.Context, client *http.Client, method, uri string, header http.Header) (provider.Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, uri, nil)
	if err != nil {
		return provider.Answer{}, err
	}
	request.Header = header
	return provider.Do(client, request)
}

// instance asks the metadata service, version 2: version 1 answers whatever
// request reaches it, and is not used.
// Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
func (p *Provider) instance(ctx context.Context, region string) (session, error) {
	const (
		op   = "instance metadata"
		path = "/latest/meta-data/iam/security-credentials/"
	)
	client, err := metadataClient(p.cfg.IMDSEndpoint)
	if err != nil {
		return session{}, unsupported(op, err.Error())
	}
	defer client.CloseIdleConnections()
	token, err := ask(ctx, client, http.MethodPut, p.cfg.IMDSEndpoint+"/latest/api/token",
		http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil || token.Status != http.StatusOK {
		return session{}, metadataFailed(ctx, op, token.Status, err)
	}
	header := http.Header{"X-Aws-Ec2-Metadata-Token": {strings.TrimSpace(string(token.Body))}}
	roles, err := ask(ctx, client, http.MethodGet, p.cfg.IMDSEndpoint+path, header)
	if err != nil || roles.Status != http.StatusOK {
		return session{}, metadataFailed(ctx, op, roles.Status, err)
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(roles.Body)), "\n")
	if name = strings.TrimSpace(name); name == "" || notInNames.MatchString(name) {
		return session{}, noRole(op, 0)
	}
	keys, err := ask(ctx, client, http.MethodGet, p.cfg.IMDSEndpoint+path+name, header)
	if err != nil || keys.Status != http.StatusOK {
		return session{}, metadataFailed(ctx, op, keys.Status, err)
	}
	return readKeys(op, keys.Body, region)
}

func noRole(op string, status int) *provider.Error {
	e := unsupported(op, "the machine has no role: attach an instance profile to it")
	e.Status = status
	return e
}

// metadataFailed says what the answers of the metadata service mean.
func metadataFailed(ctx context.Context, op string, status int, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		e := provider.NetworkError(op, err)
		e.Text = provider.Clean("the metadata service did not answer (in a container, its hop limit has to be 2): " + e.Text)
		return e
	case status == http.StatusNotFound:
		return noRole(op, status)
	case status == http.StatusForbidden, status == http.StatusUnauthorized, status == http.StatusBadRequest:
		return &provider.Error{Kind: provider.ErrRefused, Op: op, Status: status, Text: "the metadata service refuses the request: is version 2 of it switched on?"}
	}
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Status: status, Text: "the metadata service is not in order"}
}

// readKeys reads the credentials that all metadata services answer with.
func readKeys(op string, body []byte, region string) (session, error) {
	var answer struct {
		Code, Message, AccessKeyID, SecretAccessKey, Token string
		Expiration                                         time.Time
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return session{}, unusable(op, "the answer is no JSON of the form that AWS's metadata services have")
	}
	if answer.Code != "" && answer.Code != "Success" {
		return session{}, &provider.Error{
			Kind: provider.ErrRefused, Op: op, Text: provider.Clean("the machine's role cannot be used (" + answer.Code + "): " + answer.Message),
		}
	}
	if answer.AccessKeyID == "" || answer.SecretAccessKey == "" || answer.Token == "" || answer.Expiration.IsZero() {
		return session{}, unusable(op, "the answer lacks a part of the credentials")
	}
	return session{region: region, keys: awssdk.Credentials{
		AccessKeyID: answer.AccessKeyID, SecretAccessKey: answer.SecretAccessKey, SessionToken: answer.Token,
		CanExpire: true, Expires: answer.Expiration,
	}}, nil
}

// container asks the endpoint of a container or of a pod's agent.
// Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func (p *Provider) container(ctx context.Context, uri, region string) (session, error) {
	const op = "container credentials"
	client, err := metadataClient(uri)
	if err != nil {
		return session{}, unsupported(op, "the endpoint that the environment names: "+err.Error())
	}
	defer client.CloseIdleConnections()
	token, err := p.authorization()
	if err != nil {
		return session{}, unusable(op, err.Error())
	}
	header := http.Header{"Accept": {"application/json"}}
	if token != "" {
		header.Set("Authorization", token)
	}
	a, err := ask(ctx, client, http.MethodGet, uri, header)
	switch {
	case ctx.Err() != nil:
		return session{}, ctx.Err()
	case err != nil:
		return session{}, provider.NetworkError(op, err)
	case a.Status == http.StatusOK:
		return readKeys(op, a.Body, region)
	}
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: a.Status, Text: "the agent refuses the request", RetryAfter: a.RetryAfter()}
	if a.Status >= http.StatusInternalServerError || a.Status == http.StatusTooManyRequests {
		e.Kind, e.Text = provider.ErrUnavailable, "the agent is not in order"
	}
	var why struct{ Code, Message string }
	if json.Unmarshal(a.Body, &why) == nil && why.Code != "" {
		e.Text = provider.Clean(e.Text+" ("+why.Code+"): "+why.Message, token)
	}
	return session{}, e
}

// authorization returns what the endpoint wants to see in the header of that name.
// The file changes while the server runs, so it is read each time.
func (p *Provider) authorization() (string, error) {
	name := p.cfg.Getenv(envAuthFile)
	if name == "" {
		return p.cfg.Getenv(envAuthorization), nil
	}
	return readToken(envAuthFile, name)
}

// readToken reads a file that the environment names. That it has none yet may be
// put right by whoever writes it, so it counts as an answer that did not come.
func readToken(variable, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("the file that %s names cannot be read: %w", variable, cause(err))
	}
	defer func() { _ = f.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("the file that %s names cannot be read: %w", variable, cause(err))
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(text) > maxTokenFile || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("the file that %s names holds no token of one line and at most %d bytes", variable, maxTokenFile)
	}
	return token, nil
}

// cause returns the error without the path, which a person sees in the
// environment.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// webIdentity assumes a role with the pod's token.
func (p *Provider) webIdentity(ctx context.Context, login credential.Login, role *credentialv1.AwsRole) (session, error) {
	const op = "AssumeRoleWithWebIdentity"
	name, arn := p.cfg.Getenv(envWebIdentity), role.GetRoleArn()
	if name == "" {
		return session{}, notHere(envWebIdentity, "a pod of EKS whose service account has a role")
	}
	if arn == "" {
		arn = p.cfg.Getenv(envRoleARN)
	}
	if arn == "" {
		return session{}, unsupported(op, "no role is named: set the credential's roleArn, or "+envRoleARN+" in the server's environment")
	}
	token, err := readToken(envWebIdentity, name)
	if err != nil {
		return session{}, unusable(op, err.Error())
	}
	anonymous := session{region: role.GetRegion()}
	answer, err := p.sts(anonymous).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          awssdk.String(arn),
		RoleSessionName:  awssdk.String(sessionName("", login.ShortName())),
		WebIdentityToken: awssdk.String(token),
	})
	if err != nil {
		return session{}, refusedPod(failed(ctx, op, err, session{keys: awssdk.Credentials{SessionToken: token}}))
	}
	return newSession(op, answer.Credentials, answer.AssumedRoleUser, role.GetRegion())
}

// refusedPod says what else the codes of STS mean for a token of a pod.
func refusedPod(err error) error {
	var e *provider.Error
	if !errors.As(err, &e) || !strings.Contains(e.Text, "(ExpiredToken") {
		return err
	}
	out := *e
	out.Text = "the pod's token has expired (status " + strconv.Itoa(e.Status) + "): the kubelet should have replaced the file"
	return &out
}

package app_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/awscreds"
	"github.com/credstore/credstore/pkg/client/azcreds"
	"github.com/credstore/credstore/pkg/client/oauthcreds"
	"github.com/credstore/credstore/pkg/client/tokens"
	"github.com/credstore/credstore/pkg/provider/aws/awstest"
	"github.com/credstore/credstore/pkg/provider/azure/azuretest"
	"github.com/credstore/credstore/pkg/provider/gcp/gcptest"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/app"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

const (
	rotationWorkers = 4
	rotationPace    = 20 * time.Millisecond
	// rotationLimit is above the 30 seconds that azcore takes to ask again.
	rotationLimit = 90 * time.Second
	// rotationCalls is how often each worker calls before and after the change.
	rotationCalls = 25
)

// A rotation as an operator does it: the vendor gets a second secret, credstore is
// told, and when all clients have moved on the first one is removed, with
// everything that was made from it. Programs that hold clients of the vendors'
// SDKs for all that time go on without one call that fails. The Azure SDK asks for
// its next token 30 seconds after the last, which is how long this takes.
func TestRotation(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	s := newRotationSite(t)
	t.Run("vendors", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *rotationSite){
			"AWS minted": testRotationAWSMinted, "AWS stored": testRotationAWSStored,
			"Azure": testRotationAzure, "Google": testRotationGoogle,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, s)
			})
		}
	})
}

// rotationSite is a credstore with three vendors, its operator, and a program that
// may use the credentials that are rotated.
type rotationSite struct {
	operator, program *client.Client

	aws    *awstest.Server
	azure  *azuretest.Server
	google *gcptest.Server
	// What credstore takes for them.
	awsFront, azureFront, googleFront *vendorFront
}

func newRotationSite(t *testing.T) *rotationSite {
	t.Helper()
	s := &rotationSite{aws: awstest.New(t), azure: azuretest.New(t), google: gcptest.New(t)}
	s.awsFront = newVendorFront(t, s.aws.URL, "", awsKeyID, awsSession)
	s.azureFront = newVendorFront(t, s.azure.URL, s.azure.CAPEM, func(r *http.Request) string { return r.PostFormValue("client_secret") }, bearerToken)
	s.googleFront = newVendorFront(t, strings.TrimSuffix(s.google.TokenURL(), "/token"), s.google.CAPEM(), googleKeyID, bearerToken)

	dir := app.Dir(t.TempDir())
	cfg := app.ServerConfig{
		Dir: dir, Create: true, GRPCListen: "127.0.0.1:0", RESTListen: "127.0.0.1:0",
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	cfg.Vendors.CAPEM = s.azureFront.caPEM + s.googleFront.caPEM
	for _, endpoint := range []string{"aws.sts=" + s.awsFront.url, "azure.authority=" + s.azureFront.url, "gcp.token=" + s.googleFront.url + "/token"} {
		if err := cfg.Vendors.SetEndpoint(endpoint); err != nil {
			t.Fatal(err)
		}
	}
	server, err := app.OpenServer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ran := make(chan error, 1)
	go func() { ran <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	dial := func(id string, r core.CreateTokenRequest) *client.Client {
		r.Name = resourcename.Token{Project: core.DefaultProject, ID: id}
		_, secret, err := server.Store().CreateToken(core.AsSystem(t.Context()), r)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.Dial(client.Options{
			Address: server.GRPCAddr(), CAFile: dir.CA(),
			Token: func(context.Context) (string, error) { return secret, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	}
	s.operator = dial("operator", core.CreateTokenRequest{Role: core.Operator})
	workload := core.CreateTokenRequest{Role: core.Workload, Attributes: map[string]string{"app": "billing"}}
	for _, id := range []string{"aws-minted", "aws-stored", "azure", "google"} {
		workload.Credentials = append(workload.Credentials, resourcename.Credential{Project: core.DefaultProject, ID: id})
	}
	s.program = dial("billing", workload)
	return s
}

func rotationName(id string) string { return "projects/default/credentials/" + id }

func (s *rotationSite) create(t *testing.T, id string, p *credentialv1.Payload) {
	t.Helper()
	_, err := s.operator.Credentials.CreateCredential(t.Context(), &credstorev1.CreateCredentialRequest{
		Parent: "projects/default", CredentialId: id, Credential: &credstorev1.Credential{Payload: p},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *rotationSite) update(t *testing.T, id string, p *credentialv1.Payload) {
	t.Helper()
	_, err := s.operator.Credentials.UpdateCredential(t.Context(), &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: rotationName(id), Payload: p},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *rotationSite) source(t *testing.T, id string) *tokens.Source {
	t.Helper()
	source, err := tokens.New(tokens.Options{Client: s.program, Credential: rotationName(id), Consumer: "billing"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func testRotationAWSMinted(t *testing.T, s *rotationSite) {
	first := s.aws.User("minted")
	s.create(t, "aws-minted", awsPayload(first))
	provider := awscreds.Minted(s.source(t, "aws-minted"), nil)
	f := startFleet(t, s.callerIdentity(provider), s.awsFront.secretOf)
	f.awaitSecret(first.ID)
	session, err := provider.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	second := s.aws.User("minted")
	s.update(t, "aws-minted", awsPayload(second))
	f.awaitSecret(second.ID)
	s.aws.Remove(first)
	sessions := s.awsFront.madeFrom(first.ID)
	for _, id := range sessions {
		s.aws.End(awstest.Key{ID: id}, time.Now().Add(-time.Minute))
	}
	if !slices.Contains(sessions, session.AccessKeyID) {
		t.Errorf("the sessions %v of the first key lack %s, which was used", sessions, session.AccessKeyID)
	}
	f.finish(first.ID, second.ID)

	session.CanExpire = false
	old := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return session, nil })
	if err := s.callerIdentity(old)(t.Context()); err == nil {
		t.Error("the vendor still takes a session of the key that was removed")
	}
}

func testRotationAWSStored(t *testing.T, s *rotationSite) {
	first := s.aws.User("stored")
	s.create(t, "aws-stored", awsPayload(first))
	w, err := s.program.WatchCredentials(client.WatchOptions{
		Parent: "projects/default", Names: []string{rotationName("aws-stored")}, Payload: true, Consumer: "billing",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	f := startFleet(t, s.callerIdentity(awscreds.Stored(w, rotationName("aws-stored"))), func(id string) string { return id })
	f.awaitSecret(first.ID)

	second := s.aws.User("stored")
	s.update(t, "aws-stored", awsPayload(second))
	f.awaitSecret(second.ID)
	// A watch with payloads is what an operator sees of it.
	answer, err := s.operator.Credentials.ListConsumers(t.Context(), &credstorev1.ListConsumersRequest{Parent: rotationName("aws-stored")})
	if err != nil {
		t.Fatal(err)
	}
	if all := answer.GetConsumers(); len(all) != 1 || all[0].GetWorkload() != "billing" || all[0].GetVersion() != 2 {
		t.Errorf("the consumers are %v", all)
	}
	s.aws.Remove(first)
	f.finish(first.ID, second.ID)
}

// callerIdentity is a program's call of AWS, with the SDK's own cache, by a client
// that lives as long as the program.
func (s *rotationSite) callerIdentity(provider aws.CredentialsProvider) func(context.Context) error {
	sdk := sts.New(sts.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(s.aws.URL), Retryer: aws.NopRetryer{},
		Credentials: aws.NewCredentialsCache(provider), HTTPClient: &http.Client{Transport: spy{http.DefaultTransport}},
	})
	return func(ctx context.Context) error {
		_, err := sdk.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		return err
	}
}

func testRotationAzure(t *testing.T, s *rotationSite) {
	const tenant, application, audience = "d189c61b-6c27-41d3-9749-ca5c9cc4a622", "bc968c1e-67a3-4ba5-8d05-f807abb54a57", "https://vault.azure.net"
	const first, second = "first~secret-of-the-application-0000000001", "second~secret-of-the-application-000000002"
	s.azure.Add(&azuretest.App{
		Tenant: tenant, Client: application, Object: "ae01981e-e1bf-49ec-ad81-80af157a944e", Secrets: map[string]time.Time{first: {}},
	})
	payload := func(secret string) *credentialv1.Payload {
		return &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
			TenantId: tenant, ClientId: application, ClientSecret: secret,
		}}}
	}
	service := newService(t, s.azureFront, func(token string) error { return s.azure.CheckToken(token, audience) })
	s.create(t, "azure", payload(first))
	bearer := runtime.NewBearerTokenPolicy(azcreds.New(s.source(t, "azure")), []string{audience + "/.default"}, nil)
	pipeline := runtime.NewPipeline("billing", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}}, &policy.ClientOptions{
		Transport: &http.Client{Transport: spy{service.Client().Transport}}, Retry: policy.RetryOptions{MaxRetries: -1},
	})
	f := startFleet(t, func(ctx context.Context) error {
		r, err := runtime.NewRequest(ctx, http.MethodGet, service.URL)
		if err != nil {
			return err
		}
		resp, err := pipeline.Do(r)
		return outcome(resp, err)
	}, s.azureFront.secretOf)
	f.awaitSecret(first)

	s.azure.SetSecrets(application, map[string]time.Time{first: {}, second: {}})
	s.update(t, "azure", payload(second))
	f.awaitSecret(second)
	s.azure.SetSecrets(application, map[string]time.Time{second: {}})
	s.azureFront.remove(first)
	f.finish(first, second)
	service.refusesOld(t, first)
}

func testRotationGoogle(t *testing.T, s *rotationSite) {
	const email = "billing@acme-prod.iam.gserviceaccount.com"
	payload := func(a gcptest.Account) *credentialv1.Payload {
		return &credentialv1.Payload{Kind: &credentialv1.Payload_GcpServiceAccount{GcpServiceAccount: &credentialv1.GcpServiceAccount{Document: a.Document}}}
	}
	service := newService(t, s.googleFront, func(token string) error {
		if h := s.google.Holder(token); h.Name != email || !time.Now().Before(h.End) {
			return fmt.Errorf("the token is of %+v", h)
		}
		return nil
	})
	first := s.google.AddAccount(email)
	s.create(t, "google", payload(first))
	source := oauthcreds.New(t.Context(), s.source(t, "google"), nil)
	base := &http.Client{Transport: spy{service.Client().Transport}}
	sdk := oauth2.NewClient(context.WithValue(t.Context(), oauth2.HTTPClient, base), source)
	f := startFleet(t, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, service.URL, nil)
		if err != nil {
			return err
		}
		resp, err := sdk.Do(r)
		return outcome(resp, err)
	}, s.googleFront.secretOf)
	f.awaitSecret(first.KeyID)

	second := s.google.AddAccount(email)
	s.update(t, "google", payload(second))
	f.awaitSecret(second.KeyID)
	s.google.DeleteKey(first)
	s.googleFront.remove(first.KeyID)
	f.finish(first.KeyID, second.KeyID)
	service.refusesOld(t, first.KeyID)
}

func awsPayload(k awstest.Key) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{AccessKeyId: k.ID, SecretAccessKey: k.Secret}}}
}

func outcome(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}

// fleet is the goroutines of a program, which call all the time.
type fleet struct {
	t    *testing.T
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	workers  [rotationWorkers]struct{ calls, since int } // since their secret changed
	last     [rotationWorkers]string
	used     map[string]int // calls by secret
	failures []error
}

// startFleet starts them; secretOf says which secret of the vendor is behind what
// was sent.
func startFleet(t *testing.T, call func(context.Context) error, secretOf func(sent string) string) *fleet {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &fleet{t: t, stop: stop, used: map[string]int{}}
	for i := range rotationWorkers {
		f.wg.Go(func() {
			pace := time.NewTicker(rotationPace)
			defer pace.Stop()
			for ctx.Err() == nil {
				var sent string
				// A call that was begun is not broken off when the test ends.
				err := call(context.WithValue(context.WithoutCancel(ctx), sentKey{}, &sent))
				f.note(i, secretOf(sent), err)
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() {
		stop()
		f.wg.Wait()
	})
	return f
}

func (f *fleet) note(worker int, secret string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failures = append(f.failures, err)
	}
	f.used[secret]++
	if f.last[worker] != secret {
		f.last[worker], f.workers[worker].since = secret, 0
	}
	f.workers[worker].calls++
	f.workers[worker].since++
}

// await waits until every worker has come to a point.
func (f *fleet) await(what string, reached func(worker int) bool) {
	f.t.Helper()
	tick := time.NewTicker(rotationPace)
	defer tick.Stop()
	all := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range rotationWorkers {
			if !reached(i) {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(rotationLimit); !all(); <-tick.C {
		if time.Now().After(end) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.t.Fatalf("%s: not after %s; last used %q, failures %v", what, rotationLimit, f.last, f.failures)
		}
	}
}

// awaitSecret waits until every worker has used a secret for a while.
func (f *fleet) awaitSecret(secret string) {
	f.t.Helper()
	f.await("all use the secret "+secret, func(i int) bool { return f.last[i] == secret && f.workers[i].since >= rotationCalls })
}

// finish lets everybody go on for a while, and says what went wrong in all that
// time.
func (f *fleet) finish(first, second string) {
	f.t.Helper()
	var from [rotationWorkers]int
	f.mu.Lock()
	for i := range from {
		from[i] = f.workers[i].calls
	}
	f.mu.Unlock()
	f.await("all go on", func(i int) bool { return f.workers[i].calls >= from[i]+rotationCalls })
	f.stop()
	f.wg.Wait()
	if len(f.failures) > 0 {
		f.t.Errorf("%d calls failed, the first with %v", len(f.failures), f.failures[0])
	}
	for _, secret := range []string{first, second} {
		if n := f.used[secret]; n < rotationWorkers*rotationCalls {
			f.t.Errorf("%d calls used the secret %q", n, secret)
		}
		delete(f.used, secret)
	}
	if len(f.used) > 0 {
		f.t.Errorf("calls used something else: %v", f.used)
	}
}

// spy tells a worker what was sent for it, at the bottom of an SDK's client.
type spy struct{ next http.RoundTripper }

type sentKey struct{}

func (s spy) RoundTrip(r *http.Request) (*http.Response, error) {
	if sent, ok := r.Context().Value(sentKey{}).(*string); ok {
		*sent = awsKeyID(r)
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			*sent = token
		}
	}
	return s.next.RoundTrip(r)
}

// service is a resource of a vendor that takes the vendor's tokens, but not those
// whose secret was removed, as a vendor does that revokes everything at once.
type service struct {
	*httptest.Server
	front *vendorFront
}

func newService(t *testing.T, front *vendorFront, check func(token string) error) *service {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		err := check(token)
		if err == nil {
			err = front.check(token)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	return &service{server, front}
}

// refusesOld checks that the test would have noticed.
func (s *service) refusesOld(t *testing.T, secret string) {
	t.Helper()
	old := s.front.madeFrom(secret)
	if len(old) == 0 {
		t.Fatal("no token was made from the first secret")
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+old[0])
	resp, err := s.Client().Do(r)
	if err := outcome(resp, err); err == nil {
		t.Error("the service still takes a token of the secret that was removed")
	}
}

// vendorFront stands before a vendor and remembers which secret every token was
// made from.
type vendorFront struct {
	url, caPEM string

	mu      sync.Mutex
	made    map[string]string // secret by token
	removed map[string]bool   // secrets
}

// newVendorFront starts one; secret finds the secret in a request, or a name of
// it, and token what was made in an answer.
func newVendorFront(t *testing.T, upstream, caPEM string, secret func(*http.Request) string, token func(body []byte) string) *vendorFront {
	t.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	if caPEM != "" {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(caPEM))
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	f := &vendorFront{caPEM: caPEM, made: map[string]string{}, removed: map[string]bool{}}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // it is signed
		},
		ModifyResponse: func(resp *http.Response) error {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			if from, ok := resp.Request.Context().Value(sentKey{}).(string); ok && resp.StatusCode == http.StatusOK {
				f.note(token(body), from)
			}
			// A vendor that describes itself describes what stands before it.
			body = bytes.ReplaceAll(body, []byte(upstream), []byte(f.url))
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		from := secret(r)
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sentKey{}, from)))
	})
	var server *httptest.Server
	if caPEM != "" {
		server = httptest.NewTLSServer(handler)
	} else {
		server = httptest.NewServer(handler)
	}
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	f.url = server.URL
	return f
}

func (f *vendorFront) note(token, secret string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if token != "" {
		f.made[token] = secret
	}
}

// secretOf says which secret a token was made from.
func (f *vendorFront) secretOf(token string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made[token]
}

// madeFrom lists the tokens that were made from a secret.
func (f *vendorFront) madeFrom(secret string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for token, from := range f.made {
		if from == secret {
			out = append(out, token)
		}
	}
	return out
}

// remove makes tokens of a secret worthless.
func (f *vendorFront) remove(secret string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed[secret] = true
}

func (f *vendorFront) check(token string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if secret, ok := f.made[token]; !ok || f.removed[secret] {
		return fmt.Errorf("revoked (made here: %t)", ok)
	}
	return nil
}

var (
	credentialOfSignature = regexp.MustCompile(`Credential=([A-Z0-9]+)/`)
	accessKeyOfAnswer     = regexp.MustCompile(`<AccessKeyId>([A-Z0-9]+)</AccessKeyId>`)
)

func awsKeyID(r *http.Request) string {
	if m := credentialOfSignature.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		return m[1]
	}
	return ""
}

func awsSession(body []byte) string {
	if m := accessKeyOfAnswer.FindSubmatch(body); m != nil {
		return string(m[1])
	}
	return ""
}

func bearerToken(body []byte) string {
	var m struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(body, &m) != nil {
		return ""
	}
	return m.Token
}

// googleKeyID reads the name of the key in the header of an assertion.
func googleKeyID(r *http.Request) string {
	header, _, _ := strings.Cut(r.PostFormValue("assertion"), ".")
	var m struct {
		KeyID string `json:"kid"`
	}
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil || json.Unmarshal(text, &m) != nil {
		return ""
	}
	return m.KeyID
}

package oci_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/oci"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

const (
	tenancy = "ocid1.tenancy.oc1..aaaatenancy"
	user    = "ocid1.user.oc1..aaaauser"
	hidden  = "ocid1.user.oc1..aaaahidden"
)

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func login(t *testing.T, key *rsa.PrivateKey, of string) credential.Login {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Oci{Oci: &credentialv1.Oci{
		Tenancy: tenancy, User: of, Region: "eu-frankfurt-1",
		PrivateKeyPem: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/p/credentials/oracle", ID: of, Payload: p}
}

// register lets a login in.
func (f *fake) register(l credential.Login, key *rsa.PrivateKey) {
	m := l.Payload.Message().GetOci()
	f.keys[m.GetTenancy()+"/"+m.GetUser()+"/"+m.GetFingerprint()] = &key.PublicKey
}

func (f *fake) vendor(t *testing.T) *oci.Vendor {
	t.Helper()
	v, err := oci.New(oci.Config{Egress: loopback, Endpoint: f.server.URL, CAPEM: f.ca()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func TestVendor(t *testing.T) {
	f := newFake(t)
	key, wrong := newKey(t), newKey(t)
	good := login(t, key, user)
	f.register(good, key)
	f.users[user] = "deployer"
	providertest.RunVendor(t, providertest.VendorHarness{
		Verifier: f.vendor(t), Good: good, Identity: "deployer", Wrong: login(t, wrong, user),
		Calls: func() int { return int(f.calls.Load()) },
		Stop: func(*testing.T) func() {
			down := func(w http.ResponseWriter) bool {
				complain(w, 503, "ServiceUnavailable", "The service is currently unavailable.")
				return true
			}
			f.override.Store(&down)
			return func() { f.override.Store(nil) }
		},
		Secrets: []string{good.Payload.Message().GetOci().GetPrivateKeyPem()},
	})
}

func TestIdentity(t *testing.T) {
	f := newFake(t)
	key := newKey(t)
	shown, unseen := login(t, key, user), login(t, key, hidden)
	f.register(shown, key)
	f.register(unseen, key)
	f.users[user] = "deployer"
	v := f.vendor(t)
	for _, test := range []struct {
		login credential.Login
		want  credential.Identity
	}{
		{shown, credential.Identity{Name: "deployer", Facts: map[string]string{
			"description": "deploys", "lifecycleState": "ACTIVE", "tenancy": tenancy,
		}}},
		{unseen, credential.Identity{Name: hidden}},
	} {
		got, err := v.Verify(t.Context(), test.login)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("identity (-want +got)\n%s", diff)
		}
	}
}

// The fake refuses what the vendor refuses: a key that it does not know, a
// signature by another, and a clock that is wrong.
func TestRefusals(t *testing.T) {
	key, other := newKey(t), newKey(t)
	good := login(t, key, user)
	const incorrect = "verify: refused: 401 NotAuthenticated The required information to complete authentication was not provided or was incorrect."
	for _, test := range []struct {
		name string
		set  func(*fake)
		want string
	}{
		{"unknown key", func(*fake) {}, incorrect},
		{"another key under the same id", func(f *fake) { f.register(good, other) }, incorrect},
		{"clock", func(f *fake) {
			f.register(good, key)
			f.now = func() time.Time { return time.Now().Add(6 * time.Minute) }
		}, "is not within allowed clock skew."},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			f.users[user] = "deployer"
			test.set(f)
			_, err := f.vendor(t).Verify(t.Context(), good)
			if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	key := newKey(t)
	good := login(t, key, user)
	for _, test := range []struct {
		name, body string
		status     int
		kind       error
		want       string
	}{
		{"overloaded", `{"code":"TooManyRequests","message":"slow down"}`, 429, provider.ErrUnavailable, "verify: store unavailable: 429 TooManyRequests slow down"},
		{"no JSON", "<html>", 200, provider.ErrUnavailable, "verify: store unavailable: 200 the answer is not Oracle Cloud's"},
		{"not found, of a proxy", "not found", 404, provider.ErrUnavailable, "verify: store unavailable: 404 the answer is not Oracle Cloud's"},
		{"redirect", "", 307, provider.ErrUnavailable, "verify: store unavailable: 307 the answer is not Oracle Cloud's"},
		{"another user", `{"id":"ocid1.user.oc1..other","name":"x"}`, 200, provider.ErrRefused, "verify: refused: the answer is about another user"},
		{"bad request", `{"code":"InvalidParameter","message":"bad\nid"}`, 400, provider.ErrRefused, "verify: refused: 400 InvalidParameter bad id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			answer := func(w http.ResponseWriter) bool {
				w.Header().Set("Location", "https://127.0.0.1:1/")
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
				return true
			}
			f.override.Store(&answer)
			_, err := f.vendor(t).Verify(t.Context(), good)
			if !errors.Is(err, test.kind) || err.Error() != test.want {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

// Where a request goes follows from the payload alone, and never around Egress.
func TestEndpoint(t *testing.T) {
	v, err := oci.New(oci.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	key := newKey(t)
	m := login(t, key, user).Payload.Message()
	m.GetOci().Tenancy = "ocid1.tenancy.oc99..x"
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), credential.Login{Payload: p}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("unknown realm: error is %v", err)
	}
	if _, err := v.Verify(t.Context(), credential.Login{}); !errors.Is(err, provider.ErrRefused) {
		t.Errorf("no payload: error is %v", err)
	}
	f := newFake(t)
	guarded, err := oci.New(oci.Config{Endpoint: f.server.URL, CAPEM: f.ca()})
	if err != nil {
		t.Fatal(err)
	}
	defer guarded.Close()
	if _, err := guarded.Verify(t.Context(), login(t, key, user)); !errors.Is(err, provider.ErrRefused) || f.calls.Load() != 0 {
		t.Errorf("loopback: error is %v after %d calls", err, f.calls.Load())
	}
	for _, bad := range []string{"http://identity.example.com", "https://u@identity.example.com", "https://identity.example.com/x"} {
		if _, err := oci.New(oci.Config{Endpoint: bad}); err == nil {
			t.Errorf("endpoint %s is accepted", bad)
		}
	}
}

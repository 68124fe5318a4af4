package issuer

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	goodKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	tokenID = "ASIAIOSFODNN7EXAMPLE"
)

// vendor stands for AWS. It checks what it receives as far as the issuer is
// concerned: the secret of the login, the role's source, and that the session that
// is asked for may last that long.
type vendor struct {
	mu sync.Mutex
	// life is what a session lasts when the request does not say; 0 for tokens that
	// do not end.
	life time.Duration
	// slow is how long an answer takes.
	slow time.Duration
	// err is what it answers instead, if set.
	err error
	// answer replaces everything else, if set.
	answer func(ctx context.Context, login credential.Login) (credential.Token, error)
	calls  []call
	same   credential.Token // handed out again, if set
}

// call is one request that reached the vendor.
type call struct {
	at      time.Time
	login   string
	request string
}

func (v *vendor) set(change func(*vendor)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(v)
}

func (v *vendor) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.calls)
}

func (v *vendor) seen() []call {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.calls)
}

func (v *vendor) Verify(_ context.Context, login credential.Login) (credential.Identity, error) {
	v.mu.Lock()
	err := v.err
	v.mu.Unlock()
	if err == nil {
		err = checkSecret(login)
	}
	if err != nil {
		return credential.Identity{}, err
	}
	return credential.Identity{Name: "arn:aws:iam::123456789012:user/bot", Facts: map[string]string{"account": "123456789012"}}, nil
}

func (v *vendor) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	v.mu.Lock()
	v.calls = append(v.calls, call{time.Now(), login.Key(), request.Kind()})
	n, life, slow, err, answer, same := len(v.calls), v.life, v.slow, v.err, v.answer, v.same
	v.mu.Unlock()
	if answer != nil {
		return answer(ctx, login)
	}
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return credential.Token{}, ctx.Err()
		}
	}
	if err == nil {
		err = checkSecret(login)
	}
	if err != nil {
		return credential.Token{}, err
	}
	if !same.IsZero() {
		return same, nil
	}
	if d := request.Message().GetAwsSession().GetDuration().AsDuration(); d > 0 {
		life = d
	}
	return sessionToken(n, life)
}

// sessionToken returns the nth token, with the time in which it may be used.
func sessionToken(n int, life time.Duration) (credential.Token, error) {
	m := &credentialv1.Token{Kind: &credentialv1.Token_Aws{Aws: &credentialv1.Token_AwsCredentials{
		AccessKeyId: tokenID, SecretAccessKey: goodKey, SessionToken: fmt.Sprintf("session-%d", n), Account: "123456789012",
	}}}
	if life > 0 {
		m.ExpireTime = timestamppb.New(time.Now().Add(life))
	}
	return credential.NewToken(m)
}

func checkSecret(login credential.Login) error {
	for login.Source != nil {
		login = *login.Source
	}
	secret, err := login.Payload.Field("secretAccessKey")
	if err != nil {
		return err
	}
	if string(secret) != goodKey {
		return &provider.Error{Kind: provider.ErrRefused, Status: 403, Text: "SignatureDoesNotMatch"}
	}
	return nil
}

func accessKey(t testing.TB, secret string) credential.Payload {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{
		AwsAccessKey: &credentialv1.AwsAccessKey{AccessKeyId: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: secret, Region: "eu-west-1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// login is version n of the credential with a uid.
func login(t testing.TB, uid string, n int) credential.Login {
	t.Helper()
	return credential.Login{Name: "projects/p/credentials/" + uid, ID: fmt.Sprintf("%s/%d", uid, n), Payload: accessKey(t, goodKey)}
}

// request asks for a session; 0 is as long as the vendor gives.
func request(t testing.TB, d time.Duration) credential.TokenRequest {
	t.Helper()
	session := &credentialv1.TokenRequest_AwsSession{}
	if d > 0 {
		session.Duration = durationpb.New(d)
	}
	r, err := credential.NewTokenRequest("awsAccessKey", &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsSession_{AwsSession: session}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// session tells tokens apart.
func session(t testing.TB, token credential.Token) string {
	t.Helper()
	b, err := token.Field("sessionToken")
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// rig is an Issuer with its vendor. Numbers drawn at random are the same in every
// run.
type rig struct {
	*Issuer
	vendor *vendor
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{vendor: &vendor{life: time.Hour}}
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	cfg := Config{
		Vendors: map[credential.Kind]Vendor{"awsAccessKey": {r.vendor, r.vendor}, "awsAssumeRole": {r.vendor, r.vendor}},
		Random:  func() float64 { mu.Lock(); defer mu.Unlock(); return random.Float64() },
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if r.Issuer, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// get mints, and fails the test when that fails.
func (r *rig) get(t testing.TB, l credential.Login, q credential.TokenRequest) string {
	t.Helper()
	token, err := r.Mint(t.Context(), l, q)
	if err != nil {
		t.Errorf("Mint: %v", err)
		return ""
	}
	if ended(token, time.Now()) {
		t.Errorf("%s has ended", session(t, token))
	}
	return session(t, token)
}

// pass lets time pass, and everything that is due in it happen.
func pass(d time.Duration) {
	time.Sleep(d) // in a bubble
	synctest.Wait()
}

// noSecret checks that a text holds none.
func noSecret(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, goodKey) || strings.Contains(text, "session-") {
		t.Errorf("a secret is in %q", text)
	}
}

func maxGap(at []time.Time) (gap time.Duration) {
	slices.SortFunc(at, func(a, b time.Time) int { return cmp.Compare(a.UnixNano(), b.UnixNano()) })
	for i := range len(at) - 1 {
		gap = max(gap, at[i+1].Sub(at[i]))
	}
	return gap
}

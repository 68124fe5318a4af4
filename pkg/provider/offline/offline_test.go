package offline_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/offline"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// issued is a certificate with its key.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate that is valid from a time on; parent is nil for one
// that signs itself.
func issue(t *testing.T, name string, parent *issued, from time.Time, life time.Duration, serial int64) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: from.Add(life),
		BasicConstraintsValid: true, IsCA: name != "leaf", KeyUsage: x509.KeyUsageCertSign, DNSNames: []string{"www.example.com"},
	}
	by, signer := template, key
	if parent != nil {
		by, signer = parent.cert, parent.key
	}
	if name == "leaf" {
		template.KeyUsage, template.Subject = x509.KeyUsageDigitalSignature, pkix.Name{}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

func bundle(t *testing.T, key any, certs ...*issued) string {
	t.Helper()
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...))
}

// stored returns a payload as it may have been stored by other rules.
func stored(t *testing.T, text string) credential.Login {
	t.Helper()
	m := &credentialv1.Payload{Kind: &credentialv1.Payload_Certificate{Certificate: &credentialv1.Certificate{Pem: text}}}
	p, err := credential.NewPayload(m)
	if err == nil {
		return credential.Login{Payload: p}
	}
	encoded, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p, err = credential.Unmarshal(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Payload: p}
}

func TestCertificate(t *testing.T) {
	const day = 24 * time.Hour
	root := issue(t, "root", nil, start.Add(-100*day), 1000*day, 1)
	middle := issue(t, "middle", root, start.Add(-50*day), 100*day, 2)
	leaf := issue(t, "leaf", middle, start.Add(-day), 90*day, 3)
	long := issue(t, "leaf", middle, start.Add(-day), 300*day, 4)
	foreign := issue(t, "root", nil, start.Add(-100*day), 1000*day, 5)
	for _, test := range []struct {
		name string
		pem  string
		now  time.Time
		want string // the error; none when empty
	}{
		{"in time", bundle(t, leaf.key, leaf, middle, root), start, ""},
		{"alone", bundle(t, leaf.key, leaf), start, ""},
		{"in its last moment", bundle(t, leaf.key, leaf), leaf.cert.NotAfter, ""},
		{"expired", bundle(t, leaf.key, leaf, middle), start.Add(89*day + time.Second), "verify: refused: the certificate expired at 2026-05-29T12:00:00Z"},
		{"not yet valid", bundle(t, leaf.key, leaf, middle), start.Add(-2 * day), "verify: refused: the certificate is not valid before 2026-02-28T12:00:00Z"},
		{"an intermediate has expired", bundle(t, long.key, long, middle), start.Add(60 * day), "verify: refused: certificate 2 of the chain expired at 2026-04-20T12:00:00Z"},
		{"out of order, as stored by others", bundle(t, leaf.key, leaf, root, middle), start, ""},
		{"key of another", bundle(t, long.key, leaf), start, "verify: refused: the certificate and its private key do not fit together: store them anew"},
		{"not its authority", bundle(t, leaf.key, leaf, foreign), start, "verify: refused: certificate 2 of the chain signed none before it: put the chain in order by storing it anew"},
		{"no certificate", "x", start, "verify: refused: the certificate and its private key do not fit together: store them anew"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := offline.New(offline.Config{Now: func() time.Time { return test.now }})
			got, err := v.Verify(t.Context(), stored(t, test.pem))
			if test.want != "" {
				if !errors.Is(err, provider.ErrRefused) || err.Error() != test.want {
					t.Errorf("error is %v, want %q", err, test.want)
				}
				return
			}
			want := credential.Identity{Name: "www.example.com", Facts: map[string]string{"issuer": "CN=middle", "notAfter": "2026-05-29T12:00:00Z"}}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestOthers(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ssh, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_SshKey{SshKey: &credentialv1.SshKey{Pem: bundle(t, key)}}})
	if err != nil {
		t.Fatal(err)
	}
	v := offline.New(offline.Config{})
	_, err = v.Verify(t.Context(), credential.Login{Payload: ssh})
	if want := "verify: not supported: the key is sound, but nothing says which host accepts it: log in to one with it"; !errors.Is(err, provider.ErrUnsupported) || err.Error() != want {
		t.Errorf("SSH key: error is %v, want %q", err, want)
	}
	if _, err := v.Verify(t.Context(), credential.Login{}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("no payload: error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(ctx, credential.Login{Payload: ssh}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error is %v", err)
	}
}

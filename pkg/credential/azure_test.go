package credential_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// The system-assigned identity is an empty message, which the examples cannot
// hold: they ask each payload for a field.
func TestAzureSystemAssignedIdentity(t *testing.T) {
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AzureManagedIdentity{
		AzureManagedIdentity: &credentialv1.AzureManagedIdentity{},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"identity": "systemAssigned"}, p.Facts()); diff != "" {
		t.Errorf("Facts() (-want +got)\n%s", diff)
	}
	if !p.Ambient() || p.LongLived() {
		t.Errorf("Ambient() = %t, LongLived() = %t", p.Ambient(), p.LongLived())
	}
}

// No sentence about a bad value repeats it.
func TestAzureViolationsRepeatNoValue(t *testing.T) {
	const secret = "zQ8Q~hunter2"
	_, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{
		AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
			TenantId: secret, ClientId: secret, ClientSecret: secret + "\n" + secret, SubscriptionId: secret,
			CertificatePem: "-----BEGIN " + secret + "-----", CertificatePfx: []byte(secret), CertificatePassword: secret,
			Authority: "https://" + secret, ResourceManager: secret,
		},
	}})
	var typed *credential.ValidationError
	if !errors.As(err, &typed) || len(typed.Violations) < 8 {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(strings.ToLower(err.Error()), "hunter2") {
		t.Errorf("the error repeats a value: %v", err)
	}
}

// What is as large as a payload may be takes no longer than a person waits.
func TestAzureLargeInputs(t *testing.T) {
	const size = 250 << 10
	fill := func(part string) string { return strings.Repeat(part, size/len(part)) }
	for name, m := range map[string]*credentialv1.AzureServicePrincipal{
		"braces":         {Document: fill("{")},
		"nested objects": {Document: fill(`{"a":`)},
		"fields":         {Document: "{" + fill(`"appId":"x",`) + `"a":1}`},
		"escapes":        {Document: "{" + fill(`\"`) + "}"},
		"lines":          {Document: fill("a=b\n")},
		"quotes":         {Document: fill(`"`)},
		"base64":         {Document: fill("QUFB")},
		"blocks":         {CertificatePem: fill("-----BEGIN A-----\n-----END A-----\n")},
		"block begins":   {CertificatePem: fill("-----BEGIN A-----\n")},
		"key":            {CertificatePem: "-----BEGIN PRIVATE KEY-----\n" + fill("MIIE") + "\n-----END PRIVATE KEY-----"},
		"pfx":            {CertificatePfx: []byte(fill("\x30\x83\x01\x00\x00"))},
	} {
		t.Run(name, func(t *testing.T) {
			azureParses(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{AzureServicePrincipal: m}})
		})
	}
}

// A PKCS#12 file says itself how often its password is hashed, also for a key
// that is seen only after the part around it was decrypted. Such a file is
// refused before it is hashed that often; the test would otherwise run for years.
func TestAzurePFXWithAKeyHiddenInItsEncryptedPart(t *testing.T) {
	const password = "secret"
	file, err := os.ReadFile(filepath.Join("testdata", "files", "azure-chain.pfx"))
	if err != nil {
		t.Fatal(err)
	}
	type content struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	var pfx struct {
		Version  int
		AuthSafe content
		MAC      asn1.RawValue
	}
	var inner []byte
	var contents []content
	for _, step := range []struct {
		from func() []byte
		into any
	}{
		{func() []byte { return file }, &pfx},
		{func() []byte { return pfx.AuthSafe.Content.Bytes }, &inner},
		{func() []byte { return inner }, &contents},
	} {
		if _, err := asn1.Unmarshal(step.from(), step.into); err != nil {
			t.Fatal(err)
		}
	}
	hidden := content{
		Type:    asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6},
		Content: azureTestExplicit(t, azureTestDER(t, azureTestBags(t, password))),
	}
	// The order in which the parts stand in the file must not matter.
	for _, parts := range [][]content{{hidden, contents[1]}, {contents[1], hidden}} {
		safe := azureTestDER(t, parts)
		m := &credentialv1.AzureServicePrincipal{
			TenantId: "d189c61b-6c27-41d3-9749-ca5c9cc4a622", ClientId: "bc968c1e-67a3-4ba5-8d05-f807abb54a57",
			CertificatePassword: password,
			CertificatePfx: azureTestDER(t, struct {
				Version  int
				AuthSafe content
				MAC      asn1.RawValue
			}{3, content{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, Content: azureTestExplicit(t, azureTestDER(t, safe))}, pfx.MAC}),
		}
		_, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{AzureServicePrincipal: m}})
		if err == nil {
			t.Error("the file was accepted")
		}
	}
}

func azureTestDER(t *testing.T, v any) []byte {
	t.Helper()
	encoded, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func azureTestExplicit(t *testing.T, inner []byte) asn1.RawValue {
	t.Helper()
	return asn1.RawValue{FullBytes: azureTestDER(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner})}
}

type azureTestEncrypted struct {
	Version int
	Info    azureTestEncryptedInfo
}

type azureTestEncryptedInfo struct {
	Type      asn1.ObjectIdentifier
	Algorithm pkix.AlgorithmIdentifier
	Content   asn1.RawValue
}

// azureTestBags returns the EncryptedData of RFC 7292 with one bag: a key whose
// password is to be hashed 2^62 times.
func azureTestBags(t *testing.T, password string) azureTestEncrypted {
	t.Helper()
	const forever = 1 << 62
	type pbe struct {
		Salt       []byte
		Iterations int
	}
	type bag struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	key := azureTestDER(t, struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{
		pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3},
			Parameters: asn1.RawValue{FullBytes: azureTestDER(t, pbe{[]byte("saltsalt"), forever})},
		}, make([]byte, 16),
	})
	bags := azureTestDER(t, []bag{{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}, azureTestExplicit(t, key)}})

	salt, iv := []byte("saltsalt"), make([]byte, aes.BlockSize)
	derived, err := pbkdf2.Key(sha256.New, password, salt, 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		t.Fatal(err)
	}
	pad := aes.BlockSize - len(bags)%aes.BlockSize
	for range pad {
		bags = append(bags, byte(pad))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(bags, bags)

	type kdf struct {
		Salt       []byte
		Iterations int
		PRF        pkix.AlgorithmIdentifier
	}
	type scheme struct{ KDF, Encryption pkix.AlgorithmIdentifier }
	parameters := azureTestDER(t, scheme{
		pkix.AlgorithmIdentifier{
			Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12},
			Parameters: asn1.RawValue{FullBytes: azureTestDER(t, kdf{
				salt, 1, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}},
			})},
		},
		pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42},
			Parameters: asn1.RawValue{FullBytes: azureTestDER(t, iv)},
		},
	})
	return azureTestEncrypted{Info: azureTestEncryptedInfo{
		Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1},
		Algorithm: pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13},
			Parameters: asn1.RawValue{FullBytes: parameters},
		},
		Content: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: bags},
	}}
}

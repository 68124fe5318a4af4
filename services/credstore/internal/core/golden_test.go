package core

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

var writeGolden = flag.Bool("write-golden", false, "write the files of testdata/records-N.json that do not exist yet")

// goldenRevision is that of every golden record.
const goldenRevision = 1_000_000

// at is a time with all its digits.
func at(n int) time.Time { return time.Date(2026, 1, n, 3, 4, 5, 123456789, time.UTC) }

// goldenRecord is a record and what decodes its bytes.
type goldenRecord struct {
	encode proto.Message
	decode func([]byte) (any, error)
	want   any
}

const goldenUID = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"

// goldenRecords are one of each type of record as the first program wrote them,
// with every field that it had.
func goldenRecords() map[string]goldenRecord {
	type rec = goldenRecord
	const uid = goldenUID
	etag := etagOf(uid, goldenRevision)
	labels := map[string]string{"team": "a", "zone": "eu", "b/c.d": ""}
	cn := resourcename.Credential{Project: "p", ID: "c"}
	p := &Project{Name: resourcename.Project{ID: "p"}, UID: uid, Description: "d", Labels: labels, Etag: etag, CreateTime: at(1), UpdateTime: at(2)}
	c := &Credential{
		Name: cn, UID: uid, Kind: "basic", Description: "d", Labels: labels, ActiveVersion: 7, NextVersion: 9,
		Facts: map[string]string{"username": "bot"}, References: []string{"projects/p/credentials/x", "projects/p/credentials/y"},
		ExpireTime: at(9), Etag: etag, CreateTime: at(1), UpdateTime: at(2), RotateTime: at(3),
	}
	v := &Version{
		Number: 7, State: Destroyed, Facts: c.Facts, References: c.References, CreateTime: at(1), DestroyTime: at(2), ExpireTime: at(3),
	}
	st := &SecretStore{
		Name: resourcename.SecretStore{Project: "p", ID: "s"}, UID: uid, Description: "d", Labels: labels, Credential: cn,
		Vault:        &VaultProvider{Address: "https://vault.example.com:8200", Namespace: "ns", Mount: "kv", CAPEM: "pem"},
		PollInterval: 90*time.Second + 1, Etag: etag, CreateTime: at(1), UpdateTime: at(2),
	}
	zero, thousand := uint32(0), uint32(1000)
	i := &Injection{
		Name: resourcename.Injection{Project: "p", ID: "i"}, UID: uid, Description: "d", Labels: labels, Selector: map[string]string{"app": "web"},
		Items: []Item{
			{Credential: &CredentialSource{Name: cn, Field: "password"}, File: FileTarget{Path: "a/b", Mode: 0o440, UID: &zero, GID: &thousand}, Group: "g"},
			{Secret: &SecretSource{Store: st.Name, Path: "app/db", Key: "k", Version: 3}, File: FileTarget{Path: "c", Mode: 0o400}},
		},
		Etag: etag, CreateTime: at(1), UpdateTime: at(2),
	}
	un := resourcename.Usage{Project: "p", Collection: resourcename.Credentials, Resource: "c", ID: "u"}
	derived := &Usage{Name: un, Source: Derived, User: "projects/p/injections/i", CreateTime: at(1)}
	declared := &Usage{Name: un, Source: Declared, User: "billing", Link: "https://example.com", ExpireTime: at(2), CreateTime: at(1), Principal: "projects/p/tokens/t"}
	tok := &Token{
		Name: resourcename.Token{Project: "p", ID: "t"}, UID: uid, ProjectUID: "0f9619ff-8b86-4011-b42d-00cf4fc964ff", Description: "d", Role: Workload, AllProjects: true,
		Attributes: map[string]string{"app": "web"}, Credentials: []resourcename.Credential{cn}, ExpireTime: at(2), Etag: etag, CreateTime: at(1),
		hash: []byte("0123456789abcdef0123456789abcdef"),
	}
	value := &recordv1.Value{
		StoreUid: uid, Path: "app/db", PinnedVersion: 3, Data: map[string][]byte{"k": {0, 0xff}, "l": nil}, Version: "12",
		FetchTime: timestamppb.New(at(1)), State: uint32(ValueUnavailable), Message: "m", StateTime: timestamppb.New(at(2)),
	}
	digest := [32]byte{1, 2, 3, 31: 32}
	request := &recordv1.Request{Digest: digest[:], Name: "projects/p", Response: []byte{8, 1}, Time: timestamppb.New(at(1))}
	named := []*Credential{c, {Name: resourcename.Credential{Project: "p", ID: "gone"}}}
	return map[string]rec{
		"project":     {encodeProject(p), func(b []byte) (any, error) { return decodeProject(p.Name, b, goldenRevision) }, p},
		"credential":  {encodeCredential(c), func(b []byte) (any, error) { return decodeCredential(cn, b, goldenRevision) }, c},
		"version":     {encodeVersion(v), func(b []byte) (any, error) { return decodeVersion(b) }, v},
		"secretStore": {encodeStore(st), func(b []byte) (any, error) { return decodeStore(st.Name, b, goldenRevision) }, st},
		"injection":   {encodeInjection(i), func(b []byte) (any, error) { return decodeInjection(i.Name, b, goldenRevision) }, i},
		"derived":     {encodeUsage(derived), func(b []byte) (any, error) { return decodeUsage(un, b) }, typed(derived, UsageOther)},
		"declared":    {encodeUsage(declared), func(b []byte) (any, error) { return decodeUsage(un, b) }, typed(declared, UsageOther)},
		"token":       {encodeToken(tok), func(b []byte) (any, error) { return decodeToken(tok.Name, b, goldenRevision) }, tok},
		"value": {value, func(b []byte) (any, error) { return decodeValue(b) }, &Value{
			Version: "12", State: ValueUnavailable, Message: "m", FetchTime: at(1), StateTime: at(2), hasData: true,
		}},
		"request": {request, func(b []byte) (any, error) { return decodeRequest(b, goldenRevision) }, &requestRecord{
			digest: digest, name: "projects/p", response: []byte{8, 1}, time: at(1), rev: goldenRevision,
		}},
		"tomb":   {encodeTomb(uid), func(b []byte) (any, error) { return decodeTomb(b) }, tomb{uid: uid}},
		"answer": {encodeCredentials(named), func(b []byte) (any, error) { return decodeCredentials(b, goldenRevision) }, named},
		"answer of a version": {
			&recordv1.VersionChange{Credential: asCredentialRecord(c), Version: asVersionRecord(v)},
			func(b []byte) (any, error) {
				c, v, err := decodeVersionChange(cn, b, goldenRevision)
				return []any{c, v}, err
			},
			[]any{c, *v},
		},
	}
}

// typed is a usage with the type that its record is read with.
func typed(u *Usage, t UsageType) *Usage {
	out := *u
	out.Type = t
	return &out
}

// goldenRecords2 are those whose type has got fields since, with these set.
func goldenRecords2() map[string]goldenRecord {
	etag := etagOf(goldenUID, goldenRevision)
	cn := resourcename.Credential{Project: "p", ID: "c"}
	p := &Project{Name: resourcename.Project{ID: "p"}, UID: goldenUID, RotationPeriod: 40 * day, Etag: etag, CreateTime: at(1), UpdateTime: at(2)}
	c := &Credential{
		Name: cn, UID: goldenUID, Kind: "kubeconfig", ActiveVersion: 7, NextVersion: 9, Ageless: true, RotationPeriod: 36 * time.Hour, Etag: etag,
		CreateTime: at(1), UpdateTime: at(2), RotateTime: at(3),
		Verification: &Verification{
			State: VerificationRefused, Version: 7, Message: "1 of 2 checks failed", Time: at(4), Latency: 7*time.Millisecond + 1,
			Identity: credential.Identity{
				Name: "ops", Facts: map[string]string{"server": "https://k.example.com", "groups": "a"},
				Checks: []credential.Check{{Name: "create pods", Passed: true}, {Name: "delete pods", Message: "forbidden"}},
			},
		},
	}
	v := &Version{Number: 7, State: Enabled, CreateTime: at(1), Ageless: true}
	request := &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsAssumeRole{AwsAssumeRole: &credentialv1.TokenRequest_AwsRoleSession{
		RoleArn: "arn:aws:iam::123456789012:role/x", Tags: map[string]string{"a": "b", "c": "d"},
	}}}
	i := &Injection{
		Name: resourcename.Injection{Project: "p", ID: "i"}, UID: goldenUID, Selector: map[string]string{"app": "web"},
		Items: []Item{{Mint: &MintSource{Credential: cn, Request: request, Field: "secretAccessKey"}, File: FileTarget{Path: "a/b", Mode: 0o440}}},
		Etag:  etag, CreateTime: at(1), UpdateTime: at(2),
	}
	un := resourcename.Usage{Project: "p", Collection: resourcename.Credentials, Resource: "c", ID: "u"}
	rn := resourcename.Usage{Project: "p", Collection: resourcename.Credentials, Resource: "c", ID: "credentials.role"}
	declared := &Usage{Name: un, Source: Declared, Type: UsageCloudScan, User: "scanner", ExpireTime: at(2), CreateTime: at(1), Principal: "projects/p/tokens/t"}
	reference := &Usage{Name: rn, Source: Derived, Type: UsageCredential, User: "projects/p/credentials/role", CreateTime: at(1)}
	minted := &recordv1.Minted{
		CredentialUid: goldenUID, Version: 7, Request: request, State: uint32(ValueRefused), Message: "m", Login: "a/7 b/1",
		MintTime: timestamppb.New(at(1)), StateTime: timestamppb.New(at(2)),
		Token: &credentialv1.Token{
			Kind:       &credentialv1.Token_Aws{Aws: &credentialv1.Token_AwsCredentials{AccessKeyId: "ASIA", SecretAccessKey: "s", SessionToken: "t", Arn: "arn", Account: "1"}},
			ExpireTime: timestamppb.New(at(3)),
		},
	}
	return map[string]goldenRecord{
		"minted": {minted, func(b []byte) (any, error) { return decodeMinted(b) }, &Minted{
			Version: 7, Login: "a/7 b/1", MintTime: at(1), ExpireTime: at(3), State: ValueRefused, Message: "m", StateTime: at(2),
		}},
		"project":    {encodeProject(p), func(b []byte) (any, error) { return decodeProject(p.Name, b, goldenRevision) }, p},
		"credential": {encodeCredential(c), func(b []byte) (any, error) { return decodeCredential(cn, b, goldenRevision) }, c},
		"version":    {encodeVersion(v), func(b []byte) (any, error) { return decodeVersion(b) }, v},
		"injection":  {encodeInjection(i), func(b []byte) (any, error) { return decodeInjection(i.Name, b, goldenRevision) }, i},
		"declared":   {encodeUsage(declared), func(b []byte) (any, error) { return decodeUsage(un, b) }, declared},
		"reference":  {encodeUsage(reference), func(b []byte) (any, error) { return decodeUsage(rn, b) }, reference},
	}
}

// goldenFile reads the vectors of a file, or writes them where the flag says so.
func goldenFile(t *testing.T, name string, records map[string]goldenRecord) map[string]string {
	t.Helper()
	path := filepath.Join("testdata", name)
	vectors := make(map[string]string)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &vectors); err != nil {
			t.Fatal(err)
		}
	case *writeGolden && os.IsNotExist(err):
		for name, r := range records {
			b, err := marshal(r.encode)
			if err != nil {
				t.Fatal(err)
			}
			vectors[name] = hex.EncodeToString(b)
		}
		b, err := json.MarshalIndent(vectors, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatal(err)
	}
	if len(vectors) != len(records) {
		t.Errorf("%s has %d vectors for %d records", path, len(vectors), len(records))
	}
	return vectors
}

// What was stored by an earlier program is read by this one: the bytes of every
// type of record are kept, and a change of the format fails here. A field that
// comes new gets a file of vectors of its own, beside those before.
func TestGoldenRecords(t *testing.T) {
	// Every field of a record is set in some vector, so that none is forgotten.
	set := make(map[protoreflect.FullName]bool)
	var messages []protoreflect.MessageDescriptor
	for file, records := range map[string]map[string]goldenRecord{"records-1.json": goldenRecords(), "records-2.json": goldenRecords2()} {
		vectors := goldenFile(t, file, records)
		for name, r := range records {
			golden, err := hex.DecodeString(vectors[name])
			if err != nil || len(golden) == 0 {
				t.Errorf("%s: %s has no vector: %v", file, name, err)
				continue
			}
			if b, err := marshal(r.encode); err != nil || hex.EncodeToString(b) != vectors[name] {
				t.Errorf("%s: %s is now stored as %x, %v; it was %s", file, name, b, err, vectors[name])
			}
			got, err := r.decode(golden)
			if err != nil {
				t.Errorf("%s: %s: %v", file, name, err)
				continue
			}
			if diff := cmp.Diff(r.want, got, cmp.AllowUnexported(Token{}, Value{}, requestRecord{}, tomb{}), protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", file, name, diff)
			}
			m := r.encode.ProtoReflect()
			messages = append(messages, m.Descriptor())
			m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
				set[f.FullName()] = true
				return true
			})
			// A record that is cut off or of garbage is an error and no panic.
			if _, err := r.decode(golden[:len(golden)-1]); err == nil {
				t.Errorf("%s: %s without its last byte decodes", file, name)
			}
			if _, err := r.decode([]byte(strings.Repeat("\xff", 20))); err == nil {
				t.Errorf("%s: %s of garbage decodes", file, name)
			}
		}
	}
	for _, m := range messages {
		for n := range m.Fields().Len() {
			if f := m.Fields().Get(n).FullName(); !set[f] {
				t.Errorf("%s is in no vector", f)
			}
		}
	}
}

type requestRecord = request

// Keys are part of the format as well.
func TestGoldenKeys(t *testing.T) {
	cn := resourcename.Credential{Project: "p", ID: "c"}
	principal := &Principal{Name: "projects/p/tokens/t", TokenUID: "uid"}
	for got, want := range map[string]string{
		keyProject(resourcename.Project{ID: "p"}):                   "project/p",
		keyCredential(cn):                                           "in/p/credential/c",
		keyInjection(resourcename.Injection{Project: "p", ID: "i"}): "in/p/injection/i",
		keyStore(resourcename.SecretStore{Project: "p", ID: "s"}):   "in/p/store/s",
		keyToken(resourcename.Token{Project: "p", ID: "t"}):         "in/p/token/t",
		keyVersion("uid", 7):                                        "version/uid/0000000007",
		keyUsage(resourcename.Usage{Project: "p", Collection: resourcename.Credentials, Resource: "c", ID: "injections.i"}): "usage/p/credential/c/injections.i",
		keyUsage(resourcename.Usage{Project: "p", Collection: resourcename.SecretStores, Resource: "s", ID: "u"}):           "usage/p/store/s/u",
		keyValue(Locator{Project: "p", StoreUID: "uid", Path: "app/db", Version: 3}):                                        "value/p/uid/05ec7f395b5122d3896330a943bf6d23",
		keyRequest("p", principal, "CreateCredential", "r"):                                                                 "request/p/83ea16e912bebc040bc5e6d9d4bc9a2a",
		keyGone(cn):            "gone/p/c",
		keyGuard("p"):          "guard/p",
		keyReferenceGuard("p"): "guard/p/references",
		keyUsage(resourcename.Usage{Project: "p", Collection: resourcename.Credentials, Resource: "c", ID: "credentials.r"}): "usage/p/reference/c/credentials.r",
		keyUsage(resourcename.Usage{Project: "p", Collection: resourcename.Credentials, Resource: "c", ID: "credentials"}):   "usage/p/credential/c/credentials",
		KeySeal: "seal/keys",
	} {
		if got != want {
			t.Errorf("key %s, want %s", got, want)
		}
	}
	// No two callers, methods or ids share the key of a request.
	seen := make(map[string]string)
	for _, name := range []string{"a", "a b", "ab"} {
		for _, uid := range []string{"", "b", "b c"} {
			for _, method := range []string{"m", "m r", "b m"} {
				for _, id := range []string{"r", "rr"} {
					key := keyRequest("p", &Principal{Name: name, TokenUID: uid}, method, id)
					what := strings.Join([]string{name, uid, method, id}, "|")
					if other, ok := seen[key]; ok {
						t.Errorf("%s and %s share a key", what, other)
					}
					seen[key] = what
				}
			}
		}
	}
}

package credential_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

func newBasic(username, password string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{
		Basic: &credentialv1.Basic{Username: username, Password: password},
	}}
}

func newOpaque(data map[string][]byte) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Opaque{Opaque: &credentialv1.Opaque{Data: data}}}
}

func mustNew(t testing.TB, m *credentialv1.Payload) credential.Payload {
	t.Helper()
	p, err := credential.NewPayload(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// withUnknown returns m with a field that no version knows.
func withUnknown[M proto.Message](m M) M {
	field := protowire.AppendTag(nil, 1000, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendString(field, "future"))
	return m
}

// TestNewPayloadRefuses covers what holds for every kind and what JSON cannot
// say; the examples of the kinds cover the rest.
func TestNewPayloadRefuses(t *testing.T) {
	const (
		setOne = "set exactly one of basic, apiToken, opaque, vault, certificate, sshKey, awsAccessKey, awsRole, awsAssumeRole, " +
			"azureServicePrincipal, azureManagedIdentity, azureWorkloadIdentity, gcpServiceAccount, gcpApiKey, gcpExternalAccount, " +
			"ibmCloud, oci, kubeconfig, dockerRegistry, githubApp, gitlabToken, smtp, webhook, conjur"
		unknown = "holds a field that this version of credstore does not know; remove it, or upgrade credstore"
	)
	emptyBasic := []credential.Violation{
		{Field: "payload.basic.username", Description: "must be 1 to 1,024 characters without control characters and colons; it is empty"},
		{Field: "payload.basic.password", Description: "must be 1 to 65,536 bytes without NUL; it is empty"},
	}
	inner := newBasic("u", "p")
	withUnknown(inner.GetBasic())
	for name, test := range map[string]struct {
		message *credentialv1.Payload
		want    []credential.Violation
	}{
		"nil":         {nil, []credential.Violation{{Field: "payload", Description: setOne}}},
		"no kind":     {&credentialv1.Payload{}, []credential.Violation{{Field: "payload", Description: setOne}}},
		"newer kind":  {withUnknown(&credentialv1.Payload{}), []credential.Violation{{Field: "payload", Description: setOne}}},
		"nil choice":  {&credentialv1.Payload{Kind: (*credentialv1.Payload_Basic)(nil)}, []credential.Violation{{Field: "payload", Description: setOne}}},
		"nil message": {&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{}}, emptyBasic},
		"nil apiToken": {
			&credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{}},
			[]credential.Violation{{
				Field:       "payload.apiToken.token",
				Description: "must be 1 to 65,536 visible ASCII characters without space; it is empty",
			}},
		},
		"nil appRole": {
			&credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{Method: &credentialv1.Vault_AppRole_{}}}},
			[]credential.Violation{{
				Field:       "payload.vault.appRole.roleId",
				Description: "must be 1 to 4,096 visible ASCII characters without space; it is empty",
			}},
		},
		"unknown field":  {withUnknown(newBasic("u", "p")), []credential.Violation{{Field: "payload", Description: unknown}}},
		"nested unknown": {inner, []credential.Violation{{Field: "payload.basic", Description: unknown}}},
		"no UTF-8": {
			newBasic("\xff", "\xfe"),
			[]credential.Violation{
				{Field: "payload.basic.username", Description: "must be valid UTF-8; it is not"},
				{Field: "payload.basic.password", Description: "must be valid UTF-8; it is not"},
			},
		},
		"keys no UTF-8": {
			newOpaque(map[string][]byte{"\xff": nil, "\xfe": nil, "ok": nil}),
			[]credential.Violation{{Field: "payload.opaque.data", Description: "must have keys of valid UTF-8; one is not"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := credential.NewPayload(test.message)
			var typed *credential.ValidationError
			if !errors.As(err, &typed) {
				t.Fatalf("got %v, want a *ValidationError", err)
			}
			if diff := cmp.Diff(test.want, typed.Violations); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestValidationErrorText(t *testing.T) {
	_, err := credential.NewPayload(newBasic("a:b", ""))
	const want = "invalid payload: " +
		"payload.basic.username: must be 1 to 1,024 characters without control characters and colons; it holds a colon; " +
		"payload.basic.password: must be 1 to 65,536 bytes without NUL; it is empty"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestMaxPayloadSize(t *testing.T) {
	m := newOpaque(map[string][]byte{"k": make([]byte, credential.MaxPayloadSize-100)})
	data := m.GetOpaque().GetData()
	data["k"] = append(data["k"], make([]byte, credential.MaxPayloadSize-proto.Size(m))...)
	if size := proto.Size(m); size != credential.MaxPayloadSize {
		t.Fatalf("the test's payload is of %d bytes", size)
	}
	mustNew(t, m)
	data["k"] = append(data["k"], 0)
	if _, err := credential.NewPayload(m); err == nil {
		t.Error("one byte more is accepted")
	}
}

func TestPayloadIsImmutable(t *testing.T) {
	m := newOpaque(map[string][]byte{"k": []byte("value")})
	p := mustNew(t, m)
	m.GetOpaque().GetData()["k"][0] = 'X'
	p.Message().GetOpaque().GetData()["k"][0] = 'Y'
	field, err := p.Field("data.k")
	if err != nil {
		t.Fatal(err)
	}
	field[0] = 'Z'
	p.Facts()["k"] = "fact"
	if diff := cmp.Diff(newOpaque(map[string][]byte{"k": []byte("value")}), p.Message(), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(p.Facts()) != 0 {
		t.Error("Facts returns a shared map")
	}
}

func TestPayloadIsSafeForConcurrentUse(t *testing.T) {
	p := mustNew(t, newBasic("u", "p"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := p.Marshal(); err != nil {
					t.Error(err)
				}
				if _, err := p.Field(""); err != nil {
					t.Error(err)
				}
				if p.Facts()["username"] != "u" || !p.Equal(p) || p.Message() == nil {
					t.Error("another payload")
				}
			}
		})
	}
	wg.Wait()
}

func TestZeroPayload(t *testing.T) {
	var p credential.Payload
	if !p.IsZero() || p.Kind() != "" || p.Message() != nil || len(p.Facts()) != 0 || len(p.References()) != 0 {
		t.Errorf("%v is not empty", p)
	}
	if at, ok := p.ExpireTime(); ok || !at.IsZero() {
		t.Errorf("ExpireTime() = %v, %t", at, ok)
	}
	for _, field := range []string{"", "password"} {
		var typed *credential.FieldError
		if _, err := p.Field(field); !errors.As(err, &typed) {
			t.Errorf("Field(%q): %v, want a *FieldError", field, err)
		}
	}
	encoded, err := p.Marshal()
	if err != nil || len(encoded) != 0 {
		t.Errorf("Marshal() = %q, %v", encoded, err)
	}
	read, err := credential.Unmarshal(encoded)
	if err != nil || !read.IsZero() {
		t.Errorf("Unmarshal() = %v, %v", read, err)
	}
	other := mustNew(t, newBasic("u", "p"))
	if !p.Equal(read) || p.Equal(other) || other.Equal(p) || other.Equal(mustNew(t, newBasic("u", "q"))) {
		t.Error("Equal is wrong")
	}
}

func TestUnmarshal(t *testing.T) {
	newer, err := proto.Marshal(withUnknown(&credentialv1.Payload{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := credential.Unmarshal(newer); !errors.Is(err, credential.ErrUnknownKind) {
		t.Errorf("a newer kind: %v", err)
	}
	if _, err := credential.Unmarshal([]byte{0xff}); err == nil || errors.Is(err, credential.ErrUnknownKind) {
		t.Errorf("no encoding: %v", err)
	}
	// Rules become stricter; what was stored before must stay readable.
	old, err := proto.Marshal(newBasic("", ""))
	if err != nil {
		t.Fatal(err)
	}
	p, err := credential.Unmarshal(old)
	if err != nil || p.Kind() != "basic" {
		t.Fatalf("Unmarshal() = %v, %v", p, err)
	}
	_, err = p.Field("password")
	if err == nil || err.Error() != `no field "password": kind "basic" has none` {
		t.Errorf("Field of an empty message: %v", err)
	}
}

func TestFieldErrors(t *testing.T) {
	basic := mustNew(t, newBasic("u", "p"))
	opaque := mustNew(t, newOpaque(map[string][]byte{"s3cretkey": []byte("v")}))
	vault := mustNew(t, &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
		Method: &credentialv1.Vault_AppRole_{AppRole: &credentialv1.Vault_AppRole{RoleId: "r"}},
	}}})
	assumed := mustNew(t, &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAssumeRole{AwsAssumeRole: &credentialv1.AwsAssumeRole{
		Source: "projects/p/credentials/key", RoleArn: "arn:aws:iam::123456789012:role/r", Tags: map[string]string{"team": "a"},
	}}})
	const (
		ofBasic  = ": name one of password, username, or none for the whole payload as JSON"
		ofEntry  = ": the keys that it has are not listed here; the whole payload as JSON, without a field, has them"
		ofOpaque = ": name one of data.KEY, or none for the whole payload as JSON"
		ofVault  = ": name one of appRole.mount, appRole.roleId, or none for the whole payload as JSON"
	)
	for _, test := range []struct {
		payload     credential.Payload
		field, want string
	}{
		{basic, "pasword", `a credential of kind basic has no field "pasword"` + ofBasic},
		{basic, "Password", `a credential of kind basic has no field "Password"` + ofBasic},
		{basic, "password.x", `a credential of kind basic has no field "password.x"` + ofBasic},
		{basic, "password.", `a credential of kind basic has no field "password."` + ofBasic},
		{basic, ".", `a credential of kind basic has no field "."` + ofBasic},
		{basic, "basic.password", `a credential of kind basic has no field "basic.password"` + ofBasic},
		{basic, strings.Repeat("x", 300), `a credential of kind basic has no field "` + strings.Repeat("x", 200) + `"` + ofBasic},
		{opaque, "data", `a credential of kind opaque has no field "data"` + ofOpaque},
		{opaque, "data.", `a credential of kind opaque has no field "data."` + ofOpaque},
		{opaque, "data.other", `this version of the credential, of kind opaque, has no entry "data.other"` + ofEntry},
		{opaque, "data.a/b", `a credential of kind opaque has no field "data.a/b"` + ofOpaque},
		{assumed, "tags.other", `this version of the credential, of kind awsAssumeRole, has no entry "tags.other"` + ofEntry},
		{assumed, "duration.seconds", `a credential of kind awsAssumeRole has no field "duration.seconds": name one of region, roleArn, source, tags.KEY, or none for the whole payload as JSON`},
		{vault, "token", `a credential of kind vault has no field "token"` + ofVault},
		{vault, "app_role.role_id", `a credential of kind vault has no field "app_role.role_id"` + ofVault},
		{vault, "appRole", `a credential of kind vault has no field "appRole"` + ofVault},
		{vault, "appRole.secretId", `a credential of kind vault has no field "appRole.secretId"` + ofVault},
	} {
		content, err := test.payload.Field(test.field)
		if err == nil {
			t.Errorf("%v.Field(%q) = %q, want an error", test.payload, test.field, content)
			continue
		}
		if err.Error() != test.want {
			t.Errorf("%v.Field(%q)\ngot  %v\nwant %s", test.payload, test.field, err, test.want)
		}
	}
}

func TestValidateField(t *testing.T) {
	for _, test := range []struct {
		kind  credential.Kind
		field string
		ok    bool
	}{
		{"basic", "", true},
		{"basic", "username", true},
		{"basic", "password", true},
		{"basic", "token", false},
		{"basic", "password.x", false},
		{"apiToken", "token", true},
		{"opaque", "data.tls.key", true},
		{"opaque", "data", false},
		{"opaque", "data.", false},
		{"opaque", "data.a/b", false},
		{"opaque", "data...", false},
		{"vault", "token", true},
		{"vault", "appRole.secretId", true},
		{"vault", "appRole", false},
		{"vault", "appRole.secretId.x", false},
		{"vault", "approle.secretId", false},
		{"awsAssumeRole", "tags.team", true},
		{"awsAssumeRole", "tags", false},
		{"awsAssumeRole", "tags.", false},
		{"awsAssumeRole", "duration", false},
		{"awsAssumeRole", "duration.seconds", false},
		{"awsAssumeRole", "policyArns", false},
		{"nosuchkind", "", false},
		{"nosuchkind", "password", false},
		{"", "", false},
	} {
		err := credential.ValidateField(test.kind, test.field)
		var typed *credential.FieldError
		if (err == nil) != test.ok || err != nil && !errors.As(err, &typed) {
			t.Errorf("ValidateField(%q, %q): %v", test.kind, test.field, err)
		}
	}
	var typed *credential.FieldError
	if err := credential.ValidateField("awsAssumeRole", "x"); errors.As(err, &typed) {
		want := []string{"externalId", "policy", "region", "roleArn", "sessionName", "source", "sourceIdentity", "tags.KEY"}
		if diff := cmp.Diff(want, typed.Fields); diff != "" {
			t.Errorf("Fields (-want +got)\n%s", diff)
		}
	}
}

// FuzzNewPayload feeds what a client may send over the wire.
func FuzzNewPayload(f *testing.F) {
	seed := func(payload json.RawMessage) {
		// Large ones make the fuzzer slow, and teach it nothing.
		if wire := marshal(f, message(f, payload)); len(wire) < 1024 {
			f.Add(wire)
		}
	}
	for _, kind := range credential.Kinds() {
		e := load(f, kind)
		for _, example := range e.Good {
			seed(example.Payload)
		}
		for _, example := range e.Bad {
			seed(example.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := &credentialv1.Payload{}
		if proto.Unmarshal(wire, m) != nil {
			return
		}
		p, err := credential.NewPayload(m)
		if err != nil {
			var typed *credential.ValidationError
			if !errors.As(err, &typed) || len(typed.Violations) == 0 || !p.IsZero() {
				t.Fatalf("NewPayload: %v, %v", p, err)
			}
			return
		}
		// Normalising what is normal changes nothing.
		if again := mustNew(t, p.Message()); !again.Equal(p) {
			t.Error("a second NewPayload made another payload")
		}
		testEncoding(t, p)
		for _, field := range fieldsOf(t, p) {
			if _, err := p.Field(field); err != nil {
				t.Errorf("Field(%q): %v", field, err)
			}
			if err := credential.ValidateField(p.Kind(), field); err != nil {
				t.Errorf("ValidateField(%q): %v", field, err)
			}
		}
	})
}

// FuzzField asks for arbitrary fields of arbitrary kinds.
func FuzzField(f *testing.F) {
	payloads := map[credential.Kind]credential.Payload{}
	for _, kind := range credential.Kinds() {
		payloads[kind] = mustNew(f, message(f, load(f, kind).Good[0].Payload))
		for _, field := range fieldsOf(f, payloads[kind]) {
			f.Add(string(kind), field)
		}
	}
	f.Add("opaque", "data..")
	f.Add("vault", "appRole.")
	f.Fuzz(func(t *testing.T, kind, field string) {
		p := payloads[credential.Kind(kind)]
		_, err := p.Field(field)
		impossible := credential.ValidateField(credential.Kind(kind), field)
		if err == nil && impossible != nil {
			t.Errorf("Field(%q) exists, and yet %v", field, impossible)
		}
		var typed *credential.FieldError
		if err != nil && !errors.As(err, &typed) {
			t.Errorf("Field(%q): %v, want a *FieldError", field, err)
		}
	})
}

// fieldsOf lists all fields of p, the whole among them.
func fieldsOf(t testing.TB, p credential.Payload) []string {
	t.Helper()
	_, err := p.Field("nosuchfield")
	var typed *credential.FieldError
	if !errors.As(err, &typed) {
		t.Fatalf("Field(nosuchfield): %v, want a *FieldError", err)
	}
	fields := []string{""}
	for _, field := range typed.Fields {
		if !strings.HasSuffix(field, ".KEY") { // stands for the entries of a map
			fields = append(fields, field)
		}
	}
	for key := range p.Message().GetOpaque().GetData() {
		fields = append(fields, "data."+key)
	}
	for key := range p.Message().GetAwsAssumeRole().GetTags() {
		fields = append(fields, "tags."+key)
	}
	return fields
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	encoded, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

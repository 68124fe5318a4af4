package credential_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

var tokenEnd = time.Date(2030, 1, 2, 3, 4, 5, 6e8, time.UTC)

func awsToken(t *testing.T) credential.Token {
	t.Helper()
	token, err := credential.NewToken(&credentialv1.Token{
		Kind: &credentialv1.Token_Aws{Aws: &credentialv1.Token_AwsCredentials{
			AccessKeyId: "ASIAEXAMPLE", SecretAccessKey: "secret<&>canary", SessionToken: "session-canary", Account: "123456789012",
		}},
		ExpireTime: timestamppb.New(tokenEnd),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenFields(t *testing.T) {
	token := awsToken(t)
	for field, want := range map[string]string{
		"accessKeyId": "ASIAEXAMPLE", "secretAccessKey": "secret<&>canary", "sessionToken": "session-canary", "account": "123456789012",
		"expireTime": "2030-01-02T03:04:05Z",
		"":           `{"accessKeyId":"ASIAEXAMPLE","account":"123456789012","expireTime":"2030-01-02T03:04:05Z","secretAccessKey":"secret<&>canary","sessionToken":"session-canary"}`,
	} {
		if got, err := token.Field(field); err != nil || string(got) != want {
			t.Errorf("Field(%q) = %q, %v; want %q", field, got, err, want)
		}
	}
	for _, field := range []string{"arn", "nosuch", "aws", "expireTime.seconds", "."} {
		_, err := token.Field(field)
		var typed *credential.FieldError
		if !errors.As(err, &typed) {
			t.Errorf("Field(%q): %v, want a *FieldError", field, err)
			continue
		}
		want := []string{"accessKeyId", "account", "expireTime", "secretAccessKey", "sessionToken"}
		if diff := cmp.Diff(want, typed.Fields); diff != "" {
			t.Errorf("Field(%q) lists (-want +got)\n%s", field, diff)
		}
		if strings.Contains(err.Error(), "canary") || !strings.HasPrefix(err.Error(), "a token of kind aws has no field ") {
			t.Errorf("Field(%q): %v", field, err)
		}
	}
}

// A token without an end says so, and has no such field.
func TestTokenWithoutEnd(t *testing.T) {
	token, err := credential.NewToken(&credentialv1.Token{Kind: &credentialv1.Token_Registry{Registry: &credentialv1.Token_RegistryAuth{Username: "u", Password: "p"}}})
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := token.ExpireTime(); ok || !at.IsZero() {
		t.Errorf("ExpireTime() = %v, %t", at, ok)
	}
	if _, err := token.Field("expireTime"); err == nil {
		t.Error("it has a field expireTime")
	}
	if got, err := token.Field(""); err != nil || string(got) != `{"password":"p","username":"u"}` {
		t.Errorf("Field(\"\") = %q, %v", got, err)
	}
	if _, err := credential.NewToken(&credentialv1.Token{ExpireTime: timestamppb.Now()}); err == nil {
		t.Error("a token of no kind")
	}
}

// A token shares nothing with the message that it was made of or returned.
func TestTokenIsImmutable(t *testing.T) {
	m := awsToken(t).Message()
	token, err := credential.NewToken(m)
	if err != nil {
		t.Fatal(err)
	}
	m.GetAws().SecretAccessKey = "changed"
	token.Message().GetAws().SessionToken = "changed"
	for _, field := range []string{"secretAccessKey", "sessionToken"} {
		if got, _ := token.Field(field); string(got) == "changed" {
			t.Errorf("%s was changed from outside", field)
		}
	}
}

func TestTokenRedacts(t *testing.T) {
	token := awsToken(t)
	encoded, err := json.Marshal(map[string]any{"t": token})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", token, "message", token.Message(), "in", struct{ T credential.Token }{token})
	login := credential.Login{Name: "projects/p/credentials/c", ID: "u/1", Payload: mustNew(t, basicMessage("canary-payload"))}
	login.Source = &login
	for what, text := range map[string]string{
		"verbs":   fmt.Sprintf("%v %+v %#v %s %q %x %d", token, token, token, token, token, token, token),
		"pointer": fmt.Sprintf("%v %+v", &token, struct{ T *credential.Token }{&token}),
		"message": fmt.Sprintf("%v %+v %#v", token.Message(), token.Message(), token.Message()),
		"JSON":    string(encoded),
		"log":     log.String(),
		"login":   fmt.Sprintf("%v %s", credential.Login{Name: login.Name, Payload: login.Payload}, login),
	} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s shows a secret: %s", what, text)
		}
	}
	if token.String() != "aws(redacted)" || (credential.Token{}).String() != "none" {
		t.Errorf("String() = %q and %q", token, credential.Token{})
	}
}

func basicMessage(password string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "u", Password: password}}}
}

func TestLogin(t *testing.T) {
	source := &credential.Login{Name: "projects/p/credentials/s", ID: "uid-s/2"}
	login := credential.Login{Name: "projects/p/credentials/role", ID: "uid-r/7", Source: source}
	if got := login.Key(); got != "uid-r/7 uid-s/2" {
		t.Errorf("Key() = %q", got)
	}
	if got := login.Project(); got != "projects/p" {
		t.Errorf("Project() = %q", got)
	}
	if got := login.ShortName(); got != "role" {
		t.Errorf("ShortName() = %q", got)
	}
	source.ID = "uid-s/3"
	if got := login.Key(); got != "uid-r/7 uid-s/3" {
		t.Errorf("after a change of the source: %q", got)
	}
}

// Every request is answered with a token whose fields can be named before it is
// made, and a kind that is asked for nothing makes its first.
func TestEveryRequestIsAnswered(t *testing.T) {
	var all *credentialv1.TokenRequest
	requests := all.ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	answered := map[string]bool{}
	for _, kind := range credential.Kinds() {
		r, err := credential.NewTokenRequest(kind, nil)
		if err != nil {
			if _, ok := errors.AsType[*credential.ValidationError](err); !ok {
				t.Errorf("%s: %v", kind, err)
			}
		} else if r.IsZero() || r.Kind() == "" {
			t.Errorf("%s: no request and no error", kind)
		}
		for i := range requests.Len() {
			m := &credentialv1.TokenRequest{}
			m.ProtoReflect().Set(requests.Get(i), m.ProtoReflect().NewField(requests.Get(i)))
			_, err := credential.NewTokenRequest(kind, m)
			var bad *credential.ValidationError
			if err == nil || errors.As(err, &bad) && !slices.ContainsFunc(bad.Violations, func(v credential.Violation) bool {
				return strings.Contains(v.Description, "kind "+string(kind))
			}) {
				answered[requests.Get(i).JSONName()] = true
			}
		}
	}
	for i := range requests.Len() {
		if name := requests.Get(i).JSONName(); !answered[name] {
			t.Errorf("no kind answers %s", name)
		}
	}
}

// What is on record of a request says what it is for, and not all of it.
func TestRequestPrints(t *testing.T) {
	for kind, tests := range map[credential.Kind]map[string]string{
		"awsAccessKey": {
			`{"awsSession": {"duration": "900s"}}`: "awsSession",
			`{"awsAssumeRole": {"roleArn": "arn:aws:iam::123456789012:role/x", "policy": "{}", "policyArns": ["arn:aws:iam::aws:policy/a", "arn:aws:iam::aws:policy/b"]}}`: "awsAssumeRole roleArn=arn:aws:iam::123456789012:role/x policyArns=arn:aws:iam::aws:policy/a,arn:aws:iam::aws:policy/b",
			`{"kubernetesLogin": {"cluster": "live", "region": "eu-west-1"}}`:                                                                                              "kubernetesLogin cluster=live region=eu-west-1",
		},
		"gcpServiceAccount": {`{"gcpIdToken": {"audience": "https://a.example.com"}}`: "gcpIdToken audience=https://a.example.com"},
	} {
		for asked, want := range tests {
			m := &credentialv1.TokenRequest{}
			if err := protojson.Unmarshal([]byte(asked), m); err != nil {
				t.Fatal(err)
			}
			r, err := credential.NewTokenRequest(kind, m)
			if err != nil {
				t.Errorf("%s: %v", asked, err)
				continue
			}
			if got := r.String(); got != want {
				t.Errorf("%s is %q, want %q", asked, got, want)
			}
		}
	}
	if got := (credential.TokenRequest{}).String(); got != "" {
		t.Errorf("no request is %q", got)
	}
}

func TestRequestFields(t *testing.T) {
	asked := &credentialv1.TokenRequest{}
	if err := protojson.Unmarshal([]byte(`{"registryLogin": {}}`), asked); err != nil {
		t.Fatal(err)
	}
	r, err := credential.NewTokenRequest("dockerRegistry", asked)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"", "username", "password", "dockerConfig", "expireTime"} {
		if err := r.ValidateField(field); err != nil {
			t.Errorf("%q: %v", field, err)
		}
	}
	var typed *credential.FieldError
	if err := r.ValidateField("sessionToken"); !errors.As(err, &typed) {
		t.Errorf("sessionToken: %v, want a *FieldError", err)
	}
	if _, err := credential.NewTokenRequest("basic", nil); err == nil || !strings.Contains(err.Error(), "kind basic") {
		t.Errorf("basic: %v", err)
	}
	if _, err := credential.NewTokenRequest("nosuch", nil); err == nil {
		t.Error("a kind that does not exist mints")
	}
	same, err := credential.NewTokenRequest("dockerRegistry", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := r.Key()
	if b, _ := same.Key(); a != b || a == "" {
		t.Errorf("keys of the same request: %q and %q", a, b)
	}
	asked.GetRegistryLogin().Server = "registry.example.com"
	other, err := credential.NewTokenRequest("dockerRegistry", asked)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := other.Key(); a == b {
		t.Error("two requests have one key")
	}
	if got := r.Message().GetRegistryLogin().GetServer(); got != "" {
		t.Errorf("the request was changed from outside: %q", got)
	}
}

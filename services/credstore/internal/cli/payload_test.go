package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// secret is in every input that must not be repeated.
const secret = "hunter2-never-shown"

func streamsOf(in string) Streams {
	return Streams{In: strings.NewReader(in), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Getenv: func(string) string { return "" }}
}

// file writes a file and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPayloadByFields(t *testing.T) {
	basic := func(username, password string) *credentialv1.Payload {
		return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: username, Password: password}}}
	}
	opaque := func(data map[string][]byte) *credentialv1.Payload {
		return &credentialv1.Payload{Kind: &credentialv1.Payload_Opaque{Opaque: &credentialv1.Opaque{Data: data}}}
	}
	for name, test := range map[string]struct {
		flags payloadFlags
		in    string
		want  *credentialv1.Payload
	}{
		"public and secret":                   {payloadFlags{kind: "basic", set: []string{"username=bot"}, secrets: []string{"password=-"}}, secret, basic("bot", secret)},
		"the editor's newline":                {payloadFlags{kind: "basic", secrets: []string{"password=-"}}, secret + "\n", basic("", secret)},
		"the newline of Windows":              {payloadFlags{kind: "basic", secrets: []string{"password=-"}}, secret + "\r\n", basic("", secret)},
		"only one newline":                    {payloadFlags{kind: "basic", secrets: []string{"password=-"}}, secret + "\n\n", basic("", secret+"\n")},
		"white space stays":                   {payloadFlags{kind: "basic", secrets: []string{"password=-"}}, " " + secret + " ", basic("", " "+secret+" ")},
		"an equals sign":                      {payloadFlags{kind: "basic", set: []string{"username=a=b"}, secrets: []string{"password=-"}}, "x", basic("a=b", "x")},
		"quotes and backslashes":              {payloadFlags{kind: "basic", set: []string{`username=a"\`}, secrets: []string{"password=-"}}, `"\` + "\x00", basic(`a"\`, `"\`+"\x00")},
		"a public field as if it were secret": {payloadFlags{kind: "basic", secrets: []string{"username=-"}}, "bot", basic("bot", "")},
		"bytes as they are":                   {payloadFlags{kind: "opaque", secrets: []string{"data.key=-"}}, "\x00\xff\n", opaque(map[string][]byte{"key": []byte("\x00\xff\n")})},
		"a key with dots":                     {payloadFlags{kind: "opaque", secrets: []string{"data.ca.crt=-"}}, "x", opaque(map[string][]byte{"ca.crt": []byte("x")})},
		"a message inside": {
			payloadFlags{kind: "vault", set: []string{"appRole.roleId=r", "appRole.mount=m"}, secrets: []string{"appRole.secretId=-"}},
			secret,
			&credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{Method: &credentialv1.Vault_AppRole_{
				AppRole: &credentialv1.Vault_AppRole{RoleId: "r", SecretId: secret, Mount: "m"},
			}}}},
		},
		"a duration, a list and a map of texts": {
			payloadFlags{kind: "awsAssumeRole", set: []string{"duration=900s", "policyArns=arn:a", "policyArns=arn:b", "tags.team=platform"}},
			"",
			&credentialv1.Payload{Kind: &credentialv1.Payload_AwsAssumeRole{AwsAssumeRole: &credentialv1.AwsAssumeRole{
				Duration: durationpb.New(15 * time.Minute), PolicyArns: []string{"arn:a", "arn:b"}, Tags: map[string]string{"team": "platform"},
			}}},
		},
		"a file of any bytes": {
			payloadFlags{kind: "azureServicePrincipal", secrets: []string{"certificatePfx=-"}},
			"\x30\x00\xff\n",
			&credentialv1.Payload{Kind: &credentialv1.Payload_AzureServicePrincipal{AzureServicePrincipal: &credentialv1.AzureServicePrincipal{
				CertificatePfx: []byte("\x30\x00\xff\n"),
			}}},
		},
		"numbers and names of a list": {
			payloadFlags{kind: "smtp", set: []string{"port=465", "security=TLS"}},
			"",
			&credentialv1.Payload{Kind: &credentialv1.Payload_Smtp{Smtp: &credentialv1.Smtp{Port: 465, Security: credentialv1.Smtp_TLS}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.flags.read(streamsOf(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPayloadFromFiles(t *testing.T) {
	const whole = `{"basic":{"username":"bot","password":"` + secret + `"}}`
	for name, flags := range map[string]payloadFlags{
		"whole":    {file: file(t, whole)},
		"standard": {file: "-"},
		"a field":  {kind: "basic", set: []string{"username=bot"}, secrets: []string{"password=@" + file(t, secret+"\n")}},
	} {
		got, err := flags.read(streamsOf(whole))
		if err != nil || got.GetBasic().GetUsername() != "bot" || got.GetBasic().GetPassword() != secret {
			t.Errorf("%s: %v, %v", name, got.GetBasic().GetUsername(), err)
		}
	}
}

// pfx is how a PFX file begins.
const pfx = "\x30\x82\x09\x00\x02\x01\x03\x30\x82\x08\xc0\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x82\x08\xb1\x04\x82\x08\xad\x30\x82\x08\xa9"

func TestBadPayloads(t *testing.T) {
	for name, test := range map[string]struct {
		flags payloadFlags
		in    string
		usage bool
		says  string
	}{
		"nothing":                      {payloadFlags{}, "", true, "a payload is needed"},
		"fields without a kind":        {payloadFlags{set: []string{"username=x"}}, "", true, "a payload is needed"},
		"an unknown kind":              {payloadFlags{kind: secret}, "", true, "--kind is one of basic, apiToken, opaque, vault"},
		"a kind in another case":       {payloadFlags{kind: "Basic"}, "", true, "--kind is one of"},
		"two ways":                     {payloadFlags{file: "-", kind: "basic"}, "{}", true, "leave out --kind"},
		"no value":                     {payloadFlags{kind: "basic", set: []string{"username"}}, "", true, "--set takes FIELD=VALUE"},
		"an unknown field":             {payloadFlags{kind: "basic", set: []string{"user=x"}}, "", true, "there is username, password"},
		"a secret on the command line": {payloadFlags{kind: "basic", set: []string{"password=" + secret}}, "", true, `"password" is secret`},
		"a secret on the command line of --secret": {payloadFlags{kind: "basic", secrets: []string{"password=" + secret}}, "", true, "could be read by others"},
		"a secret map on the command line":         {payloadFlags{kind: "opaque", set: []string{"data.key=" + secret}}, "", true, `"data" is secret`},
		"a secret inside a message":                {payloadFlags{kind: "vault", set: []string{"appRole.secretId=" + secret}}, "", true, `"secretId" is secret`},
		"a prompt without a terminal":              {payloadFlags{kind: "basic", secrets: []string{"password"}}, "", true, "use --secret password=- or password=@FILE"},
		"a field of a field":                       {payloadFlags{kind: "basic", set: []string{"username.x=y"}}, "", true, "has no fields inside"},
		"a message as a field":                     {payloadFlags{kind: "vault", set: []string{"appRole=x"}}, "", true, "name one, as appRole.NAME"},
		"a map as a field":                         {payloadFlags{kind: "opaque", secrets: []string{"data=-"}}, secret, true, "name one, as data.NAME"},
		"two methods":                              {payloadFlags{kind: "vault", set: []string{"appRole.roleId=r"}, secrets: []string{"token=-"}}, secret, false, "kind vault does not fit:\n  token: cannot be given together with appRole"},
		"JSON that is none":                        {payloadFlags{file: "-"}, `{"basic": {"password": "` + secret, false, "--payload is not valid JSON at byte 43"},
		"JSON that is no object":                   {payloadFlags{file: "-"}, `["` + secret + `"]`, false, "--payload must be a JSON object"},
		"JSON of a misspelt field":                 {payloadFlags{file: "-"}, `{"basic": {"pasword": "` + secret + `"}}`, false, "\n  basic.pasword: is unknown: did you mean password?\n"},
		"JSON of two kinds":                        {payloadFlags{file: "-"}, `{"basic": {"password": "` + secret + `"}, "apiToken": {"token": "x"}}`, false, "\n  apiToken: cannot be given together with basic\n"},
		"JSON of another type":                     {payloadFlags{file: "-"}, `{"smtp": {"port": "` + secret + `"}}`, false, "\n  smtp.port: must be an integer from 0 to 4294967295\n"},
		"JSON in place of a file":                  {payloadFlags{file: `{"basic": {"password": "` + secret + `"}}`}, "", true, `--payload takes the name of a file or "-"`},
		"PEM in place of a file":                   {payloadFlags{kind: "basic", secrets: []string{"password=@-----BEGIN " + secret}}, "", true, `--secret password takes the name of a file or "-"`},
		"a list in place of a file":                {payloadFlags{kind: "basic", secrets: []string{`password=@ ["` + secret}}, "", true, `--secret password takes the name of a file or "-"`},
		"a token in place of a file":               {payloadFlags{kind: "basic", secrets: []string{"password=@credstore_" + secret}}, "", true, `--secret password takes the name of a file or "-"`},
		"lines in place of a file":                 {payloadFlags{kind: "basic", secrets: []string{"password=@" + secret + "\nmore"}}, "", true, `--secret password takes the name of a file or "-"`},
		"a text too long for a path":               {payloadFlags{kind: "basic", secrets: []string{"password=@" + strings.Repeat(secret, 300)}}, "", true, `--secret password takes the name of a file or "-"`},
		"a text too long for a name":               {payloadFlags{kind: "basic", secrets: []string{"password=@" + strings.Repeat(secret, 15)}}, "", true, `--secret password takes the name of a file or "-"`},
		"no name of a file":                        {payloadFlags{kind: "basic", secrets: []string{"password=@"}}, "", true, "--secret password: the name of the file is missing"},
		"a number that is none":                    {payloadFlags{kind: "smtp", set: []string{"port=" + secret}}, "", true, "--set port must be an integer from 0 to 4294967295"},
		"a name that is not listed":                {payloadFlags{kind: "smtp", set: []string{"security=" + secret}}, "", true, "--set security must be one of STARTTLS, TLS"},
		"a duration that is none":                  {payloadFlags{kind: "awsAssumeRole", set: []string{"duration=30m"}}, "", true, `--set duration must be a duration in seconds as "30s"`},
		"a field twice":                            {payloadFlags{kind: "basic", set: []string{"username=a", "username=b"}}, "", true, "--set username: the field is given twice"},
		"a field in both ways":                     {payloadFlags{kind: "basic", set: []string{"username=a"}, secrets: []string{"username=-"}}, "b", true, "--secret username: the field is given twice"},
		"a key of a map twice":                     {payloadFlags{kind: "awsAssumeRole", set: []string{"tags.a=b", "tags.a=c"}}, "", true, "--set tags.a: the field is given twice"},
		"a field inside twice":                     {payloadFlags{kind: "vault", set: []string{"appRole.roleId=a", "appRole.roleId=b"}}, "", true, "--set appRole.roleId: the field is given twice"},
		"a secret twice":                           {payloadFlags{kind: "basic", secrets: []string{"password=@payload.go", "password=@payload.go"}}, "", true, "--secret password: the field is given twice"},
		"two that read standard input":             {payloadFlags{kind: "basic", secrets: []string{"username=-", "password=-"}}, secret, true, "--secret username and --secret password both read standard input"},
		"a PFX file":                               {payloadFlags{kind: "certificate", secrets: []string{"pem=-"}}, pfx, false, `--secret pem must be text in UTF-8 and is not; it is a PFX (PKCS#12) file: convert it with "openssl pkcs12 -in FILE -noenc"`},
		"a file that is missing":                   {payloadFlags{file: filepath.Join("no", "such", "file")}, "", false, "no such file"},
		"a field's file that is missing":           {payloadFlags{kind: "basic", secrets: []string{"password=@no-such-file"}}, "", false, "no such file"},
		"a file that is endless":                   {payloadFlags{kind: "basic", secrets: []string{"password=-"}}, strings.Repeat("x", maxInput+1), false, "is larger than"},
		"a password that is no text":               {payloadFlags{kind: "basic", secrets: []string{"password=-"}}, secret + "\xff", false, "must be text in UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.flags.read(streamsOf(test.in))
			if err == nil {
				t.Fatalf("accepted as %s", got)
			}
			if _, usage := errors.AsType[usageError](err); usage != test.usage {
				t.Errorf("a mistake of the command line: %t, want %t", usage, test.usage)
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %q, want %q", err, test.says)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("it repeats the secret: %q", err)
			}
		})
	}
}

// TestNoSecretFieldIsTakenFromArguments walks through every field of every kind:
// a kind that is added is held to the rule by its marks in the contract.
func TestNoSecretFieldIsTakenFromArguments(t *testing.T) {
	secrets, public := 0, 0
	var walk func(kind, path string, d protoreflect.MessageDescriptor, inSecret bool)
	walk = func(kind, path string, d protoreflect.MessageDescriptor, inSecret bool) {
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			o, _ := f.Options().(*descriptorpb.FieldOptions)
			hidden := inSecret || o.GetDebugRedact()
			at := path + f.JSONName()
			if f.Message() != nil && !f.IsMap() && !jsoncheck.IsText(f.Message()) {
				walk(kind, at+".", f.Message(), hidden)
				continue
			}
			if f.IsMap() {
				at += ".key"
			}
			value := secret
			switch {
			case f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration":
				value = "900s"
			case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
				value = "2026-01-31T12:00:00Z"
			case f.Kind() == protoreflect.Uint32Kind:
				value = "587"
			case f.Kind() == protoreflect.EnumKind:
				value = string(f.Enum().Values().Get(1).Name())
			}
			_, err := (&payloadFlags{kind: kind, set: []string{at + "=" + value}}).read(streamsOf(""))
			_, refused := errors.AsType[usageError](err)
			switch {
			case hidden && !refused:
				t.Errorf("%s of %s is secret and taken from the command line: %v", at, kind, err)
			case !hidden && err != nil:
				t.Errorf("%s of %s is public and not taken: %v", at, kind, err)
			}
			if hidden {
				secrets++
			} else {
				public++
			}
		}
	}
	kinds := (&credentialv1.Payload{}).ProtoReflect().Descriptor().Fields()
	for i := range kinds.Len() {
		walk(kinds.Get(i).JSONName(), "", kinds.Get(i).Message(), false)
	}
	if secrets < 5 || public < 3 {
		t.Errorf("found %d secret and %d public fields", secrets, public)
	}
}

func TestPayloadField(t *testing.T) {
	m := &credentialv1.Payload{Kind: &credentialv1.Payload_Opaque{Opaque: &credentialv1.Opaque{Data: map[string][]byte{"a": []byte("\x00x\n")}}}}
	got, err := payloadField(m, "data.a")
	if err != nil || string(got) != "\x00x\n" {
		t.Errorf("a field: %q, %v", got, err)
	}
	if _, err := payloadField(m, "data.b"); err == nil {
		t.Error("a field that is missing was found")
	}
	got, err = payloadField(m, "")
	want := "{\n  \"opaque\": {\n    \"data\": {\n      \"a\": \"" + base64.StdEncoding.EncodeToString([]byte("\x00x\n")) + "\"\n    }\n  }\n}\n"
	if err != nil || string(got) != want {
		t.Errorf("whole: %q, %v, want %q", got, err, want)
	}
}

func TestWriteSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	elsewhere := file(t, "untouched")
	for name, prepare := range map[string]func() error{
		"new":     func() error { return nil },
		"public":  func() error { return os.WriteFile(path, []byte("a longer text that was here before"), 0o644) },
		"symlink": func() error { return os.Symlink(elsewhere, path) },
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		if err := writeSecret(path, []byte(secret)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != secret {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if b, err := os.ReadFile(elsewhere); err != nil || string(b) != "untouched" {
			t.Errorf("%s: it wrote through the link: %q, %v", name, b, err)
		}
	}
	if err := writeSecret(filepath.Join(t.TempDir(), "no", "folder"), []byte(secret)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("into no folder: %v", err)
	}
}

func TestReadResource(t *testing.T) {
	for name, text := range map[string]string{
		"YAML": "basic:\n  username: bot\n",
		"JSON": `{"basic": {"username": "bot"}}`,
	} {
		m := &credentialv1.Payload{}
		want := &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "bot"}}}
		if err := readResource(streamsOf(text), "-", m); err != nil || !proto.Equal(m, want) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	for name, text := range map[string]string{
		"a key twice": "basic: {}\nbasic: {}\n", "an unknown field": "bassic: {}\n", "no mapping": "- a\n", "tabs": "basic:\n\tusername: x\n", "an alias bomb": aliasBomb(),
	} {
		if err := readResource(streamsOf(text), "-", &credentialv1.Payload{}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// aliasBomb is a small file that stands for a huge one.
func aliasBomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		n, m := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString("a" + m + ": &a" + m + " [" + strings.TrimSuffix(strings.Repeat("*a"+n+",", 10), ",") + "]\n")
	}
	return b.String()
}

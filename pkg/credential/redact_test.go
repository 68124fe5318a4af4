package credential_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/descriptorpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// canary is the secret that nothing may print. Its beginning is in no word that
// Go or these tests print.
const canary = "Zq9-canary-f8d1"

// verbs are all that fmt knows, with flags that change what is printed.
var verbs = []string{
	"%v", "%+v", "%#v", "%s", "%+s", "%#s", "%q", "%+q", "%#q", "%x", "%X", "% x", "%#x", "%d", "%+d", "%c", "%U", "%#U",
	"%b", "%o", "%O", "%t", "%e", "%g", "%p", "%T", "%w", "%z", "%-40v", "%040s", "%.3s",
}

// leak returns the encoding in which the canary is in the text, "" when it is not.
func leak(text string) string {
	spelled := func(verb, separator string) string {
		var parts []string
		for _, b := range []byte(canary) {
			parts = append(parts, fmt.Sprintf(verb, b))
		}
		return strings.Join(parts, separator)
	}
	for name, encoded := range map[string]string{
		"plain": canary,
		// A precision cuts the rest off; this much of it is found nowhere else.
		"beginning":   canary[:3],
		"base64":      strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(canary)), "="),
		"hexadecimal": hex.EncodeToString([]byte(canary)),
		"HEXADECIMAL": strings.ToUpper(hex.EncodeToString([]byte(canary))),
		"decimal":     spelled("%d", " "),
		"+decimal":    spelled("%+d", " "),
		"Go bytes":    spelled("%#x", ", "),
		"hex bytes":   spelled("%x", " "),
		"octal":       spelled("%o", " "),
		"0octal":      spelled("%O", " "),
		"binary":      spelled("%b", " "),
		"characters":  spelled("%c", " "),
		"code points": spelled("%U", " "),
		"+code":       spelled("%#U", " "),
	} {
		if strings.Contains(text, encoded) {
			return name
		}
	}
	return ""
}

// wrappings puts a value where values are: printing must not depend on it.
func wrappings[T any](value T) map[string]any {
	type exported struct{ Field T }
	type unexported struct{ field T }
	return map[string]any{
		"itself":                value,
		"pointer":               &value,
		"struct":                exported{value},
		"pointer to struct":     &exported{value},
		"unexported field":      unexported{value},
		"pointer to unexported": &unexported{value},
		"nested unexported":     struct{ inner []*unexported }{[]*unexported{{value}}},
		"slice":                 []T{value},
		"array":                 [1]T{value},
		"map":                   map[string]T{"k": value},
		"interface":             []any{value},
		"slice of pointers":     []*T{&value},
	}
}

// outputs prints a value in all the ways that a log or an error would.
func outputs(value any) map[string]string {
	out := map[string]string{
		"Sprint": fmt.Sprint(value),
		"Errorf": fmt.Errorf("refused: %w", errors.Join(fmt.Errorf("bad payload %v", value))).Error(),
	}
	for _, verb := range verbs {
		out[verb] = fmt.Sprintf(verb, value)
	}
	if stringer, ok := value.(fmt.Stringer); ok {
		out["String"] = stringer.String()
	}
	// encoding/json refuses some values; what it writes for the others counts.
	encoded, err := json.Marshal(value)
	out["json"] = string(encoded) + fmt.Sprint(err)
	var text, structured bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Error("refused", "value", value, slog.Group("group", "value", value))
	slog.New(slog.NewJSONHandler(&structured, nil)).Error("refused", "value", value, slog.Group("group", "value", value))
	out["slog text"] = text.String()
	out["slog JSON"] = structured.String()
	return out
}

// checkOutputs prints the value, wrapped in all ways, and reports the canary,
// except where fmt reads by reflection what it should have asked.
func checkOutputs[T any](t *testing.T, value T, except ...func(place, way string) bool) {
	t.Helper()
	for place, wrapped := range wrappings(value) {
		for way, text := range outputs(wrapped) {
			if len(except) > 0 && except[0](place, way) {
				continue
			}
			if encoding := leak(text); encoding != "" {
				t.Errorf("%s, %s: the secret is in the text (%s)", place, way, encoding)
			}
		}
	}
}

// TestLeakIsFound shows that the tests below can fail: every way of printing
// shows the canary when nothing redacts it.
func TestLeakIsFound(t *testing.T) {
	found := map[string]bool{}
	for _, value := range []any{
		struct{ Secret string }{canary},
		struct{ Secret []byte }{[]byte(canary)},
		struct{ secret []byte }{[]byte(canary)},
	} {
		for way, text := range outputs(value) {
			found[way] = found[way] || leak(text) != ""
		}
	}
	for way := range outputs(struct{}{}) {
		// These print no contents of any value.
		if !found[way] && way != "%T" {
			t.Errorf("%s: the canary is not found", way)
		}
	}
}

// dump prints all that can be reached by reflection, as debugging printers do,
// unexported fields included.
func dump(v reflect.Value, depth int) string {
	// The state of a message leads to the description of its type, which is large
	// and holds no contents.
	if depth > 20 || v.IsValid() && v.Type() == reflect.TypeFor[protoimpl.MessageState]() {
		return ""
	}
	var out strings.Builder
	switch v.Kind() {
	case reflect.String:
		return v.String() + "\n"
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return dump(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			out.WriteString(dump(field, depth+1))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			out.WriteString(dump(key, depth+1) + dump(v.MapIndex(key), depth+1))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return string(v.Bytes()) + "\n"
		}
		for i := range v.Len() {
			out.WriteString(dump(v.Index(i), depth+1))
		}
	}
	return out.String()
}

// path leads from a message to a field.
type path []protoreflect.FieldDescriptor

// secretPaths returns the paths from messages of a type to all fields with
// option debug_redact. It passes no message twice: types may be recursive.
func secretPaths(d protoreflect.MessageDescriptor, above map[protoreflect.FullName]bool) []path {
	if above[d.FullName()] {
		return nil
	}
	above[d.FullName()] = true
	defer delete(above, d.FullName())
	var paths []path
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if options, ok := f.Options().(*descriptorpb.FieldOptions); ok && options.GetDebugRedact() {
			paths = append(paths, path{f})
			continue
		}
		message := f.Message()
		if f.IsMap() {
			message = f.MapValue().Message()
		}
		if message == nil {
			continue
		}
		for _, rest := range secretPaths(message, above) {
			paths = append(paths, append(path{f}, rest...))
		}
	}
	return paths
}

func (p path) String() string {
	var names []string
	for _, f := range p {
		names = append(names, f.JSONName())
	}
	return strings.Join(names, ".")
}

// fill sets the field at the path, and what leads there, to the canary.
func fill(t *testing.T, m protoreflect.Message, p path) {
	t.Helper()
	f := p[0]
	switch {
	case f.IsMap():
		key := protoreflect.ValueOfString(canary).MapKey()
		if len(p) > 1 {
			fill(t, m.Mutable(f).Map().Mutable(key).Message(), p[1:])
			return
		}
		m.Mutable(f).Map().Set(key, secret(t, f.MapValue()))
	case f.IsList():
		if len(p) > 1 {
			fill(t, m.Mutable(f).List().AppendMutable().Message(), p[1:])
			return
		}
		m.Mutable(f).List().Append(secret(t, f))
	case len(p) > 1:
		fill(t, m.Mutable(f).Message(), p[1:])
	default:
		m.Set(f, secret(t, f))
	}
}

func secret(t *testing.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	t.Helper()
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(canary)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(canary))
	default:
		t.Fatalf("%s: the test cannot fill a secret %s", f.FullName(), f.Kind())
		return protoreflect.Value{}
	}
}

// TestPayloadDoesNotLeak covers every secret field of every kind.
func TestPayloadDoesNotLeak(t *testing.T) {
	kinds := map[credential.Kind]bool{}
	descriptor := (&credentialv1.Payload{}).ProtoReflect().Descriptor()
	for _, p := range secretPaths(descriptor, map[protoreflect.FullName]bool{}) {
		t.Run(p.String(), func(t *testing.T) {
			m := &credentialv1.Payload{}
			fill(t, m.ProtoReflect(), p)
			// Unmarshal takes what is not valid, as a payload with one field is.
			payload, err := credential.Unmarshal(marshal(t, m))
			if err != nil {
				t.Fatal(err)
			}
			kinds[payload.Kind()] = true
			content, err := payload.Field("")
			if err != nil || leak(string(content)) == "" {
				t.Fatalf("the payload does not hold the canary: %v", err)
			}
			checkOutputs(t, payload)
			if leak(dump(reflect.ValueOf(m), 0)) == "" || leak(dump(reflect.ValueOf(&payload), 0)) != "" {
				t.Error("a printer that reads by reflection must find the secret in the message, and none in the payload")
			}
			want := string(payload.Kind()) + "(redacted)"
			for _, got := range []string{
				payload.String(), payload.GoString(), fmt.Sprintf("%d", payload), payload.LogValue().String(),
			} {
				if got != want {
					t.Errorf("printed as %q, want %q", got, want)
				}
			}
			encoded, err := json.Marshal(payload)
			if err != nil || string(encoded) != `"`+want+`"` {
				t.Errorf("json.Marshal: %s, %v", encoded, err)
			}
			_, err = payload.Field("nosuchfield")
			checkOutputs(t, err)
		})
	}
	// These act as the server or with another credential, and hold nothing secret.
	for _, kind := range []credential.Kind{"awsRole", "awsAssumeRole", "azureManagedIdentity", "azureWorkloadIdentity"} {
		if kinds[kind] {
			t.Errorf("kind %s has a secret field: take it off this list", kind)
		}
		kinds[kind] = true
	}
	for _, kind := range credential.Kinds() {
		if !kinds[kind] {
			t.Errorf("kind %s has no secret field: mark it with debug_redact", kind)
		}
	}
	if got := fmt.Sprintf("%v", credential.Payload{}); got != "none" {
		t.Errorf("the zero value is printed as %q", got)
	}
}

// TestViolationsDoNotLeak breaks every rule with values that hold the canary.
func TestViolationsDoNotLeak(t *testing.T) {
	for name, value := range map[string]string{
		"control": canary + "\x00:/",
		"space":   canary + " " + canary,
		"UTF-8":   canary + "\xff",
		"long":    canary + strings.Repeat("x", 1<<17),
		"larger":  canary + strings.Repeat("x", 1<<19),
		"auth":    "auth/" + canary,
	} {
		for kind, m := range map[string]*credentialv1.Payload{
			"basic":    newBasic(value+"\n", value+"\x00"),
			"apiToken": {Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: value + "ü"}}},
			"opaque":   newOpaque(map[string][]byte{value + "/": []byte(value)}),
			"vault token": {Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
				Method: &credentialv1.Vault_Token{Token: value + "ü"},
			}}},
			"vault appRole": {Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
				Method: &credentialv1.Vault_AppRole_{AppRole: &credentialv1.Vault_AppRole{
					RoleId: value + "ü", SecretId: value + "ü", Mount: value + "%",
				}},
			}}},
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				_, err := credential.NewPayload(m)
				var typed *credential.ValidationError
				if !errors.As(err, &typed) {
					t.Fatalf("got %v, want a *ValidationError", err)
				}
				checkOutputs(t, err)
				checkOutputs(t, *typed)
			})
		}
	}
}

// TestMessagesDoNotLeak covers what protoc-gen-redact generates: every message of
// the contract that carries secret material, by every way to it.
func TestMessagesDoNotLeak(t *testing.T) {
	for _, files := range []struct {
		descriptors []protoreflect.FileDescriptor
		// carriers are some of the messages that must be found.
		carriers []protoreflect.FullName
	}{
		{
			[]protoreflect.FileDescriptor{credentialv1.File_credential_v1_payload_proto},
			[]protoreflect.FullName{"credential.v1.Payload", "credential.v1.Basic", "credential.v1.Opaque", "credential.v1.Vault.AppRole"},
		},
		{
			[]protoreflect.FileDescriptor{
				credstorev1.File_credstore_v1_credential_proto, credstorev1.File_credstore_v1_injection_proto,
				credstorev1.File_credstore_v1_project_proto, credstorev1.File_credstore_v1_secret_store_proto,
				credstorev1.File_credstore_v1_token_proto,
			},
			[]protoreflect.FullName{
				"credstore.v1.AccessCredentialResponse", "credstore.v1.WatchResponse", "credstore.v1.WatchSetResponse",
				"credstore.v1.CreateTokenResponse",
			},
		},
		{[]protoreflect.FileDescriptor{recordv1.File_record_v1_record_proto}, nil},
	} {
		found := map[protoreflect.FullName]bool{}
		for _, file := range files.descriptors {
			checkMessages(t, file.Messages(), found)
		}
		for _, name := range files.carriers {
			if !found[name] {
				t.Errorf("%s: no secret field found", name)
			}
		}
	}
}

func checkMessages(t *testing.T, messages protoreflect.MessageDescriptors, found map[protoreflect.FullName]bool) {
	for i := range messages.Len() {
		d := messages.Get(i)
		if d.IsMapEntry() {
			continue
		}
		checkMessages(t, d.Messages(), found)
		for _, p := range secretPaths(d, map[protoreflect.FullName]bool{}) {
			found[d.FullName()] = true
			t.Run(string(d.FullName())+"/"+p.String(), func(t *testing.T) { checkMessage(t, d, p) })
		}
	}
}

// readByReflection says where no method of a message is asked: fmt prints what
// it holds to be a mistake in the format without calling methods. That is %w for
// what is no error, which go vet refuses, and a pointer in an unexported field
// under a verb that is not for pointers; a field that keeps secrets should be a
// Payload, which has nothing to read.
func readByReflection(place, way string) bool {
	if way == "%w" {
		return true
	}
	return strings.Contains(place, "unexported") && strings.HasPrefix(way, "%") && !strings.HasSuffix(way, "v")
}

func checkMessage(t *testing.T, d protoreflect.MessageDescriptor, p path) {
	messageType, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	m := messageType.New()
	fill(t, m, p)
	if leak(prototext.Format(m.Interface())) == "" {
		t.Fatal("the message does not hold the canary")
	}
	checkOutputs(t, m.Interface(), readByReflection)
	if want := string(d.FullName()) + "(redacted)"; fmt.Sprint(m.Interface()) != want {
		t.Errorf("printed as %q, want %q", fmt.Sprint(m.Interface()), want)
	}
	// The wrapper of a oneof's field is a value of its own.
	v := reflect.ValueOf(m.Interface()).Elem()
	for field, value := range v.Fields() {
		if _, isOneof := field.Tag.Lookup("protobuf_oneof"); isOneof && !value.IsNil() {
			checkOutputs(t, value.Interface(), readByReflection)
		}
	}
}

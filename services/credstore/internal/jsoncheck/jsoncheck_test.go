package jsoncheck

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// messages are those that the tests check bodies against.
func messages() map[string]proto.Message {
	return map[string]proto.Message{
		"credential": &credstorev1.Credential{},
		"injection":  &credstorev1.Injection{},
		"store":      &credstorev1.SecretStore{},
		"token":      &credstorev1.Token{},
		"usage":      &credstorev1.Usage{},
		"batch":      &credstorev1.BatchWriteCredentialsRequest{},
	}
}

func TestCheckJSONAccepts(t *testing.T) {
	for _, test := range []struct{ message, body string }{
		{"credential", `{}`},
		{"credential", " \t\r\n{ } "},
		{"credential", `{"description":"d","labels":{"team":"platform","a/b":""},"payload":{"basic":{"username":"bot","password":"s3cret"}}}`},
		{"credential", `{"payload":{"apiToken":{"token":"x"}}}`},
		{"credential", `{"payload":{"api_token":{"token":"x"}}}`},
		{"credential", `{"payload":{"opaque":{"data":{"k":"aGk=","l":"aGk","m":"_-8"}}}}`},
		{"credential", `{"payload":{"basic":null,"apiToken":{"token":"x"}}}`},
		{"credential", `{"payload":null,"labels":null,"references":null}`},
		{"credential", `{"name":"projects/p/credentials/c","createTime":"2026-01-01T00:00:00Z","activeVersion":3}`},
		{"credential", `{"activeVersion":"7","description":"\u00e9\ud83d\ude00\n\"\\\/\b\f\r\t"}`},
		{"token", `{"role":"ADMIN","allProjects":true,"expireTime":"2026-01-01T00:00:00.5+01:00"}`},
		{"token", `{"role":"ROLE_UNSPECIFIED","attributes":{}}`},
		{"store", `{"vault":{"address":"https://v"},"pollInterval":"1.5s","delivery":"BROKERED"}`},
		{"injection", `{"items":[{"secret":{"store":"s","path":"p","version":2},"file":{"path":"f","uid":0}},{"credential":{"name":"c"},"file":{}}]}`},
		{"batch", `{"operations":[{"update":{"credential":{"name":"n"},"updateMask":"description,labels"}},{"delete":{"name":"n","force":false}}]}`},
		{"usage", `{"user":"u","ttl":"60s"}`},
	} {
		m := messages()[test.message]
		found, err := Check([]byte(test.body), m.ProtoReflect().Descriptor(), nil)
		if err != nil || len(found) > 0 {
			t.Errorf("%s %s: %v %v", test.message, test.body, found, err)
		}
		if err := protojson.Unmarshal([]byte(test.body), m); err != nil {
			t.Errorf("protojson refuses %s: %v", test.body, err)
		}
	}
}

func TestCheckJSONNamesWhatIsWrong(t *testing.T) {
	// hunter2 stands for a secret; no answer may hold it.
	for _, test := range []struct {
		message, body string
		field, says   string
	}{
		{"credential", `[]`, "", "must be a JSON object"},
		{"credential", `"hunter2"`, "", "must be a JSON object"},
		{"credential", `{"pasword":"hunter2"}`, "pasword", "is unknown"},
		{"credential", `{"payload":{"basic":{"pasword":"hunter2"}}}`, "payload.basic.pasword", "did you mean password?"},
		{"credential", `{"payload":{"basic":{"userName":"hunter2"}}}`, "payload.basic.userName", "did you mean username?"},
		{"credential", `{"payload":{"basc":{}}}`, "payload.basc", "did you mean basic?"},
		{"credential", `{"payload":{"apitoken":{}}}`, "payload.apitoken", "did you mean apiToken?"},
		{"credential", `{"payload":{"basic":{"hunter 2":"x"}}}`, "payload.basic.?", "expected username, password"},
		{"credential", `{"payload":{"basic":{"password":"hunter2","password":"hunter2"}}}`, "payload.basic.password", "given twice"},
		{"credential", `{"payload":{"apiToken":{},"api_token":{}}}`, "payload.apiToken", "given twice"},
		{"credential", `{"payload":{"basic":{},"apiToken":{"token":"hunter2"}}}`, "payload.apiToken", "cannot be given together with basic"},
		{"credential", `{"payload":{"vault":{"token":"hunter2","appRole":{}}}}`, "payload.vault.appRole", "cannot be given together with token"},
		{"credential", `{"payload":"hunter2"}`, "payload", "must be an object"},
		{"credential", `{"payload":{"basic":{"password":["hunter2"]}}}`, "payload.basic.password", "must be a string"},
		{"credential", `{"payload":{"basic":{"password":12345678}}}`, "payload.basic.password", "must be a string"},
		{"credential", `{"payload":{"basic":{"password":true}}}`, "payload.basic.password", "must be a string"},
		{"credential", `{"payload":{"opaque":{"data":{"hunter2":"#"}}}}`, "payload.opaque.data", "must be base64"},
		{"credential", `{"payload":{"opaque":{"data":{"hunter2":"","hunter2":""}}}}`, "payload.opaque.data", "a key twice"},
		{"credential", `{"payload":{"opaque":{"data":["hunter2"]}}}`, "payload.opaque.data", "must be an object"},
		{"credential", `{"payload":{"opaque":{"data":{"a":null}}}}`, "payload.opaque.data", "must be a string in base64"},
		{"credential", `{"labels":{"team":1}}`, `labels["team"]`, "must be a string"},
		{"credential", `{"labels":{"a":"1","a":"2"}}`, `labels["a"]`, "a key twice"},
		{"credential", `{"labels":{"hunter 2":null}}`, `labels["?"]`, "must be a string"},
		{"credential", `{"references":"hunter2"}`, "references", "must be an array"},
		{"credential", `{"references":["a",1]}`, "references[1]", "must be a string"},
		{"credential", `{"activeVersion":-1}`, "activeVersion", "from 0 to 4294967295"},
		{"credential", `{"activeVersion":4294967296}`, "activeVersion", "from 0 to 4294967295"},
		{"credential", `{"activeVersion":1e3}`, "activeVersion", "an integer"},
		{"credential", `{"activeVersion":1.0}`, "activeVersion", "an integer"},
		{"credential", `{"activeVersion":"hunter2"}`, "activeVersion", "an integer"},
		{"credential", `{"activeVersion":{}}`, "activeVersion", "an integer"},
		{"credential", `{"createTime":"hunter2"}`, "createTime", "must be a time"},
		{"credential", `{"createTime":"2026-13-01T00:00:00Z"}`, "createTime", "must be a time"},
		{"credential", `{"createTime":1}`, "createTime", "must be a time"},
		{"credential", `{"name":"projects/p/credentials/other"}`, "name", "differs from the URL"},
		{"token", `{"role":"hunter2"}`, "role", "must be one of ADMIN, OPERATOR, READER, WORKLOAD"},
		{"token", `{"role":1}`, "role", "must be one of ADMIN"},
		{"token", `{"role":"admin"}`, "role", "must be one of ADMIN"},
		{"token", `{"allProjects":"true"}`, "allProjects", "must be true or false"},
		{"token", `{"allProjects":1}`, "allProjects", "must be true or false"},
		{"store", `{"pollInterval":30}`, "pollInterval", "must be a duration"},
		{"store", `{"pollInterval":"30"}`, "pollInterval", "must be a duration"},
		{"store", `{"pollInterval":"1h"}`, "pollInterval", "must be a duration"},
		{"injection", `{"items":[{"file":{"path":"a"},"secret":{},"credential":{}}]}`, "items[0].credential", "cannot be given together with secret"},
		{"injection", `{"items":[null]}`, "items[0]", "must be an object"},
		{"injection", `{"items":{"0":{}}}`, "items", "must be an array"},
		{"injection", `{"items":[{},{"file":{"mode":256}}]}`, "items[1].file.mode", "must be a string"},
		{"batch", `{"operations":[{"delete":{},"create":{}}]}`, "operations[0].create", "cannot be given together with delete"},
		{"batch", `{"operations":[{"update":{"updateMask":{"paths":["a"]}}}]}`, "operations[0].update.updateMask", "a list of fields"},
		{"batch", `{"operations":[{"create":{"credential":{"payload":{"basic":{"pass":"hunter2"}}}}}]}`, "operations[0].create.credential.payload.basic.pass", "is unknown"},
	} {
		m := messages()[test.message]
		found, err := Check([]byte(test.body), m.ProtoReflect().Descriptor(), map[string]string{"name": "projects/p/credentials/c"})
		if err != nil || len(found) != 1 {
			t.Errorf("%s: got %q, %v; want one violation", test.body, found, err)
			continue
		}
		if found[0].Field != test.field || !strings.Contains(found[0].Description, test.says) {
			t.Errorf("%s: got %q", test.body, found[0])
		}
		if text := found[0].Field + found[0].Description; strings.Contains(text, "hunter2") || strings.Contains(text, "12345678") {
			t.Errorf("%s: the answer repeats the value: %q", test.body, found[0])
		}
	}
}

func TestCheckJSONNamesAllAndBounds(t *testing.T) {
	d := (&credstorev1.Credential{}).ProtoReflect().Descriptor()
	found, err := Check([]byte(`{"a":1,"labels":7,"payload":{"b":[{"c":"d"}]}}`), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, v := range found {
		fields = append(fields, v.Field)
	}
	if diff := cmp.Diff([]string{"a", "labels", "payload.b"}, fields); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	found, err = Check([]byte(`{"x":1`+strings.Repeat(`,"x":1`, 1000)+`}`), d, nil)
	if err != nil || len(found) != MaxViolations {
		t.Errorf("%d violations, %v; want %d", len(found), err, MaxViolations)
	}
}

func TestCheckJSONSyntax(t *testing.T) {
	d := (&credstorev1.Credential{}).ProtoReflect().Descriptor()
	for body, offset := range map[string]int{
		"":                                  0,
		"  ":                                2,
		"{":                                 1,
		`{"a"`:                              4,
		`{"a":`:                             5,
		`{"a":hunter2}`:                     5,
		`{"a":tru}`:                         5,
		`{"a":1,}`:                          7,
		`{,}`:                               1,
		`{"a":1 "b":2}`:                     7,
		`{"a":1}}`:                          7,
		`{"a":1}{}`:                         7,
		`{"description":"a` + "\n" + `"}`:   17,
		`{"description":"\x"}`:              17,
		`{"description":"\u12"}`:            20,
		`{"description":"\ud800"}`:          22,
		`{"description":"\ud800\u0041"}`:    28,
		`{"description":"\udc00"}`:          22,
		"{\"description\":\"\xff\"}":        16,
		`{"description":"é` + "\xc3" + `"}`: 18,
		`{"a":01}`:                          6,
		`{"a":1.}`:                          7,
		`{"a":.5}`:                          5,
		`{"a":1e}`:                          7,
		`{"a":+1}`:                          5,
		`{"a":-}`:                           6,
		`{"a":NaN}`:                         5,
		`{a:1}`:                             1,
		`{'a':1}`:                           1,
		`{"a":[1,]}`:                        8,
		"\ufeff{}":                          0,
		`{"a":1} // no`:                     8,
	} {
		found, err := Check([]byte(body), d, nil)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: got %v, %v", body, found, err)
			continue
		}
		if syntax.Offset != offset {
			t.Errorf("%q: at %d, want %d", body, syntax.Offset, offset)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats input: %v", err)
		}
	}
}

func TestCheckJSONDepth(t *testing.T) {
	d := (&credstorev1.Credential{}).ProtoReflect().Descriptor()
	for _, body := range []string{
		`{"x":` + strings.Repeat("[", 100_000),
		`{"x":` + strings.Repeat(`{"a":`, 100_000),
		strings.Repeat("[", 100_000),
	} {
		if _, err := Check([]byte(body), d, nil); !errors.Is(err, ErrTooDeep) {
			t.Errorf("%.20s…: %v", body, err)
		}
	}
}

// FuzzCheckJSON holds that what the check accepts is JSON that protojson reads,
// and that it refuses everything that is no JSON.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{"description":"d","labels":{"team":"platform"},"payload":{"basic":{"username":"bot","password":"s3cret"}}}`,
		`{"payload":{"opaque":{"data":{"k":"aGk="}}},"activeVersion":"7","expireTime":"2026-01-01T00:00:00Z"}`,
		`{"items":[{"secret":{"store":"s","version":2},"file":{"path":"f","uid":0}}],"selector":{"a":"b"}}`,
		`{"operations":[{"update":{"credential":{"name":"n"},"updateMask":"description,labels"}}],"validateOnly":true}`,
		`{"vault":{"address":"https://v"},"pollInterval":"1.5s","delivery":"BROKERED"}`,
		`{"role":"ADMIN","description":"\ud83d\ude00"}`, `{"a":[{},[null,-1.5e+3]]}`, "{\"\xff\":1}", `{"ttl":"-0.1s"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for name, m := range messages() {
			found, err := Check(body, m.ProtoReflect().Descriptor(), nil)
			if !json.Valid(body) && err == nil {
				t.Fatalf("%s: %q is no JSON and was read", name, body)
			}
			if err != nil || len(found) > 0 {
				continue
			}
			if err := protojson.Unmarshal(body, m); err != nil {
				t.Fatalf("%s: %q was accepted, protojson says %v", name, body, err)
			}
		}
	})
}

func TestSuggest(t *testing.T) {
	for _, test := range []struct {
		name string
		of   []string
		want string
	}{
		{"pasword", []string{"username", "password"}, ": did you mean password?"},
		{"desrciption", []string{"description", "labels"}, ": did you mean description?"},
		{"PASSWORD", []string{"username", "password"}, ": did you mean password?"},
		{"zzz", []string{"a", "b"}, ": expected a, b"},
		{"zzz", nil, ": nothing is expected here"},
		{"x", []string{"a"}, ": expected a"},
		{strings.Repeat("x", 1<<20), []string{"a"}, ": expected a"},
	} {
		if got := Suggest(test.name, test.of); got != test.want {
			t.Errorf("Suggest(%.20q, %q) = %q, want %q", test.name, test.of, got, test.want)
		}
	}
}

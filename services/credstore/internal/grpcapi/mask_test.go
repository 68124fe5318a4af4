package grpcapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

func storeFields() []protoreflect.Name {
	return []protoreflect.Name{"description", "labels", "credential", "vault", "poll_interval"}
}

func sorted(f fieldSet) []string {
	var out []string
	for name := range f {
		out = append(out, string(name))
	}
	slices.Sort(out)
	return out
}

func TestMaskFields(t *testing.T) {
	empty := &credstorev1.SecretStore{}
	full := &credstorev1.SecretStore{
		Name: "n", Uid: "u", Etag: "e", Description: "d", PollInterval: durationpb.New(1),
		Provider: &credstorev1.SecretStore_Vault{Vault: &credstorev1.VaultProvider{}}, Delivery: credstorev1.SecretStore_BROKERED,
	}
	for name, test := range map[string]struct {
		paths    []string
		resource proto.Message
		want     []string
	}{
		"absent, nothing set": {nil, empty, nil},
		"absent":              {nil, full, []string{"description", "poll_interval", "vault"}},
		"snake":               {[]string{"poll_interval"}, empty, []string{"poll_interval"}},
		"camel":               {[]string{"pollInterval"}, empty, []string{"poll_interval"}},
		"both":                {[]string{"pollInterval", "poll_interval", "labels"}, empty, []string{"labels", "poll_interval"}},
		"all":                 {[]string{"*"}, empty, []string{"credential", "description", "labels", "poll_interval", "vault"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, wrong := maskFields(&fieldmaskpb.FieldMask{Paths: test.paths}, test.resource, storeFields()...)
			if wrong != "" {
				t.Fatal(wrong)
			}
			if diff := cmp.Diff(test.want, sorted(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got, wrong := maskFields(nil, full, storeFields()...); wrong != "" || len(got) != 3 {
		t.Errorf("nil mask: %v %s", got, wrong)
	}
	if got, wrong := maskFields(nil, (*credstorev1.SecretStore)(nil), storeFields()...); wrong != "" || len(got) != 0 {
		t.Errorf("nil mask, nil resource: %v %s", got, wrong)
	}
}

func TestMaskFieldsRefuses(t *testing.T) {
	for path, says := range map[string]string{
		"":                     "unknown field",
		" ":                    "unknown field",
		"desription":           "unknown field, desription: did you mean description?",
		"lables.team":          "unknown field, lables: did you mean labels?",
		"Description":          "unknown field",
		"hunter2":              "unknown field: give some of",
		"pollinterval":         "unknown field, pollinterval: did you mean pollInterval?",
		"name":                 "name, which cannot be updated",
		"uid":                  "uid, which cannot be updated",
		"etag":                 "etag, which cannot be updated",
		"createTime":           "createTime, which cannot be updated",
		"create_time.seconds":  "createTime, which cannot be updated",
		"delivery":             "delivery, which cannot be updated",
		"provider":             "unknown field", // the oneof is no field
		"vault.address":        "a part of vault",
		"labels.team":          "a part of labels",
		"labels.":              "a part of labels",
		".":                    "unknown field",
		"*.description":        "unknown field",
		"**":                   "unknown field",
		"description,labels":   "unknown field: give some of description, labels, credential, vault, pollInterval, or",
		"hunter2\nhunter2":     "unknown field",
		strings.Repeat("x", 9): "unknown field: give some of description, labels, credential, vault, pollInterval",
	} {
		got, wrong := maskFields(&fieldmaskpb.FieldMask{Paths: []string{path}}, &credstorev1.SecretStore{}, storeFields()...)
		if !strings.Contains(wrong, says) {
			t.Errorf("%q: got %v, %q", path, sorted(got), wrong)
		}
		if strings.Contains(wrong, "hunter2") {
			t.Errorf("the answer repeats the path: %s", wrong)
		}
	}
	for _, paths := range [][]string{{"*", "labels"}, {"labels", "*"}, slices.Repeat([]string{"labels"}, 65)} {
		if got, wrong := maskFields(&fieldmaskpb.FieldMask{Paths: paths}, &credstorev1.SecretStore{}, storeFields()...); wrong == "" {
			t.Errorf("%.3q: got %v", paths, sorted(got))
		}
	}
	// Only the whole payload is a legal path.
	for _, path := range []string{"payload.basic", "payload.basic.username", "payload.basic.password"} {
		if _, wrong := maskFields(&fieldmaskpb.FieldMask{Paths: []string{path}}, &credstorev1.Credential{}, "description", "labels", "payload"); !strings.Contains(wrong, "a part of payload") {
			t.Errorf("%s: %q", path, wrong)
		}
	}
}

// FuzzMaskFields holds that a mask is refused or names only updatable fields,
// and that an answer does not depend on the spelling.
func FuzzMaskFields(f *testing.F) {
	for _, seed := range []string{"payload", "description,labels", "*", "payload.basic.username", "updateTime", "update_time", "", "a\x00,*"} {
		f.Add(seed)
	}
	updatable := []protoreflect.Name{"description", "labels", "payload"}
	f.Fuzz(func(t *testing.T, text string) {
		got, wrong := maskFields(&fieldmaskpb.FieldMask{Paths: strings.Split(text, ",")}, &credstorev1.Credential{}, updatable...)
		if (wrong == "") == (len(got) == 0) {
			t.Fatalf("%q: %v and %q", text, sorted(got), wrong)
		}
		for name := range got {
			if !slices.Contains(updatable, name) {
				t.Fatalf("%q: names %s", text, name)
			}
		}
	})
}

func TestRequestDigest(t *testing.T) {
	request := func(change func(*credstorev1.CreateCredentialRequest)) *credstorev1.CreateCredentialRequest {
		r := &credstorev1.CreateCredentialRequest{
			Parent: "projects/p", CredentialId: "c", RequestId: "r",
			Credential: &credstorev1.Credential{
				Labels:  map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"},
				Payload: &credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: "t"}}},
			},
		}
		if change != nil {
			change(r)
		}
		return r
	}
	digest := func(r proto.Message) [32]byte {
		t.Helper()
		d, err := requestDigest(r)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	r := request(nil)
	first := digest(r)
	if !proto.Equal(r, request(nil)) {
		t.Error("the request was changed")
	}
	for range 20 {
		if digest(request(nil)) != first {
			t.Fatal("the same request has two digests")
		}
	}
	if digest(request(func(r *credstorev1.CreateCredentialRequest) { r.RequestId = "another" })) != first {
		t.Error("the request_id is in the digest")
	}
	for name, change := range map[string]func(*credstorev1.CreateCredentialRequest){
		"id":      func(r *credstorev1.CreateCredentialRequest) { r.CredentialId = "d" },
		"payload": func(r *credstorev1.CreateCredentialRequest) { r.Credential.Payload.GetApiToken().Token = "u" },
		"label":   func(r *credstorev1.CreateCredentialRequest) { r.Credential.Labels["d"] = "5" },
		"flag":    func(r *credstorev1.CreateCredentialRequest) { r.ValidateOnly = true },
	} {
		if digest(request(change)) == first {
			t.Errorf("%s is not in the digest", name)
		}
	}
}

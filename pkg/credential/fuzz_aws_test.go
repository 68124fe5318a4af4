package credential_test

import (
	"errors"
	"strings"
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// FuzzAWSDocument holds that whatever is pasted is understood or refused, by
// field and without repeating a value, in bounded memory; and that what was
// understood is accepted again.
func FuzzAWSDocument(f *testing.F) {
	e := load(f, "awsAccessKey")
	for _, example := range e.Good {
		f.Add(message(f, example.Payload).GetAwsAccessKey().GetDocument())
	}
	for _, example := range e.Bad {
		f.Add(message(f, example.Payload).GetAwsAccessKey().GetDocument())
	}
	f.Fuzz(func(t *testing.T, document string) {
		m := &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{Document: document}}}
		var p credential.Payload
		var err error
		bounded(t, len(document), func() { p, err = credential.NewPayload(m) })
		if err == nil {
			if p.Message().GetAwsAccessKey().GetDocument() != "" {
				t.Error("the document is kept")
			}
			testAgain(t, p)
			return
		}
		var typed *credential.ValidationError
		if !errors.As(err, &typed) {
			t.Fatalf("error is %v, want a *ValidationError", err)
		}
		for _, v := range typed.Violations {
			if !strings.HasPrefix(v.Field, "payload.awsAccessKey") && v.Field != "payload" {
				t.Errorf("field is %q", v.Field)
			}
		}
	})
}

// A document as large as a payload may be takes well under a second, whatever it
// is made of.
func TestAWSDocumentOfGreatestSize(t *testing.T) {
	const most = 250 << 10
	fill := func(s string) string { return strings.Repeat(s, most/len(s)) }
	for name, document := range map[string]string{
		"names":          fill("aws_access_key_id "),
		"names and ends": fill("access key id = \""),
		"assignments":    fill("region=\n"),
		"brackets":       fill("["),
		"open names":     fill("token["),
		"profiles":       fill("[a]\n"),
		"quotes":         fill("\""),
		"escapes":        fill(`\"`),
		"commas":         fill(","),
		"columns":        "Access key ID,Secret access key\n" + fill("a,b\n"),
		"spaces":         fill(" "),
		"base64":         fill("QUtJ"),
		"bytes":          fill("\xff"),
		"export":         "export AWS_ACCESS_KEY_ID=" + fill("A"),
	} {
		t.Run(name, func(t *testing.T) {
			m := &credentialv1.Payload{Kind: &credentialv1.Payload_AwsAccessKey{AwsAccessKey: &credentialv1.AwsAccessKey{Document: document}}}
			var err error
			bounded(t, len(document), func() { _, err = credential.NewPayload(m) })
			if err == nil {
				t.Error("it is accepted")
			}
		})
	}
}

// FuzzAWSRequest holds that every request for a token is normalised for good, or
// refused by field.
func FuzzAWSRequest(f *testing.F) {
	f.Add("arn:aws:iam::123456789012:role/r", "ext", "name", "key", "value", `{"Statement":[]}`, "arn:aws:iam::aws:policy/p", "eu-west-1")
	f.Add("arn:aws-cn:iam::123456789012:role/a/b/r", "", "", "", "", "[]", "", "cn-north-1a")
	f.Fuzz(func(t *testing.T, role, external, name, key, value, policy, policyARN, region string) {
		request := &credentialv1.TokenRequest_AwsRoleSession{
			RoleArn: role, ExternalId: external, SessionName: name, Tags: map[string]string{key: value},
			TransitiveTagKeys: []string{key}, Policy: policy, PolicyArns: []string{policyARN}, Region: region, SourceIdentity: name,
		}
		all := []*credentialv1.TokenRequest{
			{Kind: &credentialv1.TokenRequest_AwsAssumeRole{AwsAssumeRole: request}},
			{Kind: &credentialv1.TokenRequest_RegistryLogin_{RegistryLogin: &credentialv1.TokenRequest_RegistryLogin{Server: external, Region: region, RoleArn: role}}},
			{Kind: &credentialv1.TokenRequest_KubernetesLogin_{KubernetesLogin: &credentialv1.TokenRequest_KubernetesLogin{Cluster: name, Region: region, RoleArn: role}}},
		}
		for _, kind := range []credential.Kind{"awsAccessKey", "awsRole", "awsAssumeRole"} {
			for _, m := range all {
				got, err := credential.NewTokenRequest(kind, m)
				var typed *credential.ValidationError
				if err != nil && !errors.As(err, &typed) {
					t.Fatalf("error is %v, want a *ValidationError", err)
				}
				if err != nil {
					continue
				}
				again, err := credential.NewTokenRequest(kind, got.Message())
				if err != nil {
					t.Fatalf("its own normalised form is refused: %v", err)
				}
				first, _ := got.Key()
				if second, _ := again.Key(); first != second {
					t.Error("normalising twice changes the request again")
				}
			}
		}
	})
}

package awstest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The vectors that AWS published as the "AWS Signature Version 4 test suite"; all
// are signed on 30 August 2015 with this key.
const (
	vectorKey    = "AKIDEXAMPLE"
	vectorSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	vectorDate   = "20150830T123600Z"
)

type vector struct {
	name, method, target, body, signature string
	headers                               http.Header
}

var vectors = []vector{
	{"get-vanilla", "GET", "/", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", nil},
	{"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", "", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", nil},
	{
		"get-vanilla-query-unreserved", "GET", "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
		"", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197", nil,
	},
	{
		"get-header-value-order", "GET", "/", "", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
		http.Header{"My-Header1": {"value4", "value1", "value3", "value2"}},
	},
	{
		"get-header-value-trim", "GET", "/", "", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
		http.Header{"My-Header1": {" value1"}, "My-Header2": {` "a   b   c"`}},
	},
	{"post-vanilla", "POST", "/", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", nil},
	{
		"post-x-www-form-urlencoded", "POST", "/", "Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	},
}

func (v vector) request() *http.Request {
	r := httptest.NewRequest(v.method, "https://example.amazonaws.com"+v.target, strings.NewReader(v.body))
	signed := []string{"host"}
	for _, name := range []string{"Content-Type", "My-Header1", "My-Header2"} {
		if values, ok := v.headers[name]; ok {
			r.Header[name] = values
			if name == "Content-Type" {
				signed = append([]string{"content-type"}, signed...)
			} else {
				signed = append(signed, strings.ToLower(name))
			}
		}
	}
	r.Header.Set("X-Amz-Date", vectorDate)
	r.Header.Set("Authorization", algorithm+" Credential="+vectorKey+"/20150830/us-east-1/service/aws4_request, SignedHeaders="+
		strings.Join(append(signed, "x-amz-date"), ";")+", Signature="+v.signature)
	return r
}

// The verifier accepts what AWS says is right, and nothing that differs in one
// place.
func TestVerifierAgainstAWSVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			r := v.request()
			s, refusal := parseSignature(r)
			if refusal != nil {
				t.Fatalf("%+v", refusal)
			}
			if s.keyID != vectorKey || s.region != "us-east-1" || s.service != "service" {
				t.Errorf("%+v", s)
			}
			if !s.valid(r, []byte(v.body), vectorSecret) {
				t.Error("the published signature is refused")
			}
			for name, change := range map[string]func(*http.Request, *signature) string{
				"secret": func(*http.Request, *signature) string { return vectorSecret + "x" },
				"method": func(r *http.Request, _ *signature) string { r.Method = "PUT"; return vectorSecret },
				"path":   func(r *http.Request, _ *signature) string { r.URL.Path = "/x"; return vectorSecret },
				"query":  func(r *http.Request, _ *signature) string { r.URL.RawQuery += "&x=y"; return vectorSecret },
				"host":   func(r *http.Request, _ *signature) string { r.Host = "example.com"; return vectorSecret },
				"date": func(r *http.Request, _ *signature) string {
					r.Header.Set("X-Amz-Date", "20150830T123601Z")
					return vectorSecret
				},
				"region":    func(_ *http.Request, s *signature) string { s.region = "us-east-2"; return vectorSecret },
				"service":   func(_ *http.Request, s *signature) string { s.service = "sts"; return vectorSecret },
				"signature": func(_ *http.Request, s *signature) string { s.value = strings.Repeat("0", 64); return vectorSecret },
			} {
				r, changed := v.request(), s
				if secret := change(r, &changed); changed.valid(r, []byte(v.body), secret) {
					t.Errorf("with another %s it is accepted", name)
				}
			}
			if s.valid(v.request(), []byte(v.body+"x"), vectorSecret) {
				t.Error("with another body it is accepted")
			}
		})
	}
}

func TestParseSignatureRefuses(t *testing.T) {
	for name, change := range map[string]func(http.Header){
		"nothing":         func(h http.Header) { h.Del("Authorization") },
		"other algorithm": func(h http.Header) { h.Set("Authorization", "AWS4-ECDSA-P256-SHA256 Credential=a") },
		"no date":         func(h http.Header) { h.Del("X-Amz-Date") },
		"date of another": func(h http.Header) { h.Set("X-Amz-Date", "20150831T123600Z") },
		"host not signed": func(h http.Header) { h.Set("Authorization", strings.Replace(h.Get("Authorization"), "host;", "", 1)) },
		"unsigned x-amz":  func(h http.Header) { h.Set("X-Amz-Security-Token", "t") },
		"no signature":    func(h http.Header) { h.Set("Authorization", strings.Split(h.Get("Authorization"), ", Signature")[0]) },
		"scope without end": func(h http.Header) {
			h.Set("Authorization", strings.Replace(h.Get("Authorization"), "/aws4_request", "", 1))
		},
		"scope with another": func(h http.Header) {
			h.Set("Authorization", strings.Replace(h.Get("Authorization"), "aws4_request", "aws3", 1))
		},
	} {
		r := vectors[0].request()
		change(r.Header)
		if _, refusal := parseSignature(r); refusal == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
}

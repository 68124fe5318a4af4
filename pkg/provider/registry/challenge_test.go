package registry

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseChallenges(t *testing.T) {
	type c = struct {
		Scheme string
		Params map[string]string
	}
	for _, test := range []struct {
		name    string
		headers []string
		want    []c
	}{
		{"none", nil, nil},
		{"empty", []string{"", " , ,"}, nil},
		{"as the specification has it", []string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push"`}, []c{
			{"bearer", map[string]string{"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:samalba/my-app:pull,push"}},
		}},
		{"two in a header", []string{`Basic realm="a, b", Bearer Realm = "https://x/t" , service=y`}, []c{
			{"basic", map[string]string{"realm": "a, b"}}, {"bearer", map[string]string{"realm": "https://x/t", "service": "y"}},
		}},
		{"two headers", []string{`Negotiate`, `BASIC realm="\"quoted\""`}, []c{{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": `"quoted"`}}}},
		{"a quote that is not closed", []string{`Bearer realm="https://x`}, []c{{"bearer", map[string]string{"realm": ""}}}},
		{"no name", []string{`=x, Basic realm="a"`}, nil},
		{"too many", []string{"Bearer " + strings.Repeat("a=b,", 3) + manyParams(40)}, []c{{"bearer", firstParams(31)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []c
			for _, one := range parseChallenges(test.headers) {
				got = append(got, c{one.scheme, one.params})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func manyParams(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, "p"+strings.Repeat("x", i)+"=1")
	}
	return strings.Join(parts, ",")
}

func firstParams(n int) map[string]string {
	out := map[string]string{"a": "b"}
	for i := range n {
		out["p"+strings.Repeat("x", i)] = "1"
	}
	return out
}

// The rule of the package's documentation, case by case.
func TestOwns(t *testing.T) {
	configured := []string{"auth.example.net:5001", "tokens.example.net"}
	for _, test := range []struct {
		registry, realm string
		want            bool
	}{
		{"registry.example.com", "https://registry.example.com/token", true},
		{"registry.example.com", "https://REGISTRY.example.com:443/token", true},
		{"registry.example.com", "https://auth.example.com/token", true},
		{"registry.example.com:5000", "https://registry.example.com:5000/token", true},
		{"registry.example.com:5000", "https://registry.example.com/token", true},
		{"registry.example.com:5000", "https://auth.example.com:5000/token", true},
		{"registry.example.com:5000", "https://registry.example.com:5001/token", false},
		{"registry.example.com", "https://auth.example.com:8443/token", false},
		{"registry.example.co.uk", "https://auth.example.co.uk/token", true},
		{"registry.example.co.uk", "https://evil.co.uk/token", false},
		{"me.github.io", "https://you.github.io/token", false},
		{"registry.example.com", "https://example.com.evil.net/token", false},
		{"registry.example.com", "https://evil.net/registry.example.com", false},
		{"registry-1.docker.io", "https://auth.docker.io/token", true},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"rg.fr-par.scw.cloud", "https://api.scaleway.com/registry-internal/v1/tokens", true},
		{"rg.fr-par.scw.cloud:5000", "https://api.scaleway.com/registry-internal/v1/tokens", false},
		{"registry.example.com", "https://api.scaleway.com/token", false},
		{"127.0.0.1:5000", "https://127.0.0.1:5000/token", true},
		{"127.0.0.1:5000", "https://127.0.0.1:8200/v1/token", false},
		{"10.0.0.1", "https://20.0.0.1/token", false},
		{"10.0.0.1", "https://1.0.0.1/token", false},
		{"[2001:db8::1]:5000", "https://[2001:db8::1]:5000/token", true},
		{"[2001:db8::1]", "https://[2001:db8::2]/token", false},
		{"registry", "https://registry/token", true},
		{"registry", "https://auth/token", false},
		{"registry.example.com", "http://registry.example.com/token", false},
		{"registry.example.com", "//registry.example.com/token", false},
		{"registry.example.com", "https://bot@registry.example.com/token", false},
		{"registry.example.com", "https://registry.example.com/token#x", false},
		{"registry.example.com", "https:///token", false},
		{"registry.example.com", "https://:443/token", false},
		{"registry.example.com", "https://registry.example.com/" + strings.Repeat("x", 2048), false},
		{"registry.example.com", "", false},
		{"registry.example.com", "https://169.254.169.254/latest", false},
		{"registry.example.com", "https://auth.example.net:5001/token", true},
		{"registry.example.com", "https://auth.example.net/token", false},
		{"registry.example.com", "https://tokens.example.net/token", true},
	} {
		s := &session{host: test.registry, tokenHosts: configured}
		u, why := s.checkRealm(test.realm)
		if (u != nil) != test.want || (why == "") != test.want {
			t.Errorf("%s names %.80s: allowed %t (%s), want %t", test.registry, test.realm, u != nil, why, test.want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull"`)
	f.Add(`Basic realm="a, b", Bearer Realm = "https://x/t" , service=y`)
	f.Add(`Negotiate a==, Basic realm="\"`)
	f.Add(`,,=,"`)
	f.Add(`Bearer realm="https://EXAMPLE.com/"`)
	f.Add(`Bearer realm="https://İ.example.com/"`)
	f.Fuzz(func(t *testing.T, header string) {
		for _, c := range parseChallenges([]string{header}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || len(c.params) > maxParams {
				t.Errorf("%+v", c)
			}
			s := &session{host: "registry.example.com"}
			if u, why := s.checkRealm(c.params["realm"]); why == "" {
				host := strings.ToLower(u.Hostname())
				if u.Scheme != "https" || host != "example.com" && !strings.HasSuffix(host, ".example.com") {
					t.Errorf("the password would go to %s", u)
				}
			}
		}
	})
}

package resourcename_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/resourcename"
)

// parser is one Parse function with its type taken away. Its result is nil when
// the name is refused, and otherwise the name.
type parser func(string) (fmt.Stringer, error)

func anyName[N fmt.Stringer](parse func(string) (N, error)) parser {
	return func(name string) (fmt.Stringer, error) {
		n, err := parse(name)
		if err != nil {
			return nil, err
		}
		return n, nil
	}
}

var parsers = map[string]parser{
	"project":     anyName(resourcename.ParseProject),
	"credential":  anyName(resourcename.ParseCredential),
	"version":     anyName(resourcename.ParseVersion),
	"secretStore": anyName(resourcename.ParseSecretStore),
	"injection":   anyName(resourcename.ParseInjection),
	"token":       anyName(resourcename.ParseToken),
	"usage":       anyName(resourcename.ParseUsage),
}

// longest is an id of the greatest length.
var longest = strings.Repeat("a", 63)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		parser, name string
		want         fmt.Stringer
	}{
		{"project", "projects/default", resourcename.Project{ID: "default"}},
		{"project", "projects/a", resourcename.Project{ID: "a"}},
		{"project", "projects/" + longest, resourcename.Project{ID: longest}},
		{"credential", "projects/p/credentials/registry-bot", resourcename.Credential{Project: "p", ID: "registry-bot"}},
		{"credential", "projects/projects/credentials/credentials", resourcename.Credential{Project: "projects", ID: "credentials"}},
		{"version", "projects/p/credentials/c/versions/1", resourcename.Version{Project: "p", Credential: "c", Number: 1}},
		{"version", "projects/p/credentials/c/versions/4294967295", resourcename.Version{Project: "p", Credential: "c", Number: 4294967295}},
		{"secretStore", "projects/p/secretStores/team-vault", resourcename.SecretStore{Project: "p", ID: "team-vault"}},
		{"injection", "projects/p/injections/web", resourcename.Injection{Project: "p", ID: "web"}},
		{"token", "projects/p/tokens/t0", resourcename.Token{Project: "p", ID: "t0"}},
		{"usage", "projects/p/credentials/c/usages/secretStores.s", resourcename.Usage{Project: "p", Collection: "credentials", Resource: "c", ID: "secretStores.s"}},
		{"usage", "projects/p/credentials/c/usages/u", resourcename.Usage{Project: "p", Collection: "credentials", Resource: "c", ID: "u"}},
		{"usage", "projects/p/secretStores/s/usages/u", resourcename.Usage{Project: "p", Collection: "secretStores", Resource: "s", ID: "u"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parsers[test.parser](test.name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if got.String() != test.name {
				t.Errorf("String() = %q, want %q", got, test.name)
			}
			for other, parse := range parsers {
				if n, err := parse(test.name); other != test.parser && err == nil {
					t.Errorf("also accepted as a %s: %v", other, n)
				}
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const credential = "projects/p/credentials/c"
	for parser, names := range map[string][]string{
		"project": {
			"", "/", "projects", "projects/", "projects//", "/projects/p", "projects/p/", "projects/p//",
			"project/p", "Projects/p", "projects/P", "projects/1p", "projects/-p", "projects/p-", "projects/p_q",
			"projects/p.q", "projects/p:verb", "projects/p q", "projects/p\n", " projects/p", "projects/é",
			"projects/p\x00", "projects/..", "projects/%70", "projects/" + longest + "a", "projects/p/credentials/c",
		},
		"credential": {
			"projects/p", "projects/p/credentials", "projects/p/credentials/", "projects/p/credentials/c/",
			"projects//credentials/c", "projects/p/secretStores/c", "projects/p/credentials/c:access",
			"projects/p/credentials/c/versions/1", "projects/p/credentials//c", "credentials/c",
		},
		"version": {
			credential, credential + "/versions", credential + "/versions/", credential + "/versions/0",
			credential + "/versions/01", credential + "/versions/+1", credential + "/versions/-1",
			credential + "/versions/1.0", credential + "/versions/1e3", credential + "/versions/0x1",
			credential + "/versions/4294967296", credential + "/versions/9999999999",
			credential + "/versions/42949672950", credential + "/versions/1/", credential + "/versions/latest",
			credential + "/versions/١", credential + "/version/1", credential + "/versions/1:access",
		},
		"secretStore": {"projects/p/secretstores/s", "projects/p/secret_stores/s", "projects/p/secretStores/S"},
		"injection":   {"projects/p/injection/i", "projects/p/injections/"},
		"token":       {"projects/p/tokens/credstore_x", "tokens/t"},
		"usage": {
			"projects/p/usages/u", "projects/p/injections/i/usages/u", credential + "/usages/", credential + "/usages/u/v",
			"projects/p//c/usages/u", "projects/p/credentials/usages/u", "projects/p/credentials//usages/u",
		},
	} {
		for _, name := range names {
			got, err := parsers[parser](name)
			var typed *resourcename.Error
			if !errors.As(err, &typed) {
				t.Errorf("%s %q: got %v, %v; want an *Error", parser, name, got, err)
				continue
			}
			if typed.Value != name {
				t.Errorf("%s %q: error's value is %q", parser, name, typed.Value)
			}
		}
	}
}

func TestErrorText(t *testing.T) {
	_, badCredential := resourcename.ParseCredential("projects/p/credential/c")
	_, unprintable := resourcename.ParseProject("a\nb\xff\"")
	_, long := resourcename.ParseVersion(strings.Repeat("x", 1<<20))
	for _, test := range []struct {
		err  error
		want string
	}{
		{badCredential, `"projects/p/credential/c" is not the name of a credential: expected projects/{project}/credentials/{credential}, with ids of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?`},
		{unprintable, `"a\nb\xff\"" is not the name of a project: expected projects/{project}, with ids of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?`},
		{long, `"` + strings.Repeat("x", 200) + `" is not the name of a version of a credential: expected projects/{project}/credentials/{credential}/versions/{version}, with ids of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?`},
		{resourcename.ValidateID("Foo"), `"Foo" is not an id: expected 1 to 63 characters of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?`},
	} {
		if test.err.Error() != test.want {
			t.Errorf("got  %s\nwant %s", test.err, test.want)
		}
	}
}

func TestValidateID(t *testing.T) {
	for _, id := range []string{"a", "a1", "a-b", "a--b", longest} {
		if err := resourcename.ValidateID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", "A", "1", "-", "a-", "a/b", "a:b", "a.b", longest + "a", "é"} {
		if resourcename.ValidateID(id) == nil {
			t.Errorf("%q accepted", id)
		}
	}
}

func TestParents(t *testing.T) {
	c := resourcename.Credential{Project: "p", ID: "c"}
	for got, want := range map[string]string{
		c.Parent().String():            "projects/p",
		c.Version(7).String():          "projects/p/credentials/c/versions/7",
		c.Version(8).Parent().String(): "projects/p/credentials/c",
		resourcename.Usage{Project: "p", Collection: resourcename.SecretStores, Resource: "s", ID: "u"}.Parent(): "projects/p/secretStores/s",
		resourcename.SecretStore{Project: "q", ID: "s"}.Parent().String():                                        "projects/q",
		resourcename.Injection{Project: "r", ID: "i"}.Parent().String():                                          "projects/r",
		resourcename.Token{Project: "s", ID: "t"}.Parent().String():                                              "projects/s",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	var sink int
	allocs := testing.AllocsPerRun(100, func() {
		v, err := resourcename.ParseVersion("projects/default/credentials/registry-bot/versions/12")
		if err != nil {
			t.Fatal(err)
		}
		u, err := resourcename.ParseUsage("projects/default/secretStores/team-vault/usages/billing")
		if err != nil {
			t.Fatal(err)
		}
		sink += len(v.Credential) + len(u.ID)
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"projects/default", "projects/p/credentials/c", "projects/p/credentials/c/versions/4294967295",
		"projects/p/secretStores/s", "projects/p/injections/i", "projects/p/tokens/t",
		"projects/p/secretStores/s/usages/u", "projects/p/credentials/c/versions/01", "projects//", "\xff/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		accepted := 0
		for kind, parse := range parsers {
			n, err := parse(name)
			if err != nil {
				// A quoted byte takes up to four; the rest of the sentence is ours.
				if len(err.Error()) > 4*200+250 {
					t.Errorf("%s: error of %d bytes", kind, len(err.Error()))
				}
				continue
			}
			accepted++
			if n.String() != name {
				t.Errorf("%s: String() = %q, want %q", kind, n, name)
			}
		}
		if accepted > 1 {
			t.Errorf("%q is the name of %d kinds of resource", name, accepted)
		}
	})
}

package authz_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/authz"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

var (
	home     = resourcename.Project{ID: "home"}
	away     = resourcename.Project{ID: "away"}
	theirs   = resourcename.Credential{Project: "home", ID: "named"}
	another  = resourcename.Credential{Project: "home", ID: "another"}
	elsewere = resourcename.Credential{Project: "away", ID: "named"}
)

func principal(role core.Role, all bool) *core.Principal {
	return &core.Principal{
		Name: "projects/home/tokens/t", Role: role, Project: home, ProjectUID: "uid-home", AllProjects: all,
		Credentials: []resourcename.Credential{theirs, elsewere},
	}
}

// matrix says for each permission what admin, operator, reader and workload may
// do: "-" nothing, "p" in their own project, "s" without naming a project, "a"
// with a token for all projects, "n" on the credentials that the token names.
// It is written out here a second time on purpose: a slip in the table is a
// security hole.
const matrix = `
projects.create       a - - -
projects.get          p p p -
projects.list         s s s -
projects.update       p - - -
projects.delete       a - - -
tokens.create         p - - -
tokens.get            p - - -
tokens.list           p - - -
tokens.delete         p - - -
credentials.create    p p - -
credentials.get       p p p n
credentials.list      p p p -
credentials.update    p p - -
credentials.delete    p p - -
credentials.use       p p - -
credentials.access    p - - n
credentials.watch     p p p n
credentials.verify    p p - -
credentials.mint      p - - n
usages.list           p p p -
usages.declare        p p - n
secretStores.create   p p - -
secretStores.get      p p p -
secretStores.list     p p p -
secretStores.update   p p - -
secretStores.delete   p p - -
secretStores.use      p p - -
injections.create     p p - -
injections.get        p p p -
injections.list       p p p -
injections.update     p p - -
injections.delete     p p - -
sets.get              p - - p
`

func TestMatrix(t *testing.T) {
	roles := authz.New()
	seen := map[string]bool{}
	for line := range strings.Lines(strings.TrimSpace(matrix)) {
		cells := strings.Fields(line)
		permission := core.Permission(cells[0])
		seen[cells[0]] = true
		for i, role := range []core.Role{core.Admin, core.Operator, core.Reader, core.Workload} {
			if got := observe(roles, permission, role); got != cells[1+i] {
				t.Errorf("%s as %s: got %q, want %q", permission, role, got, cells[1+i])
			}
		}
	}
	if diff := cmp.Diff(declared(t), seen); diff != "" {
		t.Errorf("permissions of package core and of this matrix (-core +matrix)\n%s", diff)
	}
}

// observe finds out by questions what a role may do.
func observe(roles *authz.Roles, permission core.Permission, role core.Role) string {
	ask := func(all bool, p resourcename.Project, uid string, c resourcename.Credential) bool {
		resource := p.String()
		if c.ID != "" {
			resource = c.String()
		}
		return roles.Authorize(core.Access{
			Principal: principal(role, all), Permission: permission, Project: p, ProjectUID: uid,
			Resource: resource, Credential: c,
		}) == nil
	}
	none := resourcename.Credential{}
	switch {
	case ask(false, resourcename.Project{}, "", none) && ask(false, home, "uid-home", none):
		return "s"
	case ask(false, home, "uid-home", another):
		if ask(false, away, "uid-away", another) || ask(false, home, "uid-home-again", another) || ask(false, home, "", another) {
			return "leaks into other projects"
		}
		if !ask(true, away, "uid-away", another) {
			return "a token for all projects is refused"
		}
		return "p"
	case ask(false, home, "uid-home", theirs):
		if ask(false, away, "uid-away", elsewere) || ask(false, home, "uid-home-again", theirs) {
			return "leaks into other projects"
		}
		return "n"
	case ask(true, home, "uid-home", none):
		return "a"
	}
	return "-"
}

// declared reads the permissions out of package core's source, so that a new
// one cannot be forgotten here.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../core/access.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Permission" {
			return true
		}
		for _, v := range spec.Values {
			if lit, ok := v.(*ast.BasicLit); ok {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				found[s] = true
			}
		}
		return true
	})
	if len(found) < 20 {
		t.Fatalf("only %d permissions found in package core", len(found))
	}
	return found
}

// TestWorkloadIsAskedByName holds that a workload gets nothing by a question
// about a whole project, even with a zero name among those of its token.
func TestWorkloadIsAskedByName(t *testing.T) {
	roles := authz.New()
	p := principal(core.Workload, false)
	p.Credentials = append(p.Credentials, resourcename.Credential{})
	for _, permission := range []core.Permission{core.CredentialsWatch, core.CredentialsAccess, core.CredentialsGet, core.CredentialsMint, core.UsagesDeclare} {
		a := core.Access{Principal: p, Permission: permission, Project: home, ProjectUID: "uid-home", Resource: home.String()}
		if roles.Authorize(a) == nil {
			t.Errorf("%s granted for the whole project", permission)
		}
	}
}

func TestDenial(t *testing.T) {
	roles := authz.New()
	access := core.Access{
		Principal: principal(core.Reader, false), Permission: core.CredentialsGet,
		Project: away, Resource: "projects/away/credentials/named", Credential: elsewere,
	}
	absent := roles.Authorize(access)
	access.ProjectUID = "uid-away"
	present := roles.Authorize(access)
	if diff := cmp.Diff(absent.Error(), present.Error()); diff != "" {
		t.Errorf("the answer tells whether the project exists (-absent +present)\n%s", diff)
	}
	var e *core.Error
	if !errors.As(present, &e) || !errors.Is(present, core.ErrPermissionDenied) || e.Reason != core.ReasonPermissionDenied {
		t.Fatalf("got %#v", present)
	}
	const want = "permission credentials.get is missing on projects/away/credentials/named: use a token whose role and project include it"
	if e.Message != want {
		t.Errorf("got  %s\nwant %s", e.Message, want)
	}
}

func TestOddPrincipals(t *testing.T) {
	roles := authz.New()
	for name, p := range map[string]*core.Principal{
		"nobody":          nil,
		"no role":         {ProjectUID: "uid-home", AllProjects: true},
		"unknown role":    {Role: 99, ProjectUID: "uid-home", AllProjects: true},
		"no project uid":  {Role: core.Admin},
		"another project": {Role: core.Admin, ProjectUID: "uid-away"},
	} {
		for _, uid := range []string{"", "uid-home"} {
			a := core.Access{Principal: p, Permission: core.CredentialsGet, Project: home, ProjectUID: uid, Credential: theirs}
			if roles.Authorize(a) == nil {
				t.Errorf("%s is let in (project uid %q)", name, uid)
			}
		}
	}
	unknown := core.Access{Principal: principal(core.Admin, true), Permission: "credentials.explode", Project: home, ProjectUID: "uid-home"}
	if roles.Authorize(unknown) == nil {
		t.Error("a permission that is not in the table is granted")
	}
}

func BenchmarkAuthorize(b *testing.B) {
	roles := authz.New()
	a := core.Access{
		Principal: principal(core.Workload, false), Permission: core.CredentialsAccess,
		Project: home, ProjectUID: "uid-home", Credential: theirs,
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := roles.Authorize(a); err != nil {
			b.Fatal(err)
		}
	}
}

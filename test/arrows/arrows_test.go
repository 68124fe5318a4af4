// Package arrows_test holds the dependency arrows of docs/decisions/0001: which
// package may import which, with a reason for every ban. It asks the Go tool, so
// that no import is overlooked.
package arrows_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/credstore/credstore/"

// arrow bans imports. A pattern that ends with "/..." means the package and all
// below it.
type arrow struct {
	from   []string
	banned []string
	except []string
	reason string
}

const internal = "services/credstore/internal/"

func arrows() []arrow {
	leaves := []string{
		internal + "grpcapi/...", internal + "gateway/...", internal + "authn/...", internal + "authz/...",
		internal + "audit/...", internal + "broker/...", internal + "issuer/...", internal + "seal/...", internal + "storage/sqlite/...",
	}
	technology := []string{
		"google.golang.org/grpc/...", "database/sql/...", "modernc.org/...", "go.etcd.io/...", "net/http/...",
		"github.com/hashicorp/...", "github.com/aws/...", "github.com/Azure/...", "cloud.google.com/...", "k8s.io/...",
	}
	out := []arrow{
		{
			from:   []string{internal + "core/...", internal + "fanout/..."},
			banned: append([]string{module + "gen/go/credstore/...", module + "services/..."}, technology...),
			except: []string{module + internal + "fanout", module + internal + "core"},
			reason: "the domain knows no transport, no SQL and no vendor; what it needs it declares as ports",
		},
		{
			from:   []string{internal + "fanout/..."},
			banned: []string{module + "..."},
			except: []string{module + internal + "fanout"},
			reason: "the fan-out is generic: it carries what it is given",
		},
		{
			from:   []string{internal + "schedule"},
			banned: append([]string{module + "..."}, technology...),
			reason: "the schedule is generic: it orders what it is given",
		},
		{
			from:   []string{internal + "jsoncheck"},
			banned: append([]string{module + "..."}, technology...),
			except: []string{module + "pkg/nearest"},
			reason: "the reading of JSON is generic: it takes any message's descriptor",
		},
		{
			from:   []string{"pkg/inject/..."},
			banned: append([]string{module + "gen/...", module + "pkg/client/..."}, technology[:2]...),
			reason: "the engine turns sets into files, wherever the sets come from",
		},
		{
			from:   []string{"pkg/..."},
			banned: []string{module + "services/..."},
			reason: "libraries stand below the services",
		},
		{
			from:   []string{"services/credstore/..."},
			banned: []string{module + "services/injector/..."},
			reason: "services speak over the contract and never import each other",
		},
		{
			from:   []string{"services/injector/..."},
			banned: []string{module + "services/credstore/..."},
			reason: "services speak over the contract and never import each other",
		},
		{
			from:   []string{"pkg/credential/...", "pkg/resourcename/...", "pkg/targetpath/..."},
			banned: append([]string{module + "gen/go/credstore/...", module + "pkg/client/...", module + "pkg/provider/...", module + "pkg/inject/..."}, technology...),
			reason: "what describes credentials brings in nothing that uses them",
		},
		{
			from:   []string{"pkg/provider"},
			banned: []string{module + "pkg/provider/..."},
			except: []string{module + "pkg/provider"},
			reason: "a vendor knows the seam, the seam knows no vendor",
		},
		{
			from: []string{
				internal + "core/...", internal + "grpcapi/...", internal + "gateway/...", internal + "broker/...",
				internal + "issuer/...", internal + "cli/...",
			},
			banned: []string{module + "pkg/provider/...", module + internal + "storage/sqlite/..."},
			except: []string{module + "pkg/provider"},
			reason: "only app names concrete backends and providers",
		},
		{
			from:   []string{"pkg/client", "pkg/client/setsource", "pkg/client/tokens"},
			banned: append([]string{module + "pkg/credential/...", module + "pkg/provider/..."}, vendorSDKs()...),
			reason: "who talks to credstore pulls no SDK: an adapter is a package of its own",
		},
	}
	for _, leaf := range leaves {
		var others []string
		for _, other := range leaves {
			if other != leaf {
				others = append(others, module+other)
			}
		}
		out = append(out, arrow{
			from: []string{leaf}, banned: append(others, module+internal+"app/...", module+internal+"cli/..."),
			reason: "leaves never import leaves: app wires them",
		})
	}
	return out
}

func vendorSDKs() []string {
	return []string{"github.com/aws/...", "github.com/Azure/...", "github.com/hashicorp/...", "cloud.google.com/...", "k8s.io/...", "golang.org/x/oauth2/..."}
}

// The sidecar stays small: it links neither the server's storage nor what only
// the server needs of vendors.
func TestInjectorLinks(t *testing.T) {
	banned := append([]string{"modernc.org/...", "database/sql/...", module + "pkg/provider/...", module + "pkg/credential/..."}, vendorSDKs()...)
	links := dependencies(t, "./services/injector")
	if len(links) < 100 {
		t.Fatalf("the Go tool lists only %d packages", len(links))
	}
	for _, path := range links {
		if anyMatches(banned, path) {
			t.Errorf("the injector links %s", path)
		}
	}
	// The same question finds what is there.
	if server := dependencies(t, "./services/credstore"); !slices.ContainsFunc(server, func(path string) bool { return anyMatches(banned, path) }) {
		t.Error("the server links nothing of what the injector must not")
	}
}

func dependencies(t *testing.T, main string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", main)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// listed is what the Go tool says of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./pkg/...", "./services/...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var out []listed
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

func matches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "..."); ok {
		return path == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(path, prefix)
	}
	return path == pattern
}

func anyMatches(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}

// violations lists the imports that an arrow bans.
func (a arrow) violations(packages []listed) []string {
	var out []string
	for _, p := range packages {
		if !anyMatches(a.from, strings.TrimPrefix(p.ImportPath, module)) {
			continue
		}
		for _, i := range p.Imports {
			if anyMatches(a.banned, i) && !anyMatches(a.except, i) {
				out = append(out, strings.TrimPrefix(p.ImportPath, module)+" imports "+strings.TrimPrefix(i, module)+": "+a.reason)
			}
		}
	}
	return out
}

func TestArrows(t *testing.T) {
	packages := list(t)
	if len(packages) < 20 {
		t.Fatalf("the Go tool lists only %d packages", len(packages))
	}
	for _, a := range arrows() {
		used := false
		for _, p := range packages {
			used = used || anyMatches(a.from, strings.TrimPrefix(p.ImportPath, module))
		}
		if !used {
			t.Errorf("the arrow from %v is of no package", a.from)
		}
		for _, v := range a.violations(packages) {
			t.Error(v)
		}
	}
}

// The rules refuse what they are there for.
func TestArrowsRefuse(t *testing.T) {
	for _, bad := range []listed{
		{module + internal + "core", []string{"google.golang.org/grpc"}},
		{module + internal + "core", []string{"database/sql"}},
		{module + internal + "core", []string{module + internal + "grpcapi"}},
		{module + internal + "core", []string{module + "gen/go/credstore/v1"}},
		{module + internal + "grpcapi", []string{module + internal + "gateway"}},
		{module + internal + "broker", []string{module + "pkg/provider/vault"}},
		{module + internal + "storage/sqlite", []string{module + internal + "app"}},
		{module + internal + "schedule", []string{module + internal + "core"}},
		{module + internal + "jsoncheck", []string{module + "gen/go/credstore/v1"}},
		{module + "pkg/inject", []string{"google.golang.org/grpc"}},
		{module + "pkg/client", []string{module + "services/credstore/internal/core"}},
		{module + "services/injector", []string{module + "services/credstore/internal/core"}},
		{module + "pkg/provider", []string{module + "pkg/provider/vault"}},
	} {
		found := 0
		for _, a := range arrows() {
			found += len(a.violations([]listed{bad}))
		}
		if found == 0 {
			t.Errorf("%s may import %s", bad.ImportPath, bad.Imports[0])
		}
	}
}

package docs

import (
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

const root = ".."

// documents returns the text of every document, by its path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(root + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".md") {
			names = append(names, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string, len(names))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[path.Clean("docs/"+filepath.ToSlash(name))] = string(b)
	}
	if len(all) < 20 {
		t.Fatalf("only %d documents were found", len(all))
	}
	return all
}

// sources calls f for every Go file that is no generated one.
func sources(t *testing.T, f func(name string, file *ast.File, set *token.FileSet)) {
	t.Helper()
	set := token.NewFileSet()
	for _, dir := range []string{"pkg", "services", "tools", "test", "docs"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(p, ".go") || strings.Contains(p, "node_modules") {
				return err
			}
			file, err := parser.ParseFile(set, p, nil, parser.SkipObjectResolution)
			if err == nil {
				f(filepath.ToSlash(p[len(root)+1:]), file, set)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

var (
	link     = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	codeSpan = regexp.MustCompile("`[^`\n]*`")
)

func TestLinksLeadToFiles(t *testing.T) {
	found := 0
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(text, "code"), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			if _, err := os.Stat(filepath.Join(root, path.Dir(name), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d links were found", found)
	}
}

// inTree finds paths of this repository that a document names in code style.
var inTree = regexp.MustCompile("`((?:services|pkg|proto|test|tools|docs|gen)/[-\\w./*<>]+)`")

func TestNamedFilesExist(t *testing.T) {
	for name, text := range documents(t) {
		for _, m := range inTree.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "<") {
				continue // stands for what somebody adds
			}
			if found, err := filepath.Glob(filepath.Join(root, m[1])); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	}
}

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")

func TestNamedTestsExist(t *testing.T) {
	have := make(map[string]bool)
	sources(t, func(name string, file *ast.File, _ *token.FileSet) {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasSuffix(name, "_test.go") {
				have[f.Name.Name] = true
			}
		}
	})
	found := 0
	for name, text := range documents(t) {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			found++
			if !have[m[1]] {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d tests are named", found)
	}
}

var reasonForm = regexp.MustCompile("`([A-Z][A-Z0-9_]+)`")

// TestReasons holds that errors.md has every reason that the server gives, and
// no other.
func TestReasons(t *testing.T) {
	have := make(map[string]bool)
	add := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				have[s] = true
			}
		}
	}
	isReason := func(name string) bool { return strings.HasPrefix(strings.ToLower(name), "reason") }
	sources(t, func(name string, file *ast.File, _ *token.FileSet) {
		if !strings.HasPrefix(name, "services/credstore/") || strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, id := range n.Names {
					if isReason(id.Name) && i < len(n.Values) {
						add(n.Values[i])
					}
				}
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok && isReason(id.Name) {
					add(n.Value)
				}
			}
			return true
		})
	})
	written := make(map[string]bool)
	for line := range strings.SplitSeq(documents(t)["docs/errors.md"], "\n") {
		if strings.HasPrefix(line, "|") {
			if m := reasonForm.FindStringSubmatch(line); m != nil {
				written[m[1]] = true
			}
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(written))); d != "" || len(have) < 30 {
		t.Errorf("reasons in the code (-) and in errors.md (+):\n%s", d)
	}
}

var constant = regexp.MustCompile("`(\\w+) = ([^`]+)`")

// TestLimits holds that limits.md quotes constants as they are.
func TestLimits(t *testing.T) {
	have := make(map[string]bool)
	sources(t, func(name string, file *ast.File, set *token.FileSet) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != len(spec.Values) {
				return true
			}
			for i, id := range spec.Names {
				var b strings.Builder
				if err := printer.Fprint(&b, set, spec.Values[i]); err != nil {
					t.Fatal(err)
				}
				have[id.Name+" = "+b.String()] = true
			}
			return true
		})
	})
	quoted := constant.FindAllStringSubmatch(documents(t)["docs/limits.md"], -1)
	if len(quoted) < 25 {
		t.Errorf("only %d constants are quoted", len(quoted))
	}
	for _, m := range quoted {
		if !have[m[1]+" = "+m[2]] {
			t.Errorf("no constant %s = %s is in the code", m[1], m[2])
		}
	}
}

// TestKinds holds that every kind has a page, and that its example is a payload
// of that kind.
func TestKinds(t *testing.T) {
	all := documents(t)
	block := regexp.MustCompile("(?s)```json\n(.*?)```")
	for _, kind := range credential.Kinds() {
		text, ok := all["docs/kinds/"+string(kind)+".md"]
		m := block.FindStringSubmatch(text)
		if !ok || m == nil {
			t.Errorf("docs/kinds/%s.md is missing, or has no example", kind)
			continue
		}
		message := &credentialv1.Payload{}
		if err := protojson.Unmarshal([]byte(m[1]), message); err != nil {
			t.Errorf("example of %s: %v", kind, err)
			continue
		}
		p, err := credential.NewPayload(message)
		if err != nil || p.Kind() != kind {
			t.Errorf("example of %s is of kind %q: %v", kind, p.Kind(), err)
		}
		for fact := range p.Facts() {
			if !strings.Contains(text, "`"+fact+"`") {
				t.Errorf("docs/kinds/%s.md does not name the fact %s", kind, fact)
			}
		}
	}
}

// TestDecisionsAreListed holds that every decision is in the list, with a title
// and the four parts.
func TestDecisionsAreListed(t *testing.T) {
	all := documents(t)
	list := all["docs/decisions/README.md"]
	for name, text := range all {
		file, ok := strings.CutPrefix(name, "docs/decisions/")
		if !ok || file == "README.md" {
			continue
		}
		if !strings.Contains(list, "]("+file+")") {
			t.Errorf("%s is not in the list", name)
		}
		for _, part := range []string{"## Context", "## Decision", "## Consequences", "## Rejected"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q", name, part)
			}
		}
		if number, _, _ := strings.Cut(file, "-"); !strings.HasPrefix(text, "# "+strings.TrimLeft(number, "0")+". ") {
			t.Errorf("%s: the title does not begin with its number", name)
		}
	}
}

// TestExample holds that the Go of the documents is that of example_test.go,
// which compiles.
func TestExample(t *testing.T) {
	b, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := documents(t)
	for _, name := range []string{"docs/watch.md", "docs/adapters.md"} {
		m := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(all[name])
		if m == nil {
			t.Errorf("%s has no Go", name)
			continue
		}
		var indented []string
		for line := range strings.Lines(m[1]) {
			if line = strings.TrimSuffix(line, "\n"); line != "" {
				line = "\t" + line
			}
			indented = append(indented, line)
		}
		if !strings.Contains(string(b), strings.Join(indented, "\n")) {
			t.Errorf("the Go of %s is not in example_test.go", name)
		}
	}
}

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// secretsFile has a message for every way to carry secret material, and some
// that carry none.
const secretsFile = `
name: "secrets.proto" package: "test.v1" syntax: "proto3"
options { go_package: "example.com/test/v1;testv1" }
message_type {
  name: "Direct"
  field { name: "password" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL options { debug_redact: true } }
}
message_type {
  name: "Public"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL options { debug_redact: false } }
  field { name: "format" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type {
  name: "Outer"
  nested_type {
    name: "Inner"
    field { name: "direct" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.Direct" label: LABEL_REPEATED }
  }
}
message_type {
  name: "OfMap"
  nested_type {
    name: "MEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".test.v1.Direct" label: LABEL_OPTIONAL }
  }
  field { name: "m" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.OfMap.MEntry" label: LABEL_REPEATED }
}
message_type {
  name: "Chosen"
  field { name: "token" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL oneof_index: 0 options { debug_redact: true } }
  field { name: "public" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "maybe" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 1 proto3_optional: true options { debug_redact: true } }
  oneof_decl { name: "kind" }
  oneof_decl { name: "_maybe" }
}
message_type {
  name: "Ping"
  field { name: "pong" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.Pong" label: LABEL_OPTIONAL }
}
message_type {
  name: "Pong"
  field { name: "ping" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.Ping" label: LABEL_OPTIONAL }
  field { name: "direct" number: 2 type: TYPE_MESSAGE type_name: ".test.v1.Direct" label: LABEL_OPTIONAL }
}
message_type {
  name: "Endless"
  field { name: "endless" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.Endless" label: LABEL_OPTIONAL }
}
`

// importingFile carries what another file defines, and openFile nothing.
const (
	importingFile = `
name: "importing.proto" package: "test.v1" syntax: "proto3" dependency: "secrets.proto"
options { go_package: "example.com/test/v1;testv1" }
message_type {
  name: "Importing"
  field { name: "direct" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.Direct" label: LABEL_OPTIONAL }
}
`
	openFile = `
name: "open.proto" package: "test.v1" syntax: "proto3" dependency: "secrets.proto"
options { go_package: "example.com/test/v1;testv1" }
message_type {
  name: "Open"
  field { name: "public" number: 1 type: TYPE_MESSAGE type_name: ".test.v1.Public" label: LABEL_OPTIONAL }
}
`
)

// run generates the last of the files, and returns the contents by name.
func run(t *testing.T, generate func(*protogen.Plugin) error, files ...string) (map[string]string, error) {
	t.Helper()
	request := &pluginpb.CodeGeneratorRequest{Parameter: new("paths=source_relative")}
	for _, text := range files {
		file := &descriptorpb.FileDescriptorProto{}
		if err := prototext.Unmarshal([]byte(text), file); err != nil {
			t.Fatal(err)
		}
		request.ProtoFile = append(request.ProtoFile, file)
		request.FileToGenerate = []string{file.GetName()}
	}
	gen, err := protogen.Options{}.New(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := generate(gen); err != nil {
		return nil, err
	}
	response := gen.Response()
	if response.Error != nil {
		t.Fatal(response.GetError())
	}
	contents := map[string]string{}
	for _, file := range response.GetFile() {
		if _, ok := contents[file.GetName()]; ok {
			t.Errorf("%s is generated twice", file.GetName())
		}
		contents[file.GetName()] = file.GetContent()
	}
	return contents, nil
}

// methods returns the names of a Go file's methods by type.
func methods(t *testing.T, content string) map[string][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "generated.go", content, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Recv == nil {
			continue
		}
		pointer, ok := function.Recv.List[0].Type.(*ast.StarExpr)
		if !ok {
			t.Fatalf("%s has no pointer receiver", function.Name)
		}
		receiver, ok := pointer.X.(*ast.Ident)
		if !ok {
			t.Fatalf("%s has no plain receiver", function.Name)
		}
		found[receiver.Name] = append(found[receiver.Name], function.Name.Name)
	}
	return found
}

func TestGenerate(t *testing.T) {
	contents, err := run(t, generate, secretsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"secrets.pb.go", "secrets_redact.pb.go"}, slices.Sorted(maps.Keys(contents))); diff != "" {
		t.Fatalf("files (-want +got)\n%s", diff)
	}
	message := []string{"Format", "GoString", "LogValue", "MarshalJSON"}
	want := map[string][]string{
		"Direct": message, "Outer_Inner": message, "OfMap": message, "Chosen": message, "Ping": message, "Pong": message,
		"Chosen_Token": append([]string{"String"}, message...),
	}
	if diff := cmp.Diff(want, methods(t, contents["secrets_redact.pb.go"])); diff != "" {
		t.Errorf("methods (-want +got)\n%s", diff)
	}
	for name, redacted := range map[string]bool{
		"Direct": true, "Outer_Inner": true, "OfMap": true, "Chosen": true, "Ping": true, "Pong": true,
		"Public": false, "Outer": false, "Endless": false,
	} {
		body := `return "test.v1.` + strings.ReplaceAll(name, "_", ".") + `(redacted)"`
		if !redacted {
			body = "return protoimpl.X.MessageStringOf(x)"
		}
		method := "func (x *" + name + ") String() string {\n\t" + body + "\n}\n"
		if !strings.Contains(contents["secrets.pb.go"], method) {
			t.Errorf("missing in secrets.pb.go:\n%s", method)
		}
	}
	if want := `func (x *Chosen_Token) String() string { return "test.v1.Chosen.token(redacted)" }`; !strings.Contains(contents["secrets_redact.pb.go"], want) {
		t.Errorf("missing in secrets_redact.pb.go:\n%s", want)
	}
}

// TestGenerateChangesNothingElse undoes the rewriting, and compares with what
// protoc-gen-go itself generates.
func TestGenerateChangesNothingElse(t *testing.T) {
	original, err := run(t, func(gen *protogen.Plugin) error {
		for _, file := range gen.Files {
			if file.Generate {
				internal_gengo.GenerateFile(gen, file)
			}
		}
		return nil
	}, secretsFile)
	if err != nil {
		t.Fatal(err)
	}
	contents, err := run(t, generate, secretsFile)
	if err != nil {
		t.Fatal(err)
	}
	undone := contents["secrets.pb.go"]
	for _, name := range []string{"Direct", "Outer.Inner", "OfMap", "Chosen", "Ping", "Pong"} {
		undone = strings.ReplaceAll(undone, `return "test.v1.`+name+`(redacted)"`, "return protoimpl.X.MessageStringOf(x)")
	}
	if diff := cmp.Diff(original["secrets.pb.go"], undone); diff != "" {
		t.Errorf("(-protoc-gen-go +undone)\n%s", diff)
	}
}

func TestGenerateLooksIntoImports(t *testing.T) {
	contents, err := run(t, generate, secretsFile, importingFile)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(contents["importing.pb.go"], `return "test.v1.Importing(redacted)"`) {
		t.Error("String prints a message of another file")
	}
	if _, ok := methods(t, contents["importing_redact.pb.go"])["Importing"]; !ok {
		t.Error("Importing has no methods that redact")
	}
}

func TestGenerateLeavesOtherFiles(t *testing.T) {
	contents, err := run(t, generate, secretsFile, openFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"open.pb.go"}, slices.Sorted(maps.Keys(contents))); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
}

func TestGenerateRefuses(t *testing.T) {
	const head = `name: "x.proto" package: "test.v1" options { go_package: "example.com/test/v1;testv1" `
	for name, test := range map[string]struct{ file, want string }{
		"field in a method's place": {
			head + `} syntax: "proto3" message_type {
			  name: "M"
			  field { name: "secret" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL options { debug_redact: true } }
			  field { name: "log_value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
			}`,
			"x.proto: test.v1.M: a field whose name in Go is LogValue takes the place of the method that redacts; rename it",
		},
		"opaque API": {
			head + `features { [pb.go] { api_level: API_OPAQUE } } } syntax: "editions" edition: EDITION_2023 message_type {
			  name: "M"
			  field { name: "secret" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL options { debug_redact: true } }
			}`,
			"x.proto: messages with secret material must use the open API of protobuf for Go",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, generate, test.file)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestRewriteStringRefusesUnknownForm(t *testing.T) {
	direct := target{goName: "Direct", name: "test.v1.Direct", message: true}
	if _, err := direct.rewriteString([]byte("package testv1\n")); err == nil {
		t.Error("a file without the method is accepted")
	}
}

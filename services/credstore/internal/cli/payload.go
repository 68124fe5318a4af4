package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// maxInput bounds what is read for one payload: more than the server takes, so
// that it is the server that says what is too much.
const maxInput = 1 << 20

// payloadFlags are how a payload is given: whole, or field by field. Secret
// fields come from a file, standard input or a prompt, never from an argument,
// where every user of the machine could read them.
type payloadFlags struct {
	file    string
	kind    string
	set     []string
	secrets []string
	// name completes the id of another credential; nil leaves it as it is.
	name func(id string) string
}

const payloadHelp = `The payload is given whole, as JSON:
  --payload FILE            {"basic": {"username": "bot", "password": "…"}}; - reads standard input
or field by field:
  --kind basic --set username=bot --secret password
Each --secret takes its value from a prompt, from a file (password=@FILE), or
from standard input (password=-); it is never part of the command line.`

func (p *payloadFlags) given() bool {
	return p.file != "" || p.kind != "" || len(p.set) > 0 || len(p.secrets) > 0
}

// read returns the payload that the flags describe.
func (p *payloadFlags) read(s Streams) (*credentialv1.Payload, error) {
	if p.file != "" {
		if p.kind != "" || len(p.set) > 0 || len(p.secrets) > 0 {
			return nil, usageError{errors.New("--payload is the whole payload: leave out --kind, --set and --secret")}
		}
		b, err := readInput(s, "--payload", p.file)
		if err != nil {
			return nil, err
		}
		defer clear(b)
		m := &credentialv1.Payload{}
		if err := decode("--payload", b, m); err != nil {
			return nil, fmt.Errorf(`%w
it is the JSON of one kind, as {"basic": {"username": "bot", "password": "…"}}; docs/kinds has each`, err)
		}
		return m, nil
	}
	if p.kind == "" {
		return nil, usageError{errors.New("a payload is needed: --payload FILE, or --kind with --set and --secret")}
	}
	m := &credentialv1.Payload{}
	kind := m.ProtoReflect().Descriptor().Fields().ByJSONName(p.kind)
	if kind == nil {
		var names []string
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			names = append(names, fields.Get(i).JSONName())
		}
		return nil, usageError{fmt.Errorf("--kind is one of %s", strings.Join(names, ", "))}
	}
	if err := onlyOneReads(p.secrets); err != nil {
		return nil, err
	}
	doc := map[string]any{}
	into := fields{kind: kind, name: p.name}
	for _, a := range p.set {
		path, value, ok := strings.Cut(a, "=")
		if !ok {
			return nil, usageError{errors.New("--set takes FIELD=VALUE")}
		}
		if err := into.put(doc, kind.Message(), path, given{[]byte(value), "--set " + path, false}); err != nil {
			return nil, err
		}
	}
	for _, a := range p.secrets {
		path, from, ok := strings.Cut(a, "=")
		value, err := readSecret(s, path, from, ok)
		if err != nil {
			return nil, err
		}
		if head, _, _ := strings.Cut(path, "."); !isVerbatim(kind.Message(), head) {
			// Of a document every byte counts; of a password the newline that
			// editors and echo put at the end does not.
			value = trimNewline(value)
		}
		if err := into.put(doc, kind.Message(), path, given{value, "--secret " + path, true}); err != nil {
			return nil, err
		}
		clear(value)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return m, decode("kind "+p.kind, b, m.ProtoReflect().Mutable(kind).Message().Interface())
}

// onlyOneReads refuses two secrets from standard input, where the first would
// take all that there is.
func onlyOneReads(secrets []string) error {
	reader := ""
	for _, a := range secrets {
		path, from, _ := strings.Cut(a, "=")
		switch {
		case from != "-":
		case reader != "":
			return usageError{fmt.Errorf("--secret %s and --secret %s both read standard input: give one by @FILE", reader, path)}
		default:
			reader = path
		}
	}
	return nil
}

// given is the value of a field.
type given struct {
	value  []byte
	flag   string // with the field's path
	secret bool   // it came from where secrets may come from
}

// fields puts values into the fields of a kind.
type fields struct {
	kind protoreflect.FieldDescriptor
	name func(id string) string
}

// put sets a field by its JSON path, once, and refuses a secret on the command
// line.
func (k fields) put(doc map[string]any, d protoreflect.MessageDescriptor, path string, g given) error {
	head, rest, nested := strings.Cut(path, ".")
	f := d.Fields().ByJSONName(head)
	if f == nil {
		var names []string
		for i := range d.Fields().Len() {
			names = append(names, d.Fields().Get(i).JSONName())
		}
		return usageError{fmt.Errorf("there is no field %q here; there is %s", head, strings.Join(names, ", "))}
	}
	o, _ := f.Options().(*descriptorpb.FieldOptions)
	if o.GetDebugRedact() && !g.secret {
		return usageError{fmt.Errorf("%q is secret: give it by --secret %s, from a prompt, a file or standard input", head, path)}
	}
	inside := func() map[string]any {
		m, _ := doc[head].(map[string]any)
		if m == nil {
			m = map[string]any{}
			doc[head] = m
		}
		return m
	}
	switch {
	case f.IsMap() && nested:
		return k.one(inside(), rest, f.MapValue(), g)
	case f.Kind() == protoreflect.MessageKind && nested && !f.IsMap():
		return k.put(inside(), f.Message(), rest, g)
	case nested:
		return usageError{fmt.Errorf("%q has no fields inside", head)}
	case f.IsMap(), f.Kind() == protoreflect.MessageKind && !jsoncheck.IsText(f.Message()):
		return usageError{fmt.Errorf("%q has fields inside: name one, as %s.NAME", head, head)}
	}
	return k.one(doc, head, f, g)
}

// one sets what has nothing inside.
func (k fields) one(doc map[string]any, at string, f protoreflect.FieldDescriptor, g given) error {
	before, set := doc[at]
	if set && !f.IsList() {
		// The last would count, and what else was meant be lost.
		return usageError{fmt.Errorf("%s: the field is given twice", g.flag)}
	}
	if f.Kind() == protoreflect.BytesKind {
		doc[at] = base64.StdEncoding.EncodeToString(g.value)
		return nil
	}
	if !utf8.Valid(g.value) {
		// JSON would put another character in the place of each bad byte.
		return fmt.Errorf("%s must be text in UTF-8 and is not; %s", g.flag, either(k.adviceFor(f, g.value), "kind opaque keeps any bytes"))
	}
	text := string(g.value)
	if want := jsoncheck.Text(f, text); want != "" {
		return usageError{fmt.Errorf("%s must be %s", g.flag, want)}
	}
	switch {
	case f.IsList():
		list, _ := before.([]any)
		doc[at] = append(list, text)
	case k.name != nil && isReference(f) && text != "":
		doc[at] = k.name(text)
	default:
		doc[at] = text
	}
	return nil
}

// adviceFor is what the kind says of a file that is no text, in the form that it
// has when it is pasted: "it is a PFX (PKCS#12) file: convert it with …".
func (k fields) adviceFor(f protoreflect.FieldDescriptor, value []byte) string {
	if f.ContainingMessage() != k.kind.Message() {
		return ""
	}
	m := &credentialv1.Payload{}
	inner := m.ProtoReflect().Mutable(k.kind).Message()
	inner.Set(f, protoreflect.ValueOfString(base64.StdEncoding.EncodeToString(value)))
	_, err := credential.NewPayload(m)
	invalid, ok := errors.AsType[*credential.ValidationError](err)
	if !ok {
		return ""
	}
	for _, v := range invalid.Violations {
		// Other violations are of what is not base64 and not given.
		if _, advice, ok := strings.Cut(v.Description, "; it is a "); ok && strings.HasSuffix(v.Field, "."+f.JSONName()) {
			return "it is a " + advice
		}
	}
	return ""
}

// isReference finds the fields that name another credential.
func isReference(f protoreflect.FieldDescriptor) bool {
	return f.Kind() == protoreflect.StringKind && (f.Name() == "source" || f.Name() == "token_source")
}

// readSecret gets one value from where the flag says.
func readSecret(s Streams, path, from string, valued bool) ([]byte, error) {
	switch {
	case !valued:
		return prompt(s, path)
	case from == "-":
		return readInput(s, "--secret "+path, "-")
	case strings.HasPrefix(from, "@"):
		return readInput(s, "--secret "+path, from[1:])
	}
	return nil, usageError{fmt.Errorf("--secret %s takes @FILE or -, or no value to be asked for it: a value on the command line could be read by others", path)}
}

// isVerbatim says whether every byte of a field counts.
func isVerbatim(d protoreflect.MessageDescriptor, field string) bool {
	f := d.Fields().ByJSONName(field)
	return f != nil && (f.IsMap() || f.Kind() == protoreflect.BytesKind)
}

// trimNewline takes off the one that editors and echo put at the end.
func trimNewline(b []byte) []byte {
	return []byte(strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"))
}

func prompt(s Streams, what string) ([]byte, error) {
	f, ok := s.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, usageError{fmt.Errorf("standard input is no terminal to ask for %s at: use --secret %s=- or %s=@FILE", what, what, what)}
	}
	_, _ = fmt.Fprintf(s.Err, "%s: ", what)
	b, err := term.ReadPassword(int(f.Fd()))
	_, _ = fmt.Fprintln(s.Err)
	return b, err
}

// secretFile is a file that only its owner reads. What was there before stays
// until the new content is whole.
type secretFile struct {
	path string
	f    *os.File
}

// newSecretFile finds out whether the file can be written.
func newSecretFile(path string) (*secretFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, fileError("--out-file", path, err)
	}
	return &secretFile{path: path, f: f}, nil
}

// keep puts the file with its content in place.
func (s *secretFile) keep(content []byte) error {
	_, err := s.f.Write(content)
	if err := errors.Join(err, s.f.Close()); err != nil {
		return err
	}
	return os.Rename(s.f.Name(), s.path)
}

// discard removes what was not kept; after keep it does nothing.
func (s *secretFile) discard() {
	_ = s.f.Close()
	_ = os.Remove(s.f.Name())
}

// writeSecret writes a file that only its owner reads, also where there was one
// that others could read.
func writeSecret(path string, content []byte) error {
	s, err := newSecretFile(path)
	if err != nil {
		return err
	}
	defer s.discard()
	return s.keep(content)
}

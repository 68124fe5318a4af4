package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
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
		b, err := readInput(s, p.file)
		if err != nil {
			return nil, err
		}
		defer clear(b)
		m := &credentialv1.Payload{}
		if err := protojson.Unmarshal(b, m); err != nil {
			return nil, errors.New(`the payload is not the JSON of one kind, as {"basic": {"username": "bot", "password": "…"}}; the server's docs/kinds has each`)
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
	doc := map[string]any{}
	for _, a := range p.set {
		path, value, ok := strings.Cut(a, "=")
		if !ok {
			return nil, usageError{errors.New("--set takes FIELD=VALUE")}
		}
		if err := put(doc, kind.Message(), path, []byte(value), false); err != nil {
			return nil, err
		}
	}
	for _, a := range p.secrets {
		path, from, given := strings.Cut(a, "=")
		value, err := readSecret(s, path, from, given)
		if err != nil {
			return nil, err
		}
		if head, _, _ := strings.Cut(path, "."); !isVerbatim(kind.Message(), head) {
			// Of a document every byte counts; of a password the newline that
			// editors and echo put at the end does not.
			value = trimNewline(value)
		}
		if err := put(doc, kind.Message(), path, value, true); err != nil {
			return nil, err
		}
		clear(value)
	}
	b, err := json.Marshal(map[string]any{p.kind: doc})
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if err := protojson.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("the fields given do not fit kind %s", p.kind)
	}
	return m, nil
}

// put sets a field by its JSON path and refuses a secret on the command line.
func put(doc map[string]any, d protoreflect.MessageDescriptor, path string, value []byte, secret bool) error {
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
	isSecret := o.GetDebugRedact()
	if isSecret && !secret {
		return usageError{fmt.Errorf("%q is secret: give it by --secret %s, from a prompt, a file or standard input", head, path)}
	}
	switch {
	case f.IsMap() && nested:
		m, _ := doc[head].(map[string]any)
		if m == nil {
			m = map[string]any{}
			doc[head] = m
		}
		m[rest] = string(value)
		if f.MapValue().Kind() == protoreflect.BytesKind {
			m[rest] = base64.StdEncoding.EncodeToString(value)
		}
	case f.Kind() == protoreflect.MessageKind && nested && !f.IsMap():
		m, _ := doc[head].(map[string]any)
		if m == nil {
			m = map[string]any{}
			doc[head] = m
		}
		return put(m, f.Message(), rest, value, secret)
	case nested:
		return usageError{fmt.Errorf("%q has no fields inside", head)}
	case f.Kind() == protoreflect.BytesKind:
		doc[head] = base64.StdEncoding.EncodeToString(value)
	case isDuration(f) && utf8.Valid(value):
		doc[head] = string(value)
	case f.IsMap(), f.Kind() == protoreflect.MessageKind:
		return usageError{fmt.Errorf("%q has fields inside: name one, as %s.NAME", head, head)}
	case !utf8.Valid(value):
		// JSON would put another character in the place of each bad byte.
		return fmt.Errorf("%q must be text in UTF-8 and is not; kind opaque keeps any bytes", head)
	case f.IsList():
		list, _ := doc[head].([]any)
		doc[head] = append(list, string(value))
	default:
		doc[head] = string(value)
	}
	return nil
}

// isDuration finds what JSON writes as "900s".
func isDuration(f protoreflect.FieldDescriptor) bool {
	return f.Kind() == protoreflect.MessageKind && !f.IsMap() && f.Message().FullName() == "google.protobuf.Duration"
}

// readSecret gets one value from where the flag says.
func readSecret(s Streams, path, from string, given bool) ([]byte, error) {
	switch {
	case !given:
		return prompt(s, path)
	case from == "-":
		return readInput(s, "-")
	case strings.HasPrefix(from, "@"):
		return readInput(s, from[1:])
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

// readInput reads a file, or standard input for "-".
func readInput(s Streams, name string) ([]byte, error) {
	in := s.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxInput {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxInput)
	}
	return b, nil
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
		return nil, err
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

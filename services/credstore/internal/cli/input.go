package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// readInput reads a file, or standard input for "-". flag is what named it.
func readInput(s Streams, flag, name string) ([]byte, error) {
	in := s.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fileError(flag, name, err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, fileError(flag, name, err)
	}
	if len(b) > maxInput {
		return nil, fmt.Errorf("%s: %s is larger than %d bytes", flag, name, maxInput)
	}
	return b, nil
}

// readFile reads a file that may not be standard input.
func readFile(flag, name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fileError(flag, name, err)
	}
	return b, nil
}

// fileError says which flag names a file that cannot be had. What stands in the
// place of the name may be the secret itself, which errors end in logs.
func fileError(flag, name string, err error) error {
	switch {
	case name == "":
		return usageError{fmt.Errorf("%s: the name of the file is missing", flag)}
	case client.MayBeSecret(name), errors.Is(err, syscall.ENAMETOOLONG):
		return usageError{fmt.Errorf("%s takes the name of a file%s, and not what is in it: others could read it from the command line", flag, orStandardInput(flag))}
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err // it names a temporary file where one is made
	}
	return fmt.Errorf("%s: %s: %w", flag, name, err)
}

// orStandardInput is for the flags that read it.
func orStandardInput(flag string) string {
	if flag == "--payload" || flag == "--file" || strings.HasPrefix(flag, "--secret ") {
		return ` or "-"`
	}
	return ""
}

// decode reads JSON as a message. Its error begins with what, and names the
// fields that do not fit, and no values.
func decode(what string, b []byte, m proto.Message) error {
	if protojson.Unmarshal(b, m) == nil {
		return nil
	}
	found, err := jsoncheck.Check(b, m.ProtoReflect().Descriptor(), nil)
	if err != nil {
		return fmt.Errorf("%s %w", what, err)
	}
	var text strings.Builder
	for _, v := range found {
		if v.Field == "" {
			return fmt.Errorf("%s %s", what, v.Description)
		}
		_, _ = fmt.Fprintf(&text, "\n  %s: %s", v.Field, v.Description)
	}
	return fmt.Errorf("%s does not fit:%s", what, text.String())
}

// Command protoc-gen-redact owns the generated Go code of messages: it does what
// protoc-gen-go does, and makes every message that carries secret material print
// as its name alone. It does not generate services.
//
// A message carries secret material when it, or a message that it can hold, has
// a field with option debug_redact. Of such a message String is rewritten, and
// Format, GoString, LogValue and MarshalJSON are added in FILE_redact.pb.go, so
// that fmt, log/slog and encoding/json show "credential.v1.Basic(redacted)".
// The same holds for the wrappers of oneof fields with that option.
//
// Not covered is what asks no method of the message: protojson, which REST needs,
// and prototext; a message copied by value and %w for a message, which go vet
// refuses; a pointer in an unexported field of a struct printed with a verb that
// is not for structs, as %s; a message inside a google.protobuf.Any.
package main

import "google.golang.org/protobuf/compiler/protogen"

func main() {
	protogen.Options{}.Run(generate)
}

package grpcapi

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// maxPaths is more than any resource has fields.
const maxPaths = 64

// fieldSet holds fields by their names in the proto.
type fieldSet map[protoreflect.Name]bool

// maskFields returns the fields that an update changes. An absent or empty mask
// means the updatable fields that the resource has set, "*" means all updatable
// ones, set or not. Paths may be spelt as in the proto or as in JSON. The second
// result says what is wrong with the mask, "" when nothing is.
func maskFields(mask *fieldmaskpb.FieldMask, resource proto.Message, updatable ...protoreflect.Name) (fieldSet, string) {
	fields := make(fieldSet)
	m := resource.ProtoReflect()
	if len(mask.GetPaths()) == 0 {
		for _, name := range updatable {
			if m.Has(m.Descriptor().Fields().ByName(name)) {
				fields[name] = true
			}
		}
		return fields, ""
	}
	if len(mask.GetPaths()) > maxPaths {
		return nil, "names too many fields" + choices(m.Descriptor(), updatable)
	}
	for _, path := range mask.GetPaths() {
		if path == "*" {
			if len(mask.GetPaths()) > 1 {
				return nil, `must not name other fields beside "*"`
			}
			for _, name := range updatable {
				fields[name] = true
			}
			return fields, ""
		}
		first, _, nested := strings.Cut(path, ".")
		f := m.Descriptor().Fields().ByName(protoreflect.Name(first))
		if f == nil {
			f = m.Descriptor().Fields().ByJSONName(first)
		}
		switch {
		case f == nil:
			return nil, unknownField(first, m.Descriptor(), updatable)
		case !slices.Contains(updatable, f.Name()):
			return nil, "names " + f.JSONName() + ", which cannot be updated" + choices(m.Descriptor(), updatable)
		case nested:
			return nil, "names a part of " + f.JSONName() + ", which is replaced as a whole" + choices(m.Descriptor(), updatable)
		}
		fields[f.Name()] = true
	}
	return fields, ""
}

// unknownField repeats what is close to a field's name. The rest may be something
// else in the wrong place, as a secret.
func unknownField(name string, d protoreflect.MessageDescriptor, updatable []protoreflect.Name) string {
	const wrong = "names an unknown field"
	if hint := jsoncheck.Suggest(name, jsonNames(d, updatable)); jsoncheck.ShowName(name) == name && strings.HasPrefix(hint, ": did you mean ") {
		return wrong + ", " + name + hint
	}
	return wrong + choices(d, updatable)
}

func choices(d protoreflect.MessageDescriptor, updatable []protoreflect.Name) string {
	return ": give some of " + strings.Join(jsonNames(d, updatable), ", ") + `, or "*" for all of them`
}

func jsonNames(d protoreflect.MessageDescriptor, fields []protoreflect.Name) []string {
	names := make([]string, 0, len(fields))
	for _, name := range fields {
		names = append(names, d.Fields().ByName(name).JSONName())
	}
	return names
}

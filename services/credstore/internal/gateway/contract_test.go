package gateway

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// TestContractIsCovered holds that no message reachable from a body has a field
// of a type that the checks do not know.
func TestContractIsCovered(t *testing.T) {
	table, err := routeTable(services())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[protoreflect.FullName]bool{}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if f.IsMap() {
				if f.MapKey().Kind() != protoreflect.StringKind {
					t.Errorf("%s: keys are no strings", f.FullName())
				}
				f = f.MapValue()
			}
			switch f.Kind() {
			case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.BoolKind, protoreflect.EnumKind,
				protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Int64Kind, protoreflect.Uint64Kind:
			case protoreflect.MessageKind:
				if jsoncheck.IsText(f.Message()) {
					continue
				}
				if f.Message().ParentFile().Package() == "google.protobuf" {
					t.Errorf("%s: %s has a JSON form of its own", f.FullName(), f.Message().FullName())
				}
				visit(f.Message())
			default:
				t.Errorf("%s: kind %s is not covered", f.FullName(), f.Kind())
			}
		}
	}
	for _, r := range table {
		if r.body != nil {
			visit(r.body)
		}
	}
	if !seen["credential.v1.Basic"] {
		t.Error("payloads were not visited")
	}
}

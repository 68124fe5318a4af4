package credential

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func TestTableEqualsPayload(t *testing.T) {
	type row struct {
		Kind    Kind
		Message protoreflect.FullName
	}
	var want, got []row
	for f := range sequence(oneof().Fields()) {
		want = append(want, row{Kind(f.JSONName()), f.Message().FullName()})
	}
	for _, d := range table {
		got = append(got, row{d.kind, d.message.FullName()})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table of kinds.go (-fields of Payload +table)\n%s", diff)
	}
	if len(Kinds()) != len(table) || Kinds()[0] != table[0].kind {
		t.Errorf("Kinds() = %v", Kinds())
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 65536: "65,536", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
}

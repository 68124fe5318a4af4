package credential_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// What a parser may allocate: a fixed part, for the tables of decoders and big
// numbers, and a multiple of what it was given. The multiple is that of YAML, whose
// parser makes a token, an event and a node, some hundred bytes each, of single
// characters. A search for the worst documents found 360 bytes beside the fixed
// part for each byte of a dockerRegistry's document, and 290 for one of a
// kubeconfig, whose nodes are limited: TestWorstDocumentsAreBounded has them.
const (
	allocFixed   = 2 << 20
	allocPerByte = 400
)

// hangs, in processor time where that is known, is far above what the slowest
// machine takes for the greatest document, which is parts of a second: only what
// grows faster than its input gets there.
const hangs = time.Minute

// bounded fails when parse allocates more than its input justifies, as a
// document that expands itself would make it, or hangs.
func bounded(t *testing.T, input int, parse func()) {
	t.Helper()
	before, began := allocated(), spent()
	parse()
	if took := spent() - began; took > hangs {
		t.Errorf("it took %s", took)
	}
	if got, most := allocated()-before, uint64(allocFixed+allocPerByte*input); got > most {
		t.Errorf("%d bytes were allocated for an input of %d bytes; at most %d", got, input, most)
	}
}

// allocated is how much was allocated so far, all of it: that stops the world. What
// runtime/metrics says lags behind by what small objects take until a processor's
// cache is full, so that a parser would be charged for what came before it.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// What is allocated is counted at once, so that it is not counted later.
func TestAllocatedDoesNotLag(t *testing.T) {
	for range 1000 {
		before := allocated()
		for range 10 {
			sink = new([24]byte)
		}
		if got := allocated() - before; got < 240 {
			t.Fatalf("%d bytes are counted where 240 were allocated", got)
		}
	}
}

var sink *[24]byte // keeps what is allocated on the heap

// The documents that cost most for their size, of those that were found.
func TestWorstDocumentsAreBounded(t *testing.T) {
	docker := func(document string) *credentialv1.Payload {
		return &credentialv1.Payload{Kind: &credentialv1.Payload_DockerRegistry{DockerRegistry: &credentialv1.DockerRegistry{Document: document}}}
	}
	for name, test := range map[string]struct {
		document string
		payload  func(string) *credentialv1.Payload
	}{
		"entries":          {"{" + strings.Repeat("-,", 9999), kubeconfigOf},
		"commented fields": {"{" + strings.Repeat("#\n#\na,", 3804), kubeconfigOf},
		"complex keys":     {"kind: Secret\n" + strings.Repeat("?\n- ", 40_491), docker},
	} {
		t.Run(name, func(t *testing.T) {
			m := test.payload(test.document)
			bounded(t, len(test.document), func() {
				if _, err := credential.NewPayload(m); err == nil {
					t.Error("it is accepted")
				}
			})
		})
	}
}

func kubeconfigOf(document string) *credentialv1.Payload { return kubeconfigPayload(document, "", "") }

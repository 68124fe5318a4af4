package credential_test

import (
	"runtime/metrics"
	"testing"
	"time"
)

// What a parser may allocate: a fixed part, for the tables of decoders and big
// numbers, and a multiple of what it was given.
const (
	allocFixed   = 2 << 20
	allocPerByte = 200
)

// hangs is far above what the slowest machine takes for the greatest document,
// which is parts of a second: only what grows faster than its input gets there.
const hangs = time.Minute

// bounded fails when parse allocates more than its input justifies, as a
// document that expands itself would make it, or hangs.
func bounded(t *testing.T, input int, parse func()) {
	t.Helper()
	before, began := allocated(), time.Now()
	parse()
	if took := time.Since(began); took > hangs {
		t.Errorf("it took %s", took)
	}
	if got, most := allocated()-before, uint64(allocFixed+allocPerByte*input); got > most {
		t.Errorf("%d bytes were allocated for an input of %d bytes; at most %d", got, input, most)
	}
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

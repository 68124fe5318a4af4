package fanout

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// state stands for the model beside the hub: the publisher applies an event
// here first and publishes it afterwards.
type state struct {
	mu       sync.Mutex
	revision uint64
	log      []refEvent
}

func (m *state) apply(e refEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, e)
	m.revision = e.revision
}

func (m *state) snapshot() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

// segment is what a reader got in one go: all revisions in (from, to], it says.
type segment struct {
	topics   []string
	from, to uint64
	got      []uint64
}

// TestSeam lets readers take the state's revision, subscribe from it, be
// overtaken, resume, change topics, leave and come back, all beside a running
// publisher, and then compares each stretch with the log. Run it with -race.
func TestSeam(t *testing.T) {
	var delivered, lagged atomic.Uint64
	t.Run("seeds", func(t *testing.T) {
		for seed := range uint64(12) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				d, l := seam(t, seed)
				delivered.Add(d)
				lagged.Add(l)
			})
		}
	})
	// How much depends on the scheduler; with nothing, nothing was shown.
	t.Logf("%d events were delivered and %d readers lagged", delivered.Load(), lagged.Load())
	if delivered.Load() == 0 {
		t.Error("no event was delivered")
	}
}

func seam(t *testing.T, seed uint64) (delivered, lagged uint64) {
	const events, readers = 3000, 12
	all := []string{"a", "b", "c", "d", "e"}
	h := New[uint64](Limits{Events: 32, Bytes: 400, Pending: 16}, 0)
	m := &state{}

	// told is written by before and read by the readers, who may only have
	// an event, unless it is replayed, once they have been told of.
	var toldMu sync.Mutex
	told := map[uint64][]string{}

	var wg sync.WaitGroup
	results := make([][]segment, readers)
	for i := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			id := fmt.Sprint("s", i)
			pick := func() []string { return all[:1+rng.IntN(len(all))] }
			now := segment{topics: pick(), from: m.snapshot()}
			yield(rng)
			s := h.Subscribe(id, now.from, now.topics...)
			begin := func(next segment) {
				results[i] = append(results[i], now)
				now = next
			}
			for {
				if rng.IntN(50) == 0 {
					yield(rng)
				}
				claimed := s.Reached()
				event, err := s.Next(t.Context())
				if err == nil && event.Revision <= claimed {
					t.Errorf("%s got %d after it had reached %d", id, event.Revision, claimed)
				}
				var lagged *LaggedError
				switch {
				case errors.As(err, &lagged):
					now.to = lagged.Reached
					at := max(m.snapshot(), lagged.Reached)
					begin(segment{topics: now.topics, from: at})
					yield(rng)
					s.Resume(at)
					continue
				case errors.Is(err, ErrClosed):
					now.to = s.Reached()
					begin(segment{})
					s.Close()
					return
				case err != nil:
					t.Error(err)
					return
				}
				if event.Value != event.Revision {
					t.Errorf("revision %d came with the value of %d", event.Revision, event.Value)
				}
				now.got = append(now.got, event.Revision)
				if !event.Replayed {
					toldMu.Lock()
					if !slices.Contains(told[event.Revision], id) {
						t.Errorf("%s got %d and before was not told", id, event.Revision)
					}
					toldMu.Unlock()
				}
				switch rng.IntN(60) {
				case 0: // other topics
					now.to = event.Revision
					at := m.snapshot()
					begin(segment{topics: pick(), from: at})
					yield(rng)
					s.SetTopics(at, now.topics...)
				case 1: // leave, come back and go on
					now.to = s.Reached()
					s.Close()
					begin(segment{topics: now.topics, from: now.to})
					yield(rng)
					s = h.Subscribe(id, now.from, now.topics...)
				}
			}
		})
	}

	rng := rand.New(rand.NewPCG(seed, 1<<32))
	last := uint64(0)
	for range events {
		e := refEvent{revision: last + 1 + rng.Uint64N(2), size: rng.Int64N(30)}
		for range 1 + rng.IntN(2) {
			e.topics = append(e.topics, all[rng.IntN(len(all))])
		}
		m.apply(e)
		if rng.IntN(8) == 0 {
			yield(rng)
		}
		err := h.Publish(e.revision, e.topics, int(e.size), e.revision, func(ids []string) error {
			toldMu.Lock()
			defer toldMu.Unlock()
			told[e.revision] = slices.Clone(ids)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		last = e.revision
	}
	h.Close()
	wg.Wait()

	for i, segments := range results {
		for n, seg := range segments {
			var want []uint64
			for _, e := range m.log {
				if e.revision > seg.from && e.revision <= seg.to && e.on(seg.topics) {
					want = append(want, e.revision)
				}
			}
			if !slices.Equal(seg.got, want) {
				t.Fatalf("reader %d, stretch %d from %d to %d on %v:\n got %v\nwant %v", i, n, seg.from, seg.to, seg.topics, seg.got, want)
			}
			delivered += uint64(len(want))
		}
		if end := segments[len(segments)-1].to; end != last {
			t.Errorf("reader %d ends at %d, want %d", i, end, last)
		}
	}
	return delivered, h.Stats().Lagged
}

// yield lets others run for a while.
func yield(rng *rand.Rand) {
	for range rng.IntN(40) {
		runtime.Gosched()
	}
}

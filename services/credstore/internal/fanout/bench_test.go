package fanout

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

type payload [64]byte

const (
	benchTopic = "projects/default/credentials/registry-bot"
	// rounds is how many events are published between two drains.
	rounds = 256
)

// BenchmarkPublish is the publisher's cost of one event for subscriptions that
// nobody is waiting on, beside the floor of sending a pointer on as many
// buffered channels.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("interested=%d/floor", n), func(b *testing.B) {
			channels := make([]chan *payload, n)
			for i := range channels {
				channels[i] = make(chan *payload, rounds)
			}
			value, sent := &payload{}, 0
			for b.Loop() {
				for _, c := range channels {
					c <- value
				}
				if sent++; sent%rounds == 0 {
					b.StopTimer()
					for _, c := range channels {
						for range rounds {
							<-c
						}
					}
					b.StartTimer()
				}
			}
		})
		for _, named := range []bool{false, true} {
			name := "hub"
			before := func([]string) error { return nil }
			if named {
				name = "hub-before"
			} else {
				before = nil
			}
			b.Run(fmt.Sprintf("interested=%d/%s", n, name), func(b *testing.B) {
				h := New[*payload](Limits{}, 0)
				subs := make([]*Subscription[*payload], n)
				for i := range subs {
					subs[i] = h.Subscribe(fmt.Sprint("s", i), 0, benchTopic)
				}
				benchPublish(b, h, subs, before)
			})
		}
	}
	b.Run("uninterested=10000/hub", func(b *testing.B) {
		h := New[*payload](Limits{}, 0)
		for i := range 10_000 {
			h.Subscribe(fmt.Sprint("s", i), 0, fmt.Sprint(benchTopic, i))
		}
		benchPublish(b, h, nil, nil)
	})
	b.Run("uninterested=0/hub", func(b *testing.B) {
		benchPublish(b, New[*payload](Limits{}, 0), nil, nil)
	})
	b.Run("lagged=10000/hub", func(b *testing.B) {
		h := New[*payload](Limits{}, 0)
		for i := range 10_000 {
			h.Subscribe(fmt.Sprint("s", i), 0, benchTopic)
		}
		if err := h.Reset(1); err != nil {
			b.Fatal(err)
		}
		benchPublish(b, h, nil, nil)
	})
}

func benchPublish(b *testing.B, h *Hub[*payload], subs []*Subscription[*payload], before func([]string) error) {
	b.ReportAllocs()
	value, topics, sent, base := &payload{}, []string{benchTopic}, 0, h.Stats().Revision
	for b.Loop() {
		sent++
		if err := h.Publish(base+uint64(sent), topics, 64, value, before); err != nil {
			b.Fatal(err)
		}
		if sent%rounds == 0 {
			b.StopTimer()
			for _, s := range subs {
				for range rounds {
					if _, ok, err := s.TryNext(); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			}
			b.StartTimer()
		}
	}
}

// BenchmarkDelivery is from the start of a publish to the last of the waiting
// readers, each a goroutine, beside the same over a channel each.
func BenchmarkDelivery(b *testing.B) {
	for _, n := range []int{1, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("readers=%d/floor", n), func(b *testing.B) {
			var arrived, ended sync.WaitGroup
			channels := make([]chan *payload, n)
			for i := range channels {
				channels[i] = make(chan *payload, rounds)
				ended.Go(func() {
					for range channels[i] {
						arrived.Done()
					}
				})
			}
			value := &payload{}
			for b.Loop() {
				arrived.Add(n)
				for _, c := range channels {
					c <- value
				}
				arrived.Wait()
			}
			for _, c := range channels {
				close(c)
			}
			ended.Wait()
		})
		b.Run(fmt.Sprintf("readers=%d/hub", n), func(b *testing.B) {
			var arrived, ended sync.WaitGroup
			h := New[*payload](Limits{}, 0)
			for i := range n {
				s := h.Subscribe(fmt.Sprint("s", i), 0, benchTopic)
				ended.Go(func() {
					defer s.Close()
					// A context of its own, as each stream has: one for all is
					// a lock that all of them wait for.
					ctx, cancel := context.WithCancel(b.Context())
					defer cancel()
					for {
						if _, err := s.Next(ctx); err != nil {
							return
						}
						arrived.Done()
					}
				})
			}
			value, topics, revision := &payload{}, []string{benchTopic}, uint64(0)
			for b.Loop() {
				arrived.Add(n)
				revision++
				if err := h.Publish(revision, topics, 64, value, nil); err != nil {
					b.Fatal(err)
				}
				arrived.Wait()
			}
			h.Close()
			ended.Wait()
		})
	}
}

// BenchmarkSubscriptionMemory reports the bytes that one idle subscription on
// one topic costs.
func BenchmarkSubscriptionMemory(b *testing.B) {
	const n = 10_000
	for b.Loop() {
		h := New[*payload](Limits{}, 0)
		before := heap()
		for i := range n {
			h.Subscribe("", 0, fmt.Sprint(i%100))
		}
		b.ReportMetric(float64(heap()-before)/n, "B/subscription")
		h.Close()
	}
}

package schedule_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/schedule"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestQueue(t *testing.T) {
	var q schedule.Queue
	if _, ok := q.Next(); ok {
		t.Error("an empty queue has a next task")
	}
	var ran []string
	task := func(name string) *schedule.Task {
		return &schedule.Task{Run: func() { ran = append(ran, name) }}
	}
	runDue := func(now time.Time) []string {
		ran = nil
		for due := q.Pop(now); due != nil; due = q.Pop(now) {
			if due.Scheduled() {
				t.Error("a task that was taken out is still scheduled")
			}
			due.Run()
		}
		return ran
	}
	a, b, c := task("a"), task("b"), task("c")
	q.Remove(a) // is in none
	q.Set(a, start.Add(3*time.Second))
	q.Set(b, start.Add(2*time.Second))
	q.Set(c, start.Add(time.Second))
	if due, ok := q.Next(); !ok || !due.Equal(start.Add(time.Second)) {
		t.Errorf("the next is due at %v, %v", due, ok)
	}
	if got := runDue(start); len(got) > 0 {
		t.Errorf("ran %v before anything was due", got)
	}
	q.Set(c, start.Add(4*time.Second)) // later than it was
	q.Set(a, start.Add(time.Second))   // sooner
	if got, want := runDue(start.Add(2*time.Second)), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v", got, want)
	}
	if a.Scheduled() || !c.Scheduled() || !a.Due().Equal(start.Add(time.Second)) {
		t.Errorf("a is scheduled: %v, for %v; c is: %v", a.Scheduled(), a.Due(), c.Scheduled())
	}
	q.Set(a, start.Add(5*time.Second)) // one that was taken out comes back
	q.Remove(c)
	q.Remove(c)
	if got, want := runDue(start.Add(time.Minute)), []string{"a"}; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v", got, want)
	}
}

// Whatever is set, moved and removed, tasks come out in the order in which they
// are due, each once, and none early: the same as from a sorted list.
func TestQueueAgainstSortedList(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		var q schedule.Queue
		tasks := make([]schedule.Task, 40)
		want := map[*schedule.Task]time.Time{}
		now := start
		for step := range 500 {
			task := &tasks[random.IntN(len(tasks))]
			switch random.IntN(4) {
			case 0, 1:
				due := now.Add(time.Duration(random.IntN(100)) * time.Second)
				q.Set(task, due)
				want[task] = due
			case 2:
				q.Remove(task)
				delete(want, task)
			case 3:
				now = now.Add(time.Duration(random.IntN(10)) * time.Second)
				var dues []time.Time
				for _, due := range want {
					if !due.After(now) {
						dues = append(dues, due)
					}
				}
				slices.SortFunc(dues, time.Time.Compare)
				for i, due := range dues {
					got := q.Pop(now)
					if got == nil || !want[got].Equal(due) || !got.Due().Equal(due) {
						t.Fatalf("seed %d, step %d: task %d of %d is %v, want one that is due at %v", seed, step, i, len(dues), got, due)
					}
					delete(want, got)
				}
				if got := q.Pop(now); got != nil {
					t.Fatalf("seed %d, step %d: one that is due at %v comes out at %v", seed, step, got.Due(), now)
				}
			}
			next, ok := q.Next()
			if ok != (len(want) > 0) {
				t.Fatalf("seed %d, step %d: there is a next: %v, with %d tasks", seed, step, ok, len(want))
			}
			for task, due := range want {
				if !task.Scheduled() || due.Before(next) {
					t.Fatalf("seed %d, step %d: a task is due at %v, before the next at %v", seed, step, due, next)
				}
			}
		}
	}
}

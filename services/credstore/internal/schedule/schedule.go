// Package schedule is a queue of tasks in the order in which they are due. It
// keeps no clock and no goroutine: its owner asks when the next task is due, and
// waits for that among everything else that it waits for.
package schedule

import (
	"container/heap"
	"time"
)

// Task is something that is done at some time, for as long as it is in a Queue.
// It is in one Queue at most, and must not be copied while it is in one.
type Task struct {
	// Run is what is to be done. The queue never calls it; who takes the task out
	// does.
	Run func()

	due   time.Time
	place int // in the queue, from 1; 0 when it is in none
}

// Due returns the time at which the task is due, or at which it was last: a task
// that was taken out keeps it.
func (t *Task) Due() time.Time { return t.due }

// Scheduled reports whether the task is in a queue.
func (t *Task) Scheduled() bool { return t.place > 0 }

// Queue holds tasks; the zero Queue is empty and ready. It is not safe for use by
// several goroutines at once. Set, Remove and Pop take logarithmic time.
type Queue struct {
	tasks tasks
}

// Set makes the task due at a time, whether it is in the queue or not.
func (q *Queue) Set(t *Task, due time.Time) {
	t.due = due
	if t.Scheduled() {
		heap.Fix(&q.tasks, t.place-1)
		return
	}
	heap.Push(&q.tasks, t)
}

// Remove takes the task out, if it is in.
func (q *Queue) Remove(t *Task) {
	if t.Scheduled() {
		heap.Remove(&q.tasks, t.place-1)
	}
}

// Next returns when the next task is due; false if there is none.
func (q *Queue) Next() (time.Time, bool) {
	if len(q.tasks) == 0 {
		return time.Time{}, false
	}
	return q.tasks[0].due, true
}

// Pop takes out the task that is due first and returns it, or nil if none is due
// by now. A task that is due exactly now counts.
func (q *Queue) Pop(now time.Time) *Task {
	if due, ok := q.Next(); !ok || due.After(now) {
		return nil
	}
	t := q.tasks[0]
	heap.Remove(&q.tasks, 0)
	return t
}

// tasks is the heap below a Queue; its methods are for package heap.
type tasks []*Task

func (s tasks) Len() int           { return len(s) }
func (s tasks) Less(i, j int) bool { return s[i].due.Before(s[j].due) }

func (s tasks) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i+1, j+1
}

func (s *tasks) Push(x any) {
	t, _ := x.(*Task) // nothing else is pushed
	*s = append(*s, t)
	t.place = len(*s)
}

func (s *tasks) Pop() any {
	old := *s
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	t.place = 0
	return t
}

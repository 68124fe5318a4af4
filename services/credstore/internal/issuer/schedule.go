package issuer

import (
	"container/heap"
	"time"
)

// task is something that is due at some time: that a token is to be minted, or
// that one ends.
type task struct {
	due  time.Time
	at   int // in the schedule, -1 when it is not in it
	item *item
	end  bool
}

// schedule is a heap of tasks, the next one first.
type schedule []*task

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due.Before(s[j].due) }

func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].at, s[j].at = i, j
}

// Push is for package heap.
func (s *schedule) Push(x any) {
	t, _ := x.(*task) // nothing else is pushed
	t.at = len(*s)
	*s = append(*s, t)
}

// Pop is for package heap.
func (s *schedule) Pop() any {
	old := *s
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	t.at = -1
	return t
}

// set puts the task at its time, whether it was in the schedule or not.
func (s *schedule) set(t *task, due time.Time) {
	t.due = due
	if t.at >= 0 {
		heap.Fix(s, t.at)
		return
	}
	heap.Push(s, t)
}

// remove takes the task out, if it is in.
func (s *schedule) remove(t *task) {
	if t.at >= 0 {
		heap.Remove(s, t.at)
	}
}

// next returns the task that is due by now, taken out, or nil.
func (s *schedule) next(now time.Time) *task {
	if len(*s) == 0 || (*s)[0].due.After(now) {
		return nil
	}
	t, _ := heap.Pop(s).(*task)
	return t
}

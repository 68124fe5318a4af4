package fanout

// keepCapacity is how many numbers an emptied queue keeps room for. Thousands
// of subscriptions are idle most of the time; a burst must not stay allocated.
const keepCapacity = 16

// queue is a first-in first-out list of sequence numbers. Its zero value is
// empty and allocates nothing.
type queue struct {
	buf  []uint64
	head int
	n    int
}

func (q *queue) len() int { return q.n }

// peek returns the oldest number of a queue that is not empty.
func (q *queue) peek() uint64 { return q.buf[q.head] }

// pop removes the oldest number of a queue that is not empty.
func (q *queue) pop() {
	q.head = (q.head + 1) % len(q.buf)
	q.n--
	if q.n == 0 && len(q.buf) > keepCapacity {
		*q = queue{}
	}
}

func (q *queue) push(seq uint64) {
	if q.n == len(q.buf) {
		grown := make([]uint64, max(4, 2*len(q.buf)))
		k := copy(grown, q.buf[q.head:])
		copy(grown[k:], q.buf[:q.head])
		q.buf, q.head = grown, 0
	}
	q.buf[(q.head+q.n)%len(q.buf)] = seq
	q.n++
}

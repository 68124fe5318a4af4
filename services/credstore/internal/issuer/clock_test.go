package issuer

import (
	"testing"
	"time"
)

// A failure is remembered for as long as it was to be, also when the clock is set
// back afterwards: a server that starts with a wrong clock is refused for it.
func TestFailureAfterTheClockIsSetBack(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name string
		next int64
		held *held
		want bool
	}{
		{"never asked", 0, nil, true},
		{"just failed", now.Add(refusalTime).UnixNano(), nil, false},
		{"as long as a vendor may ask for", now.Add(retryMost).UnixNano(), nil, false},
		{"failed, and the clock was set back", now.Add(time.Hour).UnixNano(), nil, true},
		{"under way", flying, nil, false},
		{"a token of some hours", now.Add(time.Hour).UnixNano(), &held{}, false},
	} {
		e := &cacheEntry{}
		e.next.Store(test.next)
		e.held.Store(test.held)
		if got := e.due(now); got != test.want {
			t.Errorf("%s: due is %t", test.name, got)
		}
	}
}

// The loop looks at the clock again and again, however far away is what is due:
// its timer does not know of a machine that slept.
func TestLoopDoesNotSleepForLong(t *testing.T) {
	if got := sleep(time.Now().Add(time.Hour)); got != longestSleep {
		t.Errorf("for what is due in an hour it sleeps %s", got)
	}
	if got := sleep(time.Now().Add(-time.Second)); got > 0 {
		t.Errorf("for what is due it sleeps %s", got)
	}
	if got := sleep(time.Now().Add(longestSleep)); got > longestSleep {
		t.Errorf("it sleeps %s", got)
	}
}

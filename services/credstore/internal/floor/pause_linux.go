package floor

import (
	"time"

	"golang.org/x/sys/unix"
)

// Pause sleeps by the kernel's clock. An idle Go program wakes up for its own
// timers at full milliseconds only, which is long beside what is measured here.
func Pause(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // cut short by a signal it is a shorter pause
}

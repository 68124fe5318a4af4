//go:build !linux

package floor

import "time"

// Pause sleeps.
func Pause(d time.Duration) { time.Sleep(d) }

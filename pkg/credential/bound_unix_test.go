//go:build linux || darwin

package credential_test

import (
	"syscall"
	"time"
)

// spent is the processor time that this process has used: what others do to the
// machine is not counted.
func spent() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

package core_test

import (
	"testing"

	"go.uber.org/goleak"
)

// No test of the package leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

package sqlite

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes this test binary a child process that does what the variable
// names; see crash_test.go.
const childEnv = "CREDSTORE_SQLITE_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}

// full tells whether the long forms of the fault tests are asked for.
func full() bool { return os.Getenv("CREDSTORE_FAULTS") == "full" }

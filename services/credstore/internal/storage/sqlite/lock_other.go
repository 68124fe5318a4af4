//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// lockFile refuses: without a lock that ends with its process, two servers
// could write the same file.
func lockFile(path string) (*os.File, error) {
	return nil, fmt.Errorf("sqlite: open %s: no file lock on %s: %w", path, runtime.GOOS, errors.ErrUnsupported)
}

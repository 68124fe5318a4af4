package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// resolve returns the path with symbolic links followed, so that two names of
// one file have one lock.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	followed, err := filepath.EvalSymlinks(abs)
	if err == nil {
		return followed, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", fmt.Errorf("sqlite: open %s: the directory must exist: %w", path, err)
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// prepareFile refuses a file that is not ours or too new without changing it,
// and makes a missing one. The caller holds the lock, so no connection of this
// process can have the file open (closing it here would drop SQLite's locks).
func prepareFile(path string, newest int, busy time.Duration) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return createFile(path)
	}
	if err != nil {
		return err
	}
	sure, err := checkHeader(f, newest)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if sure {
		if sure, err = noLog(path); err != nil {
			return err
		}
	}
	if !sure {
		if err := probe(path, newest, busy); err != nil {
			return err
		}
	}
	return os.Chmod(path, 0o600)
}

func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// checkHeader reads the marks from the file's header, without SQLite, which
// would create files beside it, and tells whether that settles the matter.
func checkHeader(f *os.File, newest int) (sure bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: %w", info.Mode().Type(), ErrNotStore)
	}
	if info.Size() == 0 {
		return true, nil
	}
	var header [100]byte
	if _, err := io.ReadFull(f, header[:]); err != nil || string(header[:16]) != "SQLite format 3\x00" {
		return false, fmt.Errorf("no SQLite header: %w", ErrNotStore)
	}
	version := int64(int32(binary.BigEndian.Uint32(header[60:])))
	app := int64(int32(binary.BigEndian.Uint32(header[68:])))
	// A file without marks is ours only when it has no tables either, which
	// the header does not tell.
	return app != 0 || version != 0, checkMarks(version, app, newest, true)
}

// noLog tells that no write-ahead log was left behind, which may hold a newer
// header than the file does.
func noLog(path string) (bool, error) {
	info, err := os.Stat(path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && info.Size() == 0, err
}

// probe looks at the marks through SQLite, reading only.
func probe(path string, newest int, busy time.Duration) error {
	c, err := dial(dsn(path, probing, busy, ""))
	if err != nil {
		return err
	}
	var version, app, tables int64
	err = errors.Join(
		c.one(`PRAGMA user_version`, &version),
		c.one(`PRAGMA application_id`, &app),
		c.one(`SELECT count(*) FROM sqlite_schema`, &tables),
	)
	if err := errors.Join(err, c.close()); err != nil {
		return err
	}
	return checkMarks(version, app, newest, tables == 0)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

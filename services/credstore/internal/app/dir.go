package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir is a data folder: everything that one server keeps.
type Dir string

// The files of a data folder.
func (d Dir) join(name string) string { return filepath.Join(string(d), name) }

// Database is the store, sealed.
func (d Dir) Database() string { return d.join("store.db") }

// RootKey unwraps the keys in the database. It is generated here; in production
// it belongs on another disk, see docs/production.md.
func (d Dir) RootKey() string { return d.join("root.key") }

// CA is the certificate that clients trust, in PEM form.
func (d Dir) CA() string         { return d.join("ca.pem") }
func (d Dir) caKey() string      { return d.join("ca.key") }
func (d Dir) serverCert() string { return d.join("server.pem") }
func (d Dir) serverKey() string  { return d.join("server.key") }

// AuditLog gets a JSON line for every payload that leaves.
func (d Dir) AuditLog() string { return d.join("audit.jsonl") }

// AdminToken holds the first administrator's token.
func (d Dir) AdminToken() string { return d.join("admin.token") }

// make creates the folder, for its owner only.
func (d Dir) make() error {
	if d == "" {
		return errors.New("no data folder was named")
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	info, err := os.Stat(string(d))
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("data folder %s can be written by others: chmod 700 it", d)
	}
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func syncParent(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

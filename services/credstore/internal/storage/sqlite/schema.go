package sqlite

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// applicationID marks our files: "Cred" in PRAGMA application_id.
const applicationID = 0x43726564

// step brings a file from one schema version to the next. It runs inside the
// transaction of the whole migration.
type step func(c *conn) error

// schemaSteps lists the steps: the first makes version 1 of an empty file, the
// second would make 2 of 1. A released step is never changed, only followed.
func schemaSteps() []step {
	return []step{createSchema}
}

func createSchema(c *conn) error {
	for _, q := range []string{
		`CREATE TABLE slot (id INTEGER PRIMARY KEY, data BLOB NOT NULL)`,
		`CREATE TABLE log (revision INTEGER PRIMARY KEY, time INTEGER NOT NULL, block BLOB NOT NULL)`,
		`CREATE TABLE meta (
			id INTEGER PRIMARY KEY CHECK (id = 1),
			feed_id TEXT NOT NULL,
			compacted INTEGER NOT NULL,
			compacted_nonce INTEGER NOT NULL
		)`,
	} {
		if err := c.exec(q); err != nil {
			return err
		}
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	s, err := c.prepareOnce(`INSERT INTO meta (id, feed_id, compacted, compacted_nonce) VALUES (1, ?, 0, 0)`)
	if err != nil {
		return err
	}
	return errors.Join(s.run(hex.EncodeToString(id[:])), s.s.Close())
}

// migrate brings the file to the newest version in one transaction, or leaves
// it as it is, and returns the version.
func migrate(c *conn, steps []step) (version int, err error) {
	var found, app, tables int64
	if err := c.exec(`BEGIN IMMEDIATE`); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.exec(`ROLLBACK`))
		}
	}()
	if err := errors.Join(
		c.one(`PRAGMA user_version`, &found),
		c.one(`PRAGMA application_id`, &app),
		c.one(`SELECT count(*) FROM sqlite_schema`, &tables),
	); err != nil {
		return 0, err
	}
	if err := checkMarks(found, app, len(steps), tables == 0); err != nil {
		return 0, err
	}
	for i := int(found); i < len(steps); i++ {
		if err := steps[i](c); err != nil {
			return 0, fmt.Errorf("migrate schema from version %d to %d: %w", i, i+1, err)
		}
	}
	if int(found) < len(steps) {
		if err := errors.Join(
			c.exec(fmt.Sprintf(`PRAGMA application_id = %d`, applicationID)),
			c.exec(fmt.Sprintf(`PRAGMA user_version = %d`, len(steps))),
		); err != nil {
			return 0, err
		}
	}
	return len(steps), c.exec(`COMMIT`)
}

// checkMarks decides by its two marks whether a file is ours and not too new.
// An empty one without marks is a new file, or one whose creation was cut off.
func checkMarks(version, app int64, newest int, empty bool) error {
	switch {
	case app == 0 && version == 0 && empty:
		return nil
	case app != applicationID:
		return fmt.Errorf("application id is %#x, want %#x: %w", app, applicationID, ErrNotStore)
	case version > int64(newest):
		return fmt.Errorf("schema version is %d, this program knows %d: %w", version, newest, core.ErrSchemaNewer)
	case version < 1:
		return fmt.Errorf("schema version is %d: %w", version, ErrNotStore)
	}
	return nil
}

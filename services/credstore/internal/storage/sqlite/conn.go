package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// conn is one SQLite connection, for one goroutine at a time. It uses the
// driver's connection without database/sql, which would add a pool that we do
// not want and, per statement, about as much time as a small statement takes.
type conn struct {
	c     driver.Conn
	stmts []*stmt
}

// The driver starts a goroutine per statement for a context that can end; ours
// are short and the writer's must not be torn, so none can.
func dial(dsn string) (*conn, error) {
	connector, err := sqlitedriver.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	c, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	return &conn{c: c}, nil
}

// close finalizes the statements and closes the connection.
func (c *conn) close() error {
	errs := make([]error, 0, len(c.stmts)+1)
	for _, s := range c.stmts {
		errs = append(errs, s.s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

// exec runs a statement that is needed once.
func (c *conn) exec(query string) error {
	s, err := c.prepareOnce(query)
	if err != nil {
		return err
	}
	return errors.Join(s.run(), s.s.Close())
}

// one reads the single row of a query that is needed once into dest.
func (c *conn) one(query string, dest ...any) error {
	s, err := c.prepareOnce(query)
	if err != nil {
		return err
	}
	return errors.Join(s.one(nil, dest...), s.s.Close())
}

// prepare returns a statement that lives as long as the connection.
func (c *conn) prepare(query string) (*stmt, error) {
	s, err := c.prepareOnce(query)
	if err != nil {
		return nil, err
	}
	c.stmts = append(c.stmts, s)
	return s, nil
}

func (c *conn) prepareOnce(query string) (*stmt, error) {
	p, ok := c.c.(driver.ConnPrepareContext)
	if !ok {
		return nil, fmt.Errorf("driver connection %T cannot prepare", c.c)
	}
	ds, err := p.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	s := &stmt{s: ds}
	var okExec, okQuery bool
	s.execer, okExec = ds.(driver.StmtExecContext)
	s.queryer, okQuery = ds.(driver.StmtQueryContext)
	if !okExec || !okQuery {
		return nil, errors.Join(fmt.Errorf("driver statement %T cannot be run", ds), ds.Close())
	}
	return s, nil
}

// stmt is a prepared statement. The values it takes are int64, string and
// []byte.
type stmt struct {
	s       driver.Stmt
	execer  driver.StmtExecContext
	queryer driver.StmtQueryContext
	args    []driver.NamedValue
}

func (s *stmt) named(args []any) []driver.NamedValue {
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s.args
}

// run executes the statement.
func (s *stmt) run(args ...any) error {
	_, err := s.execer.ExecContext(context.Background(), s.named(args))
	clear(s.args) // hold no values between statements
	return err
}

// each calls fn for every row until fn or the query fails. The slices in row
// may be kept, row itself may not.
func (s *stmt) each(fn func(row []driver.Value) error, args ...any) (err error) {
	rows, err := s.queryer.QueryContext(context.Background(), s.named(args))
	clear(s.args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for { // ends with the rows
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := fn(row); err != nil {
			return err
		}
	}
}

// one scans the only row into dest (*int64, *string or *[]byte); a missing row
// is io.ErrUnexpectedEOF.
func (s *stmt) one(args []any, dest ...any) error {
	found := false
	err := s.each(func(row []driver.Value) error {
		found = true
		return scan(row, dest...)
	}, args...)
	if err == nil && !found {
		return io.ErrUnexpectedEOF
	}
	return err
}

// scan copies a row into dest. NULL and empty become the zero value.
func scan(row []driver.Value, dest ...any) error {
	if len(row) != len(dest) {
		return fmt.Errorf("%d columns for %d destinations: %w", len(row), len(dest), ErrCorrupt)
	}
	for i, v := range row {
		ok := true
		switch d := dest[i].(type) {
		case *int64:
			*d, ok = v.(int64)
		case *string:
			*d, ok = v.(string)
		case *[]byte:
			if *d = nil; v != nil {
				*d, ok = v.([]byte)
			}
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("column %d is a %T: %w", i, v, ErrCorrupt)
		}
	}
	return nil
}

// broken tells the errors after which nothing is known about the disk from
// those that only fail a statement (full, busy, too big, read-only).
func broken(err error) bool {
	if errors.Is(err, ErrCorrupt) {
		return true
	}
	var e *sqlitedriver.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_MISUSE:
		return true
	}
	return false
}

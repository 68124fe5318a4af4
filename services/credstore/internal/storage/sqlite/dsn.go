package sqlite

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// role is what a connection is for.
type role int

const (
	probing role = iota // reads a file that may not be ours; changes nothing
	reading
	writing
)

// dsn returns the connection string, the one place where SQLite's settings
// live: a PRAGMA that is run by hand would hold for one connection only.
func dsn(path string, r role, busy time.Duration, synchronous string) string {
	q := url.Values{}
	// A damaged or foreign file must not be able to run anything.
	pragmas := []string{
		"busy_timeout(" + strconv.FormatInt(busy.Milliseconds(), 10) + ")",
		"trusted_schema(OFF)",
	}
	switch r {
	case probing:
		q.Set("mode", "ro")
		pragmas = append(pragmas, "query_only(ON)")
	case reading:
		q.Set("mode", "ro")
		pragmas = append(pragmas, "query_only(ON)", "temp_store(MEMORY)", "cache_size(-4096)")
	case writing:
		q.Set("mode", "rw")
		pragmas = append(pragmas,
			"journal_mode(WAL)",
			"synchronous("+synchronous+")",
			"secure_delete(ON)",
			"temp_store(MEMORY)",
			"cache_size(-16384)",
			// The writer checkpoints after it has acknowledged a group, not in
			// the COMMIT of the commit that happens to be the thousandth.
			"wal_autocheckpoint(0)",
			"journal_size_limit(67108864)",
		)
	}
	q["_pragma"] = pragmas
	// In a file: URI these three have a meaning, in a path they do not.
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	return "file:" + escaped + "?" + q.Encode()
}

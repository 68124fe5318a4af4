// Package sqlite owns the durable storage of one machine: core.Storage in one
// SQLite file. It sees only sealed values and knows nothing of what they mean,
// and it does not replicate; that is another backend's work.
//
// # Files
//
//	credstore.db        the database, mode 0600
//	credstore.db-wal    SQLite's write-ahead log, while the store is open or after a crash
//	credstore.db-shm    SQLite's index of that log, likewise
//	credstore.db.lock   empty; flock'ed while a process has the store open, never removed
//
// The lock is the kernel's and ends with the process, so a crash leaves none
// behind. It is advisory: programs that do not ask for it, such as the sqlite3
// shell, can open the file. Reading with them is fine; writing with them while
// the store is open is not, because the store keeps an index in memory.
//
// # Layout
//
//	slot(id INTEGER PRIMARY KEY, data BLOB)        one record or nothing, see slot.go
//	log(revision INTEGER PRIMARY KEY, time, block) what each commit changed, without values, see block.go
//	meta(id, feed_id, compacted, compacted_nonce)  one row
//
// The schema version is PRAGMA user_version and PRAGMA application_id marks the
// file as ours. The newest revision is the newest of log, or meta.compacted when
// the log is empty, so that it is never used again after everything was
// compacted. The index from key to slot lives in memory and is rebuilt at Open:
// SQLite then has no second B-tree to maintain, which makes creating records
// under random keys 2.7 times faster (the pages dirtied, not the statements,
// are what a group commit costs).
//
// # What deleting leaves behind
//
// SQLite's secure_delete zeroes the cell it removes, but not the stale copies
// that it makes when it moves cells between pages to balance its tree: in our
// tests, of ten thousand values overwritten or deleted up to five could still
// be read in the file. Records are therefore kept in slots that
// never move: a slot is appended once, keeps its length, is overwritten in
// place, and is filled with zeros and used again when its record goes. After a
// clean Close no sealed byte of a record that was overwritten or deleted is in
// the file. The file does not shrink.
//
// While the store is open, earlier bytes can linger in the -wal file until a
// checkpoint truncates it: the store does so about every half minute while
// there are writes, later when another reader holds the log open, and at Close.
// After a crash they linger until the next one. Names (the keys) are not
// secret and can linger in pages of the log table. What the file system and the
// disk keep of overwritten blocks is out of reach.
//
// # Writing
//
// One goroutine writes. It gathers the commits that wait, checks each against
// the index and what those before it in the group did, writes all of them in
// one SQLite transaction, and acknowledges them after COMMIT returned, which
// with synchronous=FULL is after the fsync of the write-ahead log. A commit
// whose preconditions fail does not disturb its neighbours.
//
// When the transaction fails before COMMIT it is rolled back and its commits
// are tried one by one, so that one that cannot be written (too big, no space)
// fails alone. When COMMIT itself fails, the store reads back whether the
// transaction is there: if not, the same; if that cannot be told, or when
// SQLite reports an I/O error or a damaged file at any point, the store fails
// closed: every later Commit and Compact returns ErrFailed until the store is
// closed and opened again, which reads the truth from the disk. A commit that
// ended with ErrFailed may be there then. Reads and feeds go on meanwhile, with
// what was acknowledged.
package sqlite

// Package fileset owns publishing a set of files under one root directory,
// whole or not at all, on a machine that may crash at any moment. It does not
// know where contents come from, how they are rendered, or who must be told.
//
// # Layout
//
//	root/
//	  ..2026_01_31_12_00_00.0123456789abcdef/    the data directory of one set
//	    db/password
//	    token
//	  ..data -> ..2026_01_31_12_00_00.0123456789abcdef
//	  db     -> ..data/db
//	  token  -> ..data/token
//
// It is the layout of Kubernetes volumes. One rename of ..data switches all
// files at once; names that begin with two dots are reserved for this package.
// Whatever else lies in root is left alone.
//
// # Reading
//
// Whoever needs one file opens root/db/password: the path leads to a complete
// file at every moment, as long as the file is in the set.
//
// Whoever needs several files that belong together opens root/..data once, as
// a directory, and reads all of them beneath that handle (openat, [os.OpenRoot])
// or beneath the path that [path/filepath.EvalSymlinks] returns. All of them
// are then of one set. A replaced set stays readable for [Options.Linger]; a
// reader that is slower than that gets fs.ErrNotExist and starts again.
//
// # What is promised
//
//   - A reader sees the old set or the new one, also after a SIGKILL or a loss
//     of power in the middle of [Dir.Publish]. When Publish returns without an
//     error, the new set survives a loss of power.
//   - A file has its mode and owner before anyone can reach it.
//   - What a crash left behind never stands in the way of a later Publish, and
//     [Open] removes it.
//   - Nothing is written when nothing changed.
//   - Nothing is written outside root, whatever the paths say and whatever
//     symlinks somebody planted in root. [os.Root] sees to that. It does not
//     stop a mount inside root, and whoever may write to root, or to the files
//     in it, may of course replace what is published there: give readers no
//     write permission on root.
//
// Linux is what it is made for; it compiles and works on macOS.
package fileset

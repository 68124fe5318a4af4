package fileset

import (
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"strings"

	"github.com/credstore/credstore/pkg/targetpath"
)

// DefaultMode is the mode of a file that names none: its owner may read it.
const DefaultMode fs.FileMode = 0o400

// File is one file of a set. Printing it in any way shows its path and size,
// never its content.
type File struct {
	// Path is relative to the root and slash separated; see [targetpath.Validate].
	Path string
	// Content is all of the file; nil is an empty file. Publish keeps no
	// reference to it.
	Content []byte `json:"-" yaml:"-"`
	// Mode holds permission bits, and nothing else; 0 means [DefaultMode].
	// The umask does not apply.
	Mode fs.FileMode
	// UID and GID are the owner; nil leaves what the file system gives a new
	// file: the user of this process, and its group or that of a set-group-id
	// root. Another owner needs CAP_CHOWN (or root); another group needs that
	// or membership.
	UID, GID *int
}

// Format writes the path and the size, for every verb.
func (f File) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "file %s (%d bytes)", targetpath.Quote(f.Path), len(f.Content))
}

// LogValue gives a log the path and the size.
func (f File) LogValue() slog.Value {
	return slog.GroupValue(slog.String("path", f.Path), slog.Int("bytes", len(f.Content)))
}

// FileError says which field of a file cannot be published, and why.
type FileError struct {
	Path   string
	Field  string // "mode", "uid" or "gid"
	Reason string
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s of %s %s", e.Field, targetpath.Quote(e.Path), e.Reason)
}

// checkFiles returns the files sorted by path, with default modes filled in,
// or why they cannot be one set. The caller's slice stays as it is.
func checkFiles(files []File) ([]File, error) {
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.Path
	}
	if err := targetpath.ValidateAll(paths); err != nil {
		return nil, err
	}
	set := slices.Clone(files)
	for i := range set {
		f := &set[i]
		if f.Mode == 0 {
			f.Mode = DefaultMode
		}
		if f.Mode&^fs.ModePerm != 0 {
			return nil, &FileError{Path: f.Path, Field: "mode", Reason: "has bits other than permissions: use at most 0777"}
		}
		if err := checkID(f.Path, "uid", f.UID); err != nil {
			return nil, err
		}
		if err := checkID(f.Path, "gid", f.GID); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(set, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return set, nil
}

// checkID refuses what the kernel would understand as "leave it": an owner of
// -1, in 32 bits, is no owner but a wish not to change it.
func checkID(path, field string, id *int) error {
	if id != nil && (*id < 0 || int64(*id) >= math.MaxUint32) {
		return &FileError{Path: path, Field: field, Reason: fmt.Sprintf("is %d: use 0 to %d", *id, uint32(math.MaxUint32-1))}
	}
	return nil
}

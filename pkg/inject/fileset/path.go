package fileset

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a path. They are those of Linux file systems, except for
// MaxElements, which bounds the work per path.
const (
	// MaxPathBytes is the most bytes that a whole path has.
	MaxPathBytes = 1024
	// MaxElementBytes is the most bytes that one element has.
	MaxElementBytes = 255
	// MaxElements is the most elements that a path has, the file's own name
	// included.
	MaxElements = 16
)

// PathReason says which rule a path breaks. The values are stable and fit a
// machine-readable field; [PathError] puts them into a sentence.
type PathReason string

// The reasons for which [ValidatePath] refuses a path, in the order in which
// it looks for them.
const (
	PathEmpty           PathReason = "EMPTY"
	PathTooLong         PathReason = "TOO_LONG"
	PathNotUTF8         PathReason = "NOT_UTF8"
	PathControl         PathReason = "CONTROL_CHARACTER"
	PathBackslash       PathReason = "BACKSLASH"
	PathAbsolute        PathReason = "ABSOLUTE"
	PathTooDeep         PathReason = "TOO_DEEP"
	PathEmptyElement    PathReason = "EMPTY_ELEMENT"
	PathDotElement      PathReason = "DOT_ELEMENT"
	PathReservedElement PathReason = "RESERVED_ELEMENT"
	PathElementTooLong  PathReason = "ELEMENT_TOO_LONG"
)

// sentence finishes the sentence `path "…" …` with what is wrong and what to do.
func (r PathReason) sentence() string {
	switch r {
	case PathEmpty:
		return "is empty: name a file"
	case PathTooLong:
		return fmt.Sprintf("is longer than %d bytes", MaxPathBytes)
	case PathNotUTF8:
		return "is not valid UTF-8"
	case PathControl:
		return "contains NUL or another control character"
	case PathBackslash:
		return "contains a backslash: separate elements with a slash"
	case PathAbsolute:
		return "is absolute: make it relative to the root of the set"
	case PathTooDeep:
		return fmt.Sprintf("has more than %d elements", MaxElements)
	case PathEmptyElement:
		return "has an empty element: use single slashes, and none at the end"
	case PathDotElement:
		return `has an element "." or "..": write the path without it`
	case PathReservedElement:
		return `has an element that begins with "..": such names are reserved`
	case PathElementTooLong:
		return fmt.Sprintf("has an element longer than %d bytes", MaxElementBytes)
	}
	return "is not allowed"
}

// PathError says that a path cannot be part of a set.
type PathError struct {
	Path   string
	Reason PathReason
}

// Error quotes the path, so that it is safe to log, and shortens a long one.
func (e *PathError) Error() string {
	return fmt.Sprintf("path %s %s", quote(e.Path), e.Reason.sentence())
}

// OverlapError says that two paths cannot be in one set: they are equal, or
// one names a file where the other needs a directory.
type OverlapError struct {
	Path  string // the one that came later in the list
	Other string // the one that it collides with
}

func (e *OverlapError) Error() string {
	if e.Path == e.Other {
		return fmt.Sprintf("path %s is there twice: give each file its own path", quote(e.Path))
	}
	file, dir := e.Other, e.Path
	if len(file) > len(dir) {
		file, dir = dir, file
	}
	return fmt.Sprintf("paths %s and %s overlap: the first is a file and cannot be the other's directory", quote(file), quote(dir))
}

// ValidatePath says whether p can name a file of a set. It must be relative
// and slash separated, valid UTF-8 without control characters or backslashes,
// within [MaxPathBytes], [MaxElementBytes] and [MaxElements], and none of its
// elements may be empty, be ".", or begin with "..". It looks at p alone, never
// at a disk, so a server can refuse on save what an injector would refuse
// later. The error is a *[PathError].
func ValidatePath(p string) error {
	if reason := checkPath(p); reason != "" {
		return &PathError{Path: p, Reason: reason}
	}
	return nil
}

func checkPath(p string) PathReason {
	switch {
	case p == "":
		return PathEmpty
	case len(p) > MaxPathBytes:
		return PathTooLong
	case !utf8.ValidString(p):
		return PathNotUTF8
	case strings.ContainsFunc(p, unicode.IsControl):
		return PathControl
	case strings.Contains(p, `\`):
		return PathBackslash
	case p[0] == '/':
		return PathAbsolute
	case strings.Count(p, "/") >= MaxElements:
		return PathTooDeep
	}
	for element := range strings.SplitSeq(p, "/") {
		switch {
		case element == "":
			return PathEmptyElement
		case element == "." || element == "..":
			return PathDotElement
		case strings.HasPrefix(element, ".."):
			return PathReservedElement
		case len(element) > MaxElementBytes:
			return PathElementTooLong
		}
	}
	return ""
}

// ValidatePaths says whether paths can be the paths of one set: each passes
// [ValidatePath], no two are equal, and none is a directory of another. The
// error is a *[PathError] or an *[OverlapError], for the first path in the
// list that does not fit those before it. Order does not decide whether there
// is an error.
func ValidatePaths(paths []string) error {
	files := make(map[string]bool, len(paths))
	// dirs maps every directory that the paths need to the path that needs it.
	dirs := make(map[string]string)
	for _, p := range paths {
		if err := ValidatePath(p); err != nil {
			return err
		}
		if files[p] {
			return &OverlapError{Path: p, Other: p}
		}
		if other, ok := dirs[p]; ok {
			return &OverlapError{Path: p, Other: other}
		}
		files[p] = true
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if files[dir] {
				return &OverlapError{Path: p, Other: dir}
			}
			if _, ok := dirs[dir]; !ok {
				dirs[dir] = p
			}
		}
	}
	return nil
}

// firstElement returns the name under root that leads to p.
func firstElement(p string) string {
	name, _, _ := strings.Cut(p, "/")
	return name
}

// quote makes a path safe and short enough for an error text.
func quote(p string) string {
	const most = 128
	if len(p) > most {
		return fmt.Sprintf("%q… (%d bytes)", p[:most], len(p))
	}
	return fmt.Sprintf("%q", p)
}

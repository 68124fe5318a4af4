// Package targetpath owns what a file's place in a set may be called. It looks
// at names alone and never at a disk, so that a server refuses on save what an
// injector would refuse later.
package targetpath

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
	// MaxBytes is the most bytes that a whole path has.
	MaxBytes = 1024
	// MaxElementBytes is the most bytes that one element has.
	MaxElementBytes = 255
	// MaxElements is the most elements that a path has, the file's own name
	// included.
	MaxElements = 16
)

// Reason says which rule a path breaks. The values are stable and fit a
// machine-readable field; [Error] puts them into a sentence.
type Reason string

// The reasons for which [Validate] refuses a path, in the order in which
// it looks for them.
const (
	Empty           Reason = "EMPTY"
	TooLong         Reason = "TOO_LONG"
	NotUTF8         Reason = "NOT_UTF8"
	Control         Reason = "CONTROL_CHARACTER"
	Backslash       Reason = "BACKSLASH"
	Absolute        Reason = "ABSOLUTE"
	TooDeep         Reason = "TOO_DEEP"
	EmptyElement    Reason = "EMPTY_ELEMENT"
	DotElement      Reason = "DOT_ELEMENT"
	ReservedElement Reason = "RESERVED_ELEMENT"
	ElementTooLong  Reason = "ELEMENT_TOO_LONG"
)

// sentence finishes the sentence `path "…" …` with what is wrong and what to do.
func (r Reason) sentence() string {
	switch r {
	case Empty:
		return "is empty: name a file"
	case TooLong:
		return fmt.Sprintf("is longer than %d bytes", MaxBytes)
	case NotUTF8:
		return "is not valid UTF-8"
	case Control:
		return "contains NUL or another control character"
	case Backslash:
		return "contains a backslash: separate elements with a slash"
	case Absolute:
		return "is absolute: make it relative to the root of the set"
	case TooDeep:
		return fmt.Sprintf("has more than %d elements", MaxElements)
	case EmptyElement:
		return "has an empty element: use single slashes, and none at the end"
	case DotElement:
		return `has an element "." or "..": write the path without it`
	case ReservedElement:
		return `has an element that begins with "..": such names are reserved`
	case ElementTooLong:
		return fmt.Sprintf("has an element longer than %d bytes", MaxElementBytes)
	}
	return "is not allowed"
}

// Error says that a path cannot be part of a set.
type Error struct {
	Path   string
	Reason Reason
}

// Error quotes the path, so that it is safe to log, and shortens a long one.
func (e *Error) Error() string {
	return fmt.Sprintf("path %s %s", Quote(e.Path), e.Reason.sentence())
}

// OverlapError says that two paths cannot be in one set: they are equal, or
// one names a file where the other needs a directory.
type OverlapError struct {
	Path  string // the one that came later in the list
	Other string // the one that it collides with
}

func (e *OverlapError) Error() string {
	if e.Path == e.Other {
		return fmt.Sprintf("path %s is there twice: give each file its own path", Quote(e.Path))
	}
	file, dir := e.Other, e.Path
	if len(file) > len(dir) {
		file, dir = dir, file
	}
	return fmt.Sprintf("paths %s and %s overlap: the first is a file and cannot be the other's directory", Quote(file), Quote(dir))
}

// Validate says whether p can name a file of a set. It must be relative
// and slash separated, valid UTF-8 without control characters or backslashes,
// within [MaxBytes], [MaxElementBytes] and [MaxElements], and none of its
// elements may be empty, be ".", or begin with "..". The error is a *[Error].
func Validate(p string) error {
	if reason := check(p); reason != "" {
		return &Error{Path: p, Reason: reason}
	}
	return nil
}

func check(p string) Reason {
	switch {
	case p == "":
		return Empty
	case len(p) > MaxBytes:
		return TooLong
	case !utf8.ValidString(p):
		return NotUTF8
	case strings.ContainsFunc(p, unicode.IsControl):
		return Control
	case strings.Contains(p, `\`):
		return Backslash
	case p[0] == '/':
		return Absolute
	case strings.Count(p, "/") >= MaxElements:
		return TooDeep
	}
	for element := range strings.SplitSeq(p, "/") {
		switch {
		case element == "":
			return EmptyElement
		case element == "." || element == "..":
			return DotElement
		case strings.HasPrefix(element, ".."):
			return ReservedElement
		case len(element) > MaxElementBytes:
			return ElementTooLong
		}
	}
	return ""
}

// ValidateAll says whether paths can be the paths of one set: each passes
// [Validate], no two are equal, and none is a directory of another. The
// error is a *[Error] or an *[OverlapError], for the first path in the
// list that does not fit those before it. Order does not decide whether there
// is an error.
func ValidateAll(paths []string) error {
	files := make(map[string]bool, len(paths))
	// dirs maps every directory that the paths need to the path that needs it.
	dirs := make(map[string]string)
	for _, p := range paths {
		if err := Validate(p); err != nil {
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

// Quote makes a path safe and short enough for an error text.
func Quote(p string) string {
	const most = 128
	if len(p) > most {
		return fmt.Sprintf("%q… (%d bytes)", p[:most], len(p))
	}
	return fmt.Sprintf("%q", p)
}

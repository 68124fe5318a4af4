package fileset

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestValidatePath(t *testing.T) {
	long := strings.Repeat("x", MaxElementBytes)
	deep := strings.Repeat("d/", MaxElements-1)
	tests := []struct {
		name, path string
		want       PathReason // "" is allowed
	}{
		{"one element", "token", ""},
		{"several elements", "db/primary/password", ""},
		{"hidden file", ".netrc", ""},
		{"dots inside", "a..b/c..", ""},
		{"space, colon, dollar", "a b:$c", ""},
		{"letters of any script", "пароль/密码", ""},
		{"leading dash", "-rf", ""},
		{"dot and word", ".data", ""},
		{"longest element", long, ""},
		{"deepest", deep + "f", ""},

		{"empty", "", PathEmpty},
		{"one byte too long", strings.Repeat("x/", 512) + "y", PathTooLong},
		{"longest element and one", long + "x", PathElementTooLong},
		{"long element of wide letters", strings.Repeat("é", 128), PathElementTooLong},
		{"deepest and one", deep + "d/f", PathTooDeep},
		{"absolute", "/etc/passwd", PathAbsolute},
		{"root", "/", PathAbsolute},
		{"double slash first", "//a", PathAbsolute},
		{"double slash", "a//b", PathEmptyElement},
		{"slash at the end", "a/", PathEmptyElement},
		{"dot", ".", PathDotElement},
		{"dot first", "./a", PathDotElement},
		{"dot inside", "a/./b", PathDotElement},
		{"dot last", "a/.", PathDotElement},
		{"parent", "..", PathDotElement},
		{"parent first", "../a", PathDotElement},
		{"parent inside", "a/../../b", PathDotElement},
		{"parent last", "a/..", PathDotElement},
		{"data link", "..data", PathReservedElement},
		{"beneath the data link", "..data/a", PathReservedElement},
		{"data directory", "..2026_01_31_12_00_00.0123456789abcdef/a", PathReservedElement},
		{"reserved inside", "a/..b", PathReservedElement},
		{"three dots", "...", PathReservedElement},
		{"backslash", `a\b`, PathBackslash},
		{"parent with backslash", `..\a`, PathBackslash},
		{"NUL", "a\x00b", PathControl},
		{"newline", "a\nb", PathControl},
		{"escape", "a\x1b[2Jb", PathControl},
		{"delete", "a\x7f", PathControl},
		{"C1 control", "a\u0085b", PathControl},
		{"broken UTF-8", "a\xffb", PathNotUTF8},
		{"overlong slash", "..\xc0\xafetc", PathNotUTF8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := ValidatePath(tt.path)
			var refused *PathError
			if errors.As(err, &refused) {
				if refused.Path != tt.path || refused.Reason != tt.want {
					t.Errorf("ValidatePath(%q) = %q, want %q", tt.path, refused.Reason, tt.want)
				}
				if !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x00\n\x1b") || len(err.Error()) > 400 {
					t.Errorf("error text is not fit for a log: %q", err)
				}
			} else if err != nil || tt.want != "" {
				t.Errorf("ValidatePath(%q) = %v, want %q", tt.path, err, tt.want)
			}
		})
	}
}

func TestValidatePathLengths(t *testing.T) {
	element := strings.Repeat("x", 204)
	longest := strings.Repeat(element+"/", 4) + element // 5*204+4
	if len(longest) != MaxPathBytes {
		t.Fatalf("the test's path has %d bytes", len(longest))
	}
	if err := ValidatePath(longest); err != nil {
		t.Errorf("a path of %d bytes: %v", len(longest), err)
	}
	want := &PathError{Path: longest + "x", Reason: PathTooLong}
	if diff := cmp.Diff(error(want), ValidatePath(longest+"x")); diff != "" {
		t.Errorf("a path of one byte more (-want +got):\n%s", diff)
	}
}

func TestValidatePaths(t *testing.T) {
	tests := []struct {
		name  string
		paths []string
		want  error
	}{
		{"none", nil, nil},
		{"siblings", []string{"a", "b", "c/d", "c/e"}, nil},
		{"common beginnings", []string{"a", "ab", "a-b/c", "a.b"}, nil},
		{"upper and lower case", []string{"a", "A"}, nil},
		{"twice", []string{"a", "b", "a"}, &OverlapError{Path: "a", Other: "a"}},
		{"file, then directory", []string{"a", "a/b"}, &OverlapError{Path: "a/b", Other: "a"}},
		{"directory, then file", []string{"a/b", "a"}, &OverlapError{Path: "a", Other: "a/b"}},
		{"deep", []string{"a/b/c/d", "x", "a/b"}, &OverlapError{Path: "a/b", Other: "a/b/c/d"}},
		{"with one between them in order", []string{"a", "a-b", "a/b"}, &OverlapError{Path: "a/b", Other: "a"}},
		{"a bad one", []string{"a", "../b"}, &PathError{Path: "../b", Reason: PathDotElement}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ValidatePaths(tt.paths)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatalf("ValidatePaths (-want +got):\n%s", diff)
			}
			var overlap *OverlapError
			if errors.As(got, &overlap) && (!strings.Contains(got.Error(), overlap.Path) || !strings.Contains(got.Error(), overlap.Other)) {
				t.Errorf("error does not name both paths: %v", got)
			}
		})
	}
}

func FuzzValidatePath(f *testing.F) {
	for _, p := range []string{"a", "a/b", "../a", "/a", "a//b", "..data/x", "a\\b", "a\x00", "a/..", "…", "é/ü", "a/./b", ".a", "\xff"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		err := ValidatePath(p)
		if err != nil {
			var refused *PathError
			if !errors.As(err, &refused) || refused.Path != p || refused.Reason == "" {
				t.Fatalf("ValidatePath(%q) = %#v", p, err)
			}
			return
		}
		if !fs.ValidPath(p) || p == "." || !filepath.IsLocal(p) {
			t.Fatalf("%q is allowed, and is no local path", p)
		}
		for _, element := range strings.Split(p, "/") {
			if strings.HasPrefix(element, "..") || len(element) > MaxElementBytes {
				t.Fatalf("%q is allowed with element %q", p, element)
			}
		}
		if !utf8.ValidString(p) || strings.ContainsAny(p, "\\\x00\r\n\x7f") || len(p) > MaxPathBytes {
			t.Fatalf("%q is allowed", p)
		}
		var overlap *OverlapError
		if err := ValidatePaths([]string{p, p}); !errors.As(err, &overlap) {
			t.Fatalf("twice %q: %v", p, err)
		}
	})
}

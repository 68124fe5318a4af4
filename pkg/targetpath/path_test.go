package targetpath

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", MaxElementBytes)
	deep := strings.Repeat("d/", MaxElements-1)
	tests := []struct {
		name, path string
		want       Reason // "" is allowed
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

		{"empty", "", Empty},
		{"one byte too long", strings.Repeat("x/", 512) + "y", TooLong},
		{"longest element and one", long + "x", ElementTooLong},
		{"long element of wide letters", strings.Repeat("é", 128), ElementTooLong},
		{"deepest and one", deep + "d/f", TooDeep},
		{"absolute", "/etc/passwd", Absolute},
		{"root", "/", Absolute},
		{"double slash first", "//a", Absolute},
		{"double slash", "a//b", EmptyElement},
		{"slash at the end", "a/", EmptyElement},
		{"dot", ".", DotElement},
		{"dot first", "./a", DotElement},
		{"dot inside", "a/./b", DotElement},
		{"dot last", "a/.", DotElement},
		{"parent", "..", DotElement},
		{"parent first", "../a", DotElement},
		{"parent inside", "a/../../b", DotElement},
		{"parent last", "a/..", DotElement},
		{"data link", "..data", ReservedElement},
		{"beneath the data link", "..data/a", ReservedElement},
		{"data directory", "..2026_01_31_12_00_00.0123456789abcdef/a", ReservedElement},
		{"reserved inside", "a/..b", ReservedElement},
		{"three dots", "...", ReservedElement},
		{"backslash", `a\b`, Backslash},
		{"parent with backslash", `..\a`, Backslash},
		{"NUL", "a\x00b", Control},
		{"newline", "a\nb", Control},
		{"escape", "a\x1b[2Jb", Control},
		{"delete", "a\x7f", Control},
		{"C1 control", "a\u0085b", Control},
		{"broken UTF-8", "a\xffb", NotUTF8},
		{"overlong slash", "..\xc0\xafetc", NotUTF8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Validate(tt.path)
			if refused, ok := errors.AsType[*Error](err); ok {
				if refused.Path != tt.path || refused.Reason != tt.want {
					t.Errorf("Validate(%q) = %q, want %q", tt.path, refused.Reason, tt.want)
				}
				if !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x00\n\x1b") || len(err.Error()) > 400 {
					t.Errorf("error text is not fit for a log: %q", err)
				}
			} else if err != nil || tt.want != "" {
				t.Errorf("Validate(%q) = %v, want %q", tt.path, err, tt.want)
			}
		})
	}
}

func TestValidateLengths(t *testing.T) {
	element := strings.Repeat("x", 204)
	longest := strings.Repeat(element+"/", 4) + element // 5*204+4
	if len(longest) != MaxBytes {
		t.Fatalf("the test's path has %d bytes", len(longest))
	}
	if err := Validate(longest); err != nil {
		t.Errorf("a path of %d bytes: %v", len(longest), err)
	}
	want := &Error{Path: longest + "x", Reason: TooLong}
	if diff := cmp.Diff(error(want), Validate(longest+"x")); diff != "" {
		t.Errorf("a path of one byte more (-want +got):\n%s", diff)
	}
}

func TestValidateAll(t *testing.T) {
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
		{"a bad one", []string{"a", "../b"}, &Error{Path: "../b", Reason: DotElement}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ValidateAll(tt.paths)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatalf("ValidateAll (-want +got):\n%s", diff)
			}
			var overlap *OverlapError
			if errors.As(got, &overlap) && (!strings.Contains(got.Error(), overlap.Path) || !strings.Contains(got.Error(), overlap.Other)) {
				t.Errorf("error does not name both paths: %v", got)
			}
		})
	}
}

func FuzzValidate(f *testing.F) {
	for _, p := range []string{"a", "a/b", "../a", "/a", "a//b", "..data/x", "a\\b", "a\x00", "a/..", "…", "é/ü", "a/./b", ".a", "\xff"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		err := Validate(p)
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) || refused.Path != p || refused.Reason == "" {
				t.Fatalf("Validate(%q) = %#v", p, err)
			}
			return
		}
		if !fs.ValidPath(p) || p == "." || !filepath.IsLocal(p) {
			t.Fatalf("%q is allowed, and is no local path", p)
		}
		for element := range strings.SplitSeq(p, "/") {
			if strings.HasPrefix(element, "..") || len(element) > MaxElementBytes {
				t.Fatalf("%q is allowed with element %q", p, element)
			}
		}
		if !utf8.ValidString(p) || strings.ContainsAny(p, "\\\x00\r\n\x7f") || len(p) > MaxBytes {
			t.Fatalf("%q is allowed", p)
		}
		var overlap *OverlapError
		if err := ValidateAll([]string{p, p}); !errors.As(err, &overlap) {
			t.Fatalf("twice %q: %v", p, err)
		}
	})
}

package tokens

import "testing"

func TestVersionNamed(t *testing.T) {
	for name, want := range map[string]version{
		"projects/p/credentials/c/versions/12": {number: 12},
		"12":                                   {number: 12},
		"projects/p/credentials/c/versions/x":  {},
		"":                                     {},
	} {
		if got := versionNamed(name); got != want {
			t.Errorf("%q is %+v, want %+v", name, got, want)
		}
	}
}

// What was known before the watch told anything is of the version that it then
// tells, and is another's when there is another credential of the same name.
func TestVersionIsOther(t *testing.T) {
	first := func(uid string) version { return version{uid: uid, number: 1} }
	v := version{number: 1}
	if v.isOther(version{}) || v.isOther(first("a")) || !v.isOther(version{uid: "a", number: 2}) {
		t.Error("before the uid is known, the number counts")
	}
	if v.identify(version{uid: "b", number: 2}); v != (version{number: 1}) {
		t.Errorf("another version's uid is taken: %+v", v)
	}
	if v.identify(first("a")); v.isOther(first("a")) || !v.isOther(first("b")) {
		t.Error("once it is known, it counts")
	}
	if v.identify(first("b")); !v.isOther(first("b")) {
		t.Errorf("a uid that is known is replaced: %+v", v)
	}
}

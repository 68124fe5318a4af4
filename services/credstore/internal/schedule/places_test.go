package schedule

import "testing"

func TestPlaces(t *testing.T) {
	p := NewPlaces(16)
	take := func(project, name string) (n int) {
		for p.Free(project, name) && n < 100 {
			p.Take(project, name)
			n++
		}
		return n
	}
	for _, test := range []struct {
		project, name string
		want          int
	}{
		{"a", "x", 2},
		{"a", "x", 0},
		{"a", "y", 2},
		{"b", "x", 2}, // the same name in another project is another one
		{"a", "z", 2},
		{"a", "v", 2},
		{"a", "w", 0}, // half of them are the project's
		{"c", "x", 2},
		{"d", "x", 2},
		{"e", "x", 2},
		{"f", "x", 0}, // all are taken
	} {
		if got := take(test.project, test.name); got != test.want {
			t.Errorf("%s/%s gets %d places, want %d", test.project, test.name, got, test.want)
		}
	}
	p.Leave("a", "y")
	if p.Free("a", "x") || !p.Free("a", "w") || !p.Free("f", "x") {
		t.Error("the place that was left is not there for those who may have it, and for them only")
	}
	// What must be done at once takes a place that is not there.
	p.Take("a", "x")
	p.Leave("a", "x")
	for _, left := range []string{"a/x", "a/x", "a/y", "a/z", "a/z", "a/v", "a/v", "b/x", "b/x", "c/x", "c/x", "d/x", "d/x", "e/x", "e/x"} {
		p.Leave(left[:1], left[2:])
	}
	if p.taken != 0 || len(p.of) != 0 {
		t.Errorf("%d places are taken after all were left: %v", p.taken, p.of)
	}
	if small := NewPlaces(1); !small.Free("a", "x") {
		t.Error("one place is nobody's")
	}
}

package inject

import (
	"path"
	"strings"
)

// pathSet holds paths that can be files beside each other.
type pathSet struct {
	files map[string]string // path to the id of its item
	dirs  map[string]string // directory to the id of an item beneath it
}

func newPathSet() *pathSet {
	return &pathSet{files: map[string]string{}, dirs: map[string]string{}}
}

// add adds a valid path for an item, unless it overlaps with one that is there:
// then it returns that one's item.
func (s *pathSet) add(p, id string) (other string, ok bool) {
	if other, taken := s.files[p]; taken {
		return other, false
	}
	if other, taken := s.dirs[p]; taken {
		return other, false
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if other, taken := s.files[dir]; taken {
			return other, false
		}
	}
	s.files[p] = id
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if _, ok := s.dirs[dir]; !ok {
			s.dirs[dir] = id
		}
	}
	return "", true
}

// firstElement returns the name that a path has in the root.
func firstElement(p string) string {
	name, _, _ := strings.Cut(p, "/")
	return name
}

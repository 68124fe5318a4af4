package tokens

import (
	"fmt"
	"strings"
)

// version is one version of a credential. A credential that was deleted and made
// anew counts from 1 again, and has another uid.
type version struct {
	uid    string // "" while unknown
	number uint32 // 0 while unknown
}

// versionNamed reads the number in a version's name; that names no uid.
func versionNamed(name string) version {
	var n uint32
	if _, err := fmt.Sscanf(name[strings.LastIndexByte(name, '/')+1:], "%d", &n); err != nil {
		return version{}
	}
	return version{number: n}
}

// isOther says whether another version is active now, as far as that is known.
func (v version) isOther(active version) bool {
	return active != version{} && (v.number != active.number || v.uid != "" && v.uid != active.uid)
}

// identify takes the uid of the active version, unless that is another one. It is
// for what was known before the watch told any.
func (v *version) identify(active version) {
	if v.uid == "" && v.number == active.number {
		v.uid = active.uid
	}
}

package resourcename

import "strings"

// maxIDLength is the length of the longest id in bytes: that of a DNS label.
const maxIDLength = 63

// idForm is the form of every id; it holds no slash and no colon, so that a
// name cannot be mistaken for another or for a name with a custom verb.
const idForm = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"

// idWant is [Error.Want] of an id alone.
const idWant = "an id"

// ValidateID says whether id can be the last part of a new resource's name: 1
// to 63 characters, lower-case letters, digits and hyphens, beginning with a
// letter and not ending with a hyphen. Its error is an *[Error].
func ValidateID(id string) error {
	if !validID(id) {
		return newError(id, idWant, "1 to 63 characters of the form "+idForm)
	}
	return nil
}

func validID(id string) bool {
	if id == "" || len(id) > maxIDLength {
		return false
	}
	if id[0] < 'a' || id[0] > 'z' || id[len(id)-1] == '-' {
		return false
	}
	for i := range len(id) {
		b := id[i]
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' {
			return false
		}
	}
	return true
}

// cursor reads a name from left to right. What it returns are parts of the
// name's own memory. After the first mismatch it returns zero values.
type cursor struct {
	rest string
	// more says that a slash preceded rest.
	more bool
	bad  bool
}

// id reads "collection/id" and the slash behind it, if there is one.
func (c *cursor) id(collection string) string {
	id := c.part(collection)
	if !validID(id) {
		c.bad = true
	}
	if c.bad {
		return ""
	}
	return id
}

// usageID reads "usages/id", where id may also be that of a derived usage: the
// collection and the id of the resource that causes it, with a dot between.
func (c *cursor) usageID() string {
	id := c.part("usages")
	user := id
	if collection, rest, derived := strings.Cut(id, "."); derived {
		user = rest
		if collection != SecretStores && collection != Injections {
			c.bad = true
		}
	}
	if !validID(user) {
		c.bad = true
	}
	if c.bad {
		return ""
	}
	return id
}

// number reads "collection/number" and the slash behind it, if there is one.
func (c *cursor) number(collection string) uint32 {
	digits := c.part(collection)
	// The bound keeps the sum below far from overflowing.
	if digits == "" || len(digits) > len("4294967295") || digits[0] == '0' {
		c.bad = true
	}
	if c.bad {
		return 0
	}
	var n uint64
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			c.bad = true
			return 0
		}
		n = n*10 + uint64(digits[i]-'0')
	}
	number := uint32(n)
	if uint64(number) != n {
		c.bad = true
		return 0
	}
	return number
}

// collection tells which of two collections comes next, and reads nothing.
func (c *cursor) collection(a, b string) string {
	switch next, _, _ := strings.Cut(c.rest, "/"); next {
	case a:
		return a
	case b:
		return b
	default:
		c.bad = true
		return ""
	}
}

func (c *cursor) part(collection string) string {
	next, rest, found := strings.Cut(c.rest, "/")
	if !found || next != collection {
		c.bad = true
		return ""
	}
	var value string
	value, c.rest, c.more = strings.Cut(rest, "/")
	return value
}

// end says whether the name was read whole, without a mismatch.
func (c *cursor) end() bool { return !c.bad && !c.more }

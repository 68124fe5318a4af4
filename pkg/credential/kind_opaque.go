package credential

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// opaque is named byte strings that nobody here interprets. It has no facts: the
// keys are as secret as the values, since a person may have mixed them up.
var opaque = behaviour[*credentialv1.Opaque]{
	check: func(m *credentialv1.Opaque, r *report) {
		const maxEntries = 1000
		data := m.GetData()
		if len(data) == 0 || len(data) > maxEntries {
			r.add("data", fmt.Sprintf("must have 1 to %s entries; it has %s", thousands(maxEntries), thousands(len(data))))
			return
		}
		var bad []string
		for i, key := range slices.Sorted(maps.Keys(data)) {
			if !isOpaqueKey(key) {
				bad = append(bad, strconv.Itoa(i+1))
			}
		}
		if len(bad) == 0 {
			return
		}
		const maxListed = 10
		list := strings.Join(bad[:min(len(bad), maxListed)], ", ")
		if len(bad) > maxListed {
			list += ", …"
		}
		r.add("data", fmt.Sprintf(
			`must have keys of 1 to 253 characters of [-._a-zA-Z0-9], not starting with ".."; %s of %s are not, by position in sorted order: %s`,
			thousands(len(bad)), thousands(len(data)), list))
	},
	mapKey: isOpaqueKey,
}

// isOpaqueKey says whether key can name an entry: what Kubernetes allows in
// Secrets, so that entries can become files.
func isOpaqueKey(key string) bool {
	if key == "" || len(key) > 253 || strings.HasPrefix(key, "..") {
		return false
	}
	for i := range len(key) {
		b := key[i]
		letter := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
		digit := '0' <= b && b <= '9'
		if !letter && !digit && b != '-' && b != '.' && b != '_' {
			return false
		}
	}
	return true
}

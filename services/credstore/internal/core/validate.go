package core

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/credstore/credstore/pkg/resourcename"
)

// checkID reports an id that a caller chose for a new resource.
func (v *invalid) checkID(field, id string) {
	if err := resourcename.ValidateID(id); err != nil {
		v.add(field, "%s", idHelp(id))
	}
}

func idHelp(id string) string {
	if id == "" {
		return "is required: 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen"
	}
	return "must be 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen"
}

func (v *invalid) checkDescription(field, s string) {
	if n := utf8.RuneCountInString(s); n > MaxDescription {
		v.add(field, "has %d characters; at most %d", n, MaxDescription)
	}
	v.checkText(field, s)
}

// checkText refuses what would garble a terminal or a log.
func (v *invalid) checkText(field, s string) {
	if !utf8.ValidString(s) {
		v.add(field, "must be valid UTF-8")
		return
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			v.add(field, "must not contain control characters")
			return
		}
	}
}

// checkLine is for what others are shown within a line of ours: it must not look
// like another one.
func (v *invalid) checkLine(field, s string) {
	if !utf8.ValidString(s) {
		v.add(field, "must be valid UTF-8")
		return
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		v.add(field, "must be one line of printable characters")
	}
}

// checkLabels is for labels, selectors and attributes, which share one grammar.
func (v *invalid) checkLabels(field string, labels map[string]string) {
	if len(labels) > MaxLabels {
		v.add(field, "has %d entries; at most %d", len(labels), MaxLabels)
		return
	}
	keys := make([]string, 0, len(labels))
	for k := range labels {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if !validLabelKey(k) {
			v.add(field, "key %.70q must be 1 to 63 of a-z, 0-9, - _ . /, beginning with a letter and ending with a letter or digit", k)
		}
		if n := utf8.RuneCountInString(labels[k]); n > MaxLabelValue {
			v.add(field, "the value of %.70q has %d characters; at most %d", k, n, MaxLabelValue)
		}
		v.checkText(field, labels[k])
	}
}

func validLabelKey(k string) bool {
	if len(k) == 0 || len(k) > MaxLabelKey {
		return false
	}
	for i := range len(k) {
		c := k[i]
		letter, digit := c >= 'a' && c <= 'z', c >= '0' && c <= '9'
		mark := c == '-' || c == '_' || c == '.' || c == '/'
		switch {
		case i == 0 && !letter, i == len(k)-1 && !letter && !digit, !letter && !digit && !mark:
			return false
		}
	}
	return true
}

// checkDuration accepts min to max; zero stands for the default and is checked
// by the caller.
func (v *invalid) checkDuration(field string, d, lo, hi time.Duration) {
	if d < lo || d > hi {
		v.add(field, "must be between %s and %s", lo, hi)
	}
}

// checkRotationPeriod accepts 0, which stands for what holds otherwise.
func (v *invalid) checkRotationPeriod(field string, d time.Duration) {
	if d != 0 && (d < MinRotationPeriod || d > MaxRotationPeriod) {
		v.add(field, "must be between 1 day and 10 years, %d to %d seconds", MinRotationPeriod/time.Second, MaxRotationPeriod/time.Second)
	}
}

// checkWorkloadName is for the names that consumers give themselves.
func (v *invalid) checkWorkloadName(field, s string) {
	if len(s) > 253 {
		v.add(field, "has %d characters; at most 253", len(s))
		return
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			v.add(field, "must consist of letters, digits, '-', '_' and '.'")
			return
		}
	}
}

func (v *invalid) checkRequestID(id string) {
	if len(id) > 128 {
		v.add("requestId", "has %d characters; at most 128", len(id))
		return
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			v.add("requestId", "must be visible ASCII characters")
			return
		}
	}
}

func (v *invalid) checkVault(field string, p *VaultProvider) {
	switch u, err := url.Parse(p.Address); {
	case p.Address == "":
		v.add(field+".address", "is required, as https://vault.example.com:8200")
	case err != nil || u.Host == "" || u.Hostname() == "":
		v.add(field+".address", "must be a URL, as https://vault.example.com:8200")
	case u.Scheme != "https" && u.Scheme != "http":
		v.add(field+".address", "must begin with https://")
	case u.Scheme == "http" && !isLoopbackHost(u.Hostname()):
		v.add(field+".address", "must be https: http is for loopback addresses only, since the login would cross the network in clear")
	case u.User != nil:
		v.add(field+".address", "must not contain a user or password")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		v.add(field+".address", "must not have a path, query or fragment: the mount has a field of its own")
	}
	for _, f := range []struct{ name, value string }{{"namespace", p.Namespace}, {"mount", p.Mount}} {
		if len(f.value) > 512 {
			v.add(field+"."+f.name, "has %d characters; at most 512", len(f.value))
		} else if f.value != "" && !cleanPath(f.value) {
			v.add(field+"."+f.name, "must be a path without empty, . or .. elements, spaces, or any of ? # %%")
		}
	}
	if p.CAPEM != "" {
		if err := validCertificates(p.CAPEM); err != nil {
			v.add(field+".caPem", "%s", err)
		}
	}
}

func isLoopbackHost(h string) bool {
	a, err := netip.ParseAddr(h) // a name like 127.example.com is none
	return h == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// cleanPath accepts a path that means the same to every parser on its way.
func cleanPath(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == "" || e == "." || e == ".." {
			return false
		}
	}
	return !strings.ContainsFunc(p, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == utf8.RuneError || strings.ContainsRune(`?#%\`, r)
	})
}

// checkItems checks everything about items that needs no other resource.
func (v *invalid) checkItems(field, project string, items []Item) {
	if len(items) == 0 {
		v.add(field, "needs at least one item")
	}
	if len(items) > MaxItems {
		v.add(field, "has %d items; at most %d", len(items), MaxItems)
		return
	}
	paths := make([]string, 0, len(items))
	index := make(map[string]int, len(items))
	for i, it := range items {
		f := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case it.Credential == nil && it.Secret == nil && it.Mint == nil:
			v.add(f, "needs a source: credential, secret or mint")
		case it.Credential != nil && it.Credential.Name.Project != project:
			v.add(f+".credential.name", "must be in the same project, projects/%s", project)
		case it.Secret != nil && it.Secret.Store.Project != project:
			v.add(f+".secret.store", "must be in the same project, projects/%s", project)
		case it.Mint != nil && it.Mint.Credential.Project != project:
			v.add(f+".mint.credential", "must be in the same project, projects/%s", project)
		}
		if s := it.Secret; s != nil {
			if s.Path == "" {
				v.add(f+".secret.path", "is required")
			} else if len(s.Path) > 1024 || !cleanPath(s.Path) {
				v.add(f+".secret.path", "must be a path of at most 1,024 characters without empty, . or .. elements, spaces, or any of ? # %%")
			}
			if len(s.Key) > 512 {
				v.add(f+".secret.key", "has %d characters; at most 512", len(s.Key))
			}
			v.checkText(f+".secret.key", s.Key)
		}
		if it.Group != "" && resourcename.ValidateID(it.Group) != nil {
			v.add(f+".group", "%s", idHelp(it.Group))
		}
		if it.File.Mode&^0o777 != 0 {
			v.add(f+".file.mode", "must be octal permission bits up to 0777, as \"0400\"")
		}
		if err := validateFilePath(it.File.Path); err != nil {
			v.add(f+".file.path", "%s", err)
			continue
		}
		if j, ok := index[it.File.Path]; ok {
			v.add(f+".file.path", "is the same as %s[%d].file.path", field, j)
			continue
		}
		index[it.File.Path] = i
		paths = append(paths, it.File.Path)
	}
	slices.Sort(paths)
	for _, p := range paths {
		for parent, rest := parentDir(p); rest; parent, rest = parentDir(parent) {
			if j, ok := index[parent]; ok {
				v.add(fmt.Sprintf("%s[%d].file.path", field, index[p]), "lies below %s[%d].file.path, which is a file", field, j)
			}
		}
	}
}

func parentDir(p string) (string, bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", false
	}
	return p[:i], true
}

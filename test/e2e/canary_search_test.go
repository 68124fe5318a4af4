package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Every canary begins with head and ends with rear, so that a part of one is
// found too. Between them are characters that encodings change.
const (
	head = "Xk7qCaNaRyZ9w"
	rear = "mVt4yRaNaC2pK"
)

// canary makes a secret that exists nowhere else. What it is made for is in it,
// for whoever finds it.
var canary = func() func(where string) string {
	var n atomic.Int64
	return func(where string) string {
		return fmt.Sprintf("%s-%s-%d-\"<&>\\/+%%'-%s", head, where, n.Add(1), rear)
	}
}()

// needle is one form in which a secret may lie about.
type needle struct {
	form  string
	bytes []byte
}

// needlesFor are the forms of a secret that logs, databases and error texts are
// likely to give it.
func needlesFor(secret string) []needle {
	b := []byte(secret)
	var wide, unicode, percent, decimal, goBytes []string
	for _, c := range b {
		wide = append(wide, string([]byte{c, 0}))
		unicode = append(unicode, fmt.Sprintf(`\u%04x`, c))
		percent = append(percent, fmt.Sprintf("%%%02X", c))
		decimal = append(decimal, fmt.Sprint(c))
		goBytes = append(goBytes, fmt.Sprintf("%#02x", c))
	}
	out := []needle{
		// Letters and digits stay what they are in JSON, in URLs and in %q.
		{"raw", b},
		{"lower case", bytes.ToLower(b)},
		{"upper case", bytes.ToUpper(b)},
		{"hex", []byte(hex.EncodeToString(b))},
		{"upper-case hex", bytes.ToUpper([]byte(hex.EncodeToString(b)))},
		{"spaced hex", fmt.Appendf(nil, "% x", b)},
		{"UTF-16", []byte(strings.Join(wide, ""))},
		{"JSON escapes", []byte(strings.Join(unicode, ""))},
		{"URL escapes", []byte(strings.Join(percent, ""))},
		{"decimal bytes", []byte(strings.Join(decimal, " "))},
		{"JSON array of bytes", []byte(strings.Join(decimal, ","))},
		{"Go bytes", []byte(strings.Join(goBytes, ", "))},
	}
	for offset := range 3 {
		// The first and the last characters depend on what is around.
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), b...))
		from := (offset*8 + 5) / 6
		to := (offset + len(b)) * 8 / 6
		form := fmt.Sprintf("base64 at offset %d", offset)
		inner := encoded[from:to]
		out = append(out, needle{form, []byte(inner)})
		if url := strings.NewReplacer("+", "-", "/", "_").Replace(inner); url != inner {
			out = append(out, needle{"URL-safe " + form, []byte(url)})
		}
	}
	return out
}

// haystack is everything that may hold no secret.
type haystack struct {
	needles []needle
	texts   syncBuffer // what programs answered and printed
	bytes   int64      // how much was searched
}

func newHaystack(secrets ...string) *haystack {
	h := &haystack{}
	for _, s := range append([]string{head, rear}, secrets...) {
		h.needles = append(h.needles, needlesFor(s)...)
	}
	return h
}

// add keeps a text for the search.
func (h *haystack) add(what string, text any) { h.texts.add(fmt.Sprintf("[%s] %v", what, text)) }

// search returns where b holds a secret.
func (h *haystack) search(b []byte) []string {
	h.bytes += int64(len(b))
	var found []string
	for _, n := range h.needles {
		if i := bytes.Index(b, n.bytes); i >= 0 {
			around := b[max(0, i-150):min(len(b), i+len(n.bytes)+60)]
			found = append(found, fmt.Sprintf("%s: %q", n.form, around))
		}
	}
	return found
}

// searchTree searches every file below dir and returns what is wrong, by path.
// Nothing in the folders and files of skip is looked at.
func (h *haystack) searchTree(t *testing.T, dir string, skip ...string) (files int, found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, s := range skip {
			if path == s {
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, f := range h.search(b) {
			found = append(found, path+": "+f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, found
}

// TestCanarySearch plants a canary in a text, in every form, and finds it.
func TestCanarySearch(t *testing.T) {
	secret := canary("planted")
	rest := []byte(strings.Repeat("time=2026 level=INFO msg=call principal=admin ", 50))
	h := newHaystack()
	if found := h.search(rest); found != nil {
		t.Fatalf("found %q where nothing is", found)
	}
	forms := map[string][]byte{
		"raw": []byte(secret), "quoted": fmt.Appendf(nil, "%q", secret), "decimal": fmt.Appendf(nil, "%v", []byte(secret)),
		"hex": fmt.Appendf(nil, "%x", secret), "HEX": fmt.Appendf(nil, "%X", secret), "spaced": fmt.Appendf(nil, "% x", secret),
		"Go": fmt.Appendf(nil, "%#v", []byte(secret)), "lower": []byte(strings.ToLower(secret)), "upper": []byte(strings.ToUpper(secret)),
		"begin": []byte(secret[:len(head)]), "end": []byte(secret[len(secret)-len(rear):]),
		"JSON": mustJSON(t, map[string]string{"password": secret}),
		"URL":  []byte(escapeURL(secret)),
	}
	for offset := range 6 {
		padded := strings.Repeat("x", offset) + secret + "tail"
		forms[fmt.Sprintf("base64 %d", offset)] = []byte(base64.StdEncoding.EncodeToString([]byte(padded)))
		forms[fmt.Sprintf("URL base64 %d", offset)] = []byte(base64.URLEncoding.EncodeToString([]byte(padded)))
	}
	var every, wide []byte
	for _, c := range []byte(secret) {
		every = fmt.Appendf(every, "%%%02X", c)
		wide = append(wide, c, 0)
	}
	forms["every byte escaped"], forms["UTF-16"] = every, wide
	for form, planted := range forms {
		log := append(append(bytes.Clone(rest), planted...), rest...)
		if h.search(log) == nil {
			t.Errorf("does not find a canary as %s: %.100q", form, planted)
		}
	}
}

package core

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// A page token is base64url of: version 1, the query's hash (8 bytes), the key
// of the last item, and a CRC-32. The sum tells a damaged token from a foreign
// one; neither is a secret, and what a token names is checked like any request.
const pageTokenVersion = 1

var errBadToken = errors.New("malformed token")

func queryHash(parts ...string) [8]byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return [8]byte(h.Sum(nil)[:8])
}

func encodePageToken(query [8]byte, last string) string {
	b := append([]byte{pageTokenVersion}, query[:]...)
	b = append(b, last...)
	return encodeChecked(b)
}

func decodePageToken(token string) (query [8]byte, last string, err error) {
	b, err := decodeChecked(token, 1024)
	if err != nil || len(b) < 9 || b[0] != pageTokenVersion {
		return query, "", errBadToken
	}
	return [8]byte(b[1:9]), string(b[9:]), nil
}

func encodeChecked(b []byte) string {
	sum := crc32.ChecksumIEEE(b)
	b = append(b, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeChecked(token string, limit int) ([]byte, error) {
	if len(token) > limit || strings.ContainsAny(token, "\r\n") { // which the decoder would skip
		return nil, errBadToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 5 {
		return nil, errBadToken
	}
	body, tail := b[:len(b)-4], b[len(b)-4:]
	sum := crc32.ChecksumIEEE(body)
	if [4]byte(tail) != [4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)} {
		return nil, errBadToken
	}
	return body, nil
}

var errForeignPage = invalidField("pageToken", "belongs to another query: keep parent and filter as they were")

// resolve returns the size to use and the key to go on behind. The token must
// come from a query with the same parts.
func (p Page) resolve(prefix string, query [8]byte) (size int, after string, err error) {
	if p.Size < 0 {
		return 0, "", invalidField("pageSize", "must not be negative")
	}
	size = min(p.Size, MaxPageSize)
	if size == 0 {
		size = DefaultPageSize
	}
	if p.Token == "" {
		return size, "", nil
	}
	q, last, err := decodePageToken(p.Token)
	switch {
	case err != nil:
		return 0, "", invalidField("pageToken", "is not a token from this server: pass on nextPageToken as it was received")
	case q != query || !strings.HasPrefix(last, prefix):
		return 0, "", errForeignPage
	}
	return size, last, nil
}

// listPage returns one page of the records below prefix that match.
func listPage[V any](v view, prefix string, page Page, query string, match func(V) bool) ([]V, string, error) {
	return listPages(v, []string{prefix}, page, query, match)
}

// listPages is listPage over the records below several prefixes, one after the
// other. None of them is the beginning of another.
func listPages[V any](v view, prefixes []string, page Page, query string, match func(V) bool) ([]V, string, error) {
	hash := queryHash(append(slices.Clone(prefixes), query)...)
	size, after, err := page.resolve("", hash)
	if err != nil {
		return nil, "", err
	}
	first := slices.IndexFunc(prefixes, func(p string) bool { return strings.HasPrefix(after, p) })
	if after == "" {
		first = 0
	}
	if first < 0 {
		return nil, "", errForeignPage
	}
	var out []V
	var last, next string
	for _, prefix := range prefixes[first:] {
		v.scanAfter(prefix, after, func(key string, e entry) bool {
			r, ok := e.value.(V)
			if !ok || !match(r) {
				return true
			}
			if len(out) == size {
				next = encodePageToken(hash, last)
				return false
			}
			out, last = append(out, r), key
			return true
		})
		if next != "" {
			break
		}
		after = ""
	}
	return out, next, nil
}

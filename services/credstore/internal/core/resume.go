package core

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/credstore/credstore/pkg/resourcename"
)

// A resume token is base64url of: version 1, the feed id (16 bytes), the
// revision and the nonce of its commit (8 bytes each, big endian), the query's
// hash (8 bytes), and a CRC-32. It is a hint and grants nothing.
const resumeTokenVersion = 1

const resumeTokenBytes = 1 + 16 + 8 + 8 + 8

type resumeToken struct {
	feed  [16]byte
	rev   Revision
	nonce uint64
	query [8]byte
}

func (t resumeToken) encode() string {
	b := make([]byte, 0, resumeTokenBytes+4)
	b = append(b, resumeTokenVersion)
	b = append(b, t.feed[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.rev))
	b = binary.BigEndian.AppendUint64(b, t.nonce)
	b = append(b, t.query[:]...)
	return encodeChecked(b)
}

func decodeResumeToken(s string) (resumeToken, error) {
	b, err := decodeChecked(s, 256)
	if err != nil || len(b) != resumeTokenBytes || b[0] != resumeTokenVersion {
		return resumeToken{}, errBadToken
	}
	return resumeToken{
		feed:  [16]byte(b[1:17]),
		rev:   Revision(binary.BigEndian.Uint64(b[17:25])),
		nonce: binary.BigEndian.Uint64(b[25:33]),
		query: [8]byte(b[33:41]),
	}, nil
}

// feedBytes makes 16 bytes of a feed id, whatever form the storage gives it.
func feedBytes(id string) [16]byte {
	if b, err := hex.DecodeString(strings.ReplaceAll(id, "-", "")); err == nil && len(b) == 16 {
		return [16]byte(b)
	}
	h := queryHash(id)
	return [16]byte(append(h[:], h[:]...))
}

// watchQuery identifies what a watch asks for, apart from where it resumes.
func watchQuery(r WatchRequest) [8]byte {
	names := make([]string, len(r.Names))
	for i, n := range r.Names {
		names[i] = n.String()
	}
	slices.Sort(names)
	view := "metadata"
	if r.View == ViewPayload {
		view = "payload"
	}
	return queryHash(append([]string{r.Project.String(), view, r.Filter}, slices.Compact(names)...)...)
}

// resumes decides what a token is worth here: good to go on from, or reset.
// Only one that does not decode is an error.
func (s *Store) resumes(token string, query [8]byte, v view) (Revision, bool, error) {
	if token == "" {
		return 0, false, nil
	}
	t, err := decodeResumeToken(token)
	if err != nil {
		return 0, false, invalidField("resumeToken", "is not a token from a watch: pass on resumeToken as it was received, or leave it out to start over")
	}
	if t.feed != feedBytes(s.feedID) || t.query != query || t.rev > v.rev || t.rev < v.compacted {
		return 0, false, nil
	}
	nonce, ok := s.model.nonceAt(t.rev)
	return t.rev, ok && nonce == t.nonce, nil
}

// tokenAt makes the token for a stream that has reached the revision, or "" when
// the commit is already forgotten.
func (s *Store) tokenAt(rev Revision, query [8]byte) string {
	nonce, ok := s.model.nonceAt(rev)
	if !ok {
		return ""
	}
	return resumeToken{feed: feedBytes(s.feedID), rev: rev, nonce: nonce, query: query}.encode()
}

func credentialOfKey(key string) resourcename.Credential {
	p, _, id, _ := splitIn(key)
	return resourcename.Credential{Project: p, ID: id}
}

package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The names of Signature Version 4.
// Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	terminator = "aws4_request"
)

// signature is what a request says of how it was signed.
type signature struct {
	keyID, date, region, service string
	headers                      []string
	value                        string
	at                           time.Time
	token                        string
	// inQuery says that it is a presigned URL.
	inQuery bool
}

// parseSignature finds the signature in the header or in the query.
func parseSignature(r *http.Request) (signature, *Refusal) {
	incomplete := func(why string) (signature, *Refusal) {
		return signature{}, &Refusal{http.StatusForbidden, "IncompleteSignature", why}
	}
	var s signature
	var credential, signed, at string
	query := r.URL.Query()
	switch header := r.Header.Get("Authorization"); {
	case header != "":
		rest, ok := strings.CutPrefix(header, algorithm+" ")
		if !ok {
			return incomplete("the algorithm is not " + algorithm)
		}
		parts := map[string]string{}
		for part := range strings.SplitSeq(rest, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			parts[name] = value
		}
		credential, signed, s.value = parts["Credential"], parts["SignedHeaders"], parts["Signature"]
		at, s.token = r.Header.Get("X-Amz-Date"), r.Header.Get("X-Amz-Security-Token")
	case query.Get("X-Amz-Algorithm") == algorithm:
		s.inQuery = true
		credential, signed, s.value = query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature")
		at, s.token = query.Get("X-Amz-Date"), query.Get("X-Amz-Security-Token")
	default:
		return signature{}, &Refusal{http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token"}
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != terminator || signed == "" || s.value == "" {
		return incomplete("a part of the signature is missing")
	}
	s.keyID, s.date, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
	s.headers = strings.Split(signed, ";")
	var err error
	if s.at, err = time.Parse(timeFormat, at); err != nil || !strings.HasPrefix(at, s.date) {
		return incomplete("the date is none, or not that of the scope")
	}
	if !slices.Contains(s.headers, "host") {
		return incomplete("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(s.headers, name) {
			return incomplete("'" + name + "' must be a 'SignedHeader' in the AWS Authorization.")
		}
	}
	return s, nil
}

// valid says whether the signature is the one that the secret makes.
func (s signature) valid(r *http.Request, body []byte, secret string) bool {
	canonical := sha256.Sum256([]byte(s.canonical(r, body)))
	scope := strings.Join([]string{s.date, s.region, s.service, terminator}, "/")
	toSign := strings.Join([]string{algorithm, s.at.Format(timeFormat), scope, hex.EncodeToString(canonical[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, terminator} {
		key = mac(key, part)
	}
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(mac(key, toSign))), []byte(s.value)) == 1
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical returns the canonical request.
func (s signature) canonical(r *http.Request, body []byte) string {
	var headers strings.Builder
	for _, name := range s.headers {
		values := r.Header.Values(name)
		if name == "host" {
			values = []string{r.Host}
		}
		var trimmed []string
		for _, v := range values {
			trimmed = append(trimmed, strings.Join(strings.Fields(v), " "))
		}
		headers.WriteString(name + ":" + strings.Join(trimmed, ",") + "\n")
	}
	hash := sha256.Sum256(body)
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	return strings.Join([]string{
		r.Method, path, canonicalQuery(r.URL.Query()), headers.String(), strings.Join(s.headers, ";"), hex.EncodeToString(hash[:]),
	}, "\n")
}

func canonicalQuery(query url.Values) string {
	var pairs []string
	for name, values := range query {
		if name == "X-Amz-Signature" {
			continue
		}
		for _, v := range values {
			pairs = append(pairs, escape(name)+"="+escape(v))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// escape encodes all but the unreserved characters; QueryEscape makes a plus of a
// space.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

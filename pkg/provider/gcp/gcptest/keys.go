package gcptest

import (
	"crypto/rsa"
	"crypto/x509"
	_ "embed" // of the keys
	"encoding/pem"
	"sync/atomic"
	"testing"
)

//go:embed testdata/keys.pem
var keyFile []byte

// keys returns the set of keys; the first signs ID tokens.
func keys(t testing.TB) []*rsa.PrivateKey {
	t.Helper()
	var all []*rsa.PrivateKey
	for block, rest := pem.Decode(keyFile); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		key, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			t.Fatalf("a key is a %T", parsed)
		}
		all = append(all, key)
	}
	return all
}

// taken counts the keys that were handed out, over all servers: two servers must
// not have the same, or a test could not tell them apart.
var taken atomic.Uint32

// nextKey returns the key whose turn it is.
func nextKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	all := keys(t)[1:]
	return all[int(taken.Add(1))%len(all)]
}

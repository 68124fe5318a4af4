package core

import "github.com/credstore/credstore/pkg/resourcename"

// What the tests need to look below the domain: the layout of storage, and what
// its records hold.

// CredentialRecord opens and decodes the record of a credential; ok is false
// for the key of another kind of record.
func CredentialRecord(s Sealer, key string, sealed []byte, rev Revision) (c *Credential, ok bool, err error) {
	if !isCredentialKey(key) {
		return nil, false, nil
	}
	plain, err := s.Open(Place{Key: key}, sealed)
	if err != nil {
		return nil, true, err
	}
	c, err = decodeCredential(credentialOfKey(key), plain, rev)
	return c, true, err
}

// Keys of records.
func KeyOfProject(p resourcename.Project) string       { return keyProject(p) }
func KeyOfCredential(c resourcename.Credential) string { return keyCredential(c) }
func KeyOfStore(s resourcename.SecretStore) string     { return keyStore(s) }
func KeyOfInjection(i resourcename.Injection) string   { return keyInjection(i) }
func KeyOfToken(t resourcename.Token) string           { return keyToken(t) }
func KeyOfUsage(u resourcename.Usage) string           { return keyUsage(u) }
func KeyOfVersion(uid string, version uint32) string   { return keyVersion(uid, version) }
func KeyOfValue(l Locator) string                      { return keyValue(l) }
func UsageOfKey(key string) (resourcename.Usage, bool) { return splitUsage(key) }

// TargetKey is the key of what a usage is of.
func TargetKey(u resourcename.Usage) string { return targetKey(u) }

// Prefixes of keys.
const (
	PrefixUsage   = prefixUsage
	PrefixVersion = prefixVersion
	PrefixIn      = prefixIn
)

// OpenPayload opens the payload in the record of a version.
func OpenPayload(s Sealer, uid string, version uint32, record []byte) ([]byte, error) {
	_, payload, err := cutVersion(record)
	if err != nil {
		return nil, err
	}
	return s.Open(payloadPlace(uid, version), payload)
}

// SealedPayload is the part of a version's record that holds the payload.
func SealedPayload(record []byte) ([]byte, error) {
	_, payload, err := cutVersion(record)
	return payload, err
}

// WithPayload is a version's record with another payload.
func WithPayload(record, payload []byte) ([]byte, error) {
	metadata, _, err := cutVersion(record)
	return joinVersion(metadata, payload), err
}

// HoldReferenceTurn keeps all writes that may add references waiting until
// release is called.
func (s *Store) HoldReferenceTurn() (release func()) {
	s.referenceTurn <- struct{}{}
	return func() { <-s.referenceTurn }
}

package core

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/credstore/credstore/pkg/resourcename"
)

// The layout of storage. What makes a project "not empty" lies below
// in/{project}/; what belongs to a resource without being one lies beside it.
//
//	project/{project}
//	in/{project}/credential/{credential}
//	in/{project}/injection/{injection}
//	in/{project}/store/{secretStore}
//	in/{project}/token/{token}
//	version/{credential uid}/{version}      metadata and payload, sealed apart
//	usage/{project}/credential/{credential}/{usage}
//	usage/{project}/store/{secretStore}/{usage}
//	usage/{project}/reference/{credential}/{usage}   by other credentials
//	value/{project}/{secretStore uid}/{locator}
//	minted/{project}/{credential uid}/{digest of the request}
//	request/{project}/{digest}
//	guard/{project}
//	guard/{project}/references
//	gone/{project}/{credential}             what watchers are told of a deleted one
//	seal/keys
const (
	prefixProject = "project/"
	prefixIn      = "in/"
	prefixVersion = "version/"
	prefixUsage   = "usage/"
	prefixValue   = "value/"
	prefixMinted  = "minted/"
	prefixRequest = "request/"
	prefixGuard   = "guard/"
	prefixGone    = "gone/"
	// KeySeal holds the sealer's wrapped keys, the one record that is not
	// sealed by the sealer.
	KeySeal = "seal/keys"

	kindCredential = "credential/"
	kindInjection  = "injection/"
	kindStore      = "store/"
	kindToken      = "token/"
	// kindReference is only in the keys of usages.
	kindReference = "reference/"
)

func keyProject(p resourcename.Project) string { return prefixProject + p.ID }

func keyGone(c resourcename.Credential) string { return prefixGone + c.Project + "/" + c.ID }

// keyReferenceGuard is changed whenever a credential of the project comes to refer
// to another.
func keyReferenceGuard(project string) string { return prefixGuard + project + "/references" }

// keyGuard is changed with every change of the project's injections.
func keyGuard(project string) string { return prefixGuard + project }

func keyIn(project string) string { return prefixIn + project + "/" }

func keyCredential(c resourcename.Credential) string {
	return prefixIn + c.Project + "/" + kindCredential + c.ID
}

func keyInjection(i resourcename.Injection) string {
	return prefixIn + i.Project + "/" + kindInjection + i.ID
}

func keyStore(s resourcename.SecretStore) string {
	return prefixIn + s.Project + "/" + kindStore + s.ID
}

func keyToken(t resourcename.Token) string {
	return prefixIn + t.Project + "/" + kindToken + t.ID
}

// prefixVersions is where the versions of one credential lie.
func prefixVersions(uid string) string { return prefixVersion + uid + "/" }

// keyVersion pads the number so that keys sort by it.
func keyVersion(uid string, version uint32) string {
	return fmt.Sprintf("%s%s/%010d", prefixVersion, uid, version)
}

// splitVersion takes version/{credential uid}/{version} apart.
func splitVersion(key string) (uid string, version uint32, ok bool) {
	uid, digits, ok := strings.Cut(strings.TrimPrefix(key, prefixVersion), "/")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uid, uint32(n), ok && err == nil
}

// prefixUsages is where the usages of one credential or secret store lie.
func prefixUsages(u resourcename.Usage) string {
	kind := kindCredential
	if u.Collection == resourcename.SecretStores {
		kind = kindStore
	}
	return prefixUsage + u.Project + "/" + kind + u.Resource + "/"
}

// prefixReferrers is where the usages by other credentials lie. They are kept
// apart so that a batch can delete a credential together with those that refer
// to it, and still assert that nothing else uses it.
func prefixReferrers(u resourcename.Usage) string {
	return prefixUsage + u.Project + "/" + kindReference + u.Resource + "/"
}

func keyUsage(u resourcename.Usage) string {
	if u.Collection == resourcename.Credentials && strings.HasPrefix(u.ID, derivedID(resourcename.Credentials, "")) {
		return prefixReferrers(u) + u.ID
	}
	return prefixUsages(u) + u.ID
}

// keyValue hashes the path, which may hold any character.
func keyValue(l Locator) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", l.Version, l.Path))
	return prefixValue + l.Project + "/" + l.StoreUID + "/" + hex.EncodeToString(sum[:16])
}

// prefixMintedOf is where the tokens minted from one credential lie.
func prefixMintedOf(project, uid string) string { return prefixMinted + project + "/" + uid + "/" }

func keyMinted(l TokenLocator) string { return prefixMintedOf(l.Project, l.CredentialUID) + l.Request }

// keyRequest is separate for each principal and method, so that callers cannot
// collide with, or probe for, each other's ids.
func keyRequest(project string, principal *Principal, method, id string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %d %s %d %s %s", len(principal.Name), principal.Name, len(principal.TokenUID), principal.TokenUID, len(method), method, id))
	return prefixRequest + project + "/" + hex.EncodeToString(sum[:16])
}

func usageTarget(c resourcename.Credential) resourcename.Usage {
	return resourcename.Usage{Project: c.Project, Collection: resourcename.Credentials, Resource: c.ID}
}

func storeUsageTarget(s resourcename.SecretStore) resourcename.Usage {
	return resourcename.Usage{Project: s.Project, Collection: resourcename.SecretStores, Resource: s.ID}
}

// derivedID names the usage that a resource causes. The dot keeps it apart from
// declared ids, which cannot hold one.
func derivedID(collection, id string) string { return collection + "." + id }

// splitIn takes in/{project}/{kind}/{id} apart; kind keeps its slash.
func splitIn(key string) (project, kind, id string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefixIn)
	if !ok {
		return "", "", "", false
	}
	project, rest, ok = strings.Cut(rest, "/")
	if !ok {
		return "", "", "", false
	}
	kind, id, ok = strings.Cut(rest, "/")
	return project, kind + "/", id, ok
}

// splitUsage takes usage/{project}/{kind}/{resource}/{usage} apart.
func splitUsage(key string) (resourcename.Usage, bool) {
	parts := strings.Split(strings.TrimPrefix(key, prefixUsage), "/")
	if len(parts) != 4 {
		return resourcename.Usage{}, false
	}
	u := resourcename.Usage{Project: parts[0], Collection: resourcename.Credentials, Resource: parts[2], ID: parts[3]}
	if parts[1]+"/" == kindStore {
		u.Collection = resourcename.SecretStores
	}
	return u, true
}

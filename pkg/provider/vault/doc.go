// Package vault owns the dealings with HashiCorp Vault: logging in (by each method
// of the kind vault), keeping the login alive, verifying it, and reading the
// key-value engine, version 2. It does not decide when to read or retry; that is
// for its callers, with a provider.Client or provider.VendorClient.
//
// It goes through Vault's own client, but takes nothing from the environment: no
// VAULT_ variable changes where a login is sent, as whom, or what is trusted. The
// only file that it reads is the token of the server's service account, for logins
// by Kubernetes. Redirects are not followed, since they would take the token along
// to an address that nobody chose; name a standby's active node, or a load
// balancer.
package vault

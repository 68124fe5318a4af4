// Package vault owns the dealings with HashiCorp Vault: logging in (by token or
// AppRole), keeping the login alive, and reading the key-value engine, version 2.
// It does not decide when to read or retry; that is for its callers, with a
// provider.Client.
//
// It goes through Vault's own client, but takes nothing from the environment: no
// VAULT_ variable changes where a login is sent, as whom, or what is trusted.
// Redirects are not followed, since they would take the token along to an address
// that nobody chose; name a standby's active node, or a load balancer.
package vault

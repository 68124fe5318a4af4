// Package azure owns the dealings with Microsoft Entra ID and what hangs on it:
// it verifies service principals, managed identities and workload identities by
// asking for a token, and mints access tokens, logins to Azure Container
// Registry and credentials for AKS clusters. It caches no token, reads no
// configuration of the Azure CLI, and does not decide which identity of the
// server a project may use.
//
// Tokens for applications come through azidentity, with a credential of its own
// for each call, since such a credential keeps the tokens that it was given. Its
// connections go through the guard of package provider, to the authority of the
// credential's cloud and to nobody else: instance discovery, which asks a further
// host whether an authority is one, is off, because the credential's kind admits
// the known authorities only. Retries are off as well, since who calls this
// package has its own.
//
// Tokens for managed identities are one GET of the machine's metadata service,
// made here: azidentity's credential for them keeps tokens in a cache of the
// whole process, out of which Verify would be answered long after the identity
// was taken away.
package azure

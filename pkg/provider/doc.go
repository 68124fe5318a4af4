// Package provider owns what all vendors of credentials and all external secret
// stores have in common: the small interfaces that a vendor's package
// implements, the errors that tell their answers apart, the guard of outgoing
// addresses, and the client that puts deadlines, retries, a rate limit, a
// circuit breaker and metrics around a session. It knows no vendor (each has a
// package below this one), polls nothing and stores nothing.
//
// A vendor of credentials has a [Verifier] and, if it issues short-lived tokens,
// a [Minter]. A secret store starts at one method, [Session]; further abilities
// are the optional interfaces [Identifier], [Renewer] and [Closer], found by
// assertion. Package providertest holds the suites that every vendor runs.
package provider

// Package issuer owns the calls to the vendors of credentials and the tokens that
// they made: it asks whether a credential works, keeps each token that a call
// minted until it is nearly over, and keeps the tokens that injections want
// minted. It stores nothing itself (the domain commits the tokens of injections,
// and sends them to workloads), decides nobody's permission, and knows no vendor:
// the wiring hands it one for each kind.
//
// Tokens that calls asked for live in memory only, one for each version of a
// credential and request. However many ask at a time, the vendor is asked once.
// Tokens for injections are made apart from those, so that neither kind is ever
// handed out as the other.
package issuer

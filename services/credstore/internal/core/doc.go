// Package core owns the domain of credstore: projects, credentials and their
// versions, secret stores, injections, sets, usages, tokens, and the Watch
// that tells of their changes. It decides what is allowed and what a change
// means; it knows no transport, no SQL and no vendor. What it needs from those
// it declares here as ports (Storage, Sealer, Auditor, Authorizer, …) and the
// wiring in package app hands it the implementations.
package core

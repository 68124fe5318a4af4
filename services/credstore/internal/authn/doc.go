// Package authn owns the question who is calling: it takes the bearer token out
// of a call, bounds guessing per network address, and puts the principal into
// the context. It does not know tokens themselves (package core looks them up)
// and decides nothing about what a principal may do.
package authn

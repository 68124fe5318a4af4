// Package authz owns the decision who may do what: one table of roles and
// permissions, read top to bottom. It does not know who is calling (package
// authn), nor what a call does (package core asks it on every one).
package authz

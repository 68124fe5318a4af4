// Package offline owns the verification of credentials about which nobody needs
// to be asked: what they are worth stands in them. It connects to nobody.
package offline

// Package jsoncheck owns the strict reading of JSON that is to become a message
// of the contract: it finds what does not fit, and names it by its path, with
// what was meant or wanted, and never with a value, which may be a secret. It
// decides nothing about what the values mean: that is the server's.
package jsoncheck

// Package e2e owns the tests that need the two real programs: it builds them,
// runs them, kills them, traces them and fills their disks. It does not test
// what a package can show by itself, and it has no code besides its tests.
//
// They are short by default; CREDSTORE_FAULTS=full gives them the length that
// a release needs, and makes a missing tool a failure.
package e2e

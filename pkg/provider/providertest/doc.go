// Package providertest owns the suite that every vendor's package runs, and an
// external store in memory for the tests of what uses sessions. It is for tests,
// and no part of what is shipped.
package providertest

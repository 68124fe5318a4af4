// Package storagetest owns the contract of core.Storage in executable form: Run
// is the suite that every backend passes, and Faulty makes a working Storage
// fail on demand. It has no fake of its own: the embedded backend in a
// temporary directory is fast enough to be used in other packages' tests.
package storagetest

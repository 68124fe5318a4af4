// Package docs owns the test that compares this folder, and the documents at the
// top of the repository, with the code. It has no code of its own.
package docs

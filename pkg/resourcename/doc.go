// Package resourcename owns the names of resources: their forms, parsing and
// printing. It does not know whether a resource exists, or who may use it.
//
// Every name type is comparable, so that it can be the key of a map, and is
// either what a Parse function returned or put together from parts that
// [ValidateID] accepted. The zero value of each is no name: its String is not
// accepted by the Parse function.
package resourcename

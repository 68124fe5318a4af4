// Package grpcapi owns the gRPC side of the contract: the servers, the steps
// that every call passes (calls.go), the translation between messages and the
// domain's types, and the one place where a status code is decided (status.go).
// It holds no rule of the domain, and does not know how callers are
// authenticated: package app hands that in.
//
// Handlers read as parse, call, convert. A call and a stream pass the same
// steps, because here every method is registered as a stream: a call is one that
// receives a message and sends a message, which is the same on the wire. So the
// steps run before anything of a message is read or decoded, and their answers
// to bad messages are ours.
package grpcapi

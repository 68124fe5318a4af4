// Package gateway owns the REST side of the contract: it checks HTTP requests
// strictly against the contract and hands them, over a connection inside the
// process, to the gRPC server, where the same steps run as for any call. It
// holds no rule of the domain and decides no status of a call.
//
// What a client meets, in this order:
//
//   - /healthz (the process is alive), /readyz (it can serve) and /openapi.json
//     need no authentication and tell nothing about this installation.
//   - Everything else is authenticated before the path is looked at or a byte of
//     the body is read.
//   - The path must be one of the contract's, without percent-encoding, which no
//     name needs: 404, and 405 with Allow when only the method is wrong. HEAD is
//     not a method of the contract; OPTIONS answers 204 with Allow.
//   - A body is application/json of at most 1 MiB and refused by its announced
//     length where there is one; only methods whose rule has a body take one.
//   - Query parameters and every field of the body must be the contract's, once,
//     and of the right type. What is wrong is named by its JSON path, never
//     repeated: 400 with a google.rpc.BadRequest.
//   - Of the headers only Authorization and Traceparent go on.
//   - A refusal that leaves the body unread ends the connection on HTTP/1. On
//     HTTP/2 it ends the request alone, a moment after the answer: until then at
//     most as much as an accepted body is thrown away.
//
// Answers are protobuf's JSON: lowerCamel names, enums by name, 64-bit integers
// as strings, fields that are empty left out. Errors are a google.rpc.Status:
// {"code", "message", "details"}, with an ErrorInfo among the details. Streams
// are one JSON object per line, {"result": …}; an error that ends one after it
// began is the last line, {"error": …}.
package gateway

// Package openapi owns the OpenAPI description of the REST side, as generated
// from the proto contract. It holds no code of its own.
package openapi

import _ "embed"

// JSON is the description, in OpenAPI 2.0.
//
//go:embed credstore.swagger.json
var JSON []byte

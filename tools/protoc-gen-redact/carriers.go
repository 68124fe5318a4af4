package main

import (
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// carriers remembers which messages carry secret material.
type carriers map[protoreflect.FullName]bool

// carry says whether m can hold a field with option debug_redact, at any depth.
func (c carriers) carry(m *protogen.Message) bool {
	name := m.Desc.FullName()
	if known, ok := c[name]; ok {
		return known
	}
	c[name] = c.search(m, map[protoreflect.FullName]bool{})
	return c[name]
}

// search looks at m and all that it can hold, each message once: messages may be
// recursive.
func (c carriers) search(m *protogen.Message, seen map[protoreflect.FullName]bool) bool {
	name := m.Desc.FullName()
	if seen[name] {
		return false
	}
	seen[name] = true
	for _, field := range m.Fields {
		// A map's field holds an entry message, whose fields are searched too.
		if secret(field) || field.Message != nil && c.search(field.Message, seen) {
			return true
		}
	}
	return false
}

// secret says whether a field has the option debug_redact.
func secret(field *protogen.Field) bool {
	options, ok := field.Desc.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}

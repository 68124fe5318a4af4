package grpcapi

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// encoded is a message in its binary form, in parts that follow each other.
// Parts may be shared between streams and are never changed.
type encoded [2][]byte

// received is what a stream receives into. Errors stay in it: those that
// RecvMsg returns are answered by gRPC itself, before we can say more.
type received struct {
	message any
	err     error
}

// codec is gRPC's protobuf codec that passes encoded messages on as they are
// and bounds what is received. gRPC compresses behind it, per stream.
type codec struct{ encoding.CodecV2 }

func newCodec() (codec, error) {
	standard := encoding.GetCodecV2(protocodec.Name)
	if standard == nil {
		return codec{}, fmt.Errorf("gRPC has no codec %q", protocodec.Name)
	}
	return codec{standard}, nil
}

// Marshal encodes a message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	e, ok := v.(*encoded)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, 0, len(e))
	for _, part := range e {
		if len(part) > 0 {
			out = append(out, mem.SliceBuffer(part))
		}
	}
	return out, nil
}

// Unmarshal decodes a message.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if size := data.Len(); size > maxReceive {
		r.err = &limitError{
			reason:  ReasonMessageTooLarge,
			message: fmt.Sprintf("the message has %d bytes; at most %d are accepted", size, maxReceive),
		}
		return nil
	}
	if c.CodecV2.Unmarshal(data, r.message) != nil {
		r.err = &core.Error{
			Kind: core.ErrInvalid, Reason: ReasonMessageMalformed,
			Message: "the message is no valid encoding of what this method takes, or holds text that is not UTF-8",
		}
	}
	return nil
}

// encode is the standard encoding, for parts.
func encode(m proto.Message) ([]byte, error) { return proto.Marshal(m) }

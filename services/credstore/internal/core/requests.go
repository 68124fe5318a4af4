package core

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
)

// requestMemory is how long a request_id is remembered.
const requestMemory = 24 * time.Hour

// request is what is remembered of a mutation that carried a request_id.
type request struct {
	digest   [32]byte
	name     string
	response []byte
	time     time.Time
	rev      Revision
}

func decodeRequest(b []byte, rev Revision) (*request, error) {
	var m recordv1.Request
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if len(m.GetDigest()) != 32 {
		return nil, errors.New("digest is not 32 bytes")
	}
	return &request{
		digest: [32]byte(m.GetDigest()), name: m.GetName(), response: m.GetResponse(),
		time: unstamp(m.GetTime()), rev: rev,
	}, nil
}

// result is how a mutation ended: fresh, or as an earlier call with the same
// request_id did.
type result struct {
	rev Revision
	// replayed is what the earlier call left, nil for a fresh one.
	replayed *request
}

// change is mutate for a call of the contract: with its request_id, if it has
// one, the change happens once however often the call is repeated.
func (s *Store) change(ctx context.Context, m Mutation, method, project string, planFn func(view) (*plan, error)) (result, error) {
	var v invalid
	v.checkRequestID(m.RequestID)
	if err := v.err(); err != nil {
		return result{}, err
	}
	if m.RequestID == "" || m.ValidateOnly {
		rev, err := s.mutate(ctx, m.ValidateOnly, planFn)
		return result{rev: rev}, err
	}
	key := keyRequest(project, PrincipalFrom(ctx), method, m.RequestID)
	var replayed *request
	errReplayed := errors.New("replayed")
	rev, err := s.mutate(ctx, false, func(v view) (*plan, error) {
		old, oldRev, known := lookup[*request](v, key)
		if known && time.Since(old.time) < requestMemory {
			if old.digest != m.Digest {
				return nil, &InvalidError{Reason: ReasonRequestIDReused, Violations: []FieldViolation{{
					"requestId", "was used for another request within the last 24 hours: choose a new one",
				}}}
			}
			replayed = old
			return nil, errReplayed
		}
		p, err := planFn(v)
		if err != nil {
			return nil, err
		}
		if known {
			p.require(AtRevision, key, oldRev)
		} else {
			p.require(Absent, key, 0)
		}
		rec := &recordv1.Request{Digest: m.Digest[:], Name: p.name, Time: timestamppb.Now()}
		if p.response != nil {
			if rec.Response, err = marshal(p.response); err != nil {
				return nil, err
			}
		}
		return p, s.put(p, key, rec)
	})
	if errors.Is(err, errReplayed) {
		return result{rev: replayed.rev, replayed: replayed}, nil
	}
	return result{rev: rev}, err
}

// answered says whether the call was made before, as far as this server knows,
// so that it will be answered as it was then.
func (s *Store) answered(ctx context.Context, m Mutation, method, project string) bool {
	if m.RequestID == "" {
		return false
	}
	old, _, ok := lookup[*request](s.model, keyRequest(project, PrincipalFrom(ctx), method, m.RequestID))
	return ok && time.Since(old.time) < requestMemory
}

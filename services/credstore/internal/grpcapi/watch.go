package grpcapi

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func (s credentialService) Watch(r *credstorev1.WatchRequest, stream grpc.ServerStreamingServer[credstorev1.WatchResponse]) error {
	request, err := watchRequest(r)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	watch, err := s.store.Watch(ctx, request)
	if err != nil {
		return err
	}
	defer watch.Close()
	for {
		event, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		message, err := encodeEvent(event)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

func watchRequest(r *credstorev1.WatchRequest) (core.WatchRequest, error) {
	var p parser
	out := core.WatchRequest{
		Project:     name(&p, "parent", r.GetParent(), resourcename.ParseProject),
		Filter:      r.GetFilter(),
		ResumeToken: r.GetResumeToken(),
		Heartbeat:   p.duration("heartbeatInterval", r.GetHeartbeatInterval()),
		Consumer:    r.GetConsumer(),
	}
	switch r.GetView() {
	case credstorev1.WatchRequest_VIEW_UNSPECIFIED, credstorev1.WatchRequest_METADATA:
		out.View = core.ViewMetadata
	case credstorev1.WatchRequest_PAYLOAD:
		out.View = core.ViewPayload
	default:
		p.add("view", "must be METADATA or PAYLOAD")
	}
	if len(r.GetNames()) > core.MaxWatchNames {
		p.add("names", fmt.Sprintf("has %d entries; at most %d", len(r.GetNames()), core.MaxWatchNames))
	} else {
		out.Names = names(&p, "names", r.GetNames(), resourcename.ParseCredential)
	}
	return out, p.err()
}

// Field numbers of WatchResponse and its Commit; a test compares them with the
// contract.
const (
	fieldCommit       = 2
	fieldRevision     = 5
	fieldResumeToken  = 6
	fieldFromRevision = 2 // of Commit
)

// encodeEvent returns a WatchResponse in two parts. The first, the changes of a
// commit, is encoded once for all streams that see the same; the second is the
// stream's own. Both hold a part of the field commit: decoders merge the
// occurrences of an embedded message (protobuf's encoding guide, "Last One
// Wins"), so what they see is one message.
func encodeEvent(e core.WatchEvent) (*encoded, error) {
	var out encoded
	var own []byte
	switch e.Kind {
	case core.EventReset:
		return encodeWhole(&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Reset_{Reset_: &credstorev1.WatchResponse_Reset{}}}, e)
	case core.EventSynced:
		return encodeWhole(&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Synced_{Synced: &credstorev1.WatchResponse_Synced{}}}, e)
	case core.EventHeartbeat:
		return encodeWhole(&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Heartbeat_{Heartbeat: &credstorev1.WatchResponse_Heartbeat{}}}, e)
	case core.EventCommit:
		shared, err := e.Commit.Encoded(encodeChanges)
		if err != nil {
			return nil, fmt.Errorf("encode changes: %w", err)
		}
		out[0] = shared
		own = make([]byte, 0, 32+len(e.ResumeToken))
		if e.FromRevision != 0 {
			own = protowire.AppendTag(own, fieldCommit, protowire.BytesType)
			own = protowire.AppendVarint(own, uint64(1+protowire.SizeVarint(uint64(e.FromRevision))))
			own = protowire.AppendTag(own, fieldFromRevision, protowire.VarintType)
			own = protowire.AppendVarint(own, uint64(e.FromRevision))
		}
	default:
		return nil, fmt.Errorf("event of kind %d", e.Kind)
	}
	if e.Revision != 0 {
		own = protowire.AppendTag(own, fieldRevision, protowire.VarintType)
		own = protowire.AppendVarint(own, uint64(e.Revision))
	}
	if e.ResumeToken != "" {
		own = protowire.AppendTag(own, fieldResumeToken, protowire.BytesType)
		own = protowire.AppendString(own, e.ResumeToken)
	}
	out[1] = own
	return &out, nil
}

// encodeWhole encodes an event without changes.
func encodeWhole(m *credstorev1.WatchResponse, e core.WatchEvent) (*encoded, error) {
	m.Revision, m.ResumeToken = uint64(e.Revision), e.ResumeToken
	b, err := encode(m)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return &encoded{b}, nil
}

// encodeChanges encodes the part of an event that streams share.
func encodeChanges(changes []core.CredentialChange) ([]byte, error) {
	return encode(&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Commit_{
		Commit: &credstorev1.WatchResponse_Commit{Changes: convertAll(changes, changeMessage)},
	}})
}

// changeMessage is secret: it holds a payload in view PAYLOAD.
func changeMessage(c core.CredentialChange) *credstorev1.Change {
	switch c.Type {
	case core.ChangePut:
		return &credstorev1.Change{Type: credstorev1.Change_PUT, Credential: credentialMessage(c.Credential), Payload: c.Payload.Message()}
	case core.ChangeDelete:
		return &credstorev1.Change{Type: credstorev1.Change_DELETE, Credential: nameOnly(c.Credential)}
	case core.ChangeLeftFilter:
		return &credstorev1.Change{Type: credstorev1.Change_LEFT_FILTER, Credential: nameOnly(c.Credential)}
	}
	return &credstorev1.Change{Credential: nameOnly(c.Credential)}
}

func nameOnly(c *core.Credential) *credstorev1.Credential {
	return &credstorev1.Credential{Name: c.Name.String(), Uid: c.UID}
}

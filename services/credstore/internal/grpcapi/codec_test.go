package grpcapi

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

func TestFieldNumbers(t *testing.T) {
	response := (&credstorev1.WatchResponse{}).ProtoReflect().Descriptor().Fields()
	commit := (&credstorev1.WatchResponse_Commit{}).ProtoReflect().Descriptor().Fields()
	for _, test := range []struct {
		name      string
		got, want int
	}{
		{"commit", fieldCommit, int(response.ByName("commit").Number())},
		{"revision", fieldRevision, int(response.ByName("revision").Number())},
		{"resume_token", fieldResumeToken, int(response.ByName("resume_token").Number())},
		{"from_revision", fieldFromRevision, int(commit.ByName("from_revision").Number())},
	} {
		if test.got != test.want {
			t.Errorf("%s is %d, the contract says %d", test.name, test.got, test.want)
		}
	}
}

func samplePayload(t *testing.T) credential.Payload {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: "t0k"}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEventsAreWhatTheContractSays(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	name := resourcename.Credential{Project: "p", ID: "c"}
	put := core.CredentialChange{
		Type:       core.ChangePut,
		Credential: &core.Credential{Name: name, UID: "u", Kind: "apiToken", ActiveVersion: 1, Facts: map[string]string{"k": "v"}},
		Payload:    samplePayload(t),
	}
	gone := core.CredentialChange{Type: core.ChangeDelete, Credential: &core.Credential{Name: name, UID: "u", Description: "not told"}}
	left := core.CredentialChange{Type: core.ChangeLeftFilter, Credential: &core.Credential{Name: name, UID: "u"}}
	nameAndUID := &credstorev1.Credential{Name: "projects/p/credentials/c", Uid: "u"}
	for label, test := range map[string]struct {
		event  core.WatchEvent
		want   *credstorev1.WatchResponse
		golden string
	}{
		"reset": {
			core.WatchEvent{Kind: core.EventReset, Revision: 7},
			&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Reset_{Reset_: &credstorev1.WatchResponse_Reset{}}, Revision: 7},
			"28070a00",
		},
		"synced": {
			core.WatchEvent{Kind: core.EventSynced, Revision: 7, ResumeToken: "r"},
			&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Synced_{Synced: &credstorev1.WatchResponse_Synced{}}, Revision: 7, ResumeToken: "r"},
			"28073201721a00",
		},
		"heartbeat": {
			core.WatchEvent{Kind: core.EventHeartbeat, Revision: 7, ResumeToken: "r"},
			&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Heartbeat_{Heartbeat: &credstorev1.WatchResponse_Heartbeat{}}, Revision: 7, ResumeToken: "r"},
			"28073201722200",
		},
		"delete": {
			core.WatchEvent{Kind: core.EventCommit, FromRevision: 300, Revision: 301, ResumeToken: "r", Commit: &core.CredentialCommit{Changes: []core.CredentialChange{gone}}},
			&credstorev1.WatchResponse{
				Event: &credstorev1.WatchResponse_Commit_{Commit: &credstorev1.WatchResponse_Commit{
					FromRevision: 300, Changes: []*credstorev1.Change{{Type: credstorev1.Change_DELETE, Credential: nameAndUID}},
				}}, Revision: 301, ResumeToken: "r",
			},
			"12230a210802121d0a1870726f6a656374732f702f63726564656e7469616c732f63120175" + "120310ac02" + "28ad02" + "320172",
		},
		"put": {
			core.WatchEvent{Kind: core.EventCommit, FromRevision: 1 << 40, Revision: 1<<64 - 1, ResumeToken: "r", Commit: &core.CredentialCommit{Changes: []core.CredentialChange{put, left}}},
			&credstorev1.WatchResponse{
				Event: &credstorev1.WatchResponse_Commit_{Commit: &credstorev1.WatchResponse_Commit{
					FromRevision: 1 << 40,
					Changes: []*credstorev1.Change{
						{
							Type:       credstorev1.Change_PUT,
							Credential: &credstorev1.Credential{Name: "projects/p/credentials/c", Uid: "u", Kind: "apiToken", ActiveVersion: 1, Facts: map[string]string{"k": "v"}},
							Payload:    &credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: "t0k"}}},
						},
						{Type: credstorev1.Change_LEFT_FILTER, Credential: nameAndUID},
					},
				}}, Revision: 1<<64 - 1, ResumeToken: "r",
			},
			"",
		},
		"first, without token": {
			core.WatchEvent{Kind: core.EventCommit, Revision: 3, Commit: &core.CredentialCommit{}},
			&credstorev1.WatchResponse{Event: &credstorev1.WatchResponse_Commit_{Commit: &credstorev1.WatchResponse_Commit{}}, Revision: 3},
			"12002803",
		},
	} {
		t.Run(label, func(t *testing.T) {
			e, err := encodeEvent(test.event)
			if err != nil {
				t.Fatal(err)
			}
			wire, err := c.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			b := wire.Materialize()
			if got := hex.EncodeToString(b); test.golden != "" && got != test.golden {
				t.Errorf("bytes are\n%s, want\n%s", got, test.golden)
			}
			got := &credstorev1.WatchResponse{}
			if err := proto.Unmarshal(b, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("decoded (-want +got)\n%s", diff)
			}
			// Another decoder, of a program that knows no field numbers of ours:
			// what it encodes again is the standard encoding.
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(test.want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain, again); diff != "" {
				t.Errorf("encoded again (-want +got)\n%s", diff)
			}
		})
	}
}

func TestChangesAreEncodedOnce(t *testing.T) {
	commit := &core.CredentialCommit{Changes: []core.CredentialChange{{Type: core.ChangeDelete, Credential: &core.Credential{}}}}
	a, err := encodeEvent(core.WatchEvent{Kind: core.EventCommit, FromRevision: 1, Revision: 2, ResumeToken: "a", Commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	b, err := encodeEvent(core.WatchEvent{Kind: core.EventCommit, FromRevision: 0, Revision: 2, ResumeToken: "b", Commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	if &a[0][0] != &b[0][0] {
		t.Error("two streams encoded the same changes")
	}
}

func TestCodecIsTheStandardOneOtherwise(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	if c.Name() != "proto" {
		t.Errorf("name is %q", c.Name())
	}
	want := &credstorev1.Project{Name: "projects/p"}
	wire, err := c.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &credstorev1.Project{}
	if err := c.Unmarshal(wire, got); err != nil || !proto.Equal(want, got) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := c.Marshal("no message"); err == nil {
		t.Error("a string was encoded")
	}
	r := &received{message: &credstorev1.Project{}}
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer("\xff\xff")}, r); err != nil || r.err == nil {
		t.Errorf("malformed bytes: %v, kept %v", err, r.err)
	}
	r = &received{message: &credstorev1.Project{}}
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(make([]byte, maxReceive)), mem.SliceBuffer{0}}, r); err != nil || r.err == nil {
		t.Errorf("too large: %v, kept %v", err, r.err)
	}
}

func TestSetMessage(t *testing.T) {
	item := func(id string) core.SetItem {
		return core.SetItem{
			ID: id, Injection: resourcename.Injection{Project: "p", ID: "i"}, File: core.FileTarget{Path: "f", Mode: 0o400},
			Digest: "d", State: core.ItemOK, Version: "v",
		}
	}
	m := setMessage(&core.SetUpdate{
		Revision: 9, Whole: true, Items: []core.SetItem{item("i/a"), item("i/b"), item("i/c")},
		Contents: map[string][]byte{"i/a": []byte("x"), "i/b": nil}, Removed: []string{"i/z"},
	})
	if m.GetItems()[0].GetFile().GetMode() != "0400" || string(m.GetItems()[0].GetContent()) != "x" {
		t.Errorf("item a is %v", m.GetItems()[0])
	}
	if m.GetItems()[1].Content == nil {
		t.Error("an empty content became an absent one")
	}
	if m.GetItems()[2].Content != nil {
		t.Error("an absent content became an empty one")
	}
}

// Package tokenstest owns a token source with a scripted credstore behind it, for
// tests of the source and of the adapters on it. It is for synctest bubbles: its
// network is in memory, and its tokens end by the bubble's clock. It holds no
// logic of the real server.
package tokenstest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/tokens"
)

const (
	// Name is the credential.
	Name = "projects/default/credentials/ibm"
	// Life is how long its tokens live.
	Life = time.Hour
)

// Rig is a source with a credstore that mints tokens.
type Rig struct {
	Source *tokens.Source
	Client *client.Client

	t      testing.TB
	server *clienttest.Server
	watch  *clienttest.WatchStream
	ended  chan struct{}
	// revision is that of the store; it only grows.
	revision atomic.Uint64
	// uid is the credential's.
	uid string

	mu      sync.Mutex // guards what follows
	version int
	minted  int
	fail    error
	fill    func(text string) *credentialv1.Token
	hold    chan struct{} // if set, mints wait for it
	asked   []*credentialv1.TokenRequest
}

// Start starts one, whose credential has version 1. It ends with the test.
func Start(t testing.TB) *Rig {
	t.Helper()
	server, options, _ := clienttest.StartMemory(t)
	r := &Rig{t: t, server: server, uid: "uid", version: 1, ended: make(chan struct{}), fill: Bearer}
	server.Mint = r.mint
	var err error
	if r.Client, err = client.Dial(options); err != nil {
		t.Fatal(err)
	}
	if r.Source, err = tokens.New(tokens.Options{Client: r.Client, Credential: Name, Consumer: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(r.ended)
		r.Source.Close()
		if err := r.Client.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
	})
	r.watch = r.Watch()
	if got := r.watch.Request; got.GetParent() != "projects/default" || len(got.GetNames()) != 1 || got.GetNames()[0] != Name ||
		got.GetView() != credstorev1.WatchRequest_METADATA || got.GetConsumer() != "test" {
		t.Errorf("the watch is %v", got)
	}
	for _, m := range r.State(r.put(1)) {
		r.send(m)
	}
	go r.beat()
	return r
}

// Watch returns the next watch that is opened; the source's is taken already.
func (r *Rig) Watch() *clienttest.WatchStream { return <-r.server.Watches }

// State is a whole state for a watch.
func (r *Rig) State(changes ...*credstorev1.Change) []*credstorev1.WatchResponse {
	commit := r.commit(changes...)
	return []*credstorev1.WatchResponse{
		{Event: &credstorev1.WatchResponse_Reset_{Reset_: &credstorev1.WatchResponse_Reset{}}, Revision: commit.GetRevision()},
		commit,
		{Event: &credstorev1.WatchResponse_Synced_{Synced: &credstorev1.WatchResponse_Synced{}}, Revision: commit.GetRevision(), ResumeToken: "t"},
	}
}

func (r *Rig) commit(changes ...*credstorev1.Change) *credstorev1.WatchResponse {
	return &credstorev1.WatchResponse{
		Event:    &credstorev1.WatchResponse_Commit_{Commit: &credstorev1.WatchResponse_Commit{Changes: changes}},
		Revision: r.revision.Add(1),
	}
}

func (r *Rig) send(m *credstorev1.WatchResponse) {
	r.t.Helper()
	if err := r.watch.Send(m); err != nil {
		r.t.Error(err)
	}
	synctest.Wait()
}

// beat keeps the watch alive.
func (r *Rig) beat() {
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.ended:
			return
		case <-tick.C:
		}
		if r.watch.Send(&credstorev1.WatchResponse{
			Event: &credstorev1.WatchResponse_Heartbeat_{Heartbeat: &credstorev1.WatchResponse_Heartbeat{}}, Revision: r.revision.Load(), ResumeToken: "t",
		}) != nil {
			return
		}
	}
}

// Tell makes the watch say which version is active.
func (r *Rig) Tell(version uint32) {
	r.t.Helper()
	r.send(r.commit(r.put(version)))
}

func (r *Rig) put(version uint32) *credstorev1.Change {
	return &credstorev1.Change{Type: credstorev1.Change_PUT, Credential: &credstorev1.Credential{Name: Name, Uid: r.uid, ActiveVersion: version}}
}

// Recreate makes the watch say that the credential was deleted and made anew,
// with one version.
func (r *Rig) Recreate() {
	r.t.Helper()
	r.uid += "'"
	gone := &credstorev1.Change{Type: credstorev1.Change_DELETE, Credential: &credstorev1.Credential{Name: Name}}
	r.send(r.commit(gone))
	r.send(r.commit(r.put(1)))
}

// Change makes another version the one that is minted from; no watch tells.
func (r *Rig) Change(version int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version = version
}

// Rotate makes another version active, for mints and the watch.
func (r *Rig) Rotate(version uint32) {
	r.t.Helper()
	r.Change(int(version))
	r.Tell(version)
}

// Fail makes mints fail until it is called with nil.
func (r *Rig) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// Make makes f fill tokens instead of [Bearer]; text tells them apart, as "v2-3":
// the third, made from version 2. They end after Life unless f says otherwise.
func (r *Rig) Make(f func(text string) *credentialv1.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill = f
}

// Hold makes mints wait until release is called.
func (r *Rig) Hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hold := make(chan struct{})
	r.hold = hold
	return sync.OnceFunc(func() { close(hold) })
}

// Calls counts the mints.
func (r *Rig) Calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.minted
}

// Asked lists what mints were asked for.
func (r *Rig) Asked() []*credentialv1.TokenRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// Bearer is a bearer token.
func Bearer(text string) *credentialv1.Token {
	return &credentialv1.Token{Kind: &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: text, Type: "Bearer"}}}
}

// AWS is a session.
func AWS(text string) *credentialv1.Token {
	return &credentialv1.Token{Kind: &credentialv1.Token_Aws{Aws: &credentialv1.Token_AwsCredentials{
		AccessKeyId: "ASIA" + text, SecretAccessKey: "secret of " + text, SessionToken: "session of " + text, Account: "123456789012",
	}}}
}

func (r *Rig) mint(req *credstorev1.MintTokenRequest) (*credstorev1.MintTokenResponse, error) {
	r.mu.Lock()
	r.minted++
	hold, fill := r.hold, r.fill
	n, version, err := r.minted, r.version, r.fail
	r.asked = append(r.asked, req.GetToken())
	r.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if req.GetName() != Name {
		return nil, clienttest.Failure(codes.NotFound, "NOT_FOUND", "no such credential")
	}
	if err != nil {
		return nil, err
	}
	token := fill(fmt.Sprintf("v%d-%d", version, n))
	if token.ExpireTime == nil {
		token.ExpireTime = timestamppb.New(time.Now().Add(Life))
	}
	return &credstorev1.MintTokenResponse{Version: fmt.Sprintf("%s/versions/%d", Name, version), Token: token}, nil
}

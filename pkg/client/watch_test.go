package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
)

type message = credstorev1.WatchResponse

func reset(revision uint64) *message {
	return &message{Event: &credstorev1.WatchResponse_Reset_{Reset_: &credstorev1.WatchResponse_Reset{}}, Revision: revision}
}

func synced(revision uint64, token string) *message {
	return &message{Event: &credstorev1.WatchResponse_Synced_{Synced: &credstorev1.WatchResponse_Synced{}}, Revision: revision, ResumeToken: token}
}

func heartbeat(revision uint64, token string) *message {
	return &message{Event: &credstorev1.WatchResponse_Heartbeat_{Heartbeat: &credstorev1.WatchResponse_Heartbeat{}}, Revision: revision, ResumeToken: token}
}

func commit(from, revision uint64, token string, changes ...*credstorev1.Change) *message {
	return &message{Event: &credstorev1.WatchResponse_Commit_{Commit: &credstorev1.WatchResponse_Commit{Changes: changes, FromRevision: from}}, Revision: revision, ResumeToken: token}
}

func put(name, token string) *credstorev1.Change {
	return &credstorev1.Change{
		Type: credstorev1.Change_PUT, Credential: &credstorev1.Credential{Name: name},
		Payload: &credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: token}}},
	}
}

func gone(kind credstorev1.Change_Type, name string) *credstorev1.Change {
	return &credstorev1.Change{Type: kind, Credential: &credstorev1.Credential{Name: name}}
}

// state is what a watcher shows: name to token.
func state(w *client.Watcher) map[string]string {
	all := map[string]string{}
	for name, c := range w.All() {
		all[name] = c.Payload.GetApiToken().GetToken()
	}
	return all
}

func changed(w *client.Watcher) bool {
	select {
	case <-w.Changed():
		return true
	default:
		return false
	}
}

type watchRig struct {
	t       *testing.T
	server  *clienttest.Server
	network *clienttest.Network
	client  *client.Client
	watcher *client.Watcher
}

func startWatch(t *testing.T, o client.WatchOptions) *watchRig {
	t.Helper()
	server, options, network := clienttest.StartMemory(t)
	c, err := client.Dial(options)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.WatchCredentials(o)
	if err != nil {
		t.Fatal(err)
	}
	return &watchRig{t: t, server: server, network: network, client: c, watcher: w}
}

func (r *watchRig) end() {
	r.watcher.Close()
	if err := r.client.Close(); err != nil {
		r.t.Error(err)
	}
	r.server.Stop()
}

func (r *watchRig) send(st *clienttest.WatchStream, messages ...*message) {
	r.t.Helper()
	for _, m := range messages {
		if err := st.Send(m); err != nil {
			r.t.Fatal(err)
		}
	}
	synctest.Wait()
}

func (r *watchRig) want(want map[string]string) {
	r.t.Helper()
	if diff := cmp.Diff(want, state(r.watcher), cmpopts.EquateEmpty()); diff != "" {
		r.t.Errorf("state (-want +got):\n%s", diff)
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startWatch(t, client.WatchOptions{Parent: "projects/default", Payload: true, Filter: "kind = apiToken", Consumer: "me"})
		defer r.end()
		st := <-r.server.Watches
		if q := st.Request; q.GetParent() != "projects/default" || q.GetView() != credstorev1.WatchRequest_PAYLOAD || q.GetFilter() != "kind = apiToken" ||
			q.GetConsumer() != "me" || q.GetResumeToken() != "" || q.GetHeartbeatInterval().AsDuration() != 30*time.Second {
			t.Errorf("request %v", q)
		}
		// Until it is whole, nothing is shown.
		r.send(st, reset(7), commit(0, 5, "", put("a", "A1")), commit(5, 7, "", put("b", "B1")))
		r.want(nil)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.watcher.WaitSynced(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitSynced before synced: %v", err)
		}
		r.send(st, synced(7, "t7"))
		r.want(map[string]string{"a": "A1", "b": "B1"})
		if err := r.watcher.WaitSynced(t.Context()); err != nil {
			t.Error(err)
		}
		if !changed(r.watcher) || changed(r.watcher) {
			t.Error("not one signal for the first state")
		}
		if err := r.watcher.Err(); err != nil {
			t.Error(err)
		}

		// Changes, a bracketed catch-up among them, and what removes.
		r.send(st, commit(7, 8, "t8", put("a", "A2"), put("c", "C1")), heartbeat(9, "t9"), commit(9, 20, "t20", put("b", "B9"), gone(credstorev1.Change_DELETE, "c")))
		r.want(map[string]string{"a": "A2", "b": "B9"})
		if !changed(r.watcher) || changed(r.watcher) {
			t.Error("not one signal for several changes")
		}
		r.send(st, commit(20, 21, "t21", gone(credstorev1.Change_LEFT_FILTER, "a")))
		r.want(map[string]string{"b": "B9"})
		r.send(st, heartbeat(30, "t30"))
		<-r.watcher.Changed()
		if changed(r.watcher) {
			t.Error("a heartbeat is no change")
		}

		// The server is away: the last good value stays.
		st.End(clienttest.Failure(codes.Unavailable, "", "going away"))
		synctest.Wait()
		if err := r.watcher.Err(); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		r.want(map[string]string{"b": "B9"})

		// It resumes where it was.
		st = <-r.server.Watches
		if got := st.Request.GetResumeToken(); got != "t30" {
			t.Errorf("resumed at %q, want t30", got)
		}
		r.send(st, commit(30, 31, "", put("d", "D1")), synced(31, "t31"))
		r.want(map[string]string{"b": "B9", "d": "D1"})

		// A reset that breaks off changes nothing, and its place is kept.
		st.End(nil)
		st = <-r.server.Watches
		r.send(st, reset(2), commit(0, 2, "", put("e", "E1")))
		r.want(map[string]string{"b": "B9", "d": "D1"})
		st.End(nil)
		st = <-r.server.Watches
		if got := st.Request.GetResumeToken(); got != "t31" {
			t.Errorf("resumed at %q, want t31", got)
		}
		// What is not sent again before synced is gone.
		r.send(st, reset(3), commit(0, 2, "", put("e", "E1")), commit(2, 3, "", put("d", "D2")), synced(3, "n3"))
		r.want(map[string]string{"d": "D2", "e": "E1"})
		if c, ok := r.watcher.Get("d"); !ok || strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), "D2") {
			t.Errorf("Get: %v, %v", c, ok)
		}
	})
}

func TestWatchLeavesAServerThatIsSilentOrWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startWatch(t, client.WatchOptions{Parent: "projects/default", Heartbeat: 10 * time.Second})
		defer r.end()
		st := <-r.server.Watches
		if st.Request.GetHeartbeatInterval().AsDuration() != 10*time.Second || st.Request.GetView() != credstorev1.WatchRequest_METADATA {
			t.Errorf("request %v", st.Request)
		}
		r.send(st, reset(1), commit(0, 1, "", put("a", "A")), synced(1, "t1"))
		for range 10 { // heartbeats keep it
			time.Sleep(25 * time.Second)
			r.send(st, heartbeat(1, "t1"))
		}
		if err := r.watcher.Err(); err != nil || len(r.server.Watches) > 0 {
			t.Errorf("left a server that is alive: %v", err)
		}
		r.network.Cut()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if err := r.watcher.Err(); err == nil {
			t.Error("still content with a silent server")
		}
		r.network.Mend()
		st = <-r.server.Watches
		r.send(st, synced(1, "t1"))
		if err := r.watcher.Err(); err != nil {
			t.Error(err)
		}

		// Back in time without a reset: the state is asked for anew.
		r.send(st, commit(1, 9, "t9", put("b", "B")))
		if err := st.Send(commit(2, 3, "t3", put("b", "old"))); err != nil {
			t.Fatal(err)
		}
		st = <-r.server.Watches
		if st.Request.GetResumeToken() != "" {
			t.Errorf("resumed at %q after a server that went back", st.Request.GetResumeToken())
		}
		r.want(map[string]string{"a": "A", "b": "B"})

		// A token that the server does not read is not used again.
		r.send(st, reset(9), synced(9, "t9"))
		r.want(nil)
		st.End(nil)
		st = <-r.server.Watches
		st.End(clienttest.Failure(codes.InvalidArgument, "INVALID_FIELD", "resumeToken: does not decode"))
		st = <-r.server.Watches
		if st.Request.GetResumeToken() != "" {
			t.Errorf("resumed again with %q", st.Request.GetResumeToken())
		}
	})
}

func TestWatchOptions(t *testing.T) {
	c, err := client.Dial(client.Options{Address: "127.0.0.1:1", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, o := range []client.WatchOptions{{}, {Parent: "projects/default", Heartbeat: time.Millisecond}, {Parent: "projects/default", Heartbeat: 2 * time.Hour}} {
		if w, err := c.WatchCredentials(o); err == nil {
			w.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

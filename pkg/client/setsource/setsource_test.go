package setsource_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
	"github.com/credstore/credstore/pkg/client/setsource"
	"github.com/credstore/credstore/pkg/inject"
)

// consumer keeps what it is given.
type consumer struct {
	mu           sync.Mutex
	have         map[string]string
	sets         []inject.Set
	connected    int
	disconnected []error
	apply        func(inject.Set)
}

func (c *consumer) Have() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.have
}

func (c *consumer) Connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected++
}

func (c *consumer) Disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disconnected = append(c.disconnected, err)
}

func (c *consumer) Set(_ context.Context, s inject.Set) {
	c.mu.Lock()
	c.sets = append(c.sets, s)
	c.mu.Unlock()
	if c.apply != nil {
		c.apply(s)
	}
}

func (c *consumer) got() ([]inject.Set, int, []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sets, c.connected, c.disconnected
}

// rig is a source that runs against a fake server, in a synctest bubble.
type rig struct {
	t        *testing.T
	server   *clienttest.Server
	network  *clienttest.Network
	options  client.Options
	source   *setsource.Source
	consumer *consumer
	stop     context.CancelFunc
	done     chan error
}

func start(t *testing.T, change ...func(*setsource.Options)) *rig {
	t.Helper()
	server, options, network := clienttest.StartMemory(t)
	r := &rig{t: t, server: server, network: network, options: options, consumer: &consumer{}, done: make(chan error, 1)}
	o := setsource.Options{Parent: "projects/default", Workload: "pod-1"}
	for _, c := range change {
		c(&o)
	}
	source, err := setsource.New(options, o)
	if err != nil {
		t.Fatal(err)
	}
	r.source = source
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- source.Run(ctx, r.consumer) }()
	return r
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
	r.server.Stop()
}

func (r *rig) whole(st *clienttest.SetStream, revision uint64, items ...*credstorev1.SetItem) {
	r.t.Helper()
	if err := st.Send(&credstorev1.Set{Revision: revision, Whole: true, Items: items}); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

func TestOpenAndSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(o *setsource.Options) {
			o.Injections = []string{"projects/default/injections/web"}
			o.Heartbeat = 7 * time.Second
		})
		defer r.end()
		st := <-r.server.Sets
		want := &credstorev1.WatchSetRequest_Open{
			Parent: "projects/default", Workload: "pod-1", Injections: []string{"projects/default/injections/web"},
			HeartbeatInterval: durationpb.New(7 * time.Second),
		}
		if diff := cmp.Diff(want, st.Open, protocmp.Transform()); diff != "" {
			t.Errorf("open (-want +got):\n%s", diff)
		}
		uid, before := uint32(7), time.Now()
		r.whole(st, 3,
			&credstorev1.SetItem{Id: "web/a", Injection: "projects/default/injections/web", File: &credstorev1.FileTarget{Path: "a", Mode: "0440", Uid: &uid}, Group: "g", Digest: "d", State: credstorev1.SetItem_OK, Content: []byte{}, Version: "4"},
			&credstorev1.SetItem{Id: "web/b", State: credstorev1.SetItem_FAILED, Message: "no"},
			&credstorev1.SetItem{Id: "web/c", State: credstorev1.SetItem_STALE})
		if err := st.Send(&credstorev1.Set{Revision: 4, Removed: []string{"web/b"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got, connected, _ := r.consumer.got()
		wantSets := []inject.Set{
			{Revision: 3, Whole: true, Received: before, Items: []inject.Item{
				{ID: "web/a", Injection: "projects/default/injections/web", Path: "a", Mode: "0440", UID: &uid, Group: "g", Digest: "d", HasContent: true, Content: []byte{}, Version: "4"},
				{ID: "web/b", State: inject.Failed, Message: "no"},
				{ID: "web/c", State: inject.Stale},
			}},
			{Revision: 4, Items: []inject.Item{}, Removed: []string{"web/b"}, Received: before},
		}
		if diff := cmp.Diff(wantSets, got); diff != "" {
			t.Errorf("sets (-want +got):\n%s", diff)
		}
		if connected != 1 {
			t.Errorf("connected %d times", connected)
		}
	})
}

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		defer r.end()
		r.source.Report(inject.Report{Revision: 99}) // for no connection that there is
		st := <-r.server.Sets
		r.source.Report(inject.Report{Revision: 98}) // for no set of this one
		r.whole(st, 1)
		if len(st.Reports) != 0 {
			t.Errorf("a report was sent before one was made: %v", <-st.Reports)
		}
		r.source.Report(inject.Report{Revision: 1, Failures: []inject.Failure{{ID: "web/a", Injection: "i", Message: "bad \xff"}}})
		want := &credstorev1.WatchSetRequest_Report{Revision: 1, Failures: []*credstorev1.ItemReport{{Id: "web/a", Message: "bad ?"}}}
		if diff := cmp.Diff(want, <-st.Reports, protocmp.Transform()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		synctest.Wait()
		if len(st.Reports) != 0 {
			t.Error("a report was sent twice")
		}
	})
}

func TestGoodbyeCarriesTheLastReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		st := <-r.server.Sets
		// The report is made while the set is applied, and the stop follows at
		// once, as in Once.
		r.consumer.apply = func(s inject.Set) {
			r.source.Report(inject.Report{Revision: s.Revision})
			r.stop()
		}
		r.whole(st, 5)
		begin := time.Now()
		r.end()
		if d := time.Since(begin); d > 0 {
			t.Errorf("the goodbye took %s", d)
		}
		var last *credstorev1.WatchSetRequest_Report
		for m := range st.Reports {
			last = m
		}
		want := &credstorev1.WatchSetRequest_Report{Revision: 5, Goodbye: true}
		if diff := cmp.Diff(want, last, protocmp.Transform()); diff != "" {
			t.Errorf("last report (-want +got):\n%s", diff)
		}
	})
}

func TestGoodbyeDoesNotWaitForADeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		r.whole(<-r.server.Sets, 1)
		r.network.Cut()
		begin := time.Now()
		r.stop()
		<-r.done
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("the stop took %s", d)
		}
		r.server.Stop()
	})
}

func TestReconnectTellsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		defer r.end()
		st := <-r.server.Sets
		r.whole(st, 1)
		r.source.Report(inject.Report{Revision: 1})
		<-st.Reports
		r.consumer.mu.Lock()
		r.consumer.have = map[string]string{"web/a": "d1"}
		r.consumer.mu.Unlock()
		st.End(clienttest.Failure(codes.Unavailable, "STORAGE_UNAVAILABLE", "going away"))
		synctest.Wait()
		r.source.Report(inject.Report{Revision: 1, Failures: []inject.Failure{{ID: "web/a"}}}) // of a retry

		st = <-r.server.Sets
		if diff := cmp.Diff(map[string]string{"web/a": "d1"}, st.Open.GetHave()); diff != "" {
			t.Errorf("have (-want +got):\n%s", diff)
		}
		r.whole(st, 2)
		if len(st.Reports) != 0 {
			t.Error("the report of the connection before was sent again")
		}
		if _, connected, errs := r.consumer.got(); connected != 2 || len(errs) != 1 || !errors.Is(errs[0], client.ErrUnavailable) {
			t.Errorf("connected %d times, errors %v", connected, errs)
		}

		r.source.Reconnect()
		st = <-r.server.Sets
		r.whole(st, 3)
		if _, connected, errs := r.consumer.got(); connected != 3 || !strings.Contains(errs[len(errs)-1].Error(), "a whole set is needed") {
			t.Errorf("connected %d times, errors %v", connected, errs)
		}
	})
}

func TestSilentServerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(o *setsource.Options) { o.Heartbeat = 10 * time.Second })
		defer r.end()
		st := <-r.server.Sets
		r.whole(st, 1)
		for range 20 { // heartbeats keep it
			time.Sleep(25 * time.Second)
			if err := st.Heartbeat(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if _, _, errs := r.consumer.got(); len(errs) > 0 {
			t.Fatalf("left a server that is alive: %v", errs)
		}
		r.network.Cut()
		begin := time.Now()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if _, _, errs := r.consumer.got(); len(errs) == 0 || !strings.Contains(errs[0].Error(), "silent for 3") {
			t.Fatalf("after %s without a heartbeat: %v", time.Since(begin), errs)
		}
		r.network.Mend()
		r.whole(<-r.server.Sets, 1)
		if _, connected, _ := r.consumer.got(); connected != 2 {
			t.Errorf("connected %d times", connected)
		}
	})
}

func TestSlowDiskIsNotASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		defer r.end()
		r.consumer.apply = func(inject.Set) { time.Sleep(time.Hour) }
		st := <-r.server.Sets
		r.whole(st, 1)
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, _, errs := r.consumer.got(); len(errs) > 0 {
			t.Errorf("left: %v", errs)
		}
	})
}

func TestServerAwayForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		r.whole(<-r.server.Sets, 1)
		r.network.Cut()
		r.server.Stop()
		time.Sleep(time.Hour)
		// With full jitter up to 30 s, 240 on average.
		if n := r.network.Dials(); n < 100 || n > 600 {
			t.Errorf("%d attempts in an hour", n)
		}
		r.network.Mend()
		r.server = r.network.Replace()
		begin := time.Now()
		r.whole(<-r.server.Sets, 2)
		if d := time.Since(begin); d > 31*time.Second {
			t.Errorf("came back after %s", d)
		}
		r.end()
	})
}

func TestRefusedTokenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		defer r.end()
		st := <-r.server.Sets
		r.whole(st, 1)
		r.server.SetToken("another")
		st.End(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		_, _, errs := r.consumer.got()
		if len(errs) < 2 || !strings.Contains(errs[0].Error(), "ended the stream") || !errors.Is(errs[1], client.ErrUnauthenticated) {
			t.Fatalf("errors %v", errs)
		}
		r.server.SetToken(clienttest.Token)
		r.whole(<-r.server.Sets, 2)
	})
}

func TestServerThatBreaksTheContractIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		defer r.end()
		st := <-r.server.Sets
		if err := st.Send(&credstorev1.Set{Revision: 1, Items: []*credstorev1.SetItem{{Id: "web/a"}}}); err != nil {
			t.Fatal(err)
		}
		r.whole(<-r.server.Sets, 1)
		sets, _, errs := r.consumer.got()
		if len(sets) != 1 || !sets[0].Whole || len(errs) != 1 || !strings.Contains(errs[0].Error(), "not whole") {
			t.Errorf("sets %v, errors %v", sets, errs)
		}
	})
}

func TestOptions(t *testing.T) {
	server := client.Options{Address: "127.0.0.1:1", Insecure: true}
	for _, test := range []struct {
		name    string
		server  client.Options
		options setsource.Options
		want    string
	}{
		{"parent", server, setsource.Options{Parent: "default", Workload: "w"}, "parent"},
		{"no workload", server, setsource.Options{Parent: "projects/default"}, "workload"},
		{"workload", server, setsource.Options{Parent: "projects/default", Workload: "a b"}, "workload"},
		{"injection", server, setsource.Options{Parent: "projects/default", Workload: "w", Injections: []string{"web"}}, "injection"},
		{"heartbeat", server, setsource.Options{Parent: "projects/default", Workload: "w", Heartbeat: time.Millisecond}, "heartbeat"},
		{"server", client.Options{Address: "x"}, setsource.Options{Parent: "projects/default", Workload: "w"}, "address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := setsource.New(test.server, test.options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %s", err, test.want)
			}
		})
	}
}

package app

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// fewestCases is how many bad requests this test promises to try.
const fewestCases = 80

// TestBadInput sends what no server may accept to a server as the command runs
// it, over TLS. Every request is refused with the code, the reason and the fields
// that the table states, the same over gRPC and REST; no answer, log or file
// repeats a secret; nothing in the store changes.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	var cases []badCase
	for _, group := range [][]badCase{
		badNames(), badIDs(), badVendorCalls(), badPayloads(), badMetadata(), badMasks(), badEtags(w), badCursors(w), badWatches(), badBatches(),
		badItems(), badStores(), badUsages(), badTokens(), badRequestIDs(), badStates(), badCallers(),
	} {
		cases = append(cases, group...)
	}
	seen := make(map[string]bool)
	both := 0
	for _, c := range cases {
		if seen[c.name] {
			t.Errorf("two cases are called %q", c.name)
		}
		seen[c.name] = true
		if c.as == "" {
			c.as = "admin"
		}
		if c.grpcOnly == "" && c.rest == nil {
			both++
		}
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) { w.refuses(t, c) })
	}
	onlyREST, onlyGRPC := restCases(), grpcCases()
	for _, c := range onlyREST {
		t.Run("REST/"+strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) { w.refusesREST(t, c) })
	}
	for _, c := range onlyGRPC {
		t.Run("gRPC/"+strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) { w.refusesGRPC(t, c) })
	}
	t.Run("nothing leaked", w.quiet)
	t.Logf("%d bad requests: %d refused alike over gRPC and REST, %d that a URL cannot carry, %d of REST alone, %d of gRPC alone",
		len(cases)+len(onlyREST)+len(onlyGRPC), both, len(cases)-both, len(onlyREST), len(onlyGRPC))
	if both < fewestCases {
		t.Errorf("only %d cases over both transports, want %d or more", both, fewestCases)
	}
}

// unchanged runs a bad call and fails when it changed the store or was answered
// with a secret.
func (w *world) unchanged(t *testing.T, over string, call func() (refusal, string), want refusal) {
	t.Helper()
	before := w.revision(t)
	got, text := call()
	if got != want {
		t.Errorf("over %s: got %v, want %v\n%.1000s", over, got, want, text)
	}
	if leaks(text) {
		t.Errorf("over %s: the answer holds a secret: %.1000s", over, text)
	}
	if after := w.revision(t); after != before {
		t.Errorf("over %s: the store went from revision %d to %d", over, before, after)
	}
}

func (w *world) refuses(t *testing.T, c badCase) {
	w.unchanged(t, "gRPC", func() (refusal, string) { return w.overGRPC(w.as(t.Context(), c.as), c.request) }, c.want)
	if c.grpcOnly != "" {
		return
	}
	call, bodyField, err := transcode(c.request)
	if err != nil {
		t.Fatal(err)
	}
	want := c.want
	if want.fields = relative(want.fields, bodyField); c.rest != nil {
		want = *c.rest
	}
	w.unchanged(t, "REST", func() (refusal, string) {
		got, code, text := w.overREST(t, c.as, call)
		if code < http.StatusBadRequest || code >= http.StatusInternalServerError && got.code != codes.Unimplemented {
			t.Errorf("HTTP status %d", code)
		}
		return got, text
	}, want)
}

// TestGoodInput holds that the server of the table refuses for the reasons that
// the table states: the same requests without what is wrong are accepted.
func TestGoodInput(t *testing.T) {
	w := newWorld(t)
	store := func(path string) proto.Message {
		return &credstorev1.UpdateSecretStoreRequest{
			SecretStore: &credstorev1.SecretStore{Name: inDefault + "/secretStores/team-vault", PollInterval: durationpb.New(time.Hour)}, UpdateMask: mask(path),
		}
	}
	for _, request := range []proto.Message{
		createPayload(basic("new", canary)),
		&credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: bot, Payload: basic("bot", canary), Etag: w.etag}, UpdateMask: mask("payload")},
		store("poll_interval"),
		store("pollInterval"),
		&credstorev1.GetCredentialRequest{Name: bot},
		&credstorev1.ListCredentialsRequest{Parent: inDefault, PageSize: 1, PageToken: w.pageOfCredentials},
		&credstorev1.ListCredentialsRequest{Parent: inDefault, PageToken: w.pageOfFilter, Filter: "labels.team = platform"},
		&credstorev1.WatchRequest{Parent: inDefault, ResumeToken: w.resume},
		&credstorev1.DeleteCredentialRequest{Name: inDefault + "/credentials/new"},
	} {
		got, text := w.overGRPC(w.as(t.Context(), "admin"), request)
		if got != (refusal{}) {
			t.Errorf("%T over gRPC: %v\n%s", request, got, text)
		}
	}
	for _, request := range []proto.Message{
		createPayload(basic("new", canary)),
		store("poll_interval"),
		store("pollInterval"),
		&credstorev1.GetCredentialRequest{Name: bot},
		&credstorev1.ListCredentialsRequest{Parent: inDefault, PageSize: 1, PageToken: w.pageOfCredentials},
		&credstorev1.WatchRequest{Parent: inDefault, ResumeToken: w.resume},
		&credstorev1.AccessCredentialRequest{Name: bot + "/versions/3"},
	} {
		call, _, err := transcode(request)
		if err != nil {
			t.Fatal(err)
		}
		if got, code, text := w.overREST(t, "admin", call); got != (refusal{}) || code != http.StatusOK {
			t.Errorf("%s %s: %d %v\n%s", call.method, call.target, code, got, text)
		}
	}
}

// TestForeignResumeTokens are no errors: what a token cannot continue starts
// over.
func TestForeignResumeTokens(t *testing.T) {
	w, elsewhere := newWorld(t), newWorld(t)
	for name, r := range map[string]*credstorev1.WatchRequest{
		"of another server":  {Parent: inDefault, ResumeToken: elsewhere.resume},
		"of another query":   {Parent: inDefault, ResumeToken: w.resume, Filter: "kind = basic"},
		"of another project": {Parent: "projects/other", ResumeToken: w.resume},
	} {
		ctx, cancel := context.WithTimeout(w.as(t.Context(), "admin"), callTime)
		defer cancel()
		stream, err := credstorev1.NewCredentialServiceClient(w.conn).Watch(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || m.GetReset_() == nil {
			t.Errorf("a token %s over gRPC: %v, %v", name, m, err)
		}
		call, _, err := transcode(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, text := w.overREST(t, "admin", call); got != (refusal{}) || !strings.Contains(text, `"reset"`) {
			t.Errorf("a token %s over REST: %v %s", name, got, text)
		}
	}
}

// TestDeleteOfAStoreInUse is not in the table because the broker, which looks for
// the secret meanwhile, writes what it found.
func TestDeleteOfAStoreInUse(t *testing.T) {
	w := newWorld(t)
	item := fileItem("polled")
	item.Source = &credstorev1.Item_Secret{Secret: &credstorev1.SecretSource{Store: inDefault + "/secretStores/team-vault", Path: "x"}}
	must(w.unary(t, "admin", &credstorev1.CreateInjectionRequest{Parent: inDefault, InjectionId: "polled", Injection: &credstorev1.Injection{
		Selector: map[string]string{"app": "polled"}, Items: []*credstorev1.Item{item},
	}}))(t)
	request := &credstorev1.DeleteSecretStoreRequest{Name: inDefault + "/secretStores/team-vault"}
	want := because(codes.FailedPrecondition, "SECRET_STORE_IN_USE")
	if got, text := w.overGRPC(w.as(t.Context(), "admin"), request); got != want || !strings.Contains(text, "injections/polled") {
		t.Errorf("over gRPC: %v\n%s", got, text)
	}
	call, _, err := transcode(request)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, text := w.overREST(t, "admin", call); got != want || !strings.Contains(text, "injections/polled") {
		t.Errorf("over REST: %v\n%s", got, text)
	}
	must(w.unary(t, "admin", &credstorev1.GetSecretStoreRequest{Name: request.GetName()}))(t)
}

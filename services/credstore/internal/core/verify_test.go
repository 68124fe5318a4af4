package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// refuses is an answer of a vendor.
func refuses(message string) func(credential.Login) (core.Verification, error) {
	return func(credential.Login) (core.Verification, error) {
		return core.Verification{State: core.VerificationRefused, Message: message, Time: time.Now()}, nil
	}
}

// A verification asks the vendor with the whole login, is on record before, and
// its result is kept with the active version until another one is.
func TestVerify(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, issuer.Use)
	ctx := coretest.AdminContext(t)
	names := row(t, h, "a", 2)
	key, role := names[0], names[2]
	issuer.Calls()
	before := len(departures(h))
	was := get(t, h, role)
	got, err := h.Store.VerifyCredential(ctx, role, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.State != core.Verified || got.Version != 1 || got.Identity.Name != "identity of a-2" || got.Latency == 0 || got.Time.IsZero() {
		t.Errorf("%+v", got)
	}
	calls := issuer.Calls()
	if len(calls) != 1 || calls[0].Login.ID != get(t, h, role).UID+"/1" || calls[0].Login.Source.Source.ID != get(t, h, key).UID+"/1" {
		t.Errorf("the vendor was asked %v", calls)
	}
	equal(t, "the line", lines(departures(h)[before:]), []string{"credentials.verify a-1/versions/1 a-2/versions/1 a-key/versions/1 to 0"})
	now := get(t, h, role)
	equal(t, "kept", now.Verification, got)
	if now.Etag == was.Etag || !now.UpdateTime.Equal(was.UpdateTime) || !now.RotateTime.Equal(was.RotateTime) {
		t.Errorf("a verification changes %+v to %+v", was, now)
	}
	h.Stop(t)
	h.Start(t)
	got.Time = got.Time.Round(0).UTC()
	equal(t, "kept on disk", get(t, h, role).Verification, got)

	// A new version was never verified, nor is the older one's result its own.
	mustPut(t, h, role, coretest.AssumeRole(t, key, "another"))
	if v := get(t, h, role).Verification; v != nil {
		t.Errorf("a new version has the result of the one before: %+v", v)
	}
	if got, err = h.Store.VerifyCredential(ctx, role, 1); err != nil || got.Version != 1 || got.State != core.Verified {
		t.Errorf("version 1: %+v, %v", got, err)
	}
	if v := get(t, h, role).Verification; v != nil {
		t.Errorf("the result of another version is kept: %+v", v)
	}
	if _, err := h.Store.VerifyCredential(ctx, role, 0); err != nil || get(t, h, role).Verification.Version != 2 {
		t.Errorf("%+v, %v", get(t, h, role).Verification, err)
	}
	label(t, h, role, map[string]string{"a": "b"})
	if get(t, h, role).Verification == nil {
		t.Error("a label clears the result")
	}
	if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: role.Version(1)}); err != nil {
		t.Fatal(err)
	}
	if v := get(t, h, role).Verification; v != nil {
		t.Errorf("after a roll-back the result is of version %d", v.Version)
	}

	// What a vendor refuses is an answer, and no error.
	issuer.Answer(refuses("the key was deleted"))
	if got, err = h.Store.VerifyCredential(ctx, role, 0); err != nil || got.State != core.VerificationRefused || got.Message != "the key was deleted" {
		t.Errorf("%+v, %v", got, err)
	}
	issuer.Answer(func(credential.Login) (core.Verification, error) {
		return core.Verification{State: core.Verified, Identity: credential.Identity{Name: "u", Checks: []credential.Check{
			{Name: "create pods", Passed: true}, {Name: "delete pods", Message: "forbidden"}, {Name: "delete secrets"},
		}}}, nil
	})
	if got, err = h.Store.VerifyCredential(ctx, role, 0); err != nil || got.State != core.VerificationRefused || got.Message != "2 of 3 checks failed: delete pods, delete secrets" {
		t.Errorf("with checks that fail: %+v, %v", got, err)
	}
	equal(t, "checks are kept", get(t, h, role).Verification.Identity, got.Identity)
	errGiven := errors.New("given up")
	issuer.Answer(func(credential.Login) (core.Verification, error) { return core.Verification{}, errGiven })
	if _, err = h.Store.VerifyCredential(ctx, role, 0); !errors.Is(err, errGiven) || get(t, h, role).Verification.State != core.VerificationRefused {
		t.Errorf("a call that was given up: %v", err)
	}
	consistent(t, h)
}

func TestVerifyRefusals(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, issuer.Use)
	ctx := coretest.AdminContext(t)
	verify := func(c resourcename.Credential, n uint32) error {
		_, err := h.Store.VerifyCredential(ctx, c, n)
		return err
	}
	create(t, h, demo, "one")
	rotate(t, h, demo, "two")
	if _, err := h.Store.DisableVersion(ctx, core.ChangeVersionRequest{Name: demo.Version(1)}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a disabled version", verify(demo, 1), core.ErrPrecondition, core.ReasonVersionNotEnabled)
	wantReason(t, "no version", verify(demo, 3), core.ErrNotFound, core.ReasonNotFound)
	wantReason(t, "no credential", verify(cred("none"), 0), core.ErrNotFound, core.ReasonNotFound)
	// A version that is not active can refer to what is gone.
	names := row(t, h, "a", 1)
	mustPut(t, h, cred("other"), coretest.AccessKey(t, "11111111"))
	mustPut(t, h, names[1], coretest.AssumeRole(t, cred("other"), "r"))
	remove(t, h, names[0])
	err := verify(names[1], 1)
	wantReason(t, "a version whose source is gone", err, core.ErrNotFound, core.ReasonNotFound)
	if err != nil && err.Error() != names[1].String()+" refers to what cannot be used: "+names[0].String()+" does not exist" {
		t.Error(err)
	}
	h.Audit.Fail(errDisk)
	wantReason(t, "without an audit log", verify(demo, 0), core.ErrUnavailable, core.ReasonAuditUnavailable)
	_, err = h.Store.CreateCredential(core.AsSystem(t.Context()), core.CreateCredentialRequest{Name: cred("new"), Payload: coretest.Basic(t, "a", "b"), Verify: true})
	wantReason(t, "a create without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
	if calls := issuer.Calls(); len(calls) > 0 {
		t.Errorf("the vendor was asked all the same: %v", calls)
	}
	h.Audit.Fail(nil)
	h.Stop(t)
	h.Start(t, func(c *core.Config) { c.Issuer = nil })
	wantReason(t, "without an issuer", verify(demo, 0), core.ErrUnavailable, "NO_ISSUER")
	_, _, err = h.Store.MintToken(ctx, demo, nil)
	wantReason(t, "a token without an issuer", err, core.ErrUnavailable, "NO_ISSUER")
	_, err = h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: cred("new"), Payload: coretest.Basic(t, "a", "b"), Verify: true})
	wantReason(t, "a create without an issuer", err, core.ErrUnavailable, "NO_ISSUER")
	if n := len(departures(h)); n > 0 {
		t.Errorf("%d lines for what did not leave", n)
	}
}

// A result that comes when another version is active is told, and not kept.
func TestVerifyAgainstUpdate(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, issuer.Use)
	create(t, h, demo, "one")
	during := func(change func()) *core.Verification {
		t.Helper()
		issuer.Answer(func(credential.Login) (core.Verification, error) {
			change()
			return core.Verification{State: core.Verified}, nil
		})
		got, err := h.Store.VerifyCredential(coretest.AdminContext(t), demo, 0)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := during(func() { rotate(t, h, demo, "two") })
	if c := get(t, h, demo); got.Version != 1 || c.Verification != nil || c.ActiveVersion != 2 {
		t.Errorf("%+v is kept as %+v", got, c.Verification)
	}
	got = during(func() { label(t, h, demo, map[string]string{"a": "b"}) })
	if c := get(t, h, demo); got.Version != 2 || c.Verification == nil || c.Labels["a"] != "b" {
		t.Errorf("beside a label: %+v", c)
	}
	during(func() { remove(t, h, demo) })
	during2 := func() { remove(t, h, demo); create(t, h, demo, "namesake") }
	create(t, h, demo, "three")
	during(during2)
	if c := get(t, h, demo); c.Verification != nil {
		t.Errorf("a namesake has the result: %+v", c.Verification)
	}
}

// A write that asks for it is verified first, and stores nothing unless the
// vendor says yes; the vendor is asked only of what could be stored.
func TestWriteVerified(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, issuer.Use)
	ctx := coretest.AdminContext(t)
	key := cred("key")
	create := func(m core.Mutation, name resourcename.Credential, p credential.Payload) (*core.Credential, error) {
		return h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Mutation: m, Name: name, Payload: p, Verify: true})
	}
	update := func(m core.Mutation, name resourcename.Credential, p credential.Payload) (*core.Credential, error) {
		return h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Mutation: m, Name: name, Payload: &p, Verify: true})
	}
	one, two := coretest.AccessKey(t, "00000000"), coretest.AccessKey(t, "11111111")
	before := revision(t, h)
	c, err := create(core.Mutation{ValidateOnly: true}, key, one)
	if err != nil || c.Verification == nil || c.Verification.Identity.Name != "identity of key" || c.Verification.Version != 1 {
		t.Errorf("checked only: %+v, %v", c, err)
	}
	calls := issuer.Calls()
	if len(calls) != 1 || calls[0].Login.ID != "" || !calls[0].Login.Payload.Equal(one) {
		t.Errorf("the vendor was asked %v", calls)
	}
	for _, answer := range []core.Verification{
		{State: core.VerificationRefused, Message: "wrong key"}, {State: core.VerificationUnreachable, Message: "no route"}, {State: core.VerificationUnsupported, Message: "nobody to ask"},
	} {
		issuer.Answer(func(credential.Login) (core.Verification, error) { return answer, nil })
		for _, validate := range []bool{true, false} {
			_, err := create(core.Mutation{ValidateOnly: validate}, key, one)
			wantReason(t, answer.State.String(), err, core.ErrPrecondition, core.ReasonVerificationFailed)
			if err != nil && !strings.HasSuffix(err.Error(), answer.Message) {
				t.Error(err)
			}
		}
	}
	if now := revision(t, h); now != before {
		t.Errorf("%d commits of what was checked or refused", now-before)
	}
	issuer.Answer(nil)
	if c, err = create(core.Mutation{}, key, one); err != nil || get(t, h, key).Verification == nil {
		t.Fatal(c, err)
	}
	// The source is stored, the payload itself is not: an id for one of them.
	issuer.Calls()
	lines0 := len(departures(h))
	if _, err = create(core.Mutation{}, cred("role"), coretest.AssumeRole(t, key, "r")); err != nil {
		t.Fatal(err)
	}
	calls = issuer.Calls()
	if len(calls) != 1 || calls[0].Login.ID != "" || calls[0].Login.Source.ID != get(t, h, key).UID+"/1" {
		t.Errorf("the vendor was asked %v", calls)
	}
	equal(t, "the line of the source", lines(departures(h)[lines0:]), []string{"credentials.verify key/versions/1 to 0"})

	if c, err = update(core.Mutation{ValidateOnly: true}, key, two); err != nil || c.Verification == nil || get(t, h, key).ActiveVersion != 1 {
		t.Errorf("an update, checked only: %+v, %v", c, err)
	}
	if c, err = update(core.Mutation{}, key, two); err != nil || get(t, h, key).Verification.Version != 2 {
		t.Errorf("an update: %+v, %v", c, err)
	}
	issuer.Answer(refuses("wrong"))
	_, err = update(core.Mutation{}, key, one)
	wantReason(t, "a refused update", err, core.ErrPrecondition, core.ReasonVerificationFailed)
	if c := get(t, h, key); c.ActiveVersion != 2 || c.Verification.State != core.Verified {
		t.Errorf("after a refused update: %+v", c)
	}
	issuer.Answer(nil)
	issuer.Calls()

	// What could not be stored anyway is not sent to anybody.
	_, err = create(core.Mutation{}, key, one)
	wantReason(t, "a taken name", err, core.ErrAlreadyExists, core.ReasonAlreadyExists)
	_, err = create(core.Mutation{}, cred("bad"), coretest.AssumeRole(t, cred("none"), "r"))
	wantField(t, "no source", err, "credential.payload.awsAssumeRole.source")
	_, err = update(core.Mutation{}, key, coretest.Basic(t, "a", "b"))
	wantField(t, "another kind", err, "credential.payload")
	_, err = update(core.Mutation{}, cred("role"), coretest.AssumeRole(t, cred("role"), "r"))
	wantReason(t, "a ring", err, core.ErrPrecondition, core.ReasonReferenceCycle)
	_, err = h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: key, Etag: "1-x", Payload: &two, Verify: true})
	wantReason(t, "an old etag", err, core.ErrAborted, core.ReasonEtagMismatch)
	for _, d := range []*string{nil, new("d")} {
		_, err = h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: key, Description: d, Verify: true})
		wantField(t, "nothing to verify", err, "verify")
	}
	if calls := issuer.Calls(); len(calls) > 0 {
		t.Errorf("the vendor was asked: %v", calls)
	}

	// A request that was answered is not verified again.
	m := core.Mutation{RequestID: "r", Digest: digest("d")}
	first, err := create(m, cred("once"), one)
	if err != nil {
		t.Fatal(err)
	}
	issuer.Answer(refuses("wrong by now"))
	again, err := create(m, cred("once"), one)
	if err != nil || again.Verification == nil || again.Etag != first.Etag {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	if calls := issuer.Calls(); len(calls) != 1 {
		t.Errorf("the vendor was asked %d times", len(calls))
	}
	consistent(t, h)
}

// Each question of a verified write is asked: to write, to verify, and to use
// what is referred to.
// What a batch stores together is verified together: a source with the payload
// that it is about to have.
func TestBatchIsVerifiedWithItsOwnSources(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, issuer.Use)
	ctx := coretest.AdminContext(t)
	key := cred("key")
	one, two := coretest.AccessKey(t, "00000000"), coretest.AccessKey(t, "11111111")
	createPayload(t, h, key, one)
	for _, test := range []struct {
		name  string
		other core.BatchOperation
		with  credential.Payload
	}{
		{"a source that is replaced", core.BatchOperation{Update: &core.UpdateCredentialRequest{Name: key, Payload: &two}}, two},
		{"a source that is new", core.BatchOperation{Create: &core.CreateCredentialRequest{Name: cred("new"), Payload: one}}, one},
		{"a source that keeps its payload", core.BatchOperation{Update: &core.UpdateCredentialRequest{Name: key, Description: new("x")}}, two},
	} {
		source := key
		if test.other.Create != nil {
			source = test.other.Create.Name
		}
		issuer.Calls()
		role := cred("role-of-" + source.ID + "-" + test.name[len(test.name)-3:])
		if _, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
			{Create: &core.CreateCredentialRequest{Name: role, Payload: coretest.AssumeRole(t, source, "r"), Verify: true}}, test.other,
		}}); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		calls := issuer.Calls()
		if len(calls) != 1 || calls[0].Login.Source == nil || !calls[0].Login.Source.Payload.Equal(test.with) {
			t.Errorf("%s: the vendor was asked %v", test.name, calls)
		}
	}
}

func TestWriteVerifiedNeedsVerify(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	for _, denied := range []core.Permission{core.CredentialsCreate, core.CredentialsVerify, core.CredentialsUse} {
		h := coretest.New(t, issuer.Use)
		mustPut(t, h, cred("key"), coretest.AccessKey(t, "00000000"))
		h.Stop(t)
		h.Start(t, issuer.Use, func(c *core.Config) { c.Authorizer = denies{denied} })
		_, err := h.Store.CreateCredential(coretest.AdminContext(t), core.CreateCredentialRequest{
			Name: cred("role"), Payload: coretest.AssumeRole(t, cred("key"), "r"), Verify: true,
		})
		if !errors.Is(err, core.ErrPermissionDenied) {
			t.Errorf("without %s: %v", denied, err)
		}
	}
	if calls := issuer.Calls(); len(calls) > 0 {
		t.Errorf("the vendor was asked: %v", calls)
	}
}

// A token is on record before it leaves, by the version that it is from, and
// does not leave otherwise.
func TestMint(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	h := coretest.New(t, issuer.Use)
	names := row(t, h, "a", 1)
	role := names[1]
	ctx := core.WithCallID(core.WithPrincipal(t.Context(), &core.Principal{Name: "projects/default/tokens/a", Role: core.Admin, AllProjects: true, Remote: "192.0.2.1:5"}), "call-7")
	minted := func() []core.AuditEntry {
		return slices.DeleteFunc(h.Audit.Entries(), func(e core.AuditEntry) bool { return e.Minted == "" })
	}
	at, token, err := h.Store.MintToken(ctx, role, nil)
	if err != nil || at != role.Version(1) {
		t.Fatal(at, err)
	}
	want := fmt.Sprintf("token 1 of %s/1 %s/1", get(t, h, role).UID, get(t, h, names[0]).UID)
	if got, err := token.Field("token"); err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	entries := minted()
	if len(entries) != 1 || entries[0].Time.IsZero() {
		t.Fatalf("%+v", entries)
	}
	entries[0].Time = time.Time{}
	equal(t, "the line", entries[0], core.AuditEntry{
		Principal: "projects/default/tokens/a", Remote: "192.0.2.1:5", RequestID: "call-7", Permission: core.CredentialsMint,
		Resource: role.String(), Allowed: true, Payloads: []string{role.Version(1).String(), names[0].Version(1).String()},
		Minted: role.Version(1).String() + " awsAssumeRole",
	})
	calls := issuer.Calls()
	if len(calls) != 1 || calls[0].Request.Kind() != "awsAssumeRole" {
		t.Errorf("asked %v", calls)
	}

	h.Audit.Fail(errDisk)
	at, token, err = h.Store.MintToken(ctx, role, nil)
	wantReason(t, "a token without an audit log", err, core.ErrUnavailable, core.ReasonAuditUnavailable)
	if !token.IsZero() || at.Number != 0 {
		t.Error("a token came with the error")
	}
	h.Audit.Fail(nil)
	refusal := &core.Error{Kind: core.ErrPrecondition, Reason: core.ReasonMintRefused, Message: "no trust"}
	issuer.Refuse(refusal)
	if _, token, err = h.Store.MintToken(ctx, role, nil); !errors.Is(err, refusal) || !token.IsZero() {
		t.Errorf("a refusal: %v", err)
	}
	issuer.Refuse(nil)
	issuer.Calls()
	_, _, err = h.Store.MintToken(ctx, role, &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_IbmIamToken_{IbmIamToken: &credentialv1.TokenRequest_IbmIamToken{}}})
	wantField(t, "what the kind does not make", err, "token.ibmIamToken")
	create(t, h, demo, "one")
	_, _, err = h.Store.MintToken(ctx, demo, nil)
	wantField(t, "a kind that makes none", err, "token")
	_, _, err = h.Store.MintToken(ctx, cred("none"), nil)
	wantReason(t, "no credential", err, core.ErrNotFound, core.ReasonNotFound)
	if calls := issuer.Calls(); len(calls) > 0 {
		t.Errorf("the vendor was asked: %v", calls)
	}
	// What the vendor refused was asked for, and is on record too.
	if n := len(minted()); n != 2 {
		t.Errorf("%d lines for one token and one refusal", n)
	}
	// The next version is what the next token is from.
	mustPut(t, h, names[0], coretest.AccessKey(t, "11111111"))
	if _, token, err = h.Store.MintToken(ctx, role, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := token.Field("token"); err != nil || !strings.HasSuffix(string(got), "/2") {
		t.Errorf("after the source has changed: %s, %v", got, err)
	}
}

// What acts as the server does so only in projects that the configuration binds,
// also at the end of a row; it can be made and referred to anywhere.
func TestAmbientIsBound(t *testing.T) {
	issuer := coretest.NewIssuer(t)
	var bound resourcename.Project
	h := coretest.New(t, issuer.Use, func(c *core.Config) {
		c.Bound = func(l credential.Payload, p resourcename.Project) bool { return l.Kind() == "awsRole" && p == bound }
	})
	ctx := coretest.AdminContext(t)
	ambient, role := cred("instance"), cred("role")
	mustPut(t, h, ambient, coretest.InstanceRole(t))
	mustPut(t, h, role, coretest.AssumeRole(t, ambient, "r"))
	request := &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_AwsAssumeRole{AwsAssumeRole: &credentialv1.TokenRequest_AwsRoleSession{RoleArn: "arn:aws:iam::123456789012:role/x"}}}
	all := func(what string, ok bool) {
		t.Helper()
		for _, c := range []resourcename.Credential{ambient, role} {
			_, err := h.Store.VerifyCredential(ctx, c, 0)
			errs := map[string]error{"verify": err}
			r := request
			if c == role {
				r = nil
			}
			_, _, errs["mint"] = h.Store.MintToken(ctx, c, r)
			p := coretest.AssumeRole(t, c, "new")
			_, errs["create"] = h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Mutation: core.Mutation{ValidateOnly: true}, Name: cred("new"), Payload: p, Verify: true})
			for call, err := range errs {
				if ok && err != nil {
					t.Errorf("%s: %s of %s: %v", what, call, c.ID, err)
				}
				if !ok {
					wantReason(t, what+": "+call+" of "+c.ID, err, core.ErrPrecondition, core.ReasonAmbientNotBound)
				}
			}
		}
		if calls := issuer.Calls(); (len(calls) > 0) != ok {
			t.Errorf("%s: the vendor was asked %v", what, calls)
		}
	}
	all("nowhere bound", false)
	bound = resourcename.Project{ID: "other"}
	all("bound elsewhere", false)
	bound = demoProject
	all("bound", true)
	h.Stop(t)
	h.Start(t, issuer.Use)
	all("without a word in the configuration", false)
	// It can be read all the same: there is no secret in it.
	if _, p, err := h.Store.AccessCredential(ctx, ambient, 0); err != nil || !p.Ambient() {
		t.Error(err)
	}
}

// Verifications are counted with the ages, and filter lists.
func TestVerificationsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := coretest.NewIssuer(t)
		h := coretest.New(t, issuer.Use)
		ctx := coretest.AdminContext(t)
		for i := range 4 {
			name := cred(fmt.Sprint("c-", i))
			create(t, h, name, "x")
			if i > 0 {
				issuer.Answer(func(credential.Login) (core.Verification, error) {
					return core.Verification{State: core.VerificationState(min(i, 2))}, nil
				})
				if _, err := h.Store.VerifyCredential(ctx, name, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		equal(t, "counts", h.Store.Ages(), []core.Ages{{
			Project: demoProject, Kind: "basic", States: [6]int{core.AgeFresh: 4}, Verifications: [5]int{1, core.Verified: 1, core.VerificationRefused: 2},
		}})
		found, _, err := h.Store.ListCredentials(context.WithoutCancel(ctx), demoProject, "verification = REFUSED", core.Page{})
		if err != nil || len(found) != 2 || found[0].Name.ID != "c-2" {
			t.Errorf("%v, %v", found, err)
		}
	})
}

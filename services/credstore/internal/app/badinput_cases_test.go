package app

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// badCase is one request that must be refused, the same over both transports.
type badCase struct {
	name string
	// as is who calls; "" is the administrator.
	as      string
	request proto.Message
	want    refusal
	// rest is what REST answers where a URL cannot carry what is wrong, so that
	// the request is another one.
	rest *refusal
	// grpcOnly says why REST cannot carry the request at all.
	grpcOnly string
}

// field is the refusal of fields, named by their paths in the request.
func field(fields ...string) refusal {
	return refusal{codes.InvalidArgument, "INVALID_FIELD", strings.Join(fields, " ")}
}

func because(code codes.Code, reason string) refusal { return refusal{code: code, reason: reason} }

// The refusals that come before a call, over REST.
func noPath() *refusal { return &refusal{codes.NotFound, "PATH_UNKNOWN", ""} }
func badURL() *refusal { return &refusal{codes.InvalidArgument, "MALFORMED_URL", ""} }

const (
	inDefault = "projects/default"
	bot       = "projects/default/credentials/bot"
	missing   = "projects/default/credentials/missing"
)

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func repeated[V any](n int, f func(i int) V) []V {
	out := make([]V, n)
	for i := range out {
		out[i] = f(i)
	}
	return out
}

func entries(n int) map[string]string {
	out := make(map[string]string, n)
	for i := range n {
		out[fmt.Sprintf("key%d", i)] = "v"
	}
	return out
}

// badNames are what no resource is called, with what REST makes of each.
func badNames() []badCase {
	long := "a" + strings.Repeat("b", 63)
	resources := []struct {
		name, collection string
		request          func(name string) proto.Message
	}{
		{"project", "projects/", func(n string) proto.Message { return &credstorev1.GetProjectRequest{Name: n} }},
		{"credential", inDefault + "/credentials/", func(n string) proto.Message { return &credstorev1.GetCredentialRequest{Name: n} }},
		{"secret store", inDefault + "/secretStores/", func(n string) proto.Message { return &credstorev1.GetSecretStoreRequest{Name: n} }},
		{"injection", inDefault + "/injections/", func(n string) proto.Message { return &credstorev1.GetInjectionRequest{Name: n} }},
		{"token", inDefault + "/tokens/", func(n string) proto.Message { return &credstorev1.GetTokenRequest{Name: n} }},
		{"usage", bot + "/usages/", func(n string) proto.Message { return &credstorev1.DeleteUsageRequest{Name: n} }},
		{"version", bot + "/versions/", func(n string) proto.Message { return &credstorev1.ActivateCredentialVersionRequest{Name: n} }},
	}
	ids := []struct {
		name, id string
		rest     *refusal
	}{
		{"upper case", "Bot", nil},
		{"too long", long, nil},
		{"begins with a digit", "1bot-", nil},
		{"ends with a hyphen", "bot-", nil},
		{"underscore", "my_bot", nil},
		{"wildcard", "-", nil},
		{"dots", "..", nil},
		{"a colon", "bot:x", noPath()},
		{"a slash", "bot/x", noPath()},
		{"a slash behind", "bot/", noPath()},
		{"nothing", "", noPath()},
		{"a space", "my bot", badURL()},
		{"another alphabet", "böt", badURL()},
		{"percent encoding", "b%6ft", badURL()},
	}
	var cases []badCase
	for _, r := range resources {
		for _, i := range ids {
			cases = append(cases, badCase{name: r.name + " named with " + i.name, request: r.request(r.collection + i.id), want: field("name"), rest: i.rest})
		}
		cases = append(cases,
			badCase{name: r.name + " without a name", request: r.request(""), want: field("name"), rest: noPath()},
			badCase{name: r.name + " of another collection", request: r.request("folders/default/things/bot"), want: field("name"), rest: noPath()},
			badCase{name: r.name + " with a slash in front", request: r.request("/" + r.collection + "bot"), want: field("name"), rest: noPath()},
		)
	}
	for _, v := range []string{"0", "01", "4294967296", "-1", "1.0", "0x1", "latest", "18446744073709551617"} {
		cases = append(cases, badCase{
			name: "version number " + v, request: &credstorev1.DestroyCredentialVersionRequest{Name: bot + "/versions/" + v}, want: field("name"),
		})
	}
	return append(cases,
		badCase{name: "name of a secret store for a credential", request: &credstorev1.GetCredentialRequest{Name: inDefault + "/secretStores/bot"}, want: field("name"), rest: &refusal{codes.NotFound, "NOT_FOUND", ""}},
		badCase{name: "access of a usage", request: &credstorev1.AccessCredentialRequest{Name: bot + "/usages/x"}, want: field("name"), rest: noPath()},
		badCase{name: "usages of an injection", request: &credstorev1.ListUsagesRequest{Parent: inDefault + "/injections/web"}, want: field("parent"), rest: noPath()},
		badCase{name: "usage derived from nothing known", request: &credstorev1.DeleteUsageRequest{Name: bot + "/usages/tokens.web"}, want: field("name")},
	)
}

// badIDs are ids and parents of what is created.
func badIDs() []badCase {
	good := &credstorev1.Credential{Payload: basic("bot", canary)}
	item := []*credstorev1.Item{fileItem("x")}
	creates := []struct {
		name    string
		field   string
		request func(parent, id string) proto.Message
	}{
		{"credential", "credentialId", func(p, id string) proto.Message {
			return &credstorev1.CreateCredentialRequest{Parent: p, CredentialId: id, Credential: good}
		}},
		{"secret store", "secretStoreId", func(p, id string) proto.Message {
			return &credstorev1.CreateSecretStoreRequest{Parent: p, SecretStoreId: id, SecretStore: secretStore("https://vault.example.com")}
		}},
		{"injection", "injectionId", func(p, id string) proto.Message {
			return &credstorev1.CreateInjectionRequest{Parent: p, InjectionId: id, Injection: &credstorev1.Injection{Selector: map[string]string{"a": "b"}, Items: item}}
		}},
		{"token", "tokenId", func(p, id string) proto.Message {
			return &credstorev1.CreateTokenRequest{Parent: p, TokenId: id, Token: &credstorev1.Token{Role: credstorev1.Token_READER}}
		}},
		{"project", "projectId", func(_, id string) proto.Message { return &credstorev1.CreateProjectRequest{ProjectId: id} }},
		{"usage", "usageId", func(_, id string) proto.Message {
			return &credstorev1.DeclareUsageRequest{Parent: bot, UsageId: id, Usage: &credstorev1.Usage{User: "u"}}
		}},
	}
	var cases []badCase
	for _, c := range creates {
		for name, id := range map[string]string{
			"no": "", "an upper-case": "Bot", "a too long": strings.Repeat("a", 64), "a colon in the": "bot:access",
			"a slash in the": "bot/x", "an escaping": "../bot", "a percent in the": "%2e", "a line break in the": "bot\n",
		} {
			cases = append(cases, badCase{name: name + " id of a new " + c.name, request: c.request(inDefault, id), want: field(c.field)})
		}
	}
	for _, c := range creates[:4] {
		cases = append(cases, badCase{name: "bad parent of a new " + c.name, request: c.request("projects/Default", "x"), want: field("parent")})
		cases = append(cases, badCase{name: "no parent of a new " + c.name, request: c.request("", "x"), want: field("parent"), rest: noPath()})
	}
	return append(cases,
		badCase{name: "credential in a project that is missing", request: creates[0].request("projects/nowhere", "x"), want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "token in a project that is missing", request: creates[3].request("projects/nowhere", "x"), want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "list of a project that is missing", request: &credstorev1.ListCredentialsRequest{Parent: "projects/nowhere"}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "watch of a project that is missing", request: &credstorev1.WatchRequest{Parent: "projects/nowhere"}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "a name in the body that is another's", request: &credstorev1.CreateCredentialRequest{
			Parent: inDefault, CredentialId: "x", Credential: &credstorev1.Credential{Name: bot, Payload: basic("bot", canary)},
		}, want: field("credential.name")},
		badCase{name: "a token's name in the body that is another's", request: &credstorev1.CreateTokenRequest{
			Parent: inDefault, TokenId: "x", Token: &credstorev1.Token{Name: inDefault + "/tokens/y", Role: credstorev1.Token_READER},
		}, want: field("token.name")},
		badCase{name: "a usage's name in the body that is another's", request: &credstorev1.DeclareUsageRequest{
			Parent: bot, UsageId: "x", Usage: &credstorev1.Usage{Name: missing + "/usages/x", User: "u"},
		}, want: field("usage.name")},
	)
}

// createWith is the creation of a credential with something wrong.
func createWith(c *credstorev1.Credential) *credstorev1.CreateCredentialRequest {
	return &credstorev1.CreateCredentialRequest{Parent: inDefault, CredentialId: "new", Credential: c}
}

func createPayload(p *credentialv1.Payload) *credstorev1.CreateCredentialRequest {
	return createWith(&credstorev1.Credential{Payload: p})
}

// badPayloads are payloads that no kind allows.
func badPayloads() []badCase {
	const at = "credential.payload"
	big := opaque(map[string][]byte{"a": []byte(canary + strings.Repeat("x", 256<<10))})
	many := make(map[string][]byte)
	for i := range 1001 {
		many[fmt.Sprintf("key%d", i)] = []byte(canary)
	}
	var cases []badCase
	for _, c := range []struct {
		name    string
		payload *credentialv1.Payload
		field   string
	}{
		{"no payload", nil, at},
		{"payload of no kind", &credentialv1.Payload{}, at},
		{"payload of 256 KiB and some", big, at},
		{"basic without a user", basic("", canary), at + ".basic.username"},
		{"basic with a colon in the user", basic(canary+":x", canary), at + ".basic.username"},
		{"basic with a long user", basic(strings.Repeat("u", 1025), canary), at + ".basic.username"},
		{"basic with a line break in the user", basic("bot\r\nX-Injected: "+canary, canary), at + ".basic.username"},
		{"basic without a password", basic("bot", ""), at + ".basic.password"},
		{"basic with a long password", basic("bot", canary+strings.Repeat("x", 65536)), at + ".basic.password"},
		{"basic with a NUL in the password", basic("bot", canary+"\x00"), at + ".basic.password"},
		{"token with a space", apiToken(canary + " " + canary), at + ".apiToken.token"},
		{"token outside ASCII", apiToken(canary + "ü"), at + ".apiToken.token"},
		{"token of white space", apiToken(" \n"), at + ".apiToken.token"},
		{"opaque without entries", opaque(nil), at + ".opaque.data"},
		{"opaque with 1,001 entries", opaque(many), at + ".opaque.data"},
		{"opaque with a path as key", opaque(map[string][]byte{"../" + canary: []byte(canary)}), at + ".opaque.data"},
		{"vault without a method", &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{}}}, at + ".vault"},
		{"vault with a bad token", vaultToken("hvs." + canary + "\n\n" + canary), at + ".vault.token"},
		{"AppRole without a role", appRole("", canary, ""), at + ".vault.appRole.roleId"},
		{"AppRole with a bad secret", appRole("role", canary+" x", ""), at + ".vault.appRole.secretId"},
		{"AppRole mounted elsewhere", appRole("role", canary, "../sys"), at + ".vault.appRole.mount"},
		{"AppRole with auth/ in the mount", appRole("role", canary, "auth/approle"), at + ".vault.appRole.mount"},
	} {
		cases = append(cases, badCase{name: c.name, request: createPayload(c.payload), want: field(c.field)})
	}
	return append(cases,
		badCase{name: "two bad fields at once", request: createPayload(basic("", "")), want: field(at+".basic.username", at+".basic.password")},
		badCase{name: "update to another kind", request: &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot, Payload: apiToken(canary)}, UpdateMask: mask("payload"),
		}, want: field("credential.payload")},
		badCase{name: "update to a bad payload, only asking", request: &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot, Payload: basic("", canary)}, ValidateOnly: true,
		}, want: field("credential.payload.basic.username")},
	)
}

// badMetadata are descriptions and labels that are too much.
func badMetadata() []badCase {
	with := func(c *credstorev1.Credential) proto.Message {
		c.Payload = basic("bot", canary)
		return createWith(c)
	}
	const labels, description = "credential.labels", "credential.description"
	return []badCase{
		{name: "description of 1,025 characters", request: with(&credstorev1.Credential{Description: strings.Repeat("ä", 1025)}), want: field(description)},
		{name: "description with an escape sequence", request: with(&credstorev1.Credential{Description: "\x1b[2J"}), want: field(description)},
		{name: "65 labels", request: with(&credstorev1.Credential{Labels: entries(65)}), want: field(labels)},
		{name: "label with an upper-case key", request: with(&credstorev1.Credential{Labels: map[string]string{"Team": "x"}}), want: field(labels)},
		{name: "label without a key", request: with(&credstorev1.Credential{Labels: map[string]string{"": "x"}}), want: field(labels)},
		{name: "label with a long key", request: with(&credstorev1.Credential{Labels: map[string]string{strings.Repeat("k", 64): "x"}}), want: field(labels)},
		{name: "label with a long value", request: with(&credstorev1.Credential{Labels: map[string]string{"team": strings.Repeat("x", 257)}}), want: field(labels)},
		{name: "label with a NUL", request: with(&credstorev1.Credential{Labels: map[string]string{"team": "x\x00"}}), want: field(labels)},
		{name: "update to 65 labels", request: &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: bot, Labels: entries(65)}}, want: field(labels)},
		{name: "project with a long description", request: &credstorev1.CreateProjectRequest{
			ProjectId: "x", Project: &credstorev1.Project{Description: strings.Repeat("x", 1025)},
		}, want: field("project.description")},
		{name: "project with a bad label", request: &credstorev1.CreateProjectRequest{
			ProjectId: "x", Project: &credstorev1.Project{Labels: map[string]string{"-": "x"}},
		}, want: field("project.labels")},
	}
}

// badMasks are in both spellings.
func badMasks() []badCase {
	update := func(paths ...string) proto.Message {
		return &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot, Payload: basic("bot", canary)}, UpdateMask: mask(paths...),
		}
	}
	store := func(st *credstorev1.SecretStore, paths ...string) proto.Message {
		st.Name = inDefault + "/secretStores/team-vault"
		return &credstorev1.UpdateSecretStoreRequest{SecretStore: st, UpdateMask: mask(paths...)}
	}
	injection := func(paths ...string) proto.Message {
		return &credstorev1.UpdateInjectionRequest{Injection: &credstorev1.Injection{Name: inDefault + "/injections/web"}, UpdateMask: mask(paths...)}
	}
	quick := func() *credstorev1.SecretStore {
		return &credstorev1.SecretStore{PollInterval: durationpb.New(time.Millisecond)}
	}
	return []badCase{
		{name: "unknown field in the mask", request: update("pasword"), want: field("updateMask")},
		{name: "secret in the mask", request: update(canary), want: field("updateMask")},
		{name: "part of the payload in the mask", request: update("payload.basic.username"), want: field("updateMask")},
		{name: "part of the labels in the mask", request: update("labels.team"), want: field("updateMask")},
		{name: "good and unknown in one mask", request: update("description", "nothing"), want: field("updateMask")},
		{name: "star beside another", request: update("*", "labels"), want: field("updateMask")},
		{name: "output in the mask, as in the proto", request: update("create_time"), want: field("updateMask")},
		{name: "output in the mask, as in JSON", request: update("createTime"), want: field("updateMask")},
		{name: "name in the mask", request: update("name"), want: field("updateMask")},
		{name: "etag in the mask", request: update("etag"), want: field("updateMask")},
		{name: "kind in the mask", request: update("kind"), want: field("updateMask")},
		{name: "mask in upper case", request: update("Payload"), want: field("updateMask")},
		{name: "mask with a request's prefix", request: update("credential.payload"), want: field("updateMask")},
		{name: "65 paths in the mask", request: update(repeated(65, func(int) string { return "labels" })...), want: field("updateMask")},
		{name: "payload in the mask and nowhere else", request: &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot}, UpdateMask: mask("payload"),
		}, want: field("credential.payload")},
		{name: "star without a payload", request: &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: bot}, UpdateMask: mask("*"),
		}, want: field("credential.payload")},
		// Both spellings are understood, so it is the value that is refused.
		{name: "mask poll_interval", request: store(quick(), "poll_interval"), want: field("secretStore.pollInterval")},
		{name: "mask pollInterval", request: store(quick(), "pollInterval"), want: field("secretStore.pollInterval")},
		{name: "mask poll-interval", request: store(quick(), "poll-interval"), want: field("updateMask")},
		{name: "mask pollinterval", request: store(quick(), "pollinterval"), want: field("updateMask")},
		{name: "mask PollInterval", request: store(quick(), "PollInterval"), want: field("updateMask")},
		{name: "part of the provider in the mask", request: store(quick(), "vault.address"), want: field("updateMask")},
		{name: "the oneof in the mask", request: store(quick(), "provider"), want: field("updateMask")},
		{name: "provider in the mask and nowhere else", request: store(quick(), "vault"), want: field("secretStore.vault")},
		{name: "part of the items in the mask", request: injection("items.file"), want: field("updateMask")},
		{name: "selector emptied by the mask", request: injection("selector"), want: field("injection.selector")},
		{name: "items emptied by the mask", request: injection("items"), want: field("injection.items")},
	}
}

// badEtags do not match.
func badEtags(w *world) []badCase {
	mismatch := because(codes.Aborted, "ETAG_MISMATCH")
	const stale = "W/\"1\""
	return []badCase{
		{name: "stale etag on update", request: &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: bot, Etag: stale, Description: "x"}}, want: mismatch},
		{name: "stale etag on an update of nothing", request: &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: bot, Etag: stale}}, want: mismatch},
		{name: "stale etag on delete", request: &credstorev1.DeleteCredentialRequest{Name: bot, Etag: stale}, want: mismatch},
		{name: "another's etag on delete", request: &credstorev1.DeleteCredentialRequest{Name: inDefault + "/credentials/spare", Etag: w.etag}, want: mismatch},
		{name: "stale etag on delete by force", request: &credstorev1.DeleteCredentialRequest{Name: bot, Etag: stale, Force: true}, want: mismatch},
		{name: "stale etag on activate", request: &credstorev1.ActivateCredentialVersionRequest{Name: bot + "/versions/3", Etag: stale}, want: mismatch},
		{name: "stale etag on disable", request: &credstorev1.DisableCredentialVersionRequest{Name: bot + "/versions/3", Etag: stale}, want: mismatch},
		{name: "stale etag on enable", request: &credstorev1.EnableCredentialVersionRequest{Name: bot + "/versions/2", Etag: stale}, want: mismatch},
		{name: "stale etag on destroy", request: &credstorev1.DestroyCredentialVersionRequest{Name: bot + "/versions/3", Etag: stale}, want: mismatch},
		{name: "stale etag of a store", request: &credstorev1.UpdateSecretStoreRequest{SecretStore: &credstorev1.SecretStore{
			Name: inDefault + "/secretStores/team-vault", Etag: stale, Description: "x",
		}}, want: mismatch},
		{name: "stale etag of a store on delete", request: &credstorev1.DeleteSecretStoreRequest{Name: inDefault + "/secretStores/team-vault", Etag: stale}, want: mismatch},
		{name: "stale etag of an injection", request: &credstorev1.UpdateInjectionRequest{Injection: &credstorev1.Injection{
			Name: inDefault + "/injections/web", Etag: stale, Description: "x",
		}}, want: mismatch},
		{name: "stale etag of an injection on delete", request: &credstorev1.DeleteInjectionRequest{Name: inDefault + "/injections/web", Etag: stale}, want: mismatch},
		{name: "stale etag of a token", request: &credstorev1.DeleteTokenRequest{Name: inDefault + "/tokens/reader", Etag: stale}, want: mismatch},
		{name: "stale etag of a project", request: &credstorev1.DeleteProjectRequest{Name: "projects/empty", Etag: stale}, want: mismatch},
		{name: "stale etag in a batch", request: &credstorev1.BatchWriteCredentialsRequest{Parent: inDefault, Operations: []*credstorev1.BatchWriteCredentialsRequest_Operation{
			updateOp(&credstorev1.Credential{Name: inDefault + "/credentials/spare", Payload: basic("spare", canary)}),
			deleteOp(bot, stale),
		}}, want: mismatch},
	}
}

func updateOp(c *credstorev1.Credential) *credstorev1.BatchWriteCredentialsRequest_Operation {
	return &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Update{
		Update: &credstorev1.BatchWriteCredentialsRequest_Update{Credential: c},
	}}
}

func createOp(id string, c *credstorev1.Credential) *credstorev1.BatchWriteCredentialsRequest_Operation {
	return &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Create{
		Create: &credstorev1.BatchWriteCredentialsRequest_Create{CredentialId: id, Credential: c},
	}}
}

func deleteOp(name, etag string) *credstorev1.BatchWriteCredentialsRequest_Operation {
	return &credstorev1.BatchWriteCredentialsRequest_Operation{Operation: &credstorev1.BatchWriteCredentialsRequest_Operation_Delete{
		Delete: &credstorev1.BatchWriteCredentialsRequest_Delete{Name: name, Etag: etag},
	}}
}

// badCursors are page tokens, page sizes, filters and resume tokens.
func badCursors(w *world) []badCase {
	page := func(token, filter string) proto.Message {
		return &credstorev1.ListCredentialsRequest{Parent: inDefault, PageToken: token, Filter: filter}
	}
	size := func(r proto.Message) badCase {
		return badCase{name: fmt.Sprintf("page size -1 of %T", r), request: r, want: field("pageSize")}
	}
	cases := []badCase{
		{name: "garbage page token", request: page("garbage", ""), want: field("pageToken")},
		{name: "page token that is no base64", request: page("!\n\x00", ""), want: field("pageToken")},
		{name: "damaged page token", request: page(swapFirst(w.pageOfCredentials), ""), want: field("pageToken")},
		{name: "cut page token", request: page(w.pageOfCredentials[:len(w.pageOfCredentials)-1], ""), want: field("pageToken")},
		{name: "long page token", request: page(strings.Repeat("A", 2000), ""), want: field("pageToken")},
		{name: "page token for another filter", request: page(w.pageOfFilter, ""), want: field("pageToken")},
		{name: "page token without its filter", request: page(w.pageOfCredentials, "kind = basic"), want: field("pageToken")},
		{name: "page token of another project", request: page(w.pageOfOther, ""), want: field("pageToken")},
		{name: "page token of another list", request: page(w.pageOfTokens, ""), want: field("pageToken")},
		{name: "resume token as page token", request: page(w.resume, ""), want: field("pageToken")},
		{name: "page token of another credential", request: &credstorev1.ListCredentialVersionsRequest{Parent: inDefault + "/credentials/api", PageToken: w.pageOfVersions}, want: field("pageToken")},
		{name: "credentials' page token for tokens", request: &credstorev1.ListTokensRequest{Parent: inDefault, PageToken: w.pageOfCredentials}, want: field("pageToken")},
		{name: "credentials' page token for projects", request: &credstorev1.ListProjectsRequest{PageToken: w.pageOfCredentials}, want: field("pageToken")},
		{name: "garbage page token of usages", request: &credstorev1.ListUsagesRequest{Parent: bot, PageToken: "garbage"}, want: field("pageToken")},
		size(&credstorev1.ListCredentialsRequest{Parent: inDefault, PageSize: -1}),
		size(&credstorev1.ListCredentialVersionsRequest{Parent: bot, PageSize: -1}),
		size(&credstorev1.ListTokensRequest{Parent: inDefault, PageSize: -1}),
		size(&credstorev1.ListProjectsRequest{PageSize: -2147483648}),
		size(&credstorev1.ListInjectionsRequest{Parent: inDefault, PageSize: -1}),
		size(&credstorev1.ListSecretStoresRequest{Parent: inDefault, PageSize: -1}),
		size(&credstorev1.ListUsagesRequest{Parent: bot, PageSize: -1}),
	}
	for _, f := range []string{
		"basic", "kind", "kind ==", "kind = ", "kind > basic", "uid = x", "payload.basic.password = x", "labels. = x", "labels.Team = x",
		"kind = basic labels.team = x", "kind = basic OR kind = vault", `name = "open`, `name = "a"b`, "kind = basic AND", "(kind = basic)",
		"kind = " + strings.Repeat("x", 4096), "\x00 = x",
	} {
		name := f[:min(len(f), 40)]
		cases = append(cases,
			badCase{name: fmt.Sprintf("list with filter %q", name), request: page("", f), want: field("filter")},
			badCase{name: fmt.Sprintf("watch with filter %q", name), request: &credstorev1.WatchRequest{Parent: inDefault, Filter: f}, want: field("filter")})
	}
	for name, token := range map[string]string{
		"garbage": "garbage", "damaged": swapFirst(w.resume), "cut": w.resume[:len(w.resume)-2], "doubled": w.resume + w.resume,
		"a page's": w.pageOfCredentials, "with a line break": w.resume[:4] + "\n" + w.resume[4:], "padded": w.resume + "==", "long": strings.Repeat("A", 400),
	} {
		cases = append(cases, badCase{name: "resume token that is " + name, request: &credstorev1.WatchRequest{Parent: inDefault, ResumeToken: token}, want: field("resumeToken")})
	}
	return cases
}

// swapFirst changes the first character of a token.
func swapFirst(token string) string {
	if token[0] == 'B' {
		return "C" + token[1:]
	}
	return "B" + token[1:]
}

// badWatches are watches that ask for too much or for nonsense.
func badWatches() []badCase {
	watch := func(change func(*credstorev1.WatchRequest)) proto.Message {
		r := &credstorev1.WatchRequest{Parent: inDefault}
		change(r)
		return r
	}
	beat := func(d time.Duration) proto.Message {
		return watch(func(r *credstorev1.WatchRequest) { r.HeartbeatInterval = durationpb.New(d) })
	}
	const longURL = "a URL of that length is refused by any HTTP server before the contract is asked (431)"
	return []badCase{
		{name: "heartbeat of 0", request: beat(0), want: field("heartbeatInterval")},
		{name: "heartbeat of 999 ms", request: beat(999 * time.Millisecond), want: field("heartbeatInterval")},
		{name: "heartbeat of more than 1 h", request: beat(time.Hour + 1), want: field("heartbeatInterval")},
		{name: "negative heartbeat", request: beat(-time.Second), want: field("heartbeatInterval")},
		{name: "consumer with a space", request: watch(func(r *credstorev1.WatchRequest) { r.Consumer = "my pod" }), want: field("consumer")},
		{name: "consumer of 254 characters", request: watch(func(r *credstorev1.WatchRequest) { r.Consumer = strings.Repeat("x", 254) }), want: field("consumer")},
		{name: "view that does not exist", request: watch(func(r *credstorev1.WatchRequest) { r.View = 99 }), want: field("view")},
		{name: "watch of a bad name", request: watch(func(r *credstorev1.WatchRequest) { r.Names = []string{bot, "bot"} }), want: field("names[1]")},
		{name: "watch of a version", request: watch(func(r *credstorev1.WatchRequest) { r.Names = []string{bot + "/versions/1"} }), want: field("names[0]")},
		{name: "watch of another project's credential", request: watch(func(r *credstorev1.WatchRequest) {
			r.Names = []string{bot, "projects/other/credentials/foreign"}
		}), want: field("names[1]")},
		{name: "watch of 10,001 names", request: watch(func(r *credstorev1.WatchRequest) {
			r.Names = repeated(10_001, func(i int) string { return fmt.Sprintf("%s/credentials/c%d", inDefault, i) })
		}), want: field("names"), grpcOnly: longURL},
		{name: "set of 1,001 injections", request: &credstorev1.GetSetRequest{
			Parent: inDefault, Injections: repeated(1001, func(i int) string { return fmt.Sprintf("%s/injections/i%d", inDefault, i) }),
		}, want: field("injections"), grpcOnly: longURL},
		{name: "set of another project's injection", request: &credstorev1.GetSetRequest{Parent: inDefault, Injections: []string{"projects/other/injections/x"}}, want: field("injections[0]")},
		{name: "set of a credential", request: &credstorev1.GetSetRequest{Parent: inDefault, Injections: []string{bot}}, want: field("injections[0]")},
		{name: "set of a project that is missing", request: &credstorev1.GetSetRequest{Parent: "projects/nowhere"}, want: because(codes.NotFound, "NOT_FOUND")},
	}
}

// badBatches change nothing, whatever of them is good.
func badBatches() []badCase {
	good := func(id string) *credstorev1.BatchWriteCredentialsRequest_Operation {
		return createOp(id, &credstorev1.Credential{Payload: basic("bot", canary)})
	}
	batch := func(ops ...*credstorev1.BatchWriteCredentialsRequest_Operation) proto.Message {
		return &credstorev1.BatchWriteCredentialsRequest{Parent: inDefault, Operations: ops}
	}
	foreign := &credstorev1.Credential{Name: "projects/other/credentials/foreign", Payload: basic("foreign", canary)}
	return []badCase{
		{name: "batch of nothing", request: batch(), want: field("operations")},
		{name: "batch of 101", request: batch(repeated(101, func(i int) *credstorev1.BatchWriteCredentialsRequest_Operation { return good(fmt.Sprintf("c%d", i)) })...), want: field("operations")},
		{name: "batch with an operation that is none", request: batch(good("x"), &credstorev1.BatchWriteCredentialsRequest_Operation{}), want: field("operations[1]")},
		{name: "batch that writes one twice", request: batch(good("x"), deleteOp(inDefault+"/credentials/x", "")), want: field("operations[1]")},
		{name: "batch with another project's credential", request: batch(good("x"), updateOp(foreign)), want: field("operations[1]")},
		{name: "batch with a bad name", request: batch(good("x"), deleteOp("bot", "")), want: field("operations[1].delete.name")},
		{name: "batch with a bad id", request: batch(good("X")), want: field("operations[0].create.credentialId")},
		{name: "batch with a long description", request: batch(createOp("x", &credstorev1.Credential{Payload: basic("a", canary), Description: strings.Repeat("x", 1025)})), want: field("operations[0].create.credential.description")},
		{name: "batch without a payload", request: batch(good("x"), createOp("y", &credstorev1.Credential{})), want: field("operations[1].create.credential.payload")},
		{name: "batch with a bad payload", request: batch(good("x"), createOp("y", &credstorev1.Credential{Payload: basic("", canary)})), want: field("operations[1].create.credential.payload.basic.username")},
		{name: "batch with a bad label of an update", request: batch(good("x"), updateOp(&credstorev1.Credential{Name: bot, Labels: map[string]string{"-": "x"}})), want: field("operations[1].update.credential.labels")},
		{name: "batch with another kind", request: batch(good("x"), updateOp(&credstorev1.Credential{Name: bot, Payload: apiToken(canary)})), want: field("operations[1].update.credential.payload")},
		{name: "batch with a missing credential", request: batch(good("x"), deleteOp(missing, "")), want: because(codes.NotFound, "NOT_FOUND")},
		{name: "batch with one that exists", request: batch(good("x"), good("bot")), want: because(codes.AlreadyExists, "ALREADY_EXISTS")},
		{name: "batch that deletes what is used", request: batch(good("x"), deleteOp(bot, "")), want: because(codes.FailedPrecondition, "CREDENTIAL_IN_USE")},
	}
}

// badItems are items of injections.
func badItems() []badCase {
	create := func(items ...*credstorev1.Item) proto.Message {
		return &credstorev1.CreateInjectionRequest{Parent: inDefault, InjectionId: "new", Injection: &credstorev1.Injection{
			Selector: map[string]string{"app": "new"}, Items: items,
		}}
	}
	const first = "injection.items[0]."
	var cases []badCase
	for name, path := range map[string]string{
		"empty": "", "absolute": "/etc/passwd", "escaping": "../x", "escaping inside": "a/../../x", "with a dot element": "a/./b", "ending in dots": "a/..",
		"with two slashes": "a//b", "ending in a slash": "a/", "with a backslash": `..\x`, "with a NUL": "a\x00b", "with a line break": "a\nb",
		"of a name that is reserved": "..data/x", "too long": strings.Repeat("a/", 600), "with a long element": strings.Repeat("a", 256),
		"too deep": strings.Repeat("a/", 16) + "a", "a dot": ".",
	} {
		cases = append(cases, badCase{name: "path that is " + name, request: create(fileItem(path)), want: field(first + "file.path")})
	}
	for _, mode := range []string{"0", "000", "4755", "1000", "0o400", "rw-r--r--", "+400", "-400", "888", " 400", "99999999999999999999"} {
		i := fileItem("x")
		i.GetFile().Mode = mode
		cases = append(cases, badCase{name: "mode " + mode, request: create(i), want: field(first + "file.mode")})
	}
	secret := func(s *credstorev1.SecretSource) *credstorev1.Item {
		i := fileItem("x")
		i.Source = &credstorev1.Item_Secret{Secret: s}
		return i
	}
	from := func(name, f string) *credstorev1.Item {
		i := fileItem("x")
		i.Source = &credstorev1.Item_Credential{Credential: &credstorev1.CredentialSource{Name: name, Field: f}}
		return i
	}
	const vault = inDefault + "/secretStores/team-vault"
	noSource, noTarget, group := fileItem("x"), fileItem("x"), fileItem("x")
	noSource.Source, noTarget.Target, group.Group = nil, nil, "A Group"
	return append(cases,
		badCase{name: "injection without items", request: create(), want: field("injection.items")},
		badCase{name: "1,001 items", request: create(repeated(1001, func(i int) *credstorev1.Item { return fileItem(fmt.Sprintf("f%d", i)) })...), want: field("injection.items")},
		badCase{name: "one path twice", request: create(fileItem("a"), fileItem("a")), want: field("injection.items[1].file.path")},
		badCase{name: "a file below a file", request: create(fileItem("a"), fileItem("a/b")), want: field("injection.items[1].file.path")},
		badCase{name: "a file above a file", request: create(fileItem("a/b/c"), fileItem("a")), want: field("injection.items[0].file.path")},
		badCase{name: "item without a source", request: create(noSource), want: field("injection.items[0]")},
		badCase{name: "item without a target", request: create(noTarget), want: field(first + "file")},
		badCase{name: "item with a bad group", request: create(group), want: field(first + "group")},
		badCase{name: "item of a bad name", request: create(from("bot", "")), want: field(first + "credential.name")},
		badCase{name: "item of a version", request: create(from(bot+"/versions/1", "")), want: field(first + "credential.name")},
		badCase{name: "item of another project's credential", request: create(from("projects/other/credentials/foreign", "")), want: field(first + "credential.name")},
		badCase{name: "item of a missing credential", request: create(from(missing, "")), want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "item of a field of another kind", request: create(from(bot, "token")), want: field(first + "credential.field")},
		badCase{name: "item of a field of a field", request: create(from(bot, "password.x")), want: field(first + "credential.field")},
		badCase{name: "item of a missing store", request: create(secret(&credstorev1.SecretSource{Store: inDefault + "/secretStores/missing", Path: "x"})), want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "item of another project's store", request: create(secret(&credstorev1.SecretSource{Store: "projects/other/secretStores/x", Path: "x"})), want: field(first + "secret.store")},
		badCase{name: "item of a credential as store", request: create(secret(&credstorev1.SecretSource{Store: bot, Path: "x"})), want: field(first + "secret.store")},
		badCase{name: "secret without a path", request: create(secret(&credstorev1.SecretSource{Store: vault})), want: field(first + "secret.path")},
		badCase{name: "secret outside of the mount", request: create(secret(&credstorev1.SecretSource{Store: vault, Path: "../sys/raw"})), want: field(first + "secret.path")},
		badCase{name: "secret with a query", request: create(secret(&credstorev1.SecretSource{Store: vault, Path: "a?version=1"})), want: field(first + "secret.path")},
		badCase{name: "secret with a percent", request: create(secret(&credstorev1.SecretSource{Store: vault, Path: "a%2f.."})), want: field(first + "secret.path")},
		badCase{name: "secret with a long key", request: create(secret(&credstorev1.SecretSource{Store: vault, Path: "a", Key: strings.Repeat("k", 513)})), want: field(first + "secret.key")},
		badCase{name: "path of another injection that may match too", request: &credstorev1.CreateInjectionRequest{
			Parent: inDefault, InjectionId: "new", Injection: &credstorev1.Injection{Selector: map[string]string{"tier": "x"}, Items: []*credstorev1.Item{fileItem("web")}},
		}, want: because(codes.FailedPrecondition, "PATH_CONFLICT")},
		badCase{name: "injection without a selector", request: &credstorev1.CreateInjectionRequest{
			Parent: inDefault, InjectionId: "new", Injection: &credstorev1.Injection{Items: []*credstorev1.Item{fileItem("x")}},
		}, want: field("injection.selector")},
		badCase{name: "injection with a bad selector", request: &credstorev1.CreateInjectionRequest{
			Parent: inDefault, InjectionId: "new", Injection: &credstorev1.Injection{Selector: map[string]string{"*": "*"}, Items: []*credstorev1.Item{fileItem("x")}},
		}, want: field("injection.selector")},
		badCase{name: "injection without anything", request: &credstorev1.CreateInjectionRequest{Parent: inDefault, InjectionId: "new"}, want: field("injection.selector", "injection.items")},
	)
}

// badStores are secret stores.
func badStores() []badCase {
	create := func(change func(*credstorev1.SecretStore)) proto.Message {
		st := secretStore("https://vault.example.com:8200")
		change(st)
		return &credstorev1.CreateSecretStoreRequest{Parent: inDefault, SecretStoreId: "new", SecretStore: st}
	}
	var cases []badCase
	for name, address := range map[string]string{
		"missing": "", "without TLS": "http://vault.example.com:8200", "without TLS and private": "http://10.0.0.1:8200", "nearly loopback": "http://127.0.0.1.example.com",
		"with a user": "https://root:" + canary + "@vault.example.com", "with a path": "https://vault.example.com/v1/secret", "with a query": "https://vault.example.com?x=" + canary,
		"with a fragment": "https://vault.example.com#" + canary, "without a scheme": "vault.example.com:8200", "of another scheme": "ftp://vault.example.com", "of files": "file:///etc/passwd",
		"without a host": "https://:8200", "of javascript": "javascript:alert(1)", "not parsable": "https://[::1", "with a space": "https://vault example.com",
	} {
		cases = append(cases, badCase{name: "address " + name, request: create(func(st *credstorev1.SecretStore) { st.GetVault().Address = address }), want: field("secretStore.vault.address")})
	}
	const key = "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5N0hpZGRlblZhbHVl\n-----END PRIVATE KEY-----\n"
	for name, pem := range map[string]string{"garbage": canary, "a key": key, "no certificate": "-----BEGIN CERTIFICATE-----\nY2FuYXJ5N0hpZGRlblZhbHVl\n-----END CERTIFICATE-----\n"} {
		cases = append(cases, badCase{name: "authority that is " + name, request: create(func(st *credstorev1.SecretStore) { st.GetVault().CaPem = pem }), want: field("secretStore.vault.caPem")})
	}
	for _, d := range []time.Duration{0, 500 * time.Millisecond, 25 * time.Hour, -time.Second} {
		cases = append(cases, badCase{name: "poll interval of " + d.String(), request: create(func(st *credstorev1.SecretStore) { st.PollInterval = durationpb.New(d) }), want: field("secretStore.pollInterval")})
	}
	credential := func(name string) proto.Message {
		return create(func(st *credstorev1.SecretStore) { st.Credential = name })
	}
	return append(cases,
		badCase{name: "store without a provider", request: create(func(st *credstorev1.SecretStore) { st.Provider = nil }), want: field("secretStore.vault")},
		badCase{name: "mount that escapes", request: create(func(st *credstorev1.SecretStore) { st.GetVault().Mount = "secret/../sys" }), want: field("secretStore.vault.mount")},
		badCase{name: "namespace with a query", request: create(func(st *credstorev1.SecretStore) { st.GetVault().Namespace = "team?x" }), want: field("secretStore.vault.namespace")},
		badCase{name: "delivery that does not exist", request: create(func(st *credstorev1.SecretStore) { st.Delivery = 7 }), want: field("secretStore.delivery")},
		badCase{name: "store without a credential", request: credential(""), want: field("secretStore.credential")},
		badCase{name: "store with another project's credential", request: credential("projects/other/credentials/foreign"), want: field("secretStore.credential")},
		badCase{name: "store with a credential of another kind", request: credential(bot), want: field("secretStore.credential")},
		badCase{name: "store with a missing credential", request: credential(missing), want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "store with a version for a credential", request: credential(inDefault + "/credentials/vault-login/versions/1"), want: field("secretStore.credential")},
		badCase{name: "store moved to an address without TLS", request: &credstorev1.UpdateSecretStoreRequest{SecretStore: &credstorev1.SecretStore{
			Name: inDefault + "/secretStores/team-vault", Provider: secretStore("http://vault.example.com").Provider,
		}}, want: field("secretStore.vault.address")},
		badCase{name: "store moved to a credential of another kind", request: &credstorev1.UpdateSecretStoreRequest{SecretStore: &credstorev1.SecretStore{
			Name: inDefault + "/secretStores/team-vault", Credential: bot,
		}}, want: field("secretStore.credential")},
		badCase{name: "store that is missing", request: &credstorev1.UpdateSecretStoreRequest{SecretStore: &credstorev1.SecretStore{
			Name: inDefault + "/secretStores/missing", Description: "x",
		}}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "test of a store that is missing", request: &credstorev1.TestSecretStoreRequest{Name: inDefault + "/secretStores/missing"}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "refresh of a store that is missing", request: &credstorev1.RefreshSecretStoreRequest{Name: inDefault + "/secretStores/missing"}, want: because(codes.NotFound, "NOT_FOUND")},
	)
}

// badUsages are declarations.
func badUsages() []badCase {
	declare := func(u *credstorev1.Usage) proto.Message {
		if u.User == "" {
			u.User = "billing"
		}
		return &credstorev1.DeclareUsageRequest{Parent: bot, UsageId: "new", Usage: u}
	}
	var cases []badCase
	for _, d := range []time.Duration{0, -time.Minute, 59 * time.Second, 90*24*time.Hour + 1} {
		cases = append(cases, badCase{name: "lifetime of " + d.String(), request: declare(&credstorev1.Usage{Ttl: durationpb.New(d)}), want: field("usage.ttl")})
	}
	for name, link := range map[string]string{
		"javascript": "javascript:alert(1)", "a data URL": "data:text/html,<script>", "a path": "/wiki", "without a host": "https:///x", "a file": "file:///etc/passwd",
		"too long": "https://x/" + strings.Repeat("a", 2048), "not parsable": "https://a b/",
	} {
		cases = append(cases, badCase{name: "link that is " + name, request: declare(&credstorev1.Usage{Link: link}), want: field("usage.link")})
	}
	return append(cases,
		badCase{name: "usage without a user", request: &credstorev1.DeclareUsageRequest{Parent: bot, UsageId: "new", Usage: &credstorev1.Usage{}}, want: field("usage.user")},
		badCase{name: "usage of nothing", request: &credstorev1.DeclareUsageRequest{Parent: bot, UsageId: "new"}, want: field("usage.user")},
		badCase{name: "usage by a long user", request: declare(&credstorev1.Usage{User: strings.Repeat("u", 257)}), want: field("usage.user")},
		badCase{name: "usage by a user with an escape sequence", request: declare(&credstorev1.Usage{User: "a\x1b[31m"}), want: field("usage.user")},
		badCase{name: "usage of a store", request: &credstorev1.DeclareUsageRequest{
			Parent: inDefault + "/secretStores/team-vault", UsageId: "new", Usage: &credstorev1.Usage{User: "u"},
		}, want: field("parent"), rest: &refusal{codes.Unimplemented, "METHOD_NOT_ALLOWED", ""}},
		badCase{name: "usage of a missing credential", request: &credstorev1.DeclareUsageRequest{Parent: missing, UsageId: "new", Usage: &credstorev1.Usage{User: "u"}}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "withdrawal of a missing usage", request: &credstorev1.DeleteUsageRequest{Name: bot + "/usages/missing"}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "withdrawal of a derived usage", request: &credstorev1.DeleteUsageRequest{Name: bot + "/usages/injections.web"}, want: because(codes.FailedPrecondition, "USAGE_DERIVED")},
		badCase{name: "usages of a missing credential", request: &credstorev1.ListUsagesRequest{Parent: missing}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "usages of a missing store", request: &credstorev1.ListUsagesRequest{Parent: inDefault + "/secretStores/missing"}, want: because(codes.NotFound, "NOT_FOUND")},
		badCase{name: "consumers of a missing credential", request: &credstorev1.ListConsumersRequest{Parent: missing}, want: because(codes.NotFound, "NOT_FOUND")},
	)
}

// badTokens are tokens to be issued.
func badTokens() []badCase {
	create := func(tk *credstorev1.Token) proto.Message {
		return &credstorev1.CreateTokenRequest{Parent: inDefault, TokenId: "new", Token: tk}
	}
	workload := func(names ...string) proto.Message {
		return create(&credstorev1.Token{Role: credstorev1.Token_WORKLOAD, Credentials: names})
	}
	return []badCase{
		{name: "token of nothing", request: &credstorev1.CreateTokenRequest{Parent: inDefault, TokenId: "new"}, want: field("token.role")},
		{name: "token without a role", request: create(&credstorev1.Token{Description: "x"}), want: field("token.role")},
		{name: "token with a role that does not exist", request: create(&credstorev1.Token{Role: 9}), want: field("token.role")},
		{name: "workload for all projects", request: create(&credstorev1.Token{Role: credstorev1.Token_WORKLOAD, AllProjects: true}), want: field("token.allProjects")},
		{name: "token that expired", request: create(&credstorev1.Token{Role: credstorev1.Token_READER, ExpireTime: timestamppb.New(time.Now().Add(-time.Hour))}), want: field("token.expireTime")},
		{name: "reader with names", request: create(&credstorev1.Token{Role: credstorev1.Token_READER, Credentials: []string{bot}}), want: field("token.credentials")},
		{name: "workload with another project's credential", request: workload(bot, "projects/other/credentials/foreign"), want: field("token.credentials[1]")},
		{name: "workload with a bad name", request: workload("bot"), want: field("token.credentials[0]")},
		{name: "workload with a wildcard", request: workload(inDefault + "/credentials/*"), want: field("token.credentials[0]")},
		{name: "workload with 1,001 names", request: workload(repeated(1001, func(i int) string { return fmt.Sprintf("%s/credentials/c%d", inDefault, i) })...), want: field("token.credentials")},
		{name: "token with 65 attributes", request: create(&credstorev1.Token{Role: credstorev1.Token_WORKLOAD, Attributes: entries(65)}), want: field("token.attributes")},
		{name: "token with a bad attribute", request: create(&credstorev1.Token{Role: credstorev1.Token_WORKLOAD, Attributes: map[string]string{"APP": "x"}}), want: field("token.attributes")},
		{name: "token with a long description", request: create(&credstorev1.Token{Role: credstorev1.Token_READER, Description: strings.Repeat("x", 1025)}), want: field("token.description")},
	}
}

// badRequestIDs are request ids that cannot be used, or were.
func badRequestIDs() []badCase {
	create := func(id, credential string) proto.Message {
		return &credstorev1.CreateCredentialRequest{
			Parent: inDefault, CredentialId: credential, RequestId: id, Credential: &credstorev1.Credential{Payload: basic("asked", canary)},
		}
	}
	return []badCase{
		{name: "request id with a space", request: create("a b", "x"), want: field("requestId")},
		{name: "request id outside ASCII", request: create("ü", "x"), want: field("requestId")},
		{name: "request id of 129 characters", request: create(strings.Repeat("r", 129), "x"), want: field("requestId")},
		{name: "request id with a line break", request: create("a\nb", "x"), want: field("requestId")},
		{name: "request id of another request", request: create("used-before", "x"), want: refusal{codes.InvalidArgument, "REQUEST_ID_REUSED", "requestId"}},
		{name: "request id of the same request with another payload", request: create("used-before", "asked"), want: refusal{codes.InvalidArgument, "REQUEST_ID_REUSED", "requestId"}},
		{name: "bad request id of a delete", request: &credstorev1.DeleteCredentialRequest{Name: inDefault + "/credentials/spare", RequestId: "a b"}, want: field("requestId")},
		{name: "bad request id of a project", request: &credstorev1.CreateProjectRequest{ProjectId: "x", RequestId: "a b"}, want: field("requestId")},
	}
}

// badStates are requests that are well-formed and do not fit what there is.
func badStates() []badCase {
	notFound := because(codes.NotFound, "NOT_FOUND")
	exists := because(codes.AlreadyExists, "ALREADY_EXISTS")
	failed := func(reason string) refusal { return because(codes.FailedPrecondition, reason) }
	return []badCase{
		{name: "missing project", request: &credstorev1.GetProjectRequest{Name: "projects/nowhere"}, want: notFound},
		{name: "missing credential", request: &credstorev1.GetCredentialRequest{Name: missing}, want: notFound},
		{name: "credential of another project", request: &credstorev1.GetCredentialRequest{Name: inDefault + "/credentials/foreign"}, want: notFound},
		{name: "missing injection", request: &credstorev1.GetInjectionRequest{Name: inDefault + "/injections/missing"}, want: notFound},
		{name: "status of a missing injection", request: &credstorev1.GetInjectionStatusRequest{Name: inDefault + "/injections/missing"}, want: notFound},
		{name: "missing token", request: &credstorev1.GetTokenRequest{Name: inDefault + "/tokens/missing"}, want: notFound},
		{name: "update of a missing credential", request: &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: missing, Payload: basic("a", canary)}}, want: notFound},
		{name: "delete of a missing credential", request: &credstorev1.DeleteCredentialRequest{Name: missing, Force: true}, want: notFound},
		{name: "access of a missing credential", request: &credstorev1.AccessCredentialRequest{Name: missing}, want: notFound},
		{name: "access of a missing version", request: &credstorev1.AccessCredentialRequest{Name: bot + "/versions/99"}, want: notFound},
		{name: "versions of a missing credential", request: &credstorev1.ListCredentialVersionsRequest{Parent: missing}, want: notFound},
		{name: "credential that exists", request: &credstorev1.CreateCredentialRequest{Parent: inDefault, CredentialId: "bot", Credential: &credstorev1.Credential{Payload: basic("a", canary)}}, want: exists},
		{name: "credential that exists, only asking", request: &credstorev1.CreateCredentialRequest{
			Parent: inDefault, CredentialId: "bot", ValidateOnly: true, Credential: &credstorev1.Credential{Payload: basic("a", canary)},
		}, want: exists},
		{name: "project that exists", request: &credstorev1.CreateProjectRequest{ProjectId: "default"}, want: exists},
		{name: "token that exists", request: &credstorev1.CreateTokenRequest{Parent: inDefault, TokenId: "reader", Token: &credstorev1.Token{Role: credstorev1.Token_READER}}, want: exists},
		{name: "store that exists", request: &credstorev1.CreateSecretStoreRequest{Parent: inDefault, SecretStoreId: "team-vault", SecretStore: secretStore("https://vault.example.com")}, want: exists},
		{name: "activate a missing version", request: &credstorev1.ActivateCredentialVersionRequest{Name: bot + "/versions/99"}, want: notFound},
		{name: "activate a disabled version", request: &credstorev1.ActivateCredentialVersionRequest{Name: bot + "/versions/2"}, want: failed("VERSION_NOT_ENABLED")},
		{name: "activate a destroyed version", request: &credstorev1.ActivateCredentialVersionRequest{Name: bot + "/versions/1"}, want: failed("VERSION_NOT_ENABLED")},
		{name: "access of a disabled version", request: &credstorev1.AccessCredentialRequest{Name: bot + "/versions/2"}, want: failed("VERSION_NOT_ENABLED")},
		{name: "access of a destroyed version", request: &credstorev1.AccessCredentialRequest{Name: bot + "/versions/1"}, want: failed("VERSION_NOT_ENABLED")},
		{name: "disable the active version", request: &credstorev1.DisableCredentialVersionRequest{Name: bot + "/versions/4"}, want: failed("VERSION_ACTIVE")},
		{name: "disable a destroyed version", request: &credstorev1.DisableCredentialVersionRequest{Name: bot + "/versions/1"}, want: failed("VERSION_DESTROYED")},
		{name: "enable a destroyed version", request: &credstorev1.EnableCredentialVersionRequest{Name: bot + "/versions/1"}, want: failed("VERSION_DESTROYED")},
		{name: "destroy the active version", request: &credstorev1.DestroyCredentialVersionRequest{Name: bot + "/versions/4"}, want: failed("VERSION_ACTIVE")},
		{name: "delete what an injection uses", request: &credstorev1.DeleteCredentialRequest{Name: bot}, want: failed("CREDENTIAL_IN_USE")},
		{name: "delete what an injection uses, by force", request: &credstorev1.DeleteCredentialRequest{Name: bot, Force: true}, want: failed("CREDENTIAL_IN_USE")},
		{name: "delete what a store uses", request: &credstorev1.DeleteCredentialRequest{Name: inDefault + "/credentials/vault-login"}, want: failed("CREDENTIAL_IN_USE")},
		{name: "delete what somebody declared to use", request: &credstorev1.DeleteCredentialRequest{Name: inDefault + "/credentials/declared", Force: true}, want: failed("CREDENTIAL_IN_USE")},
		{name: "delete a project that holds something", request: &credstorev1.DeleteProjectRequest{Name: "projects/other"}, want: failed("PROJECT_NOT_EMPTY")},
		{name: "delete the default project", request: &credstorev1.DeleteProjectRequest{Name: "projects/default"}, want: failed("PROJECT_PROTECTED")},
	}
}

// badCallers may not do what they ask for.
func badCallers() []badCase {
	denied := because(codes.PermissionDenied, "PERMISSION_DENIED")
	newBot := createPayload(basic("new", canary))
	return []badCase{
		{name: "nobody", as: nobody, request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "nobody, with a bad name", as: nobody, request: &credstorev1.GetCredentialRequest{Name: inDefault + "/credentials/Bot"}, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "nobody, with a bad payload", as: nobody, request: createPayload(basic("", canary)), want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "nobody watches", as: nobody, request: &credstorev1.WatchRequest{Parent: inDefault}, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		{name: "token that was deleted", as: "revoked", request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "UNAUTHENTICATED")},
		{name: "token that was guessed", as: "unknown", request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "UNAUTHENTICATED")},
		{name: "token whose time is over", as: "expired", request: &credstorev1.GetCredentialRequest{Name: bot}, want: because(codes.Unauthenticated, "UNAUTHENTICATED")},

		{name: "reader creates", as: "reader", request: newBot, want: denied},
		{name: "reader creates something bad", as: "reader", request: createWith(&credstorev1.Credential{Payload: basic("a", canary), Description: strings.Repeat("x", 1025)}), want: denied},
		{name: "reader accesses", as: "reader", request: &credstorev1.AccessCredentialRequest{Name: bot}, want: denied},
		{name: "reader accesses what is missing", as: "reader", request: &credstorev1.AccessCredentialRequest{Name: missing}, want: denied},
		{name: "reader deletes", as: "reader", request: &credstorev1.DeleteCredentialRequest{Name: inDefault + "/credentials/spare"}, want: denied},
		{name: "reader watches payloads", as: "reader", request: &credstorev1.WatchRequest{Parent: inDefault, View: credstorev1.WatchRequest_PAYLOAD}, want: denied},
		{name: "reader gets a set", as: "reader", request: &credstorev1.GetSetRequest{Parent: inDefault}, want: denied},
		{name: "reader lists tokens", as: "reader", request: &credstorev1.ListTokensRequest{Parent: inDefault}, want: denied},
		{name: "reader declares a usage", as: "reader", request: &credstorev1.DeclareUsageRequest{Parent: bot, UsageId: "x", Usage: &credstorev1.Usage{User: "u"}}, want: denied},
		{name: "reader tests a store", as: "reader", request: &credstorev1.TestSecretStoreRequest{Name: inDefault + "/secretStores/team-vault"}, want: denied},
		{name: "operator accesses", as: "operator", request: &credstorev1.AccessCredentialRequest{Name: bot}, want: denied},
		{name: "operator watches payloads", as: "operator", request: &credstorev1.WatchRequest{Parent: inDefault, View: credstorev1.WatchRequest_PAYLOAD}, want: denied},
		{name: "operator gets a set", as: "operator", request: &credstorev1.GetSetRequest{Parent: inDefault}, want: denied},
		{name: "operator issues a token", as: "operator", request: &credstorev1.CreateTokenRequest{Parent: inDefault, TokenId: "x", Token: &credstorev1.Token{Role: credstorev1.Token_ADMIN}}, want: denied},
		{name: "operator makes a project", as: "operator", request: &credstorev1.CreateProjectRequest{ProjectId: "x"}, want: denied},
		{name: "operator works in another project", as: "operator", request: &credstorev1.CreateCredentialRequest{Parent: "projects/other", CredentialId: "x", Credential: &credstorev1.Credential{Payload: basic("a", canary)}}, want: denied},
		{name: "operator looks into another project", as: "operator", request: &credstorev1.ListCredentialsRequest{Parent: "projects/other"}, want: denied},
		{name: "operator looks for a project", as: "operator", request: &credstorev1.GetProjectRequest{Name: "projects/nowhere"}, want: denied},
		{name: "workload lists", as: "workload", request: &credstorev1.ListCredentialsRequest{Parent: inDefault}, want: denied},
		{name: "workload gets another's", as: "workload", request: &credstorev1.GetCredentialRequest{Name: inDefault + "/credentials/api"}, want: denied},
		{name: "workload accesses another's", as: "workload", request: &credstorev1.AccessCredentialRequest{Name: inDefault + "/credentials/api"}, want: denied},
		{name: "workload updates its own", as: "workload", request: &credstorev1.UpdateCredentialRequest{Credential: &credstorev1.Credential{Name: bot, Payload: basic("bot", canary)}}, want: denied},
		{name: "workload watches another's", as: "workload", request: &credstorev1.WatchRequest{Parent: inDefault, Names: []string{bot, inDefault + "/credentials/api"}}, want: denied},
		{name: "workload without names watches", as: "nameless", request: &credstorev1.WatchRequest{Parent: inDefault}, want: denied},
		{name: "workload looks at injections", as: "workload", request: &credstorev1.ListInjectionsRequest{Parent: inDefault}, want: denied},
		{name: "workload looks at usages", as: "workload", request: &credstorev1.ListUsagesRequest{Parent: bot}, want: denied},
		{name: "workload gets a set elsewhere", as: "workload", request: &credstorev1.GetSetRequest{Parent: "projects/other"}, want: denied},
		{name: "workload lists projects", as: "workload", request: &credstorev1.ListProjectsRequest{}, want: denied},
		{name: "project's administrator in another", as: "project-admin", request: &credstorev1.AccessCredentialRequest{Name: "projects/other/credentials/foreign"}, want: denied},
		{name: "project's administrator makes a project", as: "project-admin", request: &credstorev1.CreateProjectRequest{ProjectId: "x"}, want: denied},
		{name: "project's administrator deletes its project", as: "project-admin", request: &credstorev1.DeleteProjectRequest{Name: inDefault}, want: denied},
		{name: "project's administrator issues a token for all", as: "project-admin", request: &credstorev1.CreateTokenRequest{
			Parent: inDefault, TokenId: "x", Token: &credstorev1.Token{Role: credstorev1.Token_READER, AllProjects: true},
		}, want: denied},
		{name: "batch that deletes by a reader", as: "reader", request: &credstorev1.BatchWriteCredentialsRequest{
			Parent: inDefault, Operations: []*credstorev1.BatchWriteCredentialsRequest_Operation{deleteOp(inDefault+"/credentials/spare", "")},
		}, want: denied},
	}
}

package credential

import (
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// Kind is what a credential is: the name of the payload's field in JSON
// spelling. The zero value is no kind.
type Kind string

// table lists the kinds in the order of the payload's fields. It is the only
// place that knows all of them.
var table = []definition{
	basic.define("basic"),
	apiToken.define("apiToken"),
	opaque.define("opaque"),
	vault.define("vault"),
	certificate.define("certificate"),
	sshKey.define("sshKey"),
	awsAccessKey.define("awsAccessKey"),
	awsRole.define("awsRole"),
	awsAssumeRole.define("awsAssumeRole"),
	azureServicePrincipal.define("azureServicePrincipal"),
	azureManagedIdentity.define("azureManagedIdentity"),
	azureWorkloadIdentity.define("azureWorkloadIdentity"),
	gcpServiceAccount.define("gcpServiceAccount"),
	gcpApiKey.define("gcpApiKey"),
	gcpExternalAccount.define("gcpExternalAccount"),
	ibmCloud.define("ibmCloud"),
	oci.define("oci"),
	kubeconfig.define("kubeconfig"),
	dockerRegistry.define("dockerRegistry"),
	githubApp.define("githubApp"),
	gitlabToken.define("gitlabToken"),
	smtp.define("smtp"),
	webhook.define("webhook"),
	conjur.define("conjur"),
}

// Kinds returns all kinds, in the order of the payload's fields.
func Kinds() []Kind {
	all := make([]Kind, 0, len(table))
	for _, d := range table {
		all = append(all, d.kind)
	}
	return all
}

// behaviour is what the file of one kind says about its message M. Functions
// that a kind has no use for are nil. They get a valid, normalised message,
// except for check, which makes it so.
type behaviour[M proto.Message] struct {
	// check normalises the message in place and reports what is wrong with it.
	check func(M, *report)
	// facts returns what is public in the message.
	facts func(M) map[string]string
	// references returns the full names of the resources that it names.
	references func(M) []string
	// expireTime returns when the credential stops working, the zero time when
	// the message does not say.
	expireTime func(M) time.Time
	// mapKey says whether a key is possible in the maps of the message.
	mapKey func(string) bool
	// checkSource reports what is wrong with the kind of the credential that the
	// message refers to, or with the message beside it.
	checkSource func(M, Kind, *report)
	// ambient says whether the credential acts as the server itself.
	ambient func(M) bool
	// forwards says that tokens of the credential that the message refers to are
	// sent to an address that the message names.
	forwards bool
	// longLived says whether the message holds a secret that should be changed
	// from time to time; nil means that it does.
	longLived func(M) bool
	// mints lists the requests for tokens that the kind can answer, by their name
	// in JSON spelling; the first is what it mints when nothing is asked for.
	mints []string
	// checkRequest normalises a request of those and reports what is wrong with
	// it; the fields given to the report are below the request's own message.
	checkRequest func(*credentialv1.TokenRequest, *report)
}

// definition is a behaviour with its kind and without its type parameter.
type definition struct {
	kind       Kind
	message    protoreflect.MessageDescriptor
	check      func(proto.Message, *report)
	facts      func(proto.Message) map[string]string
	references func(proto.Message) []string
	expireTime func(proto.Message) time.Time
	mapKey     func(string) bool

	checkSource  func(proto.Message, Kind, *report)
	ambient      func(proto.Message) bool
	forwards     bool
	longLived    func(proto.Message) bool
	mints        []string
	checkRequest func(*credentialv1.TokenRequest, *report)
}

// as returns m as the message of a kind. It always is: a test compares the
// message of every entry of the table with that of the payload's field.
func as[M proto.Message](m proto.Message) M {
	typed, _ := m.(M)
	return typed
}

// define makes the table's entry.
func (b behaviour[M]) define(kind Kind) definition {
	var message M
	d := definition{
		kind:       kind,
		message:    message.ProtoReflect().Descriptor(),
		check:      func(m proto.Message, r *report) { b.check(as[M](m), r) },
		facts:      func(proto.Message) map[string]string { return nil },
		references: func(proto.Message) []string { return nil },
		expireTime: func(proto.Message) time.Time { return time.Time{} },
		mapKey:     func(key string) bool { return key != "" },

		checkSource:  func(proto.Message, Kind, *report) {},
		ambient:      func(proto.Message) bool { return false },
		forwards:     b.forwards,
		longLived:    func(proto.Message) bool { return true },
		mints:        b.mints,
		checkRequest: func(*credentialv1.TokenRequest, *report) {},
	}
	if b.facts != nil {
		d.facts = func(m proto.Message) map[string]string { return b.facts(as[M](m)) }
	}
	if b.references != nil {
		d.references = func(m proto.Message) []string { return b.references(as[M](m)) }
	}
	if b.expireTime != nil {
		d.expireTime = func(m proto.Message) time.Time { return b.expireTime(as[M](m)) }
	}
	if b.mapKey != nil {
		d.mapKey = b.mapKey
	}
	if b.checkSource != nil {
		d.checkSource = func(m proto.Message, source Kind, r *report) { b.checkSource(as[M](m), source, r) }
	}
	if b.ambient != nil {
		d.ambient = func(m proto.Message) bool { return b.ambient(as[M](m)) }
	}
	if b.longLived != nil {
		d.longLived = func(m proto.Message) bool { return b.longLived(as[M](m)) }
	}
	if b.checkRequest != nil {
		d.checkRequest = b.checkRequest
	}
	return d
}

// lookup finds the definition of a kind.
func lookup(kind Kind) (definition, bool) {
	for _, d := range table {
		if d.kind == kind {
			return d, true
		}
	}
	return definition{}, false
}

// oneof returns the payload's choice between kinds.
func oneof() protoreflect.OneofDescriptor {
	var m *credentialv1.Payload
	return m.ProtoReflect().Descriptor().Oneofs().ByName("kind")
}

// sequence yields the fields of a message or of a oneof, in their order.
func sequence(fields protoreflect.FieldDescriptors) iter.Seq[protoreflect.FieldDescriptor] {
	return func(yield func(protoreflect.FieldDescriptor) bool) {
		for i := range fields.Len() {
			if !yield(fields.Get(i)) {
				return
			}
		}
	}
}

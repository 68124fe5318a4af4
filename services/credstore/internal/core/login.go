package core

import (
	"errors"
	"strconv"
	"strings"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// loginID is permanent for one version's payload.
func loginID(uid string, version uint32) string {
	return uid + "/" + strconv.FormatUint(uint64(version), 10)
}

// login opens the version of a credential, the active one's for 0, and the
// active versions of those that it refers to.
func (s *Store) login(name resourcename.Credential, version uint32) (*Credential, credential.Login, error) {
	c, sealed, err := s.model.payload(name, version)
	if err != nil {
		return nil, credential.Login{}, err
	}
	if version == 0 {
		version = c.ActiveVersion
	}
	payload, err := s.open(c.UID, version, sealed)
	if err != nil {
		return nil, credential.Login{}, err
	}
	l, err := s.loginWith(name, payload, nil)
	l.ID = loginID(c.UID, version)
	return c, l, err
}

// loginWith makes a login of a payload, stored or not, and of the credentials
// that it refers to, and refuses what would act as the server without being
// bound to the project. What it refers to is the payload among the unsaved ones, if
// there is one: they are to be stored together with it.
func (s *Store) loginWith(name resourcename.Credential, payload credential.Payload, unsaved map[resourcename.Credential]credential.Payload) (credential.Login, error) {
	l := credential.Login{Name: name.String(), Payload: payload}
	at := &l
	for range MaxSources {
		if at.Payload.Ambient() && !s.bound(at.Payload, name.Parent()) {
			return credential.Login{}, ambientNotBound(at.Name, at.Payload.Kind(), name.Parent())
		}
		refs := at.Payload.References()
		if len(refs) == 0 {
			return l, nil
		}
		source, err := resourcename.ParseCredential(refs[0])
		if err != nil {
			return credential.Login{}, err
		}
		if p, ok := unsaved[source]; ok {
			at.Source = &credential.Login{Name: source.String(), Payload: p}
			at = at.Source
			continue
		}
		c, sealed, err := s.model.payload(source, 0)
		if err != nil {
			return credential.Login{}, asSource(err, at.Name)
		}
		p, err := s.open(c.UID, c.ActiveVersion, sealed)
		if err != nil {
			return credential.Login{}, err
		}
		at.Source = &credential.Login{Name: source.String(), ID: loginID(c.UID, c.ActiveVersion), Payload: p}
		at = at.Source
	}
	return credential.Login{}, precondition(ReasonReferenceCycle, name, "refers to more than %d credentials in a row", MaxSources)
}

// asSource says of an error about a source who refers to it: only a version that
// is not active can refer to what is gone.
func asSource(err error, user string) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	out := *e
	out.Message = user + " refers to what cannot be used: " + e.Message
	return &out
}

// loginKeyIn returns what credential.Login.Key would, without opening a payload,
// and adds the keys of the credentials that it depends on to inputs.
func loginKeyIn(v view, c *Credential, inputs map[string]bool) string {
	var ids []string
	for range MaxSources {
		inputs[keyCredential(c.Name)] = true
		ids = append(ids, loginID(c.UID, c.ActiveVersion))
		if len(c.References) == 0 {
			break
		}
		source, err := resourcename.ParseCredential(c.References[0])
		if err != nil {
			break
		}
		inputs[keyCredential(source)] = true // also while it is gone
		next, _, ok := lookup[*Credential](v, keyCredential(source))
		if !ok {
			break
		}
		c = next
	}
	return strings.Join(ids, " ")
}

// versionsOf names the stored versions whose payload a login carries.
func versionsOf(l credential.Login) []string {
	var out []string
	for at := &l; at != nil; at = at.Source {
		if _, version, ok := strings.Cut(at.ID, "/"); ok {
			out = append(out, at.Name+"/versions/"+version)
		}
	}
	return out
}

// bound says whether a payload may act as the server in a project.
func (s *Store) bound(payload credential.Payload, p resourcename.Project) bool {
	return s.cfg.Bound != nil && s.cfg.Bound(payload, p)
}

func ambientNotBound(name string, k credential.Kind, p resourcename.Project) error {
	return &Error{
		Kind: ErrPrecondition, Reason: ReasonAmbientNotBound, Resource: name,
		Message: name + " acts as the server itself, by its kind " + string(k) +
			", and the server's configuration does not allow that in " + p.String() + ": its operator can, with --ambient",
	}
}

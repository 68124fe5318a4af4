package core

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/resourcename"
)

// A token's secret is "credstore_", its uid without hyphens, "_", and 32 random
// bytes in base64url. The uid finds the record; the record holds the SHA-256 of
// the whole, which suffices for 256 random bits.
const (
	tokenPrefix      = "credstore_"
	tokenSecretBytes = 32
)

func newTokenSecret(random io.Reader, uid string) (secret string, hash []byte, err error) {
	if random == nil {
		random = rand.Reader
	}
	b := make([]byte, tokenSecretBytes)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", nil, err
	}
	secret = tokenPrefix + strings.ReplaceAll(uid, "-", "") + "_" + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(secret))
	return secret, sum[:], nil
}

// tokenUID returns the uid in a secret, or "" when it has not the form of one.
func tokenUID(secret string) string {
	rest, ok := strings.CutPrefix(secret, tokenPrefix)
	if !ok || len(rest) != 32+1+43 || rest[32] != '_' {
		return ""
	}
	u := rest[:32]
	return strings.Join([]string{u[:8], u[8:12], u[12:16], u[16:20], u[20:]}, "-")
}

// Authenticate returns the principal that presents the token's secret. Every
// failure is the same ErrUnauthenticated, but for a token that has expired.
func (s *Store) Authenticate(_ context.Context, secret string) (*Principal, error) {
	refused := &Error{Kind: ErrUnauthenticated, Reason: ReasonUnauthenticated, Message: "the API token is not valid: it is mistyped, deleted, or of another server"}
	uid := tokenUID(secret)
	if uid == "" {
		return nil, refused
	}
	s.model.mu.RLock()
	name, ok := s.model.tokens[uid]
	e, _ := s.model.state.Get(keyToken(name))
	pe, _ := s.model.state.Get(keyProject(name.Parent()))
	s.model.mu.RUnlock()
	t, isToken := e.value.(*Token)
	p, isProject := pe.value.(*Project)
	sum := sha256.Sum256([]byte(secret))
	if !ok || !isToken || !isProject || p.UID != t.ProjectUID || subtle.ConstantTimeCompare(sum[:], t.hash) != 1 {
		return nil, refused
	}
	if !t.ExpireTime.IsZero() && !time.Now().Before(t.ExpireTime) {
		return nil, &Error{Kind: ErrUnauthenticated, Reason: ReasonUnauthenticated, Message: "the API token has expired"}
	}
	return &Principal{
		Name: name.String(), TokenUID: uid, Role: t.Role, Project: name.Parent(), ProjectUID: t.ProjectUID,
		AllProjects: t.AllProjects, Attributes: t.Attributes, Credentials: t.Credentials, ExpireTime: t.ExpireTime,
	}, nil
}

// Session returns a context that ends, with an ErrUnauthenticated as its cause,
// when the principal's token is deleted or expires. The caller calls the
// function when the stream is over.
func (s *Store) Session(ctx context.Context, p *Principal) (context.Context, context.CancelFunc) {
	return s.model.openSession(ctx, p.TokenUID, p.ExpireTime)
}

// CreateToken issues a token and returns its secret, which is kept nowhere. A
// repeated call with the same request id returns the same token with a new
// secret; the earlier one, which never arrived, stops working.
func (s *Store) CreateToken(ctx context.Context, r CreateTokenRequest) (*Token, string, error) {
	if err := s.permit(ctx, TokensCreate, r.Name.Parent(), r.Name); err != nil {
		return nil, "", err
	}
	if err := checkToken(r); err != nil {
		return nil, "", err
	}
	if r.AllProjects && !mayIssueForAll(ctx) {
		return nil, "", s.refuse(ctx, TokensCreate, r.Name, "only a token for all projects may issue one")
	}
	uid, err := newUID(s.cfg.Random)
	if err != nil {
		return nil, "", err
	}
	secret, hash, err := newTokenSecret(s.cfg.Random, uid)
	if err != nil {
		return nil, "", err
	}
	var t *Token
	res, err := s.change(ctx, r.Mutation, "CreateToken", r.Name.Project, func(v view) (*plan, error) {
		pr, err := project(v, r.Name.Parent())
		if err != nil {
			return nil, err
		}
		key := keyToken(r.Name)
		if _, ok := v.get(key); ok {
			return nil, alreadyExists(r.Name)
		}
		t = &Token{
			Name: r.Name, UID: uid, ProjectUID: pr.UID, Description: r.Description, Role: r.Role, AllProjects: r.AllProjects,
			Attributes: r.Attributes, Credentials: r.Credentials, ExpireTime: r.ExpireTime, CreateTime: time.Now(), hash: hash,
		}
		p := &plan{name: r.Name.String(), response: &recordv1.Token{Uid: uid}}
		p.require(Present, keyProject(r.Name.Parent()), 0)
		p.require(Absent, key, 0)
		return p, s.put(p, key, encodeToken(t))
	})
	if err != nil {
		return nil, "", err
	}
	if res.replayed != nil {
		var made recordv1.Token
		if err := proto.Unmarshal(res.replayed.response, &made); err != nil {
			return nil, "", err
		}
		return s.reissue(ctx, r.Name, made.GetUid())
	}
	if r.ValidateOnly {
		return t, "", nil
	}
	t.Etag = etagOf(t.UID, res.rev)
	return t, secret, nil
}

// reissue gives an existing token a new secret. Another token that has come to
// have the name since, perhaps with more rights, does not exist for it.
func (s *Store) reissue(ctx context.Context, name resourcename.Token, uid string) (*Token, string, error) {
	var t Token
	var secret string
	rev, err := s.mutate(ctx, false, func(v view) (*plan, error) {
		old, rev, ok := lookup[*Token](v, keyToken(name))
		if !ok || old.UID != uid {
			return nil, notFound(name)
		}
		t = *old
		var err error
		if secret, t.hash, err = newTokenSecret(s.cfg.Random, t.UID); err != nil {
			return nil, err
		}
		p := &plan{}
		p.require(AtRevision, keyToken(name), rev)
		return p, s.put(p, keyToken(name), encodeToken(&t))
	})
	if err != nil {
		return nil, "", err
	}
	t.Etag = etagOf(t.UID, rev)
	return &t, secret, nil
}

func checkToken(r CreateTokenRequest) error {
	var v invalid
	v.checkID("tokenId", r.Name.ID)
	v.checkDescription("token.description", r.Description)
	v.checkLabels("token.attributes", r.Attributes)
	if r.Role < Admin || r.Role > Workload {
		v.add("token.role", "is required: ADMIN, OPERATOR, READER or WORKLOAD")
	}
	if len(r.Credentials) > MaxTokenCredentials {
		v.add("token.credentials", "has %d entries; at most %d", len(r.Credentials), MaxTokenCredentials)
	}
	for i, c := range r.Credentials {
		if c.Project != r.Name.Project {
			v.add(fmt.Sprintf("token.credentials[%d]", i), "must be in projects/%s", r.Name.Project)
		}
	}
	if len(r.Credentials) > 0 && r.Role != Workload {
		v.add("token.credentials", "are for role WORKLOAD only: the other roles are not limited by name")
	}
	if r.AllProjects && r.Role == Workload {
		v.add("token.allProjects", "is not for role WORKLOAD: a workload belongs to one project")
	}
	if !r.ExpireTime.IsZero() && !r.ExpireTime.After(time.Now()) {
		v.add("token.expireTime", "is in the past")
	}
	return v.err()
}

func mayIssueForAll(ctx context.Context) bool {
	p := PrincipalFrom(ctx)
	return p != nil && p.AllProjects
}

// GetToken returns what a token may do.
func (s *Store) GetToken(ctx context.Context, name resourcename.Token) (*Token, error) {
	if err := s.permit(ctx, TokensGet, name.Parent(), name); err != nil {
		return nil, err
	}
	t, _, ok := lookup[*Token](s.model, keyToken(name))
	if !ok {
		return nil, notFound(name)
	}
	return t, nil
}

// ListTokens returns a project's tokens, by name.
func (s *Store) ListTokens(ctx context.Context, name resourcename.Project, page Page) ([]*Token, string, error) {
	if err := s.permit(ctx, TokensList, name, name); err != nil {
		return nil, "", err
	}
	v := s.model.view()
	if _, err := project(v, name); err != nil {
		return nil, "", err
	}
	return listPage(v, keyIn(name.ID)+kindToken, page, "tokens", func(*Token) bool { return true })
}

// DeleteToken revokes a token; its streams end at once.
func (s *Store) DeleteToken(ctx context.Context, r DeleteRequest[resourcename.Token]) error {
	if err := s.permit(ctx, TokensDelete, r.Name.Parent(), r.Name); err != nil {
		return err
	}
	_, err := s.change(ctx, r.Mutation, "DeleteToken", r.Name.Project, func(v view) (*plan, error) {
		t, rev, ok := lookup[*Token](v, keyToken(r.Name))
		if !ok {
			return nil, notFound(r.Name)
		}
		if r.Etag != "" && r.Etag != t.Etag {
			return nil, etagMismatch(r.Name)
		}
		p := &plan{name: r.Name.String()}
		p.require(AtRevision, keyToken(r.Name), rev)
		p.remove(keyToken(r.Name))
		return p, nil
	})
	return err
}

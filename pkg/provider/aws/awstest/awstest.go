package awstest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Account is the account of the users and roles that tests make.
const Account = "123456789012"

// Refusal is an answer that is no success, in AWS's words.
type Refusal struct {
	Status        int
	Code, Message string
}

// Key is what requests are signed with.
type Key struct {
	ID, Secret string
	// Token and End are those of a session.
	Token string
	End   time.Time
}

// Role is a role that can be assumed.
type Role struct {
	ARN string
	// Trust are the ARNs in its trust policy: users, or roles (not their sessions).
	// "ec2.amazonaws.com" stands for machines.
	Trust []string
	// ExternalID is what the trust policy asks for, if anything.
	ExternalID string
	// Max is the longest session; 1 hour when 0.
	Max time.Duration
	// Subject is the service account of the pods that may assume it.
	Subject string
	// Deny are actions that its own policies do not allow.
	Deny []string
}

// principal is whose a key is.
type principal struct {
	key Key
	// arn is what GetCallerIdentity says, owner what trust policies name: for the
	// session of a role that is the role.
	arn, owner, userID string
	// role is set for the session of a role.
	role *Role
	// allow are the actions that a session policy allows; nil for no policy.
	allow []string
	// tags are those that pass on to further roles.
	tags map[string]string
	// told is what AssumeRole was told.
	told Session
}

// Session is what a call of AssumeRole said, beside what it is refused for.
type Session struct {
	Name, SourceIdentity, Region, Policy string
	Tags                                 map[string]string
	PolicyARNs                           []string
}

// Server is a stand-in for AWS. It is safe for concurrent use.
type Server struct {
	// URL is the endpoint of STS, ECR and ECR Public.
	URL string
	// IMDS is the endpoint of the instance metadata service, Container that of ECS
	// and of the agent for pods.
	IMDS, Container string

	// issuer signs the tokens of pods; it is made when the first is.
	issuer func() (*rsa.PrivateKey, error)

	mu         sync.Mutex
	calls      int
	asked      []string
	signed     string
	skew       time.Duration
	principals map[string]*principal // by key id
	roles      map[string]*Role      // by ARN
	may        map[string][]string   // roles that an owner may assume
	instance   *Role
	imdsTokens map[string]time.Time
	container  containerEndpoint
	broken     *Refusal
}

// New starts a server, which ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		issuer:     sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }),
		principals: map[string]*principal{}, roles: map[string]*Role{}, may: map[string][]string{}, imdsTokens: map[string]time.Time{},
	}
	for _, start := range []struct {
		url     *string
		handler http.HandlerFunc
	}{{&s.URL, s.serve}, {&s.IMDS, s.serveIMDS}, {&s.Container, s.serveContainer}} {
		server := httptest.NewServer(start.handler)
		t.Cleanup(server.Close)
		*start.url = server.URL
	}
	return s
}

// Calls counts the requests to STS, ECR and the metadata services.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Asked returns the actions that were asked for, in their order, and forgets them.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.asked
	s.asked = nil
	return out
}

// LastSigned returns the service that the last accepted request was signed for.
func (s *Server) LastSigned() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signed
}

// Session returns what AssumeRole was told when it made a key.
func (s *Server) Session(k Key) Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.principals[k.ID]; p != nil {
		return p.told
	}
	return Session{}
}

// End sets when the session of a key ends.
func (s *Server) End(k Key, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.principals[k.ID]; p != nil {
		p.key.End = at
	}
}

// Skew sets how far the server's clock is ahead of the machine's.
func (s *Server) Skew(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = d
}

// Break makes the server refuse everything so; nil ends it.
func (s *Server) Break(r *Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = r
}

func (s *Server) now() time.Time { return time.Now().Add(s.skew) }

// User makes a user of Account with an access key.
func (s *Server) User(name string) Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	arn := "arn:aws:iam::" + Account + ":user/" + name
	p := &principal{key: Key{ID: keyID("AKIA"), Secret: random(30)}, arn: arn, owner: arn, userID: "AIDA" + letters(17)}
	s.principals[p.key.ID] = p
	return p.key
}

// Remove deletes a key.
func (s *Server) Remove(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.principals, k.ID)
}

// Role makes a role, or replaces it.
func (s *Server) Role(r Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Max == 0 {
		r.Max = time.Hour
	}
	s.roles[r.ARN] = &r
}

// Allow gives a user or role the permission to assume a role.
func (s *Server) Allow(owner, roleARN string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may[owner] = append(s.may[owner], roleARN)
}

// Machine gives the machine a role.
func (s *Server) Machine(roleARN string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instance = s.roles[roleARN]
}

// session makes a session of a role.
func (s *Server) session(role *Role, name string, length time.Duration) *principal {
	account, roleName := parts(role.ARN)
	p := &principal{
		key:    Key{ID: keyID("ASIA"), Secret: random(30), Token: random(120), End: s.now().Add(length).Truncate(time.Second)},
		arn:    strings.Split(role.ARN, ":iam:")[0] + ":sts::" + account + ":assumed-role/" + roleName + "/" + name,
		owner:  role.ARN,
		userID: "AROA" + letters(17) + ":" + name,
		role:   role,
	}
	s.principals[p.key.ID] = p
	return p
}

// parts returns the account and the name, without its path, of a role's ARN.
func parts(arn string) (account, name string) {
	fields := strings.Split(arn, ":")
	return fields[4], arn[strings.LastIndexByte(arn, '/')+1:]
}

// keyID makes an id of Account, of the form that AWS gives since 2019.
func keyID(prefix string) string {
	var number uint64
	for _, c := range Account {
		number = number*10 + uint64(c-'0')
	}
	var raw [10]byte
	_, _ = rand.Read(raw[:]) // never fails
	binary.BigEndian.PutUint64(raw[:8], 1<<63|number<<23|uint64(binary.BigEndian.Uint16(raw[6:])))
	return prefix + base32.StdEncoding.EncodeToString(raw[:])
}

// random returns n random bytes in base64.
func random(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

func letters(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return strings.ToUpper(hex.EncodeToString(raw))[:n]
}

package gcp

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// emptyHash is the SHA-256 of nothing, the body of the signed request.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// awsIdentity is what a request is signed with.
type awsIdentity struct {
	Region string `json:"-"`
	KeyID  string `json:"AccessKeyId"`
	Secret string `json:"SecretAccessKey"`
	Token  string `json:"Token"`
}

var (
	awsRegion = regexp.MustCompile(`^[a-z]{2}(?:-[a-z]{1,12}){1,3}-[0-9]{1,2}$`)
	awsRole   = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
)

// awsSubjectToken makes a request of GetCallerIdentity, signed with the
// machine's identity but not sent: Google sends it, and so learns from AWS who
// signed it. The audience is signed along, so that nobody else can use it.
func (c *Client) awsSubjectToken(ctx context.Context, f *federation) (string, error) {
	who, err := c.awsIdentity(ctx, f)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"https://sts."+who.Region+".amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15", nil)
	if err != nil {
		return "", unusable(subjectOp, "the region of AWS is none")
	}
	r.Header.Set("X-Goog-Cloud-Target-Resource", f.Audience)
	keys := aws.Credentials{AccessKeyID: who.KeyID, SecretAccessKey: who.Secret, SessionToken: who.Token}
	if err := v4.NewSigner().SignHTTP(ctx, keys, r, emptyHash, "sts", who.Region, c.cfg.Now()); err != nil {
		return "", unusable(subjectOp, "the request to AWS cannot be signed")
	}
	type header struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	headers := []header{{"host", r.URL.Host}}
	for name := range r.Header {
		headers = append(headers, header{strings.ToLower(name), r.Header.Get(name)})
	}
	slices.SortFunc(headers, func(a, b header) int { return cmp.Compare(a.Key, b.Key) })
	text, err := json.Marshal(map[string]any{"url": r.URL.String(), "method": http.MethodPost, "headers": headers})
	if err != nil {
		return "", unusable(subjectOp, "the request to AWS cannot be encoded")
	}
	return url.QueryEscape(string(text)), nil
}

// awsIdentity finds the identity where Google's own libraries look for it: in
// the environment, otherwise at the metadata service of the machine.
func (c *Client) awsIdentity(ctx context.Context, f *federation) (awsIdentity, error) {
	who := awsIdentity{
		Region: cmp.Or(c.cfg.Getenv("AWS_REGION"), c.cfg.Getenv("AWS_DEFAULT_REGION")),
		KeyID:  c.cfg.Getenv("AWS_ACCESS_KEY_ID"), Secret: c.cfg.Getenv("AWS_SECRET_ACCESS_KEY"), Token: c.cfg.Getenv("AWS_SESSION_TOKEN"),
	}
	if who.Region == "" || who.KeyID == "" || who.Secret == "" {
		var err error
		if who, err = c.awsMachine(ctx, f, who); err != nil {
			return awsIdentity{}, err
		}
	}
	switch {
	case !awsRegion.MatchString(who.Region):
		return awsIdentity{}, unusable(subjectOp, "the region of AWS is none")
	case who.KeyID == "" || who.Secret == "":
		return awsIdentity{}, unusable(subjectOp, "the metadata service of AWS gives no credentials: attach a role to the instance")
	}
	return who, nil
}

// awsMachine asks the metadata service of an EC2 instance, version 2, for what
// the environment does not say.
func (c *Client) awsMachine(ctx context.Context, f *federation, who awsIdentity) (awsIdentity, error) {
	base := "http://169.254.169.254"
	if u, err := url.Parse(f.Source.URL); err == nil && f.Source.URL != "" {
		var ok bool
		if base, ok = c.metadataBase(u); !ok {
			return awsIdentity{}, unusable(subjectOp, "the stored URL is not that of AWS's metadata service")
		}
	} else if c.cfg.MetadataURL != "" {
		base = strings.TrimSuffix(c.cfg.MetadataURL, "/")
	}
	session, err := c.askMachine(ctx, http.MethodPut, base+"/latest/api/token", "")
	if err != nil {
		return awsIdentity{}, err
	}
	if who.Region == "" {
		if who.Region, err = c.askMachine(ctx, http.MethodGet, base+"/latest/meta-data/placement/region", session); err != nil {
			return awsIdentity{}, err
		}
	}
	if who.KeyID != "" && who.Secret != "" {
		return who, nil
	}
	const at = "/latest/meta-data/iam/security-credentials/"
	role, err := c.askMachine(ctx, http.MethodGet, base+at, session)
	if err != nil {
		return awsIdentity{}, err
	}
	if !awsRole.MatchString(role) {
		return awsIdentity{}, unusable(subjectOp, "the metadata service of AWS names no role: attach one to the instance")
	}
	text, err := c.askMachine(ctx, http.MethodGet, base+at+role, session)
	if err != nil {
		return awsIdentity{}, err
	}
	got := awsIdentity{}
	if json.Unmarshal([]byte(text), &got) != nil {
		return awsIdentity{}, unusable(subjectOp, "the metadata service of AWS gives no credentials")
	}
	got.Region = who.Region
	return got, nil
}

func (c *Client) askMachine(ctx context.Context, method, to, session string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return "", unusable(subjectOp, "the metadata service's address is no URL")
	}
	if session == "" {
		r.Header.Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
	} else {
		r.Header.Set("X-Aws-Ec2-Metadata-Token", session)
	}
	k := call{op: subjectOp, client: c.metadata, secrets: []string{session}}
	a, err := k.send(r)
	if err != nil {
		return "", err
	}
	if a.Status != http.StatusOK {
		return "", k.foreign(a)
	}
	return strings.TrimSpace(string(a.Body)), nil
}

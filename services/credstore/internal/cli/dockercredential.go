package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// DockerCredential is the name by which docker calls the program, as a link to
// it: "credsStore": "credstore" in its configuration.
const DockerCredential = "docker-credential-credstore"

// errNoDockerCredential is the answer that docker takes for "log in without",
// word for word (docker/docker-credential-helpers, credentials/error.go).
var errNoDockerCredential = errors.New("credentials not found in native keychain")

// dockerHub is what docker calls its own registry.
const dockerHub = "https://index.docker.io/v1/"

// dockerCredentials is the variable that says which credential is for which
// registry.
const dockerCredentials = "CREDSTORE_DOCKER_CREDENTIALS"

const kindDockerRegistry = "dockerRegistry"

func newDockerCredential(c *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "docker-credential", Short: "Answer docker, as a credential helper",
		Long: `Answer docker as its credential helper, under the name ` + DockerCredential + `:
a link to this program, and {"credsStore": "credstore"} in ~/.docker/config.json.
Where the server is comes from the environment. CREDSTORE_DOCKER_CREDENTIALS says
which credential is for which registry, as
  registry.example.com=team-registry,*.dkr.ecr.eu-west-1.amazonaws.com=aws-prod
and without it, it is the credential of kind dockerRegistry for that server.`,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "get", Short: "Log in to the registry that standard input names", Args: exactArgs(0), RunE: dockerAnswer(c, dockerGet)},
		&cobra.Command{Use: "list", Short: "List the registries with a credential", Args: exactArgs(0), RunE: dockerAnswer(c, dockerList)},
		&cobra.Command{Use: "store", Short: "Refused: credentials are stored with credstore credential create", Args: exactArgs(0), RunE: dockerAnswer(c, dockerReadOnly)},
		&cobra.Command{Use: "erase", Short: "Refused: credentials are deleted with credstore credential delete", Args: exactArgs(0), RunE: dockerAnswer(c, dockerReadOnly)},
	)
	for _, sub := range cmd.Commands() {
		sub.Annotations = plain()
	}
	return cmd
}

// dockerAnswer writes what a part of the protocol answers, an error too: docker
// reads it from standard output.
func dockerAnswer(c *connection, answer func(*connection, *cobra.Command) (any, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		out, err := answer(c, cmd)
		if err != nil {
			_, _ = fmt.Fprintln(c.streams.Out, describe(err))
			return err
		}
		return json.NewEncoder(c.streams.Out).Encode(out)
	}
}

type dockerLogin struct {
	ServerURL string
	Username  string
	Secret    string
}

func dockerReadOnly(*connection, *cobra.Command) (any, error) {
	return nil, errors.New("credstore's registries are managed with `credstore credential`, not with docker login and logout")
}

func dockerGet(c *connection, cmd *cobra.Command) (any, error) {
	const longest = 4096
	in, err := io.ReadAll(io.LimitReader(c.streams.In, longest))
	if err != nil {
		return nil, err
	}
	asked := string(bytes.TrimSpace(in))
	if asked == "" {
		return nil, usageError{errors.New("standard input names no registry")}
	}
	host := registryHost(asked)
	var out dockerLogin
	return &out, c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		cl := credstorev1.NewCredentialServiceClient(conn)
		name, err := c.dockerCredential(ctx, cl, host)
		if err != nil {
			return err
		}
		minted, err := cl.MintToken(ctx, &credstorev1.MintTokenRequest{Name: name, Token: &credentialv1.TokenRequest{
			Kind: &credentialv1.TokenRequest_RegistryLogin_{RegistryLogin: &credentialv1.TokenRequest_RegistryLogin{Server: host}},
		}})
		if err != nil {
			return err
		}
		token, err := credential.NewToken(minted.GetToken())
		if err != nil {
			return err
		}
		username, err := token.Field("username")
		if err != nil {
			return err
		}
		password, err := token.Field("password")
		out = dockerLogin{ServerURL: asked, Username: string(username), Secret: string(password)}
		return err
	})
}

// registryHost returns the host of what docker calls a registry.
func registryHost(asked string) string {
	if asked == dockerHub {
		return "docker.io"
	}
	_, rest, found := strings.Cut(asked, "://")
	if !found {
		rest = asked
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// dockerCredential finds the credential for a registry.
func (c *connection) dockerCredential(ctx context.Context, cl credstorev1.CredentialServiceClient, host string) (string, error) {
	rules, err := dockerRules(c.streams.Getenv(dockerCredentials))
	if err != nil {
		return "", err
	}
	for _, r := range rules {
		if ok, _ := path.Match(r.pattern, host); ok { // dockerRules has checked the pattern
			return c.name("credentials", r.credential), nil
		}
	}
	if len(rules) > 0 {
		return "", errNoDockerCredential
	}
	found := ""
	err = c.eachRegistry(ctx, cl, func(x *credstorev1.Credential) error {
		switch {
		case x.GetFacts()["server"] != host:
		case found != "":
			return fmt.Errorf("%s and %s are both for %s: choose one in %s", short(found), short(x.GetName()), host, dockerCredentials)
		default:
			found = x.GetName()
		}
		return nil
	})
	if err == nil && found == "" {
		err = errNoDockerCredential
	}
	return found, err
}

type dockerRule struct{ pattern, credential string }

// dockerRules reads "registry.example.com=team-registry,*.azurecr.io=azure".
func dockerRules(text string) ([]dockerRule, error) {
	var out []dockerRule
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		pattern, name, ok := strings.Cut(part, "=")
		if _, err := path.Match(pattern, ""); !ok || pattern == "" || name == "" || err != nil {
			return nil, errors.New(dockerCredentials + " is not of the form HOST=CREDENTIAL,…, where HOST may hold *")
		}
		out = append(out, dockerRule{pattern, name})
	}
	return out, nil
}

// eachRegistry visits the credentials of kind dockerRegistry.
func (c *connection) eachRegistry(ctx context.Context, cl credstorev1.CredentialServiceClient, visit func(*credstorev1.Credential) error) error {
	return eachPage(func(token string) (string, error) {
		out, err := cl.ListCredentials(ctx, &credstorev1.ListCredentialsRequest{
			Parent: c.parent(), Filter: "kind = " + kindDockerRegistry, PageSize: 1000, PageToken: token,
		})
		for _, x := range out.GetCredentials() {
			if err := visit(x); err != nil {
				return "", err
			}
		}
		return out.GetNextPageToken(), err
	})
}

// dockerList answers with what dockerGet would log in to, as far as that can be
// named: a rule with * is for the registry of its credential only.
func dockerList(c *connection, cmd *cobra.Command) (any, error) {
	rules, err := dockerRules(c.streams.Getenv(dockerCredentials))
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	asked := func(host string) string {
		if host == "docker.io" {
			return dockerHub
		}
		return host
	}
	add := func(host, username string) {
		if _, ok := out[asked(host)]; !ok && host != "" { // the first rule for a host counts
			out[asked(host)] = username
		}
	}
	return out, c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		cl := credstorev1.NewCredentialServiceClient(conn)
		if len(rules) == 0 {
			found := make(map[string]int)
			return c.eachRegistry(ctx, cl, func(x *credstorev1.Credential) error {
				host := x.GetFacts()["server"]
				if found[host]++; found[host] > 1 {
					delete(out, asked(host)) // dockerGet refuses to choose
				} else {
					add(host, x.GetFacts()["username"])
				}
				return nil
			})
		}
		for _, r := range rules {
			x, err := cl.GetCredential(ctx, &credstorev1.GetCredentialRequest{Name: c.name("credentials", r.credential)})
			switch code := status.Code(err); {
			case code == codes.NotFound, code == codes.PermissionDenied:
				continue // as dockerGet would fail
			case err != nil:
				return err
			}
			host := r.pattern
			if strings.ContainsAny(host, `*?[\`) {
				host = x.GetFacts()["server"]
				if ok, _ := path.Match(r.pattern, host); !ok { // dockerRules has checked the pattern
					continue
				}
			}
			add(host, x.GetFacts()["username"])
		}
		return nil
	})
}

// Args returns the command line for Run of a program that was started with
// argv: under docker's name for it, it is docker's helper.
func Args(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if filepath.Base(argv[0]) == DockerCredential {
		return append([]string{"docker-credential"}, argv[1:]...)
	}
	return argv[1:]
}

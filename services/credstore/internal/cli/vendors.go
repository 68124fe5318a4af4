package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/credential"
)

func credentialVerify(c *connection) *cobra.Command {
	var version uint32
	cmd := &cobra.Command{
		Use: "verify NAME", Short: "Ask the vendor whether a credential works, and whose it is",
		Long: "Ask the vendor whether a credential works, and whose it is, by the cheapest call\nthat proves it. The exit code is 0 only when it is verified.",
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := c.name("credentials", args[0])
			if version != 0 {
				name += fmt.Sprintf("/versions/%d", version)
			}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewCredentialServiceClient(conn).VerifyCredential(ctx, &credstorev1.VerifyCredentialRequest{Name: name})
				if err != nil {
					return err
				}
				if err := c.print(out, verificationTable(out)); err != nil {
					return err
				}
				if out.GetState() != credstorev1.Verification_VERIFIED {
					return fmt.Errorf("%s is not verified", args[0])
				}
				return nil
			})
		},
	}
	cmd.Flags().Uint32Var(&version, "version", 0, "another version than the active one")
	return cmd
}

// verificationTable shows the whole on top and each check below it.
func verificationTable(v *credstorev1.Verification) table {
	t := table{
		header: []string{"STATE", "VERSION", "LATENCY", "IDENTITY", "MESSAGE"},
		rows: [][]string{{
			v.GetState().String(), strconv.FormatUint(uint64(v.GetVersion()), 10), v.GetLatency().AsDuration().Round(time.Millisecond).String(),
			either(v.GetIdentity(), "-"), either(v.GetMessage(), "-"),
		}},
	}
	for _, check := range v.GetChecks() {
		state := "passed"
		if !check.GetPassed() {
			state = "failed"
		}
		t.rows = append(t.rows, []string{state, "", "", check.GetName(), either(check.GetMessage(), "-")})
	}
	return t
}

func newMint(c *connection) *cobra.Command {
	var request, field, file string
	cmd := &cobra.Command{
		Use: "mint NAME", Short: "Make a short-lived token from a credential; it is on record",
		Long: "Make a short-lived token from a credential, and print it as JSON, or one field of it\nas it is. Without --token it is what the credential's kind makes by itself.",
		Example: `  credstore mint aws-prod --token '{"awsAssumeRole": {"roleArn": "arn:aws:iam::123456789012:role/deploy"}}'
  credstore mint azure-prod --token '{"azureAccessToken": {"scope": "https://vault.azure.net/.default"}}' --field token`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.noOutputWith("--field", field); err != nil {
				return err
			}
			var asked *credentialv1.TokenRequest
			if request != "" {
				asked = &credentialv1.TokenRequest{}
				if err := decode("--token", []byte(request), asked); err != nil {
					return usageError{fmt.Errorf(`%w
it is the JSON of one request, as {"awsAssumeRole": {"roleArn": "…"}}; docs/tokens.md has each`, err)}
				}
			}
			return c.mint(cmd, args[0], asked, func(t credential.Token) error {
				b, err := t.Field(field)
				if err != nil {
					return err
				}
				defer clear(b)
				if field == "" {
					if b, err = c.asked(append(b, '\n')); err != nil {
						return err
					}
				}
				if file != "" {
					return writeSecret(file, b)
				}
				_, err = c.streams.Out.Write(b)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&request, "token", "", "which token, as JSON")
	cmd.Flags().StringVar(&field, "field", "", "only this field, as token, sessionToken or dockerConfig")
	cmd.Flags().StringVar(&file, "out-file", "", "write to this file, mode 0600, instead of standard output")
	return cmd
}

// mint asks for a token and hands it to use.
func (c *connection) mint(cmd *cobra.Command, name string, asked *credentialv1.TokenRequest, use func(credential.Token) error) error {
	return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		out, err := credstorev1.NewCredentialServiceClient(conn).MintToken(ctx, &credstorev1.MintTokenRequest{Name: c.name("credentials", name), Token: asked})
		if err != nil {
			return err
		}
		token, err := credential.NewToken(out.GetToken())
		if err != nil {
			return err
		}
		return use(token)
	})
}

func newKubeToken(c *connection) *cobra.Command {
	login := &credentialv1.TokenRequest_KubernetesLogin{}
	cmd := &cobra.Command{
		Use: "kube-token NAME", Short: "Print an ExecCredential, as the exec plugin of a Kubernetes client",
		Long: `Print an ExecCredential (client.authentication.k8s.io/v1), as Kubernetes clients
ask of a plugin that a kubeconfig names under "exec". NAME is a credential of kind
kubeconfig, or one of AWS, GCP or Azure: then EKS needs --cluster and --region.`,
		Example: "  credstore kube-token aws-prod --cluster live --region eu-west-1",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := &credentialv1.TokenRequest{Kind: &credentialv1.TokenRequest_KubernetesLogin_{KubernetesLogin: login}}
			return c.mint(cmd, args[0], asked, func(t credential.Token) error {
				b, err := t.Field("execCredential")
				if err != nil {
					return err
				}
				defer clear(b)
				if b, err = c.asked(append(b, '\n')); err != nil {
					return err
				}
				_, err = c.streams.Out.Write(b)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&login.Cluster, "cluster", "", "EKS: the cluster's name")
	f.StringVar(&login.Region, "region", "", "EKS: its region")
	f.StringVar(&login.RoleArn, "role-arn", "", "EKS: a role to act as")
	f.StringVar(&login.ServerId, "server-id", "", "AKS: the application that tokens are for (default: that of AKS itself)")
	return cmd
}

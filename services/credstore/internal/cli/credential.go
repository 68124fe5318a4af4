package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

func newCredential(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "credential", Aliases: []string{"credentials", "cred"}, Short: "Create, read, change and delete credentials"}
	cmd.AddCommand(
		credentialCreate(c), credentialGet(c), credentialList(c), credentialUpdate(c), credentialDelete(c), credentialAccess(c),
		credentialVersions(c), credentialVerify(c),
		versionCommand(c, "activate", "Make a version the active one"),
		versionCommand(c, "disable", "Make a version's payload inaccessible"),
		versionCommand(c, "enable", "Undo a disable"),
		versionCommand(c, "destroy", "Erase a version's payload for good"),
	)
	return cmd
}

func credentialTable(cs ...*credstorev1.Credential) table {
	t := table{header: []string{"NAME", "KIND", "VERSION", "AGE", "STATE", "EXPIRES", "VERIFIED", "FACTS", "LABELS"}}
	for _, x := range cs {
		t.rows = append(t.rows, []string{
			short(x.GetName()), x.GetKind(), strconv.FormatUint(uint64(x.GetActiveVersion()), 10),
			since(x.GetRotateTime()), ageState(x), until(x.GetExpireTime()), verified(x.GetVerification()), clip(pairs(x.GetFacts())), pairs(x.GetLabels()),
		})
	}
	return t
}

func credentialCreate(c *connection) *cobra.Command {
	var p payloadFlags
	var description, requestID string
	var labels map[string]string
	var validate, verify bool
	var rotation days
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Store a new credential", Long: "Store a new credential.\n\n" + payloadHelp, Args: exactArgs(1),
		Example: "  credstore credential create registry-bot --kind basic --set username=bot --secret password",
		RunE: func(cmd *cobra.Command, args []string) error {
			p.name = func(id string) string { return c.name("credentials", id) }
			payload, err := p.read(c.streams)
			if err != nil {
				return err
			}
			parent, id := c.split("credentials", args[0])
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewCredentialServiceClient(conn).CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
					Parent: parent, CredentialId: id, RequestId: requestID, ValidateOnly: validate, Verify: verify,
					Credential: &credstorev1.Credential{Description: description, Labels: labels, Payload: payload, RotationPeriod: rotation.message()},
				})
				if err != nil {
					return err
				}
				return c.printStored(validate, out, credentialTable(out))
			})
		},
	}
	addPayloadFlags(cmd, &p)
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	cmd.Flags().Var(newPairs(&labels), "label", "labels, KEY=VALUE")
	cmd.Flags().Var(&rotation, "rotation-period", "how long the secret may stay the same, as 30d (default: the project's)")
	addVerifyFlag(cmd, &verify)
	addMutationFlags(cmd, &requestID, &validate)
	return cmd
}

func addPayloadFlags(cmd *cobra.Command, p *payloadFlags) {
	cmd.Flags().StringVar(&p.file, "payload", "", "file with the whole payload as JSON, or -")
	cmd.Flags().StringVar(&p.kind, "kind", "", "kind of the credential")
	cmd.Flags().StringArrayVar(&p.set, "set", nil, "a public field, FIELD=VALUE; may be repeated")
	cmd.Flags().StringArrayVar(&p.secrets, "secret", nil, "a secret field: FIELD (asks), FIELD=@FILE or FIELD=-; may be repeated")
}

func addVerifyFlag(cmd *cobra.Command, verify *bool) {
	cmd.Flags().BoolVar(verify, "verify", false, "ask the vendor first, and store nothing unless it accepts the payload")
}

func addMutationFlags(cmd *cobra.Command, requestID *string, validate *bool) {
	cmd.Flags().StringVar(requestID, "request-id", "", "makes the call safe to repeat")
	if validate != nil {
		cmd.Flags().BoolVar(validate, "validate-only", false, "check everything and change nothing")
	}
}

func credentialGet(c *connection) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a credential's metadata", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewCredentialServiceClient(conn).GetCredential(ctx, &credstorev1.GetCredentialRequest{Name: c.name("credentials", args[0])})
				if err != nil {
					return err
				}
				return c.print(out, credentialTable(out))
			})
		},
	}
}

func credentialList(c *connection) *cobra.Command {
	var filter string
	cmd := &cobra.Command{
		Use: "list", Short: "List the credentials of a project", Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListCredentialsResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewCredentialServiceClient(conn).ListCredentials(ctx, &credstorev1.ListCredentialsRequest{
						Parent: c.parent(), Filter: filter, PageSize: 1000, PageToken: token,
					})
					all.Credentials = append(all.Credentials, out.GetCredentials()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				return c.print(all, credentialTable(all.GetCredentials()...))
			})
		},
	}
	cmd.Flags().StringVar(&filter, "filter", "", `only those that match, as "kind = basic AND labels.team = platform AND age > 90d"`)
	return cmd
}

// eachPage asks for pages until there are no more.
func eachPage(get func(token string) (next string, err error)) error {
	token := ""
	for {
		next, err := get(token)
		if err != nil || next == "" {
			return err
		}
		if next == token {
			return errors.New("the server repeats a page token")
		}
		token = next
	}
}

func credentialUpdate(c *connection) *cobra.Command {
	var p payloadFlags
	var description, etag, requestID string
	var labels map[string]string
	var validate, verify bool
	var rotation days
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change a credential; a payload becomes its next version", Long: "Change a credential. A payload becomes its next version, active at once.\n\n" + payloadHelp,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &credstorev1.UpdateCredentialRequest{
				Credential: &credstorev1.Credential{Name: c.name("credentials", args[0]), Etag: etag},
				UpdateMask: &fieldmaskpb.FieldMask{}, RequestId: requestID, ValidateOnly: validate, Verify: verify,
			}
			if p.given() {
				p.name = func(id string) string { return c.name("credentials", id) }
				payload, err := p.read(c.streams)
				if err != nil {
					return err
				}
				r.Credential.Payload = payload
				r.UpdateMask.Paths = append(r.UpdateMask.Paths, "payload")
			}
			if cmd.Flags().Changed("description") {
				r.Credential.Description = description
				r.UpdateMask.Paths = append(r.UpdateMask.Paths, "description")
			}
			if cmd.Flags().Changed("label") {
				r.Credential.Labels = labels
				r.UpdateMask.Paths = append(r.UpdateMask.Paths, "labels")
			}
			if cmd.Flags().Changed("rotation-period") {
				r.Credential.RotationPeriod = rotation.message()
				r.UpdateMask.Paths = append(r.UpdateMask.Paths, "rotation_period")
			}
			if len(r.UpdateMask.Paths) == 0 {
				return usageError{errors.New("nothing to change: give a payload, --description, --label or --rotation-period")}
			}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewCredentialServiceClient(conn).UpdateCredential(ctx, r)
				if err != nil {
					return err
				}
				return c.printStored(validate, out, credentialTable(out))
			})
		},
	}
	addPayloadFlags(cmd, &p)
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	cmd.Flags().Var(newPairs(&labels), "label", `labels, KEY=VALUE; all others are removed, and all with ""`)
	cmd.Flags().Var(&rotation, "rotation-period", "how long the secret may stay the same, as 30d; 0d for the project's")
	addVerifyFlag(cmd, &verify)
	addEtagFlag(cmd, &etag, "only if it is unchanged since this etag was read")
	addMutationFlags(cmd, &requestID, &validate)
	return cmd
}

func credentialDelete(c *connection) *cobra.Command {
	var etag, requestID string
	var force bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a credential that nobody uses", Args: exactArgs(1), Annotations: plain(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := c.name("credentials", args[0])
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				_, err := credstorev1.NewCredentialServiceClient(conn).DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{
					Name: name, Etag: etag, Force: force, RequestId: requestID,
				})
				if err != nil {
					return err
				}
				return c.say("deleted %s", name)
			})
		},
	}
	addEtagFlag(cmd, &etag, "only if it is unchanged since this etag was read")
	cmd.Flags().BoolVar(&force, "force", false, "although live consumers hold it; durable usages are never overridden")
	addMutationFlags(cmd, &requestID, nil)
	return cmd
}

func credentialAccess(c *connection) *cobra.Command {
	var version uint32
	var field, file string
	cmd := &cobra.Command{
		Use: "access NAME", Short: "Read a payload; the access is on record",
		Long: "Read a payload, as JSON, or one field of it as it is. The access is on record in the audit log.",
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.noOutputWith("--field", field); err != nil {
				return err
			}
			name := c.name("credentials", args[0])
			if version != 0 {
				name += fmt.Sprintf("/versions/%d", version)
			}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewCredentialServiceClient(conn).AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: name})
				if err != nil {
					return err
				}
				b, err := payloadField(out.GetPayload(), field)
				if err != nil {
					return err
				}
				defer clear(b)
				if field == "" {
					if b, err = c.asked(b); err != nil {
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
	cmd.Flags().Uint32Var(&version, "version", 0, "another version than the active one")
	cmd.Flags().StringVar(&field, "field", "", "only this field, as password or data.KEY")
	cmd.Flags().StringVar(&file, "out-file", "", "write to this file, mode 0600, instead of standard output")
	return cmd
}

func payloadField(m *credentialv1.Payload, field string) ([]byte, error) {
	if field != "" {
		return fieldOf(m, field)
	}
	b, err := stableJSON(m)
	return append(b, '\n'), err
}

func credentialVersions(c *connection) *cobra.Command {
	return &cobra.Command{
		Use: "versions NAME", Short: "List a credential's versions", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListCredentialVersionsResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewCredentialServiceClient(conn).ListCredentialVersions(ctx, &credstorev1.ListCredentialVersionsRequest{
						Parent: c.name("credentials", args[0]), PageSize: 1000, PageToken: token,
					})
					all.Versions = append(all.Versions, out.GetVersions()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				t := table{header: []string{"VERSION", "STATE", "ACTIVE", "CREATED", "FACTS"}}
				for _, v := range all.GetVersions() {
					active := ""
					if v.GetActive() {
						active = "*"
					}
					t.rows = append(t.rows, []string{
						strconv.FormatUint(uint64(v.GetVersion()), 10), v.GetState().String(), active, since(v.GetCreateTime()), pairs(v.GetFacts()),
					})
				}
				return c.print(all, t)
			})
		},
	}
}

func versionCommand(c *connection, verb, help string) *cobra.Command {
	var etag, requestID string
	cmd := &cobra.Command{
		Use: verb + " NAME VERSION", Short: help, Args: exactArgs(2), Annotations: plain(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := c.name("credentials", args[0]) + "/versions/" + strings.TrimPrefix(args[1], "v")
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				cl := credstorev1.NewCredentialServiceClient(conn)
				var err error
				switch verb {
				case "activate":
					_, err = cl.ActivateCredentialVersion(ctx, &credstorev1.ActivateCredentialVersionRequest{Name: name, Etag: etag, RequestId: requestID})
				case "disable":
					_, err = cl.DisableCredentialVersion(ctx, &credstorev1.DisableCredentialVersionRequest{Name: name, Etag: etag, RequestId: requestID})
				case "enable":
					_, err = cl.EnableCredentialVersion(ctx, &credstorev1.EnableCredentialVersionRequest{Name: name, Etag: etag, RequestId: requestID})
				default:
					_, err = cl.DestroyCredentialVersion(ctx, &credstorev1.DestroyCredentialVersionRequest{Name: name, Etag: etag, RequestId: requestID})
				}
				if err != nil {
					return err
				}
				return c.say("%s: done for %s", verb, name)
			})
		},
	}
	addEtagFlag(cmd, &etag, "only if the credential is unchanged since this etag was read")
	addMutationFlags(cmd, &requestID, nil)
	return cmd
}

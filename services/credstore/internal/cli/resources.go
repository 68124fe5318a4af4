package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/credential"
)

func fieldOf(m *credentialv1.Payload, field string) ([]byte, error) {
	p, err := credential.NewPayload(m)
	if err != nil {
		return nil, err
	}
	return p.Field(field)
}

// readResource reads a resource from a JSON or YAML file, or standard input.
func readResource(s Streams, file string, m proto.Message) error {
	if file == "" {
		return usageError{errors.New("--file is needed: the resource as JSON or YAML, or - for standard input")}
	}
	b, err := readInput(s, "--file", file)
	if err != nil {
		return err
	}
	// The parsers' errors quote what they stumble over, which may be a secret.
	if b, err = yaml.YAMLToJSONStrict(b); err != nil {
		return fmt.Errorf("--file: %s is neither JSON nor YAML, or has a key twice", file)
	}
	if err := decode("--file: "+file, b, m); err != nil {
		if strings.Contains(err.Error(), "must be a string") {
			return fmt.Errorf("%w\nin YAML, quote values such as y, n and 0400", err)
		}
		return err
	}
	return nil
}

// deleteCommand is the same for every resource that needs only its name.
func deleteCommand(c *connection, collection, what string, do func(ctx context.Context, conn grpc.ClientConnInterface, name, etag, requestID string) error) *cobra.Command {
	var etag, requestID string
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete " + what, Args: exactArgs(1), Annotations: plain(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := c.name(collection, args[0])
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				if err := do(ctx, conn, name, etag, requestID); err != nil {
					return err
				}
				return c.say("deleted %s", name)
			})
		},
	}
	addEtagFlag(cmd, &etag, "only if it is unchanged since this etag was read")
	addMutationFlags(cmd, &requestID, nil)
	return cmd
}

func newStore(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "store", Aliases: []string{"stores", "secret-store"}, Short: "Say where external secrets come from"}
	var file, credentialName, address, mount, namespace, ca, requestID string
	var poll days
	var validate bool
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a secret store", Args: exactArgs(1),
		Example: "  credstore store create team-vault --credential vault-approle --vault-address https://vault.example.com:8200",
		RunE: func(cmd *cobra.Command, args []string) error {
			st := &credstorev1.SecretStore{}
			if file != "" {
				if err := readResource(c.streams, file, st); err != nil {
					return err
				}
			} else {
				v := &credstorev1.VaultProvider{Address: address, Mount: mount, Namespace: namespace}
				if ca != "" {
					b, err := readFile("--vault-ca", ca)
					if err != nil {
						return err
					}
					v.CaPem = string(b)
				}
				st.Provider = &credstorev1.SecretStore_Vault{Vault: v}
				st.Credential = c.name("credentials", credentialName)
				st.PollInterval = poll.message()
			}
			parent, id := c.split("secretStores", args[0])
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewSecretStoreServiceClient(conn).CreateSecretStore(ctx, &credstorev1.CreateSecretStoreRequest{
					Parent: parent, SecretStoreId: id, SecretStore: st, RequestId: requestID, ValidateOnly: validate,
				})
				if err != nil {
					return err
				}
				return c.printStored(validate, out, storeTable(out))
			})
		},
	}
	create.Flags().StringVarP(&file, "file", "f", "", "the store as JSON or YAML, or -; instead of the other flags")
	create.Flags().StringVar(&credentialName, "credential", "", "the credential to log in with")
	create.Flags().StringVar(&address, "vault-address", "", "URL of a HashiCorp Vault")
	create.Flags().StringVar(&mount, "mount", "", `where its KV version 2 engine is mounted (default "secret")`)
	create.Flags().StringVar(&namespace, "namespace", "", "its namespace, if it has any")
	create.Flags().StringVar(&ca, "vault-ca", "", "PEM file that its certificate is checked against (default: the system's)")
	create.Flags().Var(&poll, "poll-interval", "how often each secret is polled (default 30s)")
	addMutationFlags(create, &requestID, &validate)
	cmd.AddCommand(create,
		&cobra.Command{Use: "get NAME", Short: "Show a secret store", Args: exactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewSecretStoreServiceClient(conn).GetSecretStore(ctx, &credstorev1.GetSecretStoreRequest{Name: c.name("secretStores", args[0])})
				if err != nil {
					return err
				}
				return c.print(out, storeTable(out))
			})
		}},
		&cobra.Command{Use: "list", Short: "List the secret stores of a project", Args: exactArgs(0), RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListSecretStoresResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewSecretStoreServiceClient(conn).ListSecretStores(ctx, &credstorev1.ListSecretStoresRequest{Parent: c.parent(), PageSize: 1000, PageToken: token})
					all.SecretStores = append(all.SecretStores, out.GetSecretStores()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				return c.print(all, storeTable(all.GetSecretStores()...))
			})
		}},
		&cobra.Command{Use: "test NAME", Short: "Log in to a secret store and say what came of it; the exit code is 0 only when it worked", Args: exactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewSecretStoreServiceClient(conn).TestSecretStore(ctx, &credstorev1.TestSecretStoreRequest{Name: c.name("secretStores", args[0])})
				if err != nil {
					return err
				}
				err = c.print(out, table{
					header: []string{"OK", "IDENTITY", "LATENCY", "MESSAGE"},
					rows:   [][]string{{strconv.FormatBool(out.GetOk()), either(out.GetIdentity(), "-"), out.GetLatency().AsDuration().String(), either(out.GetMessage(), "-")}},
				})
				if err == nil && !out.GetOk() {
					err = fmt.Errorf("the login to %s failed", args[0])
				}
				return err
			})
		}},
		&cobra.Command{Use: "refresh NAME", Short: "Poll the secrets in use now", Args: exactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewSecretStoreServiceClient(conn).RefreshSecretStore(ctx, &credstorev1.RefreshSecretStoreRequest{Name: c.name("secretStores", args[0])})
				if err != nil {
					return err
				}
				return c.print(out, table{
					header: []string{"POLLED", "CHANGED", "FAILED"},
					rows:   [][]string{{fmt.Sprint(out.GetPolled()), fmt.Sprint(out.GetChanged()), fmt.Sprint(out.GetFailed())}},
				})
			})
		}},
		deleteCommand(c, "secretStores", "a secret store that no injection uses", func(ctx context.Context, conn grpc.ClientConnInterface, name, etag, requestID string) error {
			_, err := credstorev1.NewSecretStoreServiceClient(conn).DeleteSecretStore(ctx, &credstorev1.DeleteSecretStoreRequest{Name: name, Etag: etag, RequestId: requestID})
			return err
		}),
	)
	return cmd
}

func storeTable(ss ...*credstorev1.SecretStore) table {
	t := table{header: []string{"NAME", "PROVIDER", "ADDRESS", "MOUNT", "CREDENTIAL", "POLL"}}
	for _, s := range ss {
		t.rows = append(t.rows, []string{
			short(s.GetName()), "vault", s.GetVault().GetAddress(), s.GetVault().GetMount(), short(s.GetCredential()), s.GetPollInterval().AsDuration().String(),
		})
	}
	return t
}

func newInjection(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "injection", Aliases: []string{"injections"}, Short: "Say which workloads get which values as which files"}
	var file, requestID string
	var validate bool
	create := &cobra.Command{
		Use: "create NAME", Short: "Make an injection from a JSON or YAML file", Args: exactArgs(1),
		Example: "  credstore injection create web --file web.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			inj := &credstorev1.Injection{}
			if err := readResource(c.streams, file, inj); err != nil {
				return err
			}
			parent, id := c.split("injections", args[0])
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewInjectionServiceClient(conn).CreateInjection(ctx, &credstorev1.CreateInjectionRequest{
					Parent: parent, InjectionId: id, Injection: inj, RequestId: requestID, ValidateOnly: validate,
				})
				if err != nil {
					return err
				}
				return c.printStored(validate, out, injectionTable(out))
			})
		},
	}
	create.Flags().StringVarP(&file, "file", "f", "", "the injection as JSON or YAML, or -")
	addMutationFlags(create, &requestID, &validate)
	update := &cobra.Command{
		Use: "update NAME", Short: "Change the fields of an injection that a JSON or YAML file has", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			inj := &credstorev1.Injection{}
			if err := readResource(c.streams, file, inj); err != nil {
				return err
			}
			inj.Name = c.name("injections", args[0])
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewInjectionServiceClient(conn).UpdateInjection(ctx, &credstorev1.UpdateInjectionRequest{
					Injection: inj, RequestId: requestID, ValidateOnly: validate,
				})
				if err != nil {
					return err
				}
				return c.printStored(validate, out, injectionTable(out))
			})
		},
	}
	update.Flags().StringVarP(&file, "file", "f", "", "the injection as JSON or YAML, or -")
	addMutationFlags(update, &requestID, &validate)
	cmd.AddCommand(create, update,
		&cobra.Command{Use: "get NAME", Short: "Show an injection", Args: exactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewInjectionServiceClient(conn).GetInjection(ctx, &credstorev1.GetInjectionRequest{Name: c.name("injections", args[0])})
				if err != nil {
					return err
				}
				return c.print(out, itemTable(out))
			})
		}},
		&cobra.Command{Use: "list", Short: "List the injections of a project", Args: exactArgs(0), RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListInjectionsResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewInjectionServiceClient(conn).ListInjections(ctx, &credstorev1.ListInjectionsRequest{Parent: c.parent(), PageSize: 1000, PageToken: token})
					all.Injections = append(all.Injections, out.GetInjections()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				return c.print(all, injectionTable(all.GetInjections()...))
			})
		}},
		&cobra.Command{Use: "status NAME", Short: "Show what each workload has applied", Args: exactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewInjectionServiceClient(conn).GetInjectionStatus(ctx, &credstorev1.GetInjectionStatusRequest{Name: c.name("injections", args[0])})
				if err != nil {
					return err
				}
				if c.output != "table" {
					return c.print(out, table{})
				}
				items := table{header: []string{"ITEM", "STATE", "VERSION", "MESSAGE"}}
				for _, i := range out.GetItems() {
					items.rows = append(items.rows, []string{i.GetPath(), i.GetState().String(), either(short(i.GetVersion()), "-"), either(i.GetMessage(), "-")})
				}
				if err := items.write(c.streams.Out); err != nil {
					return err
				}
				loads := table{header: []string{"WORKLOAD", "CONNECTED", "SENT", "APPLIED", "FAILURES"}}
				for _, w := range out.GetWorkloads() {
					loads.rows = append(loads.rows, []string{w.GetWorkload(), strconv.FormatBool(w.GetConnected()), fmt.Sprint(w.GetSentRevision()), fmt.Sprint(w.GetAppliedRevision()), fmt.Sprint(len(w.GetFailures()))})
				}
				_, _ = fmt.Fprintln(c.streams.Out)
				return loads.write(c.streams.Out)
			})
		}},
		deleteCommand(c, "injections", "an injection; its files are removed", func(ctx context.Context, conn grpc.ClientConnInterface, name, etag, requestID string) error {
			_, err := credstorev1.NewInjectionServiceClient(conn).DeleteInjection(ctx, &credstorev1.DeleteInjectionRequest{Name: name, Etag: etag, RequestId: requestID})
			return err
		}),
	)
	return cmd
}

func injectionTable(is ...*credstorev1.Injection) table {
	t := table{header: []string{"NAME", "SELECTOR", "ITEMS"}}
	for _, i := range is {
		t.rows = append(t.rows, []string{short(i.GetName()), pairs(i.GetSelector()), strconv.Itoa(len(i.GetItems()))})
	}
	return t
}

func itemTable(i *credstorev1.Injection) table {
	t := table{header: []string{"FILE", "MODE", "GROUP", "SOURCE"}}
	for _, it := range i.GetItems() {
		source := short(it.GetCredential().GetName()) + " " + it.GetCredential().GetField()
		if s := it.GetSecret(); s != nil {
			source = short(s.GetStore()) + ":" + s.GetPath() + " " + s.GetKey()
		}
		t.rows = append(t.rows, []string{it.GetFile().GetPath(), it.GetFile().GetMode(), either(it.GetGroup(), "-"), strings.TrimSpace(source)})
	}
	return t
}

func newUsage(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "usage", Aliases: []string{"usages"}, Short: "See and declare where credentials are used"}
	var link, usedFor, requestID string
	var ttl days
	var store bool
	list := &cobra.Command{
		Use: "list CREDENTIAL", Short: "List where a credential is used: durable usages and live consumers", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			collection := "credentials"
			if store {
				collection = "secretStores"
			}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListUsagesResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewCredentialServiceClient(conn).ListUsages(ctx, &credstorev1.ListUsagesRequest{Parent: c.name(collection, args[0]), PageSize: 1000, PageToken: token})
					all.Usages = append(all.Usages, out.GetUsages()...)
					all.Consumers = append(all.Consumers, out.GetConsumers()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				t := table{header: []string{"SOURCE", "TYPE", "USER", "ID", "VERSION", "EXPIRES", "LINK"}}
				for _, u := range all.GetUsages() {
					expires := "-"
					if u.GetExpireTime() != nil {
						expires = time.Until(u.GetExpireTime().AsTime()).Round(time.Second).String()
					}
					t.rows = append(t.rows, []string{u.GetSource().String(), usageTypeName(u.GetType()), u.GetUser(), short(u.GetName()), "-", expires, either(u.GetLink(), "-")})
				}
				for _, x := range all.GetConsumers() {
					t.rows = append(t.rows, []string{consumerState(x), "workload", either(x.GetWorkload(), x.GetPrincipal()), "-", fmt.Sprint(x.GetVersion()), "-", "-"})
				}
				return c.print(all, t)
			})
		},
	}
	list.Flags().BoolVar(&store, "store", false, "the name is that of a secret store")
	declare := &cobra.Command{
		Use: "declare CREDENTIAL ID USER", Short: "Declare, or renew, that USER uses a credential", Args: exactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := usageType(usedFor)
			if err != nil {
				return err
			}
			u := &credstorev1.Usage{User: args[2], Link: link, Type: kind, Ttl: ttl.message()}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewCredentialServiceClient(conn).DeclareUsage(ctx, &credstorev1.DeclareUsageRequest{
					Parent: c.name("credentials", args[0]), UsageId: args[1], Usage: u, RequestId: requestID,
				})
				if err != nil {
					return err
				}
				return c.print(out, table{header: []string{"NAME", "USER"}, rows: [][]string{{out.GetName(), out.GetUser()}}})
			})
		},
	}
	declare.Flags().StringVar(&usedFor, "type", "other", "what it is used for: "+strings.Join(declaredTypes(), ", "))
	declare.Flags().StringVar(&link, "link", "", "a page where a person learns more")
	declare.Flags().Var(&ttl, "ttl", "how long it holds unless renewed, as 12h or 7d (default 24h)")
	addMutationFlags(declare, &requestID, nil)
	remove := &cobra.Command{
		Use: "delete CREDENTIAL ID", Short: "Withdraw a declared usage", Args: exactArgs(2), Annotations: plain(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := c.name("credentials", args[0]) + "/usages/" + args[1]
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				_, err := credstorev1.NewCredentialServiceClient(conn).DeleteUsage(ctx, &credstorev1.DeleteUsageRequest{Name: name, RequestId: requestID})
				if err != nil {
					return err
				}
				return c.say("deleted %s", name)
			})
		},
	}
	addMutationFlags(remove, &requestID, nil)
	cmd.AddCommand(list, declare, remove)
	return cmd
}

// consumerState tells who is there from who was.
func consumerState(x *credstorev1.Consumer) string {
	if x.GetConnected() {
		return "LIVE"
	}
	return "VANISHED"
}

// declaredTypes are the types of usages that a caller may declare.
func declaredTypes() []string {
	var out []string
	for n := credstorev1.Usage_OTHER; n < credstorev1.Usage_SECRET_STORE; n++ {
		out = append(out, usageTypeName(n))
	}
	return out
}

// usageTypeName writes a type as flags and tables do: "registry-scan".
func usageTypeName(t credstorev1.Usage_Type) string {
	return strings.ToLower(strings.ReplaceAll(t.String(), "_", "-"))
}

func usageType(name string) (credstorev1.Usage_Type, error) {
	if !slices.Contains(declaredTypes(), name) {
		return 0, usageError{fmt.Errorf("--type is one of %s", strings.Join(declaredTypes(), ", "))}
	}
	return credstorev1.Usage_Type(credstorev1.Usage_Type_value[strings.ToUpper(strings.ReplaceAll(name, "-", "_"))]), nil
}

func newToken(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Aliases: []string{"tokens"}, Short: "Issue and revoke API tokens"}
	var role, description, file, requestID string
	var attributes map[string]string
	var credentials []string
	var all bool
	var ttl days
	create := &cobra.Command{
		Use: "create NAME", Short: "Issue a token and print its secret, once", Args: exactArgs(1),
		Example: "  credstore token create web --role workload --attribute app=web --out-file web.token",
		RunE: func(cmd *cobra.Command, args []string) error {
			number, ok := credstorev1.Token_Role_value[strings.ToUpper(role)]
			if !ok || number == 0 {
				return usageError{errors.New("--role is admin, operator, reader or workload")}
			}
			t := &credstorev1.Token{Role: credstorev1.Token_Role(number), Description: description, AllProjects: all, Attributes: attributes}
			for _, name := range credentials {
				t.Credentials = append(t.Credentials, c.name("credentials", name))
			}
			if ttl != 0 {
				t.ExpireTime = timestamppb.New(time.Now().Add(time.Duration(ttl)))
			}
			parent, id := c.split("tokens", args[0])
			var secretOut *secretFile
			if file != "" {
				// A secret that cannot be written is lost: find out before it is made.
				var err error
				if secretOut, err = newSecretFile(file); err != nil {
					return err
				}
				defer secretOut.discard()
			}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewTokenServiceClient(conn).CreateToken(ctx, &credstorev1.CreateTokenRequest{Parent: parent, TokenId: id, Token: t, RequestId: requestID})
				if err != nil {
					return err
				}
				if secretOut != nil {
					if err := secretOut.keep([]byte(out.GetSecret() + "\n")); err != nil {
						return err
					}
					return c.print(out.GetToken(), tokenTable(out.GetToken()))
				}
				if c.output != "table" {
					return c.print(out, table{})
				}
				return c.say("%s", out.GetSecret())
			})
		},
	}
	create.Flags().StringVar(&role, "role", "", "admin, operator, reader or workload")
	create.Flags().StringVar(&description, "description", "", "whose it is")
	create.Flags().Var(newPairs(&attributes), "attribute", "attested attributes that selectors match, KEY=VALUE")
	create.Flags().StringSliceVar(&credentials, "credential", nil, "for a workload: credentials whose payload it may access")
	create.Flags().BoolVar(&all, "all-projects", false, "the role holds in every project")
	create.Flags().Var(&ttl, "ttl", "how long it works, as 12h or 30d (default: for ever)")
	create.Flags().StringVar(&file, "out-file", "", "write the secret to this file, mode 0600, instead of standard output")
	addMutationFlags(create, &requestID, nil)
	cmd.AddCommand(create,
		&cobra.Command{Use: "list", Short: "List the tokens of a project", Args: exactArgs(0), RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListTokensResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewTokenServiceClient(conn).ListTokens(ctx, &credstorev1.ListTokensRequest{Parent: c.parent(), PageSize: 1000, PageToken: token})
					all.Tokens = append(all.Tokens, out.GetTokens()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				return c.print(all, tokenTable(all.GetTokens()...))
			})
		}},
		deleteCommand(c, "tokens", "a token; it stops working at once", func(ctx context.Context, conn grpc.ClientConnInterface, name, etag, requestID string) error {
			_, err := credstorev1.NewTokenServiceClient(conn).DeleteToken(ctx, &credstorev1.DeleteTokenRequest{Name: name, Etag: etag, RequestId: requestID})
			return err
		}),
	)
	return cmd
}

func tokenTable(ts ...*credstorev1.Token) table {
	t := table{header: []string{"NAME", "ROLE", "ALL PROJECTS", "ATTRIBUTES", "CREATED", "EXPIRES"}}
	for _, x := range ts {
		expires := "never"
		if x.GetExpireTime() != nil {
			expires = x.GetExpireTime().AsTime().UTC().Format(time.RFC3339)
		}
		t.rows = append(t.rows, []string{short(x.GetName()), x.GetRole().String(), strconv.FormatBool(x.GetAllProjects()), pairs(x.GetAttributes()), since(x.GetCreateTime()), expires})
	}
	return t
}

func newProject(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "project", Aliases: []string{"projects"}, Short: "Create, change, list and delete projects"}
	var description, requestID string
	create := &cobra.Command{
		Use: "create ID", Short: "Make an empty project", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewProjectServiceClient(conn).CreateProject(ctx, &credstorev1.CreateProjectRequest{
					ProjectId: args[0], Project: &credstorev1.Project{Description: description}, RequestId: requestID,
				})
				if err != nil {
					return err
				}
				return c.print(out, projectTable(out))
			})
		},
	}
	create.Flags().StringVar(&description, "description", "", "what it is for")
	addMutationFlags(create, &requestID, nil)
	var etag, deleteID string
	remove := &cobra.Command{
		Use: "delete ID", Short: "Delete an empty project", Args: exactArgs(1), Annotations: plain(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "projects/" + strings.TrimPrefix(args[0], "projects/")
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				if _, err := credstorev1.NewProjectServiceClient(conn).DeleteProject(ctx, &credstorev1.DeleteProjectRequest{Name: name, Etag: etag, RequestId: deleteID}); err != nil {
					return err
				}
				return c.say("deleted %s", name)
			})
		},
	}
	addEtagFlag(remove, &etag, "only if it is unchanged since this etag was read")
	addMutationFlags(remove, &deleteID, nil)
	cmd.AddCommand(create, projectUpdate(c), remove,
		&cobra.Command{Use: "list", Short: "List the projects that the token may see", Args: exactArgs(0), RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				all := &credstorev1.ListProjectsResponse{}
				err := eachPage(func(token string) (string, error) {
					out, err := credstorev1.NewProjectServiceClient(conn).ListProjects(ctx, &credstorev1.ListProjectsRequest{PageSize: 1000, PageToken: token})
					all.Projects = append(all.Projects, out.GetProjects()...)
					return out.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				return c.print(all, projectTable(all.GetProjects()...))
			})
		}},
	)
	return cmd
}

func projectUpdate(c *connection) *cobra.Command {
	var description, etag, requestID string
	var rotation days
	cmd := &cobra.Command{
		Use: "update ID", Short: "Change a project", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &credstorev1.UpdateProjectRequest{
				Project: &credstorev1.Project{
					Name: "projects/" + strings.TrimPrefix(args[0], "projects/"), Etag: etag, Description: description, RotationPeriod: rotation.message(),
				},
				UpdateMask: &fieldmaskpb.FieldMask{}, RequestId: requestID,
			}
			if cmd.Flags().Changed("description") {
				r.UpdateMask.Paths = append(r.UpdateMask.Paths, "description")
			}
			if cmd.Flags().Changed("rotation-period") {
				r.UpdateMask.Paths = append(r.UpdateMask.Paths, "rotation_period")
			}
			if len(r.UpdateMask.Paths) == 0 {
				return usageError{errors.New("nothing to change: give --description or --rotation-period")}
			}
			return c.call(cmd, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				out, err := credstorev1.NewProjectServiceClient(conn).UpdateProject(ctx, r)
				if err != nil {
					return err
				}
				return c.print(out, projectTable(out))
			})
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	cmd.Flags().Var(&rotation, "rotation-period", "how long secrets may stay the same, as 30d; 0d for 90 days")
	addEtagFlag(cmd, &etag, "only if it is unchanged since this etag was read")
	addMutationFlags(cmd, &requestID, nil)
	return cmd
}

func projectTable(ps ...*credstorev1.Project) table {
	t := table{header: []string{"NAME", "CREATED", "ROTATION", "DESCRIPTION"}}
	for _, p := range ps {
		t.rows = append(t.rows, []string{short(p.GetName()), since(p.GetCreateTime()), rotationPeriod(p), either(p.GetDescription(), "-")})
	}
	return t
}

// rotationPeriod shows how old secrets may get, in days where that is exact.
func rotationPeriod(p *credstorev1.Project) string {
	const day = 24 * time.Hour
	d := 90 * day
	if p.GetRotationPeriod() != nil {
		d = p.GetRotationPeriod().AsDuration()
	}
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

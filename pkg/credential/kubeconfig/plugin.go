package kubeconfig

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// instead says what can be done where a program cannot be replaced.
const instead = "only those of EKS (aws, aws-iam-authenticator), GKE (gke-gcloud-auth-plugin) and AKS (kubelogin) are replaced, with tokenSource; " +
	"else use a kubeconfig with the token of a service account or a client certificate"

// exec reads the program that a user runs to log in.
func (r *reader) exec(e entry, l *Login) {
	field := join(e.inner, "exec")
	m := r.mapping(e.body, e.inner, "exec")
	if m == nil {
		return
	}
	before := len(r.problems)
	command := r.text(m, field, "command")
	var args []string
	for i, n := range r.list(m, field, "args") {
		args = append(args, r.scalar(r.follow(n), field+".args["+strconv.Itoa(i)+"]"))
	}
	env := r.environment(m, field)
	if len(r.problems) > before {
		return
	}
	a := arguments{reader: r, field: field + ".args", args: args, env: env}
	switch program(command) {
	case "aws":
		l.Plugin = a.aws(l)
	case "aws-iam-authenticator", "heptio-authenticator-aws":
		l.Plugin = a.authenticator(l)
	case "gke-gcloud-auth-plugin":
		l.Plugin = a.gke()
	case "kubelogin":
		l.Plugin = a.kubelogin(field)
	case "":
		r.add(field+".command", "must be the program that logs in; it is empty")
	default:
		r.add(field+".command", "must be absent: it is a program of another machine, and none is run here; "+instead)
	}
}

// program returns the name of a command, without its folder.
func program(command string) string {
	command = command[strings.LastIndexAny(command, `/\`)+1:]
	return strings.TrimSuffix(strings.TrimSuffix(command, ".exe"), ".cmd")
}

// environment reads the variables that the program is given.
func (r *reader) environment(m *yaml.Node, field string) map[string]string {
	env := map[string]string{}
	for i, n := range r.list(m, field, "env") {
		at := field + ".env[" + strconv.Itoa(i) + "]"
		n = r.follow(n)
		if n == nil || n.Kind != yaml.MappingNode {
			r.add(at, "must have a name and a value; it is something else")
			continue
		}
		env[r.text(n, at, "name")] = r.text(n, at, "value")
	}
	return env
}

// arguments are those of a program, with its variables.
type arguments struct {
	*reader
	field string
	args  []string
	env   map[string]string
}

// grammar is what a program understands.
type grammar struct {
	// valued maps the spellings of flags that take a value to their names.
	valued map[string]string
	// switches are flags without one, or with =true.
	switches []string
	// refused maps names and switches to why they cannot be followed.
	refused map[string]string
	// words are what must stand beside the flags.
	words string
}

// parsed are the flags of a program: the values by their names, and where they
// stand.
type parsed struct {
	values map[string]string
	fields map[string]string
	// command says whether the program was told to make a token.
	command bool
}

// parse reads the arguments. What is not known is a problem: leaving out a flag
// may change who logs in, or where.
func (a arguments) parse(g grammar) parsed {
	out := parsed{values: map[string]string{}, fields: map[string]string{}, command: true}
	var words []string
	unknown := false
	for i := 0; i < len(a.args); i++ {
		field := a.field + "[" + strconv.Itoa(i) + "]"
		arg := a.args[i]
		if !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
			continue
		}
		flag, value, assigned := strings.Cut(arg, "=")
		name, valued := g.valued[flag]
		if !valued && !assigned && len(arg) > 2 && arg[1] != '-' {
			// A short flag with its value in one: "-icluster".
			if short, ok := g.valued[arg[:2]]; ok {
				name, value, valued, assigned = short, arg[2:], true, true
			}
		}
		switch {
		case valued && !assigned && i+1 == len(a.args):
			a.add(field, "must be followed by a value; it is the last argument")
		case valued:
			if !assigned {
				i++
				value = a.args[i]
			}
			out.values[name], out.fields[name] = value, a.field+"["+strconv.Itoa(i)+"]"
		default:
			unknown = !a.toggle(g, flag, value, field) || unknown
			continue
		}
		if why := g.refused[name]; why != "" {
			a.add(field, "must be absent: "+why)
		}
	}
	// What follows an unknown flag may be its value.
	if got := strings.Join(words, " "); got != g.words && !unknown {
		out.command = false
		want := "must be flags alone; there is a command"
		if g.words != "" {
			want = `must have the command "` + g.words + `"; it is another one, or none`
		}
		a.add(a.field, want)
	}
	return out
}

// toggle reads a flag without a value, and says whether it is known.
func (a arguments) toggle(g grammar, flag, value, field string) bool {
	known := slices.Contains(g.switches, flag)
	switch {
	case !known:
		a.add(field, "must be a flag that is known here; it is not, and leaving it out might change the login: remove it if it is not needed")
	case g.refused[flag] != "" && value != "false":
		a.add(field, "must be absent: "+g.refused[flag])
	}
	return known
}

// Why some arguments are refused whose meaning is known.
const (
	external          = "what assumes a role with more than its ARN is a credential of kind awsAssumeRole; store that, and name it in tokenSource"
	actAs             = "what acts as a service account is a credential of its own; name one of that account in tokenSource"
	proofOfPossession = "tokens bound to a key (proof of possession, as for Arc) are not minted here"
)

// The grammars: of `aws eks get-token` with the global options of the AWS CLI
// (https://docs.aws.amazon.com/cli/latest/reference/eks/get-token.html), where
// `aws eks update-kubeconfig` writes --role for --role-arn; of
// `aws-iam-authenticator token`; of gke-gcloud-auth-plugin; of `kubelogin
// get-token` (https://azure.github.io/kubelogin/cli/get-token.html).
var (
	awsGrammar = grammar{
		valued: map[string]string{
			"--cluster-name": "cluster", "--cluster-id": "clusterId", "--role-arn": "role", "--role": "role", "--region": "region",
			"--profile": "", "--output": "", "--query": "", "--color": "", "--ca-bundle": "", "--cli-binary-format": "",
			"--cli-read-timeout": "", "--cli-connect-timeout": "", "--cli-error-format": "",
		},
		switches: []string{"--debug", "--no-cli-pager", "--no-paginate", "--no-cli-auto-prompt"},
		words:    "eks get-token",
	}
	authenticatorGrammar = grammar{
		valued: map[string]string{
			"--cluster-id": "cluster", "-i": "cluster", "--role": "role", "-r": "role", "--region": "region",
			"--external-id": "external", "-e": "external", "--session-name": "", "-s": "", "--config": "", "-c": "",
			"--log-format": "", "-l": "",
		},
		switches: []string{"--cache", "--forward-session-name"},
		refused:  map[string]string{"external": external},
		words:    "token",
	}
	gkeGrammar = grammar{
		valued: map[string]string{
			"--account": "", "--configuration": "", "--project": "", "--location": "", "--cluster": "", "--v": "", "-v": "",
			"--impersonate_service_account": "impersonate",
		},
		switches: []string{"--use_application_default_credentials", "--use_edge_cloud"},
		refused: map[string]string{
			"impersonate":      actAs,
			"--use_edge_cloud": "clusters of Distributed Cloud have tokens of their own, which are not minted here",
		},
	}
	kubeloginGrammar = grammar{
		valued: map[string]string{
			"--server-id": "server", "--tenant-id": "tenant", "-t": "tenant",
			"--client-id": "", "--client-secret": "", "--client-certificate": "", "--client-certificate-password": "",
			"--username": "", "--password": "", "--login": "", "-l": "", "--environment": "", "-e": "", "--authority-host": "",
			"--federated-token-file": "", "--identity-resource-id": "", "--token-cache-dir": "", "--cache-dir": "", "--timeout": "",
			"--redirect-url": "", "--login-hint": "", "--pop-claims": "claims", "--azure-config-dir": "", "--context": "",
			"--azure-pipelines-service-connection-id": "", "-v": "", "--v": "",
		},
		switches: []string{
			"--legacy", "--use-azurerm-env-vars", "--disable-environment-override", "--disable-instance-discovery", "--pop-enabled",
		},
		refused: map[string]string{"--pop-enabled": proofOfPossession, "claims": proofOfPossession},
		words:   "get-token",
	}
)

var (
	clusterName = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$`)
	regionName  = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$`)
	roleARN     = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,512}$`)
	guid        = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
	// regionalHost ends the names of EKS's API servers.
	regionalHost = regexp.MustCompile(`\.([a-z0-9-]+)\.(?:eks\.amazonaws\.com(?:\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn)$`)
	// clusterARN is how `aws eks update-kubeconfig` names clusters and users.
	clusterARN = regexp.MustCompile(`^arn:aws[a-z-]*:eks:([a-z0-9-]+):[0-9]{12}:cluster/`)
)

func (a arguments) aws(l *Login) *Plugin {
	return a.eks(l, a.parse(awsGrammar), "--cluster-name")
}

func (a arguments) authenticator(l *Login) *Plugin {
	p := a.parse(authenticatorGrammar)
	if p.values["cluster"] == "" {
		p.values["cluster"] = a.env["KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID"]
	}
	if p.values["role"] == "" {
		p.values["role"] = a.env["DEFAULT_ROLE"]
	}
	return a.eks(l, p, "--cluster-id")
}

// eks returns what a cluster of EKS needs. The name of a local cluster on
// Outposts is its id.
func (a arguments) eks(l *Login, p parsed, flag string) *Plugin {
	if !p.command {
		return nil
	}
	out := &Plugin{Cloud: EKS, ClusterName: p.values["cluster"], Region: p.values["region"], RoleARN: p.values["role"]}
	if out.ClusterName == "" {
		out.ClusterName, p.fields["cluster"] = p.values["clusterId"], p.fields["clusterId"]
	}
	at := func(name string) string {
		if field := p.fields[name]; field != "" {
			return field
		}
		return a.field
	}
	switch {
	case out.ClusterName == "":
		a.add(a.field, "must name the cluster with "+flag+"; it is missing")
	case !clusterName.MatchString(out.ClusterName):
		a.add(at("cluster"), "must be the name of an EKS cluster: at most 100 letters, digits, - and _; it is not")
	}
	if out.Region == "" {
		out.Region = a.region(l)
	}
	switch {
	case out.Region == "":
		a.add(a.field, "must name the cluster's region with --region, since its server's name does not; it is missing")
	case !regionName.MatchString(out.Region):
		a.add(at("region"), `must be a region of AWS, as "eu-west-1"; it is not`)
	}
	if out.RoleARN != "" && !roleARN.MatchString(out.RoleARN) {
		a.add(at("role"), `must be the ARN of a role, as "arn:aws:iam::123456789012:role/name"; it is not`)
	}
	return out
}

// region finds the region where no flag says it.
func (a arguments) region(l *Login) string {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if region := a.env[name]; region != "" {
			return region
		}
	}
	if u, err := url.Parse(l.Server); err == nil {
		if m := regionalHost.FindStringSubmatch(strings.ToLower(u.Hostname())); m != nil && regionName.MatchString(m[1]) {
			return m[1]
		}
	}
	for _, name := range []string{l.Cluster, l.User} {
		if m := clusterARN.FindStringSubmatch(name); m != nil && regionName.MatchString(m[1]) {
			return m[1]
		}
	}
	return ""
}

func (a arguments) gke() *Plugin {
	_ = a.parse(gkeGrammar)
	return &Plugin{Cloud: GKE}
}

func (a arguments) kubelogin(field string) *Plugin {
	for _, arg := range a.args {
		if strings.HasPrefix(arg, "--oidc-") {
			a.add(field+".command", "must be absent: this kubelogin is that of OpenID Connect, not that of Azure, and logs in with a browser; "+instead)
			return nil
		}
	}
	p := a.parse(kubeloginGrammar)
	return a.aks(p.values["server"], p.values["tenant"], func(name string) string {
		if at := p.fields[name]; at != "" {
			return at
		}
		return a.field
	})
}

// aks returns what a cluster of AKS needs.
func (r *reader) aks(server, tenant string, at func(string) string) *Plugin {
	if server != "" && !guid.MatchString(server) && !isAppURI(server) {
		r.add(at("server"), `must be the id of an application, as "6dae42f8-4368-4678-94ff-3960e28e3630"; it is not`)
	}
	if len(tenant) > 253 || strings.ContainsFunc(tenant, func(c rune) bool { return c <= ' ' || c > '~' }) {
		r.add(at("tenant"), "must be the id of a directory of Entra; it is not")
	}
	return &Plugin{Cloud: AKS, ServerID: server, TenantID: tenant}
}

// isAppURI says whether a value names an application as "api://…".
func isAppURI(value string) bool {
	return strings.HasPrefix(value, "api://") && len(value) <= 255 &&
		!strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' })
}

// authProvider reads the predecessor of exec, which kubectl had until 1.25.
func (r *reader) authProvider(e entry, l *Login) {
	field := join(e.inner, "auth-provider")
	m := r.mapping(e.body, e.inner, "auth-provider")
	if m == nil {
		return
	}
	before := len(r.problems)
	name := r.text(m, field, "name")
	config := r.mapping(m, field, "config")
	if len(r.problems) > before {
		return
	}
	switch name {
	case "gcp":
		l.Plugin = &Plugin{Cloud: GKE}
	case "azure":
		server, tenant := "", ""
		if config != nil {
			server = r.text(config, field+".config", "apiserver-id")
			tenant = r.text(config, field+".config", "tenant-id")
		}
		l.Plugin = r.aks(server, tenant, func(name string) string {
			return field + ".config." + map[string]string{"server": "apiserver-id", "tenant": "tenant-id"}[name]
		})
	default:
		r.add(field+".name", "must be gcp or azure: others need a program of another machine, and none is run here; "+instead)
	}
}

package deploycheck

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

// composeFile has the fields that the demonstration uses, and only those, so
// that a misspelt one is noticed.
type composeFile struct {
	Name     string             `json:"name"`
	Hardened map[string]any     `json:"x-hardened"`
	Services map[string]service `json:"services"`
	Networks map[string]struct {
		IPAM struct {
			Config []struct {
				Subnet string `json:"subnet"`
			} `json:"config"`
		} `json:"ipam"`
	} `json:"networks"`
	Volumes map[string]struct {
		Driver     string            `json:"driver"`
		DriverOpts map[string]string `json:"driver_opts"`
	} `json:"volumes"`
}

type service struct {
	Image string `json:"image"`
	Build *struct {
		Context string `json:"context"`
		Target  string `json:"target"`
	} `json:"build"`
	Hostname    string                       `json:"hostname"`
	Entrypoint  []string                     `json:"entrypoint"`
	Command     []string                     `json:"command"`
	Environment map[string]string            `json:"environment"`
	ReadOnly    bool                         `json:"read_only"`
	User        string                       `json:"user"`
	CapDrop     []string                     `json:"cap_drop"`
	SecurityOpt []string                     `json:"security_opt"`
	Volumes     []string                     `json:"volumes"`
	Tmpfs       []string                     `json:"tmpfs"`
	Networks    []string                     `json:"networks"`
	NetworkMode string                       `json:"network_mode"`
	Ports       []string                     `json:"ports"`
	DependsOn   map[string]map[string]string `json:"depends_on"`
	Healthcheck *healthcheck                 `json:"healthcheck"`
	Init        bool                         `json:"init"`
	Restart     string                       `json:"restart"`
}

type healthcheck struct {
	Test     []string `json:"test"`
	Interval string   `json:"interval"`
	Timeout  string   `json:"timeout"`
	Retries  int      `json:"retries"`
	Disable  bool     `json:"disable"`
}

// oneShot tells a service that runs once from one that stays.
func (s service) oneShot() bool { return s.Restart == "no" }

func readCompose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file composeFile
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatalf("docker-compose.yaml: %v", err)
	}
	return file
}

var (
	numericUser = regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`)
	stageLine   = regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`)
)

func TestComposeServices(t *testing.T) {
	file := readCompose(t)
	for _, name := range []string{"credstore", "injector", "vault", "app"} {
		if s, ok := file.Services[name]; !ok || s.oneShot() {
			t.Errorf("no long-running service %q", name)
		}
	}
	stages := dockerStages(t)

	for name, s := range file.Services {
		t.Run(name, func(t *testing.T) {
			if !s.ReadOnly {
				t.Error("root file system is writable: set read_only")
			}
			if !numericUser.MatchString(s.User) {
				t.Errorf("user is %q, want uid:gid, neither of them 0", s.User)
			}
			if !slices.Equal(s.CapDrop, []string{"ALL"}) {
				t.Errorf("cap_drop is %q, want ALL", s.CapDrop)
			}
			if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
				t.Error("security_opt lacks no-new-privileges:true")
			}

			switch {
			case (s.Image == "") == (s.Build == nil):
				t.Error("want either an image or a build")
			case s.Build != nil:
				if _, ok := stages[s.Build.Target]; !ok {
					t.Errorf("the Dockerfile has no stage %q", s.Build.Target)
				}
			case !strings.Contains(s.Image, ":") || strings.HasSuffix(s.Image, ":latest"):
				t.Errorf("image %q names no version", s.Image)
			}

			if (len(s.Networks) == 0) == (s.NetworkMode == "") {
				t.Error("want either networks or a network_mode, not the default network")
			}
			for _, network := range s.Networks {
				if _, ok := file.Networks[network]; !ok {
					t.Errorf("network %q is not declared", network)
				}
			}
			for _, port := range s.Ports {
				if !strings.HasPrefix(port, "127.0.0.1:") {
					t.Errorf("port %q is published beyond this machine", port)
				}
			}
			for _, mount := range s.Volumes {
				volume, _, _ := strings.Cut(mount, ":")
				if _, ok := file.Volumes[volume]; !ok {
					t.Errorf("volume %q is not declared", volume)
				}
			}
			for other, condition := range s.DependsOn {
				target, ok := file.Services[other]
				if !ok {
					t.Errorf("depends on %q, which does not exist", other)
					continue
				}
				want := "service_healthy"
				if target.oneShot() {
					want = "service_completed_successfully"
				}
				if got := condition["condition"]; got != want {
					t.Errorf("waits for %q to be %q, want %q", other, got, want)
				}
			}
			if !s.oneShot() && (s.Healthcheck == nil || s.Healthcheck.Disable || len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD") {
				t.Error("has no healthcheck of the form [CMD, …]")
			}
		})
	}
}

func TestComposeVolumes(t *testing.T) {
	file := readCompose(t)
	used := map[string][]string{} // volume → "service:mode"
	for name, s := range file.Services {
		for _, mount := range s.Volumes {
			volume, rest, _ := strings.Cut(mount, ":")
			mode := "rw"
			if strings.HasSuffix(rest, ":ro") {
				mode = "ro"
			}
			used[volume] = append(used[volume], name+":"+mode)
		}
	}
	for volume := range file.Volumes {
		if len(used[volume]) == 0 {
			t.Errorf("volume %q is declared and used by nobody", volume)
		}
	}
	// Who may write what is the demonstration's claim about separation.
	want := map[string][]string{
		"state":  {"credstore:rw", "init:rw", "setup:ro"},
		"enroll": {"injector:ro", "setup:rw"},
		"files":  {"app:ro", "injector:rw"},
	}
	for volume, users := range want {
		if got := slices.Sorted(slices.Values(used[volume])); !slices.Equal(got, users) {
			t.Errorf("volume %q is mounted by %q, want %q", volume, got, users)
		}
	}
	if got := file.Volumes["files"].DriverOpts["type"]; got != "tmpfs" {
		t.Errorf("injected files lie on %q, want a tmpfs", got)
	}
}

// TestComposeCommands builds both programs and asks each command of the
// demonstration for its help, which must know the flags that are used.
func TestComposeCommands(t *testing.T) {
	out := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./services/credstore", "./services/injector")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the images are built
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}

	commands := map[string][]string{}
	for name, s := range readCompose(t).Services {
		if s.Build == nil || len(s.Command) == 0 {
			continue
		}
		commands[name] = append([]string{s.Build.Target}, s.Command...)
		if s.Healthcheck != nil && len(s.Healthcheck.Test) > 1 {
			test := s.Healthcheck.Test[1:]
			commands[name+" healthcheck"] = append([]string{strings.TrimPrefix(test[0], "/")}, test[1:]...)
		}
	}
	for i, line := range setupCommands(t) {
		commands["setup.sh "+string(rune('1'+i))] = line
	}

	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			var words, flags []string
			for _, arg := range command[1:] {
				switch {
				case strings.HasPrefix(arg, "--"):
					flag, _, _ := strings.Cut(arg, "=")
					flags = append(flags, flag)
				case len(flags) == 0:
					words = append(words, arg)
				}
			}
			run := exec.CommandContext(t.Context(), filepath.Join(out, command[0]), append(words, "--help")...)
			help, err := run.CombinedOutput()
			if err != nil {
				t.Fatalf("%s %q --help: %v\n%s", command[0], words, err, help)
			}
			// A command that has children and was given a word that is none
			// of them prints its own help.
			if !bytes.Contains(help, []byte(command[0]+" "+words[0])) {
				t.Errorf("%s has no command %q:\n%s", command[0], words[0], help)
			}
			for _, flag := range flags {
				if !regexp.MustCompile(regexp.QuoteMeta(flag) + `\b`).Match(help) {
					t.Errorf("%s %q has no flag %s:\n%s", command[0], words, flag, help)
				}
			}
		})
	}
}

// setupCommands returns the calls of credstore in setup.sh.
func setupCommands(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "tools/compose/setup.sh"))
	if err != nil {
		t.Fatal(err)
	}
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	var commands [][]string
	for line := range strings.Lines(joined) {
		line, _, _ = strings.Cut(line, "<<")
		line, _, _ = strings.Cut(line, ">")
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "credstore" {
			commands = append(commands, fields)
		}
	}
	if len(commands) == 0 {
		t.Fatal("setup.sh calls credstore nowhere")
	}
	return commands
}

// stage is one FROM section of the Dockerfile.
type stage struct {
	base string
	text string
}

func dockerStages(t *testing.T) map[string]stage {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	stages := map[string]stage{}
	found := stageLine.FindAllStringSubmatchIndex(text, -1)
	for i, at := range found {
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		stages[text[at[4]:at[5]]] = stage{base: text[at[2]:at[3]], text: text[at[1]:end]}
	}
	return stages
}

func TestDockerfile(t *testing.T) {
	stages := dockerStages(t)
	for _, name := range []string{"credstore", "injector"} {
		s, ok := stages[name]
		if !ok {
			t.Errorf("no stage %q among %q", name, slices.Sorted(maps.Keys(stages)))
			continue
		}
		for _, line := range []string{
			"\nUSER 65532:65532\n",
			"\nENTRYPOINT [\"/" + name + "\"]\n",
			"CMD [\"/" + name + "\", \"health\"]\n",
			"COPY --from=build /out/" + name + " /" + name + "\n",
		} {
			if !strings.Contains(s.text, line) {
				t.Errorf("stage %q lacks %q", name, strings.TrimSpace(line))
			}
		}
		if s.base != "scratch" {
			t.Errorf("stage %q is built on %q, want scratch", name, s.base)
		}
		if strings.Contains(s.text, "\nRUN ") {
			t.Errorf("stage %q runs something, and has no shell to do it with", name)
		}
	}

	version := regexp.MustCompile(`(?m)^go (\S+)$`)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	match := version.FindSubmatch(mod)
	if match == nil {
		t.Fatal("go.mod names no Go version")
	}
	if got, want := stages["build"].base, "golang:"+string(match[1])+"-"; !strings.HasPrefix(got, want) {
		t.Errorf("images are built with %s, want the version of go.mod: %s…", got, want)
	}

	// What is copied must exist, and must pass .dockerignore.
	ignore, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	copied := regexp.MustCompile(`(?m)^COPY ([a-z][\w./ -]*) \S+$`)
	for name, s := range stages {
		for _, match := range copied.FindAllStringSubmatch(s.text, -1) {
			for source := range strings.FieldsSeq(match[1]) {
				if _, err := os.Stat(filepath.Join(root, source)); err != nil {
					t.Errorf("stage %q copies %s: %v", name, source, err)
				}
				allowed := slices.ContainsFunc(strings.Split(string(ignore), "\n"), func(line string) bool {
					path, ok := strings.CutPrefix(line, "!")
					return ok && (source == path || strings.HasPrefix(source, path+"/"))
				})
				if !allowed {
					t.Errorf("stage %q copies %s, which .dockerignore keeps out", name, source)
				}
			}
		}
	}
}

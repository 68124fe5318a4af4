package credential

import (
	"slices"
	"strings"
)

// readCommand reads a "docker login" or "kubectl create secret docker-registry"
// command, and says whether the text is one.
func (d *registryDocument) readCommand(at, text string) bool {
	text = strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(text)
	found := false
	for line := range strings.Lines(text) {
		words, problem := splitShell(trimPasted(line))
		words = registryCommand(words)
		switch {
		case words == nil: // what the command printed, or nothing of ours
		case found:
			d.add(at, "must hold one command; it holds more")
			return true
		case problem != "":
			d.add(at, "must be a command with its values written out; it "+problem)
			found = true
		default:
			d.readWords(at, words)
			found = true
		}
	}
	return found
}

// registryCommand returns the words of a login from the program's name on, nil
// when they are none. A prompt, "sudo" and the like may stand before it.
func registryCommand(words []string) []string {
	const before = 5
	for i := range min(len(words), before) {
		for _, command := range [][]string{
			{"docker", "login"},
			{"podman", "login"},
			{"nerdctl", "login"},
			{"buildah", "login"},
			{"skopeo", "login"},
			{"finch", "login"},
			{"helm", "registry", "login"},
			{"kubectl", "create", "secret", "docker-registry"},
			{"oc", "create", "secret", "docker-registry"},
		} {
			if n := i + len(command); n <= len(words) && slices.Equal(words[i:n], command) {
				return words[i:]
			}
		}
	}
	return nil
}

// shellWords splits a line as a shell does.
type shellWords struct {
	words  []string
	word   strings.Builder
	inWord bool
	quote  byte
	// problem says what only a shell could know.
	problem string
}

// splitShell splits a line into words. What only the shell knows, as the value of
// a variable, is a problem.
func splitShell(line string) (words []string, problem string) {
	var s shellWords
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' && i+1 < len(line) && s.escapes(line[i+1]) {
			i++
			s.add(line[i])
			continue
		}
		next := byte(0)
		if i+1 < len(line) {
			next = line[i+1]
		}
		s.read(line[i], next)
	}
	s.end()
	if s.quote != 0 {
		s.problem = "has a quote that is not closed"
	}
	return s.words, s.problem
}

// escapes says whether a backslash before c is one of the shell's.
func (s *shellWords) escapes(c byte) bool {
	return s.quote == 0 || (s.quote == '"' && strings.IndexByte("\"\\$`", c) >= 0)
}

func (s *shellWords) add(c byte) {
	s.word.WriteByte(c)
	s.inWord = true
}

func (s *shellWords) end() {
	if s.inWord {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.inWord = false
}

// read reads a character that no backslash stands before.
func (s *shellWords) read(c, next byte) {
	switch {
	case s.quote != 0 && c == s.quote:
		s.quote = 0
		return
	case s.quote == '\'':
	case s.quote == 0 && (c == '\'' || c == '"'):
		s.quote, s.inWord = c, true
		return
	case c == '`', c == '$' && (next == '{' || next == '(' || next == '_' || next|0x20 >= 'a' && next|0x20 <= 'z'):
		s.problem = "holds a shell variable or a command of the shell, whose value is not known here"
	case s.quote == '"':
	case c == '|', c == '<', c == ';', c == '&':
		s.problem = "holds more than one command, or reads from elsewhere"
	case c == ' ', c == '\t':
		s.end()
		return
	}
	s.add(c)
}

// registryOptions are the options with a value, by the field that they say; ""
// is of no use here.
func registryOptions(kubectl bool) map[string]string {
	if kubectl {
		return map[string]string{
			"--docker-server": "server", "--docker-username": "username", "--docker-password": "password", "--docker-email": "",
			"-n": "", "--namespace": "", "-o": "", "--output": "", "--context": "", "--kubeconfig": "",
		}
	}
	return map[string]string{
		"-u": "username", "--username": "username", "-p": "password", "--password": "password",
		"--authfile": "", "--cert-dir": "", "--config": "", "--registry-config": "",
	}
}

// registrySwitches are options without a value, or with one behind "=".
func registrySwitches() []string {
	return []string{"--tls-verify", "--insecure", "--verbose", "-v", "--dry-run"}
}

// readWords reads a command from the program's name on.
func (d *registryDocument) readWords(at string, words []string) {
	kubectl, skip := false, 2
	switch words[0] {
	case "kubectl", "oc":
		kubectl, skip = true, 4
	case "helm":
		skip = 3
	}
	values, rest, problem := readOptions(words[skip:], registryOptions(kubectl))
	server := values["server"]
	if len(rest) > 0 {
		if !kubectl {
			server = rest[0]
		}
		rest = rest[1:] // the server, or the name of the Secret
	}
	if problem == "" && len(rest) > 0 {
		problem = "must be a login with -u and -p; it has words left over after the server"
	}
	if problem != "" {
		d.add(at, problem)
		return
	}
	if server == "" {
		server = "docker.io" // what all of these programs take
	}
	e := registryEntry{at: at, username: values["username"], password: values["password"]}
	e.host, e.problem = registryHost(server)
	d.entries = append(d.entries, e)
}

// readOptions returns what the options say by the fields, and the other words.
func readOptions(words []string, options map[string]string) (values map[string]string, rest []string, problem string) {
	values = map[string]string{}
	for ; len(words) > 0; words = words[1:] {
		name, value, joined := strings.Cut(words[0], "=")
		if len(name) > 2 && name[0] == '-' && name[1] != '-' { // -uNAME
			name, value, joined = words[0][:2], strings.TrimPrefix(words[0][2:], "="), true
		}
		field, known := options[name]
		switch {
		case name == "--password-stdin":
			return nil, nil, "must hold the password; it says that the password comes from elsewhere: set server, username and password instead"
		case !strings.HasPrefix(name, "-"):
			rest = append(rest, words[0])
			continue
		case slices.Contains(registrySwitches(), name):
			continue
		case known && joined:
		case known && len(words) > 1:
			words = words[1:]
			value = words[0]
		default:
			return nil, nil, "must be a login with -u and -p; it has an option that is not understood, or one without its value"
		}
		if field != "" {
			values[field] = value
		}
	}
	return values, rest, ""
}

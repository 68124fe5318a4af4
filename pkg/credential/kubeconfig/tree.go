package kubeconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxMarks bounds the nodes of the tree, which weigh a hundred times what
	// they are written with. A hundred contexts have about 3,000.
	maxMarks = 20_000
	// maxDepth bounds what stands inside of each other in one line, or in
	// brackets; a kubeconfig has less than ten levels.
	maxDepth = 100
	// maxExpanded bounds the nodes that there are where each alias is replaced by
	// what it stands for, as most programs do.
	maxExpanded = 4 * maxMarks
	// maxSteps bounds what is looked at: a node may be met on several ways.
	maxSteps = 4 * maxExpanded
	// maxMerges bounds mappings merged into mappings ("<<").
	maxMerges = 8
	// maxProblems bounds the answer to a document that is nothing but mistakes.
	maxProblems = 50
)

// Problem is one thing that is wrong. It repeats no value but the names of
// contexts, clusters and users.
type Problem struct {
	// Field is "context", "document", or what is meant inside of the document, as
	// "document.users[0].user.exec".
	Field string
	// Text says what is wrong, as the description of a field does.
	Text string
}

// reader walks through one document and collects what is wrong with it. The tree
// has its aliases as they are written, so that no document expands itself.
type reader struct {
	steps    int
	problems []Problem
	seen     map[Problem]bool
}

// add reports a field by its path inside of the document.
func (r *reader) add(field, text string) {
	r.addAt(Problem{Field: join("document", field), Text: text})
}

// addAt notes a problem once: several ways lead to some fields.
func (r *reader) addAt(p Problem) {
	if r.seen[p] || len(r.problems) == maxProblems {
		return
	}
	if r.seen == nil {
		r.seen = map[Problem]bool{}
	}
	r.seen[p] = true
	r.problems = append(r.problems, p)
}

// parse returns the document's mapping, nil after a problem.
func (r *reader) parse(document string) *yaml.Node {
	if document == "" {
		r.add("", "must be a kubeconfig file, whole; it is empty")
		return nil
	}
	if isHeavy(document) {
		r.add("", "must be a kubeconfig file; it has more lines, entries or levels than one can have")
		return nil
	}
	// YAML has nearly all of JSON, but not all of its escapes.
	if json.Valid([]byte(document)) {
		decoder := json.NewDecoder(strings.NewReader(document))
		decoder.UseNumber()
		if top := jsonNode(decoder); top.Kind == yaml.MappingNode {
			return top
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(document))
	var root, next yaml.Node
	if err := decoder.Decode(&root); err != nil {
		r.add("", syntax(document, err))
		return nil
	}
	err := decoder.Decode(&next)
	if err != nil && !errors.Is(err, io.EOF) {
		r.add("", syntax(document, err))
		return nil
	}
	if err == nil && !isNull(r.follow(content(&next))) {
		r.add("", `must hold one YAML document; a second one begins at a line "---"`)
		return nil
	}
	top := r.follow(content(&root))
	if top == nil || top.Kind != yaml.MappingNode {
		r.add("", notAMapping(document))
		return nil
	}
	if w := (scale{}).weigh(&root); w > maxExpanded {
		r.add("", "must be a kubeconfig file; its aliases (*name) make more of it than one can have")
		return nil
	}
	return top
}

// scale remembers the weights of nodes that aliases stand for.
type scale map[*yaml.Node]int

// weigh counts the nodes below one, those behind aliases each time, until they
// are too many. An alias that stands inside of what it names is too many.
func (s scale) weigh(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		if w, known := s[n.Alias]; known {
			return w
		}
		return s.weigh(n.Alias)
	}
	if n.Anchor != "" {
		s[n] = maxExpanded + 1 // until it is known
	}
	total := 1
	for _, child := range n.Content {
		total = min(total+s.weigh(child), maxExpanded+1)
	}
	if n.Anchor != "" {
		s[n] = total
	}
	return total
}

// jsonNode returns the next value of a valid document, or a node of no kind
// where a list or an object ends.
func jsonNode(decoder *json.Decoder) *yaml.Node {
	token, err := decoder.Token()
	if err != nil {
		return &yaml.Node{}
	}
	scalar := func(tag, value string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
	}
	switch value := token.(type) {
	case string:
		return scalar("!!str", value)
	case json.Number:
		return scalar("!!float", value.String())
	case bool:
		return scalar("!!bool", strconv.FormatBool(value))
	case nil:
		return scalar("!!null", "")
	}
	n := &yaml.Node{}
	switch token {
	case json.Delim('{'):
		n.Kind = yaml.MappingNode
	case json.Delim('['):
		n.Kind = yaml.SequenceNode
	default:
		return n
	}
	for element := jsonNode(decoder); element.Kind != 0; element = jsonNode(decoder) {
		n.Content = append(n.Content, element)
	}
	return n
}

// isHeavy estimates the tree from the characters that make nodes of it, wherever
// they stand: parsers take a multiple of their input for each node and level.
func isHeavy(document string) bool {
	marks, brackets, inLine, atStart := 0, 0, 0, true
	for i := range len(document) {
		c := document[i]
		if strings.IndexByte("\n,[]{}:-?#&*!", c) >= 0 {
			marks++
		}
		switch c {
		case '\n':
			inLine, atStart = 0, true
		case '[', '{':
			brackets, atStart = brackets+1, false
		case ']', '}':
			brackets, atStart = max(brackets-1, 0), false
		case '-', '?', ':':
			if atStart {
				inLine++
			}
		case ' ', '\t':
		default:
			atStart = false
		}
		if marks > maxMarks || brackets > maxDepth || inLine > maxDepth {
			return true
		}
	}
	return false
}

func content(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		return n.Content[0]
	}
	return nil
}

// notAMapping says what was pasted in place of a kubeconfig.
func notAMapping(document string) string {
	line := strings.TrimSpace(document)
	switch {
	case strings.HasPrefix(line, "-----BEGIN"):
		return "must be a kubeconfig file; it is a certificate or key alone"
	case !strings.ContainsAny(line, " \n") && (strings.HasPrefix(line, "/") || strings.HasPrefix(line, "~") || strings.HasPrefix(line, "./")):
		return "must be the text of a kubeconfig file; it is the path of a file, which cannot be read here"
	case strings.Count(line, ".") == 2 && strings.HasPrefix(line, "eyJ"):
		return "must be a kubeconfig file, which says where a token is sent; it is a token alone"
	}
	return "must be a kubeconfig file, which is a mapping in YAML or JSON; it is something else"
}

var errorLine = regexp.MustCompile(`line (\d+): `)

// known are the words of the YAML library that quote nothing of the document.
var known = []string{
	"mapping values are not allowed in this context",
	"did not find expected key",
	"did not find expected '-' indicator",
	"did not find expected node content",
	"did not find expected ',' or ']'",
	"did not find expected ',' or '}'",
	"could not find expected ':'",
	"found unexpected end of stream",
	"found character that cannot start any token",
	"found unknown escape character",
	"found unexpected document indicator",
	"block sequence entries are not allowed in this context",
	"block mapping entries are not allowed in this context",
	"control characters are not allowed",
	"did not find expected <document start>",
	"exceeded max depth",
}

// syntax says what is wrong with a document that is no YAML.
func syntax(document string, err error) string {
	n := 0
	for line := range strings.Lines(document) {
		n++
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if strings.Contains(indent, "\t") && strings.TrimSpace(line) != "" {
			return fmt.Sprintf("must be YAML or JSON; line %d is indented with a tab, where YAML allows spaces only", n)
		}
	}
	text := err.Error()
	where := ""
	if m := errorLine.FindStringSubmatch(text); m != nil {
		where = " (near line " + m[1] + ")"
	}
	if strings.Contains(text, "unknown anchor") {
		return "must be YAML or JSON; an alias (*name) has no anchor (&name) before it" + where
	}
	for _, words := range known {
		if strings.Contains(text, words) {
			return "must be YAML or JSON; " + words + where
		}
	}
	return "must be YAML or JSON; it is neither" + where
}

// follow returns what an alias stands for; nil at the end of what a document may
// ask for.
func (r *reader) follow(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		if !r.step() {
			return nil
		}
		n = n.Alias
	}
	return n
}

func (r *reader) step() bool {
	r.steps++
	if r.steps == maxSteps {
		r.add("", "must be a kubeconfig file; its aliases and merged mappings are too many")
	}
	return r.steps < maxSteps
}

func isNull(n *yaml.Node) bool {
	return n == nil || n.Kind == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// child returns the value of a key of a mapping; nil when there is none, or
// null. Keys that stand twice are a problem: programs differ in which they take.
func (r *reader) child(m *yaml.Node, field, key string) *yaml.Node {
	return r.childOf(m, field, key, 0)
}

func (r *reader) childOf(m *yaml.Node, field, key string, depth int) *yaml.Node {
	var found *yaml.Node
	for i := 0; i+1 < len(m.Content); i += 2 {
		if !r.step() {
			return nil
		}
		k := r.follow(m.Content[i])
		if k == nil || k.Kind != yaml.ScalarNode || k.Value != key {
			continue
		}
		if found != nil {
			r.add(join(field, key), "must stand once; it stands twice")
			return nil
		}
		found = m.Content[i+1]
	}
	if found == nil {
		return r.merged(m, field, key, depth)
	}
	if n := r.follow(found); !isNull(n) {
		return n
	}
	return nil
}

// merged looks for the key in the mappings that are merged into this one.
func (r *reader) merged(m *yaml.Node, field, key string, depth int) *yaml.Node {
	if depth == maxMerges {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Kind != yaml.ScalarNode || m.Content[i].ShortTag() != "!!merge" {
			continue
		}
		from := []*yaml.Node{m.Content[i+1]}
		if list := r.follow(m.Content[i+1]); list != nil && list.Kind == yaml.SequenceNode {
			from = list.Content
		}
		for _, n := range from {
			if !r.step() {
				return nil
			}
			n = r.follow(n)
			if n == nil || n.Kind != yaml.MappingNode {
				continue
			}
			if found := r.childOf(n, field, key, depth+1); found != nil {
				return found
			}
		}
	}
	return nil
}

// join returns the path of a key of a field.
func join(field, key string) string {
	switch {
	case field == "":
		return key
	case key == "":
		return field
	}
	return field + "." + key
}

// mapping returns the mapping at a key; nil when there is none.
func (r *reader) mapping(m *yaml.Node, field, key string) *yaml.Node {
	n := r.child(m, field, key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.add(join(field, key), "must be a mapping (fields below it, further to the right); it is something else")
		return nil
	}
	return n
}

// list returns the elements of the list at a key.
func (r *reader) list(m *yaml.Node, field, key string) []*yaml.Node {
	n := r.child(m, field, key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.add(join(field, key), `must be a list (lines that begin with "- "); it is something else`)
		return nil
	}
	return n.Content
}

// text returns the text at a key, "" when there is none.
func (r *reader) text(m *yaml.Node, field, key string) string {
	return r.scalar(r.child(m, field, key), join(field, key))
}

func (r *reader) scalar(n *yaml.Node, field string) string {
	switch {
	case n == nil:
		return ""
	case n.Kind != yaml.ScalarNode:
		r.add(field, "must be text; it is a list or a mapping")
		return ""
	case n.ShortTag() != "!!str":
		r.add(field, "must be text; it is read as a number, a date or another kind of value: put it in quotes")
		return ""
	}
	return n.Value
}

// truth returns the boolean at a key, false when there is none.
func (r *reader) truth(m *yaml.Node, field, key string) bool {
	n := r.child(m, field, key)
	if n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		r.add(join(field, key), "must be true or false, without quotes; it is something else")
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// misspelt reports keys of a mapping that differ from known ones in case and
// separators only: kubectl would ignore them, and say nothing.
func (r *reader) misspelt(m *yaml.Node, field string, known ...string) {
	plain := func(key string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k := r.follow(m.Content[i])
		if k == nil || k.Kind != yaml.ScalarNode || slices.Contains(known, k.Value) || !r.step() {
			continue
		}
		for _, key := range known {
			if len(k.Value) <= 2*len(key) && plain(k.Value) == plain(key) {
				r.add(join(field, key), "must be spelt like this; it is spelt differently, and clients would ignore it")
			}
		}
	}
}

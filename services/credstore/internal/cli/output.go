package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"
)

func (c *connection) checkOutput() error {
	switch c.output {
	case "table", "json", "yaml":
		return nil
	}
	return usageError{fmt.Errorf("--output is table, json or yaml, not %q", c.output)}
}

// table is what is shown of messages when nobody asks for all of them.
type table struct {
	header []string
	rows   [][]string
}

// print shows a message as JSON or YAML, or the table.
func (c *connection) print(m proto.Message, t table) error {
	if c.output == "table" {
		return t.write(c.streams.Out)
	}
	b, err := stableJSON(m)
	if err != nil {
		return err
	}
	if c.output == "yaml" {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(c.streams.Out, strings.TrimRight(string(b), "\n"))
	return err
}

// stableJSON is a message as JSON on several lines, the same for the same
// message: protojson alone varies its white space from build to build.
func stableJSON(m proto.Message) ([]byte, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	defer clear(b) // it may hold a payload
	var out bytes.Buffer
	err = json.Indent(&out, b, "", "  ")
	return out.Bytes(), err
}

func (t table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.header}, t.rows...) {
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func (c *connection) say(format string, args ...any) error {
	_, err := fmt.Fprintf(c.streams.Out, format+"\n", args...)
	return err
}

// pairs shows a map on one line.
func pairs(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

// since shows how long ago a time was, or "-".
func since(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := time.Since(t.AsTime())
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// short is the last element of a name.
func short(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

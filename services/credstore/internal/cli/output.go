package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
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

// printStored shows what was stored, or would be.
func (c *connection) printStored(validateOnly bool, m proto.Message, t table) error {
	if err := c.print(m, t); err != nil || !validateOnly {
		return err
	}
	_, err := fmt.Fprintln(c.streams.Err, "nothing was stored: --validate-only")
	return err
}

// asked turns JSON into what --output asks for; a table has none of it.
func (c *connection) asked(b []byte) ([]byte, error) {
	if c.output != "yaml" {
		return b, nil
	}
	defer clear(b)
	return yaml.JSONToYAML(b)
}

// noOutputWith refuses --output where a flag has something printed as it is.
func (c *connection) noOutputWith(flag, value string) error {
	if value != "" && c.output != "table" {
		return usageError{fmt.Errorf("%s prints the field as it is: leave out --output", flag)}
	}
	return nil
}

// plainOutput marks the commands that have no resource to print.
const plainOutput = "plain"

func plain() map[string]string { return map[string]string{plainOutput: "yes"} }

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

// clip cuts off what would make a table unreadable; JSON and YAML have all of it.
func clip(text string) string {
	const most = 100
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
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

// until shows how long something lasts still, or "-".
func until(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := time.Until(t.AsTime())
	switch {
	case d <= 0:
		return "ended"
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// ageState shows what is due, "-" for what has no age.
func ageState(c *credstorev1.Credential) string {
	if c.GetAgeState() == credstorev1.Credential_AGE_STATE_UNSPECIFIED {
		return "-"
	}
	return c.GetAgeState().String()
}

// verified shows the last verification, "-" when there was none.
func verified(v *credstorev1.Verification) string {
	if v == nil {
		return "-"
	}
	return v.GetState().String() + " " + since(v.GetVerifyTime()) + " ago"
}

// days is a flag for a period, in days ("90d") or as Go writes durations.
type days time.Duration

// String returns what Set takes, and nothing for 0, so that no help calls that
// the default.
func (d *days) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Type is what the help calls it.
func (d *days) Type() string { return "period" }

// Set reads "90d" or "2160h".
func (d *days) Set(text string) error {
	if digits, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil {
			*d = days(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	parsed, err := time.ParseDuration(text)
	if err != nil || parsed < 0 {
		return errors.New("a period is a number with its unit, as 30s, 15m, 12h or 90d; there are no weeks, months and years")
	}
	*d = days(parsed)
	return nil
}

// message returns nil for 0.
func (d *days) message() *durationpb.Duration {
	if *d == 0 {
		return nil
	}
	return durationpb.New(time.Duration(*d))
}

// filled is a flag whose value means something: an empty one, as of a variable
// that is not set, must not be taken for no flag.
type filled struct {
	to   *string
	hint string
}

// String returns the value.
func (f filled) String() string {
	if f.to == nil {
		return "" // pflag asks a zero value too
	}
	return *f.to
}

// Type is what the help calls it.
func (filled) Type() string { return "string" }

// Set refuses the empty value.
func (f filled) Set(text string) error {
	if text == "" {
		return errors.New(f.hint)
	}
	*f.to = text
	return nil
}

func addEtagFlag(cmd *cobra.Command, etag *string, usage string) {
	cmd.Flags().Var(filled{etag, "an empty etag checks nothing: give the one that was read, or leave out the flag"}, "etag", usage)
}

// pairsFlag reads KEY=VALUE,…; "" empties it.
type pairsFlag struct {
	flagValue
	to *map[string]string
}

// flagValue is pflag.Value, which only cobra depends on.
type flagValue interface {
	String() string
	Set(text string) error
	Type() string
}

func newPairs(to *map[string]string) pairsFlag {
	f := (&cobra.Command{}).Flags() // reads them as cobra does
	f.StringToStringVar(to, "pairs", nil, "")
	return pairsFlag{f.Lookup("pairs").Value, to}
}

// Set adds pairs.
func (p pairsFlag) Set(text string) error {
	if text == "" {
		*p.to = nil
		return nil
	}
	return p.flagValue.Set(text)
}

// String returns "" for none, so that no help calls that the default.
func (p pairsFlag) String() string {
	if p.to == nil || len(*p.to) == 0 {
		return ""
	}
	return p.flagValue.String()
}

// short is the last element of a name.
func short(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

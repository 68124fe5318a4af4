package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

func TestPrint(t *testing.T) {
	m := &credstorev1.Credential{
		Name: "projects/default/credentials/bot", Kind: "basic", ActiveVersion: 3,
		Labels: map[string]string{"b": "2", "a": "<1>"}, Facts: map[string]string{"username": "bot"},
	}
	shown := credentialTable(m, &credstorev1.Credential{Name: "projects/default/credentials/a-long-name", Kind: "apiToken"})
	for format, want := range map[string]string{
		"table": "NAME         KIND      VERSION  AGE  STATE  EXPIRES  VERIFIED  FACTS         LABELS\n" +
			"bot          basic     3        -    -      -        -         username=bot  a=<1>,b=2\n" +
			"a-long-name  apiToken  0        -    -      -        -         -             -\n",
		"json": `{
  "name": "projects/default/credentials/bot",
  "kind": "basic",
  "labels": {
    "a": "<1>",
    "b": "2"
  },
  "activeVersion": 3,
  "facts": {
    "username": "bot"
  }
}
`,
		"yaml": "activeVersion: 3\nfacts:\n  username: bot\nkind: basic\nlabels:\n  a: <1>\n  b: \"2\"\nname: projects/default/credentials/bot\n",
	} {
		out := &bytes.Buffer{}
		c := &connection{streams: Streams{Out: out}, output: format}
		if err := c.checkOutput(); err != nil {
			t.Fatal(err)
		}
		if err := c.print(m, shown); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
	if _, ok := errors.AsType[usageError]((&connection{output: "xml"}).checkOutput()); !ok {
		t.Error("xml is no mistake")
	}
}

// full is a writer that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

func TestPrintTellsOfItsFailure(t *testing.T) {
	for _, format := range []string{"table", "json", "yaml"} {
		c := &connection{streams: Streams{Out: full{}}, output: format}
		if err := c.print(&credstorev1.Project{Name: "projects/x"}, projectTable(&credstorev1.Project{})); err == nil {
			t.Errorf("%s: nothing was said", format)
		}
	}
}

func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for d, want := range map[time.Duration]string{
			0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59*time.Minute + 59*time.Second: "59m", time.Hour: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d",
		} {
			if got := since(timestamppb.New(time.Now().Add(-d))); got != want {
				t.Errorf("%s ago is shown as %q, want %q", d, got, want)
			}
		}
	})
	if got := since(nil); got != "-" {
		t.Errorf("never is shown as %q", got)
	}
}

func TestNames(t *testing.T) {
	c := &connection{project: "team"}
	for id, want := range map[string]string{
		"bot":                        "projects/team/credentials/bot",
		"projects/x/credentials/bot": "projects/x/credentials/bot",
	} {
		if got := c.name("credentials", id); got != want {
			t.Errorf("%s is taken for %s, want %s", id, got, want)
		}
	}
	for id, want := range map[string][2]string{
		"bot":                        {"projects/team", "bot"},
		"projects/x/credentials/bot": {"projects/x", "bot"},
		"projects/x/tokens/bot":      {"projects/team", "projects/x/tokens/bot"}, // the server refuses it
	} {
		if parent, short := c.split("credentials", id); [2]string{parent, short} != want {
			t.Errorf("%s is split into %s and %s, want %v", id, parent, short, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	inUse := &client.InUseError{
		Usages: []*credstorev1.Usage{{Source: credstorev1.Usage_DERIVED, User: "projects/default/injections/web"}},
		Consumers: []*credstorev1.Consumer{
			{Workload: "pod", Principal: "projects/default/tokens/web", Version: 7, Connected: true},
			{Principal: "projects/default/tokens/gone", Version: 6},
		},
	}
	inUse.Usages = append(inUse.Usages, &credstorev1.Usage{
		Name: "projects/default/credentials/bot/usages/nightly", Source: credstorev1.Usage_DECLARED, User: "nightly scan",
	})
	text := describe(fmt.Errorf("delete: %w", inUse))
	for _, want := range []string{
		"\n  DERIVED  projects/default/injections/web", "\n  LIVE     pod (projects/default/tokens/web) holds version 7",
		"\n  VANISHED  projects/default/tokens/gone holds version 6",
		"\n  DECLARED  nightly scan (credstore usage delete projects/default/credentials/bot nightly)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	if got := describe(errors.New("plain")); got != "plain" {
		t.Errorf("a plain error is described as %q", got)
	}
}

func TestPeriods(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "0d": 0, "1d": 24 * time.Hour, "12h": 12 * time.Hour, "1m30s": 90 * time.Second, "0": 0,
	} {
		var d days
		if err := d.Set(text); err != nil || time.Duration(d) != want {
			t.Errorf("%s is taken for %s, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "30", "1w", "20y", "d", "-1d", "-5m", "soon", "1d12h", "99999d"} {
		d := days(time.Hour)
		if err := d.Set(text); err == nil || !strings.Contains(err.Error(), "as 30s, 15m, 12h or 90d") || time.Duration(d) != time.Hour {
			t.Errorf("%q is taken for %s, %v", text, time.Duration(d), err)
		}
	}
}

// TestRunEndsWithItsCode needs no server.
func TestRunEndsWithItsCode(t *testing.T) {
	for line, want := range map[string]int{
		"version": 0, "": 0, "--help": 0, "credential": 0, "nosuch": 2, "credential nosuch": 2, "version extra": 2, "--nosuch": 2, "credential get": 2, "serve --data /nonexistent/data": 1,
	} {
		s := streamsOf("")
		if got := Run(t.Context(), strings.Fields(line), s); got != want {
			t.Errorf("credstore %s ends with %d, want %d: %s", line, got, want, s.Err)
		}
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

func newWatch(c *connection) *cobra.Command {
	r := &credstorev1.WatchRequest{}
	var names []string
	var payload, verbose bool
	var heartbeat days
	cmd := &cobra.Command{
		Use: "watch [CREDENTIAL...]", Short: "Follow the changes of credentials as they happen",
		Long: "Follow the changes of a project's credentials, or of those named, until interrupted.\nWith -o json it prints each message of the stream on a line of its own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.checkOutput(); err != nil {
				return err
			}
			if c.output == "yaml" {
				return usageError{errors.New("a stream is shown as table or json")}
			}
			r.Parent, r.HeartbeatInterval = c.parent(), heartbeat.message()
			for _, n := range append(names, args...) {
				r.Names = append(r.Names, c.name("credentials", n))
			}
			r.View = credstorev1.WatchRequest_METADATA
			if payload {
				r.View = credstorev1.WatchRequest_PAYLOAD
			}
			cl, err := c.dial()
			if err != nil {
				return err
			}
			defer func() { _ = cl.Close() }()
			stream, err := credstorev1.NewCredentialServiceClient(cl.Conn()).Watch(cmd.Context(), r)
			if err != nil {
				return err
			}
			for {
				m, err := stream.Recv()
				switch {
				case cmd.Context().Err() != nil, errors.Is(err, io.EOF):
					return nil
				case err != nil:
					return err
				}
				if err := c.show(m, verbose); err != nil {
					return err
				}
			}
		},
	}
	f := cmd.Flags()
	f.BoolVar(&payload, "payload", false, "with payloads, shown only by -o json; each is on record in the audit log")
	f.StringVar(&r.Filter, "filter", "", `only those that match, as "labels.team = platform"`)
	f.StringVar(&r.ResumeToken, "resume-token", "", "go on where an earlier watch of the same kind ended")
	f.StringVar(&r.Consumer, "consumer", "", "what to be called in the list of consumers")
	f.BoolVar(&verbose, "heartbeats", false, "show heartbeats too")
	f.Var(&heartbeat, "heartbeat-interval", "how often an idle stream sends one (default 30s)")
	return cmd
}

func (c *connection) show(m *credstorev1.WatchResponse, verbose bool) error {
	if c.output == "json" {
		b, err := protojson.Marshal(m)
		if err != nil {
			return err
		}
		var line bytes.Buffer
		if err := json.Compact(&line, b); err != nil {
			return err
		}
		return c.say("%s", line.Bytes())
	}
	switch e := m.GetEvent().(type) {
	case *credstorev1.WatchResponse_Commit_:
		for _, ch := range e.Commit.GetChanges() {
			text := fmt.Sprintf("%-8d %-12s %s", m.GetRevision(), ch.GetType(), ch.GetCredential().GetName())
			if v := ch.GetCredential().GetActiveVersion(); v != 0 {
				text += fmt.Sprintf(" version %d", v)
			}
			if err := c.say("%s", text); err != nil {
				return err
			}
		}
	case *credstorev1.WatchResponse_Synced_:
		return c.say("%-8d synced", m.GetRevision())
	case *credstorev1.WatchResponse_Reset_:
		return c.say("%-8d reset", m.GetRevision())
	case *credstorev1.WatchResponse_Heartbeat_:
		if verbose {
			return c.say("%-8d heartbeat", m.GetRevision())
		}
	}
	return nil
}

package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/services/credstore/internal/floor"
)

// demoTimeout bounds the whole demonstration.
const demoTimeout = 2 * time.Minute

// once runs the demonstration and prints what it measured. It fails when
// something did not work; a figure never makes it fail.
func (d *dev) once(ctx context.Context) error {
	if d.cfg.Changes == 0 {
		d.cfg.Changes = 200
	}
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	var figures latencies
	var refused []string
	var watch resumption
	err := d.run(ctx, func(ctx context.Context) error {
		c, err := client.Dial(d.clientOptions(d.dir.AdminToken()))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if figures, err = d.measureChanges(ctx, c); err != nil {
			return fmt.Errorf("measure changes: %w", err)
		}
		if refused, err = refusedDelete(ctx, c); err != nil {
			return fmt.Errorf("refused delete: %w", err)
		}
		if err := watch.begin(ctx, c); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		return nil
	})
	if err == nil {
		// The same folder with a new server: the watch goes on where it was.
		err = d.run(ctx, func(ctx context.Context) error {
			c, err := client.Dial(d.clientOptions(d.dir.AdminToken()))
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			return watch.resume(ctx, c)
		})
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("the demonstration failed: %w", err)
	}
	return d.report(figures, refused, watch)
}

// latencies are of one kind of work, each beside its floor in the same run.
type latencies struct {
	change, floor []time.Duration
}

// measureChanges changes the demonstration's password again and again, and
// takes the time from the call to the moment a reader sees it in the file. In
// turn with each change it measures the floor: two durable writes, one of the
// store and one of the file, and one hop over a stream.
func (d *dev) measureChanges(ctx context.Context, c *client.Client) (l latencies, err error) {
	disk, err := floor.OpenDisk(string(d.dir))
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	cert, roots := d.server.Certificate()
	hop, err := floor.NewHop(cert, roots, "localhost")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, hop.Close()) }()

	api := credstorev1.NewCredentialServiceClient(c.Conn())
	const warmUp = 5
	for i := range d.cfg.Changes + warmUp {
		password := fmt.Sprintf("password-%06d", i)
		start := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := api.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
				Credential: &credstorev1.Credential{Name: demoCredential.String(), Payload: basic("demo", password)},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
			})
			done <- err
		}()
		if err := d.awaitFile(ctx, "password", password); err != nil {
			return l, errors.Join(err, <-done)
		}
		took := time.Since(start)
		if err := <-done; err != nil {
			return l, err
		}
		least, err := physical(disk, hop)
		if err != nil {
			return l, err
		}
		if i >= warmUp {
			l.change, l.floor = append(l.change, took), append(l.floor, least)
		}
	}
	return l, nil
}

// physical is the least that a change from call to file can take.
func physical(disk *floor.Disk, hop *floor.Hop) (time.Duration, error) {
	const size = 1024
	store, err := disk.Write(size)
	if err != nil {
		return 0, err
	}
	stream, err := hop.Send(size)
	if err != nil {
		return 0, err
	}
	file, err := disk.Write(size)
	return store + stream + file, err
}

// readerPause is between two looks of the reader: short beside what is measured,
// and long enough to leave the processor to those who are measured.
const readerPause = 50 * time.Microsecond

// awaitFile reads a file until it holds the content.
func (d *dev) awaitFile(ctx context.Context, name, content string) error {
	path := filepath.Join(d.filesDir(), name)
	for {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if string(b) == content {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s did not change: %w", path, ctx.Err())
		}
		floor.Pause(readerPause)
	}
}

func basic(username, password string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: username, Password: password}}}
}

// refusedDelete tries to delete the demonstration's credential, which must not
// work, and returns who uses it.
func refusedDelete(ctx context.Context, c *client.Client) ([]string, error) {
	_, err := credstorev1.NewCredentialServiceClient(c.Conn()).DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: demoCredential.String(), Force: true})
	var inUse *client.InUseError
	if !errors.As(err, &inUse) {
		return nil, fmt.Errorf("a credential in use was not kept: %w", err)
	}
	var by []string
	for _, u := range inUse.Usages {
		by = append(by, fmt.Sprintf("%s %s", strings.ToLower(u.GetSource().String()), u.GetUser()))
	}
	_, err = credstorev1.NewCredentialServiceClient(c.Conn()).DeleteCredential(ctx, &credstorev1.DeleteCredentialRequest{Name: demoCredential.String()})
	if !errors.As(err, &inUse) {
		return nil, fmt.Errorf("a credential in use was not kept: %w", err)
	}
	for _, x := range inUse.Consumers {
		by = append(by, fmt.Sprintf("live %s holds version %d", x.GetWorkload(), x.GetVersion()))
	}
	if len(by) == 0 {
		return nil, errors.New("the refusal lists no usage")
	}
	return by, nil
}

// resumption is a watch that goes on after a restart.
type resumption struct {
	token   string
	missed  int
	version uint32
}

// begin follows the credentials until synced and keeps the token; then it makes
// the changes that the watch misses.
func (r *resumption) begin(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api := credstorev1.NewCredentialServiceClient(c.Conn())
	stream, err := api.Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default"})
	if err != nil {
		return err
	}
	for r.token == "" {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		r.token = m.GetResumeToken()
	}
	cancel()
	for range 3 {
		out, err := api.UpdateCredential(context.WithoutCancel(ctx), &credstorev1.UpdateCredentialRequest{
			Credential: &credstorev1.Credential{Name: demoCredential.String(), Payload: basic("demo", "changed while nobody watched")},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
		})
		if err != nil {
			return err
		}
		r.version = out.GetActiveVersion()
	}
	return nil
}

// resume goes on from the token: no reset, only what was missed, then synced.
func (r *resumption) resume(ctx context.Context, c *client.Client) error {
	stream, err := credstorev1.NewCredentialServiceClient(c.Conn()).Watch(ctx, &credstorev1.WatchRequest{Parent: "projects/default", ResumeToken: r.token})
	if err != nil {
		return err
	}
	var last uint32
	for {
		m, err := stream.Recv()
		switch {
		case err != nil:
			return err
		case m.GetReset_() != nil:
			return errors.New("the resumed watch started over")
		case m.GetSynced() != nil && last != r.version:
			return fmt.Errorf("the resumed watch ended at version %d instead of %d", last, r.version)
		case m.GetSynced() != nil:
			return nil
		}
		for _, ch := range m.GetCommit().GetChanges() {
			if ch.GetCredential().GetName() != demoCredential.String() {
				return fmt.Errorf("the resumed watch told of %s, which had not changed", ch.GetCredential().GetName())
			}
			r.missed++
			last = ch.GetCredential().GetActiveVersion()
		}
	}
}

func (d *dev) report(l latencies, refused []string, watch resumption) error {
	w := tabwriter.NewWriter(d.cfg.Out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) }
	row(fmt.Sprintf("%d changes, from the call to the reader", len(l.change)), "p50", "p99")
	row("  credstore and injector", millis(percentile(l.change, 50)), millis(percentile(l.change, 99)))
	row("  floor: 2 durable writes and 1 stream hop", millis(percentile(l.floor, 50)), millis(percentile(l.floor, 99)))
	row("  ratio", ratio(l.change, l.floor, 50), ratio(l.change, l.floor, 99))
	row("")
	row("delete of a credential in use", "refused; it is used by:")
	for _, u := range refused {
		row("", u)
	}
	row("watch resumed after a restart", fmt.Sprintf("no reset, %d change(s) told, ends at version %d", watch.missed, watch.version))
	return w.Flush()
}

func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, len(s)*p/100)]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func ratio(a, b []time.Duration, p int) string {
	return fmt.Sprintf("%.1f ×", float64(percentile(a, p))/float64(max(1, percentile(b, p))))
}

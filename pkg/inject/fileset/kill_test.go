package fileset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
)

// generation is a set in which each file tells its generation, and with it
// what all others must be. Some files do not change each time, one changes
// only its mode, and one is there every other time.
func generation(n int) []File {
	whole := strings.Repeat(fmt.Sprintf("generation %d\n", n), 500)
	files := set("gen", fmt.Sprint(n), "a", whole, "db/b", whole, "db/c", whole, "slow", fmt.Sprint(n/5))
	files = append(files, File{Path: "mode", Content: []byte("same"), Mode: 0o400 | fs.FileMode(n%2)<<5})
	if n%2 == 1 {
		files = append(files, File{Path: "odd/x", Content: []byte(whole)})
	}
	return files
}

// observer reads a root while it is published, and holds what is promised.
type observer struct {
	root              string
	sets, files       atomic.Int64 // how often a whole set, and one file, was read
	overtaken         atomic.Int64 // how often the set went away while it was read
	generations, last int          // how many generations were seen, and which was last
}

// readOnce reads one set as the package documentation says.
func (o *observer) readOnce() error {
	before, _ := os.Readlink(filepath.Join(o.root, dataLink))
	got, err := readSet(o.root)
	after, _ := os.Readlink(filepath.Join(o.root, dataLink))
	n := 0
	if gen, ok := got["gen"]; ok {
		if _, err := fmt.Sscanf(gen, "0400 %d", &n); err != nil {
			return fmt.Errorf("generation %q: %w", gen, err)
		}
		want := viewOf(generation(n))
		for p, content := range got {
			if want[p] != content {
				return fmt.Errorf("mixed set: %s of generation %d is %.60q", p, n, content)
			}
		}
		if err == nil && len(got) == len(want) {
			if n < o.last {
				return fmt.Errorf("generation %d after %d", n, o.last)
			}
			if n != o.last {
				o.generations++
			}
			o.last = n
			o.sets.Add(1)
			return nil
		}
	}
	if before == after {
		return fmt.Errorf("partial set of %d files, generation %d, in %s: %w", len(got), n, before, err)
	}
	o.overtaken.Add(1)
	return nil
}

// readFile reads one file by its plain name.
func (o *observer) readFile(p string) error {
	before, _ := os.Readlink(filepath.Join(o.root, dataLink))
	content, err := os.ReadFile(filepath.Join(o.root, p))
	if err != nil {
		if after, _ := os.Readlink(filepath.Join(o.root, dataLink)); errors.Is(err, fs.ErrNotExist) && before != after {
			o.overtaken.Add(1)
			return nil
		}
		return err
	}
	line, _, _ := strings.Cut(string(content), "\n")
	if string(content) != strings.Repeat(line+"\n", 500) {
		return fmt.Errorf("partial file %s of %d bytes: %.60q", p, len(content), content)
	}
	o.files.Add(1)
	return nil
}

// TestKilledPublisher kills a publishing process again and again at any moment,
// while readers read in tight loops.
func TestKilledPublisher(t *testing.T) {
	cycles := 20
	if os.Getenv("CREDSTORE_FAULTS") == "full" {
		cycles = 200
	}
	root := t.TempDir()
	d := mustOpen(t, root, atOnce)
	mustPublish(t, d, generation(1))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	o := &observer{root: root}
	var done atomic.Bool
	var readers errgroup.Group
	readers.Go(func() error {
		for !done.Load() {
			if err := o.readOnce(); err != nil {
				return err
			}
		}
		return nil
	})
	readers.Go(func() error {
		for !done.Load() {
			for _, p := range []string{"a", "db/b"} {
				if err := o.readFile(p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	const most = 300 // changes in a cycle: some 5 generations
	for range cycles {
		killAfter(t, root, 1+rand.IntN(most))
		// 7 names, the current and a new data directory, and what lingers.
		if names := listing(t, root); len(names) > 7+2+maxLingering+1 {
			t.Errorf("leftovers pile up: %q", names)
		}
	}
	done.Store(true)
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills: read %d whole sets of %d generations, and %d files; overtaken %d times",
		cycles, o.sets.Load(), o.generations, o.files.Load(), o.overtaken.Load())
	if o.generations < cycles/2 || o.files.Load() < int64(cycles) || o.overtaken.Load()*20 > o.sets.Load()+o.files.Load() {
		t.Error("the readers saw too little, or were overtaken too often, to say anything")
	}

	d = mustOpen(t, root, atOnce)
	current, err := d.Current()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(string(current["gen"].Content), &n); err != nil {
		t.Fatal(err)
	}
	for _, files := range [][]File{generation(n), generation(n + 1)} {
		mustPublish(t, d, files)
		checkView(t, root, files)
		checkTidy(t, root, files)
	}
}

// killAfter lets a process publish, and kills it when it announces its change
// number n, or just after.
func killAfter(t *testing.T, root string, n int) {
	t.Helper()
	cmd := child(t, "publish generations", root)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = io.CopyN(io.Discard, stdout, int64(n))
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	if err != nil {
		t.Fatalf("child ended by itself: %v: %s", err, complaint.String())
	}
}

// TestReadersWhileSetsAreReplaced is stricter: the publisher waits for the
// readers, so that none is ever overtaken, and they accept no error at all.
func TestReadersWhileSetsAreReplaced(t *testing.T) {
	o := &observer{root: t.TempDir()}
	d := mustOpen(t, o.root, Options{Linger: 1 << 62})
	mustPublish(t, d, generation(1))
	progress := make(chan struct{})
	var done atomic.Bool
	var readers errgroup.Group
	readers.Go(func() error {
		defer close(progress)
		for !done.Load() {
			if err := errors.Join(o.readOnce(), o.readFile("a"), o.readFile("db/c")); err != nil {
				return err
			}
			select {
			case progress <- struct{}{}:
			default:
			}
		}
		return nil
	})
	for n := 2; n < 100; n++ {
		mustPublish(t, d, generation(n))
		if _, ok := <-progress; !ok {
			break
		}
	}
	done.Store(true)
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
	if o.overtaken.Load() != 0 || o.generations < 50 {
		t.Errorf("overtaken %d times, %d generations seen", o.overtaken.Load(), o.generations)
	}
}

package fileset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkPublish measures a publish in which all files change, and beside it,
// in the same run on the same disk, its floor: the same number of bare writes
// of new files with an fsync each, one rename with an fsync of the directory,
// and the removal of the old files. A publish
// can be below it, as it lets fsyncs wait together. "one of" changes a single
// file of that many. Each content is 1 KiB.
func BenchmarkPublish(b *testing.B) {
	content := make([]byte, 1024)
	for _, n := range []int{1, 2, 10, 100} {
		files := make([]File, n)
		for i := range files {
			files[i] = File{Path: fmt.Sprintf("f%d", i)}
		}
		publish := func(b *testing.B, change int) {
			d, err := Open(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			for round := 0; b.Loop(); round++ {
				for i := range files[:change] {
					files[i].Content = fmt.Appendf(nil, "%08d%s", round, content[8:])
				}
				if _, err := d.Publish(b.Context(), files); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) {
			dir, err := os.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer dir.Close()
			for round := 0; b.Loop(); round++ {
				if err := floor(dir, round, n, content); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("all/%d", n), func(b *testing.B) { publish(b, n) })
		b.Run(fmt.Sprintf("one of/%d", n), func(b *testing.B) { publish(b, 1) })
		b.Run(fmt.Sprintf("none of/%d", n), func(b *testing.B) { publish(b, 0) })
	}
}

// floor is the least that n new durable files in the place of n old ones take,
// one after the other.
func floor(dir *os.File, round, n int, content []byte) error {
	name := func(round, i int) string { return filepath.Join(dir.Name(), fmt.Sprintf("%d.%d", round, i)) }
	for i := range n {
		h, err := os.Create(name(round, i))
		if err != nil {
			return err
		}
		_, err = h.Write(content)
		if err := errors.Join(err, h.Sync(), h.Close()); err != nil {
			return err
		}
	}
	if err := os.Rename(name(round, 0), filepath.Join(dir.Name(), "published")); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil || round == 0 {
		return err
	}
	for i := 1; i < n; i++ {
		if err := os.Remove(name(round-1, i)); err != nil {
			return err
		}
	}
	return nil
}

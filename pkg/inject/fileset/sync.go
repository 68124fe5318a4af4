package fileset

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// syncWorkers bounds how many fsyncs run at the same time. Several that wait
// together share one commit of the file system's journal, so that their number
// costs little; each holds a thread while it waits.
const syncWorkers = 8

// syncBatchSize bounds how many files are open at the same time to be synced.
const syncBatchSize = 64

// syncBatch collects open files and directories of one disk and syncs them
// together. The zero value with a disk is ready.
type syncBatch struct {
	disk disk
	open []*os.File
}

// add takes over h, and syncs the batch when it is full.
func (b *syncBatch) add(h *os.File) error {
	b.open = append(b.open, h)
	if len(b.open) < syncBatchSize {
		return nil
	}
	return b.flush()
}

// flush syncs all that was added, some at the same time, and closes it. It
// returns when all are done.
func (b *syncBatch) flush() error {
	for _, h := range b.open {
		if err := b.disk.announce(opSync, h.Name()[len(b.disk.root.Name()):]); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.SetLimit(syncWorkers)
	for _, h := range b.open {
		group.Go(func() error { return errors.Join(syncFile(h), h.Close()) })
	}
	b.open = nil
	return group.Wait()
}

// close closes what was added and not synced.
func (b *syncBatch) close() {
	for _, h := range b.open {
		_ = h.Close()
	}
	b.open = nil
}

// syncFile makes an open file or directory survive a loss of power. Some network
// file systems have nothing to sync for a directory, and say so.
func syncFile(h *os.File) error {
	err := h.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		if info, statErr := h.Stat(); statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

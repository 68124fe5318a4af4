package floor_test

import (
	"os"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/floor"
)

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := floor.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	if took, err := d.Write(1024); err != nil || took <= 0 {
		t.Errorf("Write took %v, %v", took, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("Close left %v, %v", left, err)
	}
}

func TestHop(t *testing.T) {
	h, err := floor.NewHop(nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if took, err := h.Send(1024); err != nil || took <= 0 {
			t.Errorf("Send took %v, %v", took, err)
		}
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := h.Send(1); err == nil {
		t.Error("Send after Close succeeded")
	}
}

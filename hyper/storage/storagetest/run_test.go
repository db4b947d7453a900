package storagetest_test

import (
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

func TestMemoryIsAnEngine(t *testing.T) {
	storagetest.Run(t, func(*testing.T) (storage.Engine, func() storage.Engine) {
		return storage.NewMemory(), nil
	})
}

func TestDiskIsAnEngine(t *testing.T) {
	runDisk(t, func(t *testing.T) storage.Disk { return storage.Disk{Dir: t.TempDir()} })
}

func TestFaultyIsAnEngine(t *testing.T) {
	runDisk(t, func(*testing.T) storage.Disk { return storagetest.NewFaulty().Disk() })
}

func runDisk(t *testing.T, disk func(t *testing.T) storage.Disk) {
	storagetest.Run(t, func(t *testing.T) (storage.Engine, func() storage.Engine) {
		d := disk(t)
		open := func() storage.Engine {
			e, err := d.Open()
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		return open(), open
	})
}

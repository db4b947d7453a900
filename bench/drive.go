package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// driveBenchmarks is the table of the benchmarks of file trees. The targets are ratios to reach.
func driveBenchmarks() []benchmark {
	node := side{name: "node", script: "drive.js"}
	made := func(what string, run measure) (b, peer side) {
		return side{name: "bevy, " + what, prepare: makeDrive, run: run},
			side{name: "node, " + what, prepareScript: "makedrive.js", script: "drive.js"}
	}
	big := work{block: 64 << 20, count: 1}
	quickBig := work{block: 4 << 20, count: 1}
	small := work{block: 4 << 10, count: 2_000}
	quickSmall := work{block: 4 << 10, count: 200}
	reading := func(w work) work {
		w.logs, w.gets = 1, w.count
		return w
	}
	listing := func(w work) work {
		w.logs = 1
		return w
	}
	getBig, getBigNode := made("a large file", measureDriveGets)
	getSmall, getSmallNode := made("small files", measureDriveGets)
	list, listNode := made("small files", measureDriveList)
	return []benchmark{
		{
			name: "drive/put-big", unit: "MiB/s", target: 3,
			what: "put one file of 64 MiB into a new drive, not fsynced on either side",
			full: big, quick: quickBig,
			bevy: side{name: "bevy", run: measureDrivePuts}, peer: node,
		},
		{
			name: "drive/get-big", unit: "MiB/s", target: 3,
			what: "get one file of 64 MiB, the second time; the first is told apart",
			full: reading(big), quick: reading(quickBig),
			bevy: getBig, peer: getBigNode,
		},
		{
			name: "drive/put-small", unit: "files/s", target: 10,
			what: "put 2,000 files of 4 KiB into a new drive, one by one, not fsynced on either side",
			full: small, quick: quickSmall,
			bevy: side{name: "bevy", run: measureDrivePuts}, peer: node,
		},
		{
			name: "drive/get-small", unit: "files/s", target: 10,
			what: "get each of 2,000 files of 4 KiB, one by one and in no order, the second time; the first is told apart",
			full: reading(small), quick: reading(quickSmall),
			bevy: getSmall, peer: getSmallNode,
		},
		{
			name: "drive/list", unit: "files/s", target: 10,
			what: "list a drive of 2,000 files with what is known of each, the second time; the first is told apart",
			full: listing(small), quick: listing(quickSmall),
			bevy: list, peer: listNode,
		},
	}
}

// drivePath is the path of a file, as in lib.js.
func drivePath(i int) string { return fmt.Sprintf("/folder-%02d/file-%06d.bin", i%40, i) }

// withDrive opens the drive in a folder, and makes it when there is none.
func withDrive(dir string, f func(*hyperdrive.Drive) error) (err error) {
	store, err := openPeer(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	drive, err := hyperdrive.Open(store, hyperdrive.Options{Durability: hypercore.Soon})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drive.Close()) }()
	return f(drive)
}

// putFiles puts the files, one by one.
func putFiles(ctx context.Context, drive *hyperdrive.Drive, at func(int) []byte, w work) error {
	for i := range w.count {
		if err := drive.Put(ctx, drivePath(i), at(i), hyperdrive.PutOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// makeDrive is makedrive.js.
func makeDrive(ctx context.Context, w work) (result, error) {
	err := withDrive(w.dir, func(drive *hyperdrive.Drive) error {
		return putFiles(ctx, drive, incompressible(w.block), w)
	})
	return result{Value: float64(w.count)}, err
}

// measureDrivePuts is drive.js with no drive yet.
func measureDrivePuts(ctx context.Context, w work) (r result, err error) {
	at := incompressible(w.block)
	err = withDrive(w.dir, func(drive *hyperdrive.Drive) error {
		took, err := timed(func() error { return putFiles(ctx, drive, at, w) })
		r = took.result(w)
		return err
	})
	return r, err
}

// measureTwice measures the second time that a drive is read.
func measureTwice(ctx context.Context, w work, read func(context.Context, *hyperdrive.Drive, work) error) (r result, err error) {
	err = withDrive(w.dir, func(drive *hyperdrive.Drive) error {
		first, err := timed(func() error { return read(ctx, drive, w) })
		if err != nil {
			return err
		}
		took, err := timed(func() error { return read(ctx, drive, w) })
		r = took.result(w)
		r.Extra["firstPerSecond"] = first.result(w).Value
		return err
	})
	return r, err
}

// measureDriveGets is drive.js with gets.
func measureDriveGets(ctx context.Context, w work) (result, error) {
	return measureTwice(ctx, w, func(ctx context.Context, drive *hyperdrive.Drive, w work) error {
		for i := range w.gets {
			data, err := drive.ReadFile(ctx, drivePath(shuffled(i, w.count)))
			if err != nil {
				return err
			}
			if len(data) != w.block {
				return fmt.Errorf("a file of %d bytes", len(data))
			}
		}
		return nil
	})
}

// measureDriveList is drive.js with a drive that is there and no gets.
func measureDriveList(ctx context.Context, w work) (result, error) {
	return measureTwice(ctx, w, func(ctx context.Context, drive *hyperdrive.Drive, w work) error {
		n := 0
		for e, err := range drive.List(ctx, "/", hyperdrive.ListOptions{}) {
			if err != nil {
				return err
			}
			if e.Blob == nil || e.Blob.ByteLength != uint64(w.block) {
				return fmt.Errorf("%s has not %d bytes", e.Path, w.block)
			}
			n++
		}
		if n != w.count {
			return fmt.Errorf("%d files, want %d", n, w.count)
		}
		return nil
	})
}

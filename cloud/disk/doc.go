// Package disk keeps a folder on the disk and one of the cloud (package folder)
// the same, both ways. What is on the disk are plain files.
//
//	watcher, err := disk.NewWatcher(clock.System)
//	keeper, err := disk.Open(disk.Options{Dir: "/home/lenka/photos", Folder: photos, Index: engine, ID: "photos", Watcher: watcher})
//	go keeper.Run(ctx)
//	fmt.Println(keeper.Status().State) // up to date
//	err = keeper.Close()
//
// It holds no contents and decides nothing about other devices: that is what the
// folder of the cloud does. What people should know is in docs/folders.md.
//
// # Three states
//
// For each path there is what the disk has, what the folder has, and what both
// had when they were last the same, which is in the index. The table at plan says
// what follows. The index is derived: without it everything is compared anew,
// equal contents agree, and others make conflicts.
//
// # What can't be lost
//
// What is on the disk is written over or removed only if it is as the index says,
// and so in the logs. An edit is put over the version that the index has: if
// another device has said something meanwhile, both stay. The index says that
// something was put once it is durable in the logs, and that something was
// written once it is durable on the disk, so that a crash between any two steps
// costs a comparison; before a file from elsewhere is put in its place the index
// names it, so that what is gone after a kill is known to have been removed. A file
// is read as a whole and put only if it did not change meanwhile. Most files being
// gone at once is a question, not a removal; a root that is gone or another is no
// removal at all.
//
// # Rounds
//
// All is done in rounds, one at a time: look at the disk, put; take out what is
// gone; write what has changed in the folder; try again what could not be
// written. Sync is one round over everything. Run does one when the Watcher, the
// folder or the clock says so, over the paths that they name. Neither waits for
// contents that only other devices have: they are written once Fetch has brought
// them.
package disk

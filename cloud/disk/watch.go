package disk

// A Watcher tells Keepers what changes on the disk.
type Watcher struct{}

func (w *Watcher) leave(k *Keeper) {}

// watch has a folder be watched.
func (k *Keeper) watch(dir string) {}

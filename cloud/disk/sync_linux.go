package disk

import "golang.org/x/sys/unix"

func (f *rooted) sync() error {
	dir, err := f.r.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}

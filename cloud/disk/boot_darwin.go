package disk

import "golang.org/x/sys/unix"

// bootID names the time since the machine was started.
func bootID() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid") // without it less is known after a kill
	return id
}

package node

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// firstHandedFile is the number of the first file that systemd hands over
// (sd_listen_fds(3)).
const firstHandedFile = 3

// Activated reports whether a service manager has started this process and has
// its sockets. Who connects to them then, before the node answers, waits for
// itself.
func Activated(env map[string]string) bool {
	return env["LISTEN_FDS"] != "" && env["LISTEN_PID"] == strconv.Itoa(os.Getpid())
}

// handed returns the listeners that a service manager has opened for this
// process, as sd_listen_fds(3) has it: the process is started when someone
// connects.
func handed(env map[string]string) (all []net.Listener, err error) {
	count, err := strconv.Atoi(env["LISTEN_FDS"])
	if err != nil || env["LISTEN_PID"] != strconv.Itoa(os.Getpid()) {
		return nil, nil // they are another process's
	}
	for fd := firstHandedFile; fd < firstHandedFile+count; fd++ {
		f := os.NewFile(uintptr(fd), fmt.Sprint("socket ", fd))
		l, err := net.FileListener(f) // has a copy, which no child gets
		_ = f.Close()
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("take socket %d from the service manager: %w", fd, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// tellManager tells systemd how the service is (sd_notify(3)), if it asked.
func tellManager(env map[string]string, state string) error {
	path := env["NOTIFY_SOCKET"]
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path) // one that begins with "@" has no file
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}

package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set for a release: go build -ldflags '-X main.version=1.2.3'.
var version = ""

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version [flags]",
		Short: "Print the version",
		Args:  wants(0, 0),
		RunE:  func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

// versionInfo is what --json prints.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"` // such as linux/amd64
}

func versionNow() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok && v.Version == "" && b.Main.Version != "" && b.Main.Version != "(devel)" {
		v.Version = b.Main.Version // as go install knows it
	}
	if v.Version == "" {
		v.Version = "development"
	}
	return v
}

func (a *app) printVersion() error {
	v := versionNow()
	if a.json {
		return written(a.printJSON(v))
	}
	_, err := io.WriteString(a.stdout, fmt.Sprintf("bevy %s %s %s\n", v.Version, v.System, v.Go))
	return written(err)
}

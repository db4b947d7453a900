package main

import (
	"context"
	"path"
	"strings"

	"github.com/spf13/cobra"
)

// completePlaces makes commands complete what is in folders of the cloud.
func (a *app) completePlaces(commands []*cobra.Command) {
	for _, cmd := range commands {
		a.completePlaces(cmd.Commands())
		_, use, _ := strings.Cut(cmd.Use, " ")
		use = strings.TrimPrefix(strings.TrimPrefix(use, "<name> "), "[")
		if strings.HasPrefix(use, "<path>") || strings.HasPrefix(use, "<folder>") {
			cmd.ValidArgsFunction = a.completePlace
		}
	}
}

// completePlace offers the folders of the cloud, and what is in one. Without a
// node, and of what is on the disk, the shell offers files.
func (a *app) completePlace(cmd *cobra.Command, args []string, word string) (words []string, _ cobra.ShellCompDirective) {
	toDisk := len(args) > 0 && (cmd.Name() == "get" || cmd.Name() == "checkout")
	if toDisk || word != "" && strings.ContainsRune("./~", rune(word[0])) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	_ = a.withFiles(ctx, func(f *files) error {
		if !strings.Contains(word, "/") {
			for _, of := range f.folders {
				if strings.HasPrefix(of.Name, word) {
					words = append(words, of.Name+"/")
				}
			}
			return nil
		}
		in := word[:strings.LastIndexByte(word, '/')+1]
		p, err := f.findPath(in)
		if err != nil {
			return err
		}
		for e, err := range f.list(ctx, p, false) {
			if err != nil {
				return err
			}
			name := in + path.Base(e.Path)
			switch {
			case e.Kind == "folder":
				name += "/"
			case strings.Contains(path.Base(e.Path), "@"):
				name += "@" // the one before is part of the name
			}
			if strings.HasPrefix(name, word) {
				words = append(words, name)
			}
		}
		return nil
	})
	if len(words) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
